//! The way through the gate, which keeps the order of an [`RwLock`](super::RwLock). Rules R1 to R5.

use std::path::Path;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::file::lock_file::FileLock;
use crate::lock_request::{LockRequest, QUEUES};
use crate::sys::Mode;
use crate::wait::{QueuedWaiter, Turnstile, TurnstileWait, Waiter, try_pass};

pub(super) const GATE: &str = ".gate";

/// The way to the lock in one mode: through the gate.
pub(super) struct Way {
    pub(super) gate: Arc<LockRequest>,
    pub(super) lock: Arc<LockRequest>,
    pub(super) check_interval: Option<Duration>,
}

impl Way {
    fn path(&self) -> &Arc<Path> {
        self.lock.slot.path()
    }

    pub(super) fn take_now(&self) -> Result<FileLock> {
        try_pass(&QUEUES, self)?.ok_or_else(|| self.refused(Error::would_block(self.path())))
    }

    /// A writer is refused by who has the lock, and a reader may be by who waits for it.
    pub(super) fn refused(&self, error: Error) -> Error {
        match self.lock.mode {
            Mode::Shared => error.behind(self.gate.slot.path()),
            Mode::Exclusive => error,
        }
    }
}

impl Turnstile for Way {
    type Lock = LockRequest;

    fn gate(&self) -> &Arc<LockRequest> {
        &self.gate
    }

    fn lock(&self) -> &Arc<LockRequest> {
        &self.lock
    }

    /// Rule R3. Who waits in the gate and runs is woken when the lock gets free, so what is found free by
    /// somebody who comes by once a second is free because that one does not run. Readers must not pass a
    /// writer that waits for other readers, unless it is known not to run.
    fn take_unheld(&self) -> Result<Option<FileLock>> {
        match self.lock.slot.try_take(Mode::Exclusive)? {
            Some(locked) if self.lock.mode == Mode::Shared => locked.share(),
            taken => Ok(taken),
        }
    }

    fn is_gate_stopped(&self) -> bool {
        self.gate.slot.has_stopped_holder()
    }

    fn check_interval(&self) -> Option<Duration> {
        self.check_interval
    }
}

/// A waiter, through the gate or without one.
pub(super) enum Locking {
    TurnstileWait(TurnstileWait<Way>),
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

    fn last_chance(&mut self) -> Result<Option<FileLock>> {
        match self {
            Self::TurnstileWait(gated) => gated.last_chance(),
            Self::Alone(line) => line.last_chance(),
        }
    }
}
