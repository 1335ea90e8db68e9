//! The slots of a semaphore: how they are acquired and released, without waiting (rules S2 to S4).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::batch::Batch;
use super::capacity::{MAX_PERMITS, PAUSED, check_permits, check_requested, establish, stamp};
use super::shared_flags::SharedFlags;
use super::signals::QUEUE;
use super::table::{Opened, Snapshot, Table, create_slots, created_at_once, identity, open_slot};
use super::waiters::Waiters;
use crate::access::{Access, Creation};
use crate::error::{Error, Obstacle, Operation, Result};
use crate::file::lock_file::{FileLock, LockFile, Siblings};
use crate::file::ticket_queue::TicketQueue;
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::paths::absolute;
use crate::sys::{self, FileId, HeldFifo, Mode, Retries};
use crate::wait::note_progress;

/// A semaphore's directory.
pub(crate) struct Slots {
    pub(super) directory: Arc<Path>,
    pub(super) access: Access,
    /// Files in the directory are always created, and the directory itself if that is allowed.
    pub(super) creation: Creation,
    network: bool,
    pub(super) waiters: Waiters,
    /// The waiters in their order, where there can be such a queue.
    pub(super) tickets: Arc<TicketQueue>,
    /// Whether there was a waiter when that was last checked.
    pub(super) wanted: AtomicBool,
    table: ForkSafe<Table, Arc<Opened>>,
}

/// Slots that were unlocked.
pub(super) struct Released {
    /// The FIFOs whose closing is the signal to the leader.
    pub(super) signals: Vec<(u32, HeldFifo)>,
    /// Whether each slot has such a signal.
    pub(super) are_all_signalled: bool,
    pub(super) result: Result<()>,
}

/// How slots are gathered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gathering {
    /// Whether to check that the path still names an acquired slot file. Some checks may be
    /// skipped, since a slot file is never created twice (S2). A file without a second name is
    /// always checked.
    pub(crate) check_taken: bool,
    /// Whether to check the same for a slot that is held.
    pub(crate) check_refused: bool,
    /// Whether the leader gathers: no waiter needs to be notified of the slots that it releases.
    pub(crate) is_leader: bool,
}

impl Gathering {
    pub(crate) const CAREFUL: Self =
        Self { check_taken: true, check_refused: true, is_leader: false };
}

impl Slots {
    /// Opens a semaphore. With `permits`, an existing one must have that capacity, and a missing
    /// one is created if that is allowed.
    pub(crate) fn open(path: &Path, permits: Option<u32>, creation: Creation) -> Result<Arc<Self>> {
        let Creation { access, directories: creates, .. } = creation;
        let creation = Creation { files: true, ..creation };
        // A slash at the end would follow a symbolic link, so it is removed.
        let directory: Arc<Path> = absolute(path)?.components().collect::<PathBuf>().into();
        if let Some(permits) = permits {
            check_permits(&directory, permits, MAX_PERMITS)?;
        }
        let capacity = establish(&directory, permits.filter(|_| creates), access)?;
        // The capacity from before a pause is not stored, so there is nothing to compare with.
        let is_other = |permits: &u32| capacity != PAUSED && *permits != capacity;
        if let Some(requested) = permits.filter(is_other) {
            return Err(Error::capacity_mismatch(&directory, capacity, requested));
        }
        let waiters = LockFile::open(&directory.join("waiters"), creation)?;
        let flags = Arc::new(SharedFlags::open(&directory, access)?);
        let opened = Arc::new(Opened { directory: identity(&directory)?, flags, capacity });
        let mut table = opened.table();
        let there = table.read(&directory, creation)?;
        let tickets = Arc::new(TicketQueue::new(directory.join(QUEUE).into(), creation));
        let slots = Self {
            network: waiters.is_network(),
            directory,
            access,
            creation,
            waiters: Waiters::new(waiters),
            tickets,
            wanted: AtomicBool::new(true),
            // A forked copy starts without its parent's permits (rule 4).
            table: ForkSafe::with_context(table, opened, |opened| opened.table()),
        };
        // The process that created the semaphore may have been killed before it had created these.
        let is_missing = |slot: &u32| there.binary_search(slot).is_err();
        let missing = (0..created_at_once(capacity, slots.network)).filter(is_missing);
        let _ = create_slots(&slots.directory, creation, missing);
        Ok(Arc::new(slots))
    }

