//! The engine with a lock and a condition in memory, so that a test can bring about each moment of
//! a hand-over.

#![expect(clippy::disallowed_methods, reason = "tests start threads and limit their own time")]

use std::future::Future as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::memory::{Held, Memory};
use super::*;
use crate::error::Result;

/// A waker that counts.
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
fn what_was_granted_before_the_deadline_is_returned_after_it() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (target, held, mut waits) = queued(&QUEUES, 1);
    drop(held);
    let (wait, woken) = &mut waits[0];
    woken.until(1);
    let attempts = target.attempts.load(Ordering::Relaxed);
    let granted = wait.last_chance().unwrap();
    assert!(granted.is_some() && target.is_held());
    assert_eq!(target.attempts.load(Ordering::Relaxed), attempts, "it was granted, not tried for");
    drop(granted);
    assert!(!target.is_held());
}

#[test]
fn what_was_granted_to_a_dropped_wait_goes_to_the_next_without_being_released() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (target, held, mut waits) = queued(&QUEUES, 2);
    let (mut second, second_woken) = waits.pop().unwrap();
    let (first, first_woken) = waits.pop().unwrap();
    drop(held);
    first_woken.until(1);
    drop(first);
    // Passed on in this very thread: the helper blocks behind it.
    assert_eq!(second_woken.0.load(Ordering::SeqCst), 1);
    assert!(target.is_held());
    let Poll::Ready(Ok(granted)) = second.poll(Waker::noop()) else { panic!("not granted") };
    drop(granted);
    // The helper finds no waiter, and unlocks at once.
    while !QUEUES.is_empty() || target.is_held() {
        std::thread::yield_now();
    }
}

#[test]
fn who_gave_up_is_not_granted_and_the_next_waiter_adopts_the_helper() {
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
        "the helper's block is the attempt"
    );
    drop(held);
    woken.until(1);
    assert!(next.poll(&waker).is_ready());
}

