//! Waiting for one lock in a queue. For each key (a file and a mode) the process has one queue of
//! waiters and at most one helper thread, which blocks in the kernel on their behalf and hands the
//! lock to the first of them.
//!
//! Rules Q1 to Q8 of `docs/INTERNALS.md`, in short:
//!
//! * Q1: One mutex per [`WaitQueues`] guards which waiters are queued, which were granted the lock,
//!   and whether there is a helper. So "granted" and "gave up" exclude each other.
//! * Q2: A queue exists exactly as long as its helper. A waiter that joins finds a helper or starts
//!   one, so none is queued without a thread that is blocked in the kernel for it.
//! * Q3: The helper hands the lock to the first waiter, and blocks again if there are more. If
//!   there is no waiter, it unlocks and removes the queue, both under the mutex.
//! * Q4: A waiter that gives up leaves the queue under the mutex. If it was granted the lock
//!   before, a thread returns a guard after all, and a dropped future passes the lock on to the
//!   next waiter, or unlocks.
//! * Q5: A helper that fails, or cannot be started, dissolves its queue: its waiters are woken and
//!   wait alone from then on, by polling. A helper that finds the file replaced dissolves it too,
//!   and the waiters begin again.
//! * Q6: Wakers, and values that are dropped, may run a caller's code: never under the mutex.
//! * Q7: A try takes over a lock that a helper without waiters has been granted.
//! * Q8: The process keeps few helpers that no waiter needs: beyond that number, a wait gets its
//!   own helper only after it has lasted a while.

#![allow(
    clippy::disallowed_methods,
    reason = "a helper sleeps between two tries; not `expect`, since shuttle has its own `sleep`"
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::backoff::Backoff;
use super::{Target, deadline, wake};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sorted_map::SortedMap;
use crate::sync;

/// The maximum number of helpers that a waiter needs, and of all helpers. Each is a thread and has
/// a descriptor.
const MAX_NEEDED: usize = 64;
const MAX_HELPERS: usize = 256;
/// While this many helpers are no longer needed, a wait must last for a while before it gets its
/// own. A helper that is blocked in the kernel cannot be ended, so waits that give up soon should
/// leave none.
const MAX_IDLE: usize = 8;
static HELPERS: AtomicUsize = AtomicUsize::new(0);
/// A helper sleeps in one system call: the default of 2 MiB would waste address space.
pub(super) const STACK: usize = 256 * 1024;

/// The time within which a future that its executor may set aside must take a lock that it was
/// granted, if other waiters need it. Otherwise the grant is revoked, and the future waits again
/// (rule Q9).
const GRANT_TIMEOUT: Duration = Duration::from_secs(1);

/// The next ticket in any queue. It is not reset in a forked copy, so a ticket of the other process
/// never belongs to a waiter there.
static TICKETS: AtomicU64 = AtomicU64::new(0);

/// The pauses of a helper that yields to waiters that were woken before it: waking a thread takes
/// 10 to 100 microseconds. There are only two, since two helpers that yield to each other would
/// delay both.
const YIELD_PAUSES: [Duration; 2] = [Duration::from_micros(50); 2];

/// All queues for one kind of target.
pub(crate) struct WaitQueues<T: Target> {
    state: ForkSafe<State<T>>,
    /// The number of queues, which may be read without the mutex.
    count: AtomicUsize,
    /// How often a helper has unlocked a lock that no waiter needed.
    unwanted: AtomicU64,
}

struct State<T: Target> {
    /// Whether this state is new, in a process forked from one that had its own.
    is_forked: bool,
    queues: SortedMap<T::Key, WaitQueue<T::Request>>,
    states: SortedMap<Ticket, WaiterState<T::Held>>,
}

struct WaitQueue<R> {
    /// The helper of this queue, identified by the ticket of the waiter that started it. A later
    /// queue under the same key has another helper.
    helper: Ticket,
    waiters: VecDeque<Ticket>,
    /// The request that the helper is blocked for, while it is blocked.
    request: Option<Arc<R>>,
}

