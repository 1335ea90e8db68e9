//! What the capacity of the elastic semaphore may be at this moment, while any of the workers change it, fail at
//! that, or die in the midst of it. It uses nothing of flockwork.

use std::collections::{BTreeSet, HashMap};

/// A worker's thread.
type Actor = (u32, u32);

/// A change that has begun and not ended.
#[derive(Debug)]
struct Change {
    to: u32,
    /// The capacities of the changes that went on at the same time: the last of them counts, whichever it was.
    beside: BTreeSet<u32>,
}

#[derive(Debug)]
pub(crate) struct Capacity {
    /// One of these.
    possible: BTreeSet<u32>,
    changes: HashMap<Actor, Change>,
}

impl Capacity {
    pub(crate) fn new(permits: u32) -> Self {
        Self { possible: BTreeSet::from([permits]), changes: HashMap::new() }
    }

    pub(crate) fn largest(&self) -> u32 {
        self.possible.last().copied().unwrap_or(0)
    }

    pub(crate) fn begins(&mut self, actor: Actor, to: u64) {
        let to = u32::try_from(to).unwrap_or(u32::MAX);
        let beside = self.changes.values().map(|change| change.to).collect();
        for change in self.changes.values_mut() {
            change.beside.insert(to);
        }
        self.possible.insert(to);
        self.changes.insert(actor, Change { to, beside });
    }

    /// It has ended: the capacity before it no longer counts.
    pub(crate) fn ends(&mut self, actor: Actor) {
        if let Some(Change { to, beside }) = self.changes.remove(&actor) {
            self.possible = beside;
            self.possible.insert(to);
        }
    }

    /// It failed, or its process has died: it may have taken effect or not.
    pub(crate) fn gives_up(&mut self, actor: Actor) {
        self.changes.remove(&actor);
    }
}
