//! One waiter as a state machine, which threads and futures share.

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::Result;

/// One waiter, thread or future, as a state machine. Dropping it gives up.
pub(crate) trait Waiter: Send + Unpin {
    type Held: Send;

    /// W1. `Pending` means that `waker` was registered before the last look, or that `next_tick` says when
    /// to come back.
    fn poll(&mut self, waker: &Waker) -> Poll<Result<Self::Held>>;
    /// When to be polled again although nobody wakes.
    fn next_tick(&self) -> Option<Instant>;
    /// W2. The time is up: ends the wait, and returns what was had before that.
    fn last_chance(&mut self) -> Result<Option<Self::Held>>;
}

/// How a wait ended that did not fail.
#[derive(Debug)]
pub(crate) enum Outcome<H> {
    Held(H),
    TimedOut(Duration),
}
