//! Finds the holders of a path, through their records and through what the system shows.

use std::io;
use std::path::Path;

use super::is_directory;
use super::location::{RecordLocation, identity_of};
use super::sharers::sharers_of;
use super::slot_files::{participant_name, slots_in};
use crate::holder::Holder;
use crate::sorted_map::insert_by_key;
use crate::sys::{self, FileId, Owner};

/// The known holders of `path`. For a lock these are the process that holds it or all that share
/// it; for a semaphore (a directory), the holder of each slot, in order. With `thorough`, processes
/// that have only inherited the lock are found too, which may take a few milliseconds.
pub(crate) fn find(path: &Path, thorough: bool) -> io::Result<Vec<Holder>> {
    if !is_directory(path)? {
        if let Some((holder, _)) = RecordLocation::beside(path).holder()? {
            return Ok(vec![holder]);
        }
        let recorded = sharers_of(path)?;
        let locked = identity_of(path)?;
        // The records are locked as well, so the system's list shows their owners with process
        // numbers that are valid here.
        let mut ids: Vec<_> = recorded.iter().map(|(_, record)| *record).collect();
        ids.extend(locked);
        let owners = listed_owners(path, &ids, thorough && recorded.is_empty())?;
        let (holding, recording): (Vec<_>, Vec<_>) =
            owners.into_iter().partition(|owner| Some(owner.file) == locked);
        // List each process once: while other processes lock and unlock, a line of the system's
        // list may be read twice.
        let mut named: Vec<_> = recording.iter().map(|owner| owner.listed).collect();
        let mut found: Vec<_> = recorded.into_iter().map(|(holder, _)| holder).collect();
        for owner in holding {
            if !named.contains(&owner.listed) {
                named.push(owner.listed);
                found.push(Holder::of_owner(&owner));
            }
        }
        return Ok(found);
    }
    let mut found = Vec::new();
    let mut unrecorded = Vec::new();
    for slot in slots_in(path)? {
        let location = RecordLocation::of_slot(path, slot);
        match location.holder()? {
            Some((holder, _)) => found.push(holder.in_slot(slot)),
            None => unrecorded.extend(identity_of(&location.locked)?.map(|id| (slot, id))),
        }
    }
    let ids: Vec<_> = unrecorded.iter().map(|(_, id)| *id).collect();
    for owner in listed_owners(path, &ids, thorough)? {
        let Some((slot, _)) = unrecorded.iter().find(|(_, id)| *id == owner.file) else { continue };
        if !found.iter().any(|holder| holder.slot() == Some(*slot)) {
            insert_by_key(&mut found, Holder::of_owner(&owner).in_slot(*slot), Holder::slot);
        }
    }
    Ok(found)
}

/// The known processes that hold the files of these participants of the barrier in `directory`, in
/// order. Participants leave no records.
pub(crate) fn participants(directory: &Path, numbers: &[u32]) -> io::Result<Vec<Holder>> {
    let mut ids = Vec::new();
    for number in numbers {
        let id = identity_of(&directory.join(participant_name(*number)))?;
        ids.extend(id.map(|id| (*number, id)));
    }
    let files: Vec<_> = ids.iter().map(|(_, id)| *id).collect();
    let mut found: Vec<Holder> = Vec::new();
    for owner in listed_owners(directory, &files, true)? {
        let Some((number, _)) = ids.iter().find(|(_, id)| *id == owner.file) else { continue };
        if !found.iter().any(|holder| holder.slot() == Some(*number)) {
            insert_by_key(&mut found, Holder::of_owner(&owner).in_slot(*number), Holder::slot);
        }
    }
    Ok(found)
}

/// The processes that the system lists as owners of a lock on one of these files, which are at
/// `path` or in it. On a network file system the server decides who holds a lock: the list of this
/// host has at most its own processes, and shows a lock that the server has dropped.
fn listed_owners(path: &Path, files: &[FileId], thorough: bool) -> io::Result<Vec<Owner>> {
    let is_on_network = || path.parent().is_some_and(sys::is_network_directory);
    if files.is_empty() || is_on_network() {
        return Ok(Vec::new());
    }
    sys::lock_owners(files, thorough)
}
