#!/usr/bin/env bash
# Builds the package and the benches, in a copy, with the oldest versions of the direct dependencies that
# each Cargo.toml allows.
#   ci/minimal-versions.sh [ARGS OF cargo]       (default: check --workspace --all-targets --features cli)
# Versions of what those depend on are as in Cargo.lock, where that fits.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- check --workspace --all-targets --features cli
target=${CARGO_TARGET_DIR:-$PWD/target}/minimal
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -cf - | tar -xf - -C "$copy"
cd "$copy"
# The option is an unstable one: of a nightly cargo, or of a stable one that is told to take itself for one.
RUSTC_BOOTSTRAP=1 cargo update --quiet -Z direct-minimal-versions
cargo tree --workspace --edges normal,build,dev --depth 1 --target all --features cli | sort -u
CARGO_TARGET_DIR=$target cargo "$@" --locked
