//! A platform without file locks (wasm, Solaris): everything compiles, and each operation that
//! would lock fails. There are no fake locks.

use std::fs::{File, FileType};
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) use super::no_private_directory::{
    ListedDirectory, create_private_directory, is_private_directory, protects_names, user_number,
};
pub(crate) use super::no_proc::{
    NetworkMounts, PID_NAMESPACES, check_forwarded, check_mount, command_of, has_ended,
    has_lost_lock, has_open, inheritors, is_stopped, lists_locks, lock_owners, lock_waiters,
    locked_in_list, means_lost, started, this_process,
};
use super::{Bits, FileKind, Mode};

/// Whether this platform has file locks at all.
pub(crate) const SUPPORTED: bool = false;

pub(crate) const BACKSTOP: std::time::Duration = std::time::Duration::from_secs(1);

pub(super) const LOCKS_STACK: bool = false;

pub(super) const LOCKS_ARE_MANDATORY: bool = false;

/// Whether [`FileId`] distinguishes files.
pub(crate) const FILES_HAVE_NUMBERS: bool = false;

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "flockwork does not support this platform"))
}

pub(crate) fn open_existing(_path: &Path) -> io::Result<File> {
    unsupported()
}

pub(crate) fn open_to_lock(_path: &Path) -> io::Result<File> {
    unsupported()
}

pub(crate) fn open_to_read(_path: &Path) -> io::Result<File> {
    unsupported()
}

pub(crate) fn create_new(_path: &Path, _bits: Option<Bits>) -> io::Result<File> {
    unsupported()
}

pub(crate) fn create_to_lock(_path: &Path, _bits: Option<Bits>) -> io::Result<File> {
    unsupported()
}

/// The path as tempfile accepts it: any path is valid.
pub(super) fn at_any_length(path: &Path) -> &Path {
    path
}

pub(super) fn create_unique(
    _path: &Path,
    _bits: Option<Bits>,
) -> io::Result<tempfile::NamedTempFile> {
    unsupported()
}

pub(super) fn create_at(_path: &Path, _bits: Option<Bits>) -> io::Result<tempfile::NamedTempFile> {
    unsupported()
}

pub(super) fn mark_in_use(
    _made: tempfile::NamedTempFile,
    _path: &Path,
) -> io::Result<Option<tempfile::NamedTempFile>> {
    unsupported()
}

pub(super) fn unmark(_file: &File) {}

pub(super) fn lock_announcement(_file: &File) -> io::Result<()> {
    unsupported()
}

pub(crate) fn writer_lives(_path: &Path, _file: &File) -> io::Result<bool> {
    unsupported()
}

pub(crate) fn still_names(_path: &Path, _file: &File) -> io::Result<bool> {
    unsupported()
}

pub(crate) fn make_replaceable(_path: &Path) -> io::Result<()> {
    unsupported()
}

pub(crate) fn marker_kind(_path: &Path) -> io::Result<(FileKind, bool)> {
    unsupported()
}

pub(super) fn remove_if_left(_path: &Path) -> bool {
    false
}

pub(super) fn create_fixed(
    _path: &Path,
    _bits: Option<Bits>,
    _private: bool,
) -> io::Result<tempfile::NamedTempFile> {
    unsupported()
}

pub(super) const WRITERS_LOCK: bool = false;

pub(super) struct KeptAttributes;

impl KeptAttributes {
    pub(super) fn of(_path: &Path) -> io::Result<Option<Self>> {
        unsupported()
    }

    #[allow(clippy::unused_self, reason = "the platforms share one signature")]
    pub(super) fn restore(&self, _file: &File) -> io::Result<()> {
        unsupported()
    }
}

/// The system's error is clear enough here.
pub(super) fn not_replaced(_path: &Path, error: io::Error) -> io::Error {
    error
}

pub(crate) fn through_readers<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    call()
}

pub(crate) fn rename_new(_from: &Path, _to: &Path) -> io::Result<()> {
    unsupported()
}

pub(crate) fn remove_at_once(_path: &Path) -> io::Result<()> {
    unsupported()
}

