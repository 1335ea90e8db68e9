#!/usr/bin/env bash
# Tests with the oldest Rust that Cargo.toml promises, for real.
#   ci/msrv.sh [ARGS OF cargo]       (default: test --locked --features cli)
# Uses rustup's toolchain of that version where there is one. Else, as root on Debian, the compiler of trixie, which is
# that version, in a system of its own (some 800 MB in $MSRV_HOME, by default ~/.cache/flockwork-msrv). Where neither can
# be had it says so, and ends with 0; with --required, with 1.
set -euo pipefail
cd "$(dirname "$0")/.."
required=0
if [ "${1-}" = --required ]; then required=1; shift; fi
[ $# -gt 0 ] || set -- test --locked --features cli
version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
home=${MSRV_HOME:-$HOME/.cache/flockwork-msrv}
system=$home/trixie

left_out() {
    printf '== Rust %s: left out, %s\n' "$version" "$1"
    exit "$required"
}

toolchain=$(rustup toolchain list 2> /dev/null | sed -n "s/^\($version\([.-]\S*\)\?\)\( .*\)\?$/\1/p" | head -n 1)
if [ -n "$toolchain" ]; then
    printf '== Rust %s: rustup has %s\n' "$version" "$toolchain"
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/msrv} exec rustup run "$toolchain" cargo "$@"
fi

[ "$(id -u)" = 0 ] || left_out "not installed; as root on Debian, this would unpack it"
if [ ! -e "$system/usr/bin/cargo" ]; then
    command -v apt-get > /dev/null || left_out "not installed, and this is no Debian to take it from"
    command -v mmdebstrap > /dev/null || apt-get -qq install -y --no-install-recommends mmdebstrap > /dev/null
    # The mirror that this machine is set up for.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
        sed -n 's#/*$##; /\/debian$/p' | head -n 1)
    [ -n "$mirror" ] || left_out "apt knows no mirror of Debian"
    mkdir -p "$home"
    rm -rf "$system.new"
    # With what the tests use, as .ci/run has it.
    mmdebstrap --quiet --variant=minbase \
        --include=rustc,cargo,gcc,libc6-dev,util-linux,procps,python3,strace,inotify-tools \
        trixie "$system.new" \
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" ||
        left_out "trixie cannot be unpacked"
    mv "$system.new" "$system"
fi
found=$(chroot "$system" rustc --version) || left_out "a chroot is not permitted here"
case $found in
"rustc $version".*) printf '== Rust %s: trixie has %s\n' "$version" "$found" ;;
*) left_out "trixie has $found" ;;
esac

# What it needs is fetched here: in there, cargo has no network.
cargo fetch --locked --quiet
mkdir -p "$home/target" "$system"/{project,cargo,target}
export system home cargo_home=${CARGO_HOME:-$HOME/.cargo}
# Mounts of a namespace of their own end with it.
exec unshare --mount bash -euc '
    mount --bind "$PWD" "$system/project"
    mount --bind "$cargo_home" "$system/cargo"
    mount --bind "$home/target" "$system/target"
    mount --rbind /proc "$system/proc"
    mount --rbind /dev "$system/dev"
    mount -t tmpfs tmpfs "$system/tmp"
    exec chroot "$system" env -i HOME=/root PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 CARGO_HOME=/cargo \
        CARGO_TARGET_DIR=/target CARGO_NET_OFFLINE=true ${RUST_BACKTRACE:+RUST_BACKTRACE=1} \
        sh -c "cd /project && exec \"\$@\"" sh cargo "$@"
' bash "$@"
