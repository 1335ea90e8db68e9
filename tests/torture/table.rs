//! The judge: takes the records in their order, and knows who is inside what. It uses nothing of flockwork.
//!
//! What is judged, of each thing outside the yard:
//!
//! * *Exclusion.* Whoever goes in while another is inside, who does not let them, is a violation.
//! * *Permits.* No slot has two holders, and none beyond the capacity has any. Where the capacity
//!   changes, no caller is granted a permit while the permits that are out reach what it was at
//!   each moment since the call: see `capacity.rs`.
//! * *Mailbox.* What is consumed was set, and is consumed once; what was set and is never consumed needs a consumer
//!   that was killed, one for each.
//! * *Once.* One at a time does it; nobody is told that it is done before it was done, after it was undone.
//! * *Shared file.* What one finds is what the last one left, unless that one died or was told that it failed.
//! * *Waits.* Nobody is still for longer than the patience lasts: see `witness.rs`.
//!
//! **The dead.** The conductor says that a process is condemned *before* it kills it, and that it is dead after it has
//! waited for it. Between the two its locks may go at any moment, and the records cannot tell when. So who goes in
//! while a condemned one is still inside is not wrong by that: the other may have ended before. But then it has
//! ended for good, since the kernel lets a process's locks go when its last thread has ended. Should any of its threads
//! write one more record, it was alive, and the violation is shown. (What goes unseen is an overlap with a process
//! that is killed in the microseconds between its condemnation and its end and writes nothing more.)

use std::collections::HashMap;
use std::time::Instant;

use crate::capacity::Capacity;
use crate::events::{TO_BE_CLEARED, TO_BE_SET, TO_CONSUME};
use crate::record::{FLAGGER, Kind, Record, VANDAL};
use crate::report::Tally;
use crate::rounds::EXCLUSIVE;
use crate::things::{ELASTIC, THINGS, THREADS, WORKERS, What};

/// So many violations are described.
const MAX_WORDS: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Waits { thing: usize, way: u64, what: u64 },
    Inside { thing: usize },
    Rests(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub(crate) state: State,
    /// The number of its last record, and when that was read.
    pub(crate) order: u64,
    pub(crate) since: Instant,
    /// The largest capacity since it asked for a permit.
    largest: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) generation: u32,
    pub(crate) pid: u64,
    pub(crate) is_alive: bool,
    is_condemned: bool,
    /// Somebody was where this one had been: it must not be heard of any more.
    must_be_dead: Option<String>,
    pub(crate) actors: Vec<Actor>,
}

/// Somebody is inside.
#[derive(Debug, Clone, Copy)]
struct Claim {
    worker: u32,
    thread: u32,
    how: u64,
}

/// The last change of a shared file that was said and not yet seen.
#[derive(Debug, Clone, Copy)]
struct Change {
    by: (u32, u32, u32),
    to: u64,
    has_returned: bool,
}

#[derive(Debug, Default)]
struct Contents {
    now: u64,
    change: Option<Change>,
    /// These were not found by the next one: nobody may say that they succeeded.
    not_made: Vec<u64>,
}

#[derive(Debug, Default)]
struct Done {
    /// When it was last undone for certain; whether it was done since.
    undone_at: u64,
    is_perhaps: bool,
    last_effect: u64,
    /// Somebody undid it since.
    was_undone: bool,
    resetting: HashMap<(u32, u32), u64>,
}

#[derive(Debug)]
struct Sent {
    number: u64,
    at: u64,
    has_set: bool,
    is_consumed: bool,
}

#[derive(Debug, Default)]
struct Mailbox {
    sent: Vec<Sent>,
    places: HashMap<u64, usize>,
    /// Since when they had wanted something, and when they were found dead.
    dead_consumers: Vec<(u64, u64)>,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) tally: Tally,
    pub(crate) processes: Vec<Process>,
    vandal_rests: u64,
    order: u64,
    claims: Vec<Vec<Claim>>,
    capacity: Capacity,
    contents: Contents,
    done: Done,
    mailbox: Mailbox,
}

