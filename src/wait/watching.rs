//! One waiter that looks when it has heard something: on the events of a directory, on a backstop where it
//! is watched, and by polling where it is not. Knows when to look, and not at what.

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::deadline::now;
use super::hub::Place;
use super::place::Post;
use super::poll::Rhythm;
use crate::error::Result;
use crate::sys;

/// Rule 8. A close is heard before the kernel drops the lock that went with it: look again after so long, and
/// then after four times as long, so many times in all (50 us to 0.8 s).
const AFTER_CLOSE: Duration = Duration::from_micros(50);
const LOOKS_AFTER_CLOSE: u32 = 8;
/// A watch costs six switches of threads, and most waits in the kernel are over before this.
const IN_KERNEL: Duration = Duration::from_millis(10);
/// So often one poll looks, should it ring meanwhile.
const MAX_LOOKS: u32 = 3;
/// How often what no event tells is looked at besides.
const THOROUGH: Duration = Duration::from_secs(1);
/// When to ask again for a watch that could not be had.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How a waiter wants to be told.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    /// Where events tell.
    pub(crate) places: Vec<Place>,
    /// Whether there are things that no event tells of, so that there is polling besides.
    pub(crate) must_poll: bool,
    /// The user's own interval for polling.
    pub(crate) poll_every: Option<Duration>,
    /// For tests: another backstop than the platform's.
    pub(crate) backstop: Option<Duration>,
    /// Whether it is the unlocking of a file that is waited for, which comes after its closing (rule 8).
    pub(crate) is_unlocking: bool,
}

pub(super) struct Watching {
    posts: Vec<Post>,
    must_poll: bool,
    is_unlocking: bool,
    rhythm: Rhythm,
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

impl Watching {
    /// The first `poll` looks, and subscribes if that was in vain; unless [`listen`](Self::listen) comes before it.
    pub(super) fn new(means: Means) -> Self {
        let start = now();
        let backstop = means.backstop.unwrap_or(sys::BACKSTOP);
        let places = if means.poll_every.is_none() { means.places } else { Vec::new() };
        Self {
            must_poll: means.must_poll || means.poll_every.is_some(),
            posts: places.into_iter().map(Post::new).collect(),
            is_unlocking: means.is_unlocking,
            rhythm: Rhythm::new(means.poll_every),
            backstop,
            after_close: None,
            next: None,
            thorough: start + THOROUGH.max(sys::BACKSTOP),
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
    /// later either finds the waker, or is news when this comes round again.
    pub(super) fn poll<T>(
        &mut self,
        waker: &Waker,
        mut look: impl FnMut(bool) -> Result<Seen<T>>,
    ) -> Poll<Result<T>> {
        for post in &self.posts {
            post.register(waker);
        }
        for _ in 0..MAX_LOOKS {
            let (mut has_rung, mut has_closed) = (false, false);
            for post in &mut self.posts {
                let (rings, closes) = post.news();
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
                self.thorough = now + THOROUGH;
            }
            let (relies, in_kernel) = match look(thorough) {
                Ok(Seen::Had(had)) => return Poll::Ready(Ok(had)),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Seen::Nothing { relies, in_kernel }) => (relies, in_kernel),
            };
            if in_kernel && now < self.patient_until && !self.posts.is_empty() {
                self.next = Some(self.patient_until);
                return Poll::Pending;
            }
            for post in &mut self.posts {
                post.settle(thorough, waker);
            }
            self.plan(now, relies);
        }
        // It rings on and on. Others have a right to run, and a deadline to be looked at.
        waker.wake_by_ref();
        Poll::Pending
    }

    /// After a first look elsewhere that was in vain.
    pub(super) fn listen(&mut self, waker: &Waker) {
        for post in &mut self.posts {
            post.settle(false, waker);
        }
        self.plan(now(), true);
    }

    /// The next `poll` looks, whatever was heard.
    pub(super) fn look_again(&mut self) {
        self.next = None;
        self.after_close = None;
    }

    /// After a look at `now` that was in vain.
    fn plan(&mut self, now: Instant, relies: bool) {
        if let Some((looks, at)) = self.after_close.filter(|(_, at)| *at <= now) {
            let later = looks + 1;
            self.after_close = (later < LOOKS_AFTER_CLOSE)
                .then(|| (later, at.max(now) + AFTER_CLOSE * 4_u32.pow(later)));
        }
        if relies && !self.must_poll && self.posts.iter().all(Post::is_up) {
            self.rhythm.begin();
            self.next = Some(now.checked_add(self.backstop).unwrap_or(now + sys::BACKSTOP));
            return;
        }
        if self.ask_again <= now {
            self.ask_again = now + ASK_AGAIN;
            self.posts.iter().for_each(Post::ask_again);
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
    pub(crate) fn nothing(relies: bool) -> Self {
        Self::Nothing { relies, in_kernel: false }
    }

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
