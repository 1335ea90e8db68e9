//! The ways of waiting that each primitive has.

use std::future::Future;
use std::time::{Duration, Instant};

use flockwork::{CallError, Error};

use crate::dice::Dice;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Try,
    Timeout(Duration),
    Deadline(Instant),
    Plain,
    /// A future, awaited.
    Awaited,
    /// A future that is polled so often, with pauses, and dropped.
    Dropped(u64, Duration),
}

impl Way {
    pub(crate) fn pick(dice: &mut Dice) -> Self {
        match dice.below(12) {
            0 | 1 => Self::Try,
            2 | 3 => Self::Timeout(dice.any_scale()),
            4 => Self::Deadline(Instant::now() + dice.any_scale()),
            5 | 6 => Self::Dropped(1 + dice.below(3), dice.micros(500)),
            7 | 8 => Self::Awaited,
            _ => Self::Plain,
        }
    }

    /// The same, but for a wait that nobody may ever end.
    pub(crate) fn bounded(self) -> Self {
        match self {
            Self::Plain | Self::Awaited => Self::Timeout(Duration::from_millis(3)),
            other => other,
        }
    }
}

/// What became of a wait.
pub(crate) enum Got<G> {
    Had(G),
    GaveUp(Why),
    /// The closure did not want to.
    Meant,
    Failed(Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Refused,
    TimedOut,
    Dropped,
}

/// Why a call with a closure failed.
#[derive(Debug)]
pub(crate) struct Meant;

pub(crate) trait Trouble {
    fn sort<G>(self) -> Got<G>;
}

impl Trouble for Error {
    fn sort<G>(self) -> Got<G> {
        if self.is_would_block() {
            Got::GaveUp(Why::Refused)
        } else if self.is_timed_out() {
            Got::GaveUp(Why::TimedOut)
        } else {
            Got::Failed(self)
        }
    }
}

impl Trouble for CallError<Meant> {
    fn sort<G>(self) -> Got<G> {
        match self {
            Self::Closure(Meant) => Got::Meant,
            Self::Flockwork(error) => error.sort(),
        }
    }
}

pub(crate) fn settle<G, E: Trouble>(result: Result<G, E>) -> Got<G> {
    result.map_or_else(Trouble::sort, Got::Had)
}

/// Polls it so often, and drops it.
pub(crate) fn half<G, E: Trouble>(
    future: impl Future<Output = Result<G, E>>,
    times: u64,
    pause: Duration,
) -> Got<G> {
    use futures_lite::future::{block_on, poll_once};

    let mut future = Box::pin(future);
    for _ in 0..times {
        if let Some(result) = block_on(poll_once(&mut future)) {
            return settle(result);
        }
        std::thread::sleep(pause);
    }
    Got::GaveUp(Why::Dropped)
}

/// Calls one of the five verbs.
macro_rules! take {
    ($way:expr, $on:expr, [$plain:ident $try:ident $timeout:ident $deadline:ident $future:ident] $($argument:expr),*) => {
        match $way {
            Way::Try => settle($on.$try($($argument),*)),
            Way::Timeout(span) => settle($on.$timeout($($argument,)* span)),
            Way::Deadline(at) => settle($on.$deadline($($argument,)* at)),
            Way::Plain => settle($on.$plain($($argument),*)),
            Way::Awaited => settle(futures_lite::future::block_on($on.$future($($argument),*))),
            Way::Dropped(times, pause) => half($on.$future($($argument),*), times, pause),
        }
    };
}

/// The same of those that run a closure; for futures of a `Once` another one.
macro_rules! call {
    ($way:expr, $on:expr, [$plain:ident $try:ident $timeout:ident $deadline:ident $future:ident] $closure:expr, $later:expr) => {
        match $way {
            Way::Try => settle($on.$try($closure)),
            Way::Timeout(span) => settle($on.$timeout(span, $closure)),
            Way::Deadline(at) => settle($on.$deadline(at, $closure)),
            Way::Plain => settle($on.$plain($closure)),
            Way::Awaited => settle(futures_lite::future::block_on($on.$future($later))),
            Way::Dropped(times, pause) => half($on.$future($later), times, pause),
        }
    };
}

pub(crate) use {call, take};