impl Table {
    pub(crate) fn new() -> Self {
        let actor = Actor { state: State::Idle, order: 0, since: Instant::now(), largest: 0 };
        let process = Process {
            generation: 0,
            pid: 0,
            is_alive: false,
            is_condemned: false,
            must_be_dead: None,
            actors: vec![actor; THREADS as usize],
        };
        Self {
            tally: Tally::new(),
            processes: vec![process; WORKERS as usize],
            vandal_rests: 0,
            order: 0,
            claims: vec![Vec::new(); THINGS.len()],
            capacity: Capacity::new(*ELASTIC.end()),
            contents: Contents::default(),
            done: Done::default(),
            mailbox: Mailbox::default(),
        }
    }

    pub(crate) fn violation(&mut self, words: &str) {
        self.tally.violations += 1;
        if self.tally.violations <= MAX_WORDS {
            eprintln!("violation at record {}: {words}", self.order);
        }
    }

    /// Since which order all rest, if they all do.
    pub(crate) fn all_rest(&self) -> Option<u64> {
        let actors = self.processes.iter().flat_map(|process| {
            process.actors.iter().map(|actor| match actor.state {
                State::Rests(order) if process.is_alive => order,
                _ => 0,
            })
        });
        let earliest = actors.chain([self.vandal_rests]).min().unwrap_or(0);
        (earliest > 0).then_some(earliest)
    }

    /// Who waits for a flag, and how they are to be known again.
    pub(crate) fn waiters(&self, thing: usize, what: u64) -> Vec<(usize, usize, u64)> {
        let mut found = Vec::new();
        for (worker, process) in self.processes.iter().enumerate() {
            for (thread, actor) in process.actors.iter().enumerate() {
                let wanted = matches!(actor.state, State::Waits { thing: waits_for, what: wants, .. }
                    if waits_for == thing && wants == what);
                if process.is_alive && wanted {
                    found.push((worker, thread, actor.order));
                }
            }
        }
        found
    }

    /// Whether those still wait.
    pub(crate) fn still_wait(&self, those: &[(usize, usize, u64)]) -> bool {
        those.iter().any(|(worker, thread, order)| {
            let process = &self.processes[*worker];
            let actor = &process.actors[*thread];
            process.is_alive && actor.order == *order && matches!(actor.state, State::Waits { .. })
        })
    }

    pub(crate) fn take(&mut self, record: Record) {
        self.order += 1;
        match record.kind {
            Kind::Mischief => self.tally.mischief[usize::try_from(record.a).unwrap_or(0)] += 1,
            Kind::LostPermits => self.tally.lost_permits += record.a,
            Kind::Rests if record.worker == VANDAL => self.vandal_rests = record.a,
            Kind::Setting | Kind::HasSet if record.worker == FLAGGER => self.take_setting(record),
            _ if record.worker < WORKERS => self.take_of_a_worker(record),
            _ => {}
        }
    }

    fn take_of_a_worker(&mut self, record: Record) {
        let worker = record.worker as usize;
        match record.kind {
            Kind::Begins => {
                let process = &mut self.processes[worker];
                process.generation = record.generation;
                process.pid = record.a;
                process.is_alive = true;
                process.is_condemned = false;
                process.must_be_dead = None;
                for actor in &mut process.actors {
                    let (order, since) = (self.order, Instant::now());
                    *actor = Actor { state: State::Idle, order, since, largest: 0 };
                }
                self.tally.processes += 1;
                return;
            }
            Kind::Condemned => return self.condemn(record),
            Kind::Dead => return self.bury(worker),
            Kind::Stopped => return self.tally.stops += 1,
            Kind::Continued => {
                // Its time did not run meanwhile.
                for actor in &mut self.processes[worker].actors {
                    actor.since = Instant::now();
                }
                return;
            }
            _ => {}
        }
        if let Some(words) = self.processes[worker].must_be_dead.take() {
            self.violation(&format!("{words}, and that one was alive: {record:?}"));
        }
        self.take_of_an_actor(record);
    }

