//! One waiter as a state machine, which threads and futures share.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::sys::WatchedFifo;
use crate::trace::PollReason;

/// A waiter, for a thread or a future. Dropping it gives up.
pub(crate) trait Waiter: Send + Unpin {
    type Held: Send;

    /// `Pending` means that `waker` was registered before the last check, or that `next_tick`
    /// returns when to poll again (W1).
    fn poll(&mut self, waker: &Waker) -> Poll<Result<Self::Held>>;
    /// When to poll again without a notification.
    fn next_tick(&self) -> Option<Instant>;
    /// FIFOs of which a report means that `poll` should be called, instead of the waker.
    fn sources(&self) -> &[Arc<WatchedFifo>] {
        &[]
    }
    /// Why the wait polls instead of being notified, if it does.
    fn polls_because(&self) -> Option<PollReason>;
    /// Ends the wait at its deadline, and returns what was acquired before that (W2).
    fn last_chance(&mut self) -> Result<Option<Self::Held>>;
}

/// How a wait ended, unless it failed.
#[derive(Debug)]
pub(crate) enum Outcome<H> {
    Held(H),
    TimedOut(Duration),
}
