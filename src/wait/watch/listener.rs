//! The directory that is watched for one waiter: the one that it names, or while that is missing,
//! the nearest existing directory above it.

use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use super::WatchTarget;
use super::registry::{Subscription, Watched};
use crate::sys;

/// The events of one directory, for one waiter.
pub(in crate::wait) struct DirListener {
    target: WatchTarget,
    current: Option<Current>,
}

/// The subscription at this moment.
struct Current {
    /// The directory, or one above it.
    directory: Arc<Path>,
    subscription: Subscription,
    /// How many events there were before the last check, and how many of them were the closing of a
    /// file.
    seen: (u64, u64),
}

impl DirListener {
    pub(in crate::wait) fn new(target: WatchTarget) -> Self {
        Self { target, current: None }
    }

    pub(in crate::wait) fn register(&self, waker: &Waker) {
        if let Some(current) = &self.current {
            current.subscription.register(waker);
        }
    }

    /// Whether there were events since the last call, and whether a file was closed.
    pub(in crate::wait) fn take_events(&mut self) -> (bool, bool) {
        let Some(current) = &mut self.current else { return (false, false) };
        // Read the events first: a close that is counted in between is then reported with the next
        // event.
        let events = current.subscription.events();
        let closes = current.subscription.closes();
        let before = std::mem::replace(&mut current.seen, (events, closes));
        (events != before.0, closes != before.1)
    }

    /// Whether the directory is watched.
    pub(in crate::wait) fn is_up(&self) -> bool {
        let watched = self.current.as_ref().map(|current| current.subscription.watched());
        matches!(watched, Some(Watched::Yes(_)))
    }

    /// Whether the directory exists and cannot be watched.
    pub(in crate::wait) fn has_failed(&self) -> bool {
        let watched = self.current.as_ref().map(|current| current.subscription.watched());
        matches!(watched, Some(Watched::No))
    }

    /// Requests a failed watch again.
    pub(in crate::wait) fn retry_watch(&self) {
        if let Some(Current { subscription, .. }) = &self.current {
            if matches!(subscription.watched(), Watched::No | Watched::Missing) {
                subscription.request_watch();
            }
        }
    }

    /// Subscribes to the right directory, after a failed check. A new subscription notifies the
    /// waiter when it is active, and the check that follows sees everything that happened until
    /// then. `thorough`: detects also a replaced directory that no event reports (rule E6).
    pub(in crate::wait) fn update(&mut self, thorough: bool, waker: &Waker) {
        let wanted = &self.target.directory;
        let Some(current) = &self.current else { return self.subscribe(waker) };
        let nearest = || sys::nearest_directory(wanted);
        match current.subscription.watched() {
            Watched::Missing => match nearest() {
                // It exists again.
                Some(nearest) if nearest == &*current.directory => {
                    current.subscription.request_watch();
                }
                Some(_) => self.subscribe(waker),
                None => {}
            },
            // The next directory on the way to it may now exist.
            Watched::Yes(_) | Watched::No
                if current.directory != *wanted && nearest() != Some(&current.directory) =>
            {
                self.subscribe(waker);
            }
            Watched::Requested | Watched::No => {}
            Watched::Yes(id) => {
                if thorough && sys::directory_identity(&current.directory).ok() != Some(id) {
                    current.subscription.request_watch();
                }
            }
        }
    }

    fn subscribe(&mut self, waker: &Waker) {
        let wanted = &self.target.directory;
        let nearest = sys::nearest_directory(wanted).unwrap_or(wanted);
        let target = if nearest == &**wanted {
            self.target.clone()
        } else {
            // The next event of interest is that of the next directory on the way.
            let next = wanted.strip_prefix(nearest).ok().and_then(|rest| rest.components().next());
            let names = next.map(|next| [next.as_os_str().to_os_string()].into());
            WatchTarget { directory: nearest.into(), names }
        };
        let directory = Arc::clone(&target.directory);
        let subscription = Subscription::new(target);
        subscription.register(waker);
        self.current = Some(Current { directory, subscription, seen: (0, 0) });
    }
}
