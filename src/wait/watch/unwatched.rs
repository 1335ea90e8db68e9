//! Stands in for the watched directories if the feature `watch` is off: each has failed to be
//! watched.

use std::path::Path;
use std::task::Waker;

use super::WatchTarget;

pub(crate) fn is_watchable(_directory: &Path) -> bool {
    false
}

/// A directory that reports no events, so its waiter polls.
pub(in crate::wait) struct DirListener;

#[allow(clippy::unused_self, reason = "these are the methods of the watched directory")]
impl DirListener {
    pub(in crate::wait) fn new(_target: WatchTarget) -> Self {
        Self
    }

    pub(in crate::wait) fn register(&self, _waker: &Waker) {}

    pub(in crate::wait) fn take_events(&mut self) -> (bool, bool) {
        (false, false)
    }

    pub(in crate::wait) fn is_up(&self) -> bool {
        false
    }

    pub(in crate::wait) fn has_failed(&self) -> bool {
        true
    }

    pub(in crate::wait) fn retry_watch(&self) {}

    pub(in crate::wait) fn update(&mut self, _thorough: bool, _waker: &Waker) {}
}
