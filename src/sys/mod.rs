//! The platform: how files are opened, locked, identified and published, and what the system shows
//! of processes. The `cfg` table at the end chooses the implementation; no other module of the
//! library has a `cfg` for the platform.
//!
//! Every implementation provides the same names:
//!
//! * [`SUPPORTED`]: whether this platform has file locks at all.
//! * [`misnamed`]: why the system would take a path for a file other than the one it seems to name.
//! * [`common_name`]: one path for all paths under which an existing file is known, if the system
//!   shows that.
//! * [`open_existing`]: opens an existing file to read and write; never creates or truncates it,
//!   follows a symbolic link at the last component, or blocks on a FIFO.
//! * [`open_to_lock`]: opens the file in the same way to lock it, and only for reading if the file
//!   system grants locks on that.
//! * [`open_to_read`]: opens the file in the same way, to read what another process wrote beside
//!   the path.
//! * [`create_new`]: creates a file; fails with `AlreadyExists` if anything has the name.
//! * [`create_to_lock`]: creates a file in the same way, opened as by [`open_to_lock`].
//! * [`write_new`], [`replace`], [`replace_preserving`]: write files so that no process ever sees a
//!   part of one.
//! * [`overwrite`]: writes to an existing file in place.
//! * [`announce`], [`is_announcement`], [`end_announcement`]: write a file that counts as long as
//!   its writer lives, recognize it, and make it no longer count.
//! * [`writer_lives`]: whether the process that announced it lives.
//! * [`marker_kind`]: the kind of file at a path, and whether it is an announcement.
//! * [`still_names`], [`remove_exactly`]: whether a path still names an announcement that is open,
//!   and its removal.
//! * [`make_replaceable`]: prepares the replacement of an announcement that is open.
//! * [`remove_left_by_others`]: removes files that killed writers left beside a path.
//! * [`through_replacements`], [`is_stale`], [`of_open_file`]: read a file that another host may
//!   replace meanwhile.
//! * [`through_readers`]: renames or opens a file that other processes may have open.
//! * [`RENAMES_COMPARE_NAMES`]: whether a rename succeeds for only one of several processes.
//! * [`rename_new`]: renames a file to a name that must not exist, if the system supports that.
//! * [`remove_at_once`]: removes a file and frees its name even if other processes have the file
//!   open.
//! * [`sync_directory`], [`sync_everything`]: sync the names in a directory, or all that was
//!   written; `false` if that is not possible.
//! * [`file_kind`]: whether a path names a regular file, nothing, or something else.
//! * [`BACKSTOP`]: how long a waiter relies on the events of a directory before it checks without
//!   one.
//! * [`SHARED_BACKSTOP`]: how long a waiter for a shared lock relies on the kernel to wake it, if
//!   that is not forever.
//! * [`read_dir`]: the entries of a directory; EINTR is retried.
//! * [`Retries`]: how long to repeat a step that another program undoes each time.
//! * [`Directory`]: a directory of flockwork that no other process can redirect while it is used.
//! * [`ListedDirectory`]: a directory of a network file system that is listed again and again.
//! * [`create_directories`]: creates a directory and its missing ancestors.
//! * [`user_number`], [`create_private_directory`], [`is_private_directory`], [`protects_names`]: a
//!   directory that only this user may use.
//! * [`try_lock`], [`try_lock_again`], [`lock`], [`unlock`], [`probe`]: lock an open file as a
//!   whole; EINTR is retried.
//! * [`make_inheritable`]: makes programs that are started from now on inherit the open file, and
//!   its lock.
//! * [`downgrade`]: changes an exclusive lock into a shared one; no other process acquires the lock
//!   in between.
//! * [`FileId`], [`identity`], [`regular_identity`], [`path_identity`], [`names`]: the identity of
//!   an open file, and whether a path names it.
//! * [`has_one_name`]: whether the file has no other name, such as a hard link by another user.
//! * [`DirectoryId`], [`directory_identity`]: the identity of the directory that a path leads to.
//! * [`is_network`], [`is_network_directory`]: whether blocking in the kernel, or events, cannot be
//!   relied on.
//! * [`check_mount`], [`check_forwarded`]: fail if locks there exclude only processes of this host.
//! * [`has_lost_lock`], [`means_lost`]: whether the server of a network file system has dropped a
//!   lock, and whether an error says so.
//! * [`lists_locks`], [`locked_in_list`]: whether the system lists all locks on files in a
//!   directory, and which files it lists if the list is complete.
//! * [`locks_unsupported`]: whether an error means that the file system has no locks.
//! * [`is_bad_name`], [`advice`]: what else an error means, and what to do about it.
//! * [`explained()`], [`hint_of`]: errors with a text and a hint of flockwork's own.
//! * [`describe`]: the kind of a file that is not regular.
//! * [`LivenessLock`]: a published file whose publisher the kernel shows to be alive or dead.
//! * [`FIFOS`], [`create_fifo`], [`HeldFifo`], [`WatchedFifo`], [`wait_for_fifos`]: a FIFO that
//!   notifies a waiter when its holder closes it or dies.
//! * [`Origin`]: distinguishes a process from the copy that `fork` makes of it.
//! * [`coarse_milliseconds`]: a clock that is fast to read and not exact.
//! * [`this_process`], [`has_ended`], [`PID_NAMESPACES`]: identify a process among all that ever
//!   had its number.
//! * [`lock_owners`], [`lock_waiters`], [`inheritors`], [`has_open`], [`is_stopped`],
//!   [`command_of`], [`started`], [`host_name`]: what the system shows of holders and waiters.

