//! Unix: `open(2)` flags, error numbers, device and inode numbers, temporary files.

use std::fs::{self, File, FileType, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Bits, FileKind, Mode};

/// Whether this platform has file locks at all.
pub(crate) const SUPPORTED: bool = true;

/// inotify loses no event without reporting an overflow: this interval is for causes that are not
/// known.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) const BACKSTOP: Duration = Duration::from_secs(1);
/// FSEvents starts late, loses queued events when a watch is added, and takes 30 to 120 ms
/// (notify#993, libuv#626).
#[cfg(target_vendor = "apple")]
pub(crate) const BACKSTOP: Duration = Duration::from_millis(20);
/// kqueue has no event for a close, so only a check finds that a holder has died.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(crate) const BACKSTOP: Duration = Duration::from_millis(100);

/// Whether a second lock of the same descriptor is added to the first. Here it replaces the first.
pub(super) const LOCKS_STACK: bool = false;

/// Whether a lock keeps other processes from reading or writing the file. Here it does not.
pub(super) const LOCKS_ARE_MANDATORY: bool = false;

/// Whether [`FileId`] distinguishes files.
pub(crate) const FILES_HAVE_NUMBERS: bool = true;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use self::fifo::{
    FIFOS, HeldFifo, Wakeup, WatchedFifo, create_fifo, is_exhausted, is_fifo_open, may_have_forked,
    nanoseconds, read_at, signal_fifo, signal_unless_closed, wait_for_fifos, write_at,
};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use self::linux_proc::{
    PID_NAMESPACES, command_of, has_ended, has_open, inheritors, is_stopped, lock_owners,
    lock_waiters, locked_in_list, started, this_process,
};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use self::lost_locks::{has_lost_lock, means_lost};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use self::mounts::{NetworkMounts, check_forwarded, check_mount};
pub(crate) use self::processes::{Origin, coarse_milliseconds, host_name};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use super::no_proc::{
    NetworkMounts, PID_NAMESPACES, check_forwarded, check_mount, command_of, has_ended,
    has_lost_lock, has_open, inheritors, is_stopped, lists_locks, lock_owners, lock_waiters,
    locked_in_list, means_lost, started, this_process,
};

pub(super) use self::announcement::lock_announcement;
pub(crate) use self::announcement::{make_replaceable, marker_kind, still_names, writer_lives};
pub(super) use self::attributes::KeptAttributes;

pub(crate) use self::directories::{
    ListedDirectory, create_directories, create_private_directory, hold_directory,
    is_private_directory, protects_names, sync_directory, sync_everything, sync_file, user_number,
};

mod announcement;
mod attributes;
mod directories;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod fifo;
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "openbsd"
))]
mod file_system;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux_proc;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod lost_locks;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod mounts;
mod processes;

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "openbsd"
)))]
#[path = "no_file_system.rs"]
mod file_system;

// ---------------------------------------------------------------------------------------- opening

/// The flags of every open. `O_NOFOLLOW`: a planted symbolic link must not lead to another user's
/// file. `O_NONBLOCK`: opening a planted FIFO must not hang (the flag does not affect locks).
/// `O_NOCTTY`: a terminal must not become the controlling one. std adds `O_CLOEXEC`. `O_TRUNC` and
/// `O_APPEND` are never used (rule 1).
const FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn options() -> OpenOptions {
    with_flags(FLAGS)
}

fn with_flags(flags: OFlags) -> OpenOptions {
    let mut options = OpenOptions::new();
    #[allow(clippy::cast_possible_wrap, reason = "open(2) takes an int, and all flags fit in it")]
    options.read(true).custom_flags(flags.bits() as i32);
    options
}

/// Options that create a new file, with `O_EXCL`. open(2) can create a file for a read-only
/// descriptor, and std cannot.
fn creating(writes: bool) -> OpenOptions {
    if writes {
        let mut options = options();
        options.write(true).create_new(true);
        return options;
    }
    with_flags(FLAGS.union(OFlags::CREATE).union(OFlags::EXCL))
}

