//! The rounds with events: a flag, a mailbox, and one that anybody does anything to.

use std::time::Duration;

use flockwork::Event;

use crate::dice::Dice;
use crate::payload;
use crate::record::Kind;
use crate::rounds::hold;
use crate::things::{Breakage, THINGS};
use crate::ways::{Got, Way, Why, half, settle, take};
use crate::worker::Actor;

/// What a flag is waited for.
pub(crate) const TO_BE_SET: u64 = 0;
pub(crate) const TO_BE_CLEARED: u64 = 1;
/// What is done to a mailbox.
pub(crate) const TO_SEND: u64 = 0;
pub(crate) const TO_CONSUME: u64 = 1;

/// The witness sets and clears it, and waits each time until all have seen it who waited before.
pub(crate) fn flag(actor: &Actor<'_>, thing: usize, event: &Event, way: Way, dice: &mut Dice) {
    let what = dice.pick(&[TO_BE_SET, TO_BE_CLEARED]);
    let scarcity = actor.wants(thing, way, what);
    let got = match (way, what) {
        (Way::Try, _) => match event.is_set() {
            Ok(is_set) if is_set == (what == TO_BE_SET) => Got::Had(()),
            Ok(_) => Got::GaveUp(Why::Refused),
            Err(error) => Got::Failed(error),
        },
        (way, TO_BE_SET) => {
            take!(way, event, [wait wait wait_timeout wait_deadline wait_async])
        }
        (way, _) => take!(
            way,
            event,
            [wait_cleared wait_cleared wait_cleared_timeout wait_cleared_deadline wait_cleared_async]
        ),
    };
    actor.went_without(thing, got, scarcity);
}

/// Who sends does it as the documentation has it: with a lock around, when it is empty. So nothing is overwritten, and
/// each setting is to be consumed once.
pub(crate) fn mailbox(
    actor: &mut Actor<'_>,
    thing: usize,
    event: &Event,
    way: Way,
    dice: &mut Dice,
) {
    if dice.one_in(2) {
        return send(actor, thing, event, dice);
    }
    let scarcity = actor.wants(thing, way, TO_CONSUME);
    let verbs = take!(
        way,
        event,
        [consume try_consume consume_timeout consume_deadline consume_async]
    );
    match verbs {
        Got::Had(bytes) => {
            match payload::number(&bytes) {
                Some(number) => actor.tell(Kind::Consumed, thing, 0, number),
                None => actor.wrong(thing, &format!("half a payload, of {} bytes", bytes.len())),
            }
            if actor.process.is_broken(Breakage::Event) && dice.one_in(8) {
                let _ = event.set_with(&bytes);
            }
        }
        other => actor.went_without(thing, other, scarcity),
    }
}

fn send(actor: &mut Actor<'_>, thing: usize, event: &Event, dice: &mut Dice) {
    let bounded = Way::Timeout(Duration::from_millis(5));
    let scarcity = actor.wants(thing, bounded, TO_SEND);
    let turn = match settle(actor.process.senders.lock_timeout(Duration::from_millis(5))) {
        Got::Had(turn) => turn,
        other => return actor.went_without(thing, other, scarcity),
    };
    match settle(event.wait_cleared_timeout(Duration::from_millis(20))) {
        Got::Had(()) => {}
        other => return actor.went_without(thing, other, scarcity),
    }
    let number = actor.token();
    actor.tell(Kind::Setting, thing, 0, number);
    match settle(event.set_with(&payload::make(number))) {
        Got::Had(_) => actor.tell(Kind::HasSet, thing, 0, number),
        other => actor.went_without(thing, other, scarcity),
    }
    hold(dice);
    drop(turn);
}

/// Whatever happens to it, what it carries is whole, and nothing but an expected error comes.
pub(crate) fn loose(actor: &mut Actor<'_>, thing: usize, event: &Event, way: Way, dice: &mut Dice) {
    let way = way.bounded();
    let what = dice.below(8);
    let scarcity = actor.wants(thing, way, what);
    let number = actor.token();
    let got = match what {
        0 => settle(event.set().map(|_| ())),
        1 | 2 => settle(event.set_with(&payload::make(number)).map(|_| ())),
        3 => settle(event.clear().map(|_| ())),
        4 => settle(event.payload().map(|bytes| whole(actor, thing, &bytes.unwrap_or_default()))),
        5 => match take!(
            way,
            event,
            [consume try_consume consume_timeout consume_deadline consume_async]
        ) {
            Got::Had(bytes) => {
                whole(actor, thing, &bytes);
                Got::Had(())
            }
            other => return actor.went_without(thing, other, scarcity),
        },
        6 => {
            let way = if matches!(way, Way::Try) { way_of(dice) } else { way };
            take!(way, event, [wait wait wait_timeout wait_deadline wait_async])
        }
        _ => {
            let way = if matches!(way, Way::Try) { way_of(dice) } else { way };
            take!(
                way,
                event,
                [wait_cleared wait_cleared wait_cleared_timeout wait_cleared_deadline wait_cleared_async]
            )
        }
    };
    actor.went_without(thing, got, scarcity);
}

fn way_of(dice: &mut Dice) -> Way {
    Way::Timeout(dice.any_scale())
}

fn whole(actor: &Actor<'_>, thing: usize, bytes: &[u8]) {
    // In the yard somebody else puts empty files and others there.
    if payload::number(bytes).is_none() && !THINGS[thing].is_in_the_yard {
        actor.wrong(thing, &format!("half a payload, of {} bytes", bytes.len()));
    }
}
