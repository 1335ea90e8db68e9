//! Who listens where, and who is to be woken by what: between the waiters, the thread that talks to
//! notify and notify's own. Knows directories by their paths and looks at none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use super::super::wake;
use super::watcher;
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sys::{DirectoryId, Origin};

/// What they tell each other. Under one mutex, which is never held while notify is called: on some platforms that
/// waits for the handler, which takes it too.
pub(super) struct WatchRegistry {
    /// Whether the thread runs.
    pub(super) is_running: bool,
    pub(super) directories: BTreeMap<Arc<Path>, WatchedDir>,
    /// Directories that may have been replaced since they were watched: the watch stays with what was moved
    /// away, and ends with what was removed.
    pub(super) doubted: BTreeSet<Arc<Path>>,
    /// Whether the thread sleeps until it is told that somebody has gone, or soon will.
    pub(super) sleeps_long: bool,
    /// New names that were heard of.
    pub(super) new_names: u32,
    /// The watcher that is listened to.
    pub(super) watcher: u64,
    /// That watcher's thread has ended by itself.
    pub(super) has_ended: bool,
}

/// A directory, and who listens there.
#[derive(Default)]
pub(super) struct WatchedDir {
    /// The path with which events of it come, while it is watched.
    pub(super) event_path: Option<Arc<Path>>,
    /// By the names of interest, so that an event is compared with each of these once.
    users: BTreeMap<Names, BTreeMap<u64, Arc<EventCounter>>>,
}

/// The names within a directory whose events are of interest; `None`: all. Those of the directory itself always
/// are.
pub(crate) type Names = Option<Arc<[OsString]>>;

/// What one waiter wants to hear of.
#[derive(Debug, Clone)]
pub(crate) struct WatchTarget {
    pub(crate) directory: Arc<Path>,
    pub(crate) names: Names,
}

pub(super) static REGISTRY: ForkSafe<WatchRegistry> =
    ForkSafe::new(WatchRegistry::new(), |()| WatchRegistry::new());
/// Of subscriptions. Goes on in a forked copy, so that what it has of the other process is never taken for its own.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

pub(super) fn registry() -> MutexGuard<'static, WatchRegistry> {
    REGISTRY.lock()
}

impl WatchRegistry {
    const fn new() -> Self {
        Self {
            is_running: false,
            directories: BTreeMap::new(),
            doubted: BTreeSet::new(),
            sleeps_long: false,
            new_names: 0,
            watcher: 0,
            has_ended: false,
        }
    }

    /// From here on what the last watcher's thread does, and that it ends, is no news.
    pub(super) fn next_watcher(&mut self) -> u64 {
        self.watcher += 1;
        self.watcher
    }

    pub(super) fn has_users(&self) -> bool {
        self.directories.values().any(WatchedDir::is_used)
    }
}

impl WatchedDir {
    pub(super) fn is_used(&self) -> bool {
        !self.users.is_empty()
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = &Arc<EventCounter>> {
        self.users.values().flat_map(BTreeMap::values)
    }

    /// Of those who are interested in a name that `is_meant`.
    pub(super) fn counters_of(
        &self,
        is_meant: impl Fn(&Names) -> bool,
    ) -> impl Iterator<Item = &Arc<EventCounter>> {
        let meant = self.users.iter().filter(move |(names, _)| is_meant(names));
        meant.flat_map(|(_, counters)| counters.values())
    }
}

/// Whether a directory is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// Not yet known.
    Asked,
    /// With the directory that the path led to when it was watched.
    Yes(DirectoryId),
    /// There is no such directory.
    Missing,
    No,
}

/// What one waiter hears.
pub(super) struct EventCounter {
    /// How often something was heard.
    events: AtomicU64,
    /// How many of them were the closing of a file.
    closes: AtomicU64,
    inner: Mutex<(Watched, Option<Waker>)>,
}

impl EventCounter {
    fn inner(&self) -> std::sync::MutexGuard<'_, (Watched, Option<Waker>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watched(&self) -> Watched {
        self.inner().0
    }

    /// Answers first, counts then, and wakes last. So who sees the count sees the answer, and who looks at the
    /// count after registering its waker sees it or is woken (W1).
    pub(super) fn notify(&self, close: bool, answer: Option<Watched>) {
        let mut inner = self.inner();
        if let Some(answer) = answer {
            inner.0 = answer;
        }
        if close {
            self.closes.fetch_add(1, Ordering::SeqCst);
        }
        self.events.fetch_add(1, Ordering::SeqCst);
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
    place: WatchTarget,
    counter: Arc<EventCounter>,
    /// In a forked copy nobody rings it.
    origin: Origin,
}

impl Subscription {
    /// Returns at once. The bell rings when the answer is there, and that ring counts as the closing of a file:
    /// what happened before the watch was up is seen by the looks that follow it.
    pub(super) fn new(place: WatchTarget) -> Self {
        let this = Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            place,
            counter: Arc::new(EventCounter {
                events: AtomicU64::new(0),
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
        let mut registry = registry();
        if watcher::is_running(&mut registry) {
            // Under the hub's mutex, under which its thread reads it.
            self.counter.inner().0 = Watched::Asked;
            let watched_dir =
                registry.directories.entry(Arc::clone(&self.place.directory)).or_default();
            let counters = watched_dir.users.entry(self.place.names.clone()).or_default();
            counters.insert(self.number, Arc::clone(&self.counter));
        }
        drop(registry);
        REGISTRY.notify();
    }

    /// Who is woken from now on.
    pub(super) fn register(&self, waker: &Waker) {
        // In a forked copy the bell may be locked, by a thread that the copy does not have (rule 4).
        if !self.origin.is_here() {
            return;
        }
        let inner = self.counter.inner();
        if inner.1.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        drop(inner);
        // Q6: cloned and dropped without the mutex.
        let new = waker.clone();
        let old = self.counter.inner().1.replace(new);
        drop(old);
    }

    pub(super) fn events(&self) -> u64 {
        self.counter.events.load(Ordering::SeqCst)
    }

    pub(super) fn closes(&self) -> u64 {
        self.counter.closes.load(Ordering::SeqCst)
    }

    pub(super) fn watched(&self) -> Watched {
        if self.origin.is_here() { self.counter.watched() } else { Watched::No }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return;
        }
        let mut registry = registry();
        let mut counter = None;
        if let Some(watched_dir) = registry.directories.get_mut(&self.place.directory) {
            if let Some(counters) = watched_dir.users.get_mut(&self.place.names) {
                counter = counters.remove(&self.number);
                if counters.is_empty() {
                    watched_dir.users.remove(&self.place.names);
                }
            }
            if watched_dir.event_path.is_none() && !watched_dir.is_used() {
                registry.directories.remove(&self.place.directory);
            }
        }
        let is_to_be_told = registry.sleeps_long;
        drop(registry);
        drop(counter);
        if is_to_be_told {
            REGISTRY.notify();
        }
    }
}
