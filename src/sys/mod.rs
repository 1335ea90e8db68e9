//! The platform: how a file is opened, locked, recognised and published, and what the system tells
//! about processes. The table at the end chooses the implementation; nothing above this module says
//! `cfg`.
//!
//! Every implementation offers the same names:
//!
//! | name | contract |
//! |---|---|
//! | [`SUPPORTED`] | whether there are locks on this platform at all |
//! | [`misnamed`] | why the system would take a path for something else than the file that it seems to name |
//! | [`common_name`] | one path for all under which a file that is there goes, where that is known |
//! | [`open_existing`] | opens what is there to read and write it; never creates, truncates, follows a last symlink, blocks on a FIFO |
//! | [`open_to_lock`] | the same to lock it: only to read, where the file system grants locks on that |
//! | [`open_to_read`] | the same, for reading what others wrote beside the path |
//! | [`create_new`] | creates, failing with `AlreadyExists` where anything has the name |
//! | [`create_to_lock`] | the same, open as by [`open_to_lock`] |
//! | [`write_new`], [`replace`], [`replace_preserving`] | files that are never seen half-written |
//! | [`remove_left_by_others`] | removes what killed writers left beside a path |
//! | [`through_readers`] | renames or opens a file that others may have open |
//! | [`rename_new`] | gives a name at which nothing may be, if the system has a way |
//! | [`remove_at_once`] | removes it, and frees its name although others have it open |
//! | [`sync_directory`], [`sync_everything`] | syncs names, or all that was written; `false` where that cannot be done |
//! | [`file_kind`] | whether a path names a regular file, nothing, or something else |
//! | [`BACKSTOP`] | how long the events of a directory are trusted to tell everything |
//! | [`SHARED_BACKSTOP`] | how long the kernel is trusted to wake who waits for a shared lock, where it is not for ever |
//! | [`read_dir`] | the entries of a directory; EINTR is retried |
//! | [`Retries`] | how long to try again what another program undoes each time |
//! | [`Directory`] | a directory of ours that cannot be led elsewhere while it is used |
//! | [`create_directories`] | the missing ones of a directory's ancestors and itself |
//! | [`try_lock`], [`try_lock_again`], [`lock`], [`unlock`], [`probe`] | whole-file advisory lock of an open file; EINTR is retried |
//! | [`make_inheritable`] | programs that are started from now on have the open file, and its lock, as well |
//! | [`downgrade`] | from exclusive to shared; no other process acquires the lock in between |
//! | [`FileId`], [`identity`], [`path_identity`], [`names`] | which file an open file is, and whether a path names it |
//! | [`has_one_name`] | whether a file can have got its name by a hard link to another user's |
//! | [`DirectoryId`], [`directory_identity`] | which directory a path leads to |
//! | [`is_network`], [`is_network_directory`] | whether a wait in the kernel, or events, must not be trusted |
//! | [`lists_locks`], [`locked_in_list`] | whether the system lists all locks on files there, and which files it lists if it leaves out none |
//! | [`locks_unsupported`] | whether an error says that the file system has no locks |
//! | [`is_bad_name`], [`advice`] | what else an error says |
//! | [`describe`] | what a thing is that is no regular file |
//! | [`LivenessLock`] | a published file of which the kernel tells whether its publisher lives |
//! | [`Origin`] | tells a process from the copy that `fork` makes of it |
//! | [`coarse_milliseconds`] | a clock that is read faster than it is exact |
//! | [`this_process`], [`has_ended`], [`PID_NAMESPACES`] | a process among all that ever had its number |
//! | [`lock_owners`], [`inheritors`], [`is_stopped`], [`command_of`], [`started`], [`host_name`] | what the system says about holders |

#![expect(clippy::disallowed_methods, reason = "the one place that opens and locks files")]

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Which lock is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Excludes everybody else.
    Exclusive,
    /// Excludes the exclusive ones.
    Shared,
}

/// A process that holds a lock, as the system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "no other system than Linux tells")]
pub(crate) struct Owner {
    pub(crate) file: FileId,
    pub(crate) is_shared: bool,
    /// Its number in the system's list.
    pub(crate) listed: u32,
    /// The number by which this process calls it; `None` where it is not in this process's pid
    /// namespace.
    pub(crate) pid: Option<u32>,
}

