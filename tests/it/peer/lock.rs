//! The lock calls of a peer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flockwork::{Error, Lock, LockGuard};
use futures_lite::future::block_on;

use super::{Answer, Peer, Setting, Way, done, held_by, options, text};

sendable! {
    enum Call {
        Open(path: PathBuf, settings: Vec<Setting>),
        // Opens one more lock, and keeps it open.
        OpenAlso(path: PathBuf),
        Acquire(way: Way),
        Unlock,
        DropGuard,
        WasAbandoned,
        StillHeld,
        FencingToken,
        Holder,
        LockPath,
        // Adds one to the number in a file under the lock, `times` times.
        Count(file: PathBuf, times: u32, way: Way),
        // Begins waits with futures that are polled once and then kept: the given number for the
        // lock at `other`, and then one for the lock.
        StopPolling(other: PathBuf, futures: usize),
        #[cfg(unix)]
        Fork(what: InChild),
        // Replaces the process by sleep(1), and never answers.
        #[cfg(unix)]
        Exec,
    }
}

// What a child does after a fork without exec. Its exit code is the answer, except for `Stay` and
// `Hold`: those answer with the child's pid, and the child runs until it is killed.
#[cfg(unix)]
sendable! {
    #[derive(Copy, PartialEq)]
    enum InChild {
        DropGuard,
        Unlock,
        // Returns 0 if the copy of the guard is not reported as held.
        StillHeld,
        // Returns 0 if the parent's lock is held.
        Try,
        TimeOut,
        // Returns 0 if the child can lock and unlock.
        Cycle,
        Stay,
        Hold,
    }
}

impl Peer {
    /// Starts a peer that opens `path` as its lock.
    pub(crate) fn with_lock(path: &Path) -> Self {
        let mut peer = Self::start();
        peer.open_lock(path, &[]);
        peer
    }

    #[track_caller]
    pub(crate) fn open_lock(&mut self, path: &Path, settings: &[Setting]) {
        self.run(Call::Open(path.into(), settings.into()));
    }

    #[track_caller]
    pub(crate) fn lock(&mut self) {
        self.run(Call::Acquire(Way::Block));
    }

    #[track_caller]
    pub(crate) fn unlock(&mut self) {
        self.run(Call::Unlock);
    }
}

#[derive(Default)]
pub(super) struct State {
    lock: Option<Lock>,
    guard: Option<LockGuard>,
    more: Vec<Lock>,
    unpolled: Vec<futures_lite::future::Boxed<Result<LockGuard, Error>>>,
}

impl State {
    pub(super) fn obey(&mut self, call: Call) -> Answer {
        match call {
            Call::Open(path, settings) => done(options(&settings).open_lock(path).map(|lock| {
                self.lock = Some(lock);
            })),
            Call::OpenAlso(path) => done(Lock::open(path).map(|lock| self.more.push(lock))),
            Call::Acquire(way) => {
                assert!(self.guard.is_none(), "drop is called first");
                done(acquire(self.lock(), way).map(|guard| self.guard = Some(guard)))
            }
            Call::Unlock => done(self.guard.take().unwrap().unlock()),
            Call::DropGuard => {
                self.guard = None;
                done(Ok(()))
            }
            Call::WasAbandoned => text(Ok(self.guard.as_ref().unwrap().was_abandoned())),
            Call::StillHeld => text(self.guard.as_ref().unwrap().still_held()),
            Call::FencingToken => text(self.guard.as_ref().unwrap().fencing_token()),
            Call::Holder => held_by(self.lock().holders()),
            Call::LockPath => text(Ok(self.lock().path().display())),
            Call::Count(file, times, way) => done(self.count(&file, times, way)),
            Call::StopPolling(other, futures) => done(options(&[]).open_lock(other).map(|other| {
                let locks = std::iter::repeat_n(&other, futures).chain([self.lock()]);
                let futures = locks.map(|lock| Box::pin(lock.lock_async()) as _);
                let mut futures: Vec<futures_lite::future::Boxed<_>> = futures.collect();
                for future in &mut futures {
                    crate::support::assert_waits(future);
                }
                self.unpolled = futures;
            })),
            #[cfg(unix)]
            Call::Fork(what) => self.fork(what),
            #[cfg(unix)]
            Call::Exec => {
                use std::os::unix::process::CommandExt as _;
                Err(std::process::Command::new("sleep").arg("1000").exec().to_string())
            }
        }
    }

    fn lock(&self) -> &Lock {
        self.lock.as_ref().expect("open is called first")
    }

    fn count(&self, file: &Path, times: u32, way: Way) -> Result<(), Error> {
        for _ in 0..times {
            let _guard = acquire(self.lock(), way)?;
            let number: u64 = std::fs::read_to_string(file).unwrap().parse().unwrap();
            std::fs::write(file, (number + 1).to_string()).unwrap();
        }
        Ok(())
    }

    #[cfg(unix)]
    fn fork(&mut self, what: InChild) -> Answer {
        match fork::fork().unwrap() {
            fork::Fork::Parent(child) => {
                if what == InChild::Stay || what == InChild::Hold {
                    return text(Ok(child));
                }
                text(Ok(crate::support::ended(child).exit_status().unwrap()))
            }
            fork::Fork::Child => {
                let code = match what {
                    InChild::DropGuard => {
                        drop(self.guard.take());
                        0
                    }
                    InChild::Unlock => i32::from(self.guard.take().unwrap().unlock().is_ok()),
                    // The child inherits the handle, and must not treat the parent's lock as its
                    // own.
                    InChild::StillHeld => {
                        i32::from(self.guard.as_ref().unwrap().still_held().unwrap())
                    }
                    InChild::Try => match self.lock().try_lock() {
                        Err(error) if error.is_would_block() => 0,
                        Err(_) => 1,
                        Ok(_) => 2,
                    },
                    InChild::TimeOut => match self.lock().lock_timeout(Duration::from_millis(20)) {
                        Err(error) if error.is_timed_out() => 0,
                        Err(_) => 1,
                        Ok(_) => 2,
                    },
                    InChild::Cycle => match self.lock().try_lock() {
                        Ok(guard) => i32::from(guard.unlock().is_err()),
                        Err(_) => 2,
                    },
                    InChild::Stay | InChild::Hold => {
                        if what == InChild::Hold {
                            self.guard = Some(self.lock().try_lock().unwrap());
                            super::report("the child holds");
                        }
                        std::thread::sleep(crate::limit::LIMIT);
                        3
                    }
                };
                crate::support::exit_copy(code)
            }
        }
    }
}

fn acquire(lock: &Lock, way: Way) -> Result<LockGuard, Error> {
    match way {
        Way::Block => lock.lock(),
        Way::Try => lock.try_lock(),
        Way::Timeout(ms) => lock.lock_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => lock.lock_deadline(Instant::now() + Duration::from_millis(ms)),
        Way::Async => block_on(lock.lock_async()),
    }
}
