//! Waiting for one lock: per key (a file and a mode) one line of this process's waiters and at most one
//! helper thread, which blocks in the kernel on their behalf and hands the lock to the first of them.
//!
//! Rules Q1 to Q6 of `docs/PROTOCOL.md`:
//!
//! * Q1 All of it is under one mutex per [`Lines`]: who stands in line, who was granted, whether a helper
//!   is out. So "granted" and "gave up" exclude each other.
//! * Q2 A line exists exactly as long as its helper. Who joins finds one or starts one, so nobody stands
//!   in line without somebody blocked in the kernel for them.
//! * Q3 The helper hands what it got to the first in line, and goes round again if more stand there; if
//!   nobody does it takes the line away and unlocks.
//! * Q4 Who gives up leaves the line under the mutex. If they were granted before, a thread takes it (a
//!   guard after all), and a dropped future passes it on to the next in line, or unlocks.
//! * Q5 A helper that fails, or cannot be started, dissolves its line: everybody in it is woken and
//!   waits alone from then on, by polling. One that finds the file replaced dissolves it too, and they
//!   begin again.
//! * Q6 Wakers, and whatever is dropped, are somebody else's code: never touched under the mutex.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::poll::Rhythm;
use super::{Target, deadline, wake};
use crate::per_process::{MutexGuard, PerProcess};
use crate::sync;

/// Helpers of the whole process. Each is a thread, and has a descriptor.
const MOST_HELPERS: usize = 64;
static HELPERS: AtomicUsize = AtomicUsize::new(0);

/// The next one in any line. Goes on in a forked copy, so that a place of the other process is nobody's there.
static PLACES: AtomicU64 = AtomicU64::new(0);

/// The pauses of who lets others go first: waking a thread takes 10 to 100 microseconds. No more than these,
/// since two who both let others go first would hold each other up.
const YIELDS: [Duration; 2] = [Duration::from_micros(50); 2];

/// All lines for one kind of target.
pub(crate) struct Lines<T: Target> {
    state: PerProcess<State<T>>,
    /// How many lines there are, to be looked at without the mutex.
    count: AtomicUsize,
}

struct State<T: Target> {
    /// It was just begun, in a process that was forked from one that has another.
    is_forked: bool,
    lines: BTreeMap<T::Key, Line>,
    seats: BTreeMap<Place, Seat<T::Held>>,
}

struct Line {
    /// Whose line it is: the place of the waiter who started that helper. A line that was taken away and
    /// begun anew under the same key is another's.
    helper: Place,
    waiters: VecDeque<Place>,
}

impl<T: Target> State<T> {
    const fn new(is_forked: bool) -> Self {
        Self { is_forked, lines: BTreeMap::new(), seats: BTreeMap::new() }
    }

    /// Who stands in the line of that helper, or `None` where it has none any more.
    fn line_of(&mut self, helper: &Helper<T>) -> Option<&mut VecDeque<Place>> {
        self.lines
            .get_mut(&helper.key)
            .filter(|line| line.helper == helper.number)
            .map(|line| &mut line.waiters)
    }
}

/// A place in line. Never used twice.
pub(super) type Place = u64;

enum Seat<H> {
    Waiting(Waker),
    Granted(H),
    /// The line is no more.
    Dissolved(Why),
}

/// Why a line was dissolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// No helper can wait for it: wait alone, by polling.
    NoHelper,
    /// What it waited for was replaced: begin again.
    Replaced,
}

/// What a look at one's place shows.
pub(super) enum Look<H> {
    Waiting,
    Granted(H),
    Dissolved(Why),
}

impl<T: Target> Lines<T> {
    pub(crate) const fn new() -> Self {
        // The helpers and the waiters' threads stay in the process that was forked. What was granted there is
        // closed here without being unlocked (rule 4).
        let state = PerProcess::new(State::new(false), |()| State::new(true));
        Self { state, count: AtomicUsize::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_forked) {
            self.count.store(0, Ordering::Relaxed);
            HELPERS.store(0, Ordering::Relaxed);
        }
        state
    }

