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

/// A waiter of any kind, so that the loops which poll it are compiled once. It keeps what it
/// acquires.
pub(super) trait AnyWaiter: Send {
    fn poll(&mut self, waker: &Waker) -> Poll<Result<()>>;
    fn next_tick(&self) -> Option<Instant>;
    fn sources(&self) -> &[Arc<WatchedFifo>];
    fn polls_because(&self) -> Option<PollReason>;
    /// Whether something was acquired.
    fn last_chance(&mut self) -> Result<bool>;
}

/// A waiter, and what it has acquired.
pub(super) struct Keeper<W: Waiter> {
    waiter: W,
    pub(super) held: Option<W::Held>,
}

impl<W: Waiter> Keeper<W> {
    pub(super) fn new(waiter: W) -> Self {
        Self { waiter, held: None }
    }
}

impl<W: Waiter> Unpin for Keeper<W> {}

impl<W: Waiter> AnyWaiter for Keeper<W> {
    fn poll(&mut self, waker: &Waker) -> Poll<Result<()>> {
        self.waiter.poll(waker).map_ok(|held| self.held = Some(held))
    }

    fn next_tick(&self) -> Option<Instant> {
        self.waiter.next_tick()
    }

    fn sources(&self) -> &[Arc<WatchedFifo>] {
        self.waiter.sources()
    }

    fn polls_because(&self) -> Option<PollReason> {
        self.waiter.polls_because()
    }

    fn last_chance(&mut self) -> Result<bool> {
        self.held = self.waiter.last_chance()?;
        Ok(self.held.is_some())
    }
}

/// How a wait ended, unless it failed.
#[derive(Debug)]
pub(crate) enum Outcome<H> {
    Held(H),
    TimedOut(Duration),
}
