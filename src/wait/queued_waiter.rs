//! One waiter for one lock: queued behind a helper thread of the process ([`queue`](super::queue)),
//! or polling if no helper can be started or the user set an interval.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::deadline::now;
use super::queue::{Joined, Ticket, TicketState, WaitQueues, Why};
use super::{Target, Waiter};
use crate::error::Result;
use crate::trace::PollReason;

/// Waits for a target.
pub(crate) struct QueuedWaiter<T: Target> {
    queues: &'static WaitQueues<T>,
    target: Arc<T>,
    /// Whether a grant is revoked if it is not taken soon (Q9).
    is_brief: bool,
    stage: Stage<T>,
}

/// How long a wait polls before it gets its own helper, while the process has many idle ones (Q8).
const HELPER_DELAY: Duration = Duration::from_millis(50);

enum Stage<T: Target> {
    New,
    /// The first try has failed.
    Tried,
    /// In a queue, with the time of the waiter's own next try, if there is one.
    Queued(T::Key, Ticket, Option<Instant>),
    /// Polling, with the time from which the waiter may get a helper, if it may get one (Q8).
    Polling(Backoff, Option<Instant>),
    /// The wait has ended: granted, failed or given up.
    Done,
}

impl<T: Target> Unpin for QueuedWaiter<T> {}

impl<T: Target> QueuedWaiter<T> {
    pub(crate) fn new(queues: &'static WaitQueues<T>, target: Arc<T>) -> Self {
        Self { queues, target, is_brief: false, stage: Stage::New }
    }

    /// Creates a waiter for a caller whose own try has just failed.
    pub(crate) fn after_a_try(queues: &'static WaitQueues<T>, target: Arc<T>) -> Self {
        Self { queues, target, is_brief: false, stage: Stage::Tried }
    }

    /// Sets whether a grant is revoked if it is not taken soon. This is for a future that its
    /// executor may leave unpolled while other waiters need the slot (Q9).
    pub(crate) fn brief(mut self, is_brief: bool) -> Self {
        self.is_brief = is_brief;
        self
    }

    /// Never returns `Ready(Ok(None))`. `Pending` means that `waker` is registered, or that
    /// `next_tick` returns when to poll again.
    fn step(&mut self, waker: &Waker) -> Poll<Result<Option<T::Held>>> {
        loop {
            match &mut self.stage {
                Stage::New | Stage::Tried => match self.begin(waker, false) {
                    Ok(None) => {}
                    other => return Poll::Ready(other),
                },
                Stage::Queued(_, ticket, try_at) => match self.queues.check(*ticket, waker) {
                    TicketState::Waiting => {
                        if try_at.is_none_or(|at| at > now()) {
                            return Poll::Pending;
                        }
                        *try_at = next_try(&*self.target);
                        match self.target.attempt() {
                            Ok(None) => return Poll::Pending,
                            other => {
                                self.give_up();
                                return Poll::Ready(other);
                            }
                        }
                    }
                    // Any amount of time may have passed between the grant and this check (W5).
                    TicketState::Granted(held) => match self.target.is_valid(&held) {
                        Ok(true) => return Poll::Ready(Ok(Some(held))),
                        Ok(false) => self.stage = Stage::New,
                        Err(error) => return Poll::Ready(Err(error)),
                    },
                    TicketState::Dissolved(Why::Replaced) => self.stage = Stage::New,
                    TicketState::Dissolved(Why::NoHelper) => {
                        self.stage = Stage::Polling(Backoff::new(None), None);
                    }
                },
                Stage::Polling(backoff, join_at) => {
                    if join_at.is_some_and(|at| at <= now()) {
                        self.stage = Stage::Tried;
                        match self.begin(waker, true) {
                            Ok(None) => continue,
                            other => return Poll::Ready(other),
                        }
                    }
                    if backoff.next() > now() {
                        return Poll::Pending;
                    }
                    match self.target.attempt() {
                        Ok(None) => backoff.advance(),
                        other => return Poll::Ready(other),
                    }
                }
                Stage::Done => return Poll::Pending,
            }
        }
    }