/// Opens the file to read and write, or read-only if this process may not write: the file system is
/// read-only, the file belongs to another user, or it is a running program.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    match options().write(true).open(path) {
        // If reading fails too, the error of writing is more specific.
        Err(error) if refuses_writing(&error) => options().open(path).map_err(|_| error),
        other => other,
    }
}

fn refuses_writing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ACCESS | Errno::ROFS | Errno::PERM | Errno::TXTBSY)
    )
}

/// Opens the file read-only: flock(2) needs no more on a local file system, and a program that any
/// process has open for writing cannot be executed (ETXTBSY). An NFS client grants an exclusive
/// lock only on a descriptor that may write (flock(2), "NFS details"), so the file is opened to
/// read and write on a network file system, and if the system does not show which file systems are
/// local (rule 1).
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    let reading = options().open(path)?;
    if file_system::is_network_file(&reading) == Some(false) {
        return Ok(reading);
    }
    match options().write(true).open(path) {
        Err(error) if refuses_writing(&error) => Ok(reading),
        other => other,
    }
}

/// Opens a file read-only that another process wrote beside the path.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    options().open(path)
}

pub(crate) fn create_new(path: &Path, bits: Option<Bits>) -> io::Result<File> {
    create(path, bits, true)
}

/// Creates a file that is open as by [`open_to_lock`], since it may become a program.
pub(crate) fn create_to_lock(path: &Path, bits: Option<Bits>) -> io::Result<File> {
    create(path, bits, file_system::is_network_directory(directory_of(path)) != Some(false))
}

/// Creates a file. With `bits`, the file has them as soon as it has its name: it is created under
/// another name (crate `tempfile`) and then renamed without replacing a file. A `chmod` after
/// creation would leave a moment in which other users cannot open the file, and if this process
/// dies then, they never can (rule 1).
fn create(path: &Path, bits: Option<Bits>, writes: bool) -> io::Result<File> {
    let Some(bits) = bits else { return creating(writes).open(path) };
    let created = make(&mut unique(), path, Some(bits), &creating(writes))?;
    match super::atomic_write::persist_new(created, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // The file system supports neither a rename that does not replace nor a second name
            // (exFAT, some FUSE): create the file directly.
            let file = creating(writes).mode(bits.file & 0o700).open(path)?;
            set_access(&file, bits.file)?;
            Ok(file)
        }
        named => named,
    }
}

/// Sets the mode, unless the file has it already: some file systems have one mode for all files,
/// and reject any change (rule 13).
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    if file.metadata()?.mode() & 0o7777 == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Sets the requested mode, which must not fail silently: it decides which other users have access.
fn set_access(file: &File, mode: u32) -> io::Result<()> {
    set_mode(file, mode).map_err(|error| {
        if !is_unavailable(&error) {
            return error;
        }
        super::explained(
            error.kind(),
            "its file system does not support the requested access",
            "choose another file system, or use `Access::Umask`",
        )
    })
}

/// Whether the error means that the kernel, a file system or a sandbox does not support a call, or
/// these arguments. The code then uses an older call or none, if that is possible. Old container
/// runtimes return EPERM for calls that they do not know (rule 13).
pub(super) fn is_unavailable(error: &io::Error) -> bool {
    // Not a `match`: OPNOTSUPP and NOTSUP are one number on some systems, and two on others.
    [Errno::PERM, Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP, Errno::NOTSUP]
        .iter()
        .any(|unavailable| Errno::from_io_error(error).as_ref() == Some(unavailable))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path as tempfile accepts it: any path is valid.
pub(super) fn at_any_length(path: &Path) -> &Path {
    path
}

/// Creates a temporary file for `path` in the same directory, under a random name, with the mode
/// that a file created with `bits` has.
pub(super) fn create_unique(
    path: &Path,
    bits: Option<Bits>,
) -> io::Result<tempfile::NamedTempFile> {
    make(&mut unique(), path, bits, &creating(true))
}

fn unique<'a>() -> tempfile::Builder<'a, 'a> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".flockwork.");
    builder
}

