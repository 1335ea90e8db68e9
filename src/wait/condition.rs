//! Waiting for what can be seen by looking, and is nobody's: looks, subscribes, looks again, and then when it has
//! heard something (rules E1 and E6). The deadline and the callback are the engine's.

use std::task::{Poll, Waker};
use std::time::Instant;

use super::event_loop::{Check, EventLoop, WakeStrategy};
use super::{Deadline, Outcome, WaitCallback, Waiter, wait_here};
use crate::error::Result;

/// What can be waited for by looking.
pub(crate) trait Condition: Send + Unpin {
    type Held: Send;

    /// Never blocks.
    fn check(&self) -> Result<Check<Self::Held>>;
    /// Asked for when a look was in vain.
    fn wake_strategy(&self) -> WakeStrategy;
}

/// Waits for it in the calling thread, until the deadline. That is asked for when the first look was in vain.
pub(crate) fn wait_for<S: Condition>(
    condition: S,
    deadline: impl FnOnce() -> Deadline,
    notice: Option<&WaitCallback>,
) -> Result<Outcome<S::Held>> {
    if let Some(held) = condition.check()?.ready() {
        return Ok(Outcome::Held(held));
    }
    let deadline = deadline();
    if deadline.is_over() {
        return Ok(Outcome::TimedOut(std::time::Duration::ZERO));
    }
    wait_here(
        ConditionWait { condition, stage: Stage::New { has_checked: true } },
        deadline,
        notice,
    )
}

/// One who looks.
pub(crate) struct ConditionWait<S> {
    condition: S,
    stage: Stage,
}

enum Stage {
    New {
        has_checked: bool,
    },
    EventLoop(EventLoop),
    /// Over: had, failed or given up.
    Done,
}

impl<S: Condition> ConditionWait<S> {
    pub(crate) fn new(condition: S) -> Self {
        Self { condition, stage: Stage::New { has_checked: false } }
    }

    fn step(&mut self, waker: &Waker) -> Poll<Result<S::Held>> {
        let condition = &self.condition;
        if let Stage::New { has_checked } = self.stage {
            if !has_checked {
                if let Some(held) = condition.check()?.ready() {
                    return Poll::Ready(Ok(held));
                }
            }
            // Subscribe, look again: the bell rings when it can be heard.
            let mut events = EventLoop::new(condition.wake_strategy());
            events.listen(waker);
            self.stage = Stage::EventLoop(events);
        }
        match &mut self.stage {
            Stage::EventLoop(events) => events.poll(waker, |_| condition.check()),
            Stage::New { .. } | Stage::Done => Poll::Pending,
        }
    }
}

impl<S: Condition> Waiter for ConditionWait<S> {
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
            Stage::EventLoop(events) => events.next_tick(),
            Stage::New { .. } | Stage::Done => None,
        }
    }

    /// W2. Looks once more.
    fn last_chance(&mut self) -> Result<Option<S::Held>> {
        self.stage = Stage::Done;
        Ok(self.condition.check()?.ready())
    }
}