    fn take_of_an_actor(&mut self, record: Record) {
        let Record { thing, a, b, .. } = record;
        let (worker, thread) = (record.worker as usize, record.thread as usize);
        let actor = &mut self.processes[worker].actors[thread];
        let before = actor.state;
        let wanted_at = actor.order;
        actor.order = self.order;
        actor.since = Instant::now();
        let row = &mut self.tally.rows[thing];
        let state = match record.kind {
            Kind::Wants => State::Waits { thing, way: a, what: b },
            Kind::Resizes => State::Waits { thing, way: 2, what: 0 },
            Kind::Entered => State::Inside { thing },
            Kind::Rests => State::Rests(a),
            Kind::Observed | Kind::Downgrades | Kind::Setting | Kind::Resetting => before,
            _ => State::Idle,
        };
        actor.state = state;
        actor.largest = actor.largest.max(self.capacity.largest());
        if record.kind != Kind::HasResized {
            self.capacity.gives_up((record.worker, record.thread));
        }
        match record.kind {
            Kind::Resizes => self.capacity.begins((record.worker, record.thread), a),
            Kind::HasResized => self.capacity.ends((record.worker, record.thread)),
            Kind::Wants => {
                actor.largest = self.capacity.largest();
                let others = self.processes.iter().flat_map(|process| &process.actors);
                let same = others.filter(|other| {
                    matches!(other.state, State::Waits { thing: other, .. } | State::Inside { thing: other } if other == thing)
                });
                self.tally.rows[thing].contended += u64::from(same.count() > 1);
            }
            Kind::Entered => {
                row.acquisitions += 1;
                self.enter(record);
            }
            Kind::Downgrades => self.downgrade(record),
            Kind::Left => self.leave(record),
            Kind::Had => match THINGS[thing].what {
                What::Once => self.told_that_it_is_done(record, wanted_at, before),
                What::Flag => row.acquisitions += 1,
                _ => {}
            },
            Kind::Changed => self.changed(record),
            Kind::Observed => self.observe(record),
            Kind::Consumed => {
                row.acquisitions += 1;
                self.consume(b);
            }
            Kind::Setting | Kind::HasSet => self.take_setting(record),
            Kind::Resetting => {
                self.done.resetting.insert((record.worker, record.thread), self.order);
            }
            Kind::HasReset => {
                row.acquisitions += 1;
                self.undone(record);
            }
            Kind::GaveUp => row.gave_up[usize::try_from(a).unwrap_or(0).min(3)] += 1,
            Kind::Failed => {
                row.failed += 1;
                self.failed(record);
            }
            Kind::Wrong => self.violation(&format!("seen by worker {worker}, see above")),
            _ => {}
        }
        if matches!(record.kind, Kind::Resizes | Kind::HasResized) {
            let largest = self.capacity.largest();
            let actors = self.processes.iter_mut().flat_map(|process| &mut process.actors);
            actors.for_each(|actor| actor.largest = actor.largest.max(largest));
        }
    }

    // ------------------------------------------------------------------------------- exclusion

    fn enter(&mut self, record: Record) {
        let Record { worker, thread, thing, a: how, .. } = record;
        if THINGS[thing].is_in_the_yard {
            return;
        }
        let beyond = match THINGS[thing].what {
            What::Semaphore(permits) => how >> permits != 0,
            What::Elastic => how >> ELASTIC.end() != 0,
            _ => false,
        };
        if beyond || (how == 0 && matches!(THINGS[thing].what, What::Semaphore(_))) {
            self.violation(&format!("a slot that there is not: {record:?}"));
        }
        let is_shared = |how: u64| match THINGS[thing].what {
            What::Semaphore(_) | What::Elastic => false,
            _ => how != EXCLUSIVE,
        };
        let conflicts = |claim: &Claim| match THINGS[thing].what {
            What::Semaphore(_) | What::Elastic => claim.how & how != 0,
            _ => !(is_shared(claim.how) && is_shared(how)),
        };
        let met: Vec<Claim> = self.claims[thing].iter().copied().filter(conflicts).collect();
        for claim in met {
            let words = format!(
                "{}: {worker}.{thread} went in while {}.{} was inside",
                THINGS[thing].path, claim.worker, claim.thread
            );
            let other = &mut self.processes[claim.worker as usize];
            if other.is_condemned {
                other.must_be_dead = Some(words);
                let is_that = |c: &Claim| c.worker == claim.worker && c.thread == claim.thread;
                self.claims[thing].retain(|claim| !is_that(claim));
            } else {
                self.violation(&words);
            }
        }
        self.claims[thing].push(Claim { worker, thread, how });
        if THINGS[thing].what == What::Elastic {
            self.judge_capacity(record);
        }
    }

