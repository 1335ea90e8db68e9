//! The `RwLock` calls of a peer, and a witness that detects violations without relying on the lock.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flockwork::{Error, RwLock, RwLockReadGuard, RwLockWriteGuard};
use futures_lite::future::block_on;

use super::{Answer, Peer, Setting, Way, done, options, text};

sendable! {
    enum Call {
        Open(path: PathBuf, settings: Vec<Setting>),
        Read(way: Way),
        Write(way: Way),
        Downgrade,
        // Releases the write guard, or else the first read guard.
        Unlock,
        DropGuards,
        // Reads and writes `times` times with the witness. One in `writes` turns is a write.
        Churn(witness: PathBuf, times: u32, writes: u32),
        // Reads until the file exists, each time for `milliseconds`. Returns the number of reads.
        ReadUntil(file: PathBuf, milliseconds: u64),
        // Begins a wait with a future and drops it, `times` times.
        DropReadFutures(times: u32),
        DropWriteFutures(times: u32),
        // Forks `times` times while other threads use the handle. The children use it as well.
        #[cfg(unix)]
        ForkWhileBusy(times: u32),
        // These return the exit code of a child that has copies of the guards.
        #[cfg(unix)]
        DropGuardsInFork,
        #[cfg(unix)]
        DowngradeInFork,
    }
}

/// Starts a peer that opens the lock.
pub(crate) fn peer(path: &Path, settings: &[Setting]) -> Peer {
    let mut peer = Peer::start();
    peer.open_rwlock(path, settings);
    peer
}

impl Peer {
    #[track_caller]
    pub(crate) fn open_rwlock(&mut self, path: &Path, settings: &[Setting]) {
        self.run(Call::Open(path.into(), settings.into()));
    }
}

/// Returns the path of the gate file, in which waiters queue.
pub(crate) fn gate(path: &Path) -> std::path::PathBuf {
    let mut gate = path.as_os_str().to_os_string();
    gate.push(".gate");
    gate.into()
}

/// Waits until a waiter holds the turnstile for good. One that arrives holds it for a moment, and
/// comes back with a ticket; then it is blocked on the lock itself.
#[track_caller]
pub(crate) fn until_in_turnstile(path: &Path) {
    until_turnstile_is_held(path);
    crate::support::until_blocked(path, 1);
}

/// The same for a waiter that polls, which has no ticket and is not blocked.
#[track_caller]
pub(crate) fn until_turnstile_is_held(path: &Path) {
    let gate = flockwork::Lock::open(gate(path)).unwrap();
    crate::support::eventually("a waiter holds the turnstile", || gate.try_lock().is_err());
}

#[derive(Default)]
pub(super) struct State {
    lock: Option<RwLock>,
    reading: Vec<RwLockReadGuard>,
    writing: Option<RwLockWriteGuard>,
}

impl State {
    pub(super) fn obey(&mut self, call: Call) -> Answer {
        if let Call::Open(path, settings) = call {
            return done(options(&settings).open_rwlock(path).map(|lock| self.lock = Some(lock)));
        }
        let lock = self.lock.as_ref().expect("open is called first");
        match call {
            Call::Open(..) => unreachable!(),
            Call::Read(way) => done(read(lock, way).map(|guard| self.reading.push(guard))),
            Call::Write(way) => done(write(lock, way).map(|guard| self.writing = Some(guard))),
            Call::Downgrade => {
                let downgraded = self.writing.take().expect("write is called first").downgrade();
                done(downgraded.map(|guard| self.reading.push(guard)))
            }
            Call::Unlock => done(match self.writing.take() {
                Some(writing) => writing.unlock(),
                None => self.reading.remove(0).unlock(),
            }),
            Call::DropGuards => {
                self.writing = None;
                self.reading.clear();
                done(Ok(()))
            }
            Call::Churn(witness, times, writes) => {
                churn(lock, &witness, times, writes).unwrap_or_else(|error| done(Err(error)))
            }
            Call::ReadUntil(file, ms) => text(read_until(lock, &file, ms)),
            Call::DropReadFutures(times) => {
                (0..times).for_each(|_| crate::support::assert_waits(lock.read_async()));
                done(Ok(()))
            }
            Call::DropWriteFutures(times) => {
                (0..times).for_each(|_| crate::support::assert_waits(lock.write_async()));
                done(Ok(()))
            }
            #[cfg(unix)]
            Call::ForkWhileBusy(times) => fork_while_busy(lock, times),
            #[cfg(unix)]
            Call::DropGuardsInFork => self.fork(|writing| {
                drop(writing);
                true
            }),
            #[cfg(unix)]
            Call::DowngradeInFork => self.fork(|writing| writing.unwrap().downgrade().is_err()),
        }
    }

