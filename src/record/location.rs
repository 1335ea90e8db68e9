//! The locations of records, and the files found there.

use std::borrow::Cow;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::format::{FIRST_LINE, MAX_BYTES, is_for, parse};
use super::is_gone;
use super::slot_files::{SLOT_PREFIX, slot_name};
use crate::holder::Holder;
use crate::sys::{self, Directory, FileId, LivenessLock, Owner};

const SUFFIX: &str = ".holder";
/// The directory, beside the lock, for the records of processes that share the lock.
pub(super) const SHARERS: &str = ".holders";
/// The directory in a semaphore's directory for the records of its slots, under the slots' names.
const RECORDS: &str = "holders";

/// Where the record of a lock file is.
#[derive(Debug, Clone)]
pub(crate) struct RecordLocation<'a> {
    /// The file that the holder has locked.
    pub(super) locked: Cow<'a, Path>,
    pub(super) record: PathBuf,
    /// Whether several holders may leave records there at the same time.
    pub(super) is_shared: bool,
    /// Whether the record is in a directory for records.
    pub(super) has_directory: bool,
}

impl<'a> RecordLocation<'a> {
    /// The record of a lock, beside it.
    pub(crate) fn beside(locked: &'a Path) -> Self {
        let record = sys::beside(locked, SUFFIX);
        Self { locked: locked.into(), record, is_shared: false, has_directory: false }
    }

    /// The record of one holder of a shared lock, under a name that no other process uses.
    pub(crate) fn of_sharer(locked: &'a Path) -> Self {
        let record = sys::unique_beside(&sys::beside(locked, SHARERS).join(SLOT_PREFIX));
        Self { locked: locked.into(), record, is_shared: true, has_directory: true }
    }

    /// The record of one slot of the semaphore in `directory`.
    pub(crate) fn of_slot(directory: &Path, slot: u32) -> RecordLocation<'static> {
        let name = slot_name(slot);
        let record = directory.join(RECORDS).join(&name);
        let locked = directory.join(name).into();
        RecordLocation { locked, record, is_shared: false, has_directory: true }
    }

    /// The holder that the record names, if it lives, and the identity of the record file.
    pub(super) fn holder(&self) -> io::Result<Option<(Holder, FileId)>> {
        let RecordState::Record { text, is_alive: true, id } = self.state()? else {
            return Ok(None);
        };
        let Some(locked) = identity_of(&self.locked)? else { return Ok(None) };
        let Some(holder) = self.holder_in(&text, locked) else { return Ok(None) };
        if !holder.process.has_ended() {
            return Ok(Some((holder, id)));
        }
        // The publisher has ended, so a child made by `fork` may have inherited the lock and the
        // record, which is locked as well. A process that has locked only the record holds nothing
        // (rule 11).
        let (locks, records): (Vec<_>, Vec<_>) =
            sys::inheritors(&[locked, id]).into_iter().partition(|owner| owner.file == locked);
        let has_lock = |owner: &Owner| locks.iter().any(|lock| lock.listed == owner.listed);
        let inheritor = records.into_iter().find(has_lock);
        Ok(inheritor.map(|inheritor| (holder.inherited_by(&inheritor), id)))
    }

    /// The holder that a record names. The holder of a file that the path no longer names does not
    /// hold the path, which names the file `locked`.
    pub(super) fn holder_in(&self, text: &str, locked: FileId) -> Option<Holder> {
        self.is_for(text, locked).then(|| parse(text)).flatten()
    }

    /// Whether a holder of the file `locked` died and left its record, which is then removed. (If
    /// it cannot be removed, the next holder finds it too.) Only for the process that holds the
    /// file now. A holder removes its record before it unlocks, so a record of this very file
    /// remains from a dead process. The record's own lock does not matter here, since a dying
    /// process drops its locks one after the other (rule 12).
    pub(crate) fn remove_abandoned(&self, locked: FileId) -> bool {
        let is_abandoned = self.is_abandoned(locked);
        if is_abandoned {
            let _ = self.hold().and_then(|(_directory, record)| std::fs::remove_file(record));
        }
        is_abandoned
    }

    /// Checks the same without removing the record. Also for a process that shares the file: no
    /// living process can hold it exclusively at the same time.
    pub(crate) fn is_abandoned(&self, locked: FileId) -> bool {
        let is_record = || matches!(self.state(), Ok(RecordState::Record { text, .. }) if self.is_for(&text, locked));
        is_record() && self.is_listed()
    }

    /// Whether a record is of the locked file `id` (rule 10).
    fn is_for(&self, text: &str, id: FileId) -> bool {
        is_for(text, id, || self.is_on_network())
    }

    /// Whether the locked file is on a network file system.
    pub(super) fn is_on_network(&self) -> bool {
        self.locked.parent().is_some_and(sys::is_network_directory)
    }

    /// Whether the directory lists the record, which could be opened. A client of a network file
    /// system may open a file that another host has removed, from its cache (`GlusterFS`: for up to
    /// a second), and lists it no more (rule 12).
    fn is_listed(&self) -> bool {
        let (Some(directory), Some(name)) = (self.record.parent(), self.record.file_name()) else {
            return true;
        };
        if !self.is_on_network() {
            return true;
        }
        match sys::read_dir(directory) {
            Ok(entries) => entries.flatten().any(|entry| entry.file_name() == name),
            Err(_) => true, // this user may search the directory but not list it
        }
    }

    pub(super) fn state(&self) -> io::Result<RecordState> {
        match self.hold() {
            Ok((_directory, record)) => state(&record),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(RecordState::Free),
            // The directory's name refers to another kind of file, or to a symbolic link.
            Err(error) if is_gone(&error) => Ok(RecordState::Foreign),
            Err(error) => Err(error),
        }
    }

    pub(super) fn hold(&self) -> io::Result<(Option<Directory>, PathBuf)> {
        hold(&self.record, self.has_directory)
    }
}

