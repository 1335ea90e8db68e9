//! The possible capacities of the elastic semaphore at a moment, while workers change it, fail to
//! change it, or die during a change.

use std::collections::{BTreeSet, HashMap};

/// A worker's thread.
type ThreadId = (u32, u32);

/// A change that has not ended.
#[derive(Debug)]
struct Change {
    to: u32,
    /// The capacities of concurrent changes: any of them may be the last one.
    concurrent: BTreeSet<u32>,
}

#[derive(Debug)]
pub(crate) struct Capacity {
    /// The capacity is one of these.
    possible: BTreeSet<u32>,
    changes: HashMap<ThreadId, Change>,
}

impl Capacity {
    pub(crate) fn new(permits: u32) -> Self {
        Self { possible: BTreeSet::from([permits]), changes: HashMap::new() }
    }

    pub(crate) fn largest(&self) -> u32 {
        self.possible.last().copied().unwrap_or(0)
    }

    pub(crate) fn begin(&mut self, actor: ThreadId, to: u64) {
        let to = u32::try_from(to).unwrap_or(u32::MAX);
        let concurrent = self.changes.values().map(|change| change.to).collect();
        for change in self.changes.values_mut() {
            change.concurrent.insert(to);
        }
        self.possible.insert(to);
        self.changes.insert(actor, Change { to, concurrent });
    }

    /// The change has ended: the previous capacity is no longer possible.
    pub(crate) fn end(&mut self, actor: ThreadId) {
        if let Some(Change { to, concurrent }) = self.changes.remove(&actor) {
            self.possible = concurrent;
            self.possible.insert(to);
        }
    }

    /// The change failed, or its process died: it may have taken effect.
    pub(crate) fn abandon(&mut self, actor: ThreadId) {
        self.changes.remove(&actor);
    }
}