impl<T: Target> State<T> {
    const fn new(is_forked: bool) -> Self {
        Self { is_forked, queues: SortedMap::new(), states: SortedMap::new() }
    }

    /// The queue of that helper, or `None` if it no longer has one.
    fn queue_of(&mut self, helper: &Helper<T>) -> Option<&mut WaitQueue<T::Request>> {
        self.queues.get_mut(&helper.key).filter(|queue| queue.helper == helper.number)
    }

    /// How many helpers are blocked although no waiter needs them.
    fn idle(&self) -> usize {
        self.queues.values().filter(|queue| queue.waiters.is_empty()).count()
    }

    fn enqueue(&mut self, key: &T::Key, ticket: Ticket, waiter: QueueEntry) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.waiters.push_back(ticket);
            self.states.insert(ticket, WaiterState::Waiting(waiter));
        }
    }
}

/// A place in a queue. Never used twice.
pub(super) type Ticket = u64;

enum WaiterState<H> {
    Waiting(QueueEntry),
    /// The lock, and whether the helper waits until it is taken.
    Granted(H, bool),
    /// The queue was dissolved.
    Dissolved(Why),
}

struct QueueEntry {
    waker: Waker,
    /// Whether a grant must be taken soon: see [`GRANT_TIMEOUT`].
    is_brief: bool,
}

/// Why a queue was dissolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// No helper can wait: the waiter polls.
    NoHelper,
    /// The file was replaced: the waiter begins again.
    Replaced,
}

/// The outcome of joining a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    Queued(Ticket),
    /// There are many helpers already: the caller tries again when the wait has lasted a while.
    Later,
    /// No helper can be started.
    NoHelper,
}

/// The state of a ticket.
pub(super) enum TicketState<H> {
    Waiting,
    Granted(H),
    Dissolved(Why),
}

impl<T: Target> WaitQueues<T> {
    pub(crate) const fn new() -> Self {
        // A forked copy has neither the helpers nor the waiters' threads. A lock that was granted
        // before is closed there without being unlocked (rule 4).
        let state = ForkSafe::new(State::new(false), |()| State::new(true));
        Self { state, count: AtomicUsize::new(0), unwanted: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_forked) {
            self.count.store(0, Ordering::Release);
            HELPERS.store(0, Ordering::Relaxed);
        }
        state
    }

    /// Whether there is no queue.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// How often a helper has unlocked a lock that no waiter needed: a try before that may have
    /// failed because of the helper (Q7).
    pub(crate) fn unwanted(&self) -> u64 {
        self.unwanted.load(Ordering::Acquire)
    }

    /// Whether there is a helper for this key.
    pub(crate) fn has(&self, key: &T::Key) -> bool {
        !self.is_empty() && self.state().queues.contains_key(key)
    }

