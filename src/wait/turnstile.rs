//! Waiting for a lock behind a gate: in line for the gate, and with the gate in hand in line for the lock. So at most
//! one waits at the lock, and the order is the gate's, whatever mode each wants (rules R1 to R3).

#![expect(
    clippy::disallowed_methods,
    reason = "a try waits for those who pass, for less than a millisecond"
)]

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::deadline::now;
use super::queue::WaitQueues;
use super::queued_waiter::QueuedWaiter;
use super::{Deadline, Outcome, Target, WaitCallback, Waiter, try_now, wait_here};
use crate::error::Result;

/// Rule R3. How long who stands at the gate waits at most before looking past it: who has it may have been stopped.
const QUEUED_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How much longer at most before looking as well at what costs more than a system call. Each time it was in vain
/// doubles it: of a thousand who wait all look, at a list that has a line for each of them.
const MAX_CHECK_FACTOR: u32 = 32;
/// Who passes the gate has it for some microseconds, and who waits in it for longer than all of these together. Zero
/// lets others run.
const PASSING_PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::ZERO, Duration::from_micros(50), Duration::from_micros(50)];

/// A lock and its gate.
pub(crate) trait Turnstile: Send + Sync + 'static {
    type Lock: Target;

    fn gate(&self) -> &Arc<Self::Lock>;
    fn lock(&self) -> &Arc<Self::Lock>;
    /// Takes the lock without the gate if nobody has it, in whatever mode (R3). Never blocks. Only for who comes by
    /// seldom.
    fn take_unheld(&self) -> Result<Option<Held<Self>>>;
    /// Whether who has the gate is known not to run. Costs more than a system call.
    fn is_gate_stopped(&self) -> bool;
    /// For tests: how long to wait before that.
    fn check_interval(&self) -> Option<Duration>;
}

type Held<P> = <<P as Turnstile>::Lock as Target>::Held;

/// Takes the lock if it can be had without waiting for anybody but those who are on their way through the gate.
pub(crate) fn try_pass<P: Turnstile>(
    queues: &'static WaitQueues<P::Lock>,
    turnstile: &P,
) -> Result<Option<Held<P>>> {
    let (gate, lock) = (turnstile.gate(), turnstile.lock());
    let mut pauses = PASSING_PAUSES.into_iter();
    loop {
        if let Some(_passing) = try_now(queues, gate)? {
            return try_now(queues, lock);
        }
        // The holder of the gate waits, if the lock is not available: waiting for it would not
        // help.
        match try_now(queues, lock)? {
            None => return Ok(None),
            Some(probe) => lock.give_back(probe),
        }
        match pauses.next() {
            Some(Duration::ZERO) => std::thread::yield_now(),
            Some(pause) => std::thread::sleep(pause),
            None => break,
        }
    }
    if turnstile.is_gate_stopped() { lock.attempt() } else { Ok(None) }
}

/// Waits in the calling thread, until the deadline. That is asked for when the first try was in vain.
pub(crate) fn pass<P: Turnstile>(
    queues: &'static WaitQueues<P::Lock>,
    turnstile: &Arc<P>,
    deadline: impl FnOnce() -> Deadline,
    notice: Option<&WaitCallback>,
) -> Result<Outcome<Held<P>>> {
    let mut wait = TurnstileWait::new(queues, Arc::clone(turnstile));
    if let Some(held) = wait.arrive()? {
        return Ok(Outcome::Held(held));
    }
    let deadline = deadline();
    if deadline.is_over() {
        let is_in_gate = matches!(wait.stage, Stage::Passing { .. });
        drop(wait);
        let held = if is_in_gate { None } else { try_pass(queues, &**turnstile)? };
        return Ok(held.map_or(Outcome::TimedOut(Duration::ZERO), Outcome::Held));
    }
    let lock = turnstile.lock();
    if deadline.is_never() && notice.is_none() && lock.can_block_here() {
        // In turn at the gate, and then in the kernel (W3): no wake-up is lost there, and who lets go or dies
        // grants it on. Should this thread die, so does its process, and with it the hold of the gate.
        let _passing = match std::mem::replace(&mut wait.stage, Stage::Done) {
            Stage::Passing { _gate: passing, .. } => passing,
            Stage::AtGate(at_gate) => match wait_here(at_gate, deadline, None)? {
                Outcome::Held(Passed::Gate(passing)) => passing,
                Outcome::Held(Passed::Lock(held)) => return Ok(Outcome::Held(held)),
                Outcome::TimedOut(waited) => return Ok(Outcome::TimedOut(waited)),
            },
            Stage::New | Stage::Done => return Ok(Outcome::TimedOut(Duration::ZERO)), // cannot be: it has arrived
        };
        return lock.block_here().map(Outcome::Held);
    }
    wait_here(wait, deadline, notice)
}

/// When who stands at the gate looks past it.
fn look_at<P: Turnstile>(turnstile: &P) -> Instant {
    let (now, span) = (now(), turnstile.check_interval().unwrap_or(QUEUED_CHECK_INTERVAL));
    now.checked_add(span).unwrap_or(now + QUEUED_CHECK_INTERVAL)
}

/// One who stands at the gate.
struct AtGate<P: Turnstile> {
    line: QueuedWaiter<P::Lock>,
    turnstile: Arc<P>,
    look_at: Instant,
    /// How many looks until the next thorough one, and from that to the one after.
    looks: (u32, u32),
}

impl<P: Turnstile> AtGate<P> {
    fn new(line: QueuedWaiter<P::Lock>, turnstile: &Arc<P>) -> Self {
        Self {
            line,
            look_at: look_at(&**turnstile),
            turnstile: Arc::clone(turnstile),
            looks: (1, 1),
        }
    }

