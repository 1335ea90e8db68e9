//! Rounds with the `Barrier`. A thread that finds it broken resets it half of the time.

use std::time::Duration;

use flockwork::{Barrier, BarrierWaitResult, ErrorKind};

use super::{EXCLUSIVE, hold_briefly};
use crate::breakage::Breakage;
use crate::record::{BROKEN, Kind};
use crate::rng::Rng;
use crate::wait_modes::{
    CallError, GiveUpReason, Outcome, WaitMode, acquire, outcome_of, poll_and_drop,
};
use crate::worker::Actor;

pub(super) fn run(
    actor: &mut Actor,
    primitive: usize,
    barrier: &Barrier,
    mode: WaitMode,
    rng: &mut Rng,
) {
    let shortage = actor.begin(primitive, mode, 0);
    if actor.process.is_broken(Breakage::Barrier) && rng.one_in(2) {
        let generation = actor.unique_number();
        return actor.record(Kind::Finished, primitive, generation, 0);
    }
    let has_action = matches!(mode, WaitMode::Blocking) && rng.one_in(2);
    let got = if has_action {
        wait_with(actor, primitive, barrier, rng)
    } else {
        acquire!(mode, barrier, [wait try_wait wait_timeout wait_deadline wait_async])
    };
    let is_broken = match &got {
        Outcome::Failed(error) => error.kind() == ErrorKind::Broken,
        Outcome::GaveUp(GiveUpReason::TimedOut | GiveUpReason::Dropped) | Outcome::Aborted => true,
        _ => false,
    };
    match got {
        Outcome::Acquired(passed) => {
            let is_leader = u64::from(passed.is_leader());
            actor.record(Kind::Finished, primitive, passed.generation(), is_leader);
        }
        Outcome::Failed(error) if error.kind() == ErrorKind::Broken => {
            actor.record(Kind::GaveUp, primitive, BROKEN, 0);
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
    if is_broken && rng.one_in(2) {
        std::thread::sleep(rng.micros(500));
        if let Err(error) = barrier.reset() {
            actor.record_error(primitive, &error, shortage);
        }
    }
}

fn wait_with(
    actor: &Actor,
    primitive: usize,
    barrier: &Barrier,
    rng: &mut Rng,
) -> Outcome<BarrierWaitResult> {
    let is_aborted = rng.one_in(6);
    outcome_of(barrier.wait_with(|| {
        actor.enter(primitive, EXCLUSIVE);
        hold_briefly(rng);
        actor.leave(primitive, 0);
        if is_aborted { Err(CallError::Aborted) } else { Ok(()) }
    }))
}

/// Uses a barrier whose files were tampered with. Other threads do the same.
pub(super) fn recover(barrier: &Barrier) -> Result<(), flockwork::Error> {
    barrier.reset()?;
    match barrier.wait_timeout(Duration::from_millis(20)) {
        Err(error) if error.is_timed_out() || error.kind() == ErrorKind::Broken => {}
        passed => drop(passed?),
    }
    barrier.reset()
}