    /// Joins the queue, with its helper or a new one (Q2, Q8). `has_lasted`: whether the wait has
    /// lasted long enough to get its own helper.
    pub(super) fn join(
        &'static self,
        target: &Arc<T>,
        key: &T::Key,
        waker: &Waker,
        is_brief: bool,
        has_lasted: bool,
    ) -> Joined {
        let waiting = QueueEntry { waker: waker.clone(), is_brief };
        let mut state = self.state();
        let has_helper = state.queues.contains_key(key);
        if !has_helper {
            let idle = state.idle();
            if idle >= MAX_IDLE && !has_lasted {
                return Joined::Later;
            }
            // The helper is counted before it starts, and `Helper::drop` ends that.
            let most = MAX_HELPERS.min(MAX_NEEDED + idle);
            let reserved = HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |helpers| {
                (helpers < most).then_some(helpers + 1)
            });
            if reserved.is_err() {
                return Joined::NoHelper;
            }
        }
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        if !has_helper {
            let queue = WaitQueue { helper: ticket, waiters: VecDeque::new(), request: None };
            state.queues.insert(key.clone(), queue);
        }
        state.enqueue(key, ticket, waiting);
        self.count.store(state.queues.len(), Ordering::Release);
        drop(state);
        if !has_helper {
            let helper = Helper {
                queues: self,
                number: ticket,
                key: key.clone(),
                target: Arc::clone(target),
                why: Why::NoHelper,
            };
            // If it does not start, the closure is dropped, and `Helper` with it: that dissolves
            // the queue (Q5), in which there may be other waiters by now.
            let _ = sync::start("flockwork-wait", STACK, move || helper.run());
        }
        Joined::Queued(ticket)
    }

    /// Whether a helper that no waiter needs has been granted the lock of `key`, or would be at
    /// this moment (Q7). It hands the lock over soon, or unlocks it.
    pub(super) fn has_leftover(&self, target: &T, key: &T::Key) -> bool {
        !self.is_empty() && Self::is_granted(&self.state(), target, key)
    }

    /// If there is such a helper, joins its queue as the first waiter (Q7).
    pub(super) fn join_leftover(&self, target: &T, key: &T::Key, waker: &Waker) -> Option<Ticket> {
        if self.is_empty() {
            return None;
        }
        let waiting = QueueEntry { waker: waker.clone(), is_brief: false };
        let mut state = self.state();
        if !Self::is_granted(&state, target, key) {
            return None;
        }
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        state.enqueue(key, ticket, waiting);
        Some(ticket)
    }

    fn is_granted(state: &State<T>, target: &T, key: &T::Key) -> bool {
        let queue = state.queues.get(key).filter(|queue| queue.waiters.is_empty());
        let request = queue.and_then(|queue| queue.request.as_ref());
        request.is_some_and(|request| target.is_granted(request))
    }

    /// Checks whether the wait is over. If not, `waker` is called when it is.
    pub(super) fn check(&self, ticket: Ticket, waker: &Waker) -> TicketState<T::Held> {
        let mut cloned = None;
        loop {
            let mut state = self.state();
            match (state.states.get_mut(&ticket), cloned.take()) {
                (Some(WaiterState::Waiting(old)), None) if !old.waker.will_wake(waker) => {
                    // Clone it without the mutex (Q6), then check again.
                    drop(state);
                    cloned = Some(waker.clone());
                }
                (Some(WaiterState::Waiting(old)), cloned) => {
                    let replaced = cloned.map(|new| std::mem::replace(&mut old.waker, new));
                    drop(state);
                    drop(replaced);
                    return TicketState::Waiting;
                }
                (_, unneeded) => {
                    let waiter = state.states.remove(&ticket);
                    drop(state);
                    drop(unneeded);
                    return match waiter {
                        Some(WaiterState::Granted(held, is_watched)) => {
                            self.was_taken(is_watched);
                            TicketState::Granted(held)
                        }
                        Some(WaiterState::Dissolved(why)) => TicketState::Dissolved(why),
                        // The ticket is the parent's, and this is a forked copy.
                        _ => TicketState::Dissolved(Why::Replaced),
                    };
                }
            }
        }
    }

    /// Leaves the queue. Returns the lock if it was granted before (Q4).
    pub(super) fn leave(&self, key: &T::Key, ticket: Ticket) -> Option<T::Held> {
        let mut state = self.state();
        let waiter = state.states.remove(&ticket);
        if let Some(WaiterState::Waiting(_)) = waiter {
            if let Some(queue) = state.queues.get_mut(key) {
                queue.waiters.retain(|other| *other != ticket);
            }
        }
        drop(state);
        match waiter {
            Some(WaiterState::Granted(held, is_watched)) => {
                self.was_taken(is_watched);
                Some(held)
            }
            _ => None,
        }
    }

    /// Wakes the helper that waits until what it granted is taken.
    fn was_taken(&self, is_watched: bool) {
        if is_watched {
            self.state.notify_all();
        }
    }

    /// Hands a lock that a waiter does not need any more to the next waiter, or releases it.
    pub(super) fn pass_on(&self, target: &T, key: &T::Key, held: T::Held) {
        let granted = Self::grant(&mut self.state(), key, held, false);
        // This may run a caller's code, so the mutex is not held (Q6).
        match granted {
            Ok(grant) => wake(grant.waker),
            Err(unwanted) => target.give_back(unwanted),
        }
    }

    /// Grants `held` to the first waiter, or returns it if there is none. `has_helper`: whether a
    /// helper can revoke the grant.
    fn grant(
        state: &mut State<T>,
        key: &T::Key,
        held: T::Held,
        has_helper: bool,
    ) -> std::result::Result<Grant, T::Held> {
        let Some(first) = state.queues.get_mut(key).and_then(|l| l.waiters.pop_front()) else {
            return Err(held);
        };
        let Some(WaiterState::Waiting(QueueEntry { waker, is_brief })) =
            state.states.remove(&first)
        else {
            // Unreachable: a queued ticket waits, since both change under one mutex (Q1).
            return Err(held);
        };
        let is_watched = is_brief && has_helper;
        state.states.insert(first, WaiterState::Granted(held, is_watched));
        Ok(Grant { waker, watched: is_watched.then_some(first) })
    }
}

