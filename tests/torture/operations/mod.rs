//! A round of a worker thread: it picks a primitive, how to wait and what to do, and records it.

mod barriers;
mod events;
mod locks;
mod once;
pub(crate) mod recovery;
pub(crate) mod semaphores;
mod shared_files;

pub(crate) use events::{TO_BE_CLEARED, TO_BE_SET, TO_CONSUME};

use std::sync::Arc;

use flockwork::Error;

use crate::faults::FaultPoint;
use crate::primitives::{self, Handle, PRIMITIVES, PrimitiveKind};
use crate::record::Kind;
use crate::rng::Rng;
use crate::wait_modes::{Outcome, WaitMode};
use crate::worker::Actor;

pub(crate) const SHARED: u64 = 0;
pub(crate) const EXCLUSIVE: u64 = 1;

/// Runs one round.
pub(crate) fn run_round(actor: &mut Actor) {
    let process = Arc::clone(&actor.process);
    let purpose = [process.number, process.generation, actor.thread].map(u64::from);
    let [number, generation, thread] = purpose;
    let mut rng =
        Rng::for_purpose(process.arguments.seed, &[3, number, generation, thread, actor.round]);
    let primitive = process.arguments.only.unwrap_or_else(|| primitives::pick(&mut rng));
    let mode = WaitMode::pick(&mut rng);
    let rng = &mut rng;
    match &process.handles[primitive] {
        Handle::Lock(lock) => locks::run_lock(actor, primitive, lock, mode, rng),
        Handle::RwLock(lock) => locks::run_rwlock(actor, primitive, lock, mode, rng),
        Handle::Semaphore(semaphore) => semaphores::run(actor, primitive, semaphore, mode, rng),
        Handle::Once(once) => once::run(actor, primitive, once, mode, rng),
        Handle::SharedFile(file) => shared_files::run(actor, primitive, file, mode, rng),
        Handle::Barrier(barrier) => barriers::run(actor, primitive, barrier, mode, rng),
        Handle::Event(event) => match PRIMITIVES[primitive].kind {
            PrimitiveKind::Flag => events::run_flag(actor, primitive, event, mode, rng),
            PrimitiveKind::Mailbox => events::run_mailbox(actor, primitive, event, mode, rng),
            _ => events::run_any_use(actor, primitive, event, mode, rng),
        },
    }
}

impl Actor {
    /// Records the outcome of an operation that does not hold anything afterwards.
    pub(crate) fn record_outcome<G>(&self, primitive: usize, outcome: Outcome<G>, shortage: u64) {
        match outcome {
            Outcome::Acquired(_) => self.record(Kind::Finished, primitive, 0, 0),
            Outcome::GaveUp(reason) => self.record(Kind::GaveUp, primitive, reason as u64, 0),
            Outcome::Aborted => self.record(Kind::GaveUp, primitive, 3, 0),
            Outcome::Failed(error) => self.record_error(primitive, &error, shortage),
        }
    }

    /// Records an error. It is a violation unless the files are tampered with, or it reports a
    /// shortage of descriptors during one.
    pub(crate) fn record_error(&self, primitive: usize, error: &Error, shortage: u64) {
        let number = error.io_error().and_then(std::io::Error::raw_os_error);
        let is_shortage = number == Some(rustix::io::Errno::MFILE.raw_os_error())
            && self.process.was_short_since(shortage);
        if is_shortage || PRIMITIVES[primitive].is_tampered_with {
            let number = number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
            self.record(Kind::Failed, primitive, number, 0);
        } else {
            self.violation(primitive, &format!("unexpected: {error}"));
        }
    }

    /// Records that an operation begins. Returns the number of shortages so far.
    pub(crate) fn begin(&self, primitive: usize, mode: WaitMode, operation: u64) -> u64 {
        let mode = match mode {
            WaitMode::Try => 0,
            WaitMode::Timeout(_) | WaitMode::Deadline(_) => 1,
            WaitMode::Blocking | WaitMode::Awaited => 2,
            WaitMode::Dropped(..) => 3,
        };
        let shortage = self.process.shortages();
        self.record(Kind::Waiting, primitive, mode, operation);
        self.fault_point(FaultPoint::Before);
        shortage
    }

    fn enter(&self, primitive: usize, how: u64) {
        self.record(Kind::Entered, primitive, how, 0);
        self.fault_point(FaultPoint::Inside);
    }

    fn leave(&self, primitive: usize, value: u64) {
        self.record(Kind::Leaving, primitive, 0, value);
        self.fault_point(FaultPoint::Leaving);
    }

    fn check_release(&self, primitive: usize, released: Result<(), Error>, shortage: u64) {
        if let Err(error) = released {
            self.record_error(primitive, &error, shortage);
        }
    }
}

/// Holds what was acquired, mostly for no time at all.
pub(crate) fn hold_briefly(rng: &mut Rng) {
    match rng.below(20) {
        0..=11 => {}
        12..=13 => std::thread::yield_now(),
        14..=18 => std::thread::sleep(rng.micros(200)),
        _ => std::thread::sleep(rng.micros(3000)),
    }
}
