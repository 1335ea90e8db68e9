#!/usr/bin/env bash
# ci/thorough.sh: the checks that `.ci/run` leaves out, since together they would exceed its limit of
# half an hour: clippy and the tests with fewer features, the packaged crate, the benches, the
# models, and the tests under Wine. They take up to an hour.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0

step() { printf '\n== %s\n' "$*"; }

step lints
# The library alone, since the tests enable its features `serde`, `testing` and `tracing`.
for features in "--features cli" "--features serde" "--features tracing" "--features watch"; do
    # shellcheck disable=SC2086 # these are two words
    cargo clippy --locked --no-default-features $features -- -D warnings
done
cargo clippy --locked --no-default-features --all-targets -- -D warnings
cargo clippy --locked --workspace --all-targets -- -D warnings
cargo clippy --locked --workspace --all-targets --features cli -- -D warnings

step documentation
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --no-default-features

step "waits that poll, without the feature \`watch\`"
ci/polling.sh

step "the package"
ci/limited.sh 1800 ci/package.sh

# Each bench runs once, in the tests' profile: a release build of their peers would take five
# minutes of one core.
step "benches run"
ci/limited.sh 1800 cargo test --locked --package flockwork-benches --bench '*'

step "models"
ci/limited.sh 3600 ci/models.sh
ci/limited.sh 900 ci/shuttle.sh

ci/windows.sh
step "all passed"
