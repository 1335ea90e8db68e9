//! What an acquisition opens, closes and survives (rules 3, 5, 6 and 8).

use flockwork::Lock;

use crate::peer::Peer;
use crate::peer::Way::{Async, Block, Timeout, Try};
use crate::peer::lock::Call;
use crate::support::until_blocked;

/// A second `flock` on the same descriptor succeeds, and on Windows it hangs or stacks. No
/// acquisition may use the descriptor of a guard.
#[test]
fn a_failed_second_acquisition_does_not_affect_the_first() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let mut peer = Peer::with_lock(&path);
    let held = lock.lock().unwrap();
    for _ in 0..3 {
        assert!(lock.try_lock().unwrap_err().is_would_block());
        let timeout = std::time::Duration::from_millis(1);
        assert!(lock.lock_timeout(timeout).unwrap_err().is_timed_out());
        peer.expect_would_block(Call::Acquire(Try));
    }
    drop(held);
    peer.run(Call::Acquire(Timeout(100_000)));
}

// Linux only: strace injects the interruptions.
#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_system_call_is_retried() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    // A signal interrupts each thread's first three calls of flock.
    let Some(mut peer) = crate::support::strace::injected(&path, "flock:error=EINTR:when=1..3")
    else {
        return;
    };
    peer.open_lock(&path, &[]);
    for way in [Try, Block, Timeout(100_000), Async] {
        peer.run(Call::Acquire(way));
        peer.unlock();
    }
}

// Linux only: counts descriptors through `/proc`.
#[cfg(target_os = "linux")]
#[test]
fn an_acquisition_opens_nothing_and_leaves_one_descriptor() {
    limit!();
    crate::support::alone(
        "protocol::acquiring::an_acquisition_opens_nothing_and_leaves_one_descriptor",
        || {
            use crate::support::descriptors;
            use notify::Watcher as _;
            let dir = tempfile::tempdir().unwrap();
            let before = descriptors();
            let lock = Lock::open(dir.path().join("a.lock")).unwrap();
            let cycle = || {
                drop(lock.lock().unwrap());
                drop(lock.try_lock().unwrap());
                drop(lock.lock_timeout(std::time::Duration::from_secs(100)).unwrap());
                drop(futures_lite::future::block_on(lock.lock_async()).unwrap());
            };
            cycle();
            assert_eq!(descriptors(), before + 1);
            let (send, events) = std::sync::mpsc::channel();
            let mut watcher = notify::recommended_watcher(send).unwrap();
            watcher.watch(dir.path(), notify::RecursiveMode::NonRecursive).unwrap();
            (0..100).for_each(|_| cycle());
            // The watch reports this file first, so it would have reported any earlier one.
            std::fs::write(dir.path().join("last"), "").unwrap();
            let first = events.recv().unwrap().unwrap();
            assert!(first.paths[0].ends_with("last"), "{first:?}");
            drop(watcher);
            drop(lock);
            let left = || descriptors() == before;
            crate::support::eventually("descriptors are closed", left);
        },
    );
}

#[test]
fn each_of_many_killed_holders_admits_the_next_one() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let mut holder = Peer::with_lock(&path);
    holder.lock();
    for round in 0..12 {
        let mut next = Peer::with_lock(&path);
        next.begin(Call::Acquire([Block, Timeout(100_000), Async][round % 3]));
        until_blocked(&path, 1);
        holder.kill();
        next.finish();
        holder = next;
    }
}
