//! `Options::inherit`: what a process holds, the programs that it starts hold as well. Each test in a process of its own:
//! what other tests start at the same time would inherit it too.

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
fn a_lock_is_held_until_the_last_heir_ends() {
    limit!();
    alone("inherit::a_lock_is_held_until_the_last_heir_ends", || {
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
                "the record of who does not hold it"
            );
            for other in [&lock, &Lock::open(&path).unwrap()] {
                let refused = other.try_lock().unwrap_err();
                assert!(refused.is_would_block());
                // It is who inherited it, and not this process any more.
                if cfg!(target_os = "linux") {
                    assert_eq!(refused.holders()[0].command(), Some("cat"));
                }
            }
            two.end();
            // And what is started when nobody holds it has nothing of it.
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
fn readers_and_writers_are_inherited_and_the_gate_is_not() {
    limit!();
    alone("inherit::readers_and_writers_are_inherited_and_the_gate_is_not", || {
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
        let reading = writing.downgrade().unwrap(); // for those who inherited it as well
        drop(other.try_read().unwrap());
        drop(reading);
        assert!(other.try_write().unwrap_err().is_would_block());
        job.end();
        drop(other.try_write().unwrap());
    });
}

#[test]
fn permits_are_inherited_and_released_by_the_last_heir() {
    limit!();
    alone("inherit::permits_are_inherited_and_released_by_the_last_heir", || {
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
            crate::support::eventually("it waits", || pool.try_acquire().is_err());
            job.end();
            waiting.join().unwrap();
        });
        // The other's waiting left its signs; what is had from now on is had at once.
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
            Err(std::io::Error::other("and leaves it running"))
        };
        once.call_once(start).unwrap_err();
        let again = once.try_call_once(|| Ok::<(), flockwork::Error>(()));
        assert!(again.unwrap_err().is_would_block());
        job.unwrap().end();
        assert!(once.try_call_once(|| Ok::<(), flockwork::Error>(())).unwrap());
    });
}

/// On Linux the system's list names the one who took it, dead or not.
// Linux only: no other system tells.
#[cfg(target_os = "linux")]
#[test]
fn the_heir_of_a_dead_acquirer_is_reported() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    if !crate::support::has("flock", &["--version"]) {
        return;
    }
    let mut taker = Command::new("flock");
    taker.arg(&path).arg("cat").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut taker = taker.start();
    crate::support::until_held(&path, taker.id());
    crate::support::eventually("the job runs", || {
        let children = format!("/proc/{0}/task/{0}/children", taker.id());
        !std::fs::read_to_string(children).unwrap().trim().is_empty()
    });
    assert_eq!(lock.holders().unwrap().remove(0).pid(), taker.id());
    taker.kill().unwrap();
    let heir = || {
        let mut heirs = lock.holders().unwrap().into_iter();
        heirs.find(|heir| heir.command() == Some("cat"))
    };
    // Not yet asked for by its parent, and then gone altogether.
    crate::support::eventually("the heir is told", || heir().is_some());
    let input = taker.stdin.take();
    taker.wait().unwrap();
    assert_ne!(heir().unwrap().pid(), taker.id());
    let refused = lock.try_lock().unwrap_err();
    assert_eq!(refused.holders()[0].command(), Some("cat"));
    drop(input);
    drop(lock.lock().unwrap());
    assert_eq!(lock.holders().unwrap(), []);
}
