#!/usr/bin/env bash
# ci/shuttle.sh: runs the code of the hand-over inside a process (src/wait/queue.rs and
# queued_waiter.rs) under tens of thousands of schedules. It has a separate target directory, since
# every crate is built with another flag.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="${RUSTFLAGS:-} --cfg flockwork_shuttle"
target=${CARGO_TARGET_DIR:-target}/shuttle
cargo test --locked --lib --target-dir "$target" -- wait::schedules
cargo test --locked --lib --target-dir "$target" -- wait::schedules --ignored