/// A process among all that ever had its number. What the system does not show is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) numbering: Numbering,
    /// When it was started: a number that only a comparison makes use of.
    pub(crate) started: Option<u64>,
    /// Which boot of which machine it runs in.
    pub(crate) boot: Option<String>,
}

/// The pid namespace in which a process number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(dead_code, reason = "no other system than Linux has such namespaces")]
pub(crate) enum Numbering {
    /// By its number, which is taken as long as there is a process in it.
    Namespace(u64),
    /// Another than this process's.
    Other,
    Unknown,
}

/// Mode bits of files and directories that are created (Unix; elsewhere nothing is set).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) file: u32,
    pub(crate) directory: u32,
}

/// What a path names.
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

/// Blocks until the lock is had, through any number of signals.
///
/// Protocol rule 5: neither std nor fs4 retries EINTR, so a handler installed without `SA_RESTART`
/// would turn a wait into an error.
pub(crate) fn lock(file: &std::fs::File, mode: Mode) -> io::Result<()> {
    retry_eintr(|| flock::lock(file, mode))
}

/// Takes the lock if nobody is in the way. `Ok(false)`: somebody is.
pub(crate) fn try_lock(file: &std::fs::File, mode: Mode) -> io::Result<bool> {
    retry_eintr(|| flock::try_lock(file, mode))
}

/// The same for an open file that may have the lock already, in this mode, by a call of another
/// thread: then it has it. Only where that is one lock and not two (flock(2), "NOTES";
/// `flock_lock_inode` in Linux's `fs/locks.c`); elsewhere it is not known.
pub(crate) fn try_lock_again(file: &std::fs::File, mode: Mode) -> io::Result<bool> {
    // macOS could grant the lock here while another process that was woken for it has not run yet,
    // and then have the other thread's request wait for this very lock (xnu,
    // `bsd/kern/kern_lockf.c`, `lf_setlock`: `lf_move_blocked` compares no owners).
    if imp::LOCKS_STACK || cfg!(target_vendor = "apple") {
        return Ok(false);
    }
    try_lock(file, mode)
}

/// How long the kernel is trusted to wake who waits for a shared lock, where that is not for ever.
/// macOS wakes the first of those who wait, and has the others wait for that one, also if all of
/// them want it shared: the second waiting reader would sleep until the first has read (xnu,
/// `bsd/kern/kern_lockf.c`, `lf_setlock` and `lf_wakelock` with `F_WAKE1_SAFE`).
pub(crate) const SHARED_BACKSTOP: Option<Duration> =
    if cfg!(target_vendor = "apple") { Some(Duration::from_millis(250)) } else { None };

/// Gives the lock back.
pub(crate) fn unlock(file: &std::fs::File) -> io::Result<()> {
    retry_eintr(|| flock::unlock(file))
}

/// Whether the file is locked, by a try that takes the lock for less than a microsecond. `None`: no
/// process has it locked exclusively, and whether it is shared is not known. With `readers` the try
/// also notices shared locks.
pub(crate) fn probe(file: &std::fs::File, readers: bool) -> io::Result<Option<bool>> {
    // While a file is locked exclusively on Windows, no other process can read it. NFS locks
    // exclusively only what is open for writing.
    if readers && !imp::LOCKS_ARE_MANDATORY {
        if let Ok(is_locked) = is_refused(file, Mode::Exclusive) {
            return Ok(Some(is_locked));
        }
    }
    let is_locked = is_refused(file, Mode::Shared)?;
    Ok(if readers && !is_locked { None } else { Some(is_locked) })
}

fn is_refused(file: &std::fs::File, mode: Mode) -> io::Result<bool> {
    // A refusal may come from another process that probes; several in a row hardly do.
    for _ in 0..4 {
        if try_lock(file, mode)? {
            return unlock(file).map(|()| false);
        }
        std::thread::yield_now();
    }
    Ok(true)
}

/// Makes an exclusive lock a shared one without waiting. No other process acquires it in between
/// (rule R4). After `Ok(false)` or an error it may be that nothing is held.
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

/// std does not retry EINTR here.
pub(crate) fn read_dir(directory: &Path) -> io::Result<std::fs::ReadDir> {
    retry_eintr(|| std::fs::read_dir(directory))
}

