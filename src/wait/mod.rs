//! The waiting engine under all primitives. It knows time, and nothing of what is waited for: that is
//! a [`Target`] or a [`Condition`].
//!
//! Every wait tries, subscribes, tries again, and then waits for a notification, a tick or the
//! deadline. A notification is a hint; the attempt decides. There are four ways to wait:
//!
//! * **Blocked in the kernel, in the calling thread** ([`acquire`] without deadline and callback). No
//!   wake-up can be lost: the kernel queues the caller, and grants it the lock when the holder
//!   releases it or dies.
//! * **Queued behind a helper thread** ([`queue`]) with a deadline, as a future, or with a callback.
//!   The helper blocks in the kernel, which is "try again" and "wait" in one.
//! * **Polling with backoff** ([`backoff`]) where the kernel's queue cannot be relied on, or no helper
//!   can be started.
//! * **Checking a condition** ([`condition`]) that no process holds, such as a marker file, on the
//!   events of a directory ([`event_loop`], [`watch`]).
//!
//! A lock that can be acquired in several modes has a [`turnstile`]: two locks, waited for one after
//! the other in the first three ways. The leader of a semaphore's queue uses the event loop itself
//! (`src/semaphore/acquire.rs`).
//!
//! Threads and futures share one state machine for each way ([`Waiter`]): a thread polls it with a
//! waker that unparks it. `docs/PROTOCOL.md` argues what happens if any participant dies, in rules W1
//! to W5, Q1 to Q9, R1 to R5, S1 to S9 and E1 to E7.

#![expect(clippy::disallowed_methods, reason = "the one place that puts a waiting thread to sleep")]

mod backoff;
mod condition;
mod deadline;
mod event_loop;
mod queue;
mod queued_waiter;
mod take_over;
mod timer;
mod turnstile;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

pub(crate) use self::condition::{Condition, ConditionWait, wait_for};
pub(crate) use self::deadline::{CheckSampler, Deadline, now};
pub(crate) use self::event_loop::{Check, EventLoop, WakeStrategy};
pub(crate) use self::queue::WaitQueues;
pub(crate) use self::queued_waiter::QueuedWaiter;
pub(crate) use self::take_over::{is_left, take_over, try_now};
use self::timer::Alarm;
pub(crate) use self::turnstile::{Turnstile, TurnstileWait, pass, try_pass};
pub(crate) use self::watch::{WatchTarget, is_watchable};
use crate::error::Result;

/// What can be waited for.
pub(crate) trait Target: Send + Sync + Sized + 'static {
    /// Whoever waits for the same key waits for the same thing, and can share a helper.
    type Key: Ord + Clone + Send + 'static;
    /// What is acquired in the end. Dropping it gives it back.
    type Held: Send + 'static;
    /// What a helper blocks for.
    type Request: Send + Sync + 'static;

    fn key(&self) -> Self::Key;
    /// Whether `key` is still the key: what is waited for may have been replaced.
    fn is_current(&self, key: &Self::Key) -> Result<bool>;
    /// Takes it if it can be had; never blocks.
    fn attempt(&self) -> Result<Option<Self::Held>>;
    /// Blocks the calling thread in the kernel until it is had: for a caller without a deadline.
    fn block_here(&self) -> Result<Self::Held>;
    /// What a helper blocks for; `None` if `key` is not the key any more.
    fn prepare(&self, key: &Self::Key) -> Result<Option<Self::Request>>;
    /// Blocks the calling helper in the kernel until the request is granted, and does not check whether
    /// what it is granted is still what is wanted: the receiver does (W5).
    fn block(&self, request: &Self::Request) -> Result<()>;
    /// Whether the request has been granted, also if the helper has not run since; it is granted by
    /// this if nothing is in the way. Never blocks. `false` where the platform cannot answer.
    fn is_granted(&self, request: &Self::Request) -> bool;
    /// The lock of a request that was granted.
    fn granted(&self, request: Self::Request) -> Self::Held;
    /// The key in the other mode, if there is one: a lock in that mode keeps this one busy.
    fn rival(&self, key: &Self::Key) -> Option<Self::Key>;
    /// Unlocks it, by no more than a system call; `give_back` comes after that.
    fn release(&self, held: &mut Self::Held);
    /// Takes back what nobody wants.
    fn give_back(&self, held: Self::Held) {
        drop(held);
    }
    /// Whether what is had is still what is wanted.
    fn is_valid(&self, held: &Self::Held) -> Result<bool>;
    /// Whether others wait for it who should have it first, should it be free (S4).
    fn should_yield(&self) -> bool {
        false
    }
    /// Whether it could be had at this moment. Only asked where others should have it first.
    fn is_free(&self) -> Result<bool> {
        Ok(false)
    }
    /// Whether blocking in the kernel must not be trusted here.
    fn must_poll(&self) -> bool;
    /// The user's own interval for polling.
    fn poll_every(&self) -> Option<Duration>;
    /// How often who waits tries by themselves although the kernel is waiting for them, where it may leave
    /// somebody asleep who could go on.
    fn backstop(&self) -> Option<Duration> {
        None
    }
    /// Whether a caller without a deadline can wait in the kernel and nowhere else.
    fn can_block_here(&self) -> bool {
        !self.must_poll() && self.poll_every().is_none() && self.backstop().is_none()
    }
}

