//! Records whether everything that was to be synced has been synced.

use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct Durability {
    /// Whether syncing was requested.
    pub(crate) is_wanted: bool,
    was_missed: AtomicBool,
}

impl Durability {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, was_missed: AtomicBool::new(false) }
    }

    /// Records the outcome of one step. `false`: the system does not support it.
    pub(crate) fn note(&self, is_synced: bool) {
        if self.is_wanted && !is_synced {
            self.was_missed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether syncing was requested and no step was missed.
    pub(crate) fn is_durable(&self) -> bool {
        self.is_wanted && !self.was_missed.load(Ordering::Relaxed)
    }
}
