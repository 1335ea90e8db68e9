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
        let taken = self.first.take().into_iter().chain(std::mem::take(&mut self.more));
        let (kept, beyond): (Vec<_>, Vec<_>) =
            taken.partition(|(number, _)| *number < seen.capacity);
        for (number, locked) in kept {
            self.add(number, locked);
        }
        self.release_these(beyond, notifies)
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
