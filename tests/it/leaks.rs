//! Descriptors, threads, watches and memory do not grow: their numbers are the same after a
//! thousand and after ten thousand rounds of each primitive, of timeouts, of dropped futures and of
//! handles. `FLOCKWORK_LEAKS=all` runs a hundred thousand rounds.

use std::path::Path;
use std::time::Duration;

use flockwork::{Barrier, Error, Event, Lock, Once, Options, RwLock, Semaphore, SharedFile};
use futures_lite::future::block_on;

use crate::support::{alone, assert_waits, descriptors, eventually, threads, watches};

/// The system resources that this process uses.
#[derive(Debug, PartialEq, Eq)]
struct Usage {
    descriptors: usize,
    threads: usize,
    watches: usize,
}

impl Usage {
    fn now() -> Self {
        let watches = watches(std::process::id()).iter().map(Vec::len).sum();
        Self { descriptors: descriptors(), threads: threads(), watches }
    }

    fn is_at_most(&self, other: &Self) -> bool {
        self.descriptors <= other.descriptors
            && self.threads <= other.threads
            && self.watches <= other.watches
    }
}

/// The private writable memory of this process in KiB. It counts untouched pages as well, so memory
/// pressure from other programs does not reduce it.
fn data() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmData:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn times(normal: u32) -> u32 {
    match std::env::var("FLOCKWORK_LEAKS") {
        Ok(all) if all == "all" => 100_000,
        _ => normal,
    }
}

/// The heap may grow by this much over all rounds. A leak of a few bytes a round exceeds it; the
/// allocator's reserves do not.
const TOLERANCE_KIB: u64 = 512;
/// A new maximum of threads allocates a stack, which the C library keeps. That happens once,
/// whereas a leak repeats in each window.
const WINDOWS: u32 = 4;

/// Runs a tenth of the rounds to warm up caches and the heap, then all of them, and compares.
#[track_caller]
fn assert_no_growth(what: &str, rounds: u32, mut round: impl FnMut()) {
    for _ in 0..rounds / 10 {
        round();
    }
    settle();
    let before_rounds = Usage::now();
    let mut grown = Vec::new();
    for _ in 0..WINDOWS {
        let before = data();
        for _ in 0..rounds {
            round();
        }
        // An idle helper thread and an unused watch end a moment later.
        let mut usage = Usage::now();
        eventually(&format!("{what}: no more than {before_rounds:?}"), || {
            usage = Usage::now();
            usage.is_at_most(&before_rounds)
        });
        grown.push(data().saturating_sub(before));
        if grown.last().is_some_and(|grown| *grown <= TOLERANCE_KIB) {
            let line = format!("{what}: {rounds} rounds, {usage:?}, {grown:?} KiB more\n");
            let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
            return;
        }
    }
    panic!("{what}: {grown:?} KiB more with each {rounds} rounds");
}

/// Waits until ended threads and closed descriptors have disappeared.
fn settle() {
    let mut last = Usage::now();
    eventually("the process settles", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = Usage::now();
        std::mem::replace(&mut last, now) == last
    });
}

#[test]
fn acquired_and_released_locks_leave_nothing() {
    limit!();
    alone("leaks::acquired_and_released_locks_leave_nothing", || {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let lock = Lock::open(path("lock")).unwrap();
        assert_no_growth("Lock, lock", times(10_000), || drop(lock.lock().unwrap()));
        assert_no_growth("Lock, try", times(10_000), || drop(lock.try_lock().unwrap()));
        assert_no_growth("Lock, timeout", times(10_000), || drop(lock.lock_timeout(LONG).unwrap()));
        assert_no_growth("Lock, async", times(10_000), || {
            drop(block_on(lock.lock_async()).unwrap());
        });
        let labelled = Options::new().label("x").open_lock(path("lock")).unwrap();
        assert_no_growth("Lock, with a record", times(1000), || drop(labelled.lock().unwrap()));
        let rw = RwLock::open(path("rw")).unwrap();
        assert_no_growth("RwLock, read", times(10_000), || drop(rw.read().unwrap()));
        assert_no_growth("RwLock, write", times(10_000), || drop(rw.write().unwrap()));
        assert_no_growth("RwLock, downgrade", times(5000), || {
            drop(rw.write_timeout(LONG).unwrap().downgrade().unwrap());
        });
        let pool = Semaphore::open(path("pool"), 3).unwrap();
        assert_no_growth("Semaphore", times(10_000), || drop(pool.acquire().unwrap()));
        assert_no_growth("Semaphore, many", times(5000), || {
            drop(pool.acquire_many_timeout(3, LONG).unwrap());
        });
        assert_no_growth("Semaphore, resize", times(500), || {
            pool.set_capacity(5).unwrap();
            drop(pool.acquire_many(5).unwrap());
            pool.set_capacity(3).unwrap();
        });
        assert!(watches(std::process::id()).is_empty(), "no call waited");
    });
}

