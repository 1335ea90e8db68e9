//! One call of `wait` as a state machine: it arrives, waits for the other participants, and learns
//! how its generation has ended.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::participants::{Mark, Taken};
use super::state::{self, Phase, State};
use super::{BarrierWaitResult, Inner};
use crate::error::{Error, Operation, Result};
use crate::trace::PollReason;
use crate::wait::{Check, EventLoop, Waiter};

/// How often a check begins again because another process has changed the state meanwhile.
const MAX_CHANGES: u32 = 100;

/// How a call ended.
pub(super) enum Turn {
    /// All participants have arrived.
    Passed(BarrierWaitResult),
    /// The same, and this participant runs the action before the others proceed.
    Elected(Participation),
}

/// A participant that has arrived and not left. Dropping it breaks the barrier, unless the
/// generation has ended.
pub(super) struct Participation {
    barrier: Arc<Inner>,
    /// Taken out when it leaves.
    taken: Option<Taken>,
    /// The state in which it arrived.
    arrived: State,
    has_ended: bool,
}

#[derive(Clone, Copy)]
enum Progress {
    Waiting,
    /// Another process has changed the state meanwhile.
    Again,
    Released {
        is_leader: bool,
    },
    Elected,
    Broken,
}

impl Participation {
    fn result(&self, is_leader: bool) -> BarrierWaitResult {
        BarrierWaitResult { is_leader, generation: self.arrived.generation }
    }

    /// How the generation has ended, if it has.
    fn ending(&self, current: Option<State>) -> Result<Option<Progress>> {
        let barrier = &self.barrier;
        let Some(current) = current else { return Ok(Some(Progress::Broken)) };
        let own = self.arrived.generation;
        if current.generation == own {
            return Ok((current.phase == Phase::Broken).then_some(Progress::Broken));
        }
        // An earlier generation: the directory was replaced.
        if current.generation < own {
            return Ok(Some(Progress::Broken));
        }
        // A reset may have counted the arrival even if this process has not read the state since it
        // marked it (rule B3).
        Ok(Some(if state::was_reset(&barrier.directory, own)? {
            Progress::Broken
        } else {
            Progress::Released { is_leader: false }
        }))
    }

    fn progress(&mut self, has_action: bool) -> Result<Progress> {
        let barrier = Arc::clone(&self.barrier);
        let current = barrier.read(Some(self.arrived))?;
        if let Some(ending) = self.ending(current)? {
            self.has_ended = true;
            return Ok(ending);
        }
        let Some(current) = current else { return Ok(Progress::Broken) };
        let Some(own) = &self.taken else { return Ok(Progress::Broken) };
        let arrived = barrier.arrived(current.generation)?;
        // Another program removed the mark, or replaced the directory, which is then another
        // barrier.
        if !arrived.contains(&own.number) {
            self.has_ended = !barrier.participants.is_valid(own)?;
            return Ok(Progress::Broken);
        }
        for number in &arrived {
            if *number != own.number && !barrier.participants.is_held(*number)? {
                // A dead one, or one that has left since the generation ended.
                state::break_generation(&barrier.directory, current)?;
                return Ok(Progress::Again);
            }
        }
        if current.phase == Phase::Full || arrived.len() < current.parties as usize {
            return Ok(Progress::Waiting);
        }
        let next = if has_action { Some(current.with(Phase::Full)) } else { current.next() };
        let next = next.ok_or_else(|| barrier.no_more_generations())?;
        if !state::change(&barrier.directory, current, next)? {
            return Ok(Progress::Again);
        }
        if has_action {
            return Ok(Progress::Elected);
        }
        self.has_ended = true;
        Ok(Progress::Released { is_leader: true })
    }

    /// Gives up before the generation has ended, which breaks it (rule B5). Returns how it has
    /// ended if it has.
    fn give_up(&mut self) -> Result<Option<Progress>> {
        if state::break_generation(&self.barrier.directory, self.arrived)? {
            self.has_ended = true;
            return Ok(None);
        }
        let current = state::read(&self.barrier.directory)?;
        self.has_ended = true;
        Ok(Some(self.ending(current)?.unwrap_or(Progress::Broken)))
    }

