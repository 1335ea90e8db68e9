//! The waiting engine: what a wait costs, which waiter acquires the lock, and what a timeout leaves
//! behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flockwork::{Lock, Options};

use crate::peer::Way::Timeout;
use crate::peer::lock::Call;
use crate::peer::{Peer, label};
use crate::support::{
    alone, assert_waits, blocked, descriptors, eventually, threads, until_blocked,
};

/// Gives up ten thousand times while another process holds the lock, and counts the threads and
/// descriptors that remain.
fn ten_thousand(name: &str, give_up: impl Fn(&Lock, u32)) {
    alone(name, || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let mut holder = Peer::with_lock(&path);
        holder.lock();
        let lock = Lock::open(&path).unwrap();
        let (threads_before, descriptors_before) = (threads(), descriptors());
        for round in 0..10_000 {
            give_up(&lock, round);
        }
        assert!(threads() <= threads_before + 1, "{} of {threads_before}", threads());
        assert!(descriptors() <= descriptors_before, "{} of {descriptors_before}", descriptors());
        // The next wait uses the remaining helper, and no release is lost.
        crate::support::running::scope(|scope| {
            let waiter = scope.spawn(|| lock.lock_timeout(Duration::from_secs(100)).map(drop));
            until_blocked(&path, 1);
            holder.unlock();
            waiter.join().unwrap().unwrap();
        });
        drop(lock.lock().unwrap());
        if cfg!(target_os = "linux") {
            eventually("the helper ends", || threads() <= threads_before);
            eventually("its descriptor is closed", || descriptors() <= descriptors_before);
        }
    });
}

#[test]
fn ten_thousand_timeouts_leave_one_thread_and_no_descriptor() {
    limit!();
    let name = "wait::engine::ten_thousand_timeouts_leave_one_thread_and_no_descriptor";
    ten_thousand(name, |lock, round| {
        // The timeout is nearly always long enough for the wait to queue.
        assert!(lock.lock_timeout(Duration::from_micros(30)).unwrap_err().is_timed_out());
        // The helper uses the kept descriptor, so this try opens another one. (Wine closes the
        // descriptors of a locked file only after it is unlocked, and cannot keep ten thousand of
        // them open.)
        if round % 50 == 0 {
            assert!(lock.try_lock().unwrap_err().is_would_block());
        }
    });
}

#[test]
fn ten_thousand_dropped_futures_leave_at_most_one_thread() {
    limit!();
    let name = "wait::engine::ten_thousand_dropped_futures_leave_at_most_one_thread";
    ten_thousand(name, |lock, _| assert_waits(lock.lock_async()));
}

#[test]
fn two_hundred_threads_and_eight_processes_all_acquire() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("a.lock"), dir.path().join("number"));
    std::fs::write(&file, "0").unwrap();
    let lock = Lock::open(&path).unwrap();
    let first = lock.lock().unwrap();
    let mut peers: Vec<Peer> = (0..8).map(|_| Peer::with_lock(&path)).collect();
    crate::support::running::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                let _guard = lock.lock_timeout(Duration::from_secs(1000)).unwrap();
                let number: u64 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
                std::fs::write(&file, (number + 1).to_string()).unwrap();
            });
        }
        for peer in &mut peers {
            peer.begin(Call::Count(file.clone(), 25, Timeout(1_000_000)));
        }
        until_blocked(&path, 9); // One helper serves all 200 threads.
        drop(first);
    });
    for peer in &mut peers {
        peer.finish();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "400");
}

#[test]
fn waiters_of_one_process_acquire_in_order_of_arrival() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::open(dir.path().join("a.lock")).unwrap();
    let first = lock.lock().unwrap();
    let mut crowd: Vec<_> = (0..20).map(|_| Box::pin(lock.lock_async())).collect();
    for future in &mut crowd {
        assert_waits(&mut *future);
    }
    drop(first);
    for future in crowd {
        // Only the first remaining future can finish here: the others acquire after it has
        // released.
        drop(futures_lite::future::block_on(future).unwrap());
    }
}

