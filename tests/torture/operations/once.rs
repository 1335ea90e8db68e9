//! Rounds with a `Once`, some of which reset it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flockwork::Once;
use futures_lite::future::block_on;

use super::{EXCLUSIVE, hold_briefly};
use crate::breakage::Breakage;
use crate::record::Kind;
use crate::rng::Rng;
use crate::wait_modes::{CallError, Outcome, WaitMode, call_closure, outcome_of, poll_and_drop};
use crate::worker::Actor;

pub(super) fn run(actor: &Actor, primitive: usize, once: &Once, mode: WaitMode, rng: &mut Rng) {
    if rng.one_in(3) {
        return reset(actor, primitive, once, mode);
    }
    let shortage = actor.begin(primitive, mode, 0);
    let is_aborted = rng.one_in(6);
    let is_intruder = actor.process.is_broken(Breakage::Once) && rng.one_in(2);
    let has_run = Arc::new(AtomicBool::new(false));
    let closure = {
        let (has_run, actor, rng) = (Arc::clone(&has_run), actor.clone(), rng.fork());
        move || {
            has_run.store(true, Ordering::SeqCst);
            actor.enter(primitive, EXCLUSIVE);
            let mut rng = rng;
            hold_briefly(&mut rng);
            if actor.process.is_broken(Breakage::Once) {
                std::thread::sleep(Duration::from_millis(1));
            }
            // This record is the effect of the closure: it is done at exactly this point.
            actor.leave(primitive, u64::from(!is_aborted));
            if is_aborted { Err(CallError::Aborted) } else { Ok(()) }
        }
    };
    let got = if is_intruder {
        outcome_of(closure().map(|()| true))
    } else {
        call_closure!(
            mode,
            once,
            [call_once try_call_once call_once_timeout call_once_deadline call_once_async]
            closure,
            move || async move { closure() }
        )
    };
    match got {
        Outcome::Acquired(is_first) if is_first == has_run.load(Ordering::SeqCst) => {
            actor.record(Kind::Finished, primitive, u64::from(is_first), 0);
        }
        Outcome::Acquired(_) => {
            actor.violation(primitive, "the result does not match whether the closure has run");
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
}

fn reset(actor: &Actor, primitive: usize, once: &Once, mode: WaitMode) {
    let shortage = actor.begin(primitive, mode, 1);
    actor.record(Kind::Resetting, primitive, 0, 0);
    let got = match mode {
        WaitMode::Try => outcome_of(once.reset_timeout(Duration::ZERO)),
        WaitMode::Timeout(span) => outcome_of(once.reset_timeout(span)),
        WaitMode::Deadline(at) => {
            outcome_of(once.reset_timeout(at.saturating_duration_since(Instant::now())))
        }
        WaitMode::Blocking => outcome_of(once.reset()),
        WaitMode::Awaited => outcome_of(block_on(once.reset_async())),
        WaitMode::Dropped(times, pause) => poll_and_drop(once.reset_async(), times, pause),
    };
    match got {
        Outcome::Acquired(was_done) => {
            actor.record(Kind::WasReset, primitive, u64::from(was_done), 0);
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
}
