//! What a peer does with a semaphore, as it is told; and a witness of who has which slot that does not trust
//! the semaphore.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use flockwork::{Error, Permit, Semaphore};

use crate::peer::{Peer, options, told};

/// A backstop so far away that a wake-up that is lost shows as a wait that does not end. Windows' events are
/// not relied on (`docs/PLATFORMS.md`).
pub(crate) const FAR: &str = if cfg!(windows) { "" } else { "backstop=1000" };

/// A peer that has opened the semaphore.
pub(crate) fn peer(path: &Path, permits: u32, settings: &str) -> Peer {
    let mut peer = Peer::start();
    open(&mut peer, path, permits, settings);
    peer
}

pub(crate) fn open(peer: &mut Peer, path: &Path, permits: u32, settings: &str) {
    peer.open(&format!("sem\topen\t{}\t{permits}", path.display()), settings);
}

/// Waits until that peer has come to the head of the queue.
pub(crate) fn until_head(path: &Path, peer: &Peer) {
    crate::support::until_held(&path.join("gate"), peer.id());
}

/// Waits until all of them wait, of whom the first has come first.
pub(crate) fn queue_up(path: &Path, peers: &mut [Peer], command: &str) {
    for (behind, peer) in peers.iter_mut().enumerate() {
        peer.tell(command);
        if behind == 0 {
            until_head(path, peer);
        } else {
            crate::support::until_blocked(&path.join("gate"), behind);
        }
    }
}

#[derive(Default)]
pub(crate) struct State {
    semaphore: Option<Semaphore>,
    permits: Vec<Permit>,
}

impl State {
    pub(crate) fn obey(&mut self, words: &[&str]) -> String {
        told(self.done(words))
    }

    fn done(&mut self, words: &[&str]) -> Result<String, Error> {
        let number = |word: &str| word.parse::<u32>().unwrap();
        let ok = Ok("ok".to_string());
        match *words {
            ["open", path, permits, ref settings @ ..] => {
                let opened = options(settings).open_semaphore(path, number(permits))?;
                self.semaphore = Some(opened);
                ok
            }
            ["existing", path] => {
                self.semaphore = Some(Semaphore::open_existing(path)?);
                ok
            }
            ["acquire", n] => {
                let permit = self.semaphore().acquire_many(number(n))?;
                Ok(self.keep(permit))
            }
            ["try", n] => {
                let permit = self.semaphore().try_acquire_many(number(n))?;
                Ok(self.keep(permit))
            }
            ["timeout", n, ms] => {
                let timeout = Duration::from_millis(number(ms).into());
                let permit = self.semaphore().acquire_many_timeout(number(n), timeout)?;
                Ok(self.keep(permit))
            }
            ["async", n] => {
                let future = self.semaphore().acquire_many_async(number(n));
                let permit = futures_lite::future::block_on(future)?;
                Ok(self.keep(permit))
            }
            ["release"] => {
                self.permits.remove(0).release()?;
                ok
            }
            ["drop"] => {
                self.permits.clear();
                ok
            }
            // Releases and acquires again, as fast as it can.
            ["again"] => {
                self.permits.remove(0).release()?;
                let permit = self.semaphore().acquire()?;
                Ok(self.keep(permit))
            }
            ["abandoned"] => Ok(self.permits[0].abandoned().to_string()),
            ["capacity"] => Ok(self.semaphore().capacity()?.to_string()),
            ["available"] => Ok(self.semaphore().available_permits()?.to_string()),
            ["resize", n] => {
                self.semaphore().resize(number(n))?;
                ok
            }
            ["event-driven"] => Ok(self.semaphore().is_event_driven().to_string()),
            ["holders"] => {
                let holders = self.semaphore().holders()?;
                let text = |holder: &flockwork::Holder| {
                    format!("{:?} {} {:?}", holder.slot(), holder.pid(), holder.label())
                };
                Ok(holders.iter().map(text).collect::<Vec<_>>().join("; "))
            }
            // Acquires so many permits so often, each time with the witness; the longest wait.
            ["churn", witness, n, times, way] => self.churn(Path::new(witness), n, times, way),
            // Waits as a future that is dropped while it waits, so often.
            ["give-up", n, times] => {
                for _ in 0..number(times) {
                    let mut future = self.semaphore().acquire_many_async(number(n));
                    let once = futures_lite::future::poll_once(&mut future);
                    assert!(futures_lite::future::block_on(once).is_none());
                }
                ok
            }
            #[cfg(unix)]
            ["fork-drop"] => match fork::fork().unwrap() {
                fork::Fork::Child => {
                    self.permits.clear();
                    std::process::exit(0);
                }
                fork::Fork::Parent(child) => {
                    crate::support::ended(child);
                    ok
                }
            },
            _ => Ok(format!("what is {words:?}?")),
        }
    }