#[test]
fn events_once_and_shared_files_leave_nothing() {
    limit!();
    alone("leaks::events_once_and_shared_files_leave_nothing", || {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let event = Event::open(path("event")).unwrap();
        assert_no_growth("Event, set, wait, clear", times(10_000), || {
            assert!(event.set().unwrap());
            event.wait().unwrap();
            assert!(event.clear().unwrap());
            event.wait_cleared().unwrap();
        });
        assert_no_growth("Event, payload and consume", times(1000), || {
            event.set_with(b"payload").unwrap();
            assert_eq!(event.consume().unwrap(), b"payload");
        });
        let once = Once::open(path("once")).unwrap();
        assert_no_growth("Once, call and reset", times(5000), || {
            once.call_once(|| Ok::<_, Error>(())).unwrap();
            assert!(once.reset().unwrap());
        });
        let file = SharedFile::open(path("file")).unwrap();
        assert_no_growth("SharedFile, write and read", times(2000), || {
            file.write("contents").unwrap();
            assert_eq!(file.read().unwrap(), b"contents");
        });
        let barrier = Barrier::open(path("barrier"), 1).unwrap();
        assert_no_growth("Barrier, wait", times(2000), || {
            assert!(barrier.wait().unwrap().is_leader());
        });
        let mut round = 0_u32;
        assert_no_growth("SharedFile, update", times(2000), || {
            round += 1;
            file.update(|contents| {
                *contents = round.to_string().into();
                Ok::<_, Error>(())
            })
            .unwrap();
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6, "{:?}", names(dir.path()));
    });
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

const LONG: Duration = Duration::from_secs(1000);

#[test]
fn cancelled_waits_leave_nothing() {
    limit!();
    alone("leaks::cancelled_waits_leave_nothing", || {
        const SHORT: Duration = Duration::from_micros(50);
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let lock = Lock::open(path("lock")).unwrap();
        let held = lock.lock().unwrap();
        assert_no_growth("Lock, would block", times(10_000), || assert!(lock.try_lock().is_err()));
        assert_no_growth("Lock, timed out", times(1000), || {
            assert!(lock.lock_timeout(SHORT).is_err());
        });
        assert_no_growth("Lock, dropped", times(10_000), || assert_waits(lock.lock_async()));
        drop(held);
        let rw = RwLock::open(path("rw")).unwrap();
        let held = rw.write().unwrap();
        assert_no_growth("RwLock, timed out", times(500), || {
            assert!(rw.read_timeout(SHORT).is_err() && rw.write_timeout(SHORT).is_err());
        });
        assert_no_growth("RwLock, dropped", times(5000), || {
            assert_waits(rw.read_async());
            assert_waits(rw.write_async());
        });
        drop(held);
        let pool = Semaphore::open(path("pool"), 2).unwrap();
        let held = pool.acquire_many(2).unwrap();
        assert_no_growth("Semaphore, timed out", times(500), || {
            assert!(pool.acquire_timeout(SHORT).is_err());
        });
        assert_no_growth("Semaphore, dropped", times(5000), || {
            assert_waits(pool.acquire_many_async(2));
        });
        drop(held);
        let event = Event::open(path("event")).unwrap();
        assert_no_growth("Event, timed out", times(500), || {
            assert!(event.wait_timeout(SHORT).is_err() && event.consume_timeout(SHORT).is_err());
        });
        assert_no_growth("Event, dropped", times(5000), || {
            assert_waits(event.wait_async());
            assert_waits(event.consume_async());
        });
        let once = Once::open(path("once")).unwrap();
        assert_no_growth("Once, timed out", times(500), || {
            assert!(once.wait_timeout(SHORT).is_err());
        });
        assert_no_growth("Once, dropped", times(5000), || assert_waits(once.wait_async()));
        let barrier = Barrier::open(path("barrier"), 2).unwrap();
        assert_no_growth("Barrier, timed out and reset", times(500), || {
            assert!(barrier.wait_timeout(SHORT).is_err());
            barrier.reset().unwrap();
        });
        assert_no_growth("Barrier, dropped and reset", times(2000), || {
            assert_waits(barrier.wait_async());
            barrier.reset().unwrap();
        });
        let file = SharedFile::open(path("file")).unwrap();
        let held = file.lock_exclusive().unwrap();
        assert_no_growth("SharedFile, timed out", times(500), || {
            assert!(file.lock_shared_timeout(SHORT).is_err());
        });
        assert_no_growth("SharedFile, dropped", times(5000), || {
            assert_waits(file.write_async("x"));
        });
        drop(held);
        // The next caller can still acquire what the earlier waits gave up on.
        drop((lock.lock().unwrap(), rw.write().unwrap(), pool.acquire_many(2).unwrap()));
        file.write("x").unwrap();
    });
}

#[test]
fn handles_that_are_opened_and_dropped_leave_nothing() {
    limit!();
    alone("leaks::handles_that_are_opened_and_dropped_leave_nothing", || {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert_no_growth("Lock, opened", times(5000), || {
            drop(Lock::open(path("lock")).unwrap().lock().unwrap());
        });
        assert_no_growth("RwLock, opened", times(2000), || {
            drop(RwLock::open(path("rw")).unwrap().read().unwrap());
        });
        assert_no_growth("Semaphore, opened", times(1000), || {
            drop(Semaphore::open(path("pool"), 2).unwrap().acquire().unwrap());
        });
        assert_no_growth("Event, opened and waited for", times(300), || {
            let event = Event::open(path("event")).unwrap();
            assert!(event.wait_timeout(Duration::from_micros(50)).is_err());
        });
        assert_no_growth("Once, opened", times(2000), || {
            assert!(!Once::open(path("once")).unwrap().is_done().unwrap());
        });
        assert_no_growth("Barrier, opened", times(2000), || {
            assert_eq!(Barrier::open(path("barrier"), 2).unwrap().waiting().unwrap(), 0);
        });
        assert_no_growth("SharedFile, opened", times(2000), || {
            assert!(SharedFile::open(path("file")).unwrap().read().is_err());
        });
        assert_no_growth("inspect", times(500), || {
            let status = flockwork::inspect(path("lock")).unwrap();
            assert!(status.holders().is_empty() && !status.is_held());
            assert!(flockwork::inspect(path("pool")).unwrap().held_slots().is_empty());
        });
    });
}