#![expect(clippy::disallowed_methods, reason = "the one place that opens and locks files")]

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What the mount table says about the locks of a network file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RemoteLocks {
    /// Whether [`check_forwarded`] is to be called as soon as a file is locked.
    pub(crate) is_unchecked: bool,
    /// Whether a blocked request is known to be granted soon after the release.
    pub(crate) are_prompt: bool,
    /// Whether only one process of a host may be blocked at a time.
    pub(crate) is_one_blocked: bool,
}

/// The mode of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Excludes all other locks.
    Exclusive,
    /// Excludes exclusive locks.
    Shared,
}

/// A process that holds a lock, as the system shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "only Linux shows that")]
pub(crate) struct Owner {
    pub(crate) file: FileId,
    pub(crate) is_shared: bool,
    /// Its number in the system's list.
    pub(crate) listed: u32,
    /// Its number in this process's pid namespace; `None` if it is not in that namespace.
    pub(crate) pid: Option<u32>,
}

/// Identifies a process among all that ever had its number. A value that the system does not show
/// is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) numbering: Numbering,
    /// When it was started: a number that is only compared.
    pub(crate) started: Option<u64>,
    /// Which boot of which machine it runs in.
    pub(crate) boot: Option<String>,
}

/// The pid namespace in which a process number is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(dead_code, reason = "only Linux has such namespaces")]
pub(crate) enum Numbering {
    /// This namespace, by its number, which is not reused while the namespace has a process.
    Namespace(u64),
    /// A namespace other than this process's.
    Other,
    Unknown,
}

/// Mode bits of files and directories that are created (Unix; elsewhere nothing is set).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) file: u32,
    pub(crate) directory: u32,
}

/// The kind of file that a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Nothing,
    File,
    /// A directory, a symbolic link, a FIFO ...
    Other,
}

impl FileKind {
    pub(crate) fn of(is_file: bool) -> Self {
        if is_file { Self::File } else { Self::Other }
    }
}

/// Blocks until the lock is acquired, whatever signals arrive.
///
/// Neither std nor fs4 retries EINTR, so a handler installed without `SA_RESTART` would turn a wait
/// into an error (rule 5).
pub(crate) fn lock(file: &std::fs::File, mode: Mode) -> io::Result<()> {
    retry_eintr(|| flock::lock(file, mode))
}

/// Acquires the lock without blocking. `Ok(false)`: it would block.
pub(crate) fn try_lock(file: &std::fs::File, mode: Mode) -> io::Result<bool> {
    retry_eintr(|| flock::try_lock(file, mode))
}

