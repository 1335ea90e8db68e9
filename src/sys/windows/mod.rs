//! Windows: share modes and error numbers.
//!
//! Lock files are opened without delete sharing: while any process has one open, it can be neither
//! removed nor renamed nor replaced. So the path names the locked file while a process holds it,
//! and [`names`] has nothing to check. Locked ranges are mandatory here, so nothing is stored in a
//! lock file (rule 7).

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf, Prefix};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) use super::no_private_directory::{
    ListedDirectory, create_private_directory, is_private_directory, protects_names, user_number,
};
pub(crate) use super::no_proc::{
    NetworkMounts, PID_NAMESPACES, check_forwarded, check_mount, command_of, has_ended,
    has_lost_lock, has_open, inheritors, is_stopped, lists_locks, lock_owners, lock_waiters,
    locked_in_list, means_lost, started, this_process,
};
use super::{Bits, FileKind};

/// Whether this platform has file locks at all.
pub(crate) const SUPPORTED: bool = true;

/// There is no event for a close, so only a check finds that a holder has died; and notify 8.2 does
/// not report an overflow (notify#963).
pub(crate) const BACKSTOP: Duration = Duration::from_millis(100);

/// Whether a second lock of the same handle is added to the first. Here a shared lock is added to
/// the exclusive one of the same handle, and the first unlocking removes the exclusive one
/// (`LockFileEx`, remarks).
pub(super) const LOCKS_STACK: bool = true;

/// Whether a lock keeps other processes from reading or writing the file. Here no other process can
/// read a file that is locked exclusively, or write to a locked one.
pub(super) const LOCKS_ARE_MANDATORY: bool = true;

/// Whether [`FileId`] distinguishes files.
pub(crate) const FILES_HAVE_NUMBERS: bool = false;

const FILE_SHARE_READ: u32 = 1;
const FILE_SHARE_WRITE: u32 = 2;
const FILE_SHARE_DELETE: u32 = 4;
const FILE_SHARE_ALL: u32 = 7;
/// Opens a path that may name a directory.
const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
/// Opens a symbolic link or junction at the last component instead of following it, so that it is
/// found and reported as an error.
const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;

const ERROR_INVALID_FUNCTION: i32 = 1;
const ERROR_TOO_MANY_OPEN_FILES: i32 = 4;
const ERROR_ACCESS_DENIED: i32 = 5;
const ERROR_WRITE_PROTECT: i32 = 19;
const ERROR_SHARING_VIOLATION: i32 = 32;
const ERROR_NOT_SUPPORTED: i32 = 50;
const ERROR_CALL_NOT_IMPLEMENTED: i32 = 120;
const ERROR_INVALID_NAME: i32 = 123;
const ERROR_FILENAME_EXCED_RANGE: i32 = 206;
const ERROR_DELETE_PENDING: i32 = 303;

fn is(error: &io::Error, codes: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// The errors that another process can cause for a moment: a virus scanner or an indexer has the
/// file open, or a process deletes it.
const TRANSIENT_ERRORS: &[i32] =
    &[ERROR_SHARING_VIOLATION, ERROR_ACCESS_DENIED, ERROR_DELETE_PENDING];

/// How long to try again for a lock file.
const SHARING_TIMEOUT: Duration = Duration::from_secs(1);

const LONGEST_PAUSE: Duration = Duration::from_millis(4);

/// Repeats a call that fails with a transient error until `limit` has passed, and then returns the
/// error (rule 7).
fn retry_transient<T>(limit: Duration, call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    retry_transient_unless(limit, |_| false, call)
}

fn retry_transient_unless<T>(
    limit: Duration,
    is_final: impl Fn(&io::Error) -> bool,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let mut pause = Duration::from_millis(1);
    let mut paused = Duration::ZERO;
    loop {
        match call() {
            Err(error) if paused < limit && is(&error, TRANSIENT_ERRORS) && !is_final(&error) => {
                std::thread::sleep(pause);
                paused += pause;
                // No longer than this, since programs that keep opening and closing a file leave
                // only short moments in between.
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}

/// Repeats the opening of `path` in the same way, except that a denial for this user is returned
/// immediately.
fn opened<T>(path: &Path, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let is_refused = |error: &io::Error| is(error, &[ERROR_ACCESS_DENIED]) && is_settled(path);
    match retry_transient_unless(SHARING_TIMEOUT, is_refused, &mut call) {
        // The transient cause may have gone away during the check.
        Err(error) if is(&error, &[ERROR_ACCESS_DENIED]) => call(),
        opened => opened,
    }
}

/// Whether the name is free, or names a file that is not being deleted. A file whose deletion waits
/// for its last handle cannot be opened, not even to read its attributes.
fn is_settled(path: &Path) -> bool {
    let flags = FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT;
    let mut look = OpenOptions::new();
    match look.access_mode(0).share_mode(FILE_SHARE_ALL).custom_flags(flags).open(path) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    options
}

/// Opens the file to read and write, or read-only if this process may not write: the file has the
/// read-only attribute, an access list denies it, or the medium is write-protected.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    opened(path, || match options().write(true).open(path) {
        Err(error) if is(&error, &[ERROR_ACCESS_DENIED, ERROR_WRITE_PROTECT]) => {
            options().open(path).map_err(|_| error)
        }
        other => other,
    })
}

/// Opens the file to read and write: locks are mandatory here, so no other program reads or
/// executes the file while it is locked.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    open_existing(path)
}

