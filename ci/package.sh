#!/usr/bin/env bash
# ci/package.sh: packs the crate, prints the files and the size, and runs the tests that it contains
# from the unpacked copy: those of the library, of the command and of the documentation.
set -euo pipefail
cd "$(dirname "$0")/.."
MAX_KIB=520
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo package --list --allow-dirty | sed 's#/[^/]*\.rs$#/*.rs#' | sort | uniq -c
cargo package --quiet --locked --no-verify --allow-dirty 2> /dev/null
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
crate=$target/package/flockwork-$version.crate
kib=$((($(stat -c %s "$crate") + 1023) / 1024))
printf '== %s KiB\n' "$kib"
[ "$kib" -le $MAX_KIB ] || { echo "more than $MAX_KIB KiB" >&2; exit 1; }
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tar -xzf "$crate" -C "$copy"
cd "$copy/flockwork-$version"
# The dependencies are those of the repository, so they are not built again.
export CARGO_TARGET_DIR=$target
cargo build --locked --no-default-features
cargo test --locked --features cli