/// Tries the lock on an open file that may have it already, in this mode, through a call of another
/// thread: then the try succeeds. Only on systems where that is one lock and not two (flock(2),
/// "NOTES"; `flock_lock_inode` in Linux's `fs/locks.c`); elsewhere the answer is `false`.
pub(crate) fn try_lock_again(file: &std::fs::File, mode: Mode) -> io::Result<bool> {
    // macOS could grant the lock here while another process that was woken for it has not run yet,
    // and then make the other thread's request wait for this very lock (xnu,
    // `bsd/kern/kern_lockf.c`, `lf_setlock`: `lf_move_blocked` compares no owners).
    if imp::LOCKS_STACK || cfg!(target_vendor = "apple") {
        return Ok(false);
    }
    try_lock(file, mode)
}

/// How long a waiter for a shared lock relies on the kernel to wake it, if that is not forever.
/// macOS wakes the first waiter and makes the others wait for that one, even if all of them want
/// the lock shared: the second reader would sleep until the first has released the lock (xnu,
/// `bsd/kern/kern_lockf.c`, `lf_setlock` and `lf_wakelock` with `F_WAKE1_SAFE`).
pub(crate) const SHARED_BACKSTOP: Option<Duration> =
    if cfg!(target_vendor = "apple") { Some(Duration::from_millis(250)) } else { None };

/// Whether of several processes that rename the same name exactly one succeeds. Windows opens the
/// file by its name and then renames what it has opened, even if that has another name by now.
pub(crate) const RENAMES_COMPARE_NAMES: bool = cfg!(not(windows));

/// Releases the lock.
pub(crate) fn unlock(file: &std::fs::File) -> io::Result<()> {
    retry_eintr(|| flock::unlock(file))
}

/// Whether the file is locked, determined by a try that holds the lock for less than a microsecond.
/// With `readers` the try also detects shared locks. `None`: no process has the file locked
/// exclusively, and whether it is locked shared is not known.
pub(crate) fn probe(file: &std::fs::File, readers: bool) -> io::Result<Option<bool>> {
    // While a file is locked exclusively on Windows, no other process can read it. NFS grants an
    // exclusive lock only on a file that is open for writing.
    if readers && !imp::LOCKS_ARE_MANDATORY {
        if let Ok(is_locked) = is_refused(file, Mode::Exclusive) {
            return Ok(Some(is_locked));
        }
    }
    let is_locked = is_refused(file, Mode::Shared)?;
    Ok(if readers && !is_locked { None } else { Some(is_locked) })
}

fn is_refused(file: &std::fs::File, mode: Mode) -> io::Result<bool> {
    // A failure may be due to another process that probes; several in a row are hardly all due to
    // that.
    for _ in 0..4 {
        if try_lock(file, mode)? {
            return unlock(file).map(|()| false);
        }
        std::thread::yield_now();
    }
    Ok(true)
}

/// Makes an exclusive lock a shared one without waiting. No other process acquires it in between
/// (rule R4). After `Ok(false)` or an error, possibly nothing is held.
pub(crate) fn downgrade(file: &std::fs::File) -> io::Result<bool> {
    let is_shared = try_lock(file, Mode::Shared)?;
    if is_shared && imp::LOCKS_STACK {
        unlock(file)?;
    }
    Ok(is_shared)
}

fn retry_eintr<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Whether the error is that another host has removed or replaced the file (ESTALE).
pub(crate) fn is_stale(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StaleNetworkFileHandle
}

/// The error of reading an open file. A client that opens a file only when it is read (`GlusterFS`,
/// `performance.open-behind`) returns ENOENT by then for one that was replaced.
pub(crate) fn of_open_file(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::ErrorKind::StaleNetworkFileHandle.into(),
        _ => error,
    }
}

/// Repeats a call that opens a file by its name and reads it, while another host replaces the file
/// in between. The next call opens the file that has the name then. A client may find the old file
/// by that name for a second (`GlusterFS`), so the calls are repeated for at least three seconds
/// (rule 9).
pub(crate) fn through_replacements<T>(call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    through_replacements_of(is_stale, call)
}

/// The same for errors of another type.
pub(crate) fn through_replacements_of<T, E>(
    is_stale: impl Fn(&E) -> bool,
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut retries = Retries::new();
    loop {
        match call() {
            Err(error) if is_stale(&error) && retries.again() => {}
            done => return done,
        }
    }
}

