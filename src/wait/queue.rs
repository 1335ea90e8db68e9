//! Waiting for one lock: per key (a file and a mode) one line of this process's waiters and at most one
//! helper thread, which blocks in the kernel on their behalf and hands the lock to the first of them.
//!
//! Rules Q1 to Q6 of `docs/PROTOCOL.md`:
//!
//! * Q1 All of it is under one mutex per [`Lines`]: who stands in line, who was granted, whether a helper
//!   is out. So "granted" and "gave up" exclude each other.
//! * Q2 A line exists exactly as long as its helper. Who joins finds one or starts one, so nobody stands
//!   in line without somebody blocked in the kernel for them.
//! * Q3 The helper hands what it got to the first in line, and goes round again if more stand there. If
//!   no waiter does, it takes the line away and unlocks, both under the mutex.
//! * Q4 Who gives up leaves the line under the mutex. If they were granted before, a thread takes it (a
//!   guard after all), and a dropped future passes it on to the next in line, or unlocks.
//! * Q5 A helper that fails, or cannot be started, dissolves its line: everybody in it is woken and
//!   waits alone from then on, by polling. One that finds the file replaced dissolves it too, and they
//!   begin again.
//! * Q6 Wakers, and whatever is dropped, are somebody else's code: never touched under the mutex.
//! * Q7 A try takes over what a helper without waiters has been granted.
//! * Q8 Few helpers are kept that no waiter needs: while there are this many, a wait gets its own
//!   helper only after it has lasted a while.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::poll::Rhythm;
use super::{Target, deadline, wake};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sync;

/// At most this many helpers that a waiter needs, and this many in all. Each is a thread, and has a
/// descriptor.
const MAX_NEEDED: usize = 64;
const MAX_HELPERS: usize = 256;
/// While this many helpers are not needed any more, a wait must last before it gets its own: a
/// helper that is blocked in the kernel cannot be ended, so waits that give up soon should leave
/// none.
const MAX_IDLE: usize = 8;
static HELPERS: AtomicUsize = AtomicUsize::new(0);
/// A helper sleeps in one system call: the default of 2 MiB would be address space for nothing.
pub(super) const STACK: usize = 256 * 1024;

/// How soon a future that its executor may set aside must take what it was granted, if other
/// waiters need it. Otherwise the grant is taken back, and the future waits again.
const UNTAKEN: Duration = Duration::from_secs(1);

/// The next one in any line. Goes on in a forked copy, so that a place of the other process is nobody's there.
static PLACES: AtomicU64 = AtomicU64::new(0);

/// The pauses of who lets others go first: waking a thread takes 10 to 100 microseconds. No more than these,
/// since two who both let others go first would hold each other up.
const YIELDS: [Duration; 2] = [Duration::from_micros(50); 2];

/// All lines for one kind of target.
pub(crate) struct Lines<T: Target> {
    state: ForkSafe<State<T>>,
    /// How many lines there are, to be looked at without the mutex.
    count: AtomicUsize,
    /// How often a helper has unlocked what no waiter wanted.
    unwanted: AtomicU64,
}

struct State<T: Target> {
    /// It was just begun, in a process that was forked from one that has another.
    is_forked: bool,
    lines: BTreeMap<T::Key, Line<T::Request>>,
    seats: BTreeMap<Place, Seat<T::Held>>,
}

struct Line<R> {
    /// Whose line it is: the place of the waiter who started that helper. A line that was taken away and
    /// begun again under the same key is another's.
    helper: Place,
    waiters: VecDeque<Place>,
    /// What the helper is blocked for, while it is.
    request: Option<Arc<R>>,
}

impl<T: Target> State<T> {
    const fn new(is_forked: bool) -> Self {
        Self { is_forked, lines: BTreeMap::new(), seats: BTreeMap::new() }
    }

    /// The line of that helper, or `None` where it has none any more.
    fn line_of(&mut self, helper: &Helper<T>) -> Option<&mut Line<T::Request>> {
        self.lines.get_mut(&helper.key).filter(|line| line.helper == helper.number)
    }

