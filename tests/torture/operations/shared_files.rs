//! Rounds with a `SharedFile`: reads under the shared lock, updates, and reads without the lock.

use flockwork::SharedFile;

use super::{EXCLUSIVE, SHARED, hold_briefly};
use crate::breakage::Breakage;
use crate::payload;
use crate::primitives::PRIMITIVES;
use crate::record::Kind;
use crate::rng::Rng;
use crate::wait_modes::{
    Aborted, Outcome, WaitMode, acquire, call_closure, outcome_of, poll_and_drop,
};
use crate::worker::Actor;

pub(super) fn run(
    actor: &mut Actor<'_>,
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
        // Read as a program does that does not know the lock.
        match std::fs::read(file.path()) {
            Ok(bytes) if payload::number(&bytes).is_none() => {
                actor.violation(primitive, "half a change");
            }
            _ => {}
        }
    }
}

fn read(
    actor: &Actor<'_>,
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
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
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

fn observe(actor: &Actor<'_>, primitive: usize, bytes: &[u8]) {
    match payload::number(bytes) {
        Some(number) => actor.record(Kind::Observed, primitive, 0, number),
        None if PRIMITIVES[primitive].is_tampered_with => {}
        None => actor.violation(primitive, "half a change, under the lock"),
    }
}

fn update(
    actor: &mut Actor<'_>,
    primitive: usize,
    file: &SharedFile,
    mode: WaitMode,
    rng: &mut Rng,
    shortage: u64,
) {
    let process = actor.process;
    let number = actor.unique_number();
    let is_aborted = rng.one_in(6);
    if process.is_broken(Breakage::LostUpdate) && rng.one_in(8) {
        let _ = std::fs::write(file.path(), payload::make(number));
    }
    if process.is_broken(Breakage::Tear) && rng.one_in(8) {
        let bytes = payload::make(number);
        let _ = std::fs::write(file.path(), &bytes[..bytes.len() - 1]);
    }
    let change = |old: Vec<u8>| {
        actor.enter(primitive, EXCLUSIVE);
        observe(actor, primitive, &old);
        hold_briefly(rng);
        actor.leave(primitive, if is_aborted { 0 } else { number });
        if is_aborted { Err(Aborted) } else { Ok(payload::make(number)) }
    };
    let got = call_closure!(
        mode,
        file,
        [update try_update update_timeout update_deadline update_async]
        change,
        change
    );
    match got {
        Outcome::Acquired(()) => actor.record(Kind::Changed, primitive, 0, number),
        other => actor.record_outcome(primitive, other, shortage),
    }
}
