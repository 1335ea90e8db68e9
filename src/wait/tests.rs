//! Tests of the engine with a lock and a condition in memory, so that a test can create each
//! situation of a hand-over.

#![expect(clippy::disallowed_methods, reason = "tests start threads and limit their own time")]

use std::future::Future as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::memory::{Held, Memory};
use super::*;
use crate::error::Result;

/// A waker that counts its calls.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn until(&self, times: usize) {
        while self.0.load(Ordering::SeqCst) < times {
            std::thread::yield_now();
        }
    }
}

type Queued = (QueuedWaiter<Memory>, Arc<Woken>);

/// A held target, and waiters queued for it, each with its waker.
fn queued(queues: &'static WaitQueues<Memory>, waits: usize) -> (Arc<Memory>, Held, Vec<Queued>) {
    queued_for(Arc::new(Memory::default()), queues, waits)
}

fn queued_for(
    target: Arc<Memory>,
    queues: &'static WaitQueues<Memory>,
    waits: usize,
) -> (Arc<Memory>, Held, Vec<Queued>) {
    let held = target.attempt().unwrap().unwrap();
    let waits = (0..waits)
        .map(|_| {
            let woken = Arc::new(Woken::default());
            let mut wait = QueuedWaiter::new(queues, Arc::clone(&target));
            assert!(wait.poll(&Waker::from(Arc::clone(&woken))).is_pending());
            (wait, woken)
        })
        .collect();
    (target, held, waits)
}

#[test]
fn a_lock_granted_before_the_deadline_is_returned_after_it() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (target, held, mut waits) = queued(&QUEUES, 1);
    drop(held);
    let (wait, woken) = &mut waits[0];
    woken.until(1);
    let attempts = target.attempts.load(Ordering::Relaxed);
    let granted = wait.last_chance().unwrap();
    assert!(granted.is_some() && target.is_held());
    assert_eq!(
        target.attempts.load(Ordering::Relaxed),
        attempts,
        "it was granted without another try"
    );
    drop(granted);
    assert!(!target.is_held());
}

#[test]
fn a_dropped_wait_passes_its_grant_on_without_releasing_it() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (target, held, mut waits) = queued(&QUEUES, 2);
    let (mut second, second_woken) = waits.pop().unwrap();
    let (first, first_woken) = waits.pop().unwrap();
    drop(held);
    first_woken.until(1);
    drop(first);
    // It was passed on in this thread: the helper is blocked behind it.
    assert_eq!(second_woken.0.load(Ordering::SeqCst), 1);
    assert!(target.is_held());
    let Poll::Ready(Ok(granted)) = second.poll(Waker::noop()) else { panic!("not granted") };
    drop(granted);
    // The helper finds no waiter, and unlocks immediately.
    while !QUEUES.is_empty() || target.is_held() {
        std::thread::yield_now();
    }
}

#[test]
fn the_next_waiter_adopts_the_helper_of_an_abandoned_wait() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (target, held, mut waits) = queued(&QUEUES, 1);
    assert!(waits[0].0.last_chance().unwrap().is_none());
    waits.clear();
    let attempts = target.attempts.load(Ordering::Relaxed);
    let mut next = QueuedWaiter::new(&QUEUES, Arc::clone(&target));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(next.poll(&waker).is_pending());
    assert_eq!(
        target.attempts.load(Ordering::Relaxed),
        attempts,
        "the helper, which is blocked, is the attempt"
    );
    drop(held);
    woken.until(1);
    assert!(next.poll(&waker).is_ready());
}

