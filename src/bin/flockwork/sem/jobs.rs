//! The jobs of a semaphore. Each has a file in the directory `jobs`, which it keeps locked from
//! before it waits for its permits until its command has ended. So `--wait` waits for queued jobs
//! too, takes no permit, and notices the death of a job.
//!
//! The file of a background job records its exit code if it failed. The file is removed after a
//! success, and by the `--wait` that counts the failure.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flockwork::{ErrorKind, Lock, LockGuard, Options};

use super::group::Group;
use crate::exit::Exit;

/// A background job has been started. A job that ends without another line was killed.
const STARTED: &str = "started\n";

/// The exit code for this number of failures or more, as in GNU parallel.
pub(crate) const MAX_FAILURES: usize = 101;

/// How long the failure of another group is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn directory(semaphore: &Path) -> PathBuf {
    semaphore.join("jobs")
}

/// The file of a job of this process.
#[derive(Debug)]
pub(crate) struct Registration {
    path: PathBuf,
    is_background: bool,
    held: Option<(Lock, LockGuard)>,
}

impl Registration {
    /// Creates and locks the file; returns `None` if this user may not do so. A background job has
    /// a group.
    pub(crate) fn new(semaphore: &Path, group: Option<&Group>, options: &Options) -> Option<Self> {
        let directory = directory(semaphore);
        let kind = fs::symlink_metadata(&directory);
        if kind.is_ok_and(|kind| !kind.is_dir()) {
            return None; // another program's file
        }
        if group.is_some() || fastrand::u8(..) < 16 {
            sweep(semaphore, group);
        }
        let group_name = group.map(Group::as_str).unwrap_or_default();
        // Another container may have a process of the same number.
        for _ in 0..8 {
            let (pid, random) = (std::process::id(), fastrand::u32(..));
            let path = directory.join(format!("{group_name}@{pid}.{random:08x}"));
            let lock = options.open_lock(&path).ok()?;
            match lock.try_lock() {
                Ok(guard) => {
                    let held = Some((lock, guard));
                    return Some(Self { path, is_background: group.is_some(), held });
                }
                Err(error) if error.is_would_block() => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Records that a background job is about to be started.
    pub(crate) fn starts(&self) {
        if self.is_background {
            self.append(STARTED);
        }
    }

    /// Records the end of the job. `None` means that it was not started, which its starter reports.
    pub(crate) fn ended(self, exit: Option<Exit>) {
        match exit.map(Exit::code) {
            Some(code) if self.is_background && code != 0 => {
                self.append(&format!("exit {code}\n"));
                let mut this = self;
                this.release();
            }
            _ => drop(self),
        }
    }

    fn append(&self, line: &str) {
        let file = OpenOptions::new().append(true).open(&self.path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }

    /// Unlocks the file and keeps it. Processes that the command left running stay registered.
    fn release(&mut self) {
        if let Some((lock, guard)) = self.held.take() {
            let _ = guard.unlock();
            drop(lock);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.held.is_none() {
            return;
        }
        let removed = fs::remove_file(&self.path);
        if removed.is_err() {
            self.append("exit 0\n");
        }
        self.release();
        if removed.is_err() {
            let _ = fs::remove_file(&self.path); // Windows does not remove an open file
        }
    }
}

/// The files of all jobs.
pub(crate) fn list(semaphore: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory(semaphore)).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files.map(|entry| entry.path()).filter(|path| group_of(path).is_some()).collect()
}

/// The group in the name of a file, which is empty for a job in the foreground.
fn group_of(path: &Path) -> Option<&str> {
    Some(path.file_name()?.to_str()?.rsplit_once('@')?.0)
}

/// Counts the failed jobs of the group, and forgets them. All of these jobs have ended.
pub(crate) fn count_failures(files: &[PathBuf], group: &Group) -> usize {
    let of_group = files.iter().filter(|path| is_of(path, group));
    // Another process that waited for the same job, or sweeps, holds the lock for a moment.
    let ended = of_group.filter_map(|path| Ended::lock(path, Duration::from_secs(10)));
    ended.filter(Ended::has_failed).filter_map(|ended| ended.remove().then_some(())).count()
}

fn is_of(path: &Path, group: &Group) -> bool {
    group_of(path).is_some_and(|name| group.is(name))
}

/// Removes the files of jobs that were killed in the foreground or before they were started, and
/// failures that no `--wait` has counted.
fn sweep(semaphore: &Path, group: Option<&Group>) {
    let mut of_group = 0;
    for path in list(semaphore) {
        let Some(ended) = Ended::lock(&path, Duration::ZERO) else { continue };
        let is_own = group.is_some_and(|group| is_of(&path, group));
        of_group += usize::from(is_own && ended.has_failed());
        let is_kept = if is_own { of_group <= MAX_FAILURES } else { ended.is_recent() };
        if !(ended.has_failed() && is_kept) {
            ended.remove();
        }
    }
}

/// The file of a job that has ended, locked by this process.
struct Ended {
    path: PathBuf,
    text: String,
    _guard: LockGuard,
}

impl Ended {
    /// Returns `None` if the job is running, or this user may not open its file.
    fn lock(path: &Path, timeout: Duration) -> Option<Self> {
        let lock = Options::new().create(false).open_lock(path).ok()?;
        let guard = lock.lock_timeout(timeout).ok()?;
        let text = fs::read_to_string(path).ok()?;
        Some(Self { path: path.into(), text, _guard: guard })
    }

    /// Whether the job was started, and failed or was killed.
    fn has_failed(&self) -> bool {
        self.text.starts_with(STARTED) && !self.text.ends_with("\nexit 0\n")
    }

    fn is_recent(&self) -> bool {
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| modified.elapsed().unwrap_or_default() < KEPT)
    }

    /// Returns `false` if another process has removed it.
    fn remove(self) -> bool {
        let removed = fs::remove_file(&self.path).is_ok();
        let path = self.path.clone();
        drop(self);
        removed || cfg!(windows) && fs::remove_file(path).is_ok()
    }
}

/// Whether the error means that the file of a job is gone or private to another user, so that this
/// process cannot wait for it.
pub(crate) fn is_gone(error: &flockwork::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || error.io_error().is_some_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
            )
        })
}