/// A lock that was granted to the first waiter.
struct Grant {
    waker: Waker,
    /// The ticket, if the helper waits until the lock is taken.
    watched: Option<Ticket>,
}

/// The thread that blocks for a queue. However it is dropped (done, failed, panicked, never
/// started), it leaves no waiter queued without a helper.
struct Helper<T: Target> {
    queues: &'static WaitQueues<T>,
    number: Ticket,
    key: T::Key,
    target: Arc<T>,
    /// Why the queue is dissolved, if it is.
    why: Why,
}

/// The outcome of a helper's wait.
enum Obtained<T: Target> {
    Granted(Arc<T::Request>),
    Held(T::Held),
    /// There are no waiters left, and the queue is gone.
    Unwanted,
    Replaced,
}

impl<T: Target> Helper<T> {
    fn run(mut self) {
        loop {
            let obtained = self.obtain();
            let mut state = self.queues.state();
            let held = match obtained {
                Ok(Obtained::Granted(request)) => {
                    // From here on no try may take the request over, and no other thread has it
                    // (Q7).
                    drop(state.queue_of(&self).and_then(|queue| queue.request.take()));
                    Arc::into_inner(request).map(|request| self.target.granted(request))
                }
                Ok(Obtained::Held(held)) => Some(held),
                Ok(Obtained::Replaced) => None,
                // The error is not passed on: each waiter, which now waits alone, may get the same
                // error from its own attempts (Q5).
                Ok(Obtained::Unwanted) | Err(_) => return,
            };
            let Some(held) = held else {
                self.why = Why::Replaced;
                return;
            };
            let granted = WaitQueues::grant(&mut state, &self.key, held, true);
            // The check is made under the same mutex: a waiter that comes later starts another
            // helper (Q2, Q3).
            let is_last = match granted {
                Ok(Grant { waker, watched: Some(ticket) }) => {
                    drop(state);
                    wake(waker);
                    self.revoke_untaken(ticket);
                    state = self.queues.state();
                    self.end_if_empty(&mut state)
                }
                Ok(Grant { waker, watched: None }) => {
                    let is_last = self.end_if_empty(&mut state);
                    drop(state);
                    wake(waker);
                    is_last
                }
                Err(mut unwanted) => {
                    // Unlock it before the queue is gone, so that it makes no try of this process
                    // fail (Q7). The rest may take a while, or run a caller's code.
                    self.target.release(&mut unwanted);
                    self.queues.unwanted.fetch_add(1, Ordering::Release);
                    let is_last = self.end_if_empty(&mut state);
                    drop(state);
                    self.target.give_back(unwanted);
                    is_last
                }
            };
            if is_last {
                return;
            }
        }
    }

