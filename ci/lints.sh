#!/usr/bin/env bash
# ci/lints.sh: runs clippy on all targets, the tests among them, with fewer features than `.ci/run`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo clippy --locked --no-default-features --all-targets -- -D warnings
cargo clippy --locked --workspace --all-targets -- -D warnings
