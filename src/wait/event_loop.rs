//! The loop in which one waiter checks what it waits for: after each event of a directory, at a
//! backstop interval where the directory is watched, and by polling where it is not.

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::deadline::now;
use super::shared_poll::{PollListener, PolledTarget};
use super::watch::{DirListener, WatchTarget};
use crate::error::Result;
use crate::sys;
use crate::trace::PollReason;

/// The event of a close comes before the kernel drops the lock of the closed file. So the waiter
/// checks again after this time, and then at intervals that grow fourfold each time: 50 us to 0.8 s
/// (rule 8).
const AFTER_CLOSE: Duration = Duration::from_micros(50);
const CHECKS_AFTER_CLOSE: u32 = 8;
/// How long a waiter that is also blocked in the kernel does without a watch: a watch costs six
/// context switches, and most waits in the kernel end sooner.
const KERNEL_WAIT_HEAD_START: Duration = Duration::from_millis(10);
/// How often a waiter on a network file system checks that is also blocked in the kernel. Each
/// check is several requests to the server.
const KERNEL_WAIT_CHECKS: Duration = Duration::from_secs(5);
/// The maximum number of checks in one poll, if events keep arriving.
const MAX_CHECKS_PER_POLL: u32 = 3;
/// How often to check for changes that no event reports.
const THOROUGH_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The same where a check costs a server several requests.
const COSTLY_THOROUGH_INTERVAL: Duration = Duration::from_secs(60);
/// For how long a waiter without a watch polls at short intervals.
const QUICK_POLLING: Duration = Duration::from_secs(5);
/// How long a waiter relies on the thread that polls a directory for it.
const POLLED_BACKSTOP: Duration = Duration::from_secs(300);
/// How long a waiter waits for the answer whether a thread polls for it.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(50);
/// When to try again to watch a directory.
const WATCH_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The ways in which a waiter is woken.
#[derive(Debug, Clone, Default)]
pub(crate) struct WakeStrategy {
    /// The directories whose events wake it.
    pub(crate) places: Vec<WatchTarget>,
    /// Whether some changes have no event, so that the waiter polls as well.
    pub(crate) must_poll: bool,
    /// The directories on network file systems, which one thread polls for all waiters. A check
    /// costs the server several requests.
    pub(crate) polled: Vec<PolledTarget>,
    /// How many requests a check sends to the server of a network file system.
    pub(crate) requests: u32,
    /// The user's own interval for polling.
    pub(crate) poll_every: Option<Duration>,
    /// For tests: a backstop that replaces the platform's.
    pub(crate) backstop: Option<Duration>,
    /// Whether the waiter waits for a file to be unlocked, which happens after its closing
    /// (rule 8).
    pub(crate) is_unlocking: bool,
}

pub(crate) struct EventLoop {
    listeners: Vec<DirListener>,
    pollers: Vec<PollListener>,
    /// Why the loop always polls, if it does.
    must_poll: Option<PollReason>,
    /// Why the next check does not wait for an event.
    polls: Option<PollReason>,
    is_unlocking: bool,
    requests: u32,
    backoff: Backoff,
    /// Since when it has polled without a pause in which it was notified.
    polls_since: Option<Instant>,
    backstop: Duration,
    /// How many checks were made since the last close, and when the next one is.
    after_close: Option<(u32, Instant)>,
    /// When to check without an event. `None`: immediately.
    next: Option<Instant>,
    /// When to check for changes that no event reports.
    thorough_at: Instant,
    retry_watch_at: Instant,
    start: Instant,
}

fn next_thorough(now: Instant, backstop: Duration) -> Instant {
    let interval = THOROUGH_CHECK_INTERVAL.max(backstop);
    now.checked_add(interval).unwrap_or(now + THOROUGH_CHECK_INTERVAL)
}

