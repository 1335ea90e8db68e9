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
/// One poll checks at most this often if signals arrive meanwhile.
const MAX_CHECKS_PER_POLL: u32 = 3;

/// A waiter's FIFOs, and when it checks without a signal.
pub(crate) struct SignalLoop {
    watched: Vec<Arc<WatchedFifo>>,
    /// Which of them had a writer after the last check.
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

    /// What ends the sleep of a waiter whose `poll` was pending.
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
        mut check: impl FnMut(Option<usize>, bool) -> Result<Check<T>>,
    ) -> Poll<Result<T>> {
        for _ in 0..MAX_CHECKS_PER_POLL {
            let (first, has_signal) = self.take_signals();
            let now = now();
            if first.is_none() && self.next.is_some_and(|at| at > now) {
                return Poll::Pending;
            }
            if has_signal {
                self.retries = 0;
            }
            let thorough = self.thorough_at <= now;
            if thorough {
                self.thorough_at = now.checked_add(self.backstop).unwrap_or(now);
            }
            match check(first, thorough) {
                Ok(Check::Ready(value)) => return Poll::Ready(Ok(value)),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Check::NotYet { .. }) => self.plan(),
            }
        }
        // Signals keep arriving, or it is time again already. The caller checks its deadline, and
        // other tasks must run.
        self.next = Some(now());
        Poll::Pending
    }

    /// Which FIFO has reported something first since the last check, and whether that is new.
    fn take_signals(&mut self) -> (Option<usize>, bool) {
        let Ok(states) = sys::wait_for_fifos(&self.watched, None, Some(Duration::ZERO)) else {
            return (None, false);
        };
        let (mut first, mut is_new) = (None, false);
        for (index, (state, was_held)) in states.into_iter().zip(&mut self.held).enumerate() {
            if state.has_signal {
                self.watched[index].take_signals();
            }
            if state.has_signal || state.has_no_writer && *was_held {
                first = first.or(Some(index));
                is_new = true;
                *was_held = false;
            }
        }
        (first, is_new)
    }

    /// After a failed check.
    fn plan(&mut self) {
        self.sources.clear();
        let Ok(states) = sys::wait_for_fifos(&self.watched, None, Some(Duration::ZERO)) else {
            self.next = now().checked_add(MAX_RETRY);
            return;
        };
        let mut are_held = true;
        for (index, state) in states.into_iter().enumerate() {
            self.held[index] = !state.has_no_writer;
            are_held &= self.held[index];
            if self.held[index] {
                self.sources.push(Arc::clone(&self.watched[index]));
            }
        }
        let now = now();
        self.next = if are_held {
            self.retries = 0;
            Some(self.thorough_at)
        } else {
            let pause = FIRST_RETRY * 4_u32.pow(self.retries.min(6));
            self.retries = self.retries.saturating_add(1);
            now.checked_add(pause.min(MAX_RETRY)).map(|at| at.min(self.thorough_at))
        };
    }
}
