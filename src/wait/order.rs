//! Waiting for one's turn in an exact order: each waiter is woken by the one ahead of it.

use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::deadline::now;
use crate::sys::WatchedFifo;

/// The pauses while another waiter takes its number, which takes less than a microsecond unless
/// that waiter is interrupted.
const MIN_PAUSE: Duration = Duration::from_micros(20);
const MAX_PAUSE: Duration = Duration::from_millis(5);
/// How often to check what no FIFO reports.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A queue in an exact order.
pub(crate) trait Order: Send + Sync + 'static {
    /// A place in the queue. Dropping it leaves the queue.
    type Ticket: Send;

    /// Whether waiters are ahead of a new caller, or there were some that have died.
    fn may_have_waiters(&self) -> bool;
    /// Whether a waiter is ahead of a caller that only tries. One that is stopped does not count.
    fn refuses_a_try(&self) -> bool;
    /// Joins the queue at its end; never blocks. `None`: there is no such queue.
    fn join(&self) -> Option<Self::Ticket>;
    /// A FIFO that loses its writer when the waiter ahead leaves; `None` at the front of the queue.
    /// An error means that it must be asked again soon.
    /// `thorough`: checks also what no FIFO reports.
    fn ahead(
        &self,
        ticket: &mut Self::Ticket,
        thorough: bool,
    ) -> io::Result<Option<Arc<WatchedFifo>>>;
}

/// A waiter's turn.
pub(crate) enum Turn<T> {
    Now(T),
    /// There is no such queue here.
    Unordered,
}

/// A waiter in such a queue.
pub(crate) struct OrderedWait<O: Order> {
    order: Arc<O>,
    stage: Stage<O::Ticket>,
    sources: Vec<Arc<WatchedFifo>>,
    check_interval: Duration,
}

enum Stage<T> {
    New,
    Queued { ticket: T, failures: u32, check_at: Instant, thorough_at: Instant },
    Done,
}

impl<O: Order> Unpin for OrderedWait<O> {}

impl<O: Order> OrderedWait<O> {
    /// `check_interval`: for tests, how often to check what no FIFO reports.
    pub(crate) fn new(order: Arc<O>, check_interval: Option<Duration>) -> Self {
        let check_interval = check_interval.unwrap_or(CHECK_INTERVAL);
        Self { order, stage: Stage::New, sources: Vec::new(), check_interval }
    }

    /// Polled again when a source reports something, or at `next_tick`.
    pub(crate) fn poll(&mut self) -> Poll<Turn<O::Ticket>> {
        let now = now();
        let (mut ticket, failures, mut thorough_at) =
            match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::New => match self.order.join() {
                    Some(ticket) => (ticket, 0, self.next_check(now)),
                    None => return Poll::Ready(Turn::Unordered),
                },
                Stage::Queued { ticket, failures, thorough_at, .. } => {
                    (ticket, failures, thorough_at)
                }
                Stage::Done => return Poll::Pending,
            };
        let thorough = thorough_at <= now;
        if thorough {
            thorough_at = self.next_check(now);
        }
        self.sources.clear();
        let (failures, check_at) = match self.order.ahead(&mut ticket, thorough) {
            Ok(None) => return Poll::Ready(Turn::Now(ticket)),
            Ok(Some(fifo)) => {
                self.sources.push(fifo);
                (0, thorough_at)
            }
            Err(_) => {
                let pause = MIN_PAUSE * 2_u32.pow(failures.min(8));
                (failures + 1, now + pause.min(MAX_PAUSE))
            }
        };
        self.stage = Stage::Queued { ticket, failures, check_at, thorough_at };
        Poll::Pending
    }

    fn next_check(&self, now: Instant) -> Instant {
        now.checked_add(self.check_interval).unwrap_or(now + CHECK_INTERVAL)
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Queued { check_at, .. } => Some(*check_at),
            Stage::New | Stage::Done => None,
        }
    }

    pub(crate) fn sources(&self) -> &[Arc<WatchedFifo>] {
        &self.sources
    }
}