    /// Waits until the future with that ticket has taken the lock. A future that does not take it
    /// is not being polled, and may never be polled again: the lock is released, and the future
    /// waits again when it is polled (Q9).
    fn revoke_untaken(&self, ticket: Ticket) {
        let over = deadline::now() + GRANT_TIMEOUT;
        let mut state = self.queues.state();
        let mut left = GRANT_TIMEOUT;
        while matches!(state.states.get(&ticket), Some(WaiterState::Granted(..))) {
            if left.is_zero() {
                let untaken = state.states.insert(ticket, WaiterState::Dissolved(Why::Replaced));
                drop(state);
                if let Some(WaiterState::Granted(held, _)) = untaken {
                    self.target.give_back(held);
                    self.queues.unwanted.fetch_add(1, Ordering::Release);
                }
                return;
            }
            (state, _) = self.queues.state.wait(state, left);
            left = over.saturating_duration_since(deadline::now());
        }
    }

    /// Removes the queue if it has no waiter; returns whether this helper is done.
    fn end_if_empty(&self, state: &mut State<T>) -> bool {
        match state.queue_of(self) {
            Some(queue) if !queue.waiters.is_empty() => return false,
            Some(_) => {
                state.queues.remove(&self.key);
                self.queues.count.store(state.queues.len(), Ordering::Release);
            }
            None => {}
        }
        true
    }

    /// Blocks in the kernel; where the kernel's queue cannot be relied on, or another process of
    /// this host is blocked and only one may be, polls while there are waiters.
    fn obtain(&self) -> crate::error::Result<Obtained<T>> {
        if !self.target.must_poll() {
            self.yield_to_woken()?;
        }
        let mut backoff = Backoff::new(None);
        let start = deadline::now();
        loop {
            if self.target.may_block() {
                let Some(request) = self.target.prepare(&self.key)?.map(Arc::new) else {
                    return Ok(Obtained::Replaced);
                };
                // This process's tries use the request that the helper is blocked for (Q7).
                if let Some(queue) = self.queues.state().queue_of(self) {
                    queue.request = Some(Arc::clone(&request));
                }
                self.target.block(&request)?;
                return Ok(Obtained::Granted(request));
            }
            if self.end_if_empty(&mut self.queues.state()) {
                return Ok(Obtained::Unwanted);
            }
            if let Some(held) = self.target.attempt()? {
                return Ok(Obtained::Held(held));
            }
            let now = deadline::now();
            backoff.set_network(now.saturating_duration_since(start), 1);
            sync::sleep(backoff.next().saturating_duration_since(now));
            backoff.advance();
        }
    }
}

impl<T: Target> Helper<T> {
    /// Yields to waiters that the kernel has woken. The kernel grants a free lock to the next
    /// caller, even if it has woken waiters for it that have not run yet; then each waiter behind
    /// them is woken for nothing. So a helper that finds the lock free while other waiters exist
    /// pauses, but only a few times, since the woken waiters may have been stopped (S4).
    fn yield_to_woken(&self) -> crate::error::Result<()> {
        for pause in YIELD_PAUSES {
            if !self.target.should_yield() || !self.target.is_free()? {
                break;
            }
            sync::sleep(pause);
        }
        Ok(())
    }
}

impl<T: Target> Drop for Helper<T> {
    fn drop(&mut self) {
        // A try may have acquired the lock through the request: release it before that try is woken
        // (Q7).
        let request = self.queues.state().queue_of(self).and_then(|queue| queue.request.take());
        drop(request);
        let mut wakers = Vec::new();
        let mut state = self.queues.state();
        HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).ok();
        self.queues.unwanted.fetch_add(1, Ordering::Release);
        let stranded = state.queue_of(self).map(|queue| std::mem::take(&mut queue.waiters));
        self.end_if_empty(&mut state);
        for ticket in stranded.unwrap_or_default() {
            if let Some(WaiterState::Waiting(waiting)) =
                state.states.insert(ticket, WaiterState::Dissolved(self.why))
            {
                wakers.push(waiting.waker);
            }
        }
        drop(state);
        wakers.into_iter().for_each(wake);
    }
}