/// What to do when a wait lasts: called with the time waited, after the span and every span from then on.
#[derive(Clone)]
pub(crate) struct WaitCallback {
    pub(crate) after: Duration,
    pub(crate) call: Arc<dyn Fn(Duration) + Send + Sync>,
}

/// How a wait ended that did not fail.
#[derive(Debug)]
pub(crate) enum Outcome<H> {
    Held(H),
    TimedOut(Duration),
}

/// One waiter, thread or future, as a state machine. Dropping it gives up.
pub(crate) trait Waiter: Send + Unpin {
    type Held: Send;

    /// W1. `Pending` means that `waker` was registered before the last look, or that `next_tick` says when
    /// to come back.
    fn poll(&mut self, waker: &Waker) -> Poll<Result<Self::Held>>;
    /// When to be polled again although nobody wakes.
    fn next_tick(&self) -> Option<Instant>;
    /// W2. The time is up: ends the wait, and returns what was had before that.
    fn last_chance(&mut self) -> Result<Option<Self::Held>>;
}

/// Waits for one lock in the calling thread, until the deadline. That is asked for when the first try was
/// in vain: most are not, and the clock costs.
pub(crate) fn acquire<T: Target>(
    queues: &'static WaitQueues<T>,
    target: &Arc<T>,
    deadline: impl FnOnce() -> Deadline,
    notice: Option<&WaitCallback>,
) -> Result<Outcome<T::Held>> {
    let (tried, unwanted) = (queues.is_empty(), queues.unwanted());
    if tried {
        if let Some(held) = target.attempt()? {
            return Ok(Outcome::Held(held));
        }
    }
    let deadline = deadline();
    if deadline.is_over() {
        // The deadline has passed: try once.
        let held =
            if tried { take_over(queues, target, unwanted)? } else { try_now(queues, target)? };
        return Ok(held.map_or(Outcome::TimedOut(Duration::ZERO), Outcome::Held));
    }
    if deadline.is_never() && notice.is_none() && target.can_block_here() {
        return target.block_here().map(Outcome::Held);
    }
    let target = Arc::clone(target);
    let waiter = if tried {
        QueuedWaiter::after_a_try(queues, target)
    } else {
        QueuedWaiter::new(queues, target)
    };
    wait_here(waiter, deadline, notice)
}

/// Waits in the calling thread, until the deadline.
pub(crate) fn wait_here<W: Waiter>(
    waiter: W,
    deadline: Deadline,
    notice: Option<&WaitCallback>,
) -> Result<Outcome<W::Held>> {
    let mut wait = WithCallback::new(waiter, notice.cloned());
    // Before the first poll, which may make a watcher.
    wait.begin(deadline.start());
    let waker = this_thread();
    loop {
        // W1. The waker is registered by `poll` before it looks for the last time, and an unpark that
        // comes before the park makes that return at once: no wake-up is lost in between.
        if let Poll::Ready(held) = wait.poll(&waker) {
            return held.map(Outcome::Held);
        }
        let now = now();
        let wake_at = [deadline.instant(), wait.next_tick()].into_iter().flatten().min();
        match wake_at.map(|at| at.saturating_duration_since(now)) {
            _ if deadline.instant().is_some_and(|at| at <= now) => {
                let held = wait.waiter.last_chance()?;
                return Ok(held.map_or_else(|| Outcome::TimedOut(wait.elapsed()), Outcome::Held));
            }
            Some(pause) => std::thread::park_timeout(pause),
            None => std::thread::park(),
        }
    }
}