    /// Lets the other participants proceed, after the leader has run its action.
    pub(super) fn release(mut self) -> Result<BarrierWaitResult> {
        let barrier = Arc::clone(&self.barrier);
        if !self.is_here() {
            // The action forked, and this is the copy: the other process still runs it (rule 4).
            return Err(Error::forked_copy(Operation::ChangeState, &barrier.directory));
        }
        let full = self.arrived.with(Phase::Full);
        let next = full.next().ok_or_else(|| barrier.no_more_generations())?;
        let is_released = state::change(&barrier.directory, full, next)?;
        self.has_ended = true;
        if is_released { Ok(self.result(true)) } else { Err(Error::broken(&barrier.directory)) }
    }

    fn is_here(&self) -> bool {
        self.taken.as_ref().is_some_and(Taken::is_here)
    }
}

impl Drop for Participation {
    fn drop(&mut self) {
        // A forked copy takes no part (rule 4).
        if !self.has_ended && self.is_here() {
            let _ = self.give_up();
        }
        if let Some(taken) = self.taken.take() {
            self.barrier.participants.release(taken);
        }
    }
}

/// A call before it has passed.
struct Stage {
    barrier: Arc<Inner>,
    has_action: bool,
    /// `None`: it has not arrived yet.
    participation: Option<Participation>,
}

impl Stage {
    fn check(&mut self) -> Result<Check<Turn>> {
        for _ in 0..MAX_CHANGES {
            let Some(participation) = &mut self.participation else {
                match arrive(&self.barrier)? {
                    Some(arrived) => self.participation = Some(arrived),
                    None => return Ok(Check::not_yet(true)),
                }
                continue;
            };
            match participation.progress(self.has_action)? {
                Progress::Waiting => return Ok(Check::not_yet(true)),
                Progress::Again => {}
                ended => return self.end(ended).map(Check::Ready),
            }
        }
        // Other processes change the state all the time: check again soon.
        Ok(Check::not_yet(false))
    }

    fn end(&mut self, ended: Progress) -> Result<Turn> {
        let broken = || Error::broken(&self.barrier.directory);
        let participation = self.participation.take().ok_or_else(broken)?;
        match ended {
            Progress::Elected => Ok(Turn::Elected(participation)),
            Progress::Released { is_leader } => Ok(Turn::Passed(participation.result(is_leader))),
            _ => Err(broken()),
        }
    }

    /// Gives up at the deadline. `None`: it had not passed the barrier by then, which is broken now
    /// if this call had arrived.
    fn last_chance(&mut self) -> Result<Option<Turn>> {
        if let Check::Ready(turn) = self.check()? {
            return Ok(Some(turn));
        }
        match self.participation.as_mut().map_or(Ok(None), Participation::give_up)? {
            None => {
                self.participation = None;
                Ok(None)
            }
            Some(ended) => self.end(ended).map(Some),
        }
    }
}

/// Arrives at the current generation. `None`: all participants' files are locked, by this
/// generation or by participants that have not left an earlier one.
fn arrive(barrier: &Arc<Inner>) -> Result<Option<Participation>> {
    barrier.current()?;
    let Some(taken) = barrier.participants.take()? else { return Ok(None) };
    arrive_with(barrier, taken)
}

/// The state is read after the file was locked: if it is marked with this generation, its previous
/// holder has died (rule B4).
fn arrive_with(barrier: &Arc<Inner>, taken: Taken) -> Result<Option<Participation>> {
    let number = taken.number;
    let outcome = barrier.current().and_then(|current| {
        let mark = Mark { generation: current.generation, number };
        if barrier.participants.has_mark(mark)? {
            state::break_generation(&barrier.directory, current)?;
            barrier.current()?; // fails, unless another process has ended the generation
            return Ok(None);
        }
        if current.phase != Phase::Open {
            return Ok(None); // another program removed a mark
        }
        barrier.participants.mark(mark)?;
        Ok(Some(current))
    });
    match outcome {
        Ok(Some(arrived)) => Ok(Some(Participation {
            barrier: Arc::clone(barrier),
            taken: Some(taken),
            arrived,
            has_ended: false,
        })),
        other => {
            barrier.participants.release(taken);
            other.map(|_| None)
        }
    }
}

