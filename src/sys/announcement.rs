//! Files that announce something for as long as the process that created them lives (rule E8).

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::imp::{still_names, through_readers};
use super::{generator, rename_new, unique_beside};

/// The modification time of an announcement, in seconds since 1970: 12 October 2004, 23:32:06 UTC.
/// The file itself carries the mark, so no process ever sees the one without the other, and the
/// contents are the payload alone. The number is even, since FAT stores only even seconds.
pub(super) const MARK: u64 = 1_097_623_926;

/// Marks the file as an announcement. The fraction of the second is random: where files have no
/// numbers, it distinguishes two announcements.
pub(super) fn mark(file: &File) -> io::Result<()> {
    // The finest step of NTFS is 100 nanoseconds.
    let fraction = Duration::from_nanos(u64::from(generator().u32(0..10_000_000)) * 100);
    file.set_modified(UNIX_EPOCH + Duration::from_secs(MARK) + fraction)?;
    if is_announcement(&file.metadata()?) {
        return Ok(());
    }
    Err(super::explained(
        io::ErrorKind::Unsupported,
        "its file system does not store modification times",
        "choose another file system",
    ))
}

/// Whether the file is marked as an announcement.
pub(crate) fn is_announcement(found: &Metadata) -> bool {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok().map(|it| it.as_secs());
    found.is_file() && found.modified().ok().and_then(seconds) == Some(MARK)
}

/// Removes the name `path` if it refers to that open file. Returns whether it did.
///
/// A file that another process gives that name at this very moment keeps it: the file is renamed
/// first, then examined, and renamed back if it is another one.
pub(crate) fn remove_exactly(path: &Path, file: &File) -> io::Result<bool> {
    if !still_names(path, file)? {
        return Ok(false);
    }
    let aside = unique_beside(path);
    match through_readers(|| std::fs::rename(path, &aside)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        renamed => renamed?,
    }
    match still_names(&aside, file) {
        Ok(true) => {
            // The name is free. What cannot be removed has a name that no process uses.
            let _ = through_readers(|| std::fs::remove_file(&aside));
            return Ok(true);
        }
        Ok(false) => {}
        Err(error) => {
            let _ = rename_new(&aside, path);
            return Err(error);
        }
    }
    match rename_new(&aside, path) {
        // A third process was faster, and its file counts.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let _ = through_readers(|| std::fs::remove_file(&aside));
            Ok(false)
        }
        renamed => renamed.map(|()| false),
    }
}
