//! One waiter that looks when it has heard something: on the events of a directory, on a backstop where it
//! is watched, and by polling where it is not. Knows when to look, and not at what.

use std::path::Path;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::deadline::now;
use super::poll::Rhythm;
use super::watch::{Subscription, Watched};
use crate::error::Result;
use crate::sys;

/// Rule 8. A close is heard before the kernel drops the lock that went with it: look again after so long, and
/// then after four times as long, so many times in all (50 us to 0.8 s).
const AFTER_CLOSE: Duration = Duration::from_micros(50);
const LOOKS_AFTER_CLOSE: u32 = 8;
/// A watch costs six switches of threads, and most waits in the kernel are over before this.
const IN_KERNEL: Duration = Duration::from_millis(10);
/// When to ask again for a watch that could not be had.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How a waiter wants to be told.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    /// The directory whose events tell; `None` where they must not be trusted.
    pub(crate) directory: Option<Arc<Path>>,
    /// The user's own interval for polling.
    pub(crate) poll_every: Option<Duration>,
    /// For tests: another backstop than the platform's.
    pub(crate) backstop: Option<Duration>,
}

pub(super) struct Watching {
    /// What to subscribe to once a look was in vain.
    directory: Option<Arc<Path>>,
    subscription: Option<Subscription>,
    rhythm: Rhythm,
    backstop: Duration,
    /// What was heard before the last look.
    rings: u64,
    closes: u64,
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

impl Watching {
    /// The first `poll` looks, and subscribes if that was in vain.
    pub(super) fn new(means: &Means) -> Self {
        let start = now();
        let backstop = means.backstop.unwrap_or(sys::BACKSTOP);
        Self {
            directory: means.directory.clone().filter(|_| means.poll_every.is_none()),
            subscription: None,
            rhythm: Rhythm::new(means.poll_every),
            backstop,
            rings: 0,
            closes: 0,
            after_close: None,
            next: None,
            thorough: start + sys::BACKSTOP.max(Duration::from_secs(1)),
            ask_again: start + ASK_AGAIN,
            patient_until: start + IN_KERNEL,
        }
    }

    /// When to be polled again although nothing is heard.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let after_close = self.after_close.map(|(_, at)| at);
        [self.next, after_close].into_iter().flatten().min()
    }

    /// Looks if there is a reason to: something was heard, or it is time. `look` is told whether to be
    /// thorough, and says whether it may rely on what is heard from now on.
    ///
    /// No wake-up is lost (W1): the waker is registered, and the rings are counted, before the look; what rings
    /// later either finds the waker, or is seen by the comparison after it.
    pub(super) fn poll<T>(
        &mut self,
        waker: &Waker,
        mut look: impl FnMut(bool) -> Result<Seen<T>>,
    ) -> Poll<Result<T>> {
        if let Some(subscription) = &self.subscription {
            subscription.register(waker);
        }
        loop {
            let (rings, closes) = self.heard();
            let now = now();
            let is_time = self.next_tick().is_none_or(|at| at <= now);
            if !is_time && rings == self.rings {
                return Poll::Pending;
            }
            if closes != self.closes {
                self.after_close = Some((0, now + AFTER_CLOSE));
            }
            (self.rings, self.closes) = (rings, closes);
            let thorough = self.thorough <= now;
            if thorough {
                self.thorough = now + Duration::from_secs(1);
            }
            let (relies, in_kernel) = match look(thorough) {
                Ok(Seen::Had(had)) => return Poll::Ready(Ok(had)),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Seen::Nothing { relies, in_kernel }) => (relies, in_kernel),
            };
            if in_kernel && now < self.patient_until && self.directory.is_some() {
                self.next = Some(self.patient_until);
                return Poll::Pending;
            }
            if let Some(directory) = self.directory.take() {
                // It rings when the watch is up, and that look sees what happened until then.
                let subscription = self.subscription.insert(Subscription::new(&directory));
                subscription.register(waker);
            }
            self.plan(now, relies);
            if self.heard().0 == rings {
                return Poll::Pending;
            }
        }
    }

    /// The next `poll` looks, whatever was heard.
    pub(super) fn look_again(&mut self) {
        self.next = None;
        self.after_close = None;
    }

    fn heard(&self) -> (u64, u64) {
        // The rings first: a close that is counted in between is looked at with the next ring.
        self.subscription.as_ref().map_or((0, 0), |heard| (heard.rings(), heard.closes()))
    }

    /// After a look at `now` that was in vain.
    fn plan(&mut self, now: Instant, relies: bool) {
        if let Some((looks, at)) = self.after_close.filter(|(_, at)| *at <= now) {
            let later = looks + 1;
            self.after_close = (later < LOOKS_AFTER_CLOSE)
                .then(|| (later, at.max(now) + AFTER_CLOSE * 4_u32.pow(later)));
        }
        let watched = self.subscription.as_ref().map(Subscription::watched);
        if watched == Some(Watched::Yes) && relies {
            self.next = Some(now.checked_add(self.backstop).unwrap_or(now + sys::BACKSTOP));
            return;
        }
        if watched == Some(Watched::No) && self.ask_again <= now {
            self.ask_again = now + ASK_AGAIN;
            if let Some(subscription) = &self.subscription {
                subscription.ask_again();
            }
        }
        if self.rhythm.next() <= now {
            self.rhythm.missed();
        }
        self.next = Some(self.rhythm.next());
    }
}

/// What a look shows.
pub(crate) enum Seen<T> {
    Had(T),
    Nothing {
        /// Whether everybody who could give it knows that somebody waits, and will be heard.
        relies: bool,
        /// Whether it is waited for in the kernel as well, so that hearing is for what rarely happens.
        in_kernel: bool,
    },
}

impl<T> Seen<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Seen<U> {
        match self {
            Self::Had(had) => Seen::Had(change(had)),
            Self::Nothing { relies, in_kernel } => Seen::Nothing { relies, in_kernel },
        }
    }

    pub(super) fn had(self) -> Option<T> {
        match self {
            Self::Had(had) => Some(had),
            Self::Nothing { .. } => None,
        }
    }
}
