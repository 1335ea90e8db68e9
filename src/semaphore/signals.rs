//! The FIFOs by which a semaphore's leader learns of released slots: each holder of a slot keeps
//! the slot's FIFO open, and the leader waits until one has no writer any more. Rule S11.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::slots::Slots;
use crate::access::Access;
use crate::file::lock_file::FileLock;
use crate::sys::{self, HeldFifo, WatchedFifo};

/// Slots from this number on have no FIFO, and a leader that needs one of them watches the
/// directory: a waiting process has two descriptors for each slot with a FIFO.
const MAX_SIGNALLED: u32 = 64;
/// By this FIFO a process that has changed the capacity, or has released a slot that has no FIFO of
/// its own, signals the leader.
const CHANGED: &str = "changed";
/// The directory of the queue.
pub(crate) const QUEUE: &str = "queue";

fn fifo(directory: &Path, slot: u32) -> PathBuf {
    directory.join(format!("fifo.{slot}"))
}

/// Opens a FIFO by `open`, and creates it before that if it is missing.
fn open_or_create<T>(
    path: &Path,
    access: Access,
    open: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<T> {
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            sys::create_fifo(path, access.bits())?;
            open(path)
        }
        opened => opened,
    }
}

/// Creates the FIFOs of these slots. Without them everything works, but more slowly.
pub(super) fn create_signals(directory: &Path, access: Access, slots: std::ops::Range<u32>) {
    if !sys::FIFOS {
        return;
    }
    let slots = slots.start..slots.end.min(MAX_SIGNALLED);
    let paths = slots.map(|slot| fifo(directory, slot)).chain([directory.join(CHANGED)]);
    // Where the first cannot be created, none can.
    let _ = paths.into_iter().try_for_each(|path| sys::create_fifo(&path, access.bits()));
}

/// Closes the FIFOs of released slots, which wakes the leader, and returns the slots.
pub(super) fn close(signals: Vec<(u32, HeldFifo)>) -> Vec<u32> {
    // Each FIFO is dropped here.
    signals.into_iter().map(|(slot, _)| slot).collect()
}

/// What a leader waits for.
pub(super) struct Watched {
    /// The slots, in the order of their FIFOs.
    slots: Vec<u32>,
    epoch: u64,
    fifos: Vec<Arc<WatchedFifo>>,
}

impl Watched {
    /// The FIFOs of the slots, and then the one that signals a change of the capacity.
    pub(super) fn fifos(&self) -> &[Arc<WatchedFifo>] {
        &self.fifos
    }

    pub(super) fn slot(&self, index: usize) -> Option<u32> {
        self.slots.get(index).copied()
    }

    /// Whether the paths still name these FIFOs.
    pub(super) fn is_in_place(&self, directory: &Path) -> bool {
        let paths = self.slots.iter().map(|slot| fifo(directory, *slot));
        let mut all = paths.chain([directory.join(CHANGED)]).zip(&self.fifos);
        all.all(|(path, fifo)| fifo.is_at(&path))
    }
}

impl Slots {
    /// Opens the FIFO of a slot that has just been locked: not before, since a process that only
    /// tried would keep the leader from learning of a release. Without it, the leader checks the
    /// slot every 50 ms.
    pub(super) fn attach_signal(&self, slot: u32, locked: &mut FileLock) {
        if !sys::FIFOS || self.is_network() || slot >= MAX_SIGNALLED || locked.has_signal() {
            return;
        }
        let path = fifo(&self.directory, slot);
        if let Ok(signal) = open_or_create(&path, self.access, HeldFifo::open) {
            locked.attach_signal(signal);
        }
    }

    /// What a leader waits for. `None`: it must wait in another way.
    pub(super) fn watch(&self) -> Option<Arc<Watched>> {
        if !sys::FIFOS || self.is_network() {
            return None;
        }
        let directory = &self.directory;
        // A leader notices within a second that one of them was replaced (`is_in_place`).
        let known = self.table().watched.clone();
        if let Some(known) = known.filter(|known| self.are_needed(known)) {
            return Some(known);
        }
        let (slots, epoch) = {
            let table = self.table();
            (table.needed().collect::<Vec<_>>(), table.epoch)
        };
        if slots.iter().any(|slot| *slot >= MAX_SIGNALLED) {
            return None;
        }
        let mut fifos = Vec::with_capacity(slots.len() + 1);
        for slot in &slots {
            let path = fifo(directory, *slot);
            fifos.push(Arc::new(open_or_create(&path, self.access, WatchedFifo::open).ok()?));
        }
        let path = directory.join(CHANGED);
        let signalled = open_or_create(&path, self.access, WatchedFifo::open_for_signals);
        fifos.push(Arc::new(signalled.ok()?));
        let watched = Arc::new(Watched { slots, epoch, fifos });
        self.table().watched = Some(Arc::clone(&watched));
        Some(watched)
    }

    /// A leader opens the FIFOs again: a path names another one by now.
    pub(super) fn forget_watched(&self) {
        self.table().watched = None;
    }

    /// Whether these are still the FIFOs that a leader needs.
    pub(super) fn are_needed(&self, watched: &Watched) -> bool {
        let table = self.table();
        watched.epoch == table.epoch
            && table.watched.is_some()
            && watched.slots.iter().copied().eq(table.needed())
    }

    /// Signals the leader where the close of a slot's FIFO has not woken it: a copy of the FIFO in
    /// a forked process remains, one of this process or of an earlier holder.
    pub(super) fn signal_copies(&self, closed: &[u32]) {
        for slot in closed {
            let _ = sys::signal_unless_closed(&fifo(&self.directory, *slot));
        }
    }

    /// Signals the leader to check all slots: the capacity was changed, or a slot was released
    /// without a FIFO.
    pub(super) fn signal_change(&self) {
        let _ = sys::signal_fifo(&self.directory.join(CHANGED));
    }

    /// The next attempt begins with that slot.
    pub(super) fn begin_with(&self, slot: u32) {
        self.table().start = slot;
    }
}