#[test]
fn a_helper_that_fails_or_panics_leaves_its_line_to_wait_alone() {
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
fn the_latest_waker_is_the_one_that_is_woken() {
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

/// Any time may pass between a grant and the moment in which its receiver looks at it.
#[test]
fn a_grant_that_is_not_valid_any_more_is_dropped_and_the_wait_goes_on() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    // Looked at by a poll, and by the last look at the deadline.
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
    // Passed on by a wait that was dropped.
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
fn a_helper_that_finds_its_file_replaced_sends_its_line_to_begin_again() {
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
        // The first one tries again, the other finds its helper.
        assert!(target.attempts.load(Ordering::Relaxed) <= attempts + 1);
    }
    drop(held);
    for (mut wait, woken) in waits {
        woken.until(2);
        assert!(matches!(wait.poll(Waker::noop()), Poll::Ready(Ok(_))));
    }
}

/// A helper that no waiter needs, and its target.
fn left_behind(queues: &'static WaitQueues<Memory>) -> (Arc<Memory>, Held) {
    let (target, held, mut waits) = queued(queues, 1);
    assert!(waits[0].0.last_chance().unwrap().is_none());
    while target.state.0.lock().unwrap().requests == 0 {
        std::thread::yield_now();
    }
    (target, held)
}

#[test]
fn a_try_takes_over_what_an_unneeded_helper_was_granted() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let (target, held) = left_behind(&QUEUES);
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
fn a_try_leaves_what_a_helper_was_granted_to_its_waiter() {
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
fn a_helper_unlocks_what_it_granted_to_a_future_that_was_set_aside() {
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
    // It waits again where it is polled again.
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
    // One that is polled in time has what it was granted.
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
    // One that lasts polls at first, and has a helper then.
    let (target, _) = &held[99];
    let mut wait = QueuedWaiter::new(&QUEUES, Arc::clone(target));
    assert!(wait.poll(Waker::noop()).is_pending());
    assert!(wait.next_tick().is_some() && !QUEUES.has(&target.key()));
    while !QUEUES.has(&target.key()) {
        assert!(wait.poll(Waker::noop()).is_pending());
    }
    assert!(wait.next_tick().is_none(), "it polls no more");
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
fn wakers_that_panic_take_nobody_with_them() {
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

/// Where the kernel leaves somebody asleep who could go on, with and without a deadline.
#[test]
fn who_is_not_woken_tries_by_themselves_where_that_is_known_to_happen() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let backstop = Some(Duration::from_millis(1));
    let target = Arc::new(Memory { backstop, ..Memory::default() });
    for deadline in [Deadline::NEVER, Deadline::after(Duration::from_secs(60))] {
        target.state.0.lock().unwrap().is_deaf = true;
        let held = target.attempt().unwrap().unwrap();
        let waiter = {
            let target = Arc::clone(&target);
            std::thread::spawn(move || acquire(&QUEUES, &target, || deadline, None))
        };
        while !QUEUES.has(&target.key()) {
            std::thread::yield_now();
        }
        drop(held);
        let had = waiter.join().unwrap();
        assert!(matches!(had, Ok(Outcome::Held(_))));
        // Its helper may have woken for nothing by then, or not: nothing of it stays.
        target.state.0.lock().unwrap().is_deaf = false;
        drop(had);
        target.state.1.notify_all();
        while !QUEUES.is_empty() || target.is_held() {
            std::thread::yield_now();
        }
    }
}

/// A lock in memory behind another one.
#[derive(Default)]
struct Way {
    gate: Arc<Memory>,
    lock: Arc<Memory>,
    check_interval: Option<Duration>,
    looks: AtomicUsize,
}

impl Turnstile for Way {
    type Lock = Memory;

    fn gate(&self) -> &Arc<Memory> {
        &self.gate
    }

    fn lock(&self) -> &Arc<Memory> {
        &self.lock
    }

    fn take_unheld(&self) -> Result<Option<Held>> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.lock.attempt()
    }

    fn is_gate_stopped(&self) -> bool {
        false
    }

    fn check_interval(&self) -> Option<Duration> {
        self.check_interval
    }
}

/// Rule R3. With many who come and go so soon, one of them would always find the moment in which it
/// is free.
#[test]
fn who_gives_up_soon_does_not_look_past_the_gate_and_who_waits_does() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let way = Arc::new(Way::default());
    let in_gate = way.gate.attempt().unwrap();
    for timeout in [0, 1, 20] {
        let given_up =
            pass(&QUEUES, &way, || Deadline::after(Duration::from_millis(timeout)), None);
        assert!(matches!(given_up, Ok(Outcome::TimedOut(_))));
        assert_eq!(way.looks.load(Ordering::SeqCst), 0);
        assert!(!way.lock.is_held());
    }
    assert!(try_pass(&QUEUES, &*way).unwrap().is_none());
    drop(in_gate);
    assert!(try_pass(&QUEUES, &*way).unwrap().is_some());

    let gate = Arc::new(Memory::default());
    let _in_gate = gate.attempt().unwrap();
    let check_interval = Some(Duration::from_millis(1));
    let way = Arc::new(Way { gate, check_interval, ..Way::default() });
    let had = pass(&QUEUES, &way, || Deadline::NEVER, None);
    assert!(matches!(had, Ok(Outcome::Held(_))));
    assert!(way.looks.load(Ordering::SeqCst) > 0);
    way.gate.fail("refuse"); // or its helper would wait on
}

/// The lock first, or the next in the gate would meet it held.
#[test]
fn a_wait_that_is_dropped_behind_the_gate_gives_up_both() {
    limit!();
    static QUEUES: WaitQueues<Memory> = WaitQueues::new();
    let way = Arc::new(Way::default());
    let held = way.lock.attempt().unwrap();
    let mut wait = Box::pin(Acquire::new(TurnstileWait::new(&QUEUES, Arc::clone(&way)), None));
    let context = &mut Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(context).is_pending());
    assert!(way.gate.is_held());
    drop(wait);
    assert!(!way.gate.is_held());
    drop(held);
    // Its helper holds the lock for a moment, although no wait needs it any more: it removes the
    // queue first, and then unlocks (Q3).
    let started = Instant::now();
    while QUEUES.has(&way.lock.key()) || way.lock.is_held() {
        assert!(started.elapsed() < Duration::from_secs(60), "held by nobody");
        std::thread::yield_now();
    }
}

/// A condition in memory. A test counts how often it was checked.
#[derive(Default)]
struct Flag {
    is_set: Mutex<bool>,
    checks: AtomicUsize,
    /// It becomes true after this many checks; 0: only when the test sets it.
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
        WakeStrategy {
            places: Vec::new(),
            must_poll: true,
            poll_every: None,
            backstop: None,
            is_unlocking: false,
        }
    }
}

#[test]
fn a_true_condition_needs_one_check_and_no_deadline() {
    limit!();
    let flag = Arc::new(Flag { true_after: 1, ..Flag::default() });
    let waited = wait_for(flag, || panic!("the clock is not needed"), None);
    assert!(matches!(waited, Ok(Outcome::Held(1))));
}

/// Rule E1. What happens between the first check and the subscription is seen by the second.
#[test]
fn a_condition_is_checked_again_after_the_subscription() {
    limit!();
    for checks in [2, 3] {
        let flag = Arc::new(Flag { true_after: checks, ..Flag::default() });
        let waited = wait_for(flag, || Deadline::NEVER, None);
        assert!(matches!(waited, Ok(Outcome::Held(seen)) if seen == checks));
    }
}

/// Rule W2.
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
        wait_for(Arc::new(Flag::default()), || Deadline::after(Duration::from_millis(1)), None);
    assert!(matches!(given_up, Ok(Outcome::TimedOut(_))));
}