/// Passes the barrier if all other participants have arrived. Otherwise it takes no part, and
/// returns `None`.
pub(super) fn try_now(barrier: &Arc<Inner>) -> Result<Option<Turn>> {
    barrier.current()?;
    let Some(taken) = barrier.participants.take_free()? else { return Ok(None) };
    let number = taken.number;
    let is_last = barrier.current().and_then(|current| {
        let others = barrier.arrived(current.generation)?;
        // If the file is marked, its previous holder has died, which `arrive_with` handles.
        Ok(others.contains(&number) || others.len() + 1 >= current.parties as usize)
    });
    if !matches!(is_last, Ok(true)) {
        barrier.participants.release(taken);
        return is_last.map(|_| None);
    }
    let participation = arrive_with(barrier, taken)?;
    let has_arrived = participation.is_some();
    let mut stage = Stage { barrier: Arc::clone(barrier), has_action: false, participation };
    if !has_arrived {
        return Ok(None);
    }
    match stage.check()? {
        Check::Ready(turn) => Ok(Some(turn)),
        Check::NotYet { .. } => stage.last_chance(),
    }
}

/// A call of `wait`, for a thread or a future.
pub(super) struct BarrierWait {
    stage: Stage,
    events: Option<EventLoop>,
    has_checked: bool,
}

impl BarrierWait {
    pub(super) fn new(barrier: &Arc<Inner>, has_action: bool) -> Self {
        let stage = Stage { barrier: Arc::clone(barrier), has_action, participation: None };
        Self { stage, events: None, has_checked: false }
    }

    /// Arrives, and returns without waiting.
    pub(super) fn check_once(&mut self) -> Result<Option<Turn>> {
        self.has_checked = true;
        Ok(self.stage.check()?.ready())
    }

    /// Ends the wait at its deadline: see [`Stage::last_chance`].
    pub(super) fn give_up(mut self) -> Result<Option<Turn>> {
        self.stage.last_chance()
    }
}

impl Waiter for BarrierWait {
    type Held = Turn;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<Turn>> {
        if !self.has_checked {
            if let Some(turn) = self.check_once()? {
                return Poll::Ready(Ok(turn));
            }
        }
        let Self { stage, events, .. } = self;
        let events = events.get_or_insert_with(|| {
            // Subscribe, and check again: the subscription notifies when it is active.
            let mut events = EventLoop::new(stage.barrier.wake_strategy.clone());
            events.subscribe(waker);
            events
        });
        events.poll(waker, |_thorough| stage.check())
    }

    fn next_tick(&self) -> Option<Instant> {
        self.events.as_ref().and_then(EventLoop::next_tick)
    }

    fn polls_because(&self) -> Option<PollReason> {
        self.events.as_ref().and_then(EventLoop::polls_because)
    }

    fn last_chance(&mut self) -> Result<Option<Turn>> {
        self.stage.last_chance()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Barrier;
    use super::*;
    use crate::error::ErrorKind;

    /// The reset comes after the arrival was marked, and before the state is read again.
    #[test]
    fn a_counted_arrival_is_broken_by_a_reset_at_any_moment() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("barrier");
        let barrier = Barrier::open(&path, 2).unwrap();
        let participation = arrive(&barrier.inner).unwrap();
        let other = Barrier::open(&path, 2).unwrap();
        assert_eq!(other.waiting().unwrap(), 1);
        other.reset().unwrap();
        let inner = Arc::clone(&barrier.inner);
        let mut stage = Stage { barrier: inner, has_action: false, participation };
        let error = stage.check().map(Check::ready).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Broken);
        drop(stage);
        assert_eq!((other.waiting().unwrap(), other.is_broken().unwrap()), (0, false));
    }
}