    fn look_past(&mut self) -> Result<Option<Held<P>>> {
        let (left, span) = &mut self.looks;
        *left -= 1;
        let thorough = *left == 0;
        if thorough {
            *span = (*span * 2).min(MAX_CHECK_FACTOR);
            *left = *span;
        }
        match self.turnstile.take_unheld()? {
            None if thorough && self.turnstile.is_gate_stopped() => self.turnstile.lock().attempt(),
            taken => Ok(taken),
        }
    }
}

/// What was had at the gate.
enum Passed<P: Turnstile> {
    Gate(Held<P>),
    /// The lock itself, past a gate that does not open (R3).
    Lock(Held<P>),
}

impl<P: Turnstile> Waiter for AtGate<P> {
    type Held = Passed<P>;

    /// W1 is the line's; the look past the gate is at a time of its own.
    fn poll(&mut self, waker: &Waker) -> Poll<Result<Passed<P>>> {
        if let Poll::Ready(gate) = self.line.poll(waker) {
            return Poll::Ready(gate.map(Passed::Gate));
        }
        if self.look_at > now() {
            return Poll::Pending;
        }
        let seen = self.look_past();
        self.look_at = look_at(&*self.turnstile);
        match seen.transpose() {
            Some(held) => Poll::Ready(held.map(Passed::Lock)),
            None => Poll::Pending,
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        [self.line.next_tick(), Some(self.look_at)].into_iter().flatten().min()
    }

    fn last_chance(&mut self) -> Result<Option<Passed<P>>> {
        if let Some(gate) = self.line.last_chance()? {
            return Ok(Some(Passed::Gate(gate)));
        }
        // Not at once: who gives up after some microseconds, and comes again, would pass those who wait longer.
        let had = if self.look_at <= now() {
            self.look_past()?
        } else if self.turnstile.is_gate_stopped() {
            self.turnstile.lock().attempt()?
        } else {
            None
        };
        Ok(had.map(Passed::Lock))
    }
}

/// One who waits for the lock behind the gate. Dropping it gives up both.
pub(crate) struct TurnstileWait<P: Turnstile> {
    queues: &'static WaitQueues<P::Lock>,
    turnstile: Arc<P>,
    stage: Stage<P>,
}

enum Stage<P: Turnstile> {
    New,
    AtGate(AtGate<P>),
    /// With the gate in hand. Given back in this order.
    Passing {
        line: QueuedWaiter<P::Lock>,
        _gate: Held<P>,
    },
    /// Over: had, failed or given up.
    Done,
}

impl<P: Turnstile> Unpin for TurnstileWait<P> {}

impl<P: Turnstile> TurnstileWait<P> {
    pub(crate) fn new(queues: &'static WaitQueues<P::Lock>, turnstile: Arc<P>) -> Self {
        Self { queues, turnstile, stage: Stage::New }
    }

    /// Takes the lock, or stands where that was in vain.
    fn arrive(&mut self) -> Result<Option<Held<P>>> {
        let (gate, lock) = (self.turnstile.gate(), self.turnstile.lock());
        // In arrival order within the process: where somebody waits for anything, the line knows who is first.
        let tries = self.queues.is_empty();
        let passing = if tries { gate.attempt()? } else { None };
        self.stage = if let Some(gate) = passing {
            if let Some(held) = lock.attempt()? {
                return Ok(Some(held));
            }
            Stage::Passing {
                line: QueuedWaiter::after_a_try(self.queues, Arc::clone(lock)),
                _gate: gate,
            }
        } else {
            let new = if tries { QueuedWaiter::after_a_try } else { QueuedWaiter::new };
            Stage::AtGate(AtGate::new(new(self.queues, Arc::clone(gate)), &self.turnstile))
        };
        Ok(None)
    }

    fn step(&mut self, waker: &Waker) -> Poll<Result<Held<P>>> {
        loop {
            match &mut self.stage {
                Stage::New => {
                    if let Some(held) = self.arrive().transpose() {
                        return Poll::Ready(held);
                    }
                }
                Stage::AtGate(at_gate) => match at_gate.poll(waker) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(Passed::Lock(held))) => return Poll::Ready(Ok(held)),
                    Poll::Ready(Ok(Passed::Gate(gate))) => {
                        let line =
                            QueuedWaiter::new(self.queues, Arc::clone(self.turnstile.lock()));
                        self.stage = Stage::Passing { line, _gate: gate };
                    }
                },
                Stage::Passing { line, .. } => return line.poll(waker),
                Stage::Done => return Poll::Pending,
            }
        }
    }
}

impl<P: Turnstile> Waiter for TurnstileWait<P> {
    type Held = Held<P>;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<Held<P>>> {
        let polled = self.step(waker);
        if polled.is_ready() {
            self.stage = Stage::Done; // and with it the gate is let go, now that the lock is held
        }
        polled
    }

    fn next_tick(&self) -> Option<Instant> {
        match &self.stage {
            Stage::AtGate(at_gate) => at_gate.next_tick(),
            Stage::Passing { line, .. } => line.next_tick(),
            Stage::New | Stage::Done => None,
        }
    }

    /// W2. Both lines are left under the queue's mutex; who is granted the gate at this moment tries the lock once.
    fn last_chance(&mut self) -> Result<Option<Held<P>>> {
        let result = match &mut self.stage {
            Stage::AtGate(at_gate) => match at_gate.last_chance()? {
                Some(Passed::Lock(held)) => Some(held),
                Some(Passed::Gate(_gate)) => self.turnstile.lock().attempt()?,
                None => None,
            },
            Stage::Passing { line, .. } => line.last_chance()?,
            Stage::New | Stage::Done => None,
        };
        self.stage = Stage::Done;
        Ok(result)
    }
}
