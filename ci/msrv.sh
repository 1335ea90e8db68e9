#!/usr/bin/env bash
# ci/msrv.sh [--required] [--embedder | ARGS OF cargo]: runs cargo (by default `test --locked
# --features cli`) with the oldest Rust that Cargo.toml promises. Uses rustup's toolchain of that version if it is
# installed. Otherwise, as root on Debian, the script unpacks Debian trixie, whose compiler has that
# version, into a directory ($MSRV_HOME, by default ~/.cache/flockwork-msrv; some 800 MB) and runs
# cargo in a chroot. If neither is possible it prints a line and exits with 0, or with 1 if
# --required is given.
#
# With --embedder, which needs rustup's toolchain, it checks programs that use flockwork and have no
# Cargo.lock: one of the edition 2024, one of an older edition after the command that the README
# gives, and one of an older edition without the feature `watch`.
set -euo pipefail
cd "$(dirname "$0")/.."
required=0
if [ "${1-}" = --required ]; then required=1; shift; fi
embedder=0
if [ "${1-}" = --embedder ]; then embedder=1; shift; fi
[ $# -gt 0 ] || set -- test --locked --features cli
version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
home=${MSRV_HOME:-$HOME/.cache/flockwork-msrv}
system=$home/trixie

left_out() {
    printf '== Rust %s: left out, %s\n' "$version" "$1"
    exit "$required"
}

toolchain=$(rustup toolchain list 2> /dev/null | sed -n "s/^\($version\([.-]\S*\)\?\)\( .*\)\?$/\1/p" | head -n 1)
# embedder EDITION FEATURES [COMMAND]...: checks a program, after the command.
embedder() {
    local edition=$1 features=$2
    shift 2
    rm -rf "$work/program"
    mkdir -p "$work/program/src"
    echo 'fn main() { drop(flockwork::Lock::open("a.lock")); }' > "$work/program/src/main.rs"
    printf '[package]\nname = "program"\nedition = "%s"\n[dependencies]\nflockwork = { path = "%s"%s }\n[workspace]\n' \
        "$edition" "$project" "$features" > "$work/program/Cargo.toml"
    (
        cd "$work/program"
        rustup run "$toolchain" cargo generate-lockfile --quiet
        [ $# = 0 ] || rustup run "$toolchain" "$@"
        CARGO_TARGET_DIR=$work/target rustup run "$toolchain" cargo check --quiet
    )
    printf '== Rust %s: ok in a program of the edition %s%s\n' "$version" "$edition" "$features"
}

if [ $embedder = 1 ]; then
    [ -n "$toolchain" ] || left_out "--embedder needs rustup's toolchain"
    project=$PWD
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    embedder 2024 ""
    embedder 2021 "" env CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback \
        cargo update --quiet notify notify-types
    embedder 2021 ", default-features = false"
    exit
fi
if [ -n "$toolchain" ]; then
    printf '== Rust %s: rustup has %s\n' "$version" "$toolchain"
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/msrv} exec rustup run "$toolchain" cargo "$@"
fi

[ "$(id -u)" = 0 ] || left_out "not installed (as root on Debian, this script unpacks it)"
if [ ! -e "$system/usr/bin/cargo" ]; then
    command -v apt-get > /dev/null || left_out "not installed, and this system has no apt-get"
    command -v mmdebstrap > /dev/null || apt-get -qq install -y --no-install-recommends mmdebstrap > /dev/null
    # The mirror that this machine uses.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
        sed -n 's#/*$##; /\/debian$/p' | head -n 1)
    [ -n "$mirror" ] || left_out "apt knows no mirror of Debian"
    mkdir -p "$home"
    rm -rf "$system.new"
    # The packages are those that the tests use, as in .ci/run.
    mmdebstrap --quiet --variant=minbase \
        --include=rustc,cargo,gcc,libc6-dev,util-linux,procps,python3,strace,inotify-tools \
        trixie "$system.new" \
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" ||
        left_out "Debian trixie could not be unpacked"
    mv "$system.new" "$system"
fi
found=$(chroot "$system" rustc --version) || left_out "a chroot is not permitted here"
case $found in
"rustc $version".*) printf '== Rust %s: trixie has %s\n' "$version" "$found" ;;
*) left_out "trixie has $found" ;;
esac

# The dependencies are fetched first, since cargo has no network in the chroot.
cargo fetch --locked --quiet
mkdir -p "$home/target" "$system"/{project,cargo,target}
export system home cargo_home=${CARGO_HOME:-$HOME/.cargo}
# The mounts are in a separate namespace and end with it.
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
