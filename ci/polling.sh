#!/usr/bin/env bash
# ci/polling.sh: runs the tests of waits without the feature `watch`, which poll.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}
ci/limited.sh 1200 cargo test --locked --no-default-features --lib --test it -- \
    barrier:: event:: once:: wait::