/// Creates a temporary file at `path` itself.
pub(super) fn create_at(path: &Path, bits: Option<Bits>) -> io::Result<tempfile::NamedTempFile> {
    make(exactly(path).rand_bytes(0), path, bits, &creating(true))
}

fn exactly(path: &Path) -> tempfile::Builder<'_, '_> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(path.file_name().unwrap_or_default());
    builder
}

/// Creates a temporary file at `path` itself, locked while it is open ([`WRITERS_LOCK`]). No other
/// user can open a `private` file until it has its owner and mode ([`KeptAttributes`]).
pub(super) fn create_fixed(
    path: &Path,
    bits: Option<Bits>,
    private: bool,
) -> io::Result<tempfile::NamedTempFile> {
    let created = if private {
        make(exactly(path).rand_bytes(0), path, None, creating(true).mode(PRIVATE))?
    } else {
        create_at(path, bits)?
    };
    // No other writer has the file. At most, another process checks for a moment whether this one
    // lives.
    let _locked = super::try_lock(created.as_file(), Mode::Exclusive)?;
    super::atomic_write::check_still_named(created, path)
}

/// Marks a new file as being written while it is open. `None`: another process checked it before it
/// was marked, took it for a file of a killed writer, and removes it. Where locks are not
/// supported, no process does that, and the file needs no mark (rule 14).
pub(super) fn mark_in_use(
    created: tempfile::NamedTempFile,
    path: &Path,
) -> io::Result<Option<tempfile::NamedTempFile>> {
    let is_locked = super::try_lock(created.as_file(), Mode::Exclusive).unwrap_or(true);
    if is_locked && names(path, identity(created.as_file())?)? {
        return Ok(Some(created));
    }
    let _ = created.keep(); // another process may own the name, so it is not removed
    Ok(None)
}

/// Removes the mark as soon as the file has its name: otherwise the descriptor of a forked copy
/// would keep it locked.
pub(super) fn unmark(file: &File) {
    let _ = super::unlock(file);
}

/// Removes a file that no process writes, and returns whether it is gone. While this process has it
/// locked, no other process can mark it (rule 14).
pub(super) fn remove_if_left(path: &Path) -> bool {
    let remove = || -> io::Result<bool> {
        if file_kind(path)? != FileKind::File {
            return Ok(false);
        }
        let file = open_to_lock(path)?;
        // The file may have been replaced since.
        if !file.metadata()?.is_file() || !super::try_lock(&file, Mode::Exclusive)? {
            return Ok(false);
        }
        let is_gone = names(path, identity(&file)?)? && fs::remove_file(path).is_ok();
        super::unlock(&file)?;
        Ok(is_gone)
    };
    remove().unwrap_or(false)
}

const PRIVATE: u32 = 0o600;

/// Whether a writer locks its temporary file, so that other processes can check whether the writer
/// lives.
pub(super) const WRITERS_LOCK: bool = true;

/// Creates a temporary file. Without `bits` its mode is that of any other file: 0666 without the
/// bits of the umask.
fn make(
    builder: &mut tempfile::Builder<'_, '_>,
    path: &Path,
    bits: Option<Bits>,
    options: &OpenOptions,
) -> io::Result<tempfile::NamedTempFile> {
    // tempfile adds its path to the system's error, and keeps only the kind of that error.
    let mut refused = None;
    let mut options = options.clone();
    if bits.is_some() {
        options.mode(PRIVATE);
    }
    let open = |path: &Path| options.open(path).inspect_err(|error| refused = error.raw_os_error());
    let created = builder.make_in(directory_of(path), open);
    let created = created.map_err(|error| refused.map_or(error, io::Error::from_raw_os_error))?;
    if let Some(bits) = bits {
        // fchmod ignores the umask. Changing the umask itself would affect the whole process.
        set_access(created.as_file(), bits.file)?;
    }
    Ok(created)
}

