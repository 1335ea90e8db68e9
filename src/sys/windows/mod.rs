//! Windows: share modes, error numbers.
//!
//! Rule 7. Lock files are opened without delete sharing: while anybody has one open it can neither
//! be removed nor renamed nor replaced, so the path names the locked file for as long as we hold it
//! and [`names`] has nothing to ask. Locked ranges are mandatory here, hence nothing is stored in a
//! lock file.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf, Prefix};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) use super::no_proc::{
    PID_NAMESPACES, command_of, has_ended, inheritors, is_stopped, lists_locks, lock_owners,
    locked_in_list, started, this_process,
};
use super::{Bits, FileKind};

/// Whether there are locks on this platform at all.
pub(crate) const SUPPORTED: bool = true;

/// There is no event for a close, so the death of a holder is seen only by looking; and notify 8.2
/// loses an overflow without a word (notify#963).
pub(crate) const BACKSTOP: Duration = Duration::from_millis(100);

/// A shared lock by the handle that has an exclusive one comes on top of it, and the first
/// unlocking takes the exclusive one away: `LockFileEx`, remarks.
pub(super) const LOCKS_STACK: bool = true;

/// Nobody else can read what is locked exclusively, nor write what is locked.
pub(super) const LOCKS_ARE_MANDATORY: bool = true;

/// Whether [`FileId`] tells one file from another.
pub(crate) const FILES_HAVE_NUMBERS: bool = false;

const FILE_SHARE_READ: u32 = 1;
const FILE_SHARE_WRITE: u32 = 2;
const FILE_SHARE_ALL: u32 = 7;
/// To look at something that may be a directory.
const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
/// A symbolic link or junction at the last component is opened itself, and then refused.
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

/// Somebody is in the way who will be gone in a moment, it may be: a virus scanner or an indexer
/// that has the file open, or who deletes it.
const TRANSIENT_ERRORS: &[i32] =
    &[ERROR_SHARING_VIOLATION, ERROR_ACCESS_DENIED, ERROR_DELETE_PENDING];

/// For a lock file.
const SHARING_TIMEOUT: Duration = Duration::from_secs(1);

const LONGEST_PAUSE: Duration = Duration::from_millis(4);

/// Rule 7. Tries again for so long whatever somebody may be in the way of, and then believes it.
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
                // Not longer: programs that open and close a file all the time leave short moments
                // in between.
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}

/// The same for opening what is at `path`: a user who may not is told at once.
fn opened<T>(path: &Path, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let is_refused = |error: &io::Error| is(error, &[ERROR_ACCESS_DENIED]) && is_settled(path);
    match retry_transient_unless(SHARING_TIMEOUT, is_refused, &mut call) {
        // What was in the way may have gone while that was looked at.
        Err(error) if is(&error, &[ERROR_ACCESS_DENIED]) => call(),
        opened => opened,
    }
}

/// Whether the name is free, or names a file that is not being deleted. A file whose deletion waits
/// for its last handle refuses every open, also one that only reads attributes.
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

/// Read and write, or only read where writing is refused: the file has the read-only attribute, an
/// access list says so, or the medium is write-protected.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    opened(path, || match options().write(true).open(path) {
        Err(error) if is(&error, &[ERROR_ACCESS_DENIED, ERROR_WRITE_PROTECT]) => {
            options().open(path).map_err(|_| error)
        }
        other => other,
    })
}

/// To read and write: locks are mandatory here, so no other program reads or runs the file while it
/// is locked.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    open_existing(path)
}

/// For reading only, what others wrote beside the path. Shares everything: it must not be in their
/// way.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    options().share_mode(FILE_SHARE_ALL).open(path)
}

/// Mode bits mean nothing here: what is created inherits the access list of its directory.
pub(crate) fn create_new(path: &Path, _bits: Option<Bits>) -> io::Result<File> {
    opened(path, || options().write(true).create_new(true).open(path))
}

pub(crate) fn create_to_lock(path: &Path, bits: Option<Bits>) -> io::Result<File> {
    create_new(path, bits)
}

/// A new file in the directory of `path`, under a random name: to be filled and then given the name
/// `path`.
pub(super) fn create_unique(
    path: &Path,
    _bits: Option<Bits>,
) -> io::Result<tempfile::NamedTempFile> {
    let directory = path.parent().unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".flockwork.").tempfile_in(at_any_length(directory))
}

/// As tempfile takes it, which renames by `MoveFileExW` with a path as it is: that may have 259
/// characters, and many more behind `\\?\`. (std sees to that by itself.) Only for absolute paths,
/// and what [`misnamed`] has nothing against.
pub(super) fn at_any_length(path: &Path) -> Cow<'_, Path> {
    /// What is made in a directory has a name, too.
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

/// The same, when it is free.
pub(super) fn create_fixed(
    path: &Path,
    bits: Option<Bits>,
    _private: bool,
) -> io::Result<tempfile::NamedTempFile> {
    opened(path, || create_at(path, bits))
}

