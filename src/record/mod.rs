//! The holders of a path: the record that a holder leaves beside it, and what the system shows if
//! there is no record. Nothing here acquires the lock whose holder it finds.
//!
//! The record is a small text file, `P.holder` (for a slot of a semaphore `P/holders/slot.N`, for
//! each reader a file in `P.holders/`). It counts only while its publisher lives, and the kernel
//! decides that ([`LivenessLock`]): a record that a killed process left is never believed, even if
//! its process number now belongs to another process. A file at the record's path that is not a
//! record belongs to another program, and is left alone (rules 10 to 12 of `docs/PROTOCOL.md`).

mod claims;
mod find;
mod format;
mod location;
mod sharers;
mod slot_files;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::claims::{Claim, claim_to_slot, claims_to_lock};
pub(crate) use self::find::{find, participants};
use self::format::FIRST_LINE;
pub(crate) use self::location::{RecordLocation, identity_of};
use self::location::{RecordState, hold, state};
pub(crate) use self::sharers::remove_dead_sharers;
pub(crate) use self::slot_files::{
    SPARES, has_participants, participant_name, slot_name, slots_in,
};
use crate::access::Access;
use crate::holder::Holder;
use crate::sys::{self, FileId, LivenessLock, Origin};

/// A record's name has this suffix while the record is written.
const UNFINISHED: &str = ".new";

/// This process's record beside a path that it holds. Dropping it removes the record, so it must be
/// dropped before the lock is released: otherwise it could remove the next holder's.
#[derive(Debug)]
pub(crate) struct Record {
    /// Taken out when the record is removed.
    liveness: Option<LivenessLock>,
    path: PathBuf,
    has_directory: bool,
    origin: Origin,
}

impl Record {
    /// Publishes a record, only for the process that holds the file `locked` now. A file of another
    /// program at the record's path stays there.
    pub(crate) fn publish(
        location: RecordLocation<'_>,
        locked: FileId,
        label: Option<&str>,
        access: Access,
    ) -> io::Result<Self> {
        if let Some(directory) = location.record.parent().filter(|directory| !directory.is_dir()) {
            sys::create_directories(directory, access.bits())?; // the directory for several records
        }
        let (directory, record) = location.hold()?;
        let unfinished = sys::beside(&record, UNFINISHED);
        // Only for one name in sixteen, since there may be many records, and each check takes some
        // microseconds.
        if location.is_shared && record.as_os_str().as_encoded_bytes().last() == Some(&b'0') {
            remove_dead_sharers(&location.locked, false);
        }
        if let RecordState::Foreign = state(&record)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // A publisher that was killed before its record had its name left this file, which may be
        // empty.
        if let Ok(left) = std::fs::symlink_metadata(&unfinished) {
            let is_record =
                || state(&unfinished).map(|found| matches!(found, RecordState::Record { .. }));
            if !left.is_file() || left.len() != 0 && !is_record()? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::remove_file(&unfinished)?;
        }
        let holder = Holder::of_this_process(label);
        let text = format::write(&holder, locked, location.is_on_network());
        let liveness = LivenessLock::publish(&record, &unfinished, text.as_bytes(), access.bits())?;
        let has_directory = directory.is_some();
        Ok(Self {
            liveness: Some(liveness),
            path: location.record,
            has_directory,
            origin: Origin::here(),
        })
    }
}

impl Record {
    /// Leaves the record as it is, for a process that has lost its lock: the name may belong to the
    /// next holder's record by now, which a client of a network file system may not show yet.
    pub(crate) fn leave(mut self) {
        self.liveness = None;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A forked copy must leave the record to the process that holds the lock (rule 4).
        if let Some(liveness) = self.liveness.take().filter(|_| self.origin.is_here()) {
            // If no descriptor is available for the directory, the record's path is used: the file
            // there is compared before it is removed.
            let held = hold(&self.path, self.has_directory);
            let path = held.as_ref().map_or(&self.path, |(_directory, path)| path);
            // It is truncated to the first line, so that a file that cannot be removed names no
            // holder.
            let _ = liveness.withdraw(path, FIRST_LINE.len() as u64 + 1);
        }
    }
}

/// Whether the path names a directory. A symbolic link to one does not count, since it belongs to
/// another program.
fn is_directory(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Err(error) if is_gone(&error) => Ok(false),
        found => found.map(|found| found.is_dir()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || sys::is_stale(error)
        || sys::is_bad_name(error) // the path itself is valid, and too long only with the suffix
}
