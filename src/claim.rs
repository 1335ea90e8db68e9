//! One lockable file in one mode, as the engine waits for it: what locks, gates and single slots share.
//! Joins `options`, `slot` and `wait`; names `error` and `sys` (the mode) besides.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::options::{Options, Waiting};
use crate::slot::{Locked, Slot};
use crate::sys::{FileId, Mode};
use crate::wait::{Lines, Notice, Target};

/// The lines of this process for all of them: who waits for the same file in the same mode shares a helper.
pub(crate) static LINES: Lines<Claim> = Lines::new();

/// The callback of a wait for `path`, as the engine calls it.
pub(crate) fn notice(options: &Options, path: &Arc<Path>) -> Option<Notice> {
    options.notice.clone().map(|(after, callback)| {
        let path = Arc::clone(path);
        let call = move |elapsed| callback(&Waiting::new(&path, elapsed));
        Notice { after, call: Arc::new(call) }
    })
}

/// A lock on a file in one mode, as the engine sees it.
pub(crate) struct Claim {
    pub(crate) slot: Arc<Slot>,
    pub(crate) mode: Mode,
    pub(crate) poll_every: Option<Duration>,
    /// For the gate of a queue: whether others wait there.
    pub(crate) others: Option<Others>,
}

/// Tells whether others wait.
pub(crate) struct Others(pub(crate) Box<dyn Fn() -> bool + Send + Sync>);

impl Target for Claim {
    type Key = (Arc<Path>, FileId, Mode);
    type Held = Locked;

    fn key(&self) -> Self::Key {
        (Arc::clone(self.slot.path()), self.slot.latest(), self.mode)
    }

    fn is_current(&self, (_, id, _): &Self::Key) -> Result<bool> {
        self.slot.still_names(*id)
    }

    fn attempt(&self) -> Result<Option<Locked>> {
        self.slot.try_take(self.mode)
    }

    fn block_here(&self) -> Result<Locked> {
        self.slot.take(self.mode)
    }

    fn block(&self, (_, id, _): &Self::Key) -> Result<Option<Locked>> {
        self.slot.take_file_of(*id, self.mode)
    }

    fn is_valid(&self, locked: &Locked) -> Result<bool> {
        self.slot.is_valid(locked)
    }

    fn should_yield(&self) -> bool {
        self.others.as_ref().is_some_and(|others| (others.0)())
    }

    fn is_free(&self) -> Result<bool> {
        self.slot.is_free(self.mode)
    }

    fn must_poll(&self) -> bool {
        self.slot.is_network()
    }

    fn poll_every(&self) -> Option<Duration> {
        self.poll_every
    }
}