    /// A caller that has just been granted a permit got it when no more were out than the capacity
    /// was at some moment since it asked. That also holds if some of the others were granted later:
    /// then these asked later, too.
    fn judge_capacity(&mut self, record: Record) {
        let Record { worker, thread, thing, .. } = record;
        let largest = self.processes[worker as usize].actors[thread as usize].largest;
        let is_condemned = |claim: &&Claim| self.processes[claim.worker as usize].is_condemned;
        let count = |claims: &mut dyn Iterator<Item = &Claim>| -> u32 {
            claims.map(|claim| claim.how.count_ones()).sum()
        };
        let claims = &self.claims[thing];
        let out = count(&mut claims.iter());
        let of_the_living = count(&mut claims.iter().filter(|claim| !is_condemned(claim)));
        let words = format!(
            "{}: {worker}.{thread} was granted a permit, and {out} of {largest} were out",
            THINGS[thing].path
        );
        if of_the_living > largest {
            self.violation(&words);
        } else if out > largest {
            let mut condemned: Vec<u32> =
                claims.iter().filter(is_condemned).map(|claim| claim.worker).collect();
            condemned.dedup();
            // Of several, one or more must be dead by now, and it is not known which.
            if let [one] = condemned[..] {
                self.processes[one as usize].must_be_dead = Some(words);
                self.claims[thing].retain(|claim| claim.worker != one);
            }
        }
    }

    fn downgrade(&mut self, record: Record) {
        for claim in &mut self.claims[record.thing] {
            if claim.worker == record.worker && claim.thread == record.thread {
                claim.how = 0;
            }
        }
    }

    fn leave(&mut self, record: Record) {
        let Record { worker, thread, generation, thing, b, .. } = record;
        self.claims[thing].retain(|claim| claim.worker != worker || claim.thread != thread);
        if THINGS[thing].is_in_the_yard || b == 0 {
            return;
        }
        match THINGS[thing].what {
            What::Once => {
                self.done.is_perhaps = true;
                self.done.was_undone = false;
                self.done.last_effect = self.order;
            }
            What::SharedFile => {
                let by = (worker, thread, generation);
                self.contents.change = Some(Change { by, to: b, has_returned: false });
            }
            _ => {}
        }
    }

    fn condemn(&mut self, record: Record) {
        let process = &mut self.processes[record.worker as usize];
        if process.generation != record.generation || process.is_condemned {
            return;
        }
        process.is_condemned = true;
        match record.a {
            2 => self.tally.exits += 1,
            _ => self.tally.kills += 1,
        }
        for actor in &process.actors {
            match actor.state {
                State::Waits { thing, .. } => self.tally.rows[thing].killed_waiting += 1,
                State::Inside { thing } => self.tally.rows[thing].killed_inside += 1,
                State::Idle | State::Rests(_) => {}
            }
        }
    }

    fn bury(&mut self, worker: usize) {
        let process = &mut self.processes[worker];
        process.is_alive = false;
        process.must_be_dead = None;
        for actor in &process.actors {
            match actor.state {
                State::Waits { thing, what: TO_CONSUME, .. }
                    if THINGS[thing].what == What::Mailbox =>
                {
                    self.mailbox.dead_consumers.push((actor.order, self.order));
                }
                _ => {}
            }
        }
        for claims in &mut self.claims {
            claims.retain(|claim| claim.worker as usize != worker);
        }
        for thread in 0..THREADS {
            self.capacity.gives_up((u32::try_from(worker).unwrap_or(0), thread));
        }
    }

    // --------------------------------------------------------------------------------- contents

    /// What is there while nobody may change it.
    fn observe(&mut self, record: Record) {
        if THINGS[record.thing].is_in_the_yard {
            return;
        }
        let found = record.b;
        let contents = &mut self.contents;
        let Some(change) = contents.change.take() else {
            if found != contents.now {
                let words = format!("{found:x} is there, and nobody made it so: {contents:x?}");
                self.violation(&words);
                self.contents.now = found;
            }
            return;
        };
        if found == change.to {
            contents.now = found;
            return;
        }
        let words = format!("{found:x} is there, not {:x} and {change:x?}", contents.now);
        let is_lost = found != contents.now || change.has_returned;
        contents.not_made.push(change.to);
        contents.now = found;
        if is_lost {
            self.violation(&words);
        }
    }

