#!/usr/bin/env bash
# ci/wasm.sh [--required]: runs a program under WASI, with node, which checks that each operation
# returns an error of kind `Unsupported` and creates nothing. Uses rustup's target wasm32-wasip1 if
# it is installed, and otherwise the compiler of the Wine tools with Debian's wasi-libc and lld. If
# neither is available it prints a line and exits with 0, or with 1 if --required is given.
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

command -v node > /dev/null || left_out "node is not installed"
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
    left_out "neither rustup's target wasm32-wasip1 nor the Wine tools' compiler with wasi-libc and lld is installed"
fi
node --no-warnings "$project/ci/wasm/run.mjs" "$CARGO_TARGET_DIR/wasm32-wasip1/debug/program.wasm" "$work/directory"
