//! What a peer does with a lock that is read and written, as it is told; and a witness of who reads and who writes that
//! does not trust the lock.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use flockwork::{Error, ReadGuard, RwLock, WriteGuard};
use futures_lite::future::block_on;

use crate::peer::{Peer, milliseconds, options, told};

/// A peer that has opened the lock.
pub(crate) fn peer(path: &Path, settings: &str) -> Peer {
    let mut peer = Peer::start();
    peer.open(&format!("rw\topen\t{}", path.display()), settings);
    peer
}

/// Where everybody queues.
pub(crate) fn gate(path: &Path) -> std::path::PathBuf {
    let mut gate = path.as_os_str().to_os_string();
    gate.push(".gate");
    gate.into()
}

/// Waits until somebody waits in the gate.
#[track_caller]
pub(crate) fn until_in_gate(path: &Path) {
    let gate = flockwork::Lock::open(gate(path)).unwrap();
    crate::support::eventually("somebody is in the gate", || gate.try_lock().is_err());
}

#[derive(Default)]
pub(crate) struct State {
    lock: Option<RwLock>,
    reading: Vec<ReadGuard>,
    writing: Option<WriteGuard>,
}

impl State {
    pub(crate) fn obey(&mut self, words: &[&str]) -> String {
        told(self.done(words))
    }

    fn done(&mut self, words: &[&str]) -> Result<String, Error> {
        if let ["open", path, ref settings @ ..] = *words {
            self.lock = Some(options(settings).open_rwlock(path)?);
            return Ok("ok".into());
        }
        let lock = self.lock.as_ref().expect("open comes first");
        match *words {
            ["read", ref way @ ..] => self.reading.push(read(lock, way)?),
            ["write", ref way @ ..] => self.writing = Some(write(lock, way)?),
            ["downgrade"] => {
                let reading = self.writing.take().expect("write comes first").downgrade()?;
                self.reading.push(reading);
            }
            ["unlock"] => match self.writing.take() {
                Some(writing) => writing.unlock()?,
                None => self.reading.remove(0).unlock()?,
            },
            ["drop"] => {
                self.writing = None;
                self.reading.clear();
            }
            ["abandoned"] => {
                let writing = self.writing.as_ref().map(WriteGuard::abandoned);
                let abandoned = writing.unwrap_or_else(|| self.reading[0].abandoned());
                return Ok(abandoned.to_string());
            }
            ["holders"] => {
                let label = |holder: &flockwork::Holder| {
                    format!("{} {:?}", holder.pid(), holder.label().unwrap_or_default())
                };
                return Ok(lock.holders()?.iter().map(label).collect::<Vec<_>>().join("; "));
            }
            ["churn", witness, times, writes] => return churn(lock, witness, times, writes),
            // Reads, each time for so long, so that with others there is always a reader.
            ["overlap", until, ms] => return overlap(lock, Path::new(until), ms),
            // Waits as a future that is dropped while it waits, so often.
            ["give-up", mode, times] => {
                for _ in 0..times.parse().unwrap() {
                    match mode {
                        "read" => crate::support::assert_waits(lock.read_async()),
                        _ => crate::support::assert_waits(lock.write_async()),
                    }
                }
            }
            // Forks so often while other threads use the handle; the children use it as well.
            #[cfg(unix)]
            ["fork-busy", times] => return Ok(fork_busy(lock, times.parse().unwrap())),
            #[cfg(unix)]
            ["fork", what] => return Ok(self.fork(what)),
            _ => return Ok(format!("what is {words:?}?")),
        }
        Ok("ok".into())
    }

    /// Forks without exec; the child does `what` with the copies of the guards, and says how that went.
    #[cfg(unix)]
    fn fork(&mut self, what: &str) -> String {
        match fork::fork().unwrap() {
            fork::Fork::Child => {
                let copy = self.writing.take();
                self.reading.clear();
                let is_fine = what != "downgrade" || copy.unwrap().downgrade().is_err();
                std::process::exit(i32::from(!is_fine))
            }
            fork::Fork::Parent(child) => {
                format!("child {}", crate::support::ended(child).exit_status().unwrap())
            }
        }
    }
}