pub(crate) fn sync_directory(_directory: &Path) -> io::Result<bool> {
    unsupported()
}

pub(super) fn sync_file(_file: &File) -> io::Result<bool> {
    unsupported()
}

pub(crate) fn sync_everything(_directory: &Path) -> io::Result<bool> {
    unsupported()
}

/// Directories cannot be held here.
#[allow(clippy::unnecessary_wraps, reason = "the platforms share one signature")]
pub(crate) fn hold_directory(_path: &Path) -> io::Result<Option<(File, std::path::PathBuf)>> {
    Ok(None)
}

pub(crate) fn create_directories(_path: &Path, _bits: Option<Bits>) -> io::Result<()> {
    unsupported()
}

pub(crate) fn file_kind(_path: &Path) -> io::Result<FileKind> {
    unsupported()
}

pub(crate) fn describe(_kind: FileType) -> &'static str {
    "a special file"
}

/// Takes the place of the lock calls.
pub(super) mod flock {
    use super::{File, Mode, io, unsupported};

    pub(in super::super) fn lock(_file: &File, _mode: Mode) -> io::Result<()> {
        unsupported()
    }

    pub(in super::super) fn try_lock(_file: &File, _mode: Mode) -> io::Result<bool> {
        unsupported()
    }

    pub(in super::super) fn unlock(_file: &File) -> io::Result<()> {
        unsupported()
    }
}

/// Inherited handles hold no locks here.
pub(crate) fn make_inheritable(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn locks_unsupported(error: &io::Error) -> bool {
    is_unavailable(error)
}

pub(super) fn is_unavailable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

pub(crate) fn advice(_error: &io::Error) -> Option<&'static str> {
    None
}

pub(crate) fn misnamed(_path: &Path) -> Option<io::Error> {
    None
}

pub(crate) fn common_name(path: &Arc<Path>) -> Arc<Path> {
    Arc::clone(path)
}

pub(crate) fn is_bad_name(_error: &io::Error) -> bool {
    false
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId;

impl FileId {
    pub(crate) fn name(self) -> String {
        String::new()
    }
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("none")
    }
}

pub(crate) fn path_identity(_path: &Path) -> io::Result<FileId> {
    unsupported()
}

pub(crate) fn identity(_file: &File) -> io::Result<FileId> {
    unsupported()
}

pub(crate) fn regular_identity(_file: &File) -> io::Result<Option<FileId>> {
    unsupported()
}

/// The names of a file are not known here.
#[allow(clippy::unnecessary_wraps, reason = "Unix checks, which can fail")]
pub(crate) fn has_one_name(_path: &Path, _id: FileId) -> io::Result<Option<bool>> {
    Ok(Some(true))
}

pub(crate) fn names(_path: &Path, _id: FileId) -> io::Result<bool> {
    unsupported()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "only the feature `watch` needs it")]
pub(crate) struct DirectoryId;

#[allow(dead_code, reason = "only the feature `watch` needs it")]
pub(crate) fn directory_identity(_directory: &Path) -> io::Result<DirectoryId> {
    unsupported()
}

pub(crate) fn is_network_directory(_directory: &Path) -> bool {
    false
}

pub(crate) fn is_network(_path: &Path, _file: &File) -> bool {
    false
}

#[derive(Debug)]
pub(crate) struct LivenessLock;

impl LivenessLock {
    pub(crate) const MAY_BE_EMPTY: bool = false;

    pub(crate) fn publish(
        _path: &Path,
        _aside: &Path,
        _contents: &[u8],
        _bits: Option<Bits>,
    ) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn is_alive(_path: &Path, _file: &File) -> bool {
        false
    }

    pub(crate) fn withdraw(self, _path: &Path, _length: u64) -> io::Result<()> {
        unsupported()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Origin;

impl Origin {
    pub(crate) fn here() -> Self {
        Self
    }

    pub(crate) fn is_here(&self) -> bool {
        true
    }
}

pub(crate) fn host_name() -> String {
    String::new()
}

pub(crate) fn coarse_milliseconds() -> u64 {
    super::milliseconds()
}
