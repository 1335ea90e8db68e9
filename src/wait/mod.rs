//! The engine under all primitives. Knows time and knows nothing of what is waited for: that is a
//! [`Target`]. Names `error`, `sys` (forks, a coarse clock) and std.
//!
//! Every wait is: try, subscribe, try again, wait for a hint, a tick or the deadline. A hint is never the
//! truth; the attempt is. There are three ways to wait:
//!
//! * **In the kernel, in the caller's own thread** ([`acquire`] without deadline and callback). Nothing
//!   can be lost: the kernel queues the caller, and grants it when the holder lets go or dies.
//! * **In line behind a helper** ([`queue`]) with a deadline, as a future, or with a callback. The
//!   helper blocks in the kernel: that is "try again" and "wait" in one.
//! * **By polling** ([`poll`]) where the kernel must not be trusted, or no helper can be had.
//!
//! Threads and futures share one state machine, [`Wait`]: a thread polls it with a waker that unparks
//! it. What happens if any participant dies is argued in `docs/PROTOCOL.md`, rules W1 to W5 and Q1 to Q6.

#![expect(clippy::disallowed_methods, reason = "the one place that puts a waiting thread to sleep")]

mod deadline;
mod poll;
mod queue;
mod timer;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use self::deadline::now;
pub(crate) use self::deadline::{Deadline, Sampling};
use self::poll::Rhythm;
pub(crate) use self::queue::Lines;
use self::queue::{Look, Place, Why};
use self::timer::Alarm;
use crate::error::Result;

/// What can be waited for.
pub(crate) trait Target: Send + Sync + Sized + 'static {
    /// Whoever waits for the same key waits for the same thing, and can share a helper.
    type Key: Ord + Clone + Send + 'static;
    /// What is had in the end. Dropping it gives it back.
    type Held: Send + 'static;

    fn key(&self) -> Self::Key;
    /// Whether `key` is still the key: what is waited for may have been replaced.
    fn is_current(&self, key: &Self::Key) -> Result<bool>;
    /// Takes it if it can be had; never blocks.
    fn attempt(&self) -> Result<Option<Self::Held>>;
    /// Blocks the calling thread in the kernel until it is had: for a caller without a deadline.
    fn block_here(&self) -> Result<Self::Held>;
    /// The same for a helper, without a look whether what is had is still what is wanted: who is granted
    /// it looks (W5). `None` if `key` is not the key any more.
    fn block(&self, key: &Self::Key) -> Result<Option<Self::Held>>;
    /// Whether what is had is still what is wanted.
    fn is_valid(&self, held: &Self::Held) -> Result<bool>;
    /// Whether blocking in the kernel must not be trusted here.
    fn must_poll(&self) -> bool;
    /// The user's own interval for polling.
    fn poll_every(&self) -> Option<Duration>;
}

/// What to do when a wait lasts: called with the time waited, after the span and every span from then on.
#[derive(Clone)]
pub(crate) struct Notice {
    pub(crate) after: Duration,
    pub(crate) call: Arc<dyn Fn(Duration) + Send + Sync>,
}

/// How a wait ended that did not fail.
#[derive(Debug)]
pub(crate) enum Outcome<H> {
    Held(H),
    TimedOut(Duration),
}

