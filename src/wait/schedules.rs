//! Tests of the hand-over's real code under schedules that the library shuttle chooses
//! (`ci/shuttle.sh`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread;

use super::memory::{Held, Memory};
use super::take_over::take_over_by;
use super::{QueuedWaiter, Target as _, WaitQueues, Waiter as _};
use crate::sync::{Condvar, Mutex, REFUSED};

/// Wakes the thread that waits for it.
struct Signal {
    is_given: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn new() -> Arc<Self> {
        Arc::new(Self { is_given: Mutex::new(false), changed: Condvar::new() })
    }

    fn wait(&self) {
        let mut is_given = self.is_given.lock().unwrap();
        while !*is_given {
            is_given = self.changed.wait(is_given).unwrap();
        }
        *is_given = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.is_given.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// How a wait ends unless it is granted the lock before. The schedule decides when.
#[derive(Clone, Copy)]
enum End {
    Never,
    Deadline,
    Drop,
    /// It tries and does not wait.
    Tries,
}

/// The state that all waits share.
struct SharedState {
    queues: &'static WaitQueues<Memory>,
    target: Arc<Memory>,
    holders: AtomicUsize,
}

impl SharedState {
    fn hold(&self, held: Held) {
        assert_eq!(self.holders.fetch_add(1, Ordering::SeqCst), 0, "two threads hold it");
        thread::yield_now();
        assert!(self.target.is_held());
        assert_eq!(self.holders.fetch_sub(1, Ordering::SeqCst), 1);
        drop(held);
    }

    fn try_now(&self) -> Option<Held> {
        let signal = Signal::new();
        let waker = Waker::from(Arc::clone(&signal));
        let unwanted = self.queues.unwanted();
        let taken = match self.target.attempt() {
            Ok(None) => take_over_by(self.queues, &self.target, unwanted, &waker, || signal.wait()),
            taken => taken,
        };
        taken.unwrap()
    }

    fn wait(&self, end: End) {
        if matches!(end, End::Tries) {
            for _ in 0..3 {
                if let Some(held) = self.try_now() {
                    self.hold(held);
                }
            }
            return;
        }
        let mut check_interval = thread_rng().gen_range(0..4);
        let mut wait = QueuedWaiter::new(self.queues, Arc::clone(&self.target));
        loop {
            // A different waker each time: only the last one counts.
            let signal = Signal::new();
            match wait.poll(&Waker::from(Arc::clone(&signal))) {
                Poll::Ready(held) => return self.hold(held.unwrap()),
                Poll::Pending if wait.next_tick().is_some() => {
                    // It polls: each check is a new wait.
                    if let Some(held) = wait.last_chance().unwrap() {
                        return self.hold(held);
                    }
                    if !matches!(end, End::Never) {
                        return;
                    }
                    thread::yield_now();
                    wait = QueuedWaiter::new(self.queues, Arc::clone(&self.target));
                }
                Poll::Pending => match end {
                    End::Never => signal.wait(),
                    _ if check_interval > 0 => {
                        check_interval -= 1;
                        thread::yield_now();
                    }
                    End::Drop | End::Tries => return,
                    End::Deadline => {
                        if let Some(held) = wait.last_chance().unwrap() {
                            self.hold(held);
                        }
                        return;
                    }
                },
            }
        }
    }
}

/// Runs all waits at the same time while the lock is held, with the given fault of the helper, if
/// any.
fn race(ends: &[End], fault: Option<&'static str>) {
    let together = Arc::new(SharedState {
        queues: Box::leak(Box::new(WaitQueues::new())),
        target: Arc::new(Memory::default()),
        holders: AtomicUsize::new(0),
    });
    let before = together.target.attempt().unwrap().unwrap();
    let waits: Vec<_> = ends
        .iter()
        .map(|end| {
            let (together, end) = (Arc::clone(&together), *end);
            thread::spawn(move || together.wait(end))
        })
        .collect();
    thread::yield_now();
    match fault {
        // From now on, a granted lock is that of an older file.
        Some("another file") => {
            together.target.generation.fetch_add(1, Ordering::SeqCst);
        }
        Some(fault) => together.target.fail(fault),
        None => {}
    }
    drop(before);
    // Shuttle fails if all threads wait, so no wake-up is lost.
    waits.into_iter().for_each(|wait| wait.join().unwrap());
    // No thread holds the lock or waits: a try succeeds even if a helper still has the lock (Q7).
    let taken = together.try_now().expect("failed because of an unneeded helper");
    assert!(together.try_now().is_none());
    drop(taken);
    while !together.queues.is_empty() || together.target.is_held() {
        thread::yield_now();
    }
}

const ENDS: [&[End]; 4] = [
    &[End::Deadline, End::Tries, End::Drop],
    &[End::Never, End::Never, End::Never],
    &[End::Never, End::Deadline, End::Drop],
    &[End::Drop, End::Drop, End::Never],
];

fn in_all_schedules(fault: Option<&'static str>) {
    for ends in ENDS {
        shuttle::check_random(move || race(ends, fault), 1000);
        shuttle::check_pct(move || race(ends, fault), 1000, 3);
    }
}

#[test]
fn every_wait_ends_in_all_schedules() {
    limit!();
    in_all_schedules(None);
}

#[test]
fn every_wait_ends_if_the_helper_fails() {
    limit!();
    in_all_schedules(Some("refuse"));
}

#[test]
fn every_wait_ends_if_the_file_is_replaced_before_the_block() {
    limit!();
    in_all_schedules(Some("replaced"));
}

#[test]
fn every_wait_ends_if_the_file_is_replaced_after_a_grant() {
    limit!();
    in_all_schedules(Some("another file"));
}

/// Runs alone in its process: `ci/shuttle.sh` runs it last.
#[test]
#[ignore = "changes how threads start for all tests of the process"]
fn every_wait_ends_if_no_helper_starts() {
    limit!();
    REFUSED.store(2, Ordering::SeqCst);
    in_all_schedules(None);
}
