//! `Options::inherit`: programs started by a holder hold the lock, too. Each test runs in its own
//! process, so that programs started by other tests do not inherit the lock.

use std::process::{Command, Stdio};

use flockwork::{Lock, Options, RwLock, Semaphore};

use crate::support::alone;
use crate::support::running::{Running, Start as _};

/// A program that runs until its input ends.
struct Job(Running);

impl Job {
    fn start() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).start())
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn a_lock_is_held_until_the_last_inheriting_program_ends() {
    limit!();
    alone("inherit::a_lock_is_held_until_the_last_inheriting_program_ends", || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let lock = Options::new().inherit(true).label("jobs").open_lock(&path).unwrap();
        for release in [|held| drop(held), |held: flockwork::LockGuard| held.unlock().unwrap()] {
            let held = lock.lock().unwrap();
            let (one, two) = (Job::start(), Job::start());
            one.end();
            release(held);
            assert!(
                !dir.path().join("a.lock.holder").exists(),
                "a record of a process that does not hold the lock"
            );
            for other in [&lock, &Lock::open(&path).unwrap()] {
                let failed = other.try_lock().unwrap_err();
                assert!(failed.is_would_block());
                // The holder is the program that inherited the lock, not this process.
                if cfg!(target_os = "linux") {
                    assert_eq!(failed.holders()[0].command(), Some("cat"));
                }
            }
            two.end();
            // A program that is started while no process holds the lock inherits nothing.
            let three = Job::start();
            drop(lock.try_lock().unwrap());
            three.end();
        }
    });
}

#[test]
fn a_process_that_inherited_a_lock_is_not_named_as_its_holder() {
    limit!();
    alone("inherit::a_process_that_inherited_a_lock_is_not_named_as_its_holder", || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let lock = Options::new().inherit(true).open_lock(&path).unwrap();
        let held = lock.lock().unwrap();
        let job = Job::start();
        if cfg!(target_os = "linux") {
            let pids: Vec<_> = flockwork::inspect(&path)
                .unwrap()
                .holders()
                .iter()
                .map(flockwork::Holder::pid)
                .collect();
            assert_eq!(pids, [std::process::id()]);
        }
        job.end();
        drop(held);
        assert!(flockwork::inspect(&path).unwrap().holders().is_empty());
    });
}

#[test]
fn rwlocks_are_inherited_and_the_turnstile_is_not() {
    limit!();
    alone("inherit::rwlocks_are_inherited_and_the_turnstile_is_not", || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let lock = Options::new().inherit(true).open_rwlock(&path).unwrap();
        let other = RwLock::open(&path).unwrap();

        let reading = lock.read().unwrap();
        let job = Job::start();
        drop(reading);
        drop(other.try_read().unwrap());
        assert!(other.try_write().unwrap_err().is_would_block());
        job.end();

        let writing = lock.write().unwrap();
        let job = Job::start();
        let reading = writing.downgrade().unwrap(); // Affects the inherited lock, too.
        drop(other.try_read().unwrap());
        drop(reading);
        assert!(other.try_write().unwrap_err().is_would_block());
        job.end();
        drop(other.try_write().unwrap());
    });
}

#[test]
fn inherited_permits_are_released_by_the_last_program() {
    limit!();
    alone("inherit::inherited_permits_are_released_by_the_last_program", || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        let pool = Options::new().inherit(true).open_semaphore(&path, 3).unwrap();
        let two = pool.acquire_many(2).unwrap();
        let job = Job::start();
        drop(two);
        let other = Semaphore::open(&path, 3).unwrap();
        assert_eq!(other.available_permits().unwrap(), 1);
        assert!(other.try_acquire_many(2).unwrap_err().is_would_block());
        crate::support::running::scope(|scope| {
            let waiting = scope.spawn(|| drop(other.acquire_many(3).unwrap()));
            crate::support::eventually("the waiter has gathered permits", || {
                pool.try_acquire().is_err()
            });
            job.end();
            waiting.join().unwrap();
        });
        // The finished wait left files behind, but permits are available immediately.
        assert_eq!(other.available_permits().unwrap(), 3);
    });
}

#[test]
fn a_child_started_by_once_keeps_other_callers_waiting() {
    limit!();
    alone("inherit::a_child_started_by_once_keeps_other_callers_waiting", || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("done");
        let once = Options::new().inherit(true).open_once(&path).unwrap();
        let mut job = None;
        let start = || -> std::io::Result<()> {
            job = Some(Job::start());
            Err(std::io::Error::other("the job keeps running"))
        };
        once.call_once(start).unwrap_err();
        let again = once.try_call_once(|| Ok::<(), flockwork::Error>(()));
        assert!(again.unwrap_err().is_would_block());
        job.unwrap().end();
        assert!(once.try_call_once(|| Ok::<(), flockwork::Error>(())).unwrap());
    });
}

/// Linux lists the process that acquired the lock, even after that process has died.
// Linux only: other systems do not list the holder of a lock.
#[cfg(target_os = "linux")]
#[test]
fn a_program_that_inherited_from_a_dead_process_is_reported() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    if !crate::support::has("flock", &["--version"]) {
        return;
    }
    let mut acquirer = Command::new("flock");
    acquirer.arg(&path).arg("cat").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut acquirer = acquirer.start();
    crate::support::until_held(&path, acquirer.id());
    crate::support::eventually("the job runs", || {
        let children = format!("/proc/{0}/task/{0}/children", acquirer.id());
        !std::fs::read_to_string(children).unwrap().trim().is_empty()
    });
    assert_eq!(lock.holders().unwrap().remove(0).pid(), acquirer.id());
    acquirer.kill().unwrap();
    let inheriting = || {
        let mut holders = lock.holders().unwrap().into_iter();
        holders.find(|inheriting| inheriting.command() == Some("cat"))
    };
    // The dead process is a zombie at first, and has been reaped afterwards.
    crate::support::eventually("the program that inherited the lock is reported", || {
        inheriting().is_some()
    });
    let input = acquirer.stdin.take();
    acquirer.wait().unwrap();
    assert_ne!(inheriting().unwrap().pid(), acquirer.id());
    let failed = lock.try_lock().unwrap_err();
    assert_eq!(failed.holders()[0].command(), Some("cat"));
    drop(input);
    drop(lock.lock().unwrap());
    assert_eq!(lock.holders().unwrap(), []);
}
