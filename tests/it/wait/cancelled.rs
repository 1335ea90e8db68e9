//! Cancelled and timed-out waits: the helpers that they leave behind do not affect other calls of
//! the process.

use std::path::Path;

use flockwork::Semaphore;

use crate::peer::Way::Timeout;
use crate::peer::semaphore;
use crate::support::assert_waits;

// Linux only: counts threads and waiters through `/proc`, and delays system calls with strace.
#[cfg(target_os = "linux")]
mod helpers {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use flockwork::Lock;

    use crate::peer::Way::{Timeout, Try};
    use crate::peer::lock::Call;
    use crate::support::{alone, eventually, threads, until_blocked};

    const SHORT: Duration = Duration::from_millis(5);

    /// Acquires each of `many` locks through one handle, and lets a wait through another handle
    /// time out. Returns the guards and the number of waits that lasted long enough to start a
    /// helper.
    fn give_up_on(
        directory: &Path,
        many: usize,
        timeout: Duration,
    ) -> (Vec<flockwork::LockGuard>, usize) {
        let mut long = 0;
        let mut give_up = |number: usize| {
            let path = directory.join(format!("held.{number}"));
            let held = Lock::open(&path).unwrap().lock().unwrap();
            let lock = Lock::open(&path).unwrap();
            let start = Instant::now();
            let error = lock.lock_timeout(timeout).unwrap_err();
            assert!(error.is_timed_out(), "{error}");
            long += usize::from(start.elapsed() >= Duration::from_millis(50));
            held
        };
        ((0..many).map(&mut give_up).collect(), long)
    }

    #[test]
    fn short_cancelled_waits_leave_few_threads() {
        limit!();
        alone("wait::cancelled::helpers::short_cancelled_waits_leave_few_threads", || {
            let dir = tempfile::tempdir().unwrap();
            let before = threads();
            let (held, long) = give_up_on(dir.path(), 200, SHORT);
            let left = threads() - before;
            // A short wait may last longer on a busy machine.
            assert!((1..=8 + long).contains(&left), "{left} threads, {long} long waits");
            drop(held);
            eventually("the threads end", || threads() == before);
        });
    }

    /// This includes waits that lasted long enough to start a helper.
    #[test]
    fn cancelled_waits_do_not_turn_other_waits_into_polling() {
        limit!();
        alone(
            "wait::cancelled::helpers::cancelled_waits_do_not_turn_other_waits_into_polling",
            || {
                let dir = tempfile::tempdir().unwrap();
                let before = threads();
                let left = crate::support::running::scope(|scope| {
                    let give_up = |number: usize| {
                        let directory = dir.path().join(number.to_string());
                        std::fs::create_dir(&directory).unwrap();
                        give_up_on(&directory, 12, Duration::from_millis(120))
                    };
                    let givers: Vec<_> =
                        (0..8).map(|number| scope.spawn(move || give_up(number))).collect();
                    givers
                        .into_iter()
                        .flat_map(|thread| thread.join().unwrap().0)
                        .collect::<Vec<_>>()
                });
                assert!(threads() - before > 64, "more than the limit of helpers");
                let path = dir.path().join("wanted");
                let (holder, lock) = (Lock::open(&path).unwrap(), Lock::open(&path).unwrap());
                let held = holder.lock().unwrap();
                crate::support::running::scope(|scope| {
                    let waiter =
                        scope.spawn(|| lock.lock_timeout(Duration::from_secs(100)).map(drop));
                    until_blocked(&path, 1);
                    drop(held);
                    waiter.join().unwrap().unwrap();
                });
                drop(left);
                eventually("the threads end", || threads() == before);
            },
        );
    }

