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
    wait_here(Watch::new(sight), deadline, notice)
}

/// One who looks.
pub(crate) struct Watch<S> {
    sight: S,
    stage: Stage,
}

enum Stage {
    New,
    Watching(Watching),
    /// Over: had, failed or given up.
    Done,
}

impl<S: Sight> Watch<S> {
    pub(crate) fn new(sight: S) -> Self {
        Self { sight, stage: Stage::New }
    }
}

impl<S: Sight> Waiter for Watch<S> {
    type Held = S::Held;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<S::Held>> {
        let sight = &self.sight;
        let polled = match &mut self.stage {
            Stage::Done => return Poll::Pending,
            Stage::Watching(watching) => watching.poll(waker, |_| sight.look()),
            Stage::New => match sight.look().map(Seen::had) {
                Ok(Some(held)) => Poll::Ready(Ok(held)),
                Err(error) => Poll::Ready(Err(error)),
                Ok(None) => {
                    let mut watching = Watching::new(sight.means());
                    let polled = watching.poll(waker, |_| sight.look());
                    self.stage = Stage::Watching(watching);
                    polled
                }
            },
        };
        if polled.is_ready() {
            self.stage = Stage::Done;
        }
        polled
    }

    fn next_tick(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Watching(watching) => watching.next_tick(),
            Stage::New | Stage::Done => None,
        }
    }

    /// W2. Looks once more.
    fn last_chance(&mut self) -> Result<Option<S::Held>> {
        self.stage = Stage::Done;
        Ok(self.sight.look()?.had())
    }
}