/// The kind of file at a record's path.
pub(super) enum RecordState {
    /// Nothing.
    Free,
    /// A record or the beginning of one, whether its publisher lives, and the identity of the
    /// record file.
    Record { text: String, is_alive: bool, id: FileId },
    /// A file that is not a record, or that this user may not read.
    Foreign,
}

/// The path of a record, valid while the returned directory is held: it leads to that directory
/// even if another process replaces it meanwhile.
pub(super) fn hold(record: &Path, has_directory: bool) -> io::Result<(Option<Directory>, PathBuf)> {
    match (record.parent(), record.file_name()) {
        (Some(directory), Some(name)) if has_directory => {
            let directory = Directory::open(directory)?;
            let record = directory.path().join(name);
            Ok((Some(directory), record))
        }
        _ => Ok((None, record.into())),
    }
}

/// Examines what exists at the path `record`, which another host may replace meanwhile.
pub(super) fn state(record: &Path) -> io::Result<RecordState> {
    match sys::through_replacements(|| examine(record)) {
        // It is replaced all the time.
        Err(error) if sys::is_stale(&error) => Ok(RecordState::Free),
        found => found,
    }
}

fn examine(record: &Path) -> io::Result<RecordState> {
    let found = match std::fs::symlink_metadata(record) {
        Ok(found) => found,
        Err(error) if is_gone(&error) && !sys::is_stale(&error) => return Ok(RecordState::Free),
        Err(error) => return Err(error),
    };
    if !found.is_file() {
        return Ok(RecordState::Foreign); // it is not opened, since it may be a FIFO
    }
    let file = match sys::open_to_read(record) {
        Ok(file) => file,
        // It was just removed.
        Err(error) if is_gone(&error) && !sys::is_stale(&error) => return Ok(RecordState::Free),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(RecordState::Foreign);
        }
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    (&file).take(MAX_BYTES).read_to_end(&mut bytes).map_err(sys::of_open_file)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let is_begun = text.starts_with(FIRST_LINE) || FIRST_LINE.starts_with(&text);
    if !is_begun || text.is_empty() && !LivenessLock::MAY_BE_EMPTY {
        return Ok(RecordState::Foreign);
    }
    let id = sys::identity(&file).map_err(sys::of_open_file)?;
    Ok(RecordState::Record { is_alive: LivenessLock::is_alive(record, &file), text, id })
}

/// The identity of the file at `path`; `None` if there is none.
pub(crate) fn identity_of(path: &Path) -> io::Result<Option<FileId>> {
    match sys::path_identity(path) {
        Err(error) if is_gone(&error) => Ok(None),
        found => found.map(Some),
    }
}
