//! Rounds with a `Lock` or an `RwLock`.

use flockwork::{Lock, RwLock};

use super::{EXCLUSIVE, SHARED, hold_briefly};
use crate::breakage::Breakage;
use crate::faults::FaultPoint;
use crate::record::Kind;
use crate::rng::Rng;
use crate::wait_modes::{Outcome, WaitMode, acquire, outcome_of, poll_and_drop};
use crate::worker::Actor;

pub(super) fn run_lock(
    actor: &Actor,
    primitive: usize,
    lock: &Lock,
    mode: WaitMode,
    rng: &mut Rng,
) {
    if actor.process.is_broken(Breakage::Wake) && is_broken_thread(actor) {
        actor.begin(primitive, WaitMode::Blocking, 0);
        loop {
            std::thread::park();
        }
    }
    assert!(!(actor.process.is_broken(Breakage::Crash) && is_broken_thread(actor)), "deliberate");
    let shortage = actor.begin(primitive, mode, 0);
    if actor.process.is_broken(Breakage::Lock) && rng.one_in(8) {
        actor.enter(primitive, EXCLUSIVE);
        hold_briefly(rng);
        actor.leave(primitive, 0);
        return;
    }
    match acquire!(mode, lock, [lock try_lock lock_timeout lock_deadline lock_async]) {
        Outcome::Acquired(guard) => {
            actor.enter(primitive, EXCLUSIVE);
            hold_briefly(rng);
            let _abandoned = guard.was_abandoned();
            actor.leave(primitive, 0);
            if rng.one_in(2) {
                drop(guard);
            } else {
                actor.check_release(primitive, guard.unlock(), shortage);
            }
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
    if rng.one_in(50) {
        let shortage = actor.process.shortages();
        if let Err(error) = lock.holders() {
            actor.record_error(primitive, &error, shortage);
        }
    }
}

/// Whether this is the thread that `--break wake` and `--break crash` affect.
fn is_broken_thread(actor: &Actor) -> bool {
    actor.process.number == 0 && actor.thread == 1 && actor.round > 20
}

pub(super) fn run_rwlock(
    actor: &Actor,
    primitive: usize,
    lock: &RwLock,
    mode: WaitMode,
    rng: &mut Rng,
) {
    let is_write = rng.one_in(2);
    let shortage = actor.begin(primitive, mode, u64::from(is_write));
    if !is_write || (actor.process.is_broken(Breakage::RwLock) && rng.one_in(4)) {
        let how = if is_write { EXCLUSIVE } else { SHARED };
        match acquire!(mode, lock, [read try_read read_timeout read_deadline read_async]) {
            Outcome::Acquired(guard) => {
                actor.enter(primitive, how);
                hold_briefly(rng);
                actor.leave(primitive, 0);
                actor.check_release(primitive, guard.unlock(), shortage);
            }
            other => actor.record_outcome(primitive, other, shortage),
        }
        return;
    }
    match acquire!(mode, lock, [write try_write write_timeout write_deadline write_async]) {
        Outcome::Acquired(guard) => {
            actor.enter(primitive, EXCLUSIVE);
            hold_briefly(rng);
            if !rng.one_in(3) {
                actor.leave(primitive, 0);
                return drop(guard);
            }
            actor.record(Kind::Downgrading, primitive, 0, 0);
            match guard.downgrade() {
                Ok(guard) => {
                    actor.fault_point(FaultPoint::Inside);
                    hold_briefly(rng);
                    actor.leave(primitive, 0);
                    drop(guard);
                }
                Err(error) => {
                    actor.leave(primitive, 0);
                    actor.record_error(primitive, &error, shortage);
                }
            }
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
}