/// Waits in the calling thread, until the deadline. That is asked for when the first try was in vain: most
/// are not, and the clock costs.
pub(crate) fn acquire<T: Target>(
    lines: &'static Lines<T>,
    target: &Arc<T>,
    deadline: impl FnOnce() -> Deadline,
    notice: Option<&Notice>,
) -> Result<Outcome<T::Held>> {
    let tried = lines.is_empty();
    if tried {
        if let Some(held) = target.attempt()? {
            return Ok(Outcome::Held(held));
        }
    }
    let deadline = deadline();
    if deadline.is_over() {
        // There is no wait to be had, but one try it is worth.
        let held = if tried { None } else { target.attempt()? };
        return Ok(held.map_or(Outcome::TimedOut(Duration::ZERO), Outcome::Held));
    }
    let polls = target.must_poll() || target.poll_every().is_some();
    if deadline.is_never() && notice.is_none() && !polls {
        return target.block_here().map(Outcome::Held);
    }
    let notice = notice.cloned();
    let mut wait = Wait::new(lines, Arc::clone(target), notice);
    if tried {
        wait.stage = Stage::Tried;
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
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
                let held = wait.last_chance()?;
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

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits as a future, of no particular runtime. Dropping it gives up: what it was granted and did not
/// take goes to the next waiter (rule Q4).
#[must_use = "a future does nothing unless it is polled"]
pub(crate) struct Acquire<T: Target> {
    wait: Wait<T>,
    alarm: Alarm,
}

impl<T: Target> Acquire<T> {
    pub(crate) fn new(lines: &'static Lines<T>, target: Arc<T>, notice: Option<Notice>) -> Self {
        Self { wait: Wait::new(lines, target, notice), alarm: Alarm::default() }
    }
}

impl<T: Target> Future for Acquire<T> {
    type Output = Result<T::Held>;

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

/// One waiter, thread or future.
struct Wait<T: Target> {
    lines: &'static Lines<T>,
    target: Arc<T>,
    stage: Stage<T>,
    /// With the time of its next call, if a clock can show it.
    notice: Option<(Notice, Option<Instant>)>,
    /// When it was first polled: a future waits from then on.
    since: Option<Instant>,
}

enum Stage<T: Target> {
    New,
    /// As new, but for the first try, which was in vain.
    Tried,
    InLine(T::Key, Place),
    Polling(Rhythm),
    /// Over: granted, failed or given up.
    Done,
}

impl<T: Target> Unpin for Wait<T> {}

impl<T: Target> Wait<T> {
    fn new(lines: &'static Lines<T>, target: Arc<T>, notice: Option<Notice>) -> Self {
        let notice = notice.map(|notice| (notice, None));
        Self { lines, target, stage: Stage::New, notice, since: None }
    }

    fn elapsed(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now().saturating_duration_since(since))
    }

    /// When to be polled again although nobody wakes.
    fn next_tick(&self) -> Option<Instant> {
        let notice = self.notice.as_ref().and_then(|(_, next)| *next);
        let look = match &self.stage {
            Stage::Polling(rhythm) => Some(rhythm.next()),
            _ => None,
        };
        [notice, look].into_iter().flatten().min()
    }

    fn poll(&mut self, waker: &Waker) -> Poll<Result<T::Held>> {
        if let Poll::Ready(Some(held)) = self.step(waker).map(Result::transpose) {
            self.stage = Stage::Done;
            return Poll::Ready(held);
        }
        // With the wait still on, so that a panic in the callback leaves the line by `drop`.
        self.notify();
        Poll::Pending
    }

    /// `Ready(Ok(None))` is not returned; `Pending` means that `waker` is registered, or that
    /// `next_tick` says when to come back.
    fn step(&mut self, waker: &Waker) -> Poll<Result<Option<T::Held>>> {
        loop {
            match &mut self.stage {
                Stage::New | Stage::Tried => match self.begin(waker) {
                    Ok(None) => {}
                    other => return Poll::Ready(other),
                },
                Stage::InLine(_, place) => match self.lines.look(*place, waker) {
                    Look::Waiting => return Poll::Pending,
                    // W5. Between the grant and this look any time may have passed.
                    Look::Granted(held) => match self.target.is_valid(&held) {
                        Ok(true) => return Poll::Ready(Ok(Some(held))),
                        Ok(false) => self.stage = Stage::New,
                        Err(error) => return Poll::Ready(Err(error)),
                    },
                    Look::Dissolved(Why::Replaced) => self.stage = Stage::New,
                    Look::Dissolved(Why::NoHelper) => {
                        self.stage = Stage::Polling(Rhythm::new(None));
                    }
                },
                Stage::Polling(rhythm) => {
                    if rhythm.next() > now() {
                        return Poll::Pending;
                    }
                    match self.target.attempt() {
                        Ok(None) => rhythm.missed(),
                        other => return Poll::Ready(other),
                    }
                }
                Stage::Done => return Poll::Pending,
            }
        }
    }

    /// Tries, and subscribes if that was in vain.
    fn begin(&mut self, waker: &Waker) -> Result<Option<T::Held>> {
        // Where a helper is blocked already, its block is the attempt: in arrival order within the
        // process, so nobody passes those who wait already, and without another descriptor.
        let mut tried = matches!(self.stage, Stage::Tried);
        if !tried && !self.lines.is_empty() {
            let key = self.target.key();
            tried = self.lines.has(&key) && self.target.is_current(&key)?;
        }
        if !tried {
            if let Some(held) = self.target.attempt()? {
                return Ok(Some(held));
            }
        }
        if self.since.is_none() {
            let start = now();
            self.since = Some(start);
            if let Some((notice, next)) = &mut self.notice {
                *next = start.checked_add(notice.after);
            }
        }
        // The attempt may have found another file there, and that is the one to wait for.
        let key = self.target.key();
        let every = self.target.poll_every();
        let place = match every {
            None => self.lines.join(&self.target, &key, waker),
            Some(_) => None,
        };
        self.stage = match place {
            Some(place) => Stage::InLine(key, place),
            None => Stage::Polling(Rhythm::new(every)),
        };
        Ok(None)
    }

    fn notify(&mut self) {
        let elapsed = self.elapsed();
        if let Some((notice, next)) = &mut self.notice {
            let now = now();
            if next.is_some_and(|at| at <= now) {
                *next = now.checked_add(notice.after);
                (notice.call)(elapsed);
            }
        }
    }

    /// W2. The time is up. Under the queue's mutex we were either granted before, and then it is ours, or
    /// leave. One more try is for those that poll, and for a file that was replaced while the helper
    /// waits for the old one.
    fn last_chance(&mut self) -> Result<Option<T::Held>> {
        let polled = match &self.stage {
            Stage::InLine(key, _) => !self.target.is_current(key)?,
            _ => true,
        };
        match self.leave() {
            None if !polled => Ok(None),
            Some(held) if self.target.is_valid(&held)? => Ok(Some(held)),
            stale => {
                drop(stale); // or the attempt would meet it
                self.target.attempt()
            }
        }
    }

    /// Ends the wait. What was granted before that comes back.
    fn leave(&mut self) -> Option<T::Held> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::InLine(key, place) => self.lines.leave(&key, place),
            _ => None,
        }
    }
}

impl<T: Target> Drop for Wait<T> {
    fn drop(&mut self) {
        if let Stage::InLine(key, _) = &self.stage {
            let key = key.clone();
            if let Some(held) = self.leave() {
                self.lines.pass_on(&key, held);
            }
        }
    }
}

#[cfg(test)]
mod tests;
