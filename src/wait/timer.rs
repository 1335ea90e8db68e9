//! Wakes futures at given times, with one thread for the process. The thread is started when it is
//! needed, and ends after a second without work. A waiting thread parks with a timeout instead.

#![expect(clippy::disallowed_methods, reason = "starts the timer's thread")]

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::deadline::now;
use super::wake;
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sync::start_thread;

/// Identifies an alarm: its time, and a number that distinguishes alarms of the same time.
type Key = (Instant, u64);

struct Timers {
    is_running: bool,
    next_number: u64,
    alarms: BTreeMap<Key, Waker>,
    /// Until when the thread sleeps; `None` while it does not.
    asleep_until: Option<Instant>,
}

impl Timers {
    const fn new() -> Self {
        let alarms = BTreeMap::new();
        Self { is_running: false, next_number: 0, alarms, asleep_until: None }
    }
}

static TIMERS: ForkSafe<Timers> = ForkSafe::new(Timers::new(), |()| Timers::new());
/// How long the thread sleeps without an alarm before it ends. This is a little longer than the
/// second after which most alarms recur, so the same sleep lasts until the next one, and an idle
/// future costs one wake-up of this thread each second.
const TIMER_KEEPALIVE: Duration = Duration::from_millis(1010);
/// An alarm may be late by one part in this many of its time span.
const TOLERANCE: u32 = 64;
/// How long a poll may block its executor if the timer's thread cannot be started.
const IN_PLACE: Duration = Duration::from_millis(1);

fn timers() -> MutexGuard<'static, Timers> {
    TIMERS.lock()
}

/// One future's wake-up, cancelled when dropped.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Key>);

impl Alarm {
    /// Wakes `waker` at `at`, instead of the time that was set before.
    pub(super) fn set(&mut self, at: Instant, waker: &Waker) {
        self.remove();
        let waker = waker.clone(); // runs the executor's code, so not under the mutex (Q6)
        let mut timers = timers();
        if !timers.is_running {
            let started = start_thread("flockwork-timer", None, run);
            if started.is_err() {
                // Without the thread the future must still be polled again. It wakes its own task,
                // after a short sleep that prevents a busy loop.
                drop(timers);
                std::thread::sleep(at.saturating_duration_since(now()).min(IN_PLACE));
                waker.wake();
                return;
            }
            timers.is_running = true;
        }
        timers.next_number += 1;
        let key = (at, timers.next_number);
        timers.alarms.insert(key, waker);
        self.0 = Some(key);
        let tolerance = at.saturating_duration_since(now()) / TOLERANCE;
        let latest = at.checked_add(tolerance).unwrap_or(at);
        let is_overslept = timers.asleep_until.is_some_and(|until| until > latest);
        drop(timers);
        if is_overslept {
            TIMERS.notify();
        }
    }

    pub(super) fn cancel(&mut self) {
        if self.remove() {
            // Otherwise the thread would sleep until the time that was set.
            TIMERS.notify();
        }
    }

    /// Removes the alarm; returns whether it was the last of all.
    fn remove(&mut self) -> bool {
        let Some(key) = self.0.take() else { return false };
        let mut timers = timers();
        let waker = timers.alarms.remove(&key);
        let is_last = waker.is_some() && timers.alarms.is_empty();
        drop(timers);
        drop(waker); // may run the executor's code, so not under the mutex (Q6)
        is_last
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Runs the alarms. No alarm is missed: an alarm is inserted under the mutex under which this
/// thread reads all alarms, sets the end of its sleep, and sleeps. A future that inserts an earlier
/// alarm wakes it. The thread clears `is_running` under the same mutex before it ends, so that the
/// next alarm starts another.
fn run() {
    let mut guard = timers();
    loop {
        let wait = match guard.alarms.first_key_value() {
            Some(((at, _), _)) => {
                let wait = at.saturating_duration_since(now());
                if wait.is_zero() {
                    let due = guard.alarms.pop_first();
                    drop(guard);
                    if let Some((_, waker)) = due {
                        wake(waker);
                    }
                    guard = timers();
                    continue;
                }
                wait
            }
            None => TIMER_KEEPALIVE,
        };
        let idle = guard.alarms.is_empty();
        guard.asleep_until = now().checked_add(wait);
        let is_over;
        (guard, is_over) = TIMERS.wait(guard, wait);
        guard.asleep_until = None;
        if idle && is_over && guard.alarms.is_empty() {
            guard.is_running = false;
            return;
        }
    }
}
