//! Rounds with a semaphore, some of which change its capacity.

use flockwork::Semaphore;

use super::hold_briefly;
use crate::breakage::Breakage;
use crate::faults::FaultPoint;
use crate::primitives::{ELASTIC_CAPACITY, PRIMITIVES, PrimitiveKind};
use crate::record::Kind;
use crate::rng::Rng;
use crate::wait_modes::{Outcome, WaitMode, acquire, outcome_of, poll_and_drop};
use crate::worker::Actor;

pub(super) fn run(
    actor: &Actor,
    primitive: usize,
    semaphore: &Semaphore,
    mode: WaitMode,
    rng: &mut Rng,
) {
    let (max, is_elastic) = match PRIMITIVES[primitive].kind {
        PrimitiveKind::Semaphore(max) => (max, false),
        _ => (*ELASTIC_CAPACITY.start(), true),
    };
    if is_elastic && rng.one_in(30) {
        return resize(actor, primitive, semaphore, rng);
    }
    let permits =
        if rng.one_in(3) { 1 + u32::try_from(rng.below(max.into())).unwrap_or(0) } else { 1 };
    let shortage = actor.begin(primitive, mode, permits.into());
    if actor.process.is_broken(Breakage::Semaphore) && rng.one_in(8) {
        actor.enter(primitive, 1);
        hold_briefly(rng);
        return actor.leave(primitive, 0);
    }
    let got = acquire!(
        mode,
        semaphore,
        [acquire_many try_acquire_many acquire_many_timeout acquire_many_deadline acquire_many_async]
        permits
    );
    match got {
        Outcome::Acquired(permit) => {
            let slots = permit.slots().iter().map(|slot| 1_u64 << slot).sum();
            actor.enter(primitive, slots);
            hold_briefly(rng);
            actor.leave(primitive, 0);
            if rng.one_in(2) {
                drop(permit);
            } else {
                actor.check_release(primitive, permit.release(), shortage);
            }
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
}

fn resize(actor: &Actor, primitive: usize, semaphore: &Semaphore, rng: &mut Rng) {
    let permits = *ELASTIC_CAPACITY.start() + u32::try_from(rng.below(4)).unwrap_or(0);
    let is_wrong = actor.process.is_broken(Breakage::Capacity) && rng.one_in(2);
    let recorded = if is_wrong { *ELASTIC_CAPACITY.start() } else { permits };
    let shortage = actor.process.shortages();
    actor.record(Kind::Resizing, primitive, recorded.into(), 0);
    actor.fault_point(FaultPoint::Inside);
    match semaphore.set_capacity(if is_wrong { *ELASTIC_CAPACITY.end() } else { permits }) {
        Ok(()) => actor.record(Kind::WasResized, primitive, recorded.into(), 0),
        Err(error) => actor.record_error(primitive, &error, shortage),
    }
}

/// Acquires a permit of a semaphore and never releases it.
pub(crate) fn leak(directory: &std::path::Path) -> flockwork::Result<()> {
    let semaphore = flockwork::Options::new().open_existing_semaphore(directory.join("three"))?;
    std::mem::forget(semaphore.acquire()?);
    Ok(())
}