    /// The lock is granted to a helper whose waiter has given up, and the helper does not run for a
    /// while afterwards.
    #[test]
    fn a_try_takes_over_what_a_late_helper_acquired() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let held = Lock::open(&path).unwrap().lock().unwrap();
        // strace delays the first call of each thread: the attempt before the helper, and the
        // helper's own.
        let late = "flock:delay_exit=1500000:when=1";
        let Some(mut other) = crate::support::strace::strace(&[], late) else { return };
        other.open_lock(&path, &[]);
        other.expect_timed_out(Call::Acquire(Timeout(20)));
        until_blocked(&path, 1);
        drop(held);
        other.run(Call::Acquire(Try));
        other.unlock();
        drop(Lock::open(&path).unwrap().lock().unwrap());
        other.run(Call::Acquire(Try));
    }
}

/// After a release, only the leftover of an earlier wait of this process holds the lock for a
/// moment.
// Unix only: a try cannot take over from a helper on Windows, and not safely on macOS.
#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn a_try_is_not_blocked_by_a_leftover_of_its_process() {
    limit!();
    use flockwork::{Lock, RwLock};
    use std::time::Duration;
    const ROUNDS: u32 = 600;
    let timeout = Duration::from_micros(200);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let (holder, lock) = (Lock::open(&path).unwrap(), Lock::open(&path).unwrap());
    for round in 0..ROUNDS {
        let held = holder.lock().unwrap();
        assert!(lock.lock_timeout(timeout).unwrap_err().is_timed_out());
        drop(held);
        let tried =
            if round % 2 == 0 { lock.try_lock() } else { lock.lock_timeout(Duration::ZERO) };
        drop(tried.unwrap_or_else(|error| panic!("round {round}: {error}")));
    }

    let path = dir.path().join("a.sem");
    let (holder, lock) = (Semaphore::open(&path, 1).unwrap(), Semaphore::open(&path, 1).unwrap());
    for round in 0..ROUNDS {
        let held = holder.acquire().unwrap();
        assert!(lock.acquire_timeout(timeout).unwrap_err().is_timed_out());
        drop(held);
        if round % 2 == 0 {
            assert_eq!(lock.available_permits().unwrap(), 1, "round {round}");
        }
        drop(lock.try_acquire().unwrap_or_else(|error| panic!("round {round}: {error}")));
    }

    // The tries use the same mode and another one, at the lock file and at the turnstile.
    let path = dir.path().join("b.lock");
    let (holder, lock) = (RwLock::open(&path).unwrap(), RwLock::open(&path).unwrap());
    for round in 0..ROUNDS {
        let held = holder.write().unwrap();
        let timed_out = match round % 3 {
            0 => lock.write_timeout(timeout).unwrap_err(),
            _ => lock.read_timeout(timeout).unwrap_err(),
        };
        assert!(timed_out.is_timed_out(), "{timed_out}");
        drop(held);
        if round % 2 == 0 {
            drop(lock.try_read().unwrap_or_else(|error| panic!("round {round}: {error}")));
        } else {
            drop(lock.try_write().unwrap_or_else(|error| panic!("round {round}: {error}")));
        }
    }
}

/// A future that was polled once, and is neither polled again nor dropped, delays other waiters but
/// does not block them.
#[test]
fn a_future_that_is_not_polled_releases_its_permit() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sem");
    for permits in [1, 2] {
        let path = path.with_extension(permits.to_string());
        let semaphore = Semaphore::open(&path, permits).unwrap();
        let held = semaphore.acquire_many(permits).unwrap();
        let mut aside = Box::pin(semaphore.acquire_async());
        assert_waits(aside.as_mut());
        until_this_process_leads(&path);
        drop(held);
        for _ in 0..2 {
            let mut other = crate::peer::semaphore::peer(&path, permits, &[]);
            other.run(semaphore::Call::Acquire(1, Timeout(100_000)));
        }
        // The future continues when it is polled again.
        drop(futures_lite::future::block_on(aside).unwrap());
        drop(semaphore.acquire_many(permits).unwrap());
    }
}

fn until_this_process_leads(path: &Path) {
    crate::support::until_held(&path.join("gate"), std::process::id());
}
