//! Waiting for a lock on a network file system: the waiters of one host queue on that host first,
//! and only the one at the front sends requests to the server (rule W10).

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

use super::deadline::now;
use super::{
    Acquire, Limit, Order, OrderedWait, Outcome, Target, Turn, WaitHooks, Waiter, check_cancelled,
    wait_here,
};
use crate::error::Result;
use crate::sys::WatchedFifo;
use crate::trace::PollReason;

/// How often a waiter checks whether the waiter at the front waits for the server. It may be
/// stopped, or be a future that its executor does not poll any more. This asks no server.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A try of the lock that neither waits nor queues.
pub(crate) type TryNow<H> = Box<dyn Fn() -> Result<Option<H>> + Send + Sync>;

/// The queue of one host, and a local lock that its first waiter holds while it waits for the
/// server.
pub(crate) struct HostQueue<O, T> {
    order: Arc<O>,
    front: OnceBox<Option<Arc<T>>>,
    /// Opens the lock, or returns `None` if it cannot be opened.
    open_front: Box<dyn Fn() -> Option<T> + Send + Sync>,
}

impl<O: Order, T: Target> HostQueue<O, T> {
    pub(crate) fn new(
        order: Arc<O>,
        open_front: impl Fn() -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        Self { order, front: OnceBox::new(), open_front: Box::new(open_front) }
    }

    /// The lock of the waiter at the front. It is opened when a caller has to wait.
    fn front(&self) -> Option<&Arc<T>> {
        self.front.get_or_init(|| Box::new((self.open_front)().map(Arc::new))).as_ref()
    }
}

/// A waiter that first queues among the waiters of its host.
pub(crate) struct HostWait<O: Order, T: Target, W: Waiter> {
    queue: Arc<HostQueue<O, T>>,
    place: Place<O, T>,
    try_now: TryNow<W::Held>,
    check_at: Instant,
    /// Whether the last check found no waiter of this host that waits for the server.
    was_unattended: bool,
    /// Not polled before its turn.
    waiter: W,
}

enum Place<O: Order, T: Target> {
    Queued(OrderedWait<O>),
    /// This waiter waits for the server: it is at the front (with its ticket), there is no queue on
    /// this host, or the waiter at the front does not wait (then this one is still queued).
    AtServer {
        _ticket: Option<O::Ticket>,
        _queued: Option<OrderedWait<O>>,
        _front: Option<T::Held>,
    },
    Done,
}

impl<O: Order, T: Target, W: Waiter> Unpin for HostWait<O, T, W> {}

/// Waits in the calling thread, until the deadline. `arrive` is the try of a caller that finds no
/// other waiter of its host.
pub(crate) fn wait_on_host<O: Order, T: Target, W: Waiter>(
    wait: HostWait<O, T, W>,
    arrive: impl FnOnce() -> Result<Option<W::Held>>,
    limit: Limit,
    hooks: Option<&WaitHooks>,
) -> Result<Outcome<W::Held>> {
    check_cancelled(hooks)?;
    if !wait.queue.order.may_have_waiters() {
        if let Some(held) = arrive()? {
            return Ok(Outcome::Held(held));
        }
    }
    let deadline = limit.deadline();
    if let Some(waited) = deadline.waited_if_over() {
        let held = (wait.try_now)()?;
        return Ok(held.map_or(Outcome::TimedOut(waited), Outcome::Held));
    }
    wait_here(wait, deadline, hooks)
}

/// Waits asynchronously, first among the waiters of this host if they have a queue.
pub(crate) async fn acquire_on_host<O: Order, T: Target, W: Waiter>(
    queue: Option<&Arc<HostQueue<O, T>>>,
    try_now: impl FnOnce() -> TryNow<W::Held>,
    waiter: W,
    hooks: Option<WaitHooks>,
) -> Result<W::Held> {
    match queue {
        Some(queue) => Acquire::new(HostWait::new(queue, try_now(), waiter), hooks).await,
        None => Acquire::new(waiter, hooks).await,
    }
}

impl<O: Order, T: Target, W: Waiter> HostWait<O, T, W> {
    pub(crate) fn new(queue: &Arc<HostQueue<O, T>>, try_now: TryNow<W::Held>, waiter: W) -> Self {
        Self {
            queue: Arc::clone(queue),
            place: Place::Queued(OrderedWait::new(Arc::clone(&queue.order), None)),
            try_now,
            check_at: now() + CHECK_INTERVAL,
            was_unattended: false,
            waiter,
        }
    }

    /// `Ready`: it is this waiter's turn.
    fn poll_queued(&mut self) -> Poll<()> {
        let Place::Queued(wait) = &mut self.place else { return Poll::Ready(()) };
        let (ticket, queued) = match wait.poll() {
            Poll::Ready(Turn::Now(ticket)) => (Some(ticket), None),
            Poll::Ready(Turn::Unordered) => (None, None),
            Poll::Pending => {
                let now = now();
                if self.check_at > now {
                    return Poll::Pending;
                }
                self.check_at = now + CHECK_INTERVAL;
                // A waiter whose turn it is holds the front a moment later. If the front cannot be
                // checked, the queue goes on without that check.
                let is_free = self.queue.front().is_some_and(|it| it.is_free().unwrap_or(false));
                let was_free = std::mem::replace(&mut self.was_unattended, is_free);
                if self.queue.order.refuses_a_try() && !(is_free && was_free) {
                    return Poll::Pending; // the waiter at the front is at work
                }
                match std::mem::replace(&mut self.place, Place::Done) {
                    Place::Queued(queued) => (None, Some(queued)),
                    _ => (None, None),
                }
            }
        };
        let front = self.queue.front().and_then(|front| front.attempt().ok()?);
        self.place = Place::AtServer { _ticket: ticket, _queued: queued, _front: front };
        Poll::Ready(())
    }
}

impl<O: Order, T: Target, W: Waiter> Waiter for HostWait<O, T, W> {
    type Held = W::Held;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<W::Held>> {
        if self.poll_queued().is_pending() {
            return Poll::Pending;
        }
        let polled = self.waiter.poll(waker);
        if polled.is_ready() {
            self.place = Place::Done;
        }
        polled
    }

    fn next_tick(&self) -> Option<Instant> {
        match &self.place {
            Place::Queued(wait) => {
                [wait.next_tick(), Some(self.check_at)].into_iter().flatten().min()
            }
            Place::AtServer { .. } => self.waiter.next_tick(),
            Place::Done => None,
        }
    }

    fn sources(&self) -> &[Arc<WatchedFifo>] {
        match &self.place {
            Place::Queued(wait) => wait.sources(),
            Place::AtServer { .. } => self.waiter.sources(),
            Place::Done => &[],
        }
    }

    fn polls_because(&self) -> Option<PollReason> {
        match &self.place {
            Place::AtServer { .. } => self.waiter.polls_because(),
            Place::Queued(_) | Place::Done => None,
        }
    }

    /// A waiter that is not at the front tries only if the one at the front is stopped.
    fn last_chance(&mut self) -> Result<Option<W::Held>> {
        let held = match &self.place {
            Place::AtServer { .. } => self.waiter.last_chance(),
            Place::Queued(_) if !self.queue.order.refuses_a_try() => (self.try_now)(),
            Place::Queued(_) | Place::Done => Ok(None),
        };
        self.place = Place::Done;
        held
    }
}
