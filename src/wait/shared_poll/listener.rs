//! The polled directory of one waiter.

use std::task::Waker;

use super::PolledTarget;
use super::registry::Subscription;

/// The reasons to check that a thread finds for one waiter.
pub(in crate::wait) struct PollListener {
    target: PolledTarget,
    subscription: Option<Subscription>,
    /// How many reasons there were before the last check.
    seen: u64,
}

impl PollListener {
    pub(in crate::wait) fn new(target: PolledTarget) -> Self {
        Self { target, subscription: None, seen: 0 }
    }

    pub(in crate::wait) fn register(&self, waker: &Waker) {
        if let Some(subscription) = &self.subscription {
            subscription.register(waker);
        }
    }

    /// Whether there is a reason to check since the last call.
    pub(in crate::wait) fn take_hints(&mut self) -> bool {
        let hints = self.subscription.as_ref().map_or(0, Subscription::hints);
        std::mem::replace(&mut self.seen, hints) != hints
    }

    pub(in crate::wait) fn is_polled(&self) -> bool {
        self.subscription.as_ref().is_some_and(Subscription::is_polled)
    }

    /// Whether it is not known yet if a thread polls for the waiter.
    pub(in crate::wait) fn is_pending(&self) -> bool {
        self.subscription.as_ref().is_some_and(|it| !it.is_polled() && !it.is_refused())
    }

    /// Subscribes, after a failed check.
    pub(in crate::wait) fn subscribe(&mut self, waker: &Waker) {
        if self.subscription.is_none() {
            let subscription = Subscription::new(&self.target);
            subscription.register(waker);
            self.subscription = Some(subscription);
        }
    }

    /// Asks again for a thread if there is none.
    pub(in crate::wait) fn retry(&self) {
        if let Some(subscription) = self.subscription.as_ref().filter(|it| it.is_refused()) {
            subscription.request();
        }
    }
}
