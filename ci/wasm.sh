#!/usr/bin/env bash
# ci/wasm.sh: runs a program under WASI, with node, that sees that nothing is locked there and that everything says so.
# Uses rustup's target wasm32-wasip1 where it is installed, else the Wine tools' compiler with Debian's wasi-libc and lld.
# Where neither is there it says so, and ends with 0; with --required, with 1.
set -euo pipefail
cd "$(dirname "$0")/.."
required=0
if [ "${1-}" = --required ]; then required=1; fi
tools=${CROSSCHECK_HOME:-$HOME/.cache/crosscheck}
libc=/usr/lib/wasm32-wasi

left_out() {
    printf '== WASI: left out, %s\n' "$1"
    exit "$required"
}

command -v node > /dev/null || left_out "there is no node"
project=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src" "$work/directory"
cp ci/wasm/main.rs "$work/src"
cp Cargo.lock "$work"
cat > "$work/Cargo.toml" << END
[package]
name = "program"
edition = "2024"
[dependencies]
flockwork = { path = "$project" }
[workspace]
END
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$project/target}/wasm
build=(cargo build --quiet --target wasm32-wasip1)
cd "$work"
if rustup target list --installed 2> /dev/null | grep -qx wasm32-wasip1; then
    "${build[@]}"
elif [ -e "$tools/env.sh" ] && [ -e $libc/libc.a ] && command -v wasm-ld > /dev/null; then
    # shellcheck source=/dev/null
    . "$tools/env.sh"
    export RUSTFLAGS="-Clink-self-contained=no -Clinker=wasm-ld -Clink-arg=$libc/crt1-command.o -Clink-arg=-L$libc -Clink-arg=-lc -Clink-arg=--allow-undefined"
    "${build[@]}" -Zbuild-std=std,panic_abort
else
    left_out "neither rustup's target wasm32-wasip1, nor the Wine tools' compiler with wasi-libc and lld"
fi
node --no-warnings "$project/ci/wasm/run.mjs" "$CARGO_TARGET_DIR/wasm32-wasip1/debug/program.wasm" "$work/directory"