#[test]
fn waiters_of_a_helper_that_fails_or_panics_poll() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    for fault in ["refuse", "panic"] {
        let (target, held, mut waits) = queued(&QUEUES, 3);
        target.fail(fault);
        for (wait, woken) in &mut waits {
            woken.until(1);
            assert!(wait.poll(Waker::noop()).is_pending());
            assert!(wait.next_tick().is_some(), "it polls from now on");
        }
        assert!(QUEUES.is_empty());
        drop(held);
        for (wait, _) in &mut waits {
            loop {
                if let Poll::Ready(granted) = wait.poll(Waker::noop()) {
                    drop(granted.unwrap());
                    break;
                }
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn only_the_latest_waker_is_woken() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (_target, held, mut waits) = queued(&QUEUES, 1);
    let (wait, first) = &mut waits[0];
    let latest = Arc::new(Woken::default());
    assert!(wait.poll(&Waker::from(Arc::clone(&latest))).is_pending());
    drop(held);
    latest.until(1);
    assert_eq!(first.0.load(Ordering::SeqCst), 0);
    assert!(wait.poll(Waker::noop()).is_ready());
}

/// Any amount of time may pass between a grant and the moment at which its receiver takes it
/// (rule W5).
#[test]
fn a_grant_that_is_no_longer_valid_is_dropped_and_retried() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    // Checked by a poll, and by the last check at the deadline.
    for at_deadline in [false, true] {
        let (target, held, mut waits) = queued(&QUEUES, 1);
        let (mut wait, woken) = waits.remove(0);
        drop(held);
        woken.until(1);
        target.generation.store(1, Ordering::SeqCst);
        let granted = if at_deadline {
            wait.last_chance().unwrap().expect("it was free")
        } else {
            let Poll::Ready(Ok(granted)) = wait.poll(Waker::noop()) else { panic!("it was free") };
            granted
        };
        assert_eq!(granted.1, 1);
    }
    // Passed on by a dropped wait.
    let (target, held, mut waits) = queued(&QUEUES, 2);
    drop(held);
    waits[0].1.until(1);
    target.generation.store(1, Ordering::SeqCst);
    drop(waits.remove(0));
    let (mut next, woken) = waits.remove(0);
    let waker = Waker::from(Arc::clone(&woken));
    let granted = loop {
        match next.poll(&waker) {
            Poll::Ready(granted) => break granted.unwrap(),
            Poll::Pending => std::thread::yield_now(),
        }
    };
    assert_eq!(granted.1, 1);
}

#[test]
fn waiters_begin_again_if_their_helper_finds_the_file_replaced() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let target = Arc::new(Memory::default());
    target.state.0.lock().unwrap().is_slow = true;
    let (target, held, mut waits) = queued_for(target, &QUEUES, 2);
    target.state.0.lock().unwrap().is_slow = false;
    target.fail("replaced");
    for (wait, woken) in &mut waits {
        woken.until(1);
        let attempts = target.attempts.load(Ordering::Relaxed);
        assert!(wait.poll(&Waker::from(Arc::clone(woken))).is_pending());
        assert!(wait.next_tick().is_none(), "it is queued again");
        // The first waiter tries again, and the other one finds the helper of the first.
        assert!(target.attempts.load(Ordering::Relaxed) <= attempts + 1);
    }
    drop(held);
    for (mut wait, woken) in waits {
        woken.until(2);
        assert!(matches!(wait.poll(Waker::noop()), Poll::Ready(Ok(_))));
    }
}

/// Leaves a helper that no waiter needs behind; returns its target, still held.
fn leave_helper(queues: &'static WaitQueues<Memory>) -> (Arc<Memory>, Held) {
    let (target, held, mut waits) = queued(queues, 1);
    assert!(waits[0].0.last_chance().unwrap().is_none());
    while target.state.0.lock().unwrap().requests == 0 {
        std::thread::yield_now();
    }
    (target, held)
}

#[test]
fn a_try_takes_over_the_grant_of_an_unneeded_helper() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (target, held) = leave_helper(&QUEUES);
    assert!(try_now(&QUEUES, &target).unwrap().is_none());
    assert!(!is_left(&QUEUES, &*target));
    // The kernel has granted it, and the helper has not run since.
    std::mem::forget(held);
    target.state.0.lock().unwrap().owner = Some(1);
    assert!(is_left(&QUEUES, &*target));
    let taken = try_now(&QUEUES, &target).unwrap();
    assert!(taken.is_some() && QUEUES.is_empty());
    assert!(try_now(&QUEUES, &target).unwrap().is_none());
    drop(taken);
    assert!(try_now(&QUEUES, &target).unwrap().is_some());
}

#[test]
fn a_try_leaves_the_grant_of_a_needed_helper_to_its_waiter() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (target, held, mut waits) = queued(&QUEUES, 1);
    while target.state.0.lock().unwrap().requests == 0 {
        std::thread::yield_now();
    }
    std::mem::forget(held);
    target.state.0.lock().unwrap().owner = Some(1);
    assert!(try_now(&QUEUES, &target).unwrap().is_none());
    target.state.1.notify_all();
    waits[0].1.until(1);
    assert!(waits[0].0.poll(Waker::noop()).is_ready());
}

#[test]
fn a_helper_revokes_a_grant_that_a_future_does_not_take() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let target = Arc::new(Memory::default());
    let held = target.attempt().unwrap().unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut wait = QueuedWaiter::new(&QUEUES, Arc::clone(&target)).brief(true);
    assert!(wait.poll(&waker).is_pending());
    drop(held);
    woken.until(1);
    assert!(target.is_held());
    while target.is_held() {
        std::thread::yield_now(); // about a second
    }
    // The future waits again when it is polled again.
    let granted = loop {
        match wait.poll(&waker) {
            Poll::Ready(granted) => break granted.unwrap(),
            Poll::Pending => std::thread::yield_now(),
        }
    };
    assert!(try_now(&QUEUES, &target).unwrap().is_none());
    drop((granted, wait));
    while !QUEUES.is_empty() {
        std::thread::yield_now();
    }
    // A future that is polled soon takes the lock that it was granted.
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let held = target.attempt().unwrap().unwrap();
    let mut wait = QueuedWaiter::new(&QUEUES, Arc::clone(&target)).brief(true);
    assert!(wait.poll(&waker).is_pending());
    drop(held);
    woken.until(1);
    let Poll::Ready(Ok(granted)) = wait.poll(&waker) else { panic!("not granted") };
    while !QUEUES.is_empty() {
        std::thread::yield_now();
    }
    assert!(target.is_held());
    drop(granted);
}