    pub(crate) fn directory(&self) -> &Arc<Path> {
        &self.directory
    }

    pub(crate) fn creation(&self) -> Creation {
        self.creation
    }

    pub(crate) fn is_network(&self) -> bool {
        self.network
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    fn snapshot(&self) -> Snapshot {
        let table = self.table();
        Snapshot {
            epoch: table.epoch,
            flags: Arc::clone(&table.flags),
            generation: table.generation,
            capacity: table.capacity,
            excess: table.excess.clone(),
            start: table.start,
        }
    }

    /// How many permits there are now.
    pub(crate) fn capacity(&self) -> Result<u32> {
        self.refresh()?;
        Ok(self.table().capacity)
    }

    /// The identity of the directory of a slot that was locked in that epoch, and its name where
    /// directories have no numbers. `None`: the path names another directory by now.
    pub(super) fn directory_identity(
        &self,
        epoch: Option<u64>,
        locked: &FileLock,
    ) -> Option<(FileId, Option<PathBuf>)> {
        let name = if sys::FILES_HAVE_NUMBERS { None } else { locked.common_name().parent() };
        let table = self.table();
        (Some(table.epoch) == epoch).then(|| (table.directory, name.map(Path::to_path_buf)))
    }

    /// Why no permit was granted, as far as is known.
    pub(super) fn obstacle(&self) -> Obstacle {
        if self.table().capacity == PAUSED { Obstacle::Paused } else { Obstacle::Held }
    }

    /// Checks whether the files are the known ones, and reads them again if they changed.
    pub(crate) fn refresh(&self) -> Result<()> {
        let mut table = self.table();
        let is_current = table.stamp.is_some()
            && table.stamp == stamp(&self.directory)
            && table.flags.are_current(&self.directory)
            && table.generation == table.flags.generation()
            && !self.network; // there, lengths and times are cached for up to a minute
        if is_current { Ok(()) } else { table.read(&self.directory, self.creation).map(drop) }
    }

    /// Whether the flag shows that there are waiters without a ticket. A dead process may have left
    /// it raised.
    pub(crate) fn is_wanted(&self, check: bool) -> bool {
        if check {
            self.tickets.refresh();
        }
        if check {
            let is_raised = self.table().flags.is_raised();
            self.wanted.store(is_raised, Ordering::Relaxed);
        }
        self.wanted.load(Ordering::Relaxed)
    }

    /// Adds free slots to `batch` until it has `count`; returns whether it has. Never blocks.
    /// Gathered slots stay in `batch`, except those beyond a capacity that has shrunk meanwhile.
    pub(crate) fn gather(&self, batch: &mut Batch, count: u32, how: Gathering) -> Result<bool> {
        // Each further try follows another process's completed change of the capacity.
        let mut retries = Retries::new();
        while retries.again() {
            let seen = self.snapshot();
            if count > seen.capacity {
                self.refresh()?;
                let capacity = self.table().capacity;
                check_requested(&self.directory, count, capacity)?;
                if capacity != PAUSED {
                    continue;
                }
                // No permit is granted now, and the capacity that follows is not known.
                batch.release_surplus(0, !how.is_leader)?;
                return Ok(false);
            }
            batch.keep_valid(&seen, !how.is_leader)?;
            let problem = self.take_free(batch, count, &seen, how);
            let (held, unknown) = self.count_excess(&seen, how)?;
            // Checked after all slots were taken and counted: counts from an old capacity must not
            // decide under a new one (S3).
            if !seen.is_current() {
                self.refresh()?;
                continue;
            }
            // While other processes hold `held` slots in excess, `count` permits may be granted
            // once this batch has `count + held` slots (S3).
            let needed = count + held;
            if batch.len() >= needed {
                batch.release_surplus(count, !how.is_leader)?;
                batch.attach_signals();
                return Ok(true);
            }
            if how.is_leader {
                batch.attach_signals(); // the leader does not wait for what it has
            }
            return problem.or(unknown).map_or(Ok(false), Err);
        }
        let source = io::Error::other("its capacity changed during each attempt");
        Err(Error::io(Operation::Acquire, &self.directory, source))
    }

    /// Takes free slots until `batch` has `count` and one more for each slot in excess. Returns the
    /// error of a slot that could not be tried.
    fn take_free(
        &self,
        batch: &mut Batch,
        count: u32,
        seen: &Snapshot,
        how: Gathering,
    ) -> Option<Error> {
        let most = count as usize + seen.excess.len();
        let (mut problem, mut refusal, mut has_tried) = (None, None, false);
        let mut siblings = Siblings::default();
        for step in 0..seen.capacity {
            if batch.len() as usize >= most {
                break;
            }
            let number = (seen.start % seen.capacity + step) % seen.capacity;
            match self.try_slot(number, how, &mut siblings) {
                Ok(taken) => {
                    has_tried = true;
                    if let Some(locked) = taken {
                        batch.add(number, locked);
                    }
                }
                // A process that may not create a slot file takes those that exist (S1).
                Err(error) if error.is_creation_refused() => {
                    refusal.get_or_insert(error);
                }
                // The error may concern only this slot, or be a lack of descriptors.
                Err(error) => problem = Some(error),
            }
        }
        problem.or(refusal.filter(|_| !has_tried))
    }

    /// Takes the slot if it is free, and marks it as this handle's. The release removes the mark,
    /// and then notifies waiters. The table is not locked during system calls.
    fn try_slot(
        &self,
        number: u32,
        how: Gathering,
        siblings: &mut Siblings,
    ) -> Result<Option<FileLock>> {
        note_progress();
        let mut table = self.table();
        let entry = table.entry(number);
        if entry.is_held {
            return Ok(None);
        }
        let known = entry.file.clone();
        drop(table);
        let slot = match known {
            Some(slot) => slot,
            None => self.slot_beside(number, siblings)?,
        };
        let taken =
            slot.try_lock_checking(Mode::Exclusive, || how.check_refused, how.check_taken)?;
        // The slot is marked when it is taken, and not while it is tried: if a mark was removed
        // without a notification, a waiter that had seen it would miss the slot.
        if taken.is_some() {
            self.table().entry(number).is_held = true;
        }
        Ok(taken)
    }

    /// Returns the slot file, and opens it if it is not open yet.
    pub(crate) fn slot(&self, number: u32) -> Result<Arc<LockFile>> {
        self.slot_beside(number, &mut Siblings::default())
    }

    fn slot_beside(&self, number: u32, siblings: &mut Siblings) -> Result<Arc<LockFile>> {
        if let Some(slot) = &self.table().entry(number).file {
            return Ok(Arc::clone(slot));
        }
        let opened = open_slot(&self.directory, number, siblings, self.creation)?;
        Ok(Arc::clone(self.table().entry(number).file.get_or_insert(opened)))
    }

    /// How many of the slots in excess are still held. A free one is not tried again, since no
    /// process takes it any more. One that cannot be tried counts as held, and its error is
    /// returned too, since no notification would end a wait for it (S3).
    fn count_excess(&self, seen: &Snapshot, how: Gathering) -> Result<(u32, Option<Error>)> {
        if seen.excess.is_empty() {
            return Ok((0, None));
        }
        let (mut free, mut unknown) = (Vec::new(), None);
        let mut siblings = Siblings::default();
        for number in &seen.excess {
            match self.try_slot(*number, Gathering::CAREFUL, &mut siblings) {
                Ok(taken) => free.extend(taken.map(|locked| (*number, locked))),
                Err(error) => unknown = Some(error),
            }
        }
        // At most MAX_PERMITS.
        let held = u32::try_from(seen.excess.len() - free.len()).unwrap_or(u32::MAX);
        let is_free: Vec<u32> = free.iter().map(|(number, _)| *number).collect();
        let (mut table, released) = self.give_back(free);
        if (table.epoch, table.generation) == (seen.epoch, seen.generation) {
            table.excess.retain(|number| !is_free.contains(number));
        }
        drop(table);
        if !how.is_leader && !is_free.is_empty() {
            self.notify_recheck(); // the leader may have found them held
        }
        released.result.map(|()| (held, unknown))
    }

    /// Makes a batch of a slot that the leader waited for in the kernel, if the semaphore has not
    /// changed (S9).
    pub(crate) fn adopt(self: &Arc<Self>, number: u32, locked: FileLock) -> Result<Option<Batch>> {
        let mut batch = self.nothing();
        let mut table = self.table();
        table.entry(number).is_held = true;
        batch.epoch = Some(table.epoch);
        batch.add(number, locked);
        if table.is_only_one() {
            drop(table);
            batch.attach_signals();
            return Ok(Some(batch));
        }
        drop(table);
        batch.give_back()?;
        self.refresh()?;
        Ok(None)
    }

    /// Whether the semaphore has only one slot. Checks whether it was resized.
    pub(crate) fn has_only_one(&self) -> Result<bool> {
        {
            let table = self.table();
            if table.generation == table.flags.generation() {
                return Ok(table.capacity == 1 && table.excess.is_empty());
            }
        }
        self.refresh()?;
        Ok(self.table().is_only_one())
    }

    pub(crate) fn nothing(self: &Arc<Self>) -> Batch {
        Batch { slots: Arc::clone(self), epoch: None, first: None, more: Vec::new() }
    }

    /// How many permits could be acquired at this moment.
    ///
    /// Each slot is tried with a shared lock, so that two callers do not count each other's locks.
    /// A waiter that tries a slot at the same time finds it held; so waiters are notified
    /// afterwards, as by a release.
    pub(crate) fn available(self: &Arc<Self>) -> Result<u32> {
        self.refresh()?;
        let (capacity, excess) = {
            let table = self.table();
            (table.capacity, table.excess.clone())
        };
        let mut siblings = Siblings::default();
        let mut is_free = |number: u32| -> Result<bool> {
            note_progress();
            let slot = match self.slot_beside(number, &mut siblings) {
                Err(error) if error.is_creation_refused() => return Ok(false),
                slot => slot?,
            };
            if self.table().entry(number).is_held {
                return Ok(false);
            }
            let asked = slot.try_lock_checking(Mode::Shared, || true, true)?;
            Ok(asked.is_some())
        };
        let count = || -> Result<u32> {
            let mut free = 0;
            for number in 0..capacity {
                free += u32::from(is_free(number)?);
            }
            for number in excess {
                free = free.saturating_sub(u32::from(!is_free(number)?));
            }
            Ok(free)
        };
        let free = count();
        self.notify_recheck();
        free
    }

    /// Unlocks these slots, and returns the locked table. The caller notifies waiters.
    pub(super) fn give_back(
        &self,
        taken: impl IntoIterator<Item = (u32, FileLock)>,
    ) -> (MutexGuard<'_, Table>, Released) {
        let mut all = Released { signals: Vec::new(), are_all_signalled: true, result: Ok(()) };
        let mut table = None;
        for (number, locked) in taken {
            drop(table.take());
            // What other programs have inherited is closed here, and released by the last of them.
            let is_inherited = locked.is_inherited();
            let (signal, released) = locked.release_before_signal();
            all.are_all_signalled &= signal.is_some();
            let signal = signal.filter(|_| !is_inherited);
            all.signals.extend(signal.map(|signal| (number, signal)));
            let table = table.insert(self.table());
            table.entry(number).is_held = false;
            table.start = number;
            all.result = all.result.and(released);
        }
        (table.unwrap_or_else(|| self.table()), all)
    }
}
