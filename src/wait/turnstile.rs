//! Waiting for a lock behind a turnstile, which is another lock (the gate file). A waiter queues
//! for the turnstile, and while it holds that it queues for the lock. So at most one waits for the
//! lock, and the turnstile orders waiters in both modes (rules R1 to R3).

#![expect(
    clippy::disallowed_methods,
    reason = "a try waits less than a millisecond for waiters that pass the turnstile"
)]

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::hooks::{in_span, must_return};
use super::queue::WaitQueues;
use super::queued_waiter::QueuedWaiter;
use super::{
    Limit, Order, OrderedWait, Outcome, OwnCheck, Target, Turn, WaitHooks, Waiter, check_cancelled,
    try_now, wait_here,
};
use crate::error::Result;
use crate::sys::WatchedFifo;
use crate::trace::PollReason;

/// The maximum number of own checks from one thorough check to the next. A thorough check costs
/// more than a system call, and each failed one doubles the number: a thousand waiters all read a
/// list that has a line for each of them.
const MAX_CHECK_FACTOR: u32 = 32;
/// A process that passes the turnstile holds it for some microseconds, and one that waits in it
/// holds it for longer than the sum of these pauses. Zero lets other threads run.
const PASSING_PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::ZERO, Duration::from_micros(50), Duration::from_micros(50)];

/// How often the waiter at the front tries the gate before it waits for it in the kernel: a caller
/// that only tries, or comes first, has it for some microseconds.
const GATE_ATTEMPTS: u32 = 4;

/// How often a caller tries the gate that finds it held and no other waiter.
const PASSING_ATTEMPTS: u32 = 16;

/// A lock and its turnstile.
pub(crate) trait Turnstile: Send + Sync + 'static {
    type Lock: Target;
    type Order: Order;

    /// The order in which waiters come to the gate; `None`: the kernel's.
    fn order(&self) -> Option<&Arc<Self::Order>>;

    fn gate(&self) -> &Arc<Self::Lock>;
    fn lock(&self) -> &Arc<Self::Lock>;
    /// Acquires the lock without the turnstile if no process holds it in any mode. Never blocks.
    /// Only for rare checks (R3).
    fn take_unheld(&self) -> Result<Option<Held<Self>>>;
    /// Whether the process in the turnstile is known not to run. Costs more than a system call.
    fn is_gate_stopped(&self) -> bool;
    /// For tests: how long a waiter queues before it checks the lock itself.
    fn check_interval(&self) -> Option<Duration>;
}

type Held<P> = <<P as Turnstile>::Lock as Target>::Held;
type Ticket<P> = <<P as Turnstile>::Order as Order>::Ticket;