    /// Forks without exec. The child calls `what` with the copy of the guard.
    #[cfg(unix)]
    fn fork(&mut self, what: impl FnOnce(Option<RwLockWriteGuard>) -> bool) -> Answer {
        match fork::fork().unwrap() {
            fork::Fork::Child => {
                let copy = self.writing.take();
                self.reading.clear();
                crate::support::exit_copy(i32::from(!what(copy)))
            }
            fork::Fork::Parent(child) => {
                text(Ok(crate::support::ended(child).exit_status().unwrap()))
            }
        }
    }
}

#[cfg(unix)]
fn fork_while_busy(lock: &RwLock, times: u32) -> Answer {
    use std::sync::atomic::{AtomicBool, Ordering};
    let is_over = AtomicBool::new(false);
    crate::support::running::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    drop(lock.try_read());
                }
            });
        }
        let _end = crate::support::running::on_drop(|| is_over.store(true, Ordering::Relaxed));
        for _ in crate::support::rounds(times, Duration::from_secs(20)) {
            match fork::fork().unwrap() {
                fork::Fork::Child => {
                    let read = lock.read_timeout(Duration::from_secs(100));
                    crate::support::exit_copy(i32::from(read.is_err()))
                }
                fork::Fork::Parent(child) => {
                    let status = crate::support::ended(child);
                    if status.exit_status() != Some(0) {
                        return Err(format!("a child ended with {status:?}"));
                    }
                }
            }
        }
        done(Ok(()))
    })
}

fn read(lock: &RwLock, way: Way) -> Result<RwLockReadGuard, Error> {
    match way {
        Way::Block => lock.read(),
        Way::Try => lock.try_read(),
        Way::Timeout(ms) => lock.read_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => lock.read_deadline(Instant::now() + Duration::from_millis(ms)),
        Way::Async => block_on(lock.read_async()),
    }
}

fn write(lock: &RwLock, way: Way) -> Result<RwLockWriteGuard, Error> {
    match way {
        Way::Block => lock.write(),
        Way::Try => lock.try_write(),
        Way::Timeout(ms) => lock.write_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => lock.write_deadline(Instant::now() + Duration::from_millis(ms)),
        Way::Async => block_on(lock.write_async()),
    }
}

/// Reads and writes in turn, each time with the witness. One in `writes` of the `times` turns is a
/// write.
fn churn(lock: &RwLock, witness: &Path, times: u32, writes: u32) -> Result<Answer, Error> {
    let witness = Witness::open(witness);
    for round in 0..times {
        let way = [Way::Block, Way::Timeout(300_000), Way::Async][(round / writes % 3) as usize];
        let violation = if round % writes == 0 {
            let writing = write(lock, way)?;
            let seen = witness.enter(true);
            if round % (2 * writes) == 0 {
                // The witness enters before others may read, and would detect a writer from then
                // on.
                let seen = seen.and_then(|()| witness.enter(false));
                let reading = writing.downgrade()?;
                std::thread::yield_now();
                witness.leave();
                reading.unlock()?;
                seen
            } else {
                witness.leave();
                writing.unlock()?;
                seen
            }
        } else {
            let reading = read(lock, way)?;
            let seen = witness.enter(false);
            witness.leave();
            reading.unlock()?;
            seen
        };
        if let Err(violation) = violation {
            return Ok(Err(format!("violation in round {round}: {violation}")));
        }
    }
    Ok(done(Ok(())))
}

/// Reads until the file exists, and returns the number of reads. After five reads it creates a file
/// named after its pid.
fn read_until(lock: &RwLock, until: &Path, ms: u64) -> Result<u32, Error> {
    let mut reads = 0;
    while !until.exists() {
        let _reading = lock.read()?;
        reads += 1;
        if reads == 5 {
            std::fs::write(until.with_extension(std::process::id().to_string()), "").unwrap();
        }
        std::thread::sleep(Duration::from_millis(ms));
    }
    Ok(reads)
}

/// Marks readers and writers by locking another file. Its tries succeed unless the lock is broken.
struct Witness(File);

impl Witness {
    fn open(path: &Path) -> Self {
        let mut options = File::options();
        Self(options.read(true).write(true).create(true).truncate(false).open(path).unwrap())
    }

    fn enter(&self, writes: bool) -> Result<(), String> {
        let entered = if writes {
            fs4::FileExt::try_lock(&self.0)
        } else if cfg!(windows) {
            self.leave(); // Windows cannot change a lock's mode.
            fs4::FileExt::try_lock_shared(&self.0)
        } else {
            fs4::FileExt::try_lock_shared(&self.0)
        };
        std::thread::yield_now();
        entered.map_err(|error| error.to_string())
    }

    fn leave(&self) {
        let _ = fs4::FileExt::unlock(&self.0);
    }
}
