//! The semaphore calls of a peer, and a witness that detects two holders of a slot without relying
//! on the semaphore.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flockwork::{Error, Permit, Semaphore};
use futures_lite::future::block_on;

use super::{Answer, Peer, Setting, Way, done, options, text};

sendable! {
    enum Call {
        Open(path: PathBuf, capacity: u32, settings: Vec<Setting>),
        OpenExisting(path: PathBuf),
        // Returns the slots.
        Acquire(permits: u32, way: Way),
        Release,
        DropPermits,
        // Releases one permit and acquires one again, as fast as possible.
        ReleaseAndAcquire,
        Available,
        Resize(capacity: u32),
        // Adds to the capacity `times` times.
        Adjust(delta: i32, times: u32),
        // Splits `n` permits off the first permit, which become the last one. Returns their slots.
        Split(n: u32),
        // Merges the second permit into the first one. Returns the slots.
        Merge,
        IsEventDriven,
        // Acquires and releases `times` times, in the given forms by turns and with a witness in
        // the directory. Returns the longest wait.
        Churn(directory: PathBuf, permits: u32, times: u32, ways: Vec<Way>),
        StillHeld,
        // Returns 0 if the copies of the permits are not reported as held.
        #[cfg(unix)]
        DropPermitsInFork,
        // Returns 0 if the copies of the first two permits can be neither split nor merged.
        #[cfg(unix)]
        SplitAndMergeInFork,
    }
}

/// Starts a peer that opens the semaphore.
pub(crate) fn peer(path: &Path, capacity: u32, settings: &[Setting]) -> Peer {
    let mut peer = Peer::start();
    peer.open_semaphore(path, capacity, settings);
    peer
}

impl Peer {
    #[track_caller]
    pub(crate) fn open_semaphore(&mut self, path: &Path, capacity: u32, settings: &[Setting]) {
        self.run(Call::Open(path.into(), capacity, settings.into()));
    }
}

/// Waits until that peer is the leader.
pub(crate) fn until_leader(path: &Path, peer: &Peer) {
    crate::support::until_held(&path.join("gate"), peer.id());
}

