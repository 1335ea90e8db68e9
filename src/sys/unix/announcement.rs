//! Unix: recognizes announcements, and whether their processes live (rule E8).

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::super::announcement::MARK;
use super::super::{FileKind, Mode, try_lock, unlock};
use super::{identity, names};

/// The kind of file at the path, and whether it is an announcement, by one `lstat`.
pub(crate) fn marker_kind(path: &Path) -> io::Result<(FileKind, bool)> {
    match rustix::fs::lstat(path) {
        Ok(stat) => {
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            let is_file = kind == rustix::fs::FileType::RegularFile;
            #[allow(
                clippy::unnecessary_cast,
                clippy::cast_sign_loss,
                clippy::cast_lossless,
                trivial_numeric_casts,
                reason = "st_mtime has another type on each system"
            )]
            let seconds = stat.st_mtime as u64;
            Ok((FileKind::of(is_file), is_file && seconds == MARK))
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => Ok((FileKind::Nothing, false)),
        Err(error) => Err(error.into()),
    }
}

/// Locks an announcement, which may be locked already, in the same mode and by this very open file
/// ([`super::mark_in_use`]): the kernel leaves such a lock as it is (rule 3).
pub(in crate::sys) fn lock_announcement(file: &File) -> io::Result<()> {
    if try_lock(file, Mode::Exclusive)? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// Whether the process that announced this open file lives: then it has the file locked. The check
/// uses a shared lock, so that two processes that check at the same time do not take each other for
/// that process (rule E8).
pub(crate) fn writer_lives(_path: &Path, file: &File) -> io::Result<bool> {
    if try_lock(file, Mode::Shared)? {
        return unlock(file).map(|()| false);
    }
    Ok(true)
}

/// Whether `path` still names that open file.
pub(crate) fn still_names(path: &Path, file: &File) -> io::Result<bool> {
    names(path, identity(file)?)
}

/// Does nothing: a rename replaces a file that is open.
#[allow(clippy::unnecessary_wraps, reason = "the seam's signature")]
pub(crate) fn make_replaceable(_path: &Path) -> io::Result<()> {
    Ok(())
}