/// Reads a directory. std does not retry EINTR here (rule 5).
pub(crate) fn read_dir(directory: &Path) -> io::Result<std::fs::ReadDir> {
    retry_eintr(|| std::fs::read_dir(directory))
}

/// Bounds a loop that starts again because another program undid a step of it, for example removed
/// or replaced a file (rule 2).
///
/// A program that does so without pause, or a file system whose inode numbers change, would make
/// the loop endless. A number alone is no bound: on a busy machine each of a thousand tries may be
/// interrupted at the wrong moment.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    tries: u32,
    /// The time of the first pause, by the coarse clock.
    since: u64,
}

impl Retries {
    /// The number of tries that follow each other without a pause and without reading the clock.
    const EAGER: u32 = 16;
    /// After this many tries each pause is a sleep; before that, it only lets other threads run.
    const YIELDING: u32 = 64;
    const MIN_TRIES: u32 = 1000;
    /// The minimum duration in milliseconds.
    const MIN_SPAN: u64 = 3000;

    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Whether to try once more: immediately at first, and then after a short pause. `false` after
    /// at least a thousand tries and three seconds.
    pub(crate) fn again(&mut self) -> bool {
        self.tries = self.tries.saturating_add(1);
        if self.tries <= Self::EAGER {
            return true;
        }
        if self.tries <= Self::YIELDING {
            std::thread::yield_now();
        } else {
            // The pauses differ, so that they do not stay in step with the other program.
            std::thread::sleep(Duration::from_micros(u64::from(self.tries % 16) * 50));
        }
        if self.tries == Self::EAGER + 1 {
            self.since = coarse_milliseconds();
        }
        !self.have_lasted(Self::MIN_TRIES, Self::MIN_SPAN)
    }

    /// Whether there were too many tries for other programs to be the reason for the failure.
    pub(crate) fn are_many(&self) -> bool {
        self.have_lasted(100, 100)
    }

    fn have_lasted(&self, tries: u32, milliseconds: u64) -> bool {
        self.tries > tries && coarse_milliseconds().saturating_sub(self.since) >= milliseconds
    }
}

/// A directory that existed when it was opened, and was not a symbolic link to one. On Linux with
/// `/proc` mounted, names below its path stay within it, even if another process replaces it
/// meanwhile (rule S10).
pub(crate) struct Directory {
    path: std::path::PathBuf,
    held: Option<(std::fs::File, FileId)>,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some((held, path)) = imp::hold_directory(path)? {
            let id = identity(&held)?;
            return Ok(Self { path, held: Some((held, id)) });
        }
        if std::fs::symlink_metadata(path)?.is_dir() {
            return Ok(Self { path: path.into(), held: None });
        }
        Err(io::ErrorKind::NotADirectory.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `path` still names this directory. Where none is held open, the path is looked up
    /// each time, so any directory will do.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        match &self.held {
            Some((_held, id)) => names(path, *id).unwrap_or(false),
            None => path.is_dir(),
        }
    }
}

/// Milliseconds of a monotonic clock, for systems that have no faster one.
#[allow(dead_code, reason = "Linux has a faster clock")]
fn milliseconds() -> u64 {
    static START: once_cell::race::OnceBox<std::time::Instant> = once_cell::race::OnceBox::new();
    let since_start = START.get_or_init(|| Box::new(std::time::Instant::now())).elapsed();
    u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX)
}

/// The directory itself, or the nearest existing one above it. `None`: not even the root can be
/// examined.
pub(crate) fn nearest_directory(directory: &Path) -> Option<&Path> {
    directory.ancestors().find(|ancestor| ancestor.is_dir())
}

/// `path` with `suffix` added to its last component.
pub(crate) fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(OsStr::new(suffix));
    name.into()
}

pub(crate) use self::announcement::{is_announcement, remove_exactly};
pub(crate) use self::atomic_write::{
    announce, end_announcement, overwrite, remove_left_by_others, replace, replace_preserving,
    write_new,
};
pub(crate) use self::explained::{explained, hint_of};
pub(crate) use self::random::{generator, is_unique_name, unique_beside};

