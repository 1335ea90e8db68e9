//! The callback of a wait that lasts, and a waiter that calls it.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::Waiter;
use super::deadline::now;
use crate::error::Result;

/// What to do when a wait lasts: called with the time waited, after the span and every span from then on.
#[derive(Clone)]
pub(crate) struct WaitCallback {
    pub(crate) after: Duration,
    pub(crate) call: Arc<dyn Fn(Duration) + Send + Sync>,
}

/// A waiter that says so when it waits for long.
pub(super) struct WithCallback<W> {
    waiter: W,
    /// With the time of its next call, if a clock can show it.
    notice: Option<(WaitCallback, Option<Instant>)>,
    /// When it began; a future when it was first told to wait.
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

    pub(super) fn poll(&mut self, waker: &Waker) -> Poll<Result<W::Held>> {
        let polled = self.waiter.poll(waker);
        if polled.is_pending() {
            // With the wait still on, so that a panic in the callback leaves the line by `drop`.
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
