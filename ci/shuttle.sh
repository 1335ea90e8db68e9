#!/usr/bin/env bash
# ci/shuttle.sh: the code of the hand-over inside a process (src/wait/queue.rs and queued_waiter.rs), under tens of thousands of
# schedules. In a target directory of its own, since every crate is built with another flag.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="${RUSTFLAGS:-} --cfg flockwork_shuttle"
target=${CARGO_TARGET_DIR:-target}/shuttle
cargo test --locked --lib --target-dir "$target" -- wait::schedules
cargo test --locked --lib --target-dir "$target" -- wait::schedules --ignored
