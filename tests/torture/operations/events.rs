//! Rounds with events: a flag, a mailbox, and an event for any use.

use std::time::Duration;

use flockwork::Event;

use super::hold_briefly;
use crate::breakage::Breakage;
use crate::payload;
use crate::primitives::PRIMITIVES;
use crate::record::Kind;
use crate::rng::Rng;
use crate::wait_modes::{GiveUpReason, Outcome, WaitMode, acquire, outcome_of, poll_and_drop};
use crate::worker::Actor;

/// The operations of a thread that uses the flag.
pub(crate) const TO_BE_SET: u64 = 0;
pub(crate) const TO_BE_CLEARED: u64 = 1;
/// The operations of a thread that uses the mailbox.
pub(crate) const TO_SEND: u64 = 0;
pub(crate) const TO_CONSUME: u64 = 1;

/// Waits for the flag. The monitor sets and clears it, each time after all earlier waiters have
/// returned.
pub(super) fn run_flag(
    actor: &Actor,
    primitive: usize,
    event: &Event,
    mode: WaitMode,
    rng: &mut Rng,
) {
    let operation = rng.pick(&[TO_BE_SET, TO_BE_CLEARED]);
    let shortage = actor.begin(primitive, mode, operation);
    let outcome = match (mode, operation) {
        (WaitMode::Try, _) => match event.is_set() {
            Ok(is_set) if is_set == (operation == TO_BE_SET) => Outcome::Acquired(()),
            Ok(_) => Outcome::GaveUp(GiveUpReason::WouldBlock),
            Err(error) => Outcome::Failed(error),
        },
        (mode, TO_BE_SET) => {
            acquire!(mode, event, [wait wait wait_timeout wait_deadline wait_async])
        }
        (mode, _) => acquire!(
            mode,
            event,
            [wait_cleared wait_cleared wait_cleared_timeout wait_cleared_deadline wait_cleared_async]
        ),
    };
    actor.record_outcome(primitive, outcome, shortage);
}

/// Sends to the mailbox or consumes from it. Senders follow the documentation: they hold a lock and
/// wait until the mailbox is empty. No payload is overwritten, and each must be consumed once.
pub(super) fn run_mailbox(
    actor: &mut Actor,
    primitive: usize,
    event: &Event,
    mode: WaitMode,
    rng: &mut Rng,
) {
    if rng.one_in(2) {
        return send(actor, primitive, event, rng);
    }
    let shortage = actor.begin(primitive, mode, TO_CONSUME);
    let outcome = acquire!(
        mode,
        event,
        [consume try_consume consume_timeout consume_deadline consume_async]
    );
    match outcome {
        Outcome::Acquired(bytes) => {
            match payload::number(&bytes) {
                Some(number) => actor.record(Kind::Consumed, primitive, 0, number),
                None => {
                    actor.violation(
                        primitive,
                        &format!("incomplete payload of {} bytes", bytes.len()),
                    );
                }
            }
            if actor.process.is_broken(Breakage::Event) && rng.one_in(8) {
                let _ = event.set_with(&bytes);
            }
        }
        other => actor.record_outcome(primitive, other, shortage),
    }
}

fn send(actor: &mut Actor, primitive: usize, event: &Event, rng: &mut Rng) {
    let bounded = WaitMode::Timeout(Duration::from_millis(5));
    let shortage = actor.begin(primitive, bounded, TO_SEND);
    let guard = match outcome_of(actor.process.sender_lock.lock_timeout(Duration::from_millis(5))) {
        Outcome::Acquired(guard) => guard,
        other => return actor.record_outcome(primitive, other, shortage),
    };
    match outcome_of(event.wait_cleared_timeout(Duration::from_millis(20))) {
        Outcome::Acquired(()) => {}
        other => return actor.record_outcome(primitive, other, shortage),
    }
    let number = actor.unique_number();
    actor.record(Kind::Setting, primitive, 0, number);
    match outcome_of(event.set_with(payload::make(number))) {
        Outcome::Acquired(_) => actor.record(Kind::WasSet, primitive, 0, number),
        other => actor.record_outcome(primitive, other, shortage),
    }
    hold_briefly(rng);
    drop(guard);
}

/// Does any of the operations. A payload must be complete, and only expected errors may be
/// returned.
pub(super) fn run_any_use(
    actor: &mut Actor,
    primitive: usize,
    event: &Event,
    mode: WaitMode,
    rng: &mut Rng,
) {
    let mode = mode.bounded();
    let operation = rng.below(8);
    let shortage = actor.begin(primitive, mode, operation);
    let number = actor.unique_number();
    let outcome = match operation {
        0 => outcome_of(event.set().map(|_| ())),
        1 | 2 => outcome_of(event.set_with(payload::make(number)).map(|_| ())),
        3 => outcome_of(event.clear().map(|_| ())),
        4 => outcome_of(
            event
                .payload()
                .map(|bytes| check_payload(actor, primitive, &bytes.unwrap_or_default())),
        ),
        5 => match acquire!(
            mode,
            event,
            [consume try_consume consume_timeout consume_deadline consume_async]
        ) {
            Outcome::Acquired(bytes) => {
                check_payload(actor, primitive, &bytes);
                Outcome::Acquired(())
            }
            other => return actor.record_outcome(primitive, other, shortage),
        },
        6 => {
            let mode = if matches!(mode, WaitMode::Try) { any_timeout(rng) } else { mode };
            acquire!(mode, event, [wait wait wait_timeout wait_deadline wait_async])
        }
        _ => {
            let mode = if matches!(mode, WaitMode::Try) { any_timeout(rng) } else { mode };
            acquire!(
                mode,
                event,
                [wait_cleared wait_cleared wait_cleared_timeout wait_cleared_deadline wait_cleared_async]
            )
        }
    };
    actor.record_outcome(primitive, outcome, shortage);
}

fn any_timeout(rng: &mut Rng) -> WaitMode {
    WaitMode::Timeout(rng.any_scale())
}

fn check_payload(actor: &Actor, primitive: usize, bytes: &[u8]) {
    // If the file is tampered with, it may have other contents.
    if payload::number(bytes).is_none() && !PRIMITIVES[primitive].is_tampered_with {
        actor.violation(primitive, &format!("incomplete payload of {} bytes", bytes.len()));
    }
}