/// Acquires the lock without waiting for any process except those that are passing the turnstile.
pub(crate) fn try_pass<P: Turnstile>(
    queues: &'static WaitQueues<P::Lock>,
    turnstile: &P,
) -> Result<Option<Held<P>>> {
    let (gate, lock) = (turnstile.gate(), turnstile.lock());
    if turnstile.order().is_some_and(|order| order.refuses_a_try()) {
        return Ok(None);
    }
    let mut pauses = PASSING_PAUSES.into_iter();
    loop {
        if let Some(_passing) = try_now(queues, gate)? {
            return try_now(queues, lock);
        }
        // If the lock is not available, the process in the turnstile waits for it: waiting for that
        // process would not help.
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

/// Tries the gate as the waiter at the front, which has no other waiter with a ticket to compete
/// with.
pub(crate) fn attempt_at_front<T: Target>(gate: &T) -> Result<Option<T::Held>> {
    attempt_while(gate, GATE_ATTEMPTS, || true)
}

/// Tries the gate that often, and lets other threads run in between, while `goes_on`.
fn attempt_while<T: Target>(
    gate: &T,
    attempts: u32,
    goes_on: impl Fn() -> bool,
) -> Result<Option<T::Held>> {
    for _ in 1..attempts {
        if let Some(held) = gate.attempt()? {
            return Ok(Some(held));
        }
        if !goes_on() {
            return Ok(None);
        }
        std::thread::yield_now();
    }
    gate.attempt()
}

/// Waits in the calling thread, until the deadline. The clock is read only if the first try
/// fails.
pub(crate) fn pass<P: Turnstile>(
    queues: &'static WaitQueues<P::Lock>,
    turnstile: &Arc<P>,
    limit: Limit,
    hooks: Option<&WaitHooks>,
) -> Result<Outcome<Held<P>>> {
    check_cancelled(hooks)?;
    let mut wait = TurnstileWait::new(queues, Arc::clone(turnstile));
    if let Some(held) = wait.arrive()? {
        return Ok(Outcome::Held(held));
    }
    let deadline = limit.deadline();
    if let Some(waited) = deadline.waited_if_over() {
        let is_in_gate = matches!(wait.stage, Stage::Passing { .. });
        drop(wait);
        let held = if is_in_gate { None } else { try_pass(queues, &**turnstile)? };
        return Ok(held.map_or(Outcome::TimedOut(waited), Outcome::Held));
    }
    let lock = turnstile.lock();
    if deadline.is_never() && !must_return(hooks) && lock.can_block_here() {
        // The waiter queues for the turnstile, and then blocks in the kernel. No wake-up is lost
        // there: the kernel grants the lock when its holder releases it or dies. If this process
        // dies, the kernel unlocks the turnstile (W3).
        return in_span(hooks, || {
            let _passing = match std::mem::replace(&mut wait.stage, Stage::Done) {
                Stage::Passing { _gate: passing, _ticket: ticket, .. } => (passing, ticket),
                Stage::AtGate(at_gate) => match wait_here(*at_gate, deadline, None)? {
                    Outcome::Held(Passed::Gate(passing, ticket)) => (passing, ticket),
                    Outcome::Held(Passed::Lock(held)) => return Ok(Outcome::Held(held)),
                    Outcome::TimedOut(waited) => return Ok(Outcome::TimedOut(waited)),
                },
                // Unreachable after `arrive`.
                Stage::New | Stage::Done => return Ok(Outcome::TimedOut(Duration::ZERO)),
            };
            lock.block_here().map(Outcome::Held)
        });
    }
    wait_here(wait, deadline, hooks)
}

/// A waiter that queues for the turnstile.
struct AtGate<P: Turnstile> {
    queues: &'static WaitQueues<P::Lock>,
    turnstile: Arc<P>,
    queued: Queued<P>,
    check: OwnCheck,
    /// The number of checks until the next thorough one, and from that to the one after it.
    checks: (u32, u32),
}

/// Where a waiter is queued.
enum Queued<P: Turnstile> {
    /// In the order of tickets.
    InOrder(OrderedWait<P::Order>),
    /// In the kernel: without a ticket, or at the front while a caller without one is at the gate.
    InKernel(QueuedWaiter<P::Lock>, Option<Ticket<P>>),
}

impl<P: Turnstile> Unpin for AtGate<P> {}

impl<P: Turnstile> AtGate<P> {
    fn new(queues: &'static WaitQueues<P::Lock>, turnstile: &Arc<P>, has_tried: bool) -> Self {
        let gate = turnstile.gate();
        let place = if let Some(order) = turnstile.order() {
            Queued::InOrder(OrderedWait::new(Arc::clone(order), turnstile.check_interval()))
        } else {
            let new = if has_tried { QueuedWaiter::after_a_try } else { QueuedWaiter::new };
            Queued::InKernel(new(queues, Arc::clone(gate)), None)
        };
        Self {
            queues,
            queued: place,
            check: OwnCheck::new(turnstile.check_interval()),
            turnstile: Arc::clone(turnstile),
            checks: (1, 1),
        }
    }

    /// Waits in the order of tickets, and then for the gate.
    fn poll_queued(&mut self, waker: &Waker) -> Poll<Result<Passed<P>>> {
        loop {
            let gate = self.turnstile.gate();
            match &mut self.queued {
                Queued::InOrder(wait) => match wait.poll() {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Turn::Now(ticket)) => {
                        if let Some(held) = attempt_at_front(&**gate)? {
                            return Poll::Ready(Ok(Passed::Gate(held, Some(ticket))));
                        }
                        let queued = QueuedWaiter::after_a_try(self.queues, Arc::clone(gate));
                        self.queued = Queued::InKernel(queued, Some(ticket));
                    }
                    Poll::Ready(Turn::Unordered) => {
                        let queued = QueuedWaiter::new(self.queues, Arc::clone(gate));
                        self.queued = Queued::InKernel(queued, None);
                    }
                },
                Queued::InKernel(queued, ticket) => {
                    let polled = queued.poll(waker);
                    return polled.map(|held| Ok(Passed::Gate(held?, ticket.take())));
                }
            }
        }
    }

    fn check_lock(&mut self) -> Result<Option<Held<P>>> {
        let (left, span) = &mut self.checks;
        *left -= 1;
        let thorough = *left == 0;
        if thorough {
            *span = (*span * 2).min(MAX_CHECK_FACTOR);
            *left = *span;
        }
        match self.turnstile.take_unheld()? {
            None => {
                self.check.confirms(false);
                if thorough && self.turnstile.is_gate_stopped() {
                    return self.turnstile.lock().attempt();
                }
                Ok(None)
            }
            // The waiter whose turn it is may be about to acquire it.
            Some(held) if self.turnstile.order().is_some() && !self.check.confirms(true) => {
                self.turnstile.lock().give_back(held);
                Ok(None)
            }
            taken => Ok(taken),
        }
    }
}

/// The lock that a waiter in the turnstile's queue has acquired.
enum Passed<P: Turnstile> {
    Gate(Held<P>, Option<Ticket<P>>),
    /// The lock itself, since the process in the turnstile does not run (R3).
    Lock(Held<P>),
}

impl<P: Turnstile> Waiter for AtGate<P> {
    type Held = Passed<P>;

    /// The queue follows rule W1; the check of the lock has its own time.
    fn poll(&mut self, waker: &Waker) -> Poll<Result<Passed<P>>> {
        if let Poll::Ready(passed) = self.poll_queued(waker) {
            return Poll::Ready(passed);
        }
        if !self.check.is_due() {
            return Poll::Pending;
        }
        match self.check_lock().transpose() {
            Some(held) => Poll::Ready(held.map(Passed::Lock)),
            None => Poll::Pending,
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        let queued = match &self.queued {
            Queued::InOrder(wait) => wait.next_tick(),
            Queued::InKernel(queued, _) => queued.next_tick(),
        };
        [queued, Some(self.check.at())].into_iter().flatten().min()
    }

    fn sources(&self) -> &[Arc<WatchedFifo>] {
        match &self.queued {
            Queued::InOrder(wait) => wait.sources(),
            Queued::InKernel(..) => &[],
        }
    }

    fn polls_because(&self) -> Option<PollReason> {
        match &self.queued {
            Queued::InOrder(_) => None,
            Queued::InKernel(queued, _) => queued.polls_because(),
        }
    }

    fn last_chance(&mut self) -> Result<Option<Passed<P>>> {
        let gate = match &mut self.queued {
            Queued::InOrder(wait) => match wait.poll() {
                Poll::Ready(Turn::Now(ticket)) => {
                    let gate = self.turnstile.gate().attempt()?;
                    gate.map(|gate| Passed::Gate(gate, Some(ticket)))
                }
                _ => None,
            },
            Queued::InKernel(queued, ticket) => {
                queued.last_chance()?.map(|gate| Passed::Gate(gate, ticket.take()))
            }
        };
        if gate.is_some() {
            return Ok(gate);
        }
        // Not before that time: a caller that gives up after some microseconds, and tries again,
        // would pass waiters that have waited longer.
        let held = if self.check.is_due() {
            self.check_lock()?
        } else if self.turnstile.is_gate_stopped() {
            self.turnstile.lock().attempt()?
        } else {
            None
        };
        Ok(held.map(Passed::Lock))
    }
}

/// A waiter for the lock behind the turnstile. Dropping it gives up both.
pub(crate) struct TurnstileWait<P: Turnstile> {
    queues: &'static WaitQueues<P::Lock>,
    turnstile: Arc<P>,
    stage: Stage<P>,
}

enum Stage<P: Turnstile> {
    New,
    AtGate(Box<AtGate<P>>),
    /// The waiter holds the turnstile. The fields are dropped in this order.
    Passing {
        queued: QueuedWaiter<P::Lock>,
        _gate: Held<P>,
        /// Wakes the next waiter when it is dropped, last.
        _ticket: Option<Ticket<P>>,
    },
    /// The wait has ended: acquired, failed or given up.
    Done,
}

impl<P: Turnstile> Unpin for TurnstileWait<P> {}

impl<P: Turnstile> TurnstileWait<P> {
    pub(crate) fn new(queues: &'static WaitQueues<P::Lock>, turnstile: Arc<P>) -> Self {
        Self { queues, turnstile, stage: Stage::New }
    }

    /// Acquires the lock, or queues.
    fn arrive(&mut self) -> Result<Option<Held<P>>> {
        let (gate, lock) = (self.turnstile.gate(), self.turnstile.lock());
        // In the order of arrival: the queues of this process, and the tickets of all, know who is
        // first.
        let order = self.turnstile.order();
        let is_alone = || self.queues.is_empty() && order.is_none_or(|it| !it.may_have_waiters());
        let tries = is_alone();
        // Without a waiter with a ticket, the gate is held only by callers that pass it. A caller
        // that queued behind one of them would make all later ones queue.
        let attempts = if order.is_some() { PASSING_ATTEMPTS } else { 1 };
        let passing = if tries { attempt_while(&**gate, attempts, is_alone)? } else { None };
        let Some(passing) = passing else {
            self.stage = Stage::AtGate(AtGate::new(self.queues, &self.turnstile, tries).into());
            return Ok(None);
        };
        if let Some(held) = lock.attempt()? {
            return Ok(Some(held));
        }
        if order.is_some() {
            // It comes back with a ticket, for which the next waiter can wait.
            drop(passing);
            self.stage = Stage::AtGate(AtGate::new(self.queues, &self.turnstile, false).into());
        } else {
            let queued = QueuedWaiter::after_a_try(self.queues, Arc::clone(lock));
            self.stage = Stage::Passing { queued, _gate: passing, _ticket: None };
        }
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
                    Poll::Ready(Ok(Passed::Gate(gate, ticket))) => {
                        let queued =
                            QueuedWaiter::new(self.queues, Arc::clone(self.turnstile.lock()));
                        self.stage = Stage::Passing { queued, _gate: gate, _ticket: ticket };
                    }
                },
                Stage::Passing { queued, .. } => return queued.poll(waker),
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
            self.stage = Stage::Done; // drops the turnstile, now that the lock is held
        }
        polled
    }

    fn next_tick(&self) -> Option<Instant> {
        match &self.stage {
            Stage::AtGate(at_gate) => at_gate.next_tick(),
            Stage::Passing { queued, .. } => queued.next_tick(),
            Stage::New | Stage::Done => None,
        }
    }

    fn sources(&self) -> &[Arc<WatchedFifo>] {
        match &self.stage {
            Stage::AtGate(at_gate) => at_gate.sources(),
            Stage::New | Stage::Passing { .. } | Stage::Done => &[],
        }
    }

    fn polls_because(&self) -> Option<PollReason> {
        match &self.stage {
            Stage::AtGate(at_gate) => at_gate.polls_because(),
            Stage::Passing { queued, .. } => queued.polls_because(),
            Stage::New | Stage::Done => None,
        }
    }

    /// Leaves both queues under their mutex (W2). A waiter that is granted the turnstile at this
    /// moment tries the lock once.
    fn last_chance(&mut self) -> Result<Option<Held<P>>> {
        let result = match &mut self.stage {
            Stage::AtGate(at_gate) => match at_gate.last_chance()? {
                Some(Passed::Lock(held)) => Some(held),
                Some(Passed::Gate(_gate, _ticket)) => self.turnstile.lock().attempt()?,
                None => None,
            },
            Stage::Passing { queued, .. } => queued.last_chance()?,
            Stage::New | Stage::Done => None,
        };
        self.stage = Stage::Done;
        Ok(result)
    }
}
