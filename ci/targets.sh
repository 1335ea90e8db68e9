#!/usr/bin/env bash
# ci/targets.sh [--required] [TARGET]...: type-checks for other systems, the library without default
# features and then everything with all, and with warnings denied. Uses rustup's target if it is
# installed (`rustup target add TARGET`), and otherwise the compiler of the Wine tools, which builds
# the standard library as well. A target that neither has is reported as left out. With --required
# that is an error.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
required=0
if [ "${1-}" = --required ]; then required=1; shift; fi
# The last four targets have no locks. There each operation returns an error of kind `Unsupported`.
if [ $# -eq 0 ]; then
    set -- x86_64-apple-darwin aarch64-apple-darwin x86_64-unknown-freebsd x86_64-unknown-netbsd \
        x86_64-unknown-openbsd x86_64-unknown-illumos x86_64-pc-windows-gnu x86_64-pc-windows-msvc \
        aarch64-linux-android i686-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl \
        x86_64-pc-solaris wasm32-wasip1 wasm32-unknown-unknown wasm32-unknown-emscripten
fi
tools=${CROSSCHECK_HOME:-$HOME/.cache/crosscheck}
installed=$(rustup target list --installed 2> /dev/null)

# Prints the parts to check for a target. By default these are the package and the benches. The
# command is useless on wasm, and the dependencies of the tests and benches do not build on targets
# without locks.
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
    if grep -qx "$target" <<< "$installed"; then
        check=(env RUSTFLAGS="-D warnings" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/targets" cargo check)
    elif [ -e "$tools/env.sh" ]; then
        # shellcheck disable=SC2016 # the inner shell expands $0 and $@
        check=(env CARGO_TARGET_DIR="$tools/target-check/$target" bash -c '. "$0" && exec cargo check -Zbuild-std "$@"' "$tools/env.sh")
    else
        printf '%-28s left out: neither rustup nor the Wine tools have it\n' "$target"
        failed=$((failed | required))
        continue
    fi
    result=ok
    # The library alone comes first, since other parts enable the features of the tests.
    for part in "--lib --no-default-features" "$(what "$target")"; do
        # Cargo hides warnings of dependencies, so each printed warning is about flockwork.
        # shellcheck disable=SC2086 # the part is a list of words
        if ! printed=$("${check[@]}" "${flags[@]}" $part 2>&1) || grep -q '^warning' <<< "$printed"; then
            result=$(printf 'FAILED: %s\n%s' "$part" "$printed")
            failed=1
        fi
    done
    printf '%-28s %s\n' "$target" "$result"
done
exit "$failed"