    /// Whether there is no line at all, for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Whether a helper waits for that already.
    pub(super) fn has(&self, key: &T::Key) -> bool {
        !self.is_empty() && self.state().lines.contains_key(key)
    }

    /// Joins the line, adopting its helper or starting one (Q2). `None`: no helper can be had.
    pub(super) fn join(
        &'static self,
        target: &Arc<T>,
        key: &T::Key,
        waker: &Waker,
    ) -> Option<Place> {
        let waker = waker.clone();
        let mut state = self.state();
        let has_helper = state.lines.contains_key(key);
        if !has_helper {
            // Reserved before it is used; given back by `Helper`.
            let reserved = HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |helpers| {
                (helpers < MOST_HELPERS).then_some(helpers + 1)
            });
            if reserved.is_err() {
                return None;
            }
        }
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        let line = state
            .lines
            .entry(key.clone())
            .or_insert_with(|| Line { helper: place, waiters: VecDeque::new() });
        line.waiters.push_back(place);
        state.seats.insert(place, Seat::Waiting(waker));
        self.count.store(state.lines.len(), Ordering::Relaxed);
        drop(state);
        if !has_helper {
            let helper = Helper {
                lines: self,
                number: place,
                key: key.clone(),
                target: Arc::clone(target),
                why: Why::NoHelper,
            };
            // Should it not start, the closure is dropped, and `Helper` with it: that dissolves the
            // line (Q5), in which others may stand by now.
            let _ = sync::start("flockwork-wait", move || helper.run());
        }
        Some(place)
    }

    /// Looks whether the wait is over. Whoever is still waiting is woken by `waker`.
    pub(super) fn look(&self, place: Place, waker: &Waker) -> Look<T::Held> {
        let mut cloned = None;
        loop {
            let mut state = self.state();
            match (state.seats.get_mut(&place), cloned.take()) {
                (Some(Seat::Waiting(old)), None) if !old.will_wake(waker) => {
                    // Not under the mutex (Q6); and then look again.
                    drop(state);
                    cloned = Some(waker.clone());
                }
                (Some(Seat::Waiting(old)), cloned) => {
                    let replaced = cloned.map(|new| std::mem::replace(old, new));
                    drop(state);
                    drop(replaced);
                    return Look::Waiting;
                }
                (_, unneeded) => {
                    let seat = state.seats.remove(&place);
                    drop(state);
                    drop(unneeded);
                    return match seat {
                        Some(Seat::Granted(held)) => Look::Granted(held),
                        Some(Seat::Dissolved(why)) => Look::Dissolved(why),
                        _ => Look::Dissolved(Why::Replaced), // by a forked copy of itself
                    };
                }
            }
        }
    }

    /// Leaves the line. What was granted before comes back (Q4).
    pub(super) fn leave(&self, key: &T::Key, place: Place) -> Option<T::Held> {
        let mut state = self.state();
        let seat = state.seats.remove(&place);
        if let Some(Seat::Waiting(_)) = seat {
            if let Some(line) = state.lines.get_mut(key) {
                line.waiters.retain(|other| *other != place);
            }
        }
        drop(state);
        match seat {
            Some(Seat::Granted(held)) => Some(held),
            _ => None,
        }
    }

    /// Hands over what nobody in particular wants to the next in line, or drops it, which releases it.
    pub(super) fn pass_on(&self, target: &T, key: &T::Key, held: T::Held) {
        let granted = Self::grant(&mut self.state(), key, held);
        Self::settle(target, granted);
    }

    /// Ends a grant, without the mutex (Q6): wakes who was granted, or unlocks what nobody wants.
    fn settle(target: &T, granted: std::result::Result<Waker, T::Held>) {
        match granted {
            Ok(waker) => wake(waker),
            Err(unwanted) => target.give_back(unwanted),
        }
    }

    /// Gives `held` to the first in line: their waker. Or back, where nobody stands there.
    fn grant(
        state: &mut State<T>,
        key: &T::Key,
        held: T::Held,
    ) -> std::result::Result<Waker, T::Held> {
        let Some(first) = state.lines.get_mut(key).and_then(|l| l.waiters.pop_front()) else {
            return Err(held);
        };
        match state.seats.insert(first, Seat::Granted(held)) {
            Some(Seat::Waiting(waker)) => Ok(waker),
            // Unreachable: who stands in line waits, both change under one mutex (Q1).
            _ => Ok(Waker::noop().clone()),
        }
    }
}

