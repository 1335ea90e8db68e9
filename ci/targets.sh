#!/usr/bin/env bash
# Type-checks for systems that are not here, with all features and with warnings denied.
#   ci/targets.sh [TARGET]...
# Uses rustup's targets where they are installed (`rustup target add TARGET`), the Wine tools' compiler otherwise, which
# builds the standard library itself. A target that neither has is named as left out; with --required that is an error.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
required=0
if [ "${1-}" = --required ]; then required=1; shift; fi
# Those that have locks, and then those that have none, where all that is promised is an error that says so.
if [ $# -eq 0 ]; then
    set -- x86_64-apple-darwin aarch64-apple-darwin x86_64-unknown-freebsd x86_64-unknown-netbsd \
        x86_64-unknown-openbsd x86_64-unknown-illumos x86_64-pc-windows-gnu x86_64-pc-windows-msvc \
        aarch64-linux-android i686-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl \
        x86_64-pc-solaris wasm32-wasip1 wasm32-unknown-unknown wasm32-unknown-emscripten
fi
tools=${CROSSCHECK_HOME:-$HOME/.cache/crosscheck}
installed=$(rustup target list --installed 2> /dev/null)

# Prints the parts to check for a target: the package and the benches, but not the command for wasm, where it is
# useless, and neither tests nor benches for targets on which they never run and their crates do not build.
what() {
    case $1 in
    wasm32-*) echo "--lib" ;;
    *-solaris) echo "--lib --bins --features cli" ;;
    *) echo "--workspace --all-targets --features cli" ;;
    esac
}

failed=0
for target; do
    flags=(--locked --quiet --target "$target")
    # shellcheck disable=SC2207 # words
    flags+=($(what "$target"))
    if grep -qx "$target" <<< "$installed"; then
        check=(env RUSTFLAGS="-D warnings" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/targets" cargo check)
    elif [ -e "$tools/env.sh" ]; then
        # shellcheck disable=SC2016 # $0 and $@ are the inner shell's
        check=(env CARGO_TARGET_DIR="$tools/target-check/$target" bash -c '. "$0" && exec cargo check -Zbuild-std "$@"' "$tools/env.sh")
    else
        printf '%-28s left out: neither rustup nor the Wine tools have it\n' "$target"
        failed=$((failed | required))
        continue
    fi
    # Warnings of other crates are not shown, so what is printed is ours.
    if printed=$("${check[@]}" "${flags[@]}" 2>&1) && ! grep -q '^warning' <<< "$printed"; then
        printf '%-28s ok\n' "$target"
    else
        printf '%-28s FAILED\n%s\n' "$target" "$printed"
        failed=1
    fi
done
exit "$failed"
