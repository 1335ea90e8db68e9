//! The callback of a long wait, the tokens that may end it, and the span of `tracing` that it is;
//! and a wait with all three.

use std::path::Path;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::AnyWaiter;
use super::deadline::now;
use crate::cancel::{CancelRegistration, Cancels};
use crate::error::{Error, Result};
use crate::trace::{self, WaitSpan};

/// The callback and the tokens of a handle's waits, and the path that errors and `tracing` name.
#[derive(Clone)]
pub(crate) struct WaitHooks {
    /// The path that is waited for.
    pub(crate) path: Arc<Path>,
    pub(crate) callback: Option<WaitCallback>,
    pub(crate) cancels: Cancels,
}

impl WaitHooks {
    /// `None`: nothing happens during the wait.
    pub(crate) fn new(
        path: Arc<Path>,
        callback: Option<WaitCallback>,
        cancels: Cancels,
    ) -> Option<Self> {
        let is_needed = callback.is_some() || !cancels.is_empty() || trace::ENABLED;
        is_needed.then_some(Self { path, callback, cancels })
    }
}

/// Called after `after`, and again after each further `every`.
#[derive(Clone)]
pub(crate) struct WaitCallback {
    pub(crate) after: Duration,
    pub(crate) every: Duration,
    /// The arguments are the time waited, and whether it is the wait's first call.
    pub(crate) call: Arc<dyn Fn(Duration, bool) + Send + Sync>,
}

/// Fails if a token of these waits was cancelled before the wait.
pub(crate) fn check_cancelled(hooks: Option<&WaitHooks>) -> Result<()> {
    match hooks {
        Some(hooks) if hooks.cancels.is_cancelled() => {
            Err(Error::cancelled(&hooks.path, Duration::ZERO))
        }
        _ => Ok(()),
    }
}

/// Whether the wait must return to the calling thread while it lasts, to call a callback or to end.
pub(super) fn must_return(hooks: Option<&WaitHooks>) -> bool {
    hooks.is_some_and(|hooks| hooks.callback.is_some() || !hooks.cancels.is_empty())
}

/// Blocks in the calling thread, as a wait that `tracing` reports.
pub(super) fn in_span<T>(
    hooks: Option<&WaitHooks>,
    block: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let mut span = WaitSpan::default();
    if let Some(hooks) = hooks {
        span.begin(&hooks.path);
    }
    let result = span.in_scope(block);
    span.end(if result.is_ok() { SUCCEEDED } else { FAILED });
    result
}

const SUCCEEDED: &str = "succeeded";
const FAILED: &str = "failed";
const TIMED_OUT: &str = "timed out";
const CANCELLED: &str = "cancelled";

/// A wait that calls a callback while it lasts, that tokens may end, and that is a span.
pub(super) struct HookedWait {
    path: Option<Arc<Path>>,
    callback: Option<WaitCallback>,
    /// The time of the callback's next call, if `Instant` can represent that.
    next_call: Option<Instant>,
    was_called: bool,
    cancel: CancelRegistration,
    /// When the wait began; for a future, when it was first polled.
    since: Option<Instant>,
    span: WaitSpan,
}

impl HookedWait {
    pub(super) fn new(hooks: Option<WaitHooks>) -> Self {
        let (path, callback, cancels) = match hooks {
            Some(hooks) => (Some(hooks.path), hooks.callback, hooks.cancels),
            None => (None, None, Cancels::default()),
        };
        let cancel = CancelRegistration::new(cancels);
        let (next_call, since, span) = (None, None, WaitSpan::default());
        Self { path, callback, next_call, was_called: false, cancel, since, span }
    }

    pub(super) fn begin(&mut self, start: Instant) {
        self.since = Some(start);
        if let Some(callback) = &self.callback {
            self.next_call = start.checked_add(callback.after);
        }
        if let Some(path) = &self.path {
            self.span.begin(path);
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now().saturating_duration_since(since))
    }

    pub(super) fn next_tick(&self, waiter: &dyn AnyWaiter) -> Option<Instant> {
        [self.next_call, waiter.next_tick()].into_iter().flatten().min()
    }

    pub(super) fn can_be_cancelled(&self) -> bool {
        self.cancel.is_needed()
    }

    /// Whether the wait was cancelled. If not, the waker is called when it is.
    pub(super) fn is_cancelled(&mut self, waker: &Waker) -> bool {
        self.cancel.is_cancelled(waker)
    }

    pub(super) fn poll(&mut self, waiter: &mut dyn AnyWaiter, waker: &Waker) -> Poll<Result<()>> {
        if self.is_cancelled(waker) {
            if let Some(path) = &self.path {
                self.span.end(CANCELLED);
                return Poll::Ready(Err(Error::cancelled(path, self.elapsed())));
            }
        }
        let polled = self.span.in_scope(|| waiter.poll(waker));
        match &polled {
            Poll::Pending => {
                // Called while the waiter is still queued: if the callback panics, `drop` leaves
                // the queue.
                self.call();
                self.span.polls(waiter.polls_because());
            }
            Poll::Ready(Ok(())) => self.span.end(SUCCEEDED),
            Poll::Ready(Err(_)) => self.span.end(FAILED),
        }
        polled
    }

    pub(super) fn last_chance(&mut self, waiter: &mut dyn AnyWaiter) -> Result<bool> {
        let result = self.span.in_scope(|| waiter.last_chance());
        self.span.end(match &result {
            Ok(true) => SUCCEEDED,
            Ok(false) => TIMED_OUT,
            Err(_) => FAILED,
        });
        result
    }

    fn call(&mut self) {
        if self.since.is_none() {
            self.begin(now());
        }
        let (Some(since), Some(callback)) = (self.since, &self.callback) else { return };
        let now = now();
        if self.next_call.is_some_and(|at| at <= now) {
            self.next_call = now.checked_add(callback.every);
            let is_first = !std::mem::replace(&mut self.was_called, true);
            let elapsed = now.saturating_duration_since(since);
            self.span.in_scope(|| (callback.call)(elapsed, is_first));
        }
    }
}