#[test]
fn a_thousand_waiting_futures_cost_one_thread() {
    limit!();
    alone("wait::engine::a_thousand_waiting_futures_cost_one_thread", || {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::open(dir.path().join("a.lock")).unwrap();
        let first = lock.lock().unwrap();
        let before = threads();
        let mut crowd: Vec<_> = (0..1000).map(|_| Box::pin(lock.lock_async())).collect();
        for future in &mut crowd {
            assert_waits(&mut *future);
        }
        assert!(threads() <= before + 1);
        drop(first);
        for future in crowd {
            drop(futures_lite::future::block_on(future).unwrap());
        }
    });
}

/// The timeout expires at the very moment of the grant. The wait returns a guard or an error, and
/// in either case the lock is free afterwards.
#[test]
fn a_timeout_that_races_with_the_grant_is_a_guard_or_an_error() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::open(dir.path().join("a.lock")).unwrap();
    let (mut guards, mut errors) = (0, 0);
    for round in 0..3000_u64 {
        let held = lock.lock().unwrap();
        let releaser = std::thread::spawn({
            let pause = Duration::from_micros(round * 7 % 300);
            move || {
                let start = Instant::now();
                while start.elapsed() < pause {
                    std::hint::spin_loop();
                }
                drop(held);
            }
        });
        match lock.lock_timeout(Duration::from_micros(round * 11 % 300)) {
            Ok(guard) => {
                assert!(lock.try_lock().unwrap_err().is_would_block());
                drop(guard);
                guards += 1;
            }
            Err(error) => {
                assert!(error.is_timed_out(), "{error}");
                errors += 1;
            }
        }
        releaser.join().unwrap();
        // If the lock had been granted to a cancelled wait, this would wait forever.
        drop(lock.lock_timeout(Duration::from_secs(100)).unwrap());
    }
    println!("{guards} guards, {errors} errors");
    assert!(guards > 0 && errors > 0);
}

/// Futures are dropped at the very moment of the grant.
#[test]
fn a_future_dropped_at_its_grant_passes_on_the_lock() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::open(dir.path().join("a.lock")).unwrap();
    for round in 0..2000_u64 {
        let held = lock.lock().unwrap();
        let mut dropped = Box::pin(lock.lock_async());
        let mut next = Box::pin(lock.lock_async());
        for future in [&mut dropped, &mut next] {
            assert_waits(future);
        }
        drop(held);
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(round % 100) {
            std::hint::spin_loop();
        }
        drop(dropped);
        drop(futures_lite::future::block_on(next).unwrap());
    }
}

#[test]
fn on_wait_is_called_once_per_interval_of_a_wait() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let mut holder = Peer::start();
    holder.open_lock(&path, &[label("the long job")]);
    let calls = Arc::new(AtomicUsize::new(0));
    let lock = Options::new()
        .on_wait(Duration::from_millis(20), Duration::from_millis(20), {
            let (calls, path) = (Arc::clone(&calls), path.clone());
            move |waiting| {
                assert_eq!(waiting.path(), path);
                let call = u32::try_from(calls.fetch_add(1, Ordering::SeqCst)).unwrap();
                assert!(waiting.elapsed() >= Duration::from_millis(20) * (call + 1));
                if call == 0 {
                    let holder = &waiting.holders()[0];
                    assert_eq!(holder.label(), Some("the long job"));
                    assert!(waiting.to_string().contains("the long job"), "{waiting}");
                }
            }
        })
        .open_lock(&path)
        .unwrap();
    drop(lock.lock().unwrap());
    drop(futures_lite::future::block_on(lock.lock_async()).unwrap());
    assert_eq!(calls.load(Ordering::SeqCst), 0);

    for wait in [
        (|lock| lock.lock()) as fn(&Lock) -> _,
        |lock| lock.lock_timeout(Duration::from_secs(100)),
        |lock| futures_lite::future::block_on(lock.lock_async()),
    ] {
        calls.store(0, Ordering::SeqCst);
        holder.lock();
        crate::support::running::scope(|scope| {
            let waiter = scope.spawn(|| wait(&lock).map(drop));
            eventually("three calls", || calls.load(Ordering::SeqCst) >= 3);
            holder.unlock();
            waiter.join().unwrap().unwrap();
        });
    }
    // An interval too large for `Instant` never ends.
    let never = Options::new()
        .on_wait(Duration::MAX, Duration::MAX, |_| panic!("called"))
        .open_lock(&path)
        .unwrap();
    holder.lock();
    assert!(never.lock_timeout(Duration::from_millis(5)).unwrap_err().is_timed_out());
}