impl EventLoop {
    /// The first `poll` checks, and subscribes if that fails, unless [`subscribe`](Self::subscribe)
    /// was called.
    pub(crate) fn new(wake_strategy: WakeStrategy) -> Self {
        let start = now();
        let backstop = wake_strategy.backstop.unwrap_or(sys::BACKSTOP);
        let (places, polled) = match wake_strategy.poll_every {
            None => (wake_strategy.places, wake_strategy.polled),
            Some(_) => (Vec::new(), Vec::new()),
        };
        // A check of a polled directory is made after a report of the thread that polls it.
        let is_polled = places.is_empty() && !polled.is_empty();
        let backstop = if is_polled { backstop.max(POLLED_BACKSTOP) } else { backstop };
        Self {
            must_poll: match wake_strategy.poll_every {
                Some(_) => Some(PollReason::Interval),
                None => wake_strategy.must_poll.then_some(PollReason::Network),
            },
            polls: None,
            listeners: places.into_iter().map(DirListener::new).collect(),
            is_unlocking: wake_strategy.is_unlocking,
            requests: wake_strategy.requests,
            pollers: polled.into_iter().map(PollListener::new).collect(),
            polls_since: None,
            backoff: Backoff::new(wake_strategy.poll_every),
            backstop,
            after_close: None,
            next: None,
            thorough_at: next_thorough(start, backstop),
            retry_watch_at: start + WATCH_RETRY_INTERVAL,
            start,
        }
    }