/// Bounds a loop that begins again because another program undid a step of it (removed or replaced
/// a file, say).
///
/// Such a program that does so without pause, or a file system whose inode numbers change, would
/// make the loop endless. A number alone is no bound: on a busy machine each of a thousand tries
/// may be interrupted at the wrong moment.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    tries: u32,
    /// When it was first asked for a pause, by the coarse clock.
    since: u64,
}

impl Retries {
    /// The first tries follow each other without pause and without a look at the clock.
    const EAGER: u32 = 16;
    /// After this many tries, other threads may run between two tries.
    const YIELDING: u32 = 64;
    const MIN_TRIES: u32 = 1000;
    /// In milliseconds.
    const MIN_SPAN: u64 = 3000;

    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Whether to try once more: always at first, and then after a short pause. `false` after at
    /// least a thousand tries and three seconds.
    pub(crate) fn again(&mut self) -> bool {
        self.tries = self.tries.saturating_add(1);
        if self.tries <= Self::EAGER {
            return true;
        }
        if self.tries <= Self::YIELDING {
            std::thread::yield_now();
        } else {
            // Pauses of different lengths, so as not to keep step with the other program.
            std::thread::sleep(Duration::from_micros(u64::from(self.tries % 16) * 50));
        }
        if self.tries == Self::EAGER + 1 {
            self.since = coarse_milliseconds();
        }
        !self.have_lasted(Self::MIN_TRIES, Self::MIN_SPAN)
    }

    /// Whether there were so many tries that other programs are not the reason for the failure.
    pub(crate) fn are_many(&self) -> bool {
        self.have_lasted(100, 100)
    }

    fn have_lasted(&self, tries: u32, milliseconds: u64) -> bool {
        self.tries > tries && coarse_milliseconds().saturating_sub(self.since) >= milliseconds
    }
}

/// A directory that was there when it was opened, and no symbolic link to one. Names below its path
/// stay within it, whatever takes its place meanwhile, where the system has a means for that
/// (Linux, where `/proc` is mounted).
pub(crate) struct Directory {
    path: std::path::PathBuf,
    _held: Option<std::fs::File>,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some((held, path)) = imp::hold_directory(path)? {
            return Ok(Self { path, _held: Some(held) });
        }
        if std::fs::symlink_metadata(path)?.is_dir() {
            return Ok(Self { path: path.into(), _held: None });
        }
        Err(io::ErrorKind::NotADirectory.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Milliseconds of a steady clock: the exact one where there is no faster one.
#[allow(dead_code, reason = "Linux has a faster one")]
fn milliseconds() -> u64 {
    static START: once_cell::race::OnceBox<std::time::Instant> = once_cell::race::OnceBox::new();
    let since_start = START.get_or_init(|| Box::new(std::time::Instant::now())).elapsed();
    u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX)
}

/// The directory itself, or the nearest of those above it that exists. `None`: not even the first
/// of all can be looked at.
pub(crate) fn nearest_directory(directory: &Path) -> Option<&Path> {
    directory.ancestors().find(|ancestor| ancestor.is_dir())
}

/// `path` with `suffix` added to its last component.
pub(crate) fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(OsStr::new(suffix));
    name.into()
}

pub(crate) use self::atomic_write::{
    remove_left_by_others, replace, replace_preserving, write_new,
};
pub(crate) use self::random::{generator, is_unique_name, unique_beside};

mod atomic_write;
mod random;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod no_proc;

pub(crate) use imp::{
    BACKSTOP, DirectoryId, FILES_HAVE_NUMBERS, FileId, LivenessLock, Origin, PID_NAMESPACES,
    SUPPORTED, advice, coarse_milliseconds, command_of, common_name, create_directories,
    create_new, create_to_lock, describe, directory_identity, file_kind, has_ended, has_one_name,
    host_name, identity, inheritors, is_bad_name, is_network, is_network_directory, is_stopped,
    lists_locks, lock_owners, locked_in_list, locks_unsupported, make_inheritable, misnamed, names,
    open_existing, open_to_lock, open_to_read, path_identity, remove_at_once, rename_new, started,
    sync_directory, sync_everything, this_process, through_readers,
};

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
    use super::Retries;

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
