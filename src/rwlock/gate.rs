//! The lock of an [`RwLock`](super::RwLock) in one mode, behind the gate that orders its waiters
//! (rules R1 to R5).

use std::path::Path;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::file::lock_file::FileLock;
use crate::line::Line;
use crate::lock_request::{LockRequest, QUEUES};
use crate::sys::{Mode, WatchedFifo};
use crate::trace::PollReason;
use crate::wait::{QueuedWaiter, Turnstile, TurnstileWait, Waiter, try_pass};

pub(crate) const GATE: &str = ".gate";
/// The directory of the waiters' queue.
pub(crate) const QUEUE: &str = ".queue";

/// How often a waiter in the gate's queue checks on a network file system whether the process in
/// the gate does not run. Each check is a request to the server.
const NETWORK_CHECKS: Duration = Duration::from_secs(5);

/// The lock in one mode, and the gate that a waiter passes before it.
pub(super) struct GatedLock {
    pub(super) gate: Arc<LockRequest>,
    pub(super) lock: Arc<LockRequest>,
    pub(super) check_interval: Option<Duration>,
    /// The order in which waiters come to the gate, where they do not poll.
    pub(super) line: Option<Arc<Line>>,
}

impl GatedLock {
    fn path(&self) -> &Arc<Path> {
        self.lock.file.path()
    }

    pub(super) fn try_lock(&self) -> Result<FileLock> {
        let behind = self.readers_turnstile();
        try_pass(&QUEUES, self)?.ok_or_else(|| Error::would_block_behind(self.path(), behind))
    }

    /// Returns the turnstile if a process that waits in it can be the reason for a failed attempt.
    /// A reader can fail because of a waiting writer; a writer fails only because of a holder.
    pub(super) fn readers_turnstile(&self) -> Option<&Arc<Path>> {
        (self.lock.mode == Mode::Shared).then(|| self.gate.file.path())
    }
}

impl Turnstile for GatedLock {
    type Lock = LockRequest;
    type Order = Line;

    fn order(&self) -> Option<&Arc<Line>> {
        self.line.as_ref()
    }

    fn gate(&self) -> &Arc<LockRequest> {
        &self.gate
    }

    fn lock(&self) -> &Arc<LockRequest> {
        &self.lock
    }

    /// Tries the lock exclusively and then shares it, if a reader wants it. A waiter that is in the
    /// gate and runs is woken when the lock becomes free, so a caller that tries once per second
    /// finds the lock free only if that waiter does not run. A reader must not try the lock shared,
    /// since it would pass a writer that waits for other readers, unless that writer is known not
    /// to run (rule R3).
    fn take_unheld(&self) -> Result<Option<FileLock>> {
        match self.lock.file.try_lock(Mode::Exclusive)? {
            Some(locked) if self.lock.mode == Mode::Shared => locked.share(),
            taken => Ok(taken),
        }
    }

    fn is_gate_stopped(&self) -> bool {
        self.gate.file.has_stopped_holder()
            || self.line.as_ref().is_some_and(|line| line.is_first_stopped())
    }

    fn check_interval(&self) -> Option<Duration> {
        self.check_interval.or_else(|| self.gate.file.is_network().then_some(NETWORK_CHECKS))
    }
}

/// A waiter that passes the gate, or one that locks the file alone since there is no gate.
pub(super) enum Locking {
    TurnstileWait(Box<TurnstileWait<GatedLock>>),
    Alone(QueuedWaiter<LockRequest>),
}

impl Waiter for Locking {
    type Held = FileLock;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<FileLock>> {
        match self {
            Self::TurnstileWait(gated) => gated.poll(waker),
            Self::Alone(line) => line.poll(waker),
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        match self {
            Self::TurnstileWait(gated) => gated.next_tick(),
            Self::Alone(line) => line.next_tick(),
        }
    }

    fn sources(&self) -> &[Arc<WatchedFifo>] {
        match self {
            Self::TurnstileWait(gated) => gated.sources(),
            Self::Alone(line) => line.sources(),
        }
    }

    fn polls_because(&self) -> Option<PollReason> {
        match self {
            Self::TurnstileWait(gated) => gated.polls_because(),
            Self::Alone(line) => line.polls_because(),
        }
    }

    fn last_chance(&mut self) -> Result<Option<FileLock>> {
        match self {
            Self::TurnstileWait(gated) => gated.last_chance(),
            Self::Alone(line) => line.last_chance(),
        }
    }
}
