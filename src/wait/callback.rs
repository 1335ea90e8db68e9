//! The callback of a long wait, and a waiter that calls it.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::Waiter;
use super::deadline::now;
use crate::error::Result;
use crate::sys::WatchedFifo;

/// Called with the time waited, after `after` and again after each further `after`.
#[derive(Clone)]
pub(crate) struct WaitCallback {
    pub(crate) after: Duration,
    pub(crate) call: Arc<dyn Fn(Duration) + Send + Sync>,
}

/// A waiter that calls a callback while it waits.
pub(super) struct WithCallback<W> {
    waiter: W,
    /// The callback and the time of its next call, if `Instant` can represent that.
    notice: Option<(WaitCallback, Option<Instant>)>,
    /// When the wait began; for a future, when it was first polled.
    since: Option<Instant>,
}

impl<W: Waiter> WithCallback<W> {
    pub(super) fn new(waiter: W, notice: Option<WaitCallback>) -> Self {
        Self { waiter, notice: notice.map(|notice| (notice, None)), since: None }
    }

    pub(super) fn begin(&mut self, start: Instant) {
        self.since = Some(start);
        if let Some((notice, next)) = &mut self.notice {
            *next = start.checked_add(notice.after);
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now().saturating_duration_since(since))
    }

    pub(super) fn next_tick(&self) -> Option<Instant> {
        let notice = self.notice.as_ref().and_then(|(_, next)| *next);
        [notice, self.waiter.next_tick()].into_iter().flatten().min()
    }

    pub(super) fn sources(&self) -> &[Arc<WatchedFifo>] {
        self.waiter.sources()
    }

    pub(super) fn poll(&mut self, waker: &Waker) -> Poll<Result<W::Held>> {
        let polled = self.waiter.poll(waker);
        if polled.is_pending() {
            // Called while the waiter is still queued: if the callback panics, `drop` leaves the
            // queue.
            self.notify();
        }
        polled
    }

    pub(super) fn last_chance(&mut self) -> Result<Option<W::Held>> {
        self.waiter.last_chance()
    }

    fn notify(&mut self) {
        let Some(since) = self.since else { return self.begin(now()) };
        if let Some((notice, next)) = &mut self.notice {
            let now = now();
            if next.is_some_and(|at| at <= now) {
                *next = now.checked_add(notice.after);
                (notice.call)(now.saturating_duration_since(since));
            }
        }
    }
}