/// An open file is marked as being written: another process cannot open it without sharing.
#[allow(clippy::unnecessary_wraps, reason = "the seam's signature")]
pub(super) fn mark_in_use(
    made: tempfile::NamedTempFile,
    _path: &Path,
) -> io::Result<Option<tempfile::NamedTempFile>> {
    Ok(Some(made))
}

pub(super) fn unmark(_file: &File) {}

/// Removes a file that no process has open, and returns whether it is gone.
pub(super) fn remove_if_left(path: &Path) -> bool {
    let is_left = options()
        .write(true)
        .share_mode(0)
        .open(path)
        .is_ok_and(|file| file.metadata().is_ok_and(|found| found.is_file()));
    is_left && fs::remove_file(path).is_ok()
}

/// A new file at `path` itself, which may be in use.
pub(super) fn create_at(path: &Path, _bits: Option<Bits>) -> io::Result<tempfile::NamedTempFile> {
    let (directory, name) = (path.parent().unwrap_or(Path::new(".")), path.file_name());
    let directory = at_any_length(directory);
    let mut made = tempfile::Builder::new();
    made.prefix(name.unwrap_or_default()).rand_bytes(0).tempfile_in(&directory)
}

/// The lock on what is written aside would hinder its being renamed; and the lock that keeps others
/// from writing cannot be removed here while it is held.
pub(super) const WRITERS_LOCK: bool = false;

/// What a file that is replaced hands on: nothing, since the new one inherits the access list of
/// its directory.
pub(super) struct KeptAttributes;

impl KeptAttributes {
    /// `None`: there is no file yet.
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

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the seam's signature")]
    pub(super) fn restore(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }
}

/// The system's own words will do.
pub(super) fn not_replaced(_path: &Path, error: io::Error) -> io::Error {
    error
}

/// Who reads a file is in the way of its replacement for a moment.
pub(crate) fn through_readers<T>(call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    retry_transient(SHARING_TIMEOUT, call)
}

/// What is at the new name is replaced: std has no other way.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    retry_transient(SHARING_TIMEOUT, || fs::rename(from, to))
}

/// Frees the name at once. Where deletion is not POSIX's (before Windows 10, version 1809; FAT;
/// Wine), a deleted file keeps its name until the last process closes it, and could be taken for a
/// new one.
pub(crate) fn remove_at_once(path: &Path) -> io::Result<()> {
    let aside = super::unique_beside(path);
    retry_transient(SHARING_TIMEOUT, || fs::rename(path, &aside))?;
    let _ = retry_transient(Duration::from_millis(10), || fs::remove_file(&aside));
    Ok(())
}

/// There is no such call: a directory cannot be opened for it, and NTFS keeps a journal of names.
#[allow(clippy::unnecessary_wraps, reason = "the seam's signature")]
pub(crate) fn sync_directory(_directory: &Path) -> io::Result<bool> {
    Ok(true)
}

/// `false`: the file system has no such call.
pub(super) fn sync_file(file: &File) -> io::Result<bool> {
    match file.sync_all() {
        Err(error) if is_unavailable(&error) => Ok(false),
        synced => synced.map(|()| true),
    }
}

