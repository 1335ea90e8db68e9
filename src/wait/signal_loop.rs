//! When one waiter checks: after a signal of a FIFO, or when a FIFO has lost its last writer. What
//! is checked is the caller's (rule S11).

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Check;
use super::deadline::now;
use crate::error::Result;
use crate::sys::{self, WatchedFifo};

/// A FIFO without a writer whose check fails belongs to a holder that has not opened it yet, or has
/// just died, or could not open it. The waiter checks again after this time, and then each time
/// after four times as long.
const FIRST_RETRY: Duration = Duration::from_micros(50);
const MAX_RETRY: Duration = Duration::from_millis(50);

/// A waiter's FIFOs, and when it checks without a signal.
pub(crate) struct SignalLoop {
    watched: Vec<Arc<WatchedFifo>>,
    /// Which of them had a writer before the last check.
    held: Vec<bool>,
    /// Those, for which the waiter sleeps.
    sources: Vec<Arc<WatchedFifo>>,
    retries: u32,
    /// When to check without a signal. `None`: at once.
    next: Option<Instant>,
    backstop: Duration,
    thorough_at: Instant,
}

impl SignalLoop {
    /// The first `poll` checks. Each FIFO was opened before that check, so that what happens after
    /// it is reported.
    pub(crate) fn new(watched: Vec<Arc<WatchedFifo>>, backstop: Option<Duration>) -> Self {
        let backstop = backstop.unwrap_or(sys::BACKSTOP);
        let held = vec![true; watched.len()];
        let thorough_at = now().checked_add(backstop).unwrap_or_else(now);
        Self { watched, held, sources: Vec::new(), retries: 0, next: None, backstop, thorough_at }
    }

    /// The FIFOs that end the sleep of a waiter whose `poll` was pending.
    pub(crate) fn sources(&self) -> &[Arc<WatchedFifo>] {
        &self.sources
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.next
    }

    /// Checks after a signal, or when it is time. The arguments of `check` are which FIFO has
    /// reported something first, and whether to check also what no FIFO reports.
    ///
    /// No wake-up is lost: a FIFO stays readable, and without a writer, until this has seen it.
    pub(crate) fn poll<T>(
        &mut self,
        check: impl FnOnce(Option<usize>, bool) -> Result<Check<T>>,
    ) -> Poll<Result<T>> {
        let first = self.take_signals();
        let now = now();
        if first.is_none() && self.next.is_some_and(|at| at > now) {
            return Poll::Pending;
        }
        if first.is_some() {
            self.retries = 0;
        }
        let thorough = self.thorough_at <= now;
        if thorough {
            self.thorough_at = now.checked_add(self.backstop).unwrap_or(now);
        }
        match check(first, thorough) {
            Ok(Check::Ready(value)) => Poll::Ready(Ok(value)),
            Err(error) => Poll::Ready(Err(error)),
            Ok(Check::NotYet { .. }) => {
                self.plan();
                Poll::Pending
            }
        }
    }

    /// The first FIFO that has reported something since the last check.
    fn take_signals(&mut self) -> Option<usize> {
        let Ok(states) = sys::wait_for_fifos(&self.watched, None, Some(Duration::ZERO)) else {
            // Nothing is known, so the waiter checks now.
            self.held.fill(true);
            self.next = None;
            return None;
        };
        let mut first = None;
        for (index, (state, is_held)) in states.into_iter().zip(&mut self.held).enumerate() {
            if state.has_signal {
                self.watched[index].take_signals();
            }
            if state.has_signal || state.has_no_writer && *is_held {
                first = first.or(Some(index));
            }
            *is_held = !state.has_no_writer;
        }
        first
    }

    /// After a failed check. A FIFO that has lost its writer since the signals were taken ends the
    /// sleep immediately.
    fn plan(&mut self) {
        let held = self.held.iter().filter(|is_held| **is_held).count();
        if held != self.watched.len() || self.sources.len() != held {
            let watched = self.watched.iter().zip(&self.held);
            let sources = watched.filter(|(_, is_held)| **is_held);
            self.sources = sources.map(|(fifo, _)| Arc::clone(fifo)).collect();
        }
        let now = now();
        self.next = if held == self.watched.len() {
            self.retries = 0;
            Some(self.thorough_at)
        } else {
            let pause = FIRST_RETRY * 4_u32.pow(self.retries.min(6));
            self.retries = self.retries.saturating_add(1);
            now.checked_add(pause.min(MAX_RETRY)).map(|at| at.min(self.thorough_at))
        };
    }
}
