//! The records of processes that count themselves as holders, whatever the server of a network file
//! system has granted. If the lock is free although such a record stands, the lock was lost.

use std::io;
use std::path::Path;

use super::location::{RecordLocation, RecordState, identity_of};
use super::sharers::locations_of;
use crate::holder::Holder;
use crate::sorted_map::insert_by_key;
use crate::sys::{self, FileId};

/// The record of a process of this host that has the record open, and the locked file as well. A
/// holder publishes its record after it has acquired the lock, and closes the record before it
/// releases the lock, also if it learns that the lock was lost (rules 10 and 16). So a claim that
/// stands before and after a moment was one in that moment.
pub(crate) struct Claim<'a> {
    location: RecordLocation<'a>,
    holder: Holder,
    text: String,
    record: FileId,
    locked: FileId,
}

impl<'a> Claim<'a> {
    fn read(location: RecordLocation<'a>) -> io::Result<Option<Self>> {
        let RecordState::Record { text, id: record, .. } = location.state()? else {
            return Ok(None);
        };
        let Some(locked) = identity_of(&location.locked)? else { return Ok(None) };
        let holder = location.holder_in(&text, locked);
        let claim = holder.map(|holder| Self { location, holder, text, record, locked });
        Ok(claim.filter(Self::is_open))
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.location.is_shared
    }

    /// Whether it is the same record, and its process still has it open.
    pub(crate) fn still_stands(&self) -> io::Result<bool> {
        let is_same = match self.location.state()? {
            RecordState::Record { text, id, .. } => text == self.text && id == self.record,
            _ => false,
        };
        let is_for_path = is_same && identity_of(&self.location.locked)? == Some(self.locked);
        Ok(is_for_path && self.is_open())
    }

    pub(crate) fn into_holder(self) -> Holder {
        if self.location.is_shared { self.holder.shared() } else { self.holder }
    }

    /// Checks the files as well as the process: a process that has called exec or is about to end
    /// has closed them, and its record remains.
    fn is_open(&self) -> bool {
        let process = &self.holder.process;
        process.same_pid_namespace() && sys::has_open(&process.identity, self.locked, self.record)
    }
}

/// The claims to the lock file at `path`, the exclusive one first.
pub(crate) fn claims_to_lock(path: &Path) -> io::Result<Vec<Claim<'_>>> {
    let mut claims: Vec<_> = Claim::read(RecordLocation::beside(path))?.into_iter().collect();
    for location in locations_of(path)? {
        if let Some(claim) = Claim::read(location)? {
            insert_by_key(&mut claims, claim, |it| (it.is_shared(), it.holder.since()));
        }
    }
    Ok(claims)
}

/// The claim to one slot of the semaphore in `directory`.
pub(crate) fn claim_to_slot(directory: &Path, slot: u32) -> io::Result<Option<Claim<'static>>> {
    let claim = Claim::read(RecordLocation::of_slot(directory, slot))?;
    Ok(claim.map(|claim| Claim { holder: claim.holder.in_slot(slot), ..claim }))
}