/// There is no such call for a user without special rights.
#[allow(clippy::unnecessary_wraps, reason = "the seam's signature")]
pub(crate) fn sync_everything(_directory: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Not known of here.
#[allow(clippy::unnecessary_wraps, reason = "the seam's signature")]
pub(crate) fn hold_directory(_path: &Path) -> io::Result<Option<(File, std::path::PathBuf)>> {
    Ok(None)
}

pub(crate) fn create_directories(path: &Path, _bits: Option<Bits>) -> io::Result<()> {
    let made = fs::create_dir_all(path);
    if path.is_dir() {
        return Ok(());
    }
    // A file in the place of one of them is only told as a path that was not found; a drive that is
    // not there not at all.
    let found = path.ancestors().find_map(|above| fs::metadata(above).ok());
    if found.is_some_and(|found| !found.is_dir()) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Err(made.err().unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// A file whose deletion waits for its last handle is still there, and refuses to be looked at.
pub(crate) fn file_kind(path: &Path) -> io::Result<FileKind> {
    match retry_transient(SHARING_TIMEOUT, || fs::symlink_metadata(path)) {
        Ok(found) => Ok(FileKind::of(found.is_file())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FileKind::Nothing),
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
    false // the one error that means it is known to fs4: ERROR_LOCK_VIOLATION
}

/// Handles that are inherited hold no locks here.
pub(crate) fn make_inheritable(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn locks_unsupported(error: &io::Error) -> bool {
    is_unavailable(error)
}

/// Whether the system or a file system has no such call.
pub(super) fn is_unavailable(error: &io::Error) -> bool {
    is(error, &[ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED, ERROR_CALL_NOT_IMPLEMENTED])
}

/// What to do about an error that std has no kind for.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    if is(error, &[ERROR_TOO_MANY_OPEN_FILES]) {
        "; hold fewer files open"
    } else if is_bad_name(error) {
        "; choose a shorter or simpler name"
    } else if is(error, &[ERROR_SHARING_VIOLATION]) {
        "; another program has the file open and shares it with nobody"
    } else {
        ""
    }
}

/// Devices, streams, and what the system makes another name of without a word.
pub(crate) fn misnamed(path: &Path) -> Option<io::Error> {
    let problem = super::windows_names::problem(path.as_os_str().as_encoded_bytes())?;
    Some(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

/// A file goes under many: in upper and lower case, behind `\\?\`, through junctions, with short
/// names.
pub(crate) fn common_name(path: &Arc<Path>) -> Arc<Path> {
    fs::canonicalize(path).map_or_else(|_| Arc::clone(path), Into::into)
}

pub(crate) fn is_bad_name(error: &io::Error) -> bool {
    is(error, &[ERROR_INVALID_NAME, ERROR_FILENAME_EXCED_RANGE])
}

/// Nothing: a path cannot change the file that it names while that file is open (see above).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId;

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("at this path")
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the seam's signature")]
pub(crate) fn path_identity(_path: &Path) -> io::Result<FileId> {
    Ok(FileId)
}

#[allow(clippy::unnecessary_wraps, reason = "the seam's signature")]
pub(crate) fn identity(_file: &File) -> io::Result<FileId> {
    Ok(FileId)
}

/// To give a file another name takes the right to change its attributes.
#[allow(clippy::unnecessary_wraps, reason = "Unix looks, which can fail")]
pub(crate) fn has_one_name(_path: &Path, _id: FileId) -> io::Result<Option<bool>> {
    Ok(Some(true))
}

#[allow(clippy::unnecessary_wraps, reason = "the seam's signature")]
pub(crate) fn names(_path: &Path, _id: FileId) -> io::Result<bool> {
    Ok(true)
}

/// Which directory a path leads to: std does not tell its number here, so by the time at which it
/// was made. A directory that is created again within seconds may get the time of the old one (file
/// system tunneling); then the backstop has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryId {
    made: Option<SystemTime>,
}

pub(crate) fn directory_identity(directory: &Path) -> io::Result<DirectoryId> {
    let found = fs::metadata(directory)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(DirectoryId { made: found.created().ok() })
}

/// By the resolved path: a share, also one behind a drive letter.
pub(crate) fn is_network(path: &Path, _file: &File) -> bool {
    is_network_directory(path)
}

/// The same of a directory.
pub(crate) fn is_network_directory(path: &Path) -> bool {
    let resolved = fs::canonicalize(path);
    let path = resolved.as_deref().unwrap_or(path);
    matches!(
        path.components().next(),
        Some(Component::Prefix(prefix))
            if matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..))
    )
}

/// A published file that the system knows to be alive: its publisher keeps it open without sharing
/// writing, which ends with the process however it ends. (A lock would keep others from reading
/// it.)
#[derive(Debug)]
pub(crate) struct LivenessLock {
    file: File,
}

impl LivenessLock {
    /// Whether an empty file can be one that was withdrawn.
    pub(crate) const MAY_BE_EMPTY: bool = true;

    /// Puts `contents` at `path`, in place: a rename would fail while a process reads it. For
    /// a moment a reader sees a part of it. Only one process may publish at a path at a time.
    pub(crate) fn publish(
        path: &Path,
        _aside: &Path,
        contents: &[u8],
        _bits: Option<Bits>,
    ) -> io::Result<Self> {
        let mut options = options();
        options.write(true).create(true).truncate(false).share_mode(FILE_SHARE_READ);
        // Somebody may be asking whether the last publisher lives. Nobody waits longer than this
        // for a record: the lock is theirs without one.
        let file = retry_transient(Duration::from_millis(10), || options.open(path))?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        file.set_len(0)?;
        io::Write::write_all(&mut &file, contents)?;
        Ok(Self { file })
    }

    /// Whether the publisher of this file lives: then nobody may open it for writing.
    pub(crate) fn is_alive(path: &Path, _file: &File) -> bool {
        let probe = options().read(false).write(true).share_mode(FILE_SHARE_ALL).open(path);
        probe.is_err_and(|error| is(&error, &[ERROR_SHARING_VIOLATION]))
    }

    /// Cuts the file to `length` bytes and removes it. If a reader keeps it from being removed, no
    /// process takes what is left for the record of a dead holder. Only for the process that published it.
    pub(crate) fn withdraw(self, path: &Path, length: u64) -> io::Result<()> {
        let cut = self.file.set_len(length);
        drop(self.file);
        cut.and(fs::remove_file(path))
    }
}

/// A mark of the process in which it was made; there is no `fork` here.
#[derive(Debug, Clone)]
pub(crate) struct Origin;

impl Origin {
    pub(crate) fn here() -> Self {
        Self
    }

    #[allow(clippy::unused_self, reason = "the seam's signature")]
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