#[cfg(unix)]
fn fork_busy(lock: &RwLock, times: u32) -> String {
    use std::sync::atomic::{AtomicBool, Ordering};
    let done = AtomicBool::new(false);
    crate::support::running::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(lock.try_read());
                }
            });
        }
        let _end = crate::support::running::on_drop(|| done.store(true, Ordering::Relaxed));
        for _ in 0..times {
            match fork::fork().unwrap() {
                fork::Fork::Child => {
                    let read = lock.read_timeout(Duration::from_secs(100));
                    std::process::exit(i32::from(read.is_err()))
                }
                fork::Fork::Parent(child) => {
                    let status = crate::support::ended(child);
                    if status.exit_status() != Some(0) {
                        return format!("a child ended with {status:?}");
                    }
                }
            }
        }
        "ok".into()
    })
}

fn read(lock: &RwLock, way: &[&str]) -> Result<ReadGuard, Error> {
    match *way {
        [] => lock.read(),
        ["try"] => lock.try_read(),
        ["async"] => block_on(lock.read_async()),
        ["deadline", ms] => lock.read_deadline(Instant::now() + milliseconds(ms)),
        [ms] => lock.read_timeout(milliseconds(ms)),
        _ => panic!("what is {way:?}?"),
    }
}

fn write(lock: &RwLock, way: &[&str]) -> Result<WriteGuard, Error> {
    match *way {
        [] => lock.write(),
        ["try"] => lock.try_write(),
        ["async"] => block_on(lock.write_async()),
        ["deadline", ms] => lock.write_deadline(Instant::now() + milliseconds(ms)),
        [ms] => lock.write_timeout(milliseconds(ms)),
        _ => panic!("what is {way:?}?"),
    }
}

/// Reads and writes in turn, each time with the witness; of so many times every `writes`-th is a write.
fn churn(lock: &RwLock, witness: &str, times: &str, writes: &str) -> Result<String, Error> {
    let witness = Witness::open(witness);
    let writes: u32 = writes.parse().unwrap();
    for round in 0..times.parse::<u32>().unwrap() {
        let way: &[&str] = [&[][..], &["300000"], &["async"]][(round / writes % 3) as usize];
        let violation = if round % writes == 0 {
            let writing = write(lock, way)?;
            let seen = witness.enter(true);
            if round % (2 * writes) == 0 {
                // Before others may read; from then on a writer would meet it.
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
            return Ok(format!("violation in round {round}: {violation}"));
        }
    }
    Ok("ok".into())
}

/// The longest wait and how often it read, until the file is there. Says by a file of its own that it has read five times.
fn overlap(lock: &RwLock, until: &Path, ms: &str) -> Result<String, Error> {
    let (mut longest, mut reads) = (Duration::ZERO, 0);
    while !until.exists() {
        let start = Instant::now();
        let _reading = lock.read()?;
        longest = longest.max(start.elapsed());
        reads += 1;
        if reads == 5 {
            std::fs::write(until.with_extension(std::process::id().to_string()), "").unwrap();
        }
        std::thread::sleep(milliseconds(ms));
    }
    Ok(format!("{reads} reads, the longest wait {} ms", longest.as_millis()))
}

/// Says by a lock of its own who is inside, by tries that must never fail.
struct Witness(File);

impl Witness {
    fn open(path: &str) -> Self {
        let mut options = File::options();
        Self(options.read(true).write(true).create(true).truncate(false).open(path).unwrap())
    }

    fn enter(&self, writes: bool) -> Result<(), String> {
        let entered = if writes {
            fs4::FileExt::try_lock(&self.0)
        } else if cfg!(windows) {
            self.leave(); // there is no changing of a lock
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