    fn semaphore(&self) -> &Semaphore {
        self.semaphore.as_ref().expect("open comes first")
    }

    fn keep(&mut self, permit: Permit) -> String {
        let slots: Vec<_> = permit.slots().iter().map(u32::to_string).collect();
        self.permits.push(permit);
        format!("held {}", slots.join(","))
    }

    fn churn(&self, witness: &Path, n: &str, times: &str, way: &str) -> Result<String, Error> {
        let (semaphore, n) = (self.semaphore(), n.parse().unwrap());
        let capacity = semaphore.capacity()?;
        let mut longest = Duration::ZERO;
        for round in 0..times.parse::<u32>().unwrap() {
            let start = Instant::now();
            let permit = match (way, round % 3) {
                ("mixed", 1) | ("timeout", _) => {
                    semaphore.acquire_many_timeout(n, Duration::from_secs(300))?
                }
                ("mixed", 2) | ("async", _) => {
                    futures_lite::future::block_on(semaphore.acquire_many_async(n))?
                }
                _ => semaphore.acquire_many(n)?,
            };
            longest = longest.max(start.elapsed());
            let mut seen = Vec::new();
            for slot in permit.slots() {
                if *slot >= capacity {
                    return Ok(format!("violation: slot {slot} of {capacity}"));
                }
                match Witness::enter(witness, *slot) {
                    Ok(witness) => seen.push(witness),
                    Err(error) => return Ok(format!("violation: {error}")),
                }
            }
            drop(seen);
            drop(permit);
        }
        Ok(format!("longest wait {} ms", longest.as_millis()))
    }
}

/// Somebody is in a slot: a file of which nobody else may hold an exclusive lock, opened anew each time.
pub(crate) struct Witness(File);

impl Witness {
    pub(crate) fn enter(directory: &Path, slot: u32) -> Result<Self, String> {
        let path = directory.join(format!("witness.{slot}"));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| error.to_string())?;
        let pid = directory.join(format!("witness.{slot}.pid"));
        loop {
            match fs4::FileExt::try_lock(&file) {
                Ok(()) => break,
                // A process that is killed drops its locks one after the other.
                Err(fs4::TryLockError::WouldBlock) if is_ending(&pid) => std::thread::yield_now(),
                Err(error) => {
                    let other = std::fs::read_to_string(&pid).unwrap_or_default();
                    return Err(format!("slot {slot} is also process {other}'s: {error}"));
                }
            }
        }
        std::fs::write(pid, std::process::id().to_string()).map_err(|error| error.to_string())?;
        Ok(Self(file))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = fs4::FileExt::unlock(&self.0);
    }
}

/// Whether the process whose number is in the file has ended, or is about to (`PF_EXITING` among the flags in
/// `/proc/PID/stat`, proc(5)).
fn is_ending(pid: &Path) -> bool {
    let Ok(pid) = std::fs::read_to_string(pid) else { return true };
    if !cfg!(target_os = "linux") {
        return false;
    }
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let after_name = stat.rsplit(')').next().unwrap();
    let flags = after_name.split_whitespace().nth(6).unwrap();
    flags.parse::<u64>().unwrap() & 4 != 0
}