/// The thread that blocks for a line. Dropped in whatever way (done, failed, panicked, never started)
/// it leaves nobody standing without a helper.
struct Helper<T: Target> {
    lines: &'static Lines<T>,
    number: Place,
    key: T::Key,
    target: Arc<T>,
    /// Why the line is dissolved, should it be.
    why: Why,
}

/// What a helper got.
enum Obtained<H> {
    Held(H),
    /// Nobody waits any more, and the line is gone.
    Unwanted,
    Replaced,
}

impl<T: Target> Helper<T> {
    fn run(mut self) {
        loop {
            let held = match self.obtain() {
                Ok(Obtained::Held(held)) => held,
                Ok(Obtained::Replaced) => {
                    self.why = Why::Replaced;
                    return;
                }
                // An error is not handed on: each waiter that now waits alone will meet it itself, or not.
                Ok(Obtained::Unwanted) | Err(_) => return,
            };
            let mut state = self.lines.state();
            let granted = Lines::grant(&mut state, &self.key, held);
            // Under the same mutex as the look: who comes after that starts another helper (Q2, Q3).
            let is_last = self.end_if_empty(&mut state);
            drop(state);
            Lines::settle(&*self.target, granted);
            if is_last {
                return;
            }
        }
    }

    /// Takes the line away if nobody stands in it; says whether this helper is done.
    fn end_if_empty(&self, state: &mut State<T>) -> bool {
        match state.line_of(self) {
            Some(line) if !line.is_empty() => return false,
            Some(_) => {
                state.lines.remove(&self.key);
                self.lines.count.store(state.lines.len(), Ordering::Relaxed);
            }
            None => {}
        }
        true
    }

    /// Blocks in the kernel; or, where that must not be trusted, polls for as long as anybody waits.
    fn obtain(&self) -> crate::error::Result<Obtained<T::Held>> {
        if !self.target.must_poll() {
            self.let_others_pass()?;
            return Ok(match self.target.block(&self.key)? {
                Some(held) => Obtained::Held(held),
                None => Obtained::Replaced,
            });
        }
        let mut rhythm = Rhythm::new(None);
        loop {
            if let Some(held) = self.target.attempt()? {
                return Ok(Obtained::Held(held));
            }
            if self.end_if_empty(&mut self.lines.state()) {
                return Ok(Obtained::Unwanted);
            }
            sync::sleep(rhythm.next().saturating_duration_since(deadline::now()));
            rhythm.missed();
        }
    }
}

impl<T: Target> Helper<T> {
    /// S4. The kernel gives a lock that is free to who asks, also if others were woken for it and are on their
    /// way; and each of those behind them is woken for nothing then. So who finds it free while others wait
    /// comes back a little later. A few times only: those who were woken may have been stopped.
    fn let_others_pass(&self) -> crate::error::Result<()> {
        for pause in YIELDS {
            if !self.target.should_yield() || !self.target.is_free()? {
                break;
            }
            sync::sleep(pause);
        }
        Ok(())
    }
}

impl<T: Target> Drop for Helper<T> {
    fn drop(&mut self) {
        let mut wakers = Vec::new();
        let mut state = self.lines.state();
        HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).ok();
        let stranded = state.line_of(self).map(std::mem::take).unwrap_or_default();
        self.end_if_empty(&mut state);
        for place in stranded {
            if let Some(Seat::Waiting(waker)) = state.seats.insert(place, Seat::Dissolved(self.why))
            {
                wakers.push(waker);
            }
        }
        drop(state);
        wakers.into_iter().for_each(wake);
    }
}