/// Lets all peers wait, and waits until they have queued in order.
pub(crate) fn queue_up(path: &Path, peers: &mut [Peer], permits: u32) {
    for (behind, peer) in peers.iter_mut().enumerate() {
        peer.begin(Call::Acquire(permits, Way::Block));
        if behind == 0 {
            until_leader(path, peer);
        } else {
            crate::support::until_blocked(&path.join("gate"), behind);
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    semaphore: Option<Semaphore>,
    permits: Vec<Permit>,
}

impl State {
    pub(super) fn obey(&mut self, call: Call) -> Answer {
        match call {
            Call::Open(path, capacity, settings) => {
                let opened = options(&settings).open_semaphore(path, capacity);
                done(opened.map(|semaphore| self.semaphore = Some(semaphore)))
            }
            Call::OpenExisting(path) => done(
                Semaphore::open_existing(path).map(|semaphore| self.semaphore = Some(semaphore)),
            ),
            Call::Acquire(permits, way) => {
                text(acquire(self.semaphore(), permits, way).map(|permit| self.keep(permit)))
            }
            Call::Release => done(self.permits.remove(0).release()),
            Call::DropPermits => {
                self.permits.clear();
                done(Ok(()))
            }
            Call::ReleaseAndAcquire => {
                let released = self.permits.remove(0).release();
                let acquired = released.and_then(|()| self.semaphore().acquire());
                text(acquired.map(|permit| self.keep(permit)))
            }
            Call::StillHeld => text(self.permits[0].still_held()),
            Call::Available => text(self.semaphore().available_permits()),
            Call::Resize(capacity) => done(self.semaphore().set_capacity(capacity)),
            Call::Adjust(delta, times) => {
                done((0..times).try_for_each(|_| self.semaphore().adjust_capacity(delta).map(drop)))
            }
            Call::Split(n) => text(self.permits[0].split(n).map(|permit| self.keep(permit))),
            Call::Merge => {
                let other = self.permits.remove(1);
                let merged = self.permits[0].merge(other).map_err(Error::from);
                text(merged.map(|()| slots(&self.permits[0])))
            }
            Call::IsEventDriven => text(Ok(self.semaphore().is_event_driven())),
            Call::Churn(directory, permits, times, ways) => {
                self.churn(&directory, permits, times, &ways)
            }
            #[cfg(unix)]
            Call::DropPermitsInFork => match fork::fork().unwrap() {
                fork::Fork::Child => {
                    let are_held = self.permits.iter().any(|permit| permit.still_held().unwrap());
                    self.permits.clear();
                    crate::support::exit_copy(i32::from(are_held));
                }
                fork::Fork::Parent(child) => {
                    text(Ok(crate::support::ended(child).exit_status().unwrap()))
                }
            },
            #[cfg(unix)]
            Call::SplitAndMergeInFork => match fork::fork().unwrap() {
                fork::Fork::Child => {
                    let second = self.permits.remove(1);
                    let is_split = self.permits[0].split(1).is_ok();
                    let is_merged = match self.permits[0].merge(second) {
                        Ok(()) => true,
                        Err(failed) => failed.into_permit().release().is_ok(),
                    };
                    crate::support::exit_copy(i32::from(is_split || is_merged));
                }
                fork::Fork::Parent(child) => {
                    text(Ok(crate::support::ended(child).exit_status().unwrap()))
                }
            },
        }
    }

    fn semaphore(&self) -> &Semaphore {
        self.semaphore.as_ref().expect("open is called first")
    }

    fn keep(&mut self, permit: Permit) -> String {
        let slots = slots(&permit);
        self.permits.push(permit);
        slots
    }

    fn churn(&self, directory: &Path, permits: u32, times: u32, ways: &[Way]) -> Answer {
        let semaphore = self.semaphore();
        let capacity = semaphore.capacity().unwrap();
        let mut longest = Duration::ZERO;
        let rounds = crate::support::rounds(times, Duration::from_secs(20));
        for (_, way) in rounds.zip(ways.iter().cycle()) {
            let start = Instant::now();
            let permit = match acquire(semaphore, permits, *way) {
                Ok(permit) => permit,
                Err(error) => return text(Err::<String, _>(error)),
            };
            longest = longest.max(start.elapsed());
            let mut seen = Vec::new();
            for slot in permit.slots() {
                if *slot >= capacity {
                    return Err(format!("violation: slot {slot} of {capacity}"));
                }
                match Witness::enter(directory, *slot) {
                    Ok(witness) => seen.push(witness),
                    Err(error) => return Err(format!("violation: {error}")),
                }
            }
            drop(seen);
            drop(permit);
        }
        Ok(longest.as_millis().to_string())
    }
}

fn slots(permit: &Permit) -> String {
    let slots: Vec<_> = permit.slots().iter().map(u32::to_string).collect();
    slots.join(",")
}

fn acquire(semaphore: &Semaphore, permits: u32, way: Way) -> Result<Permit, Error> {
    match way {
        Way::Block => semaphore.acquire_many(permits),
        Way::Try => semaphore.try_acquire_many(permits),
        Way::Timeout(ms) => semaphore.acquire_many_timeout(permits, Duration::from_millis(ms)),
        Way::Deadline(ms) => {
            let deadline = Instant::now() + Duration::from_millis(ms);
            semaphore.acquire_many_deadline(permits, deadline)
        }
        Way::Async => block_on(semaphore.acquire_many_async(permits)),
    }
}

/// Marks a slot as used: an exclusive lock on a file that is opened each time, which no other
/// process may hold.
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
                // The kernel drops the locks of a killed process one after the other.
                Err(fs4::TryLockError::WouldBlock) if is_ending(&pid) => std::thread::yield_now(),
                Err(error) => {
                    let other = std::fs::read_to_string(&pid).unwrap_or_default();
                    return Err(format!("process {other} also holds slot {slot}: {error}"));
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

/// Whether the process whose pid is in the file has ended, or is about to (`PF_EXITING` among the
/// flags in `/proc/PID/stat`, proc(5)). The file is empty if it was killed before it had written
/// it.
fn is_ending(pid: &Path) -> bool {
    let Ok(pid) = std::fs::read_to_string(pid) else { return true };
    if pid.is_empty() {
        return true;
    }
    if !cfg!(target_os = "linux") {
        return false;
    }
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let after_name = stat.rsplit(')').next().unwrap();
    let flags = after_name.split_whitespace().nth(6).unwrap();
    flags.parse::<u64>().unwrap() & 4 != 0
}
