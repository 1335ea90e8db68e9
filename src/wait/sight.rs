//! Waiting for what can be seen by looking, and is nobody's: looks, subscribes, looks again, and then when it has
//! heard something (rules E1 and E6). The deadline and the callback are the engine's.

use std::task::{Poll, Waker};
use std::time::Instant;

use super::watching::{Means, Seen, Watching};
use super::{Deadline, Notice, Outcome, Waiter, wait_here};
use crate::error::Result;

/// What can be waited for by looking.
pub(crate) trait Sight: Send + Unpin {
    type Held: Send;

    /// Never blocks.
    fn look(&self) -> Result<Seen<Self::Held>>;
    /// Asked for when a look was in vain.
    fn means(&self) -> Means;
}

/// Waits for it in the calling thread, until the deadline. That is asked for when the first look was in vain.
pub(crate) fn see<S: Sight>(
    sight: S,
    deadline: impl FnOnce() -> Deadline,
    notice: Option<&Notice>,
) -> Result<Outcome<S::Held>> {
    if let Some(held) = sight.look()?.had() {
        return Ok(Outcome::Held(held));
    }
    let deadline = deadline();
    if deadline.is_over() {
        return Ok(Outcome::TimedOut(std::time::Duration::ZERO));
    }
    wait_here(Watch { sight, stage: Stage::New { has_looked: true } }, deadline, notice)
}

/// One who looks.
pub(crate) struct Watch<S> {
    sight: S,
    stage: Stage,
}

enum Stage {
    New {
        has_looked: bool,
    },
    Watching(Watching),
    /// Over: had, failed or given up.
    Done,
}

impl<S: Sight> Watch<S> {
    pub(crate) fn new(sight: S) -> Self {
        Self { sight, stage: Stage::New { has_looked: false } }
    }

    fn step(&mut self, waker: &Waker) -> Poll<Result<S::Held>> {
        let sight = &self.sight;
        if let Stage::New { has_looked } = self.stage {
            if !has_looked {
                if let Some(held) = sight.look()?.had() {
                    return Poll::Ready(Ok(held));
                }
            }
            // Subscribe, look again: the bell rings when it can be heard.
            let mut watching = Watching::new(sight.means());
            watching.listen(waker);
            self.stage = Stage::Watching(watching);
        }
        match &mut self.stage {
            Stage::Watching(watching) => watching.poll(waker, |_| sight.look()),
            Stage::New { .. } | Stage::Done => Poll::Pending,
        }
    }
}

impl<S: Sight> Waiter for Watch<S> {
    type Held = S::Held;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<S::Held>> {
        let polled = self.step(waker);
        if polled.is_ready() {
            self.stage = Stage::Done;
        }
        polled
    }

    fn next_tick(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Watching(watching) => watching.next_tick(),
            Stage::New { .. } | Stage::Done => None,
        }
    }

    /// W2. Looks once more.
    fn last_chance(&mut self) -> Result<Option<S::Held>> {
        self.stage = Stage::Done;
        Ok(self.sight.look()?.had())
    }
}