    /// Tries, and joins the queue if that fails.
    fn begin(&mut self, waker: &Waker, has_lasted: bool) -> Result<Option<T::Held>> {
        // A helper that is already blocked counts as the attempt: no new waiter passes an earlier
        // one of this process, and no other descriptor is needed.
        let mut tried = matches!(self.stage, Stage::Tried);
        if !tried && !self.queues.is_empty() {
            let key = self.target.key();
            tried = self.queues.has(&key) && self.target.is_current(&key)?;
        }
        if !tried && !self.target.should_yield() {
            if let Some(held) = self.target.attempt()? {
                return Ok(Some(held));
            }
        }
        // The attempt may have found another file at the path. Then the wait is for that file.
        let key = self.target.key();
        let every = self.target.poll_every();
        let joined = match every {
            None => self.queues.join(&self.target, &key, waker, self.is_brief, has_lasted),
            Some(_) => Joined::NoHelper,
        };
        self.stage = match joined {
            Joined::Queued(ticket) => Stage::Queued(key, ticket, next_try(&*self.target)),
            Joined::NoHelper => Stage::Polling(Backoff::new(every), None),
            Joined::Later => Stage::Polling(Backoff::quick(), now().checked_add(HELPER_DELAY)),
        };
        Ok(None)
    }

    /// Ends the wait. Returns the lock if it was granted before.
    fn leave(&mut self) -> Option<T::Held> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Queued(key, ticket, _) => self.queues.leave(&key, ticket),
            _ => None,
        }
    }

    /// Leaves the queue. A lock that was granted before goes to the next waiter (Q4).
    fn give_up(&mut self) {
        if let Stage::Queued(key, ..) = &self.stage {
            let key = key.clone();
            if let Some(held) = self.leave() {
                self.queues.pass_on(&self.target, &key, held);
            }
        }
    }
}

fn next_try<T: Target>(target: &T) -> Option<Instant> {
    target.backstop().and_then(|span| now().checked_add(span))
}

impl<T: Target> Waiter for QueuedWaiter<T> {
    type Held = T::Held;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<T::Held>> {
        let polled = self.step(waker).map(Result::transpose);
        match polled {
            Poll::Ready(Some(held)) => {
                self.stage = Stage::Done;
                Poll::Ready(held)
            }
            _ => Poll::Pending,
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Polling(backoff, join_at) => {
                [Some(backoff.next()), *join_at].into_iter().flatten().min()
            }
            Stage::Queued(_, _, try_at) => *try_at,
            _ => None,
        }
    }

    fn polls_because(&self) -> Option<PollReason> {
        match &self.stage {
            Stage::Polling(..) if self.target.poll_every().is_some() => Some(PollReason::Interval),
            Stage::Polling(_, None) => Some(PollReason::NoHelper),
            // The helper polls.
            Stage::Queued(..) if self.target.must_poll() => Some(PollReason::Network),
            _ => None,
        }
    }

    /// Either the lock was granted before, or the waiter leaves the queue, under the queue's mutex
    /// (W2). A waiter that polls tries once more. So does one whose file was replaced while the
    /// helper waits for the old one.
    fn last_chance(&mut self) -> Result<Option<T::Held>> {
        let must_try = match &self.stage {
            Stage::Queued(key, ..) => !self.target.is_current(key)?,
            _ => true,
        };
        match self.leave() {
            None if !must_try => Ok(None),
            Some(held) if self.target.is_valid(&held)? => Ok(Some(held)),
            stale => {
                drop(stale); // otherwise the attempt would fail
                self.target.attempt()
            }
        }
    }
}

impl<T: Target> Drop for QueuedWaiter<T> {
    fn drop(&mut self) {
        self.give_up();
    }
}
