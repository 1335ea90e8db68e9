//! Waiting for a condition that no process holds: check it, subscribe to events, check it again,
//! and then after each event (rules E1 and E6).

use std::task::{Poll, Waker};
use std::time::Instant;

use super::event_loop::{Check, EventLoop, WakeStrategy};
use super::{Limit, Outcome, WaitHooks, Waiter, check_cancelled, wait_here};
use crate::error::Result;
use crate::trace::PollReason;

/// A condition that can be waited for.
pub(crate) trait Condition: Send + Unpin {
    type Held: Send;

    /// Checks the condition, without blocking.
    fn check(&self) -> Result<Check<Self::Held>>;
    /// Called when a check has failed.
    fn wake_strategy(&self) -> WakeStrategy;
}

/// Waits for the condition in the calling thread, until the deadline. The clock is read only
/// if the first check fails.
pub(crate) fn wait_for<C: Condition>(
    condition: C,
    limit: Limit,
    hooks: Option<&WaitHooks>,
) -> Result<Outcome<C::Held>> {
    check_cancelled(hooks)?;
    if let Some(held) = condition.check()?.ready() {
        return Ok(Outcome::Held(held));
    }
    let deadline = limit.deadline();
    if let Some(waited) = deadline.waited_if_over() {
        return Ok(Outcome::TimedOut(waited));
    }
    wait_here(
        ConditionWait { condition, stage: ConditionState::New { has_checked: true } },
        deadline,
        hooks,
    )
}

/// A waiter for a condition.
pub(crate) struct ConditionWait<C> {
    condition: C,
    stage: ConditionState,
}

enum ConditionState {
    New {
        has_checked: bool,
    },
    EventLoop(Box<EventLoop>),
    /// The wait has ended: the condition was true, a check failed, or the waiter gave up.
    Done,
}

impl<C: Condition> ConditionWait<C> {
    pub(crate) fn new(condition: C) -> Self {
        Self { condition, stage: ConditionState::New { has_checked: false } }
    }

    fn step(&mut self, waker: &Waker) -> Poll<Result<C::Held>> {
        let condition = &self.condition;
        if let ConditionState::New { has_checked } = self.stage {
            if !has_checked {
                if let Some(held) = condition.check()?.ready() {
                    return Poll::Ready(Ok(held));
                }
            }
            // Subscribe, and check again: the subscription notifies when it is active.
            let mut events = EventLoop::new(condition.wake_strategy());
            events.subscribe(waker);
            self.stage = ConditionState::EventLoop(Box::new(events));
        }
        match &mut self.stage {
            ConditionState::EventLoop(events) => events.poll(waker, |_| condition.check()),
            ConditionState::New { .. } | ConditionState::Done => Poll::Pending,
        }
    }
}

impl<C: Condition> Waiter for ConditionWait<C> {
    type Held = C::Held;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<C::Held>> {
        let polled = self.step(waker);
        if polled.is_ready() {
            self.stage = ConditionState::Done;
        }
        polled
    }

    fn next_tick(&self) -> Option<Instant> {
        match &self.stage {
            ConditionState::EventLoop(events) => events.next_tick(),
            ConditionState::New { .. } | ConditionState::Done => None,
        }
    }

    fn polls_because(&self) -> Option<PollReason> {
        match &self.stage {
            ConditionState::EventLoop(events) => events.polls_because(),
            ConditionState::New { .. } | ConditionState::Done => None,
        }
    }

    /// Checks once more (W2).
    fn last_chance(&mut self) -> Result<Option<C::Held>> {
        self.stage = ConditionState::Done;
        Ok(self.condition.check()?.ready())
    }
}
