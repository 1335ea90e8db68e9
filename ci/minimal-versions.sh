#!/usr/bin/env bash
# ci/minimal-versions.sh [ARGS OF cargo]: builds a copy of the package and the benches with the
# oldest versions of the direct dependencies that each Cargo.toml allows. Indirect dependencies have
# their versions from Cargo.lock where these fit. The default arguments are
#   check --workspace --all-targets --features cli
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- check --workspace --all-targets --features cli
target=${CARGO_TARGET_DIR:-$PWD/target}/minimal
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -cf - | tar -xf - -C "$copy"
cd "$copy"
# The option is unstable, so a stable cargo accepts it only with RUSTC_BOOTSTRAP.
RUSTC_BOOTSTRAP=1 cargo update --quiet -Z direct-minimal-versions
cargo tree --workspace --edges normal,build,dev --depth 1 --target all --features cli | sort -u
CARGO_TARGET_DIR=$target cargo "$@" --locked
