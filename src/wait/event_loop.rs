//! One waiter that looks when it has heard something: on the events of a directory, on a backstop where it
//! is watched, and by polling where it is not. Knows when to look, and not at what.

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::deadline::now;
use super::watch::{DirListener, WatchTarget};
use crate::error::Result;
use crate::sys;

/// Rule 8. A close is heard before the kernel drops the lock that went with it: look again after so long, and
/// then after four times as long, so many times in all (50 us to 0.8 s).
const AFTER_CLOSE: Duration = Duration::from_micros(50);
const CHECKS_AFTER_CLOSE: u32 = 8;
/// A watch costs six switches of threads, and most waits in the kernel are over before this.
const KERNEL_WAIT_HEAD_START: Duration = Duration::from_millis(10);
/// So often one poll looks, should it ring meanwhile.
const MAX_CHECKS_PER_POLL: u32 = 3;
/// How often what no event tells is looked at besides.
const THOROUGH_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// When to ask again for a watch that could not be had.
const WATCH_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How a waiter wants to be told.
#[derive(Debug, Clone)]
pub(crate) struct WakeStrategy {
    /// Where events tell.
    pub(crate) places: Vec<WatchTarget>,
    /// Whether there are things that no event tells of, so that there is polling besides.
    pub(crate) must_poll: bool,
    /// The user's own interval for polling.
    pub(crate) poll_every: Option<Duration>,
    /// For tests: another backstop than the platform's.
    pub(crate) backstop: Option<Duration>,
    /// Whether it is the unlocking of a file that is waited for, which comes after its closing (rule 8).
    pub(crate) is_unlocking: bool,
}

pub(crate) struct EventLoop {
    listeners: Vec<DirListener>,
    must_poll: bool,
    is_unlocking: bool,
    backoff: Backoff,
    backstop: Duration,
    /// How many more looks after the last close, and when the next is.
    after_close: Option<(u32, Instant)>,
    /// When to look although nothing was heard. `None`: at once.
    next: Option<Instant>,
    /// The next look that checks everything, also what no event tells.
    thorough: Instant,
    ask_again: Instant,
    /// Until when a wait in the kernel does without being watched for.
    patient_until: Instant,
}

impl EventLoop {
    /// The first `poll` looks, and subscribes if that was in vain; unless [`listen`](Self::listen) comes before it.
    pub(crate) fn new(wake_strategy: WakeStrategy) -> Self {
        let start = now();
        let backstop = wake_strategy.backstop.unwrap_or(sys::BACKSTOP);
        let places =
            if wake_strategy.poll_every.is_none() { wake_strategy.places } else { Vec::new() };
        Self {
            must_poll: wake_strategy.must_poll || wake_strategy.poll_every.is_some(),
            listeners: places.into_iter().map(DirListener::new).collect(),
            is_unlocking: wake_strategy.is_unlocking,
            backoff: Backoff::new(wake_strategy.poll_every),
            backstop,
            after_close: None,
            next: None,
            thorough: start + THOROUGH_CHECK_INTERVAL.max(sys::BACKSTOP),
            ask_again: start + WATCH_RETRY_INTERVAL,
            patient_until: start + KERNEL_WAIT_HEAD_START,
        }
    }

    /// When to be polled again although nothing is heard.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let after_close = self.after_close.map(|(_, at)| at);
        [self.next, after_close].into_iter().flatten().min()
    }

    /// Looks if there is a reason to: something was heard, or it is time. `check` is told whether to be
    /// thorough, and says whether it may rely on what is heard from now on.
    ///
    /// No wake-up is lost (W1): the waker is registered, and the rings are counted, before the look; what rings
    /// later either finds the waker, or is news when this comes round again.
    pub(crate) fn poll<T>(
        &mut self,
        waker: &Waker,
        mut check: impl FnMut(bool) -> Result<Check<T>>,
    ) -> Poll<Result<T>> {
        for listener in &self.listeners {
            listener.register(waker);
        }
        for _ in 0..MAX_CHECKS_PER_POLL {
            let (mut has_rung, mut has_closed) = (false, false);
            for listener in &mut self.listeners {
                let (rings, closes) = listener.news();
                has_rung |= rings;
                has_closed |= closes;
            }
            let now = now();
            let is_time = self.next_tick().is_none_or(|at| at <= now);
            if !is_time && !has_rung {
                return Poll::Pending;
            }
            if self.is_unlocking && has_closed {
                self.after_close = Some((0, now + AFTER_CLOSE));
            }
            let thorough = self.thorough <= now;
            if thorough {
                self.thorough = now + THOROUGH_CHECK_INTERVAL;
            }
            let (relies, in_kernel) = match check(thorough) {
                Ok(Check::Ready(had)) => return Poll::Ready(Ok(had)),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Check::NotYet { relies, in_kernel }) => (relies, in_kernel),
            };
            if in_kernel && now < self.patient_until && !self.listeners.is_empty() {
                self.next = Some(self.patient_until);
                return Poll::Pending;
            }
            for listener in &mut self.listeners {
                listener.settle(thorough, waker);
            }
            self.plan(now, relies);
        }
        // It rings on and on. Others have a right to run, and a deadline to be looked at.
        waker.wake_by_ref();
        Poll::Pending
    }

    /// After a first look elsewhere that was in vain.
    pub(crate) fn listen(&mut self, waker: &Waker) {
        for listener in &mut self.listeners {
            listener.settle(false, waker);
        }
        self.plan(now(), true);
    }

    /// The next `poll` looks, whatever was heard.
    pub(crate) fn check_again(&mut self) {
        self.next = None;
        self.after_close = None;
    }

    /// After a look at `now` that was in vain.
    fn plan(&mut self, now: Instant, relies: bool) {
        if let Some((looks, at)) = self.after_close.filter(|(_, at)| *at <= now) {
            let later = looks + 1;
            self.after_close = (later < CHECKS_AFTER_CLOSE)
                .then(|| (later, at.max(now) + AFTER_CLOSE * 4_u32.pow(later)));
        }
        if relies && !self.must_poll && self.listeners.iter().all(DirListener::is_up) {
            self.backoff.reset();
            self.next = Some(now.checked_add(self.backstop).unwrap_or(now + sys::BACKSTOP));
            return;
        }
        if self.ask_again <= now {
            self.ask_again = now + WATCH_RETRY_INTERVAL;
            self.listeners.iter().for_each(DirListener::ask_again);
        }
        if self.backoff.next() <= now {
            self.backoff.advance();
        }
        self.next = Some(self.backoff.next());
    }
}

/// What a look shows.
pub(crate) enum Check<T> {
    Ready(T),
    NotYet {
        /// Whether everybody who could give it knows that somebody waits, and will be heard.
        relies: bool,
        /// Whether it is waited for in the kernel as well, so that hearing is for what rarely happens.
        in_kernel: bool,
    },
}

impl<T> Check<T> {
    pub(crate) fn not_yet(relies: bool) -> Self {
        Self::NotYet { relies, in_kernel: false }
    }

    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Check<U> {
        match self {
            Self::Ready(had) => Check::Ready(change(had)),
            Self::NotYet { relies, in_kernel } => Check::NotYet { relies, in_kernel },
        }
    }

    pub(crate) fn ready(self) -> Option<T> {
        match self {
            Self::Ready(had) => Some(had),
            Self::NotYet { .. } => None,
        }
    }
}
