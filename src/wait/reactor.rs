//! Wakes futures when a FIFO reports something: one thread for the process, started when it is
//! needed, which ends after a second without work. A waiting thread polls its FIFOs itself.

#![expect(clippy::disallowed_methods, reason = "starts the reactor's thread")]

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::wake;
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sorted_map::SortedMap;
use crate::sync::start_thread;
use crate::sys::{self, Wakeup, WatchedFifo};

struct Reactor {
    is_running: bool,
    next_number: u64,
    waiting: SortedMap<u64, (Vec<Arc<WatchedFifo>>, Waker)>,
    /// Ends the thread's poll.
    wakeup: Option<Arc<Wakeup>>,
}

impl Reactor {
    const fn new() -> Self {
        Self { is_running: false, next_number: 0, waiting: SortedMap::new(), wakeup: None }
    }
}

static REACTOR: ForkSafe<Reactor> = ForkSafe::new(Reactor::new(), |()| Reactor::new());
const KEEPALIVE: Duration = Duration::from_secs(1);
/// How long a poll may hold up its executor where no thread can be started, and how long the
/// thread waits where the system cannot poll.
const IN_PLACE: Duration = Duration::from_millis(1);
const FAILED: Duration = Duration::from_millis(50);

fn reactor() -> MutexGuard<'static, Reactor> {
    REACTOR.lock()
}

/// One future's FIFOs. Its waker is woken once, by the first that reports something.
#[derive(Debug, Default)]
pub(super) struct Registration(Option<u64>);

impl Registration {
    /// Instead of what was registered before.
    pub(super) fn set(&mut self, sources: &[Arc<WatchedFifo>], waker: &Waker) {
        self.cancel();
        if sources.is_empty() {
            return;
        }
        let (sources, waker) = (sources.to_vec(), waker.clone()); // not under our mutex
        let mut reactor = reactor();
        if !reactor.is_running {
            let wakeup = Wakeup::new().map(Arc::new);
            let started = wakeup.and_then(|wakeup| {
                reactor.wakeup = Some(Arc::clone(&wakeup));
                start_thread("flockwork-poll", Some(super::queue::STACK), move || run(&wakeup))
            });
            if started.is_err() {
                // The future asks to be polled again itself, after a short sleep that keeps this
                // from being a busy loop.
                drop(reactor);
                std::thread::sleep(IN_PLACE);
                waker.wake();
                return;
            }
            reactor.is_running = true;
        }
        reactor.next_number += 1;
        let number = reactor.next_number;
        reactor.waiting.insert(number, (sources, waker));
        self.0 = Some(number);
        if let Some(wakeup) = &reactor.wakeup {
            wakeup.wake();
        }
    }

    pub(super) fn cancel(&mut self) {
        let Some(number) = self.0.take() else { return };
        let mut reactor = reactor();
        let cancelled = reactor.waiting.remove(&number);
        // The thread may have its FIFOs open, which others may wait for to be closed.
        if let Some(wakeup) = reactor.wakeup.as_ref().filter(|_| cancelled.is_some()) {
            wakeup.wake();
        }
        drop(reactor);
        drop(cancelled); // the executor's code: the mutex is free again
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// No signal is missed: FIFOs report their state and not its changes. A future that registers after
/// the thread has read the list ends its poll.
fn run(wakeup: &Arc<Wakeup>) {
    loop {
        wakeup.reset();
        let mut guard = reactor();
        let mut all: Vec<Arc<WatchedFifo>> = Vec::new();
        let mut ends = Vec::new();
        for (number, (sources, _)) in guard.waiting.iter() {
            all.extend(sources.iter().cloned());
            ends.push((*number, all.len()));
        }
        let was_idle = ends.is_empty();
        drop(guard);
        let polled = sys::wait_for_fifos(&all, Some(wakeup), was_idle.then_some(KEEPALIVE));
        drop(all);
        guard = reactor();
        if was_idle && guard.waiting.is_empty() {
            guard.is_running = false;
            guard.wakeup = None;
            return;
        }
        let (mut woken, mut has_failed) = (Vec::new(), false);
        if let Ok(states) = polled {
            let mut start = 0;
            for (number, end) in ends {
                let own = &states[start..end];
                let is_due = own.iter().any(|state| state.has_signal || state.has_no_writer);
                start = end;
                woken.extend(is_due.then(|| guard.waiting.remove(&number)).flatten());
            }
        } else {
            // The poll failed, so each future checks on its own.
            let all = std::mem::take(&mut guard.waiting).into_pairs();
            woken.extend(all.into_iter().map(|(_, waiting)| waiting));
            has_failed = true;
        }
        drop(guard);
        if has_failed {
            std::thread::sleep(FAILED);
        }
        for (_, waker) in woken {
            wake(waker);
        }
    }
}