#[test]
fn short_waits_leave_few_helpers_and_long_ones_get_theirs() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let held: Vec<_> = (0..100)
        .map(|_| {
            let target = Arc::new(Memory::default());
            let held = target.attempt().unwrap().unwrap();
            let mut wait = QueuedWaiter::new(&QUEUES, Arc::clone(&target));
            assert!(wait.poll(Waker::noop()).is_pending());
            assert!(wait.last_chance().unwrap().is_none());
            (target, held)
        })
        .collect();
    let helpers = || held.iter().filter(|(target, _)| QUEUES.has(&target.key())).count();
    assert_eq!(helpers(), 8);
    // A long wait polls at first, and then gets a helper.
    let (target, _) = &held[99];
    let mut wait = QueuedWaiter::new(&QUEUES, Arc::clone(target));
    assert!(wait.poll(Waker::noop()).is_pending());
    assert!(wait.next_tick().is_some() && !QUEUES.has(&target.key()));
    while !QUEUES.has(&target.key()) {
        assert!(wait.poll(Waker::noop()).is_pending());
    }
    assert!(wait.next_tick().is_none(), "it no longer polls");
    assert_eq!(helpers(), 9);
    drop((wait, held));
    while !QUEUES.is_empty() {
        std::thread::yield_now();
    }
}

struct Panics(AtomicUsize);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("the waker's own");
    }
}

#[test]
fn a_waker_that_panics_does_not_affect_other_waiters() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (target, held, mut waits) = queued(&QUEUES, 3);
    let panics = Arc::new(Panics(AtomicUsize::new(0)));
    for (wait, _) in &mut waits[..2] {
        assert!(wait.poll(&Waker::from(Arc::clone(&panics))).is_pending());
    }
    target.fail("panic");
    waits[2].1.until(1);
    assert_eq!(panics.0.load(Ordering::SeqCst), 2);
    drop(held);
}

/// The kernel may leave a waiter asleep that could acquire the lock, with and without a deadline
/// (rule W3).
#[test]
fn a_waiter_that_the_kernel_may_not_wake_also_tries_itself() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let backstop = Some(Duration::from_millis(1));
    let target = Arc::new(Memory { backstop, ..Memory::default() });
    for limit in [Limit::Never, Limit::After(Duration::from_secs(60))] {
        target.state.0.lock().unwrap().sleeps_on = true;
        let held = target.attempt().unwrap().unwrap();
        let waiter = {
            let target = Arc::clone(&target);
            std::thread::spawn(move || acquire(&QUEUES, &target, limit, None))
        };
        while !QUEUES.has(&target.key()) {
            std::thread::yield_now();
        }
        drop(held);
        let outcome = waiter.join().unwrap();
        assert!(matches!(outcome, Ok(Outcome::Held(_))));
        // Its helper may have been woken for nothing by then or not: it ends in both cases.
        target.state.0.lock().unwrap().sleeps_on = false;
        drop(outcome);
        target.state.1.notify_all();
        while !QUEUES.is_empty() || target.is_held() {
            std::thread::yield_now();
        }
    }
}

/// A lock in memory behind a turnstile in memory.
#[derive(Default)]
struct MemoryTurnstile {
    gate: Arc<Memory>,
    lock: Arc<Memory>,
    check_interval: Option<Duration>,
    checks: AtomicUsize,
}

/// There is none.
enum NoOrder {}

impl Order for NoOrder {
    type Ticket = ();

    fn may_have_waiters(&self) -> bool {
        false
    }

    fn refuses_a_try(&self) -> bool {
        false
    }

    fn join(&self) -> Option<()> {
        None
    }

    fn ahead(
        &self,
        (): &mut (),
        _thorough: bool,
    ) -> std::io::Result<Option<Arc<crate::sys::WatchedFifo>>> {
        Ok(None)
    }
}

impl Turnstile for MemoryTurnstile {
    type Lock = Memory;
    type Order = NoOrder;

    fn order(&self) -> Option<&Arc<NoOrder>> {
        None
    }

    fn gate(&self) -> &Arc<Memory> {
        &self.gate
    }

    fn lock(&self) -> &Arc<Memory> {
        &self.lock
    }

    fn take_unheld(&self) -> Result<Option<Held>> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        self.lock.attempt()
    }

    fn is_gate_stopped(&self) -> bool {
        false
    }

    fn check_interval(&self) -> Option<Duration> {
        self.check_interval
    }
}

