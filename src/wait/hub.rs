//! Who listens where, and who is to be woken by what: between the waiters, the thread that talks to notify and
//! notify's own. Knows directories by their paths and looks at none. Names `sys` (forks, and what a directory is
//! known by).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use super::{wake, watch};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sys::{Origin, PlaceId};

/// What they tell each other. Under one mutex, which is never held while notify is called: on some platforms that
/// waits for the handler, which takes it too.
pub(super) struct Hub {
    /// Whether the thread runs.
    pub(super) is_running: bool,
    pub(super) spots: BTreeMap<Arc<Path>, Spot>,
    /// Directories that may have been replaced since they were watched: the watch stays with what was moved
    /// away, and ends with what was removed.
    pub(super) doubted: BTreeSet<Arc<Path>>,
    /// Whether the thread sleeps until it is told that somebody has gone, or soon will.
    pub(super) sleeps_long: bool,
    /// New names that were heard of.
    pub(super) strays: u32,
    /// The watcher that is listened to.
    pub(super) watcher: u64,
    /// That watcher's thread has ended by itself.
    pub(super) is_deaf: bool,
}

/// A directory, and who listens there.
#[derive(Default)]
pub(super) struct Spot {
    /// The path with which events of it come, while it is watched.
    pub(super) heard_as: Option<Arc<Path>>,
    /// By the names of interest, so that an event is compared with each of these once.
    users: BTreeMap<Names, BTreeMap<u64, Arc<Bell>>>,
}

/// The names within a directory whose events are of interest; `None`: all. Those of the directory itself always
/// are.
pub(crate) type Names = Option<Arc<[OsString]>>;

/// What one waiter wants to hear of.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) directory: Arc<Path>,
    pub(crate) names: Names,
}

pub(super) static HUB: ForkSafe<Hub> = ForkSafe::new(Hub::new(), |()| Hub::new());
/// Of subscriptions. Goes on in a forked copy, so that what it has of the other process is never taken for its own.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

pub(super) fn hub() -> MutexGuard<'static, Hub> {
    HUB.lock()
}

impl Hub {
    const fn new() -> Self {
        Self {
            is_running: false,
            spots: BTreeMap::new(),
            doubted: BTreeSet::new(),
            sleeps_long: false,
            strays: 0,
            watcher: 0,
            is_deaf: false,
        }
    }

    /// From here on what the last watcher's thread does, and that it ends, is no news.
    pub(super) fn next_watcher(&mut self) -> u64 {
        self.watcher += 1;
        self.watcher
    }

    pub(super) fn has_users(&self) -> bool {
        self.spots.values().any(Spot::is_used)
    }
}

impl Spot {
    pub(super) fn is_used(&self) -> bool {
        !self.users.is_empty()
    }

    pub(super) fn bells(&self) -> impl Iterator<Item = &Arc<Bell>> {
        self.users.values().flat_map(BTreeMap::values)
    }

    /// Of those who are interested in a name that `is_meant`.
    pub(super) fn bells_of(
        &self,
        is_meant: impl Fn(&Names) -> bool,
    ) -> impl Iterator<Item = &Arc<Bell>> {
        let meant = self.users.iter().filter(move |(names, _)| is_meant(names));
        meant.flat_map(|(_, bells)| bells.values())
    }
}

/// Whether a directory is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// Not yet known.
    Asked,
    /// With the directory that the path led to when it was watched.
    Yes(PlaceId),
    /// There is no such directory.
    Missing,
    No,
}

/// What one waiter hears.
pub(super) struct Bell {
    /// How often something was heard.
    rings: AtomicU64,
    /// How many of them were the closing of a file.
    closes: AtomicU64,
    inner: Mutex<(Watched, Option<Waker>)>,
}

impl Bell {
    fn inner(&self) -> std::sync::MutexGuard<'_, (Watched, Option<Waker>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watched(&self) -> Watched {
        self.inner().0
    }

    /// Answers first, counts then, and wakes last. So who sees the count sees the answer, and who looks at the
    /// count after registering its waker sees it or is woken (W1).
    pub(super) fn ring(&self, close: bool, answer: Option<Watched>) {
        let mut inner = self.inner();
        if let Some(answer) = answer {
            inner.0 = answer;
        }
        if close {
            self.closes.fetch_add(1, Ordering::SeqCst);
        }
        self.rings.fetch_add(1, Ordering::SeqCst);
        let waker = inner.1.take();
        drop(inner);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

/// One waiter's interest in the events of a place, which ends when dropped.
pub(super) struct Subscription {
    number: u64,
    place: Place,
    bell: Arc<Bell>,
    /// In a forked copy nobody rings it.
    origin: Origin,
}

impl Subscription {
    /// Returns at once. The bell rings when the answer is there, and that ring counts as the closing of a file:
    /// what happened before the watch was up is seen by the looks that follow it.
    pub(super) fn new(place: Place) -> Self {
        let this = Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            place,
            bell: Arc::new(Bell {
                rings: AtomicU64::new(0),
                closes: AtomicU64::new(0),
                inner: Mutex::new((Watched::No, None)),
            }),
            origin: Origin::here(),
        };
        this.ask_again();
        this
    }

    /// Asks again for a watch that could not be had, or that is of a directory which was replaced.
    pub(super) fn ask_again(&self) {
        if !self.origin.is_here() {
            return;
        }
        let mut hub = hub();
        if watch::is_running(&mut hub) {
            // Under the hub's mutex, under which its thread reads it.
            self.bell.inner().0 = Watched::Asked;
            let spot = hub.spots.entry(Arc::clone(&self.place.directory)).or_default();
            let bells = spot.users.entry(self.place.names.clone()).or_default();
            bells.insert(self.number, Arc::clone(&self.bell));
        }
        drop(hub);
        HUB.notify();
    }

    /// Who is woken from now on.
    pub(super) fn register(&self, waker: &Waker) {
        // In a forked copy the bell may be locked, by a thread that the copy does not have (rule 4).
        if !self.origin.is_here() {
            return;
        }
        let inner = self.bell.inner();
        if inner.1.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        drop(inner);
        // Q6: cloned and dropped without the mutex.
        let new = waker.clone();
        let old = self.bell.inner().1.replace(new);
        drop(old);
    }

    pub(super) fn rings(&self) -> u64 {
        self.bell.rings.load(Ordering::SeqCst)
    }

    pub(super) fn closes(&self) -> u64 {
        self.bell.closes.load(Ordering::SeqCst)
    }

    pub(super) fn watched(&self) -> Watched {
        if self.origin.is_here() { self.bell.watched() } else { Watched::No }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return;
        }
        let mut hub = hub();
        let mut bell = None;
        if let Some(spot) = hub.spots.get_mut(&self.place.directory) {
            if let Some(bells) = spot.users.get_mut(&self.place.names) {
                bell = bells.remove(&self.number);
                if bells.is_empty() {
                    spot.users.remove(&self.place.names);
                }
            }
            if spot.heard_as.is_none() && !spot.is_used() {
                hub.spots.remove(&self.place.directory);
            }
        }
        let is_to_be_told = hub.sleeps_long;
        drop(hub);
        drop(bell);
        if is_to_be_told {
            HUB.notify();
        }
    }
}
