//! Rounds with a `SharedFile`: reads under the shared lock, updates, and reads without the lock.

use std::sync::Arc;

use flockwork::{Error, ErrorKind, FileWriteGuard, SharedFile};
use futures_lite::future::block_on;

use super::{EXCLUSIVE, SHARED, hold_briefly};
use crate::breakage::Breakage;
use crate::payload;
use crate::primitives::PRIMITIVES;
use crate::record::Kind;
use crate::rng::Rng;
use crate::wait_modes::{CallError, Outcome, WaitMode, acquire, outcome_of, poll_and_drop};
use crate::worker::Actor;

/// The change that an update makes to the contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Change,
    /// The update leaves the contents unchanged, so nothing is written.
    Keep,
    /// The update changes the contents and fails, so nothing is written.
    Abort,
}

pub(super) fn run(
    actor: &mut Actor,
    primitive: usize,
    file: &SharedFile,
    mode: WaitMode,
    rng: &mut Rng,
) {
    let is_update = rng.one_in(2);
    let shortage = actor.begin(primitive, mode, u64::from(is_update));
    if is_update {
        update(actor, primitive, file, mode, rng, shortage);
    } else {
        read(actor, primitive, file, mode, rng, shortage);
    }
    // If the file is tampered with, it may be a FIFO or have other contents.
    if rng.one_in(4) && !PRIMITIVES[primitive].is_tampered_with {
        // This reads like a program that does not know the lock.
        match std::fs::read(file.path()) {
            Ok(bytes) if payload::number(&bytes).is_none() => {
                actor.violation(primitive, "incomplete change");
            }
            _ => {}
        }
    }
}

fn read(
    actor: &Actor,
    primitive: usize,
    file: &SharedFile,
    mode: WaitMode,
    rng: &mut Rng,
    shortage: u64,
) {
    let outcome = acquire!(
        mode,
        file,
        [lock_shared try_lock_shared lock_shared_timeout lock_shared_deadline lock_shared_async]
    );
    match outcome {
        Outcome::Acquired(guard) => {
            actor.enter(primitive, SHARED);
            hold_briefly(rng);
            match guard.read() {
                Ok(bytes) => observe(actor, primitive, &bytes),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    observe(actor, primitive, &[]);
                }
                Err(error) => actor.record_error(primitive, &error, shortage),
            }
            actor.leave(primitive, 0);
            drop(guard);
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
}

fn observe(actor: &Actor, primitive: usize, bytes: &[u8]) {
    match payload::number(bytes) {
        Some(number) => actor.record(Kind::Observed, primitive, 0, number),
        None if PRIMITIVES[primitive].is_tampered_with => {}
        None => actor.violation(primitive, "incomplete change, read under the lock"),
    }
}

fn update(
    actor: &mut Actor,
    primitive: usize,
    file: &SharedFile,
    mode: WaitMode,
    rng: &mut Rng,
    shortage: u64,
) {
    let process = Arc::clone(&actor.process);
    let number = actor.unique_number();
    let plan = match rng.below(12) {
        0 | 1 => Plan::Abort,
        2 => Plan::Keep,
        _ => Plan::Change,
    };
    if process.is_broken(Breakage::LostUpdate) && rng.one_in(8) {
        let _ = std::fs::write(file.path(), payload::make(number));
    }
    if process.is_broken(Breakage::Tear) && rng.one_in(8) {
        let bytes = payload::make(number);
        let _ = std::fs::write(file.path(), &bytes[..bytes.len() - 1]);
    }
    let is_replaced = rng.one_in(2);
    let change = {
        let (actor, mut rng) = (actor.clone(), rng.fork());
        move |contents: &mut Vec<u8>| {
            actor.enter(primitive, EXCLUSIVE);
            observe(&actor, primitive, contents);
            hold_briefly(&mut rng);
            if plan != Plan::Keep {
                *contents = payload::make(number);
            }
            actor.leave(primitive, if plan == Plan::Change { number } else { 0 });
            if plan == Plan::Abort { Err(CallError::Aborted) } else { Ok(()) }
        }
    };
    let got = match mode {
        WaitMode::Try => through(file.try_lock_exclusive(), is_replaced, change),
        WaitMode::Timeout(span) => through(file.lock_exclusive_timeout(span), is_replaced, change),
        WaitMode::Deadline(at) => through(file.lock_exclusive_deadline(at), is_replaced, change),
        WaitMode::Blocking => outcome_of(file.update(change)),
        WaitMode::Awaited => outcome_of(block_on(file.update_async(change))),
        WaitMode::Dropped(times, pause) => poll_and_drop(file.update_async(change), times, pause),
    };
    match got {
        Outcome::Acquired(()) if plan == Plan::Keep => {
            actor.record(Kind::Finished, primitive, 0, 0);
        }
        Outcome::Acquired(()) => actor.record(Kind::Changed, primitive, 0, number),
        other => actor.record_outcome(primitive, other, shortage),
    }
}

/// Changes the contents through a guard, in one step, or by reading and replacing them.
fn through(
    guard: Result<FileWriteGuard, Error>,
    is_replaced: bool,
    change: impl FnOnce(&mut Vec<u8>) -> Result<(), CallError>,
) -> Outcome<()> {
    let change = |mut guard: FileWriteGuard| {
        if !is_replaced {
            return guard.update(change);
        }
        let mut contents = match guard.read() {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        change(&mut contents)?;
        Ok(guard.replace(contents)?)
    };
    outcome_of(guard.map_err(CallError::from).and_then(change))
}