/// The error for a file that could not be replaced, with an explanation where the system's error is
/// misleading: in a directory with the sticky bit, rename(2) returns EPERM unless the user owns the
/// file or the directory.
pub(super) fn not_replaced(path: &Path, error: io::Error) -> io::Error {
    let is_sticky = || fs::metadata(directory_of(path)).is_ok_and(|it| it.mode() & 0o1000 != 0);
    let error = explain_mount_point(path, error);
    if Errno::from_io_error(&error) == Some(Errno::PERM) && is_sticky() {
        return super::explained(
            error.kind(),
            "only its owner may replace a file in a directory with the sticky bit",
            "choose a directory without the sticky bit (`/tmp` has it), or write as the file's owner",
        );
    }
    error
}

/// The system's error is that the device or resource is busy.
fn explain_mount_point(path: &Path, error: io::Error) -> io::Error {
    if Errno::from_io_error(&error) != Some(Errno::BUSY) || !file_system::is_mount_point(path) {
        return error;
    }
    super::explained(
        error.kind(),
        "it is a mount point, which cannot be replaced or removed",
        "mount its directory instead, or write a `SharedFile` with `Options::write_in_place`",
    )
}

/// Calls `call` once, since readers do not block a rename here, as they do on Windows.
pub(crate) fn through_readers<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    call()
}

/// Renames the file to a name that must not exist. Linux and Apple check that; on other systems,
/// and if the file system does not support it, an existing file is replaced.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        let (here, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::NOREPLACE);
        match rustix::fs::renameat_with(here, from, here, to, flags) {
            Err(error) if is_unavailable(&error.into()) => {}
            renamed => return renamed.map_err(|error| explain_mount_point(from, error.into())),
        }
    }
    fs::rename(from, to).map_err(|error| explain_mount_point(from, error))
}

/// Removes the file and frees its name immediately, even if a process has the file open.
pub(crate) fn remove_at_once(path: &Path) -> io::Result<()> {
    fs::remove_file(path).map_err(|error| explain_mount_point(path, error))
}

/// Calls `lstat` directly, without std's overhead, since this is the cost of a check of an event.
pub(crate) fn file_kind(path: &Path) -> io::Result<FileKind> {
    match rustix::fs::lstat(path) {
        Ok(stat) => {
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            Ok(FileKind::of(kind == rustix::fs::FileType::RegularFile))
        }
        // If a parent in the path is a file, the path names nothing.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => Ok(FileKind::Nothing),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a special file"
    }
}

// ---------------------------------------------------------------------------------------- locking

/// Whether the error of a try means that the lock would block. CIFS returns EACCES for that
/// (flock(2), "CIFS details"). On a local file system only a security module returns it, and means
/// a denial, for which a wait would never end (rule 9).
pub(super) fn means_busy(file: &File, error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::ACCESS)
        && file_system::is_network_file(file) == Some(true)
}

pub(crate) fn make_inheritable(file: &File) -> io::Result<()> {
    let flags = rustix::io::fcntl_getfd(file)? - rustix::io::FdFlags::CLOEXEC;
    Ok(rustix::io::fcntl_setfd(file, flags)?)
}

pub(crate) fn locks_unsupported(error: &io::Error) -> bool {
    is_unavailable(error) && Errno::from_io_error(error) != Some(Errno::PERM)
}

/// What to do about an error that std has no kind for.
pub(crate) fn advice(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => {
            "raise the limit on open files (ulimit -n), or keep fewer files open"
        }
        Errno::NOMEM => "free some memory, or try again later",
        Errno::IO => "check the disk and its file system (the system log may say more)",
        Errno::NAMETOOLONG => "choose a shorter name",
        Errno::BUSY => {
            "if the file is a mount point (as with `mount --bind` or a container's volume), mount its \
             directory instead, since a mount point cannot be replaced or removed"
        }
        Errno::LOOP => "check the symbolic links in the path for a loop",
        Errno::NOTCONN | Errno::STALE | Errno::HOSTDOWN => {
            "try again when the server of the file system responds, or mount the file system again"
        }
        Errno::NOLCK => {
            "free some locks, or check that the network file system's lock service runs"
        }
        Errno::BADF => {
            "make the file writable for this user, as network file systems require it for locks"
        }
        _ => return None,
    })
}

