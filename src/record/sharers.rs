//! The records of processes that share a lock.

use std::io;
use std::path::{Path, PathBuf};

use super::location::{RecordLocation, RecordState, SHARERS, state};
use super::{UNFINISHED, is_gone};
use crate::holder::Holder;
use crate::sorted_map::insert_by_key;
use crate::sys::{self, Directory, FileId};

/// The maximum number of entries of the directory that are read.
const MAX_SHARERS: usize = 1024;

/// The holders of the shared lock on `path` that left a record, each with the identity of the
/// record file.
pub(super) fn sharers_of(path: &Path) -> io::Result<Vec<(Holder, FileId)>> {
    let mut found = Vec::new();
    let Some(directory) = own_directory(path)? else { return Ok(found) };
    for record in entries(&directory)?.into_iter().filter(|record| !is_unfinished(record)) {
        // The record's path leads through the directory that is held open here.
        let location =
            RecordLocation { locked: path.into(), record, is_shared: true, has_directory: false };
        let holder = location.holder()?;
        if let Some((holder, id)) = holder {
            insert_by_key(&mut found, (holder.shared(), id), |(holder, _)| holder.since());
        }
    }
    Ok(found)
}

/// Where the records of processes that share the lock on `path` are.
pub(super) fn locations_of(path: &Path) -> io::Result<Vec<RecordLocation<'_>>> {
    let Some(directory) = own_directory(path)? else { return Ok(Vec::new()) };
    let records = sys::beside(path, SHARERS);
    let found = entries(&directory)?.into_iter().filter(|record| !is_unfinished(record));
    let location = |found: PathBuf| {
        let record = records.join(found.file_name()?);
        Some(RecordLocation { locked: path.into(), record, is_shared: true, has_directory: true })
    };
    Ok(found.filter_map(location).collect())
}

/// Removes the records of dead holders of the shared lock on `path`. `all` removes unfinished
/// records too: only for a process that holds the lock exclusively, since no other process then
/// writes there.
pub(crate) fn remove_dead_sharers(path: &Path, all: bool) {
    let Ok(Some(directory)) = own_directory(path) else { return };
    for record in entries(&directory).unwrap_or_default() {
        let is_dead = match is_unfinished(&record) {
            true if all => std::fs::symlink_metadata(&record).is_ok_and(|found| found.is_file()),
            true => false, // another process may be about to write it
            false => {
                matches!(state(&record), Ok(RecordState::Record { is_alive: false, .. }))
            }
        };
        if is_dead {
            let _ = std::fs::remove_file(&record);
        }
    }
}

/// The paths of the records in the directory of the processes that share a lock. This user may not
/// be allowed to read it.
fn entries(directory: &Directory) -> io::Result<Vec<PathBuf>> {
    let entries = match sys::read_dir(directory.path()) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut records = Vec::new();
    for entry in entries.take(MAX_SHARERS) {
        let entry = entry?;
        if sys::is_unique_name(entry.file_name().to_string_lossy().trim_end_matches(UNFINISHED)) {
            records.push(entry.path());
        }
    }
    Ok(records)
}

/// The directory of the processes that share the lock on `path`. `None`: there is no such
/// directory.
fn own_directory(path: &Path) -> io::Result<Option<Directory>> {
    match Directory::open(&sys::beside(path, SHARERS)) {
        Err(error) if is_gone(&error) => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_unfinished(record: &Path) -> bool {
    record.to_string_lossy().ends_with(UNFINISHED)
}
