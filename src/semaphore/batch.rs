//! A batch: slots that are held together.

use std::path::Path;
use std::sync::Arc;

use super::Slots;
use super::table::Snapshot;
use crate::error::Result;
use crate::file::lock_file::FileLock;

/// Slots that are held together. Dropping it releases them.
pub(crate) struct Batch {
    pub(super) slots: Arc<Slots>,
    /// The directory of the slots; `None` before there are any.
    pub(super) epoch: Option<u64>,
    /// Most batches have one slot, and need no allocation.
    pub(super) first: Option<(u32, FileLock)>,
    pub(super) more: Vec<(u32, FileLock)>,
}

impl Batch {
    pub(crate) fn taken(&self) -> impl Iterator<Item = &(u32, FileLock)> {
        self.first.iter().chain(&self.more)
    }

    pub(crate) fn directory(&self) -> &Arc<Path> {
        self.slots.directory()
    }

    pub(super) fn len(&self) -> u32 {
        // At most MAX_PERMITS.
        u32::from(self.first.is_some()) + u32::try_from(self.more.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn add(&mut self, number: u32, locked: FileLock) {
        if self.first.is_none() {
            self.first = Some((number, locked));
        } else {
            self.more.push((number, locked));
        }
    }

    /// Opens the FIFOs whose closing will be a signal to the leader of the queue.
    pub(super) fn attach_signals(&mut self) {
        for (slot, locked) in self.first.iter_mut().chain(&mut self.more) {
            self.slots.attach_signal(*slot, locked);
        }
    }

    /// From now on the programs that this process starts hold them as well (rule 4).
    pub(crate) fn make_inheritable(&mut self) -> Result<()> {
        let mut taken = self.first.iter_mut().chain(&mut self.more);
        taken.try_for_each(|(_, locked)| locked.make_inheritable())
    }

    /// Releases all but the first `kept`, and notifies waiters if `notifies`.
    pub(super) fn release_surplus(&mut self, kept: u32, notifies: bool) -> Result<()> {
        let surplus = self.more.split_off((kept.max(1) as usize - 1).min(self.more.len()));
        let first = if kept == 0 { self.first.take() } else { None };
        self.release_these(first.into_iter().chain(surplus), notifies)
    }

    /// Releases the slots that no longer count: those beyond the capacity, or all if the path names
    /// another directory.
    pub(super) fn keep_valid(&mut self, seen: &Snapshot, notifies: bool) -> Result<()> {
        if self.epoch.replace(seen.epoch).is_some_and(|epoch| epoch != seen.epoch) {
            return self.release_surplus(0, notifies);
        }
        if self.taken().all(|(number, _)| *number < seen.capacity) {
            return Ok(());
        }
        self.split(|number| number >= seen.capacity).release_surplus(0, notifies)
    }

    /// Whether this process acquired the slots, and did not inherit them by a fork (rule 4).
    pub(super) fn is_here(&self) -> bool {
        self.taken().all(|(_, locked)| locked.is_here())
    }

    /// Moves the slots for which `is_beyond` returns `true` to a batch of their own.
    pub(super) fn split(&mut self, is_beyond: impl Fn(u32) -> bool) -> Self {
        let mut moved = self.slots.nothing();
        moved.epoch = self.epoch;
        let taken = self.first.take().into_iter().chain(std::mem::take(&mut self.more));
        for (number, locked) in taken {
            let batch = if is_beyond(number) { &mut moved } else { &mut *self };
            batch.add(number, locked);
        }
        moved
    }

    /// Whether the slots of both are in one directory.
    pub(super) fn has_directory_of(&self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.slots, &other.slots) {
            return self.epoch == other.epoch;
        }
        let directory = |batch: &Self| {
            let (_, locked) = batch.taken().next()?;
            batch.slots.directory_identity(batch.epoch, locked)
        };
        directory(self).is_some_and(|own| Some(own) == directory(other))
    }

    /// Moves all slots of `other`, which are in the same directory, to this batch.
    pub(super) fn merge(&mut self, mut other: Self) {
        let moved = other.first.take().into_iter().chain(std::mem::take(&mut other.more));
        for (number, locked) in moved {
            // The handle that releases a slot has it marked as held. No waiter misses the slot when
            // the other handle's mark is removed: it stays locked, and its release notifies.
            if !Arc::ptr_eq(&self.slots, &other.slots) {
                self.slots.table().entry(number).is_held = true;
                other.slots.table().entry(number).is_held = false;
            }
            self.add(number, locked);
        }
    }

    fn release_these(
        &self,
        taken: impl IntoIterator<Item = (u32, FileLock)>,
        notifies: bool,
    ) -> Result<()> {
        // A forked copy releases nothing (rule 4).
        let mut taken = taken.into_iter().filter(|taken| taken.1.is_here()).peekable();
        if taken.peek().is_none() {
            return Ok(());
        }
        let (table, released) = self.slots.give_back(taken);
        if notifies {
            self.slots.notify_release(table, released.signals, released.are_all_signalled);
        }
        released.result
    }

    pub(crate) fn give_back(&mut self) -> Result<()> {
        self.release_surplus(0, true)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let _ = self.give_back();
    }
}