/// Every path names the file that it seems to name here.
pub(crate) fn misnamed(_path: &Path) -> Option<io::Error> {
    None
}

/// The path itself, since waiters are grouped by the numbers of files here.
pub(crate) fn common_name(path: &Arc<Path>) -> Arc<Path> {
    Arc::clone(path)
}

pub(crate) fn is_bad_name(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NAMETOOLONG)
}

// --------------------------------------------------------------------------------------- identity

/// Device and inode. The number is not reused while the file is open, so equal numbers mean the
/// same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_sign_loss,
        clippy::cast_lossless,
        trivial_numeric_casts,
        reason = "st_dev and st_ino have another type on each system"
    )]
    fn of(stat: &rustix::fs::Stat) -> Self {
        Self { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
    }

    /// A file name that stands for the file on this host.
    pub(crate) fn name(self) -> String {
        format!("{:x}-{:x}", self.device, self.inode)
    }
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

/// The identity of the file that the path names.
pub(crate) fn path_identity(path: &Path) -> io::Result<FileId> {
    Ok(FileId::of(&rustix::fs::lstat(path)?))
}

pub(crate) fn identity(file: &File) -> io::Result<FileId> {
    Ok(FileId::of(&rustix::fs::fstat(file)?))
}

/// The identity of a regular file; `None` if it is of another kind.
pub(crate) fn regular_identity(file: &File) -> io::Result<Option<FileId>> {
    let stat = rustix::fs::fstat(file)?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    Ok((kind == rustix::fs::FileType::RegularFile).then(|| FileId::of(&stat)))
}

/// Whether `path` still names that file. `lstat` is used so that a symbolic link in its place does
/// not count. A path that does not exist, or whose parents do not, names nothing; NFS returns
/// ESTALE for that (rule 2).
pub(crate) fn names(path: &Path, id: FileId) -> io::Result<bool> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(FileId::of(&stat) == id),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether `path` is the only name of that file; `None` if it does not name the file. The check is
/// repeated once, so a program that wants to hide another name has to remove it during both checks
/// (rule S10).
pub(crate) fn has_one_name(path: &Path, id: FileId) -> io::Result<Option<bool>> {
    let mut has_one = true;
    for _ in 0..2 {
        match rustix::fs::lstat(path) {
            Ok(stat) if FileId::of(&stat) == id => has_one &= stat.st_nlink == 1,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(has_one))
}

/// The identity of the directory that a path leads to. The system often reuses an inode's number
/// for the next directory, so the identity includes the creation time, if the file system stores
/// that (rule E6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "only the feature `watch` needs it")]
pub(crate) struct DirectoryId {
    id: FileId,
    created: Option<SystemTime>,
}

/// The identity of the directory; follows symbolic links, as a watch does.
#[allow(dead_code, reason = "only the feature `watch` needs it")]
pub(crate) fn directory_identity(directory: &Path) -> io::Result<DirectoryId> {
    let found = fs::metadata(directory)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let id = FileId { device: found.dev(), inode: found.ino() };
    Ok(DirectoryId { id, created: found.created().ok() })
}

/// Whether the file is on a network file system. Linux: by the magic number, with the list of GNU
/// coreutils' `fs-is-local` (which `tail -f` uses) and 9p; every FUSE counts whose type in the
/// mount table is not known to be local. Apple, FreeBSD, OpenBSD: by `MNT_LOCAL`. On other systems
/// nothing is known, and "local" is assumed.
pub(crate) fn is_network(_path: &Path, file: &File) -> bool {
    file_system::is_network_file(file) == Some(true)
}

/// Whether [`locked_in_list`], if the list can be read, decides whether a file there is locked: the
/// list has the locks of all processes, with the numbers that stat(2) returns (not so on btrfs and
/// some overlays), and no other host can have the file locked.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn lists_locks(path: &Path) -> bool {
    file_system::is_listed(path) && linux_proc::lists_all()
}

/// Whether the directory is on a network file system.
pub(crate) fn is_network_directory(directory: &Path) -> bool {
    file_system::is_network_directory(directory) == Some(true)
}

// -------------------------------------------------------------------------------------- publishing

/// A published file whose publisher holds an exclusive lock on it. The kernel drops the lock
/// however the process ends, so the lock shows whether the publisher lives (rule 11).
#[derive(Debug)]
pub(crate) struct LivenessLock {
    file: File,
}

impl LivenessLock {
    /// Whether an empty file may be a withdrawn record.
    pub(crate) const MAY_BE_EMPTY: bool = false;

    /// Publishes `contents` at `path` in one step, and replaces an existing file. The file is
    /// locked before it has its name, so no process finds it unlocked while its publisher lives.
    ///
    /// It is first written to `aside`, which must not exist. Only one process may publish at a path
    /// at a time.
    pub(crate) fn publish(
        path: &Path,
        aside: &Path,
        contents: &[u8],
        bits: Option<Bits>,
    ) -> io::Result<Self> {
        let file = options().write(true).create_new(true).open(aside)?;
        let published = (|| {
            if let Some(bits) = bits {
                set_mode(&file, bits.file)?;
            }
            // Lock the file before it has contents, since a process that reads a record checks
            // whether its publisher lives.
            if !super::try_lock(&file, Mode::Exclusive)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            io::Write::write_all(&mut &file, contents)?;
            // Other hosts read the file while it is open here, and a client may keep what was
            // written to an open file (MooseFS).
            if file_system::is_network_file(&file) == Some(true) {
                let _ = file.sync_all();
            }
            fs::rename(aside, path)?;
            // The holder of a file that has been replaced may publish under the same names.
            if !names(path, identity(&file)?)? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(())
        })();
        if let Err(error) = published {
            // In any case the file must not look as if its publisher had died.
            let _ = file.set_len(0);
            let _ = fs::remove_file(aside);
            if identity(&file).and_then(|id| names(path, id)).unwrap_or(false) {
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
        Ok(Self { file })
    }

    /// Whether the publisher of this open file lives. The check uses a shared lock, so that two
    /// processes that check at the same time do not take each other for the publisher.
    pub(crate) fn is_alive(_path: &Path, file: &File) -> bool {
        match super::try_lock(file, Mode::Shared) {
            Ok(true) => {
                let _ = super::unlock(file);
                false
            }
            Ok(false) => true,
            Err(_) => false,
        }
    }

    /// Truncates the file to `length` bytes, and removes it if the path still names it. Only for
    /// the process that published it.
    pub(crate) fn withdraw(self, path: &Path, length: u64) -> io::Result<()> {
        let cut = self.file.set_len(length);
        if names(path, identity(&self.file)?)? {
            return fs::remove_file(path);
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another process may replace the file between the check of the path and the open (rule 1).
    #[test]
    fn opening_neither_follows_a_symlink_nor_blocks_on_a_fifo() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let (target, link, fifo) =
            (dir.path().join("target"), dir.path().join("link"), dir.path().join("fifo"));
        fs::write(&target, "theirs").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(open_existing(&link).is_err());
        assert!(open_to_read(&link).is_err());
        assert!(create_new(&link, None).is_err());
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(!open_to_read(&fifo).unwrap().metadata().unwrap().is_file());
        let _ = open_existing(&fifo);
    }

    #[test]
    fn a_local_file_system_does_not_count_as_a_network_one() {
        limit!();
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_network(file.path(), file.as_file()));
    }
}