    /// When to poll again without an event.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let after_close = self.after_close.map(|(_, at)| at);
        [self.next, after_close].into_iter().flatten().min()
    }

    /// Why the wait polls instead of being notified, if it does.
    pub(crate) fn polls_because(&self) -> Option<PollReason> {
        self.polls
    }

    /// Checks after an event, or when it is time. The argument of `check` is whether to check also
    /// for changes that no event reports.
    ///
    /// No wake-up is lost (W1): the waker is registered, and the events are counted, before the
    /// check. A later event either finds the waker, or is new in the next round.
    pub(crate) fn poll<T>(
        &mut self,
        waker: &Waker,
        mut check: impl FnMut(bool) -> Result<Check<T>>,
    ) -> Poll<Result<T>> {
        for listener in &self.listeners {
            listener.register(waker);
        }
        for poller in &self.pollers {
            poller.register(waker);
        }
        for _ in 0..MAX_CHECKS_PER_POLL {
            let (mut has_events, mut has_closed) = (false, false);
            for listener in &mut self.listeners {
                let (events, closes) = listener.take_events();
                has_events |= events;
                has_closed |= closes;
            }
            for poller in &mut self.pollers {
                has_events |= poller.take_hints();
            }
            let now = now();
            let is_time = self.next_tick().is_none_or(|at| at <= now);
            if !is_time && !has_events {
                return Poll::Pending;
            }
            if self.is_unlocking && has_closed {
                self.after_close = Some((0, now + AFTER_CLOSE));
            }
            let thorough = self.thorough_at <= now;
            if thorough {
                self.thorough_at = if self.must_poll == Some(PollReason::Network) {
                    now + COSTLY_THOROUGH_INTERVAL
                } else {
                    next_thorough(now, self.backstop)
                };
            }
            let (relies, in_kernel) = match check(thorough) {
                Ok(Check::Ready(value)) => return Poll::Ready(Ok(value)),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Check::NotYet { relies, in_kernel }) => (relies, in_kernel),
            };
            // A waiter that is also blocked in the kernel does without a watch at first.
            let unwatched_until = self.start + KERNEL_WAIT_HEAD_START;
            if in_kernel && now < unwatched_until && !self.listeners.is_empty() {
                self.next = Some(unwatched_until);
                return Poll::Pending;
            }
            if in_kernel && self.must_poll == Some(PollReason::Network) {
                self.polls = None;
                self.next = Some(now + KERNEL_WAIT_CHECKS);
                return Poll::Pending;
            }
            for listener in &mut self.listeners {
                listener.update(thorough, waker);
            }
            self.pollers.iter_mut().for_each(|poller| poller.subscribe(waker));
            self.plan(now, relies);
        }
        // Events keep arriving. Other tasks must run, and the caller checks its deadline.
        waker.wake_by_ref();
        Poll::Pending
    }

    /// Subscribes after the caller's own check has failed.
    pub(crate) fn subscribe(&mut self, waker: &Waker) {
        for listener in &mut self.listeners {
            listener.update(false, waker);
        }
        self.pollers.iter_mut().for_each(|poller| poller.subscribe(waker));
        self.plan(now(), true);
    }

    /// Makes the next `poll` check even without an event.
    pub(crate) fn check_again(&mut self) {
        self.next = None;
        self.after_close = None;
    }

    /// Sets the time of the next check after a failed one at `now`.
    fn plan(&mut self, now: Instant, relies: bool) {
        if let Some((checks, at)) = self.after_close.filter(|(_, at)| *at <= now) {
            let later = checks + 1;
            self.after_close = (later < CHECKS_AFTER_CLOSE)
                .then(|| (later, at.max(now) + AFTER_CLOSE * 4_u32.pow(later)));
        }
        let is_notified = relies && self.must_poll.is_none();
        let is_reported = self.listeners.iter().all(DirListener::is_up)
            && self.pollers.iter().all(PollListener::is_polled);
        let polls_network = (!self.pollers.is_empty()).then_some(PollReason::Network);
        if is_notified && is_reported {
            self.polls = polls_network;
            self.polls_since = None;
            self.backoff.reset();
            self.next = Some(now.checked_add(self.backstop).unwrap_or(now + sys::BACKSTOP));
            return;
        }
        self.polls = self.must_poll.or(polls_network).or(if relies {
            // A watch that was requested may still be refused.
            let is_refused = self.listeners.iter().any(DirListener::has_failed);
            is_refused.then_some(PollReason::Unwatched)
        } else {
            Some(PollReason::Unreported)
        });
        if self.retry_watch_at <= now {
            self.retry_watch_at = now + WATCH_RETRY_INTERVAL;
            self.listeners.iter().for_each(DirListener::retry_watch);
            self.pollers.iter().for_each(PollListener::retry);
        }
        let polls_since = *self.polls_since.get_or_insert(now);
        if self.backoff.next() <= now {
            if !self.pollers.is_empty() || self.must_poll == Some(PollReason::Network) {
                let idle = now.saturating_duration_since(polls_since);
                self.backoff.set_network(idle, self.requests);
                if self.pollers.is_empty() {
                    self.backoff.set_new_wait(idle);
                }
            } else if self.must_poll.is_none() {
                self.backoff.set_local(now < self.start + QUICK_POLLING);
            }
            self.backoff.advance();
        }
        self.next = Some(self.backoff.next());
        if relies && self.pollers.iter().any(PollListener::is_pending) {
            // The answer takes as long as one listing of the directory.
            self.next = Some(now + ANSWER_TIMEOUT);
        }
    }
}

/// The outcome of a check.
pub(crate) enum Check<T> {
    Ready(T),
    NotYet {
        /// Whether every process that can make the check succeed knows of the waiter, and causes an
        /// event.
        relies: bool,
        /// Whether a thread is also blocked in the kernel for the waiter, so that events are rarely
        /// needed.
        in_kernel: bool,
    },
}

impl<T> Check<T> {
    pub(crate) fn not_yet(relies: bool) -> Self {
        Self::NotYet { relies, in_kernel: false }
    }

    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Check<U> {
        match self {
            Self::Ready(value) => Check::Ready(change(value)),
            Self::NotYet { relies, in_kernel } => Check::NotYet { relies, in_kernel },
        }
    }

    pub(crate) fn ready(self) -> Option<T> {
        match self {
            Self::Ready(value) => Some(value),
            Self::NotYet { .. } => None,
        }
    }
}
