//! Checks the results of calls on the `Barrier`.

use std::collections::{BTreeMap, HashMap};

use super::Checker;
use crate::primitives::{BARRIER_PARTIES, PRIMITIVES, PrimitiveKind};
use crate::record::Record;

type Caller = (u32, u32);

const PARTIES: u64 = BARRIER_PARTIES as u64;

#[derive(Debug, Default)]
pub(super) struct BarrierState {
    /// The record with which each call that has not returned began.
    calls: HashMap<Caller, u64>,
    /// When the calls began and ended that returned neither that they passed nor that they did
    /// not: their process was killed, their future was dropped, or a system call failed. They may
    /// have been participants of a generation that passed.
    lost: Vec<(u64, u64)>,
    generations: BTreeMap<u64, Generation>,
    /// The generation that each caller passed last.
    passed: HashMap<Caller, u64>,
}

#[derive(Debug, Default)]
struct Generation {
    passed: u64,
    leaders: u64,
    /// The record of the first participant that returned.
    first_return: u64,
    /// The earliest begin of a call that passed.
    first_begin: u64,
}

impl Generation {
    /// Whether a call that began and was lost at these records may have been a participant.
    fn may_include(&self, (begin, end): (u64, u64)) -> bool {
        begin < self.first_return && end > self.first_begin
    }
}

fn is_checked(record: Record) -> bool {
    let primitive = &PRIMITIVES[record.primitive];
    matches!(primitive.kind, PrimitiveKind::Barrier(_)) && !primitive.is_tampered_with
}

impl Checker {
    pub(super) fn begin_wait(&mut self, record: Record) {
        if is_checked(record) {
            self.barrier.calls.insert((record.worker, record.thread), self.record_count);
        }
    }

    /// All participants had begun before the first of them returns, and one of them is the leader.
    pub(super) fn check_passed(&mut self, record: Record) {
        let caller = (record.worker, record.thread);
        let Some(begin) = self.barrier.calls.remove(&caller).filter(|_| is_checked(record)) else {
            return;
        };
        let number = record.a;
        let before = self.barrier.passed.insert(caller, number);
        let count = self.record_count;
        let generations = &mut self.barrier.generations;
        let generation = generations.entry(number).or_insert_with(|| Generation {
            first_return: count,
            first_begin: begin,
            ..Generation::default()
        });
        generation.passed += 1;
        generation.leaders += record.b;
        generation.first_begin = generation.first_begin.min(begin);
        let generation = &self.barrier.generations[&number];
        let BarrierState { calls, lost, .. } = &self.barrier;
        let waiting = calls.values().filter(|waiting| **waiting < generation.first_return).count();
        let ended = lost.iter().filter(|ended| generation.may_include(**ended)).count();
        let participants = generation.passed + (waiting + ended) as u64;
        let (passed, leaders) = (generation.passed, generation.leaders);
        let problem = if begin > generation.first_return {
            "began after another participant of that generation had passed"
        } else if passed > PARTIES {
            "passed with too many participants"
        } else if participants < PARTIES {
            "passed with too few participants"
        } else if leaders > 1 {
            "is the second leader"
        } else if before.is_some_and(|before| before >= number) {
            "passed a generation before the one that it passed last"
        } else {
            return;
        };
        self.violation(&format!("a call {problem}: {record:?}"));
    }

    /// A call that did not pass. If it is `lost`, it may have been a participant nevertheless.
    pub(super) fn end_wait(&mut self, record: Record, lost: bool) {
        if is_checked(record) {
            self.end_call((record.worker, record.thread), lost);
        }
    }

    pub(super) fn end_call(&mut self, caller: Caller, lost: bool) {
        if let Some(begin) = self.barrier.calls.remove(&caller).filter(|_| lost) {
            self.barrier.lost.push((begin, self.record_count));
        }
    }

    /// A process that starts again counts from the beginning.
    pub(super) fn forget_caller(&mut self, caller: Caller) {
        self.barrier.passed.remove(&caller);
    }

    /// While no call is in progress: each generation that one participant passed was passed by all
    /// of them, one of which was the leader, except for calls that were lost.
    pub(crate) fn settle_barrier(&mut self) {
        let barrier = std::mem::take(&mut self.barrier);
        for (number, generation) in barrier.generations {
            let missing = PARTIES.saturating_sub(generation.passed);
            let lost = barrier.lost.iter().filter(|lost| generation.may_include(**lost)).count();
            if (lost as u64) < missing || generation.leaders == 0 && lost == 0 {
                self.violation(&format!("generation {number} of the barrier: {generation:?}"));
            }
        }
    }
}
