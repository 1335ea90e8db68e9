//! The five forms of each operation, plus futures that are dropped, and the outcome of a call.

use std::future::Future;
use std::time::{Duration, Instant};

use flockwork::Error;

use crate::rng::Rng;

#[derive(Debug, Clone, Copy)]
pub(crate) enum WaitMode {
    Try,
    Timeout(Duration),
    Deadline(Instant),
    Blocking,
    /// A future that is awaited.
    Awaited,
    /// A future that is polled this number of times, with a pause after each, and dropped.
    Dropped(u64, Duration),
}

impl WaitMode {
    pub(crate) fn pick(rng: &mut Rng) -> Self {
        match rng.below(12) {
            0 | 1 => Self::Try,
            2 | 3 => Self::Timeout(rng.any_scale()),
            4 => Self::Deadline(Instant::now() + rng.any_scale()),
            5 | 6 => Self::Dropped(1 + rng.below(3), rng.micros(500)),
            7 | 8 => Self::Awaited,
            _ => Self::Blocking,
        }
    }

    /// Adds a timeout, for a wait that may never end.
    pub(crate) fn bounded(self) -> Self {
        match self {
            Self::Blocking | Self::Awaited => Self::Timeout(Duration::from_millis(3)),
            other => other,
        }
    }
}

/// The outcome of a call.
pub(crate) enum Outcome<G> {
    Acquired(G),
    GaveUp(GiveUpReason),
    /// The closure deliberately returned an error.
    Aborted,
    Failed(Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GiveUpReason {
    WouldBlock,
    TimedOut,
    Dropped,
}

/// The error of a call that runs a closure.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The closure deliberately failed.
    Aborted,
    Flockwork(Error),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Flockwork(error)
    }
}

pub(crate) trait Classify {
    fn classify<G>(self) -> Outcome<G>;
}

impl Classify for Error {
    fn classify<G>(self) -> Outcome<G> {
        if self.is_would_block() {
            Outcome::GaveUp(GiveUpReason::WouldBlock)
        } else if self.is_timed_out() {
            Outcome::GaveUp(GiveUpReason::TimedOut)
        } else {
            Outcome::Failed(self)
        }
    }
}

impl Classify for CallError {
    fn classify<G>(self) -> Outcome<G> {
        match self {
            Self::Aborted => Outcome::Aborted,
            Self::Flockwork(error) => error.classify(),
        }
    }
}

pub(crate) fn outcome_of<G, E: Classify>(result: Result<G, E>) -> Outcome<G> {
    result.map_or_else(Classify::classify, Outcome::Acquired)
}

/// Polls a future `times` times, and drops it.
pub(crate) fn poll_and_drop<G, E: Classify>(
    future: impl Future<Output = Result<G, E>>,
    times: u64,
    pause: Duration,
) -> Outcome<G> {
    use futures_lite::future::{block_on, poll_once};

    let mut future = Box::pin(future);
    for _ in 0..times {
        if let Some(result) = block_on(poll_once(&mut future)) {
            return outcome_of(result);
        }
        std::thread::sleep(pause);
    }
    Outcome::GaveUp(GiveUpReason::Dropped)
}

/// Calls one of the five forms of an operation.
macro_rules! acquire {
    ($mode:expr, $on:expr, [$plain:ident $try:ident $timeout:ident $deadline:ident $future:ident] $($argument:expr),*) => {
        match $mode {
            WaitMode::Try => outcome_of($on.$try($($argument),*)),
            WaitMode::Timeout(span) => outcome_of($on.$timeout($($argument,)* span)),
            WaitMode::Deadline(at) => outcome_of($on.$deadline($($argument,)* at)),
            WaitMode::Blocking => outcome_of($on.$plain($($argument),*)),
            WaitMode::Awaited => outcome_of(futures_lite::future::block_on($on.$future($($argument),*))),
            WaitMode::Dropped(times, pause) => poll_and_drop($on.$future($($argument),*), times, pause),
        }
    };
}

/// Calls one of the five forms of an operation that takes a closure. `$later` is the closure for
/// the future.
macro_rules! call_closure {
    ($mode:expr, $on:expr, [$plain:ident $try:ident $timeout:ident $deadline:ident $future:ident] $closure:expr, $later:expr) => {
        match $mode {
            WaitMode::Try => outcome_of($on.$try($closure)),
            WaitMode::Timeout(span) => outcome_of($on.$timeout(span, $closure)),
            WaitMode::Deadline(at) => outcome_of($on.$deadline(at, $closure)),
            WaitMode::Blocking => outcome_of($on.$plain($closure)),
            WaitMode::Awaited => outcome_of(futures_lite::future::block_on($on.$future($later))),
            WaitMode::Dropped(times, pause) => poll_and_drop($on.$future($later), times, pause),
        }
    };
}

pub(crate) use {acquire, call_closure};
