//! A process's knowledge of a semaphore's directory, and the creation of the files in it (rules S1
//! to S3).

use std::path::Path;
use std::sync::Arc;

use super::capacity::{MAX_PERMITS, PAUSED, Stamp, establish, stamp};
use super::shared_flags::SharedFlags;
use super::signals::{QUEUE, Watched, create_signals};
use crate::access::{Access, Creation};
use crate::error::{Error, Operation, Result};
use crate::file::lock_file::{LockFile, Siblings};
use crate::file::ticket_queue::TicketQueue;
use crate::record::{SPARES, slot_name, slots_in};
use crate::sys::{self, FileId};
use crate::wait::note_progress;

/// How many slot files are created with the semaphore on a network file system, where creating one
/// takes some milliseconds. Further ones are created when they are first tried (S1).
const MAX_CREATED_REMOTELY: u32 = 64;
/// A length that the file `resized` never has.
const UNREAD: u64 = u64::MAX - 1;

/// The state of the semaphore when it was opened. A forked copy starts with it.
pub(super) struct Opened {
    pub(super) directory: FileId,
    pub(super) flags: Arc<SharedFlags>,
    pub(super) capacity: u32,
}

impl Opened {
    /// A table of a directory that has not been read yet: [`Table::read`] must be called first.
    pub(super) fn table(&self) -> Table {
        Table {
            directory: self.directory,
            epoch: 0,
            flags: Arc::clone(&self.flags),
            capacity: self.capacity,
            generation: UNREAD,
            stamp: None,
            excess: Vec::new(),
            entries: Vec::new(),
            watched: None,
            start: 0,
        }
    }
}

/// The state of the semaphore as this process knows it.
pub(super) struct Table {
    /// The identity of the directory.
    pub(super) directory: FileId,
    /// How many directories this handle has seen at the path.
    pub(super) epoch: u64,
    pub(super) flags: Arc<SharedFlags>,
    pub(super) capacity: u32,
    /// The length of `resized` before the capacity was read.
    pub(super) generation: u64,
    pub(super) stamp: Stamp,
    /// Slots beyond the capacity that have not been seen free since it shrank (S3).
    pub(super) excess: Vec<u32>,
    pub(super) entries: Vec<SlotEntry>,
    /// What the last leader of this handle waited for.
    pub(super) watched: Option<Arc<Watched>>,
    /// The slot to try first: the one that was released last is likely to be free, and is open.
    pub(super) start: u32,
}

/// The table at one moment, to be compared with the files after slots were taken (S3).
pub(super) struct Snapshot {
    pub(super) epoch: u64,
    pub(super) flags: Arc<SharedFlags>,
    pub(super) generation: u64,
    pub(super) capacity: u32,
    pub(super) excess: Vec<u32>,
    pub(super) start: u32,
}

impl Snapshot {
    /// Whether the capacity has not been changed since.
    pub(super) fn is_current(&self) -> bool {
        self.generation == self.flags.generation()
    }
}

#[derive(Default, Clone)]
pub(super) struct SlotEntry {
    pub(super) file: Option<Arc<LockFile>>,
    /// Whether this handle holds the slot: a try would only open another descriptor.
    pub(super) is_held: bool,
}

impl Table {
    pub(super) fn is_only_one(&self) -> bool {
        self.capacity == 1 && self.excess.is_empty() && self.generation == self.flags.generation()
    }

    /// The slots of which a leader may need one.
    pub(super) fn needed(&self) -> impl Iterator<Item = u32> {
        (0..self.capacity).chain(self.excess.iter().copied())
    }

    pub(super) fn entry(&mut self, number: u32) -> &mut SlotEntry {
        let index = number as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, SlotEntry::default());
        }
        &mut self.entries[index]
    }

    /// Reads the flag first, then the capacity, then the names of the slots: a resize changes them
    /// in the opposite order (S3). Returns the numbers of the slots that exist, in order.
    pub(super) fn read(&mut self, directory: &Path, creation: Creation) -> Result<Vec<u32>> {
        // The directory may have been removed. It is created again with the known capacity.
        let known = Some(self.capacity).filter(|_| creation.directories);
        let stamp = stamp(directory);
        if stamp.is_none() {
            establish(&directory.into(), known, creation.access)?;
        }
        let found = identity(directory)?;
        let flags = if self.flags.are_current(directory) {
            Arc::clone(&self.flags)
        } else {
            Arc::new(SharedFlags::open(directory, creation)?)
        };
        let generation = flags.generation();
        let capacity = establish(&directory.into(), known, creation.access)?;
        let numbers = slots_in(directory);
        let numbers =
            numbers.map_err(|source| Error::io(Operation::List, &directory.into(), source))?;
        // No step fails from here on: a capacity without its excess would admit too many holders,
        // and a wait for the excess of another capacity would not end (S3).
        if found != self.directory {
            // The path names another directory: the entries are of the old one.
            self.directory = found;
            self.epoch += 1;
            self.entries.clear();
        }
        (self.flags, self.stamp) = (flags, stamp);
        (self.generation, self.capacity) = (generation, capacity);
        // A file whose number no semaphore can have is not a slot (S10). While the semaphore is
        // paused, none is in excess: a leader would wake up for each that is released (S3).
        let beyond = if capacity == PAUSED { 0..0 } else { capacity..MAX_PERMITS };
        self.excess = numbers.iter().copied().filter(|slot| beyond.contains(slot)).collect();
        Ok(numbers)
    }
}

/// Creates the files of a semaphore before `capacity` has its name. Every process that finds the
/// semaphore then finds them, even one that may not create files (S1).
pub(super) fn create_files(directory: &Path, permits: u32, access: Access) -> Result<()> {
    let gate = LockFile::open(&directory.join("gate"), access)?;
    LockFile::open(&directory.join("waiters"), access)?;
    SharedFlags::open(directory, access)?;
    create_slots(directory, access.into(), 0..created_at_once(permits, gate.is_network()))?;
    create_signals(directory, access, 0..permits);
    let _ = TicketQueue::new(directory.join(QUEUE).into(), access.into()).create();
    Ok(())
}

/// How many of these slot files are created before they are needed. So a process of another user
/// finds them, and no acquisition takes the time to create files (S1).
pub(super) fn created_at_once(permits: u32, is_network: bool) -> u32 {
    if is_network { permits.min(MAX_CREATED_REMOTELY) } else { permits }
}

pub(super) fn create_slots(
    directory: &Path,
    creation: Creation,
    mut numbers: impl Iterator<Item = u32>,
) -> Result<()> {
    let mut siblings = Siblings::default();
    numbers.try_for_each(|number| open_slot(directory, number, &mut siblings, creation).map(drop))
}

/// Opens or creates a slot, with a second name in a directory that `rm slot.*` does not reach (S2).
pub(super) fn open_slot(
    directory: &Path,
    number: u32,
    siblings: &mut Siblings,
    creation: Creation,
) -> Result<Arc<LockFile>> {
    note_progress();
    let spare = directory.join(SPARES).join(number.to_string()).into();
    LockFile::open_kept(directory.join(slot_name(number)).into(), spare, siblings, creation)
}

pub(super) fn identity(directory: &Path) -> Result<FileId> {
    let found = sys::path_identity(directory);
    found.map_err(|source| Error::io(Operation::LookUp, &directory.into(), source))
}