/// Opens read-only a file that another process wrote beside the path. It shares all access, so that
/// it does not block that process.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    options().share_mode(FILE_SHARE_ALL).open(path)
}

/// Creates a file. Mode bits have no meaning here: a new file inherits the access list of its
/// directory.
pub(crate) fn create_new(path: &Path, _bits: Option<Bits>) -> io::Result<File> {
    opened(path, || options().write(true).create_new(true).open(path))
}

pub(crate) fn create_to_lock(path: &Path, bits: Option<Bits>) -> io::Result<File> {
    create_new(path, bits)
}

/// Creates a temporary file for `path` in the same directory, under a random name.
pub(super) fn create_unique(
    path: &Path,
    _bits: Option<Bits>,
) -> io::Result<tempfile::NamedTempFile> {
    let directory = path.parent().unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".flockwork.").tempfile_in(at_any_length(directory))
}

/// The path as tempfile accepts it. tempfile passes its paths unchanged to `MoveFileExW`, which
/// accepts 259 characters, and many more with the prefix `\\?\`. (std adds the prefix
/// automatically.) Only for absolute paths that [`misnamed`] accepts.
pub(super) fn at_any_length(path: &Path) -> Cow<'_, Path> {
    /// Leaves room for the name of a file that is created in the directory.
    const SHORT: usize = 200;
    let mut parts = path.components();
    let prefix = match parts.next() {
        Some(Component::Prefix(prefix)) if path.as_os_str().len() > SHORT => prefix.kind(),
        _ => return path.into(),
    };
    let mut literal = OsString::from(r"\\?\");
    match prefix {
        Prefix::Disk(letter) => literal.push(format!("{}:", char::from(letter))),
        Prefix::UNC(server, share) => {
            for part in ["UNC\\".as_ref(), server, "\\".as_ref(), share] {
                literal.push(part);
            }
        }
        _ => return path.into(),
    }
    let mut long = PathBuf::from(literal);
    long.push(parts.as_path());
    long.into()
}

/// Creates a temporary file at `path` itself, which must be free.
pub(super) fn create_fixed(
    path: &Path,
    bits: Option<Bits>,
    _private: bool,
) -> io::Result<tempfile::NamedTempFile> {
    opened(path, || create_at(path, bits))
}

/// Does nothing: an open file is already marked as in use, since no other process can open it
/// without sharing.
#[allow(clippy::unnecessary_wraps, reason = "the platforms share one signature")]
pub(super) fn mark_in_use(
    created: tempfile::NamedTempFile,
    _path: &Path,
) -> io::Result<Option<tempfile::NamedTempFile>> {
    Ok(Some(created))
}

pub(super) fn unmark(_file: &File) {}

