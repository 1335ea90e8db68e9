//! Where one waiter listens: at a directory, and while that is missing at the nearest above it that
//! exists. Knows how a watch is lost and found again, and not what is waited for.

use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use super::registry::{Subscription, WatchTarget, Watched};
use crate::sys;

/// One place that a waiter wants to hear of.
pub(in crate::wait) struct DirListener {
    wanted: WatchTarget,
    heard: Option<Listening>,
}

struct Listening {
    /// The directory, or one above it.
    at: Arc<Path>,
    subscription: Subscription,
    /// How often it had rung before the last look, and how many of those were the closing of a file.
    seen: (u64, u64),
}

impl DirListener {
    pub(in crate::wait) fn new(wanted: WatchTarget) -> Self {
        Self { wanted, heard: None }
    }

    pub(in crate::wait) fn register(&self, waker: &Waker) {
        if let Some(heard) = &self.heard {
            heard.subscription.register(waker);
        }
    }

    /// Whether anything was heard since this was last asked, and whether the closing of a file was.
    pub(in crate::wait) fn news(&mut self) -> (bool, bool) {
        let Some(heard) = &mut self.heard else { return (false, false) };
        // All of them first: a close that is counted in between is news with the next ring.
        let events = heard.subscription.events();
        let closes = heard.subscription.closes();
        let before = std::mem::replace(&mut heard.seen, (events, closes));
        (events != before.0, closes != before.1)
    }

    /// Whether whatever happens there is heard.
    pub(in crate::wait) fn is_up(&self) -> bool {
        let watched = self.heard.as_ref().map(|heard| heard.subscription.watched());
        matches!(watched, Some(Watched::Yes(_)))
    }

    /// Asks again for a watch that could not be had.
    pub(in crate::wait) fn ask_again(&self) {
        if let Some(Listening { subscription, .. }) = &self.heard {
            if matches!(subscription.watched(), Watched::No | Watched::Missing) {
                subscription.ask_again();
            }
        }
    }

    /// Rule E6. After a look that was in vain: sees to it that the right directory is listened to. Where it has
    /// to change something, the bell rings when that is done, and the look that follows sees what happened until
    /// then. `thorough`: also where no event tells that the directory was replaced.
    pub(in crate::wait) fn settle(&mut self, thorough: bool, waker: &Waker) {
        let wanted = &self.wanted.directory;
        let Some(heard) = &self.heard else { return self.listen(waker) };
        let nearest = || sys::nearest_directory(wanted);
        match heard.subscription.watched() {
            Watched::Missing => match nearest() {
                Some(nearest) if nearest == &*heard.at => heard.subscription.ask_again(), // it is there again
                Some(_) => self.listen(waker),
                None => {}
            },
            // The next one on the way to it may be there.
            Watched::Yes(_) | Watched::No
                if heard.at != *wanted && nearest() != Some(&heard.at) =>
            {
                self.listen(waker);
            }
            Watched::Asked | Watched::No => {}
            Watched::Yes(id) => {
                if thorough && sys::directory_identity(&heard.at).ok() != Some(id) {
                    heard.subscription.ask_again();
                }
            }
        }
    }

    fn listen(&mut self, waker: &Waker) {
        let wanted = &self.wanted.directory;
        let nearest = sys::nearest_directory(wanted).unwrap_or(wanted);
        let place = if nearest == &**wanted {
            self.wanted.clone()
        } else {
            // What comes next is the directory on the way.
            let next = wanted.strip_prefix(nearest).ok().and_then(|rest| rest.components().next());
            let names = next.map(|next| [next.as_os_str().to_os_string()].into());
            WatchTarget { directory: nearest.into(), names }
        };
        let at = Arc::clone(&place.directory);
        let subscription = Subscription::new(place);
        subscription.register(waker);
        self.heard = Some(Listening { at, subscription, seen: (0, 0) });
    }
}
