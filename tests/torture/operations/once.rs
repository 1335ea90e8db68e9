//! Rounds with a `Once`, some of which reset it.

use std::time::Duration;

use flockwork::Once;

use super::{EXCLUSIVE, hold_briefly};
use crate::breakage::Breakage;
use crate::record::Kind;
use crate::rng::Rng;
use crate::wait_modes::{
    Aborted, Outcome, WaitMode, acquire, call_closure, outcome_of, poll_and_drop,
};
use crate::worker::Actor;

pub(super) fn run(actor: &Actor<'_>, primitive: usize, once: &Once, mode: WaitMode, rng: &mut Rng) {
    if rng.one_in(3) {
        return reset(actor, primitive, once, mode);
    }
    let shortage = actor.begin(primitive, mode, 0);
    let is_aborted = rng.one_in(6);
    let is_intruder = actor.process.is_broken(Breakage::Once) && rng.one_in(2);
    let mut has_run = false;
    let mut closure = || {
        has_run = true;
        actor.enter(primitive, EXCLUSIVE);
        hold_briefly(rng);
        if actor.process.is_broken(Breakage::Once) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // This record is the effect of the closure: it is done at exactly this point.
        actor.leave(primitive, u64::from(!is_aborted));
        if is_aborted { Err(Aborted) } else { Ok(()) }
    };
    let got = if is_intruder {
        outcome_of(closure().map(|()| true).map_err(flockwork::CallError::Closure))
    } else {
        call_closure!(
            mode,
            once,
            [call_once try_call_once call_once_timeout call_once_deadline call_once_async]
            closure,
            || async { closure() }
        )
    };
    match got {
        Outcome::Acquired(is_first) if is_first == has_run => {
            actor.record(Kind::Finished, primitive, u64::from(is_first), 0);
        }
        Outcome::Acquired(_) => {
            actor.violation(primitive, "the result does not match whether the closure has run");
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
}

fn reset(actor: &Actor<'_>, primitive: usize, once: &Once, mode: WaitMode) {
    let shortage = actor.begin(primitive, mode, 1);
    actor.record(Kind::Resetting, primitive, 0, 0);
    let got = acquire!(mode, once, [reset try_reset reset_timeout reset_deadline reset_async]);
    match got {
        Outcome::Acquired(was_done) => {
            actor.record(Kind::WasReset, primitive, u64::from(was_done), 0);
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
}