/// With many waits that give up so soon, one of them would always hit a moment at which the lock is
/// free (rule R3).
#[test]
fn short_timeouts_do_not_bypass_the_turnstile_and_long_waits_do() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let turnstile = Arc::new(MemoryTurnstile::default());
    let passing = turnstile.gate.attempt().unwrap();
    for timeout in [0, 1, 20] {
        let given_up =
            pass(&QUEUES, &turnstile, Limit::After(Duration::from_millis(timeout)), None);
        assert!(matches!(given_up, Ok(Outcome::TimedOut(_))));
        assert_eq!(turnstile.checks.load(Ordering::SeqCst), 0);
        assert!(!turnstile.lock.is_held());
    }
    assert!(try_pass(&QUEUES, &*turnstile).unwrap().is_none());
    drop(passing);
    assert!(try_pass(&QUEUES, &*turnstile).unwrap().is_some());

    let gate = Arc::new(Memory::default());
    let _passing = gate.attempt().unwrap();
    let check_interval = Some(Duration::from_millis(1));
    let turnstile =
        Arc::new(MemoryTurnstile { gate, check_interval, ..MemoryTurnstile::default() });
    let outcome = pass(&QUEUES, &turnstile, Limit::Never, None);
    assert!(matches!(outcome, Ok(Outcome::Held(_))));
    assert!(turnstile.checks.load(Ordering::SeqCst) > 0);
    turnstile.gate.fail("refuse"); // otherwise its helper would stay blocked
}

/// It gives up the lock first; otherwise the next process in the turnstile would find the lock
/// held.
#[test]
fn a_wait_dropped_in_the_turnstile_gives_up_both_locks() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let turnstile = Arc::new(MemoryTurnstile::default());
    let held = turnstile.lock.attempt().unwrap();
    let mut wait =
        Box::pin(Acquire::new(TurnstileWait::new(&QUEUES, Arc::clone(&turnstile)), None));
    let context = &mut Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(context).is_pending());
    assert!(turnstile.gate.is_held());
    drop(wait);
    assert!(!turnstile.gate.is_held());
    drop(held);
    // Its helper holds the lock for a moment, although no wait needs it any more, and then unlocks
    // it and removes the queue (Q3).
    let started = Instant::now();
    while QUEUES.has(&turnstile.lock.key()) || turnstile.lock.is_held() {
        assert!(started.elapsed() < Duration::from_secs(60), "an unneeded helper still holds it");
        std::thread::yield_now();
    }
}

/// A condition in memory. A test counts how often it was checked.
#[derive(Default)]
struct Flag {
    is_set: Mutex<bool>,
    checks: AtomicUsize,
    /// The check at which the condition becomes true; 0: only when the test sets it.
    true_after: usize,
}

impl Condition for Arc<Flag> {
    type Held = usize;

    fn check(&self) -> Result<Check<usize>> {
        let checks = self.checks.fetch_add(1, Ordering::SeqCst) + 1;
        let is_true = *self.is_set.lock().unwrap() || self.true_after == checks;
        Ok(if is_true { Check::Ready(checks) } else { Check::not_yet(true) })
    }

    fn wake_strategy(&self) -> WakeStrategy {
        WakeStrategy { must_poll: true, ..WakeStrategy::default() }
    }
}

#[test]
fn a_true_condition_needs_one_check() {
    limit!();
    let flag = Arc::new(Flag { true_after: 1, ..Flag::default() });
    let waited = wait_for(flag, Limit::After(Duration::ZERO), None);
    assert!(matches!(waited, Ok(Outcome::Held(1))));
}

/// The second check sees what happens between the first check and the subscription (rule E1).
#[test]
fn a_condition_is_checked_again_after_the_subscription() {
    limit!();
    for checks in [2, 3] {
        let flag = Arc::new(Flag { true_after: checks, ..Flag::default() });
        let waited = wait_for(flag, Limit::Never, None);
        assert!(matches!(waited, Ok(Outcome::Held(seen)) if seen == checks));
    }
}

/// A wait never times out although its condition is true (rule W2).
#[test]
fn a_condition_is_checked_once_more_at_the_deadline() {
    limit!();
    let flag = Arc::new(Flag::default());
    let mut wait = ConditionWait::new(Arc::clone(&flag));
    assert!(wait.poll(Waker::noop()).is_pending());
    *flag.is_set.lock().unwrap() = true;
    assert!(wait.last_chance().unwrap().is_some());
    assert!(wait.next_tick().is_none(), "the wait has ended");
    let given_up =
        wait_for(Arc::new(Flag::default()), Limit::After(Duration::from_millis(1)), None);
    assert!(matches!(given_up, Ok(Outcome::TimedOut(_))));
}
