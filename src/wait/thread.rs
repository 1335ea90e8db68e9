//! Waiting in the calling thread, and waking a thread.

#![expect(clippy::disallowed_methods, reason = "the one place that puts a waiting thread to sleep")]

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use once_cell::race::OnceBox;

use super::deadline::{Deadline, now};
use super::hooks::{HookedWait, WaitHooks, in_span, must_return};
use super::queue::WaitQueues;
use super::queued_waiter::QueuedWaiter;
use super::remote::note_progress;
use super::take_over::{take_over, try_now};
use super::{AnyWaiter, Keeper, Limit, Outcome, Target, Waiter, check_cancelled};
use crate::error::Result;
use crate::sys::{self, Wakeup};

/// How long a thread waits for FIFOs at most if a cancellation cannot end that.
const WITHOUT_WAKEUP: Duration = Duration::from_millis(1);
/// How long a thread sleeps where the system cannot poll.
const WITHOUT_POLL: Duration = Duration::from_millis(50);

/// Waits for one lock in the calling thread, until the deadline. The clock is read only if
/// the first try fails: most succeed, and reading the clock takes time.
pub(crate) fn acquire<T: Target>(
    queues: &'static WaitQueues<T>,
    target: &Arc<T>,
    limit: Limit,
    hooks: Option<&WaitHooks>,
) -> Result<Outcome<T::Held>> {
    check_cancelled(hooks)?;
    let (tried, unwanted) = (queues.is_empty(), queues.unwanted());
    if tried {
        if let Some(held) = target.attempt()? {
            return Ok(Outcome::Held(held));
        }
    }
    let deadline = limit.deadline();
    if let Some(waited) = deadline.waited_if_over() {
        // The deadline has passed: try once.
        let held =
            if tried { take_over(queues, target, unwanted)? } else { try_now(queues, target)? };
        return Ok(held.map_or(Outcome::TimedOut(waited), Outcome::Held));
    }
    if deadline.is_never() && !must_return(hooks) && target.can_block_here() {
        return in_span(hooks, || target.block_here()).map(Outcome::Held);
    }
    let target = Arc::clone(target);
    let waiter = if tried {
        QueuedWaiter::after_a_try(queues, target)
    } else {
        QueuedWaiter::new(queues, target)
    };
    wait_here(waiter, deadline, hooks)
}

/// Waits in the calling thread, until the deadline.
pub(crate) fn wait_here<W: Waiter>(
    waiter: W,
    deadline: Deadline,
    hooks: Option<&WaitHooks>,
) -> Result<Outcome<W::Held>> {
    let mut keeper = Keeper::new(waiter);
    let elapsed = wait_for_any(&mut keeper, deadline, hooks)?;
    Ok(keeper.held.map_or(Outcome::TimedOut(elapsed), Outcome::Held))
}

/// Returns how long it has waited if it timed out.
fn wait_for_any(
    waiter: &mut dyn AnyWaiter,
    deadline: Deadline,
    hooks: Option<&WaitHooks>,
) -> Result<Duration> {
    let mut wait = HookedWait::new(hooks.cloned());
    // Before the first poll, which may create a watcher.
    wait.begin(deadline.start());
    let thread = WakeThread::here();
    let waker = Waker::from(Arc::clone(&thread));
    loop {
        // No wake-up is lost: `poll` registers the waker before its last check, and an unpark
        // before the park makes the park return immediately (W1).
        if let Poll::Ready(acquired) = wait.poll(waiter, &waker) {
            return acquired.map(|()| Duration::ZERO);
        }
        let now = now();
        let wake_at = [deadline.instant(), wait.next_tick(waiter)].into_iter().flatten().min();
        match wake_at.map(|at| at.saturating_duration_since(now)) {
            _ if deadline.instant().is_some_and(|at| at <= now) => {
                wait.last_chance(waiter)?;
                note_progress();
                return Ok(wait.elapsed());
            }
            pause if !waiter.sources().is_empty() => {
                let (mut wakeup, mut pause) = (None, pause);
                if wait.can_be_cancelled() {
                    wakeup = thread.wakeup();
                    if wakeup.is_none() {
                        pause = Some(pause.unwrap_or(WITHOUT_WAKEUP).min(WITHOUT_WAKEUP));
                    }
                    if wait.is_cancelled(&waker) {
                        continue;
                    }
                }
                if sys::wait_for_fifos(waiter.sources(), wakeup, pause).is_err() {
                    std::thread::sleep(pause.unwrap_or(WITHOUT_POLL).min(WITHOUT_POLL));
                }
                if let Some(wakeup) = wakeup {
                    wakeup.reset();
                }
            }
            Some(pause) => std::thread::park_timeout(pause),
            None => std::thread::park(),
        }
    }
}

/// Calls the waker from a thread that other waiters depend on, which a panic in the waker must not
/// end.
pub(super) fn wake(waker: Waker) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
}

/// A waker that unparks the calling thread.
pub(super) fn this_thread() -> Waker {
    Waker::from(WakeThread::here())
}

/// Wakes a thread that parks or waits for FIFOs.
struct WakeThread {
    thread: Thread,
    wakeup: OnceBox<Wakeup>,
}

impl WakeThread {
    fn here() -> Arc<Self> {
        Arc::new(Self { thread: std::thread::current(), wakeup: OnceBox::new() })
    }

    /// The eventfd that ends the thread's wait for FIFOs, if a descriptor is available.
    fn wakeup(&self) -> Option<&Wakeup> {
        let wakeup = self.wakeup.get_or_try_init(|| Wakeup::new().map(Box::new)).ok();
        // A wake-up from now on either finds that, or its reason is seen by a check after this.
        fence(Ordering::SeqCst);
        wakeup
    }
}

impl Wake for WakeThread {
    fn wake(self: Arc<Self>) {
        self.thread.unpark();
        fence(Ordering::SeqCst);
        if let Some(wakeup) = self.wakeup.get() {
            wakeup.wake();
        }
    }
}
