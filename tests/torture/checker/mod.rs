//! The checker: reads the records in order, and knows which threads are inside which primitive. It
//! does not use flockwork.
//!
//! It checks each primitive whose files are not tampered with:
//!
//! * *Exclusion.* A thread that enters while another thread with conflicting access is inside is a
//!   violation.
//! * *Permits.* No slot has two holders, and no slot beyond the capacity has one. While the
//!   capacity changes, no caller is granted a permit if more permits are held than the capacity was
//!   at any moment since the call: see `capacity.rs`.
//! * *Mailbox.* Each consumed payload was sent, and is consumed once. Each payload that is never
//!   consumed needs a consumer that was killed.
//! * *Once.* One thread at a time runs the closure. No call returns that it is done before it was
//!   done, or after a reset.
//! * *Shared file.* A reader finds what the last writer left, unless that writer died or its call
//!   failed. An update that leaves the contents unchanged, or deliberately fails after it has
//!   changed them in memory, is not a writer.
//! * *Barrier.* A call passes only after all participants of its generation have begun. All of them
//!   pass or none does, and one of them is the leader: see `barrier.rs`.
//! * *Progress.* No thread is stuck for longer than the patience: see `stalls.rs`.
//!
//! **Killed processes.** The coordinator records that a process is ending *before* it kills it, and
//! that it has exited after `waitpid`. In between, the process may lose its locks at any moment,
//! which no record shows. A thread that enters while an ending process is inside is therefore not a
//! violation: the process may have ended before. But then all its threads have ended, since the
//! kernel releases a process's locks when its last thread ends. If one of them writes another
//! record, the process was alive, and the violation is reported. (An overlap with a process that is
//! killed within microseconds and writes no further record stays undetected.)

mod barrier;
mod capacity;
mod exclusion;
mod mailbox;
mod once;
mod shared_file;

use std::time::Instant;

use crate::operations::TO_CONSUME;
use crate::primitives::{ELASTIC_CAPACITY, PRIMITIVES, PrimitiveKind, THREADS, WORKERS};
use crate::record::{CHAOS, EVENT_DRIVER, Kind, Record};
use crate::report::Summary;
use crate::wait_modes::GiveUpReason;
use barrier::BarrierState;
use capacity::Capacity;
use exclusion::Holder;
use mailbox::Mailbox;
use once::OnceState;
use shared_file::{Change, Contents};