/// Does nothing: the process that announces has the file open for writing, which shows that it
/// lives. A lock would keep other processes from reading the file.
#[allow(clippy::unnecessary_wraps, reason = "the seam's signature")]
pub(super) fn lock_announcement(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Whether the process that announced the file lives: then the file cannot be opened without
/// sharing write access (rule E8).
pub(crate) fn writer_lives(path: &Path, _file: &File) -> io::Result<bool> {
    match options().share_mode(FILE_SHARE_READ | FILE_SHARE_DELETE).open(path) {
        Ok(_) => Ok(false),
        Err(error) if is(&error, &[ERROR_SHARING_VIOLATION]) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether `path` still names that announcement. Files have no numbers here, but each announcement
/// has a modification time of its own.
pub(crate) fn still_names(path: &Path, file: &File) -> io::Result<bool> {
    let announced = file.metadata()?.modified()?;
    match retry_transient(SHARING_TIMEOUT, || fs::symlink_metadata(path)) {
        Ok(found) => Ok(found.is_file() && found.modified()? == announced),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Frees the name, since a file that is open may not be replaced here. Until the new file has the
/// name, nothing has it.
pub(crate) fn make_replaceable(path: &Path) -> io::Result<()> {
    match remove_at_once(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes a file that no process has open, and returns whether it is gone.
pub(super) fn remove_if_left(path: &Path) -> bool {
    let is_left = options()
        .write(true)
        .share_mode(0)
        .open(path)
        .is_ok_and(|file| file.metadata().is_ok_and(|found| found.is_file()));
    is_left && fs::remove_file(path).is_ok()
}

/// Creates a temporary file at `path` itself, which may be in use.
pub(super) fn create_at(path: &Path, _bits: Option<Bits>) -> io::Result<tempfile::NamedTempFile> {
    let (directory, name) = (path.parent().unwrap_or(Path::new(".")), path.file_name());
    let directory = at_any_length(directory);
    let mut builder = tempfile::Builder::new();
    builder.prefix(name.unwrap_or_default()).rand_bytes(0).tempfile_in(&directory)
}

/// Whether a writer locks its temporary file. Here a lock would block the rename; and a lock file
/// that is held cannot be removed, so there is never a second writer.
pub(super) const WRITERS_LOCK: bool = false;

/// The attributes that a new file takes over from the one it replaces: none, since it inherits the
/// access list of its directory.
pub(super) struct KeptAttributes;

impl KeptAttributes {
    /// Checks the old file; `None` if there is none.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.permissions().readonly() => {
                Err(io::ErrorKind::PermissionDenied.into())
            }
            Ok(_) => Ok(Some(Self)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the platforms share one signature"
    )]
    pub(super) fn restore(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }
}

/// The system's error is clear enough here.
pub(super) fn not_replaced(_path: &Path, error: io::Error) -> io::Error {
    error
}

/// Repeats the call for a while, since a reader blocks the replacement of a file.
pub(crate) fn through_readers<T>(call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    retry_transient(SHARING_TIMEOUT, call)
}

/// Renames the file. An existing file at the new name is replaced, since std has no other way.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    retry_transient(SHARING_TIMEOUT, || fs::rename(from, to))
}

/// Removes the file and frees its name immediately. Without POSIX semantics (before Windows 10,
/// version 1809; FAT; Wine), a deleted file keeps its name until the last process closes it, and
/// could be taken for a new file.
pub(crate) fn remove_at_once(path: &Path) -> io::Result<()> {
    let aside = super::unique_beside(path);
    retry_transient(SHARING_TIMEOUT, || fs::rename(path, &aside))?;
    let _ = retry_transient(Duration::from_millis(10), || fs::remove_file(&aside));
    Ok(())
}

/// Does nothing: a directory cannot be opened for syncing, and NTFS keeps a journal of names.
#[allow(clippy::unnecessary_wraps, reason = "the platforms share one signature")]
pub(crate) fn sync_directory(_directory: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Syncs the file. Returns `false` if the file system does not support that (rule 13).
pub(super) fn sync_file(file: &File) -> io::Result<bool> {
    match file.sync_all() {
        Err(error) if is_unavailable(&error) => Ok(false),
        synced => synced.map(|()| true),
    }
}

/// Returns `false`, since a user without special rights cannot sync everything.
#[allow(clippy::unnecessary_wraps, reason = "the platforms share one signature")]
pub(crate) fn sync_everything(_directory: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Returns `None`, since a directory cannot be held open here.
#[allow(clippy::unnecessary_wraps, reason = "the platforms share one signature")]
pub(crate) fn hold_directory(_path: &Path) -> io::Result<Option<(File, std::path::PathBuf)>> {
    Ok(None)
}

pub(crate) fn create_directories(path: &Path, _bits: Option<Bits>) -> io::Result<()> {
    let created = fs::create_dir_all(path);
    if path.is_dir() {
        return Ok(());
    }
    // If a parent is a file, the system reports only that the path was not found. A missing drive
    // causes no error.
    let found = path.ancestors().find_map(|above| fs::metadata(above).ok());
    if found.is_some_and(|found| !found.is_dir()) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Err(created.err().unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// The kind of file at `path`. A file whose deletion waits for its last handle still exists, and
/// cannot be examined.
pub(crate) fn file_kind(path: &Path) -> io::Result<FileKind> {
    match retry_transient(SHARING_TIMEOUT, || fs::symlink_metadata(path)) {
        Ok(found) => Ok(FileKind::of(found.is_file())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FileKind::Nothing),
        Err(error) => Err(error),
    }
}

/// The kind of file at the path, and whether it is an announcement.
pub(crate) fn marker_kind(path: &Path) -> io::Result<(FileKind, bool)> {
    match retry_transient(SHARING_TIMEOUT, || fs::symlink_metadata(path)) {
        Ok(found) => {
            Ok((FileKind::of(found.is_file()), super::announcement::is_announcement(&found)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((FileKind::Nothing, false)),
        Err(error) => Err(error),
    }
}

pub(crate) fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a special file"
    }
}

pub(super) fn means_busy(_file: &File, _error: &io::Error) -> bool {
    false // fs4 handles the only error that means busy: ERROR_LOCK_VIOLATION
}

/// Inherited handles hold no locks here.
pub(crate) fn make_inheritable(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn locks_unsupported(error: &io::Error) -> bool {
    is_unavailable(error)
}

/// Whether the error means that the system or a file system does not support a call.
pub(super) fn is_unavailable(error: &io::Error) -> bool {
    is(error, &[ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED, ERROR_CALL_NOT_IMPLEMENTED])
}

/// What to do about an error that std has no kind for.
pub(crate) fn advice(error: &io::Error) -> Option<&'static str> {
    if is(error, &[ERROR_TOO_MANY_OPEN_FILES]) {
        Some("keep fewer files open")
    } else if is_bad_name(error) {
        Some("choose a shorter or simpler name")
    } else if is(error, &[ERROR_SHARING_VIOLATION]) {
        Some("close the program that has the file open without sharing it")
    } else {
        None
    }
}

/// Why the system would take the path for another file: devices, streams, and names that it
/// silently changes.
pub(crate) fn misnamed(path: &Path) -> Option<io::Error> {
    let (problem, hint) = super::windows_names::problem(path.as_os_str().as_encoded_bytes())?;
    Some(super::explained(io::ErrorKind::InvalidInput, problem, hint))
}

/// Returns one path for all the paths that a file can have: in upper and lower case, with `\\?\`,
/// through junctions, with short names.
pub(crate) fn common_name(path: &Arc<Path>) -> Arc<Path> {
    fs::canonicalize(path).map_or_else(|_| Arc::clone(path), Into::into)
}

pub(crate) fn is_bad_name(error: &io::Error) -> bool {
    is(error, &[ERROR_INVALID_NAME, ERROR_FILENAME_EXCED_RANGE])
}

/// No identity is needed: a path names the same file while that file is open (rule 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId;

impl FileId {
    pub(crate) fn name(self) -> String {
        String::new()
    }
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("at this path")
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the platforms share one signature")]
pub(crate) fn path_identity(_path: &Path) -> io::Result<FileId> {
    Ok(FileId)
}

#[allow(clippy::unnecessary_wraps, reason = "the platforms share one signature")]
pub(crate) fn identity(_file: &File) -> io::Result<FileId> {
    Ok(FileId)
}

/// The identity of a regular file; `None` if it is of another kind.
pub(crate) fn regular_identity(file: &File) -> io::Result<Option<FileId>> {
    Ok(file.metadata()?.is_file().then_some(FileId))
}

/// Always true here: only a user who may change a file's attributes can give it another name.
#[allow(clippy::unnecessary_wraps, reason = "Unix checks, which can fail")]
pub(crate) fn has_one_name(_path: &Path, _id: FileId) -> io::Result<Option<bool>> {
    Ok(Some(true))
}

#[allow(clippy::unnecessary_wraps, reason = "the platforms share one signature")]
pub(crate) fn names(_path: &Path, _id: FileId) -> io::Result<bool> {
    Ok(true)
}

/// The identity of the directory that a path leads to. std does not return its number here, so this
/// is its creation time. A directory that is created again within seconds may get the time of the
/// old one (file system tunneling); then the backstop applies (rule E6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "only the feature `watch` needs it")]
pub(crate) struct DirectoryId {
    created: Option<SystemTime>,
}

#[allow(dead_code, reason = "only the feature `watch` needs it")]
pub(crate) fn directory_identity(directory: &Path) -> io::Result<DirectoryId> {
    let found = fs::metadata(directory)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(DirectoryId { created: found.created().ok() })
}

/// Whether the resolved path is on a network share, even if it begins with a drive letter.
pub(crate) fn is_network(path: &Path, _file: &File) -> bool {
    is_network_directory(path)
}

/// Whether the resolved path of the directory is on a network share.
pub(crate) fn is_network_directory(path: &Path) -> bool {
    let resolved = fs::canonicalize(path);
    let path = resolved.as_deref().unwrap_or(path);
    matches!(
        path.components().next(),
        Some(Component::Prefix(prefix))
            if matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..))
    )
}

/// A published file that its publisher keeps open without sharing write access. The system closes
/// it however the process ends, so this shows whether the publisher lives. A lock would keep other
/// processes from reading the file (rule 11).
#[derive(Debug)]
pub(crate) struct LivenessLock {
    file: File,
}

impl LivenessLock {
    /// Whether an empty file may be a withdrawn record.
    pub(crate) const MAY_BE_EMPTY: bool = true;

    /// Writes `contents` to `path` in place: a rename would fail while a process reads the file.
    /// For a moment a reader may see only a part of it. Only one process may publish at a path at a
    /// time.
    pub(crate) fn publish(
        path: &Path,
        _aside: &Path,
        contents: &[u8],
        _bits: Option<Bits>,
    ) -> io::Result<Self> {
        let mut options = options();
        options.write(true).create(true).truncate(false).share_mode(FILE_SHARE_READ);
        // Another process may be checking whether the last publisher lives. A holder waits no
        // longer than this for its record, since it has the lock without one.
        let file = retry_transient(Duration::from_millis(10), || options.open(path))?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        file.set_len(0)?;
        io::Write::write_all(&mut &file, contents)?;
        Ok(Self { file })
    }

    /// Whether the publisher of this file lives: then no other process can open it for writing.
    pub(crate) fn is_alive(path: &Path, _file: &File) -> bool {
        let probe = options().read(false).write(true).share_mode(FILE_SHARE_ALL).open(path);
        probe.is_err_and(|error| is(&error, &[ERROR_SHARING_VIOLATION]))
    }

    /// Truncates the file to `length` bytes and removes it. If a reader prevents the removal, no
    /// process takes the rest for the record of a dead holder. Only the process that published the
    /// file may call this.
    pub(crate) fn withdraw(self, path: &Path, length: u64) -> io::Result<()> {
        let cut = self.file.set_len(length);
        drop(self.file);
        cut.and(fs::remove_file(path))
    }
}

/// Identifies the process that created a value; there is no `fork` here.
#[derive(Debug, Clone)]
pub(crate) struct Origin;

impl Origin {
    pub(crate) fn here() -> Self {
        Self
    }

    #[allow(clippy::unused_self, reason = "the platforms share one signature")]
    pub(crate) fn is_here(&self) -> bool {
        true
    }
}

pub(crate) fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

pub(crate) fn coarse_milliseconds() -> u64 {
    super::milliseconds()
}