mod announcement;
mod atomic_write;
mod explained;
mod random;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod no_fifo;
#[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "emscripten")))))]
mod no_private_directory;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod no_proc;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use self::no_fifo::{
    FIFOS, HeldFifo, Wakeup, WatchedFifo, create_fifo, is_exhausted, is_fifo_open, may_have_forked,
    nanoseconds, read_at, signal_fifo, signal_unless_closed, wait_for_fifos, write_at,
};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use imp::{
    FIFOS, HeldFifo, Wakeup, WatchedFifo, create_fifo, is_exhausted, is_fifo_open, may_have_forked,
    nanoseconds, read_at, signal_fifo, signal_unless_closed, wait_for_fifos, write_at,
};

pub(crate) use imp::{
    BACKSTOP, FILES_HAVE_NUMBERS, FileId, ListedDirectory, LivenessLock, NetworkMounts, Origin,
    PID_NAMESPACES, SUPPORTED, advice, check_forwarded, check_mount, coarse_milliseconds,
    command_of, common_name, create_directories, create_new, create_private_directory,
    create_to_lock, describe, file_kind, has_ended, has_lost_lock, has_one_name, has_open,
    host_name, identity, inheritors, is_bad_name, is_network, is_network_directory,
    is_private_directory, is_stopped, lists_locks, lock_owners, lock_waiters, locked_in_list,
    locks_unsupported, make_inheritable, make_replaceable, marker_kind, means_lost, misnamed,
    names, open_existing, open_to_lock, open_to_read, path_identity, protects_names,
    regular_identity, remove_at_once, rename_new, started, still_names, sync_directory,
    sync_everything, this_process, through_readers, user_number, writer_lives,
};

#[cfg(feature = "watch")]
pub(crate) use imp::{DirectoryId, directory_identity};

#[cfg(all(unix, not(any(target_os = "solaris", target_os = "emscripten"))))]
#[path = "unix/mod.rs"]
mod imp;

#[cfg(windows)]
#[path = "windows/mod.rs"]
mod imp;

#[cfg(any(windows, test))]
#[path = "windows/names.rs"]
mod windows_names;

#[cfg(any(windows, all(unix, not(any(target_os = "solaris", target_os = "emscripten")))))]
mod flock;

#[cfg(not(any(windows, all(unix, not(any(target_os = "solaris", target_os = "emscripten"))))))]
#[path = "unsupported.rs"]
mod imp;
#[cfg(not(any(
    windows,
    all(unix, not(any(target_os = "solaris", target_os = "emscripten")))
)))]
use imp::flock;

#[cfg(test)]
mod retries {
    use super::{Retries, io, is_stale, through_replacements};

    #[test]
    fn a_file_that_another_host_replaces_is_opened_again() {
        limit!();
        let stale = || io::Error::from(io::ErrorKind::StaleNetworkFileHandle);
        let mut calls = 0;
        let mut fails = |times: usize| {
            calls = 0;
            through_replacements(|| {
                calls += 1;
                if calls <= times { Err(stale()) } else { Ok(calls) }
            })
        };
        assert_eq!(fails(0).unwrap(), 1);
        assert_eq!(fails(20).unwrap(), 21);
        // A server that no longer knows the directory answers in the same way for ever.
        assert!(is_stale(&fails(usize::MAX).unwrap_err()));
        let mut calls = 0;
        let missing = through_replacements(|| {
            calls += 1;
            Err::<(), _>(io::Error::from(io::ErrorKind::NotFound))
        });
        assert_eq!((missing.unwrap_err().kind(), calls), (io::ErrorKind::NotFound, 1));
    }

    #[test]
    fn retries_end_after_many_tries_and_not_before_a_time() {
        limit!();
        let start = std::time::Instant::now();
        let mut retries = Retries::new();
        let mut tries = 0_u32;
        let mut many = None;
        while retries.again() {
            tries += 1;
            if many.is_none() && retries.are_many() {
                many = Some(tries);
            }
        }
        let least = std::time::Duration::from_millis(Retries::MIN_SPAN - 50); // the clock is coarse
        assert!(tries >= Retries::MIN_TRIES && start.elapsed() >= least, "{tries}");
        assert!(many.is_some_and(|many| (100..tries).contains(&many)), "{many:?} of {tries}");
    }
}