#[test]
fn a_panic_in_on_wait_ends_the_wait_and_holds_nothing() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let plain = Lock::open(&path).unwrap();
    let lock = Options::new()
        .on_wait(Duration::from_millis(1), Duration::from_millis(1), |_| panic!("deliberate"))
        .open_lock(&path)
        .unwrap();
    let held = plain.lock().unwrap();
    let waiter = std::thread::spawn(move || lock.lock().map(drop));
    assert!(waiter.join().is_err());
    drop(held);
    drop(plain.lock_timeout(Duration::from_secs(100)).unwrap());
}

#[test]
fn polling_acquires_and_leaves_nothing_in_the_kernel() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Options::new().poll_interval(Duration::from_millis(2)).open_lock(&path).unwrap();
    let mut peer = Peer::with_lock(&path);
    for wait in [
        (|lock| lock.lock()) as fn(&Lock) -> _,
        |lock| lock.lock_timeout(Duration::from_secs(100)),
        |lock| futures_lite::future::block_on(lock.lock_async()),
    ] {
        peer.lock();
        crate::support::running::scope(|scope| {
            let waiter = scope.spawn(|| wait(&lock).map(drop));
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(blocked(&path), 0);
            assert!(!waiter.is_finished());
            peer.unlock();
            waiter.join().unwrap().unwrap();
        });
    }
    peer.lock();
    assert!(lock.lock_timeout(Duration::from_millis(10)).unwrap_err().is_timed_out());
}

/// There are waits for more locks than helpers are allowed: the other waits poll, and all succeed.
#[test]
fn beyond_the_limit_of_helpers_waits_poll() {
    limit!();
    alone("wait::engine::beyond_the_limit_of_helpers_waits_poll", || {
        let dir = tempfile::tempdir().unwrap();
        let before = threads();
        let locks: Vec<Lock> =
            (0..100).map(|n| Lock::open(dir.path().join(format!("{n}.lock"))).unwrap()).collect();
        let held: Vec<_> = locks.iter().map(|lock| lock.lock().unwrap()).collect();
        let mut waits: Vec<_> = locks.iter().map(|lock| Box::pin(lock.lock_async())).collect();
        for wait in &mut waits {
            assert_waits(wait);
        }
        assert!(threads() <= before + 65, "64 helpers and a timer, not {}", threads() - before);
        for lock in &locks {
            assert!(lock.lock_timeout(Duration::from_millis(1)).unwrap_err().is_timed_out());
        }
        drop(held);
        for wait in waits {
            drop(futures_lite::future::block_on(wait).unwrap());
        }
        // The helpers have ended, and others can start.
        if cfg!(target_os = "linux") {
            eventually("threads end", || threads() <= before + 1);
        }
    });
}

/// Blocked threads use no processor time.
// Linux only: counts context switches through `/proc`.
#[cfg(target_os = "linux")]
#[test]
fn a_thousand_blocked_waiters_burn_no_processor_time() {
    limit!();
    alone("wait::engine::a_thousand_blocked_waiters_burn_no_processor_time", || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let lock = Lock::open(&path).unwrap();
        let held = lock.lock().unwrap();
        crate::support::running::scope(|scope| {
            for waiter in 0..1000 {
                let builder = std::thread::Builder::new().stack_size(64 * 1024);
                let lock = &lock;
                builder
                    .spawn_scoped(scope, move || match waiter % 10 {
                        0 => drop(lock.lock().unwrap()),
                        _ => drop(lock.lock_timeout(Duration::from_secs(1000)).unwrap()),
                    })
                    .unwrap();
            }
            until_blocked(&path, 101);
            // Once the last threads have gone to sleep, the counters no longer change.
            eventually("no thread wakes up in two seconds", || {
                let before = switches();
                std::thread::sleep(Duration::from_millis(50));
                switches() == before && {
                    std::thread::sleep(Duration::from_secs(2));
                    switches() == before
                }
            });
            drop(held);
        });
    });
}

/// Counts the context switches of all threads of this process except the calling one.
#[cfg(target_os = "linux")]
fn switches() -> u64 {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap();
        if own.file_name() == Some(&task.file_name()) {
            continue;
        }
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        sum += status
            .lines()
            .filter(|line| line.contains("ctxt_switches"))
            .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    sum
}