/// Wakes, on a thread that others depend on: a waker that panics must not take them with it.
fn wake(waker: Waker) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
}

/// Unparks the calling thread.
fn this_thread() -> Waker {
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits as a future, of no particular runtime. Dropping it gives up: what it was granted and did not
/// take goes to the next waiter (rule Q4).
#[must_use = "a future does nothing unless it is polled"]
pub(crate) struct Acquire<W> {
    wait: WithCallback<W>,
    alarm: Alarm,
}

impl<W: Waiter> Acquire<W> {
    pub(crate) fn new(waiter: W, notice: Option<WaitCallback>) -> Self {
        Self { wait: WithCallback::new(waiter, notice), alarm: Alarm::default() }
    }
}

impl<W: Waiter> Future for Acquire<W> {
    type Output = Result<W::Held>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let polled = this.wait.poll(context.waker());
        match this.wait.next_tick().filter(|_| polled.is_pending()) {
            Some(at) => this.alarm.set(at, context.waker()),
            None => this.alarm.off(),
        }
        polled
    }
}

/// A wait as a future that may have been refused before it began: says so when it is polled.
pub(crate) struct Begun<W>(Option<Result<Acquire<W>>>);

impl<W: Waiter> Begun<W> {
    pub(crate) fn new(begun: Result<Acquire<W>>) -> Self {
        Self(Some(begun))
    }
}

impl<W: Waiter> Future for Begun<W> {
    type Output = Result<W::Held>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Some(Ok(acquire)) => Pin::new(acquire).poll(context),
            refused => match refused.take() {
                Some(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            },
        }
    }
}

/// A future whose outcome is made into another one when it is there.
#[must_use = "a future does nothing unless it is polled"]
pub(crate) struct Then<F, M> {
    future: F,
    make: Option<M>,
}

impl<F, M> Then<F, M> {
    pub(crate) fn new(future: F, make: M) -> Self {
        Self { future, make: Some(make) }
    }
}

impl<F: Unpin, M> Unpin for Then<F, M> {}

impl<F: Future + Unpin, M: FnOnce(F::Output) -> T, T> Future for Then<F, M> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if self.make.is_none() {
            return Poll::Pending; // it has ended
        }
        match Pin::new(&mut self.future).poll(context) {
            Poll::Ready(outcome) => match self.make.take() {
                Some(make) => Poll::Ready(make(outcome)),
                None => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A waiter that says so when it waits for long.
struct WithCallback<W> {
    waiter: W,
    /// With the time of its next call, if a clock can show it.
    notice: Option<(WaitCallback, Option<Instant>)>,
    /// When it began; a future when it was first told to wait.
    since: Option<Instant>,
}

impl<W: Waiter> WithCallback<W> {
    fn new(waiter: W, notice: Option<WaitCallback>) -> Self {
        Self { waiter, notice: notice.map(|notice| (notice, None)), since: None }
    }

    fn begin(&mut self, start: Instant) {
        self.since = Some(start);
        if let Some((notice, next)) = &mut self.notice {
            *next = start.checked_add(notice.after);
        }
    }

    fn elapsed(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now().saturating_duration_since(since))
    }

    fn next_tick(&self) -> Option<Instant> {
        let notice = self.notice.as_ref().and_then(|(_, next)| *next);
        [notice, self.waiter.next_tick()].into_iter().flatten().min()
    }

    fn poll(&mut self, waker: &Waker) -> Poll<Result<W::Held>> {
        let polled = self.waiter.poll(waker);
        if polled.is_pending() {
            // With the wait still on, so that a panic in the callback leaves the line by `drop`.
            self.notify();
        }
        polled
    }

    fn notify(&mut self) {
        let Some(since) = self.since else { return self.begin(now()) };
        if let Some((notice, next)) = &mut self.notice {
            let now = now();
            if next.is_some_and(|at| at <= now) {
                *next = now.checked_add(notice.after);
                (notice.call)(now.saturating_duration_since(since));
            }
        }
    }
}

#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;

#[cfg(all(test, flockwork_shuttle))]
mod schedules;