    fn changed(&mut self, record: Record) {
        if THINGS[record.thing].is_in_the_yard {
            return;
        }
        let contents = &mut self.contents;
        if contents.not_made.contains(&record.b) {
            self.violation(&format!("a change was lost: {record:?}"));
        } else if let Some(change) = contents.change.as_mut().filter(|change| change.to == record.b)
        {
            change.has_returned = true;
        }
    }

    /// It was not made, and is as it was: whoever looks is told so.
    fn failed(&mut self, record: Record) {
        let by = (record.worker, record.thread, record.generation);
        if THINGS[record.thing].what == What::SharedFile && !THINGS[record.thing].is_in_the_yard {
            self.contents.change.take_if(|change| change.by == by && !change.has_returned);
        }
    }

    // ------------------------------------------------------------------------------------- once

    fn told_that_it_is_done(&mut self, record: Record, wanted_at: u64, before: State) {
        if THINGS[record.thing].is_in_the_yard || record.a == 1 {
            return;
        }
        let wanted_before = matches!(before, State::Waits { .. });
        let done = &self.done;
        if wanted_before && !done.is_perhaps && done.undone_at < wanted_at {
            self.violation(&format!("told that it is done, and it was not: {record:?} {done:?}"));
        }
    }

    fn undone(&mut self, record: Record) {
        if THINGS[record.thing].is_in_the_yard {
            return;
        }
        let began = self.done.resetting.remove(&(record.worker, record.thread));
        if began.is_some_and(|began| began > self.done.last_effect) {
            self.done.is_perhaps = false;
            self.done.undone_at = self.order;
            if record.a == 1 && std::mem::replace(&mut self.done.was_undone, true) {
                self.violation(&format!("it was undone twice: {record:?}"));
            }
        }
    }

    // ---------------------------------------------------------------------------------- mailbox

    fn take_setting(&mut self, record: Record) {
        let mailbox = &mut self.mailbox;
        if record.kind == Kind::Setting {
            mailbox.places.insert(record.b, mailbox.sent.len());
            let at = self.order;
            mailbox.sent.push(Sent { number: record.b, at, has_set: false, is_consumed: false });
        } else if let Some(place) = mailbox.places.get(&record.b) {
            mailbox.sent[*place].has_set = true;
        }
    }

    fn consume(&mut self, number: u64) {
        let Some(place) = self.mailbox.places.get(&number) else {
            return self.violation(&format!("{number:x} was consumed, and nobody had sent it"));
        };
        let sent = &mut self.mailbox.sent[*place];
        if std::mem::replace(&mut sent.is_consumed, true) {
            return self.violation(&format!("{number:x} was consumed twice"));
        }
        self.tally.consumed += 1;
    }

    /// At the end, with what still lies in the mailbox. Who has taken a setting and died before saying so took it
    /// along: such a one wanted something before the next but one was sent (the next can only be sent when this one
    /// is taken, and the one after it when the lock of the consumers is free again), and died after this was sent.
    pub(crate) fn settle_the_mailbox(&mut self, left: &[u64]) {
        let Mailbox { sent, mut dead_consumers, .. } = std::mem::take(&mut self.mailbox);
        // Some died while they set it; whether it was set then shows when it is consumed.
        let was_set = |sent: &&Sent| sent.has_set || sent.is_consumed;
        let set: Vec<&Sent> = sent.iter().filter(was_set).collect();
        self.tally.settings = set.len() as u64;
        for (place, lost) in set.iter().enumerate() {
            if lost.is_consumed {
                continue;
            }
            if left.contains(&lost.number) {
                self.tally.left += 1;
                continue;
            }
            let next_but_one = set.get(place + 2).map_or(u64::MAX, |sent| sent.at);
            let took = dead_consumers
                .iter()
                .position(|(wanted, died)| *wanted < next_but_one && *died > lost.at);
            if let Some(took) = took {
                dead_consumers.remove(took);
                self.tally.taken_along += 1;
            } else {
                self.violation(&format!("what was set was never consumed: {:x}", lost.number));
            }
        }
    }

    /// For the flag: whether somebody wants it to be set, or cleared.
    pub(crate) const WISHES: [u64; 2] = [TO_BE_SET, TO_BE_CLEARED];
}