    /// How many helpers are blocked although no waiter needs them any more.
    fn idle(&self) -> usize {
        self.lines.values().filter(|line| line.waiters.is_empty()).count()
    }

    fn stand(&mut self, key: &T::Key, place: Place, seat: Waiting) {
        if let Some(line) = self.lines.get_mut(key) {
            line.waiters.push_back(place);
            self.seats.insert(place, Seat::Waiting(seat));
        }
    }
}

/// A place in line. Never used twice.
pub(super) type Place = u64;

enum Seat<H> {
    Waiting(Waiting),
    /// With whether the helper waits until it is taken.
    Granted(H, bool),
    /// The line is no more.
    Dissolved(Why),
}

struct Waiting {
    waker: Waker,
    /// A grant must be taken soon: see [`UNTAKEN`].
    is_brief: bool,
}

/// Why a line was dissolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// No helper can wait for it: wait alone, by polling.
    NoHelper,
    /// What it waited for was replaced: begin again.
    Replaced,
}

/// What became of a wish to join a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    Standing(Place),
    /// There are many helpers already: ask again when the wait has lasted a while.
    Later,
    /// No helper can be started.
    NoHelper,
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
        let state = ForkSafe::new(State::new(false), |()| State::new(true));
        Self { state, count: AtomicUsize::new(0), unwanted: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_forked) {
            self.count.store(0, Ordering::Release);
            HELPERS.store(0, Ordering::Relaxed);
        }
        state
    }

    /// Whether there is no line at all, for anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// How often a helper has unlocked what no waiter wanted: a try that was refused before it grew may
    /// have been refused by that helper (Q7).
    pub(crate) fn unwanted(&self) -> u64 {
        self.unwanted.load(Ordering::Acquire)
    }

    /// Whether a helper waits for that already.
    pub(super) fn has(&self, key: &T::Key) -> bool {
        !self.is_empty() && self.state().lines.contains_key(key)
    }

    /// Joins the line, adopting its helper or starting one (Q2, Q8). `has_lasted`: the wait has
    /// lasted for long enough to get its own helper.
    pub(super) fn join(
        &'static self,
        target: &Arc<T>,
        key: &T::Key,
        waker: &Waker,
        is_brief: bool,
        has_lasted: bool,
    ) -> Joined {
        let waiting = Waiting { waker: waker.clone(), is_brief };
        let mut state = self.state();
        let has_helper = state.lines.contains_key(key);
        if !has_helper {
            let idle = state.idle();
            if idle >= MAX_IDLE && !has_lasted {
                return Joined::Later;
            }
            // Reserved before it is used; given back by `Helper`.
            let most = MAX_HELPERS.min(MAX_NEEDED + idle);
            let reserved = HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |helpers| {
                (helpers < most).then_some(helpers + 1)
            });
            if reserved.is_err() {
                return Joined::NoHelper;
            }
        }
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        if !has_helper {
            let line = Line { helper: place, waiters: VecDeque::new(), request: None };
            state.lines.insert(key.clone(), line);
        }
        state.stand(key, place, waiting);
        self.count.store(state.lines.len(), Ordering::Release);
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
            let _ = sync::start("flockwork-wait", STACK, move || helper.run());
        }
        Joined::Standing(place)
    }

    /// Q7. Whether a helper that no waiter needs has been granted what `key` stands for, or would be at
    /// this moment. It hands it over soon, or unlocks it.
    pub(super) fn is_left(&self, target: &T, key: &T::Key) -> bool {
        !self.is_empty() && Self::is_granted(&self.state(), target, key)
    }

    /// Q7. If so, joins its line, as the first.
    pub(super) fn join_left(&self, target: &T, key: &T::Key, waker: &Waker) -> Option<Place> {
        if self.is_empty() {
            return None;
        }
        let waiting = Waiting { waker: waker.clone(), is_brief: false };
        let mut state = self.state();
        if !Self::is_granted(&state, target, key) {
            return None;
        }
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        state.stand(key, place, waiting);
        Some(place)
    }

    fn is_granted(state: &State<T>, target: &T, key: &T::Key) -> bool {
        let line = state.lines.get(key).filter(|line| line.waiters.is_empty());
        let request = line.and_then(|line| line.request.as_ref());
        request.is_some_and(|request| target.is_granted(request))
    }

    /// Looks whether the wait is over. Whoever is still waiting is woken by `waker`.
    pub(super) fn look(&self, place: Place, waker: &Waker) -> Look<T::Held> {
        let mut cloned = None;
        loop {
            let mut state = self.state();
            match (state.seats.get_mut(&place), cloned.take()) {
                (Some(Seat::Waiting(old)), None) if !old.waker.will_wake(waker) => {
                    // Not under the mutex (Q6); and then look again.
                    drop(state);
                    cloned = Some(waker.clone());
                }
                (Some(Seat::Waiting(old)), cloned) => {
                    let replaced = cloned.map(|new| std::mem::replace(&mut old.waker, new));
                    drop(state);
                    drop(replaced);
                    return Look::Waiting;
                }
                (_, unneeded) => {
                    let seat = state.seats.remove(&place);
                    drop(state);
                    drop(unneeded);
                    return match seat {
                        Some(Seat::Granted(held, is_watched)) => {
                            self.was_taken(is_watched);
                            Look::Granted(held)
                        }
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
            Some(Seat::Granted(held, is_watched)) => {
                self.was_taken(is_watched);
                Some(held)
            }
            _ => None,
        }
    }

    /// Wakes the helper that waits until what it granted is taken.
    fn was_taken(&self, is_watched: bool) {
        if is_watched {
            self.state.notify_all();
        }
    }

    /// Hands over what a waiter does not want any more to the next in line, or drops it, which releases
    /// it.
    pub(super) fn pass_on(&self, target: &T, key: &T::Key, held: T::Held) {
        let granted = Self::grant(&mut self.state(), key, held, false);
        // Without the mutex (Q6).
        match granted {
            Ok(grant) => wake(grant.waker),
            Err(unwanted) => target.give_back(unwanted),
        }
    }

    /// Gives `held` to the first in line. Or back, where no waiter stands there. `has_helper`: the
    /// helper is there to take it back.
    fn grant(
        state: &mut State<T>,
        key: &T::Key,
        held: T::Held,
        has_helper: bool,
    ) -> std::result::Result<Grant, T::Held> {
        let Some(first) = state.lines.get_mut(key).and_then(|l| l.waiters.pop_front()) else {
            return Err(held);
        };
        let Some(Seat::Waiting(Waiting { waker, is_brief })) = state.seats.remove(&first) else {
            // Unreachable: a place in line waits, both change under one mutex (Q1).
            return Err(held);
        };
        let is_watched = is_brief && has_helper;
        state.seats.insert(first, Seat::Granted(held, is_watched));
        Ok(Grant { waker, watched: is_watched.then_some(first) })
    }
}

/// What was given to the first in line.
struct Grant {
    waker: Waker,
    /// The place, if the helper waits until it is taken.
    watched: Option<Place>,
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
enum Obtained<T: Target> {
    Granted(Arc<T::Request>),
    Held(T::Held),
    /// No waiter stands in line any more, and the line is gone.
    Unwanted,
    Replaced,
}

impl<T: Target> Helper<T> {
    fn run(mut self) {
        loop {
            let obtained = self.obtain();
            let mut state = self.lines.state();
            let held = match obtained {
                Ok(Obtained::Granted(request)) => {
                    // From here on no try may take it over (Q7), and no other thread has the request.
                    drop(state.line_of(&self).and_then(|line| line.request.take()));
                    Arc::into_inner(request).map(|request| self.target.granted(request))
                }
                Ok(Obtained::Held(held)) => Some(held),
                Ok(Obtained::Replaced) => None,
                // An error is not handed on: each waiter that now waits alone meets it itself, or not.
                Ok(Obtained::Unwanted) | Err(_) => return,
            };
            let Some(held) = held else {
                self.why = Why::Replaced;
                return;
            };
            let granted = Lines::grant(&mut state, &self.key, held, true);
            // Under the same mutex as the look: who comes after that starts another helper (Q2, Q3).
            let is_last = match granted {
                Ok(Grant { waker, watched: Some(place) }) => {
                    drop(state);
                    wake(waker);
                    self.take_back_untaken(place);
                    state = self.lines.state();
                    self.end_if_empty(&mut state)
                }
                Ok(Grant { waker, watched: None }) => {
                    let is_last = self.end_if_empty(&mut state);
                    drop(state);
                    wake(waker);
                    is_last
                }
                Err(mut unwanted) => {
                    // Unlocked before the line is gone, so that no try of this process is refused
                    // by it (Q7). The rest may take a while, or run a caller's code.
                    self.target.release(&mut unwanted);
                    self.lines.unwanted.fetch_add(1, Ordering::Release);
                    let is_last = self.end_if_empty(&mut state);
                    drop(state);
                    self.target.give_back(unwanted);
                    is_last
                }
            };
            if is_last {
                return;
            }
        }
    }

    /// Waits until the future at that place has taken what it was granted. A future that does not
    /// take it is set aside, perhaps for ever: its grant is released, and it waits again when it is
    /// polled.
    fn take_back_untaken(&self, place: Place) {
        let over = deadline::now() + UNTAKEN;
        let mut state = self.lines.state();
        let mut left = UNTAKEN;
        while matches!(state.seats.get(&place), Some(Seat::Granted(..))) {
            if left.is_zero() {
                let untaken = state.seats.insert(place, Seat::Dissolved(Why::Replaced));
                drop(state);
                if let Some(Seat::Granted(held, _)) = untaken {
                    self.target.give_back(held);
                    self.lines.unwanted.fetch_add(1, Ordering::Release);
                }
                return;
            }
            (state, _) = self.lines.state.wait(state, left);
            left = over.saturating_duration_since(deadline::now());
        }
    }

    /// Removes the line if no waiter stands in it; returns whether this helper is done.
    fn end_if_empty(&self, state: &mut State<T>) -> bool {
        match state.line_of(self) {
            Some(line) if !line.waiters.is_empty() => return false,
            Some(_) => {
                state.lines.remove(&self.key);
                self.lines.count.store(state.lines.len(), Ordering::Release);
            }
            None => {}
        }
        true
    }

    /// Blocks in the kernel; or, where that must not be trusted, polls for as long as there are waiters.
    fn obtain(&self) -> crate::error::Result<Obtained<T>> {
        if !self.target.must_poll() {
            self.let_others_pass()?;
            let Some(request) = self.target.prepare(&self.key)?.map(Arc::new) else {
                return Ok(Obtained::Replaced);
            };
            // Tries of this process see what the helper is blocked for (Q7).
            if let Some(line) = self.lines.state().line_of(self) {
                line.request = Some(Arc::clone(&request));
            }
            self.target.block(&request)?;
            return Ok(Obtained::Granted(request));
        }
        let mut rhythm = Rhythm::new(None);
        loop {
            if self.end_if_empty(&mut self.lines.state()) {
                return Ok(Obtained::Unwanted);
            }
            if let Some(held) = self.target.attempt()? {
                return Ok(Obtained::Held(held));
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
        // A try may have acquired it through the request (Q7): it is free before that try is woken.
        let request = self.lines.state().line_of(self).and_then(|line| line.request.take());
        drop(request);
        let mut wakers = Vec::new();
        let mut state = self.lines.state();
        HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).ok();
        self.lines.unwanted.fetch_add(1, Ordering::Release);
        let stranded = state.line_of(self).map(|line| std::mem::take(&mut line.waiters));
        self.end_if_empty(&mut state);
        for place in stranded.unwrap_or_default() {
            if let Some(Seat::Waiting(waiting)) =
                state.seats.insert(place, Seat::Dissolved(self.why))
            {
                wakers.push(waiting.waker);
            }
        }
        drop(state);
        wakers.into_iter().for_each(wake);
    }
}
