//! Waits that gave up: what their helpers leave behind is in the way of no other call of the process.

use std::path::Path;

use flockwork::Semaphore;

use crate::peer::Way::Timeout;
use crate::peer::semaphore;
use crate::support::assert_waits;

// Linux only: /proc tells how many threads there are and who waits, and strace slows system calls down.
#[cfg(target_os = "linux")]
mod helpers {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use flockwork::Lock;

    use crate::peer::Way::{Timeout, Try};
    use crate::peer::lock::Call;
    use crate::support::{alone, eventually, threads, until_blocked};

    const SHORT: Duration = Duration::from_millis(5);

    /// Takes a lock by a path of its own each, by a handle of its own, and gives up waiting for it by another.
    /// With how many of the waits lasted for so long that they got a helper of their own.
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
            // On a busy machine a short wait may last long.
            assert!((1..=8 + long).contains(&left), "{left} threads, {long} long waits");
            drop(held);
            eventually("they end", || threads() == before);
        });
    }

    /// Also of those that lasted long enough to get a helper of their own.
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
                assert!(threads() - before > 64, "more than there may be helpers that are needed");
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
                eventually("they end", || threads() == before);
            },
        );
    }

    /// A helper is granted what no waiter wants any more, and does not run for a while after that.
    #[test]
    fn a_try_takes_over_what_a_late_helper_acquired() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let held = Lock::open(&path).unwrap().lock().unwrap();
        // The first call of each thread: of the helper, and the attempt before it.
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

/// After a release nobody has it but, for a moment, what a wait of this process left behind.
// Unix only: a helper cannot be asked on Windows, and on macOS not safely.
#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn a_try_is_not_refused_by_a_leftover_of_its_process() {
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

    // In the same mode and in another one, at the lock and at its gate.
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

/// A future that was polled, and is neither polled on nor dropped, delays others and does not stop them.
#[test]
fn a_future_that_is_set_aside_gives_a_permit_back() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sem");
    for permits in [1, 2] {
        let path = path.with_extension(permits.to_string());
        let semaphore = Semaphore::open(&path, permits).unwrap();
        let held = semaphore.acquire_many(permits).unwrap();
        let mut aside = Box::pin(semaphore.acquire_async());
        assert_waits(aside.as_mut());
        until_head_of_this_process(&path);
        drop(held);
        for _ in 0..2 {
            let mut other = crate::peer::semaphore::peer(&path, permits, &[]);
            other.run(semaphore::Call::Acquire(1, Timeout(100_000)));
        }
        // It goes on where it is polled again.
        drop(futures_lite::future::block_on(aside).unwrap());
        drop(semaphore.acquire_many(permits).unwrap());
    }
}

fn until_head_of_this_process(path: &Path) {
    crate::support::until_held(&path.join("gate"), std::process::id());
}