/// The number of violations that are described.
const MAX_DESCRIBED: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Waits { primitive: usize, mode: u64, operation: u64 },
    Inside { primitive: usize },
    Paused(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct ThreadState {
    pub(crate) state: State,
    /// The number of its last record, and when that was read.
    pub(crate) last_record: u64,
    pub(crate) since: Instant,
    /// The largest capacity since it requested a permit.
    largest_capacity: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct ProcessState {
    pub(crate) generation: u32,
    pub(crate) pid: u64,
    pub(crate) is_alive: bool,
    is_ending: bool,
    /// The violation to report if a record of this process follows: another thread entered where
    /// this process was inside.
    must_have_ended: Option<String>,
    pub(crate) actors: Vec<ThreadState>,
}

#[derive(Debug)]
pub(crate) struct Checker {
    pub(crate) summary: Summary,
    pub(crate) processes: Vec<ProcessState>,
    chaos_paused: u64,
    /// The number of records so far.
    record_count: u64,
    /// The threads that are inside each primitive.
    holders: Vec<Vec<Holder>>,
    capacity: Capacity,
    contents: Contents,
    once: OnceState,
    barrier: BarrierState,
    mailbox: Mailbox,
}

impl Checker {
    pub(crate) fn new() -> Self {
        let actor = ThreadState {
            state: State::Idle,
            last_record: 0,
            since: Instant::now(),
            largest_capacity: 0,
        };
        let process = ProcessState {
            generation: 0,
            pid: 0,
            is_alive: false,
            is_ending: false,
            must_have_ended: None,
            actors: vec![actor; THREADS as usize],
        };
        Self {
            summary: Summary::new(),
            processes: vec![process; WORKERS as usize],
            chaos_paused: 0,
            record_count: 0,
            holders: vec![Vec::new(); PRIMITIVES.len()],
            capacity: Capacity::new(*ELASTIC_CAPACITY.end()),
            contents: Contents::default(),
            once: OnceState::default(),
            barrier: BarrierState::default(),
            mailbox: Mailbox::default(),
        }
    }

    pub(crate) fn violation(&mut self, words: &str) {
        self.summary.violations += 1;
        if self.summary.violations <= MAX_DESCRIBED {
            eprintln!("violation at record {}: {words}", self.record_count);
        }
    }

    /// Returns the number of the phase since which all processes pause, if they all do.
    pub(crate) fn paused_since(&self) -> Option<u64> {
        let actors = self.processes.iter().flat_map(|process| {
            process.actors.iter().map(|actor| match actor.state {
                State::Paused(phase) if process.is_alive => phase,
                _ => 0,
            })
        });
        let earliest = actors.chain([self.chaos_paused]).min().unwrap_or(0);
        (earliest > 0).then_some(earliest)
    }

    /// Returns the threads that wait for that operation, each with its worker, thread and last
    /// record.
    pub(crate) fn waiters(&self, primitive: usize, operation: u64) -> Vec<(usize, usize, u64)> {
        let mut found = Vec::new();
        for (worker, process) in self.processes.iter().enumerate() {
            for (thread, actor) in process.actors.iter().enumerate() {
                let is_waiter = matches!(actor.state, State::Waits { primitive: waits_for, operation: waits_to, .. }
                    if waits_for == primitive && waits_to == operation);
                if process.is_alive && is_waiter {
                    found.push((worker, thread, actor.last_record));
                }
            }
        }
        found
    }

    /// Returns whether any of these threads still waits.
    pub(crate) fn still_wait(&self, waiters: &[(usize, usize, u64)]) -> bool {
        waiters.iter().any(|(worker, thread, last_record)| {
            let process = &self.processes[*worker];
            let actor = &process.actors[*thread];
            process.is_alive
                && actor.last_record == *last_record
                && matches!(actor.state, State::Waits { .. })
        })
    }

    pub(crate) fn check(&mut self, record: Record) {
        self.record_count += 1;
        match record.kind {
            Kind::Tampered => self.summary.tampering[usize::try_from(record.a).unwrap_or(0)] += 1,
            Kind::LostPermits => self.summary.lost_permits += record.a,
            Kind::Paused if record.worker == CHAOS => self.chaos_paused = record.a,
            Kind::Setting | Kind::WasSet if record.worker == EVENT_DRIVER => {
                self.check_setting(record);
            }
            _ if record.worker < WORKERS => self.check_worker(record),
            _ => {}
        }
    }

    fn check_worker(&mut self, record: Record) {
        let worker = record.worker as usize;
        match record.kind {
            Kind::Started => {
                let process = &mut self.processes[worker];
                process.generation = record.generation;
                process.pid = record.a;
                process.is_alive = true;
                process.is_ending = false;
                process.must_have_ended = None;
                for actor in &mut process.actors {
                    let (last_record, since) = (self.record_count, Instant::now());
                    *actor =
                        ThreadState { state: State::Idle, last_record, since, largest_capacity: 0 };
                }
                self.summary.processes += 1;
                return;
            }
            Kind::Ending => return self.mark_ending(record),
            Kind::Exited => return self.mark_exited(worker),
            Kind::Stopped => return self.summary.stops += 1,
            Kind::Opening | Kind::Continued => {
                // While a process opens its primitives or is stopped, its threads do nothing.
                for actor in &mut self.processes[worker].actors {
                    actor.since = Instant::now();
                }
                return;
            }
            _ => {}
        }
        if let Some(words) = self.processes[worker].must_have_ended.take() {
            self.violation(&format!("{words}, and that process was alive: {record:?}"));
        }
        self.check_actor(record);
    }

    fn check_actor(&mut self, record: Record) {
        let Record { primitive, a, b, .. } = record;
        let (worker, thread) = (record.worker as usize, record.thread as usize);
        let actor = &mut self.processes[worker].actors[thread];
        let before = actor.state;
        let requested_at = actor.last_record;
        actor.last_record = self.record_count;
        actor.since = Instant::now();
        let row = &mut self.summary.rows[primitive];
        let state = match record.kind {
            Kind::Waiting => State::Waits { primitive, mode: a, operation: b },
            Kind::Resizing => State::Waits { primitive, mode: 2, operation: 0 },
            Kind::Entered => State::Inside { primitive },
            Kind::Paused => State::Paused(a),
            Kind::Observed | Kind::Downgrading | Kind::Setting | Kind::Resetting => before,
            _ => State::Idle,
        };
        actor.state = state;
        actor.largest_capacity = actor.largest_capacity.max(self.capacity.largest());
        if record.kind != Kind::WasResized {
            self.capacity.abandon((record.worker, record.thread));
        }
        match record.kind {
            Kind::Resizing => self.capacity.begin((record.worker, record.thread), a),
            Kind::WasResized => self.capacity.end((record.worker, record.thread)),
            Kind::Waiting => {
                actor.largest_capacity = self.capacity.largest();
                let others = self.processes.iter().flat_map(|process| &process.actors);
                let same = others.filter(|other| {
                    matches!(other.state, State::Waits { primitive: other, .. } | State::Inside { primitive: other } if other == primitive)
                });
                self.summary.rows[primitive].contended += u64::from(same.count() > 1);
                self.begin_wait(record);
            }
            Kind::Entered => {
                row.acquisitions += 1;
                self.enter(record);
            }
            Kind::Downgrading => self.downgrade(record),
            Kind::Leaving => self.leave(record),
            Kind::Finished => match PRIMITIVES[primitive].kind {
                PrimitiveKind::Once => self.check_done(record, requested_at, before),
                PrimitiveKind::Flag => row.acquisitions += 1,
                PrimitiveKind::Barrier(_) => {
                    row.acquisitions += 1;
                    self.check_passed(record);
                }
                _ => {}
            },
            Kind::Changed => self.changed(record),
            Kind::Observed => self.check_contents(record),
            Kind::Consumed => {
                row.acquisitions += 1;
                self.consume(b);
            }
            Kind::Setting | Kind::WasSet => self.check_setting(record),
            Kind::Resetting => {
                self.once.resetting.insert((record.worker, record.thread), self.record_count);
            }
            Kind::WasReset => {
                row.acquisitions += 1;
                self.check_reset(record);
            }
            Kind::GaveUp => {
                row.gave_up[usize::try_from(a).unwrap_or(0).min(3)] += 1;
                self.end_wait(record, a == GiveUpReason::Dropped as u64);
            }
            Kind::Failed => {
                row.failed += 1;
                self.end_wait(record, true);
                self.failed(record);
            }
            Kind::Violation => self.violation(&format!("detected by worker {worker}, see above")),
            _ => {}
        }
        if matches!(record.kind, Kind::Resizing | Kind::WasResized) {
            let largest = self.capacity.largest();
            let actors = self.processes.iter_mut().flat_map(|process| &mut process.actors);
            actors.for_each(|actor| actor.largest_capacity = actor.largest_capacity.max(largest));
        }
    }

    fn leave(&mut self, record: Record) {
        let Record { worker, thread, generation, primitive, b, .. } = record;
        self.holders[primitive].retain(|holder| holder.worker != worker || holder.thread != thread);
        if PRIMITIVES[primitive].is_tampered_with || b == 0 {
            return;
        }
        match PRIMITIVES[primitive].kind {
            PrimitiveKind::Once => {
                self.once.may_be_done = true;
                self.once.was_reset = false;
                self.once.last_effect = self.record_count;
            }
            PrimitiveKind::SharedFile => {
                let by = (worker, thread, generation);
                self.contents.change = Some(Change { by, to: b, has_returned: false });
            }
            _ => {}
        }
    }

    fn mark_ending(&mut self, record: Record) {
        let process = &mut self.processes[record.worker as usize];
        if process.generation != record.generation || process.is_ending {
            return;
        }
        process.is_ending = true;
        match record.a {
            2 => self.summary.exits += 1,
            _ => self.summary.kills += 1,
        }
        for actor in &process.actors {
            match actor.state {
                State::Waits { primitive, .. } => self.summary.rows[primitive].killed_waiting += 1,
                State::Inside { primitive } => self.summary.rows[primitive].killed_inside += 1,
                State::Idle | State::Paused(_) => {}
            }
        }
    }

    fn mark_exited(&mut self, worker: usize) {
        let process = &mut self.processes[worker];
        process.is_alive = false;
        process.must_have_ended = None;
        for actor in &process.actors {
            match actor.state {
                State::Waits { primitive, operation: TO_CONSUME, .. }
                    if PRIMITIVES[primitive].kind == PrimitiveKind::Mailbox =>
                {
                    self.mailbox.dead_consumers.push((actor.last_record, self.record_count));
                }
                _ => {}
            }
        }
        for holders in &mut self.holders {
            holders.retain(|holder| holder.worker as usize != worker);
        }
        for thread in 0..THREADS {
            let caller = (u32::try_from(worker).unwrap_or(0), thread);
            self.end_call(caller, true);
            self.forget_caller(caller);
            self.capacity.abandon(caller);
        }
    }
}
