//! The waiters of each directory, shared by the waiters, the thread that calls notify and notify's
//! own thread. Nothing here reads a directory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use super::super::wake;
use super::watcher;
use super::{Names, WatchTarget};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sorted_map::SortedMap;
use crate::sys::{DirectoryId, Origin};

/// Under one mutex, which is never held while notify is called: on some platforms that waits for
/// the handler, which takes the mutex too.
pub(super) struct WatchRegistry {
    /// Whether the thread runs.
    pub(super) is_running: bool,
    pub(super) directories: SortedMap<Arc<Path>, WatchedDir>,
    /// Directories that may have been replaced since they were watched: a watch stays with a
    /// directory that was moved away, and ends with one that was removed.
    pub(super) stale: Vec<Arc<Path>>,
    /// Whether the thread sleeps until it is notified that a waiter has left, or will leave soon.
    pub(super) sleeps_long: bool,
    /// How many new names were reported.
    pub(super) new_names: u32,
    /// The number of the current watcher.
    pub(super) watcher: u64,
    /// Whether that watcher's thread has ended without a request.
    pub(super) has_ended: bool,
}

/// A directory, and its waiters.
#[derive(Default)]
pub(super) struct WatchedDir {
    /// The path in its events, while it is watched.
    pub(super) event_path: Option<Arc<Path>>,
    /// The waiters, grouped by their names of interest, so that an event is compared with each
    /// group once.
    users: SortedMap<Names, SortedMap<u64, Arc<EventCounter>>>,
}

pub(super) static REGISTRY: ForkSafe<WatchRegistry> =
    ForkSafe::new(WatchRegistry::new(), |()| WatchRegistry::new());
/// The next subscription's number. It is not reset in a forked copy, which must not take a
/// subscription of the other process for its own.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

pub(super) fn registry() -> MutexGuard<'static, WatchRegistry> {
    REGISTRY.lock()
}

impl WatchRegistry {
    const fn new() -> Self {
        Self {
            is_running: false,
            directories: SortedMap::new(),
            stale: Vec::new(),
            sleeps_long: false,
            new_names: 0,
            watcher: 0,
            has_ended: false,
        }
    }

    /// Makes the registry ignore further events of the last watcher's thread, and its end.
    pub(super) fn next_watcher(&mut self) -> u64 {
        self.watcher += 1;
        self.watcher
    }

    pub(super) fn add_stale(&mut self, directories: impl IntoIterator<Item = Arc<Path>>) {
        for directory in directories {
            if !self.stale.contains(&directory) {
                self.stale.push(directory);
            }
        }
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
        self.users.values().flat_map(SortedMap::values)
    }

    /// The counters of waiters whose names `matches` accepts.
    pub(super) fn counters_of(
        &self,
        matches: impl Fn(&Names) -> bool,
    ) -> impl Iterator<Item = &Arc<EventCounter>> {
        let matching = self.users.iter().filter(move |(names, _)| matches(names));
        matching.flat_map(|(_, counters)| counters.values())
    }
}

/// Whether a directory is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// A watch was requested, and the answer is not known yet.
    Requested,
    /// Yes, and this is the directory that the path led to at the time.
    Yes(DirectoryId),
    /// There is no such directory.
    Missing,
    No,
}

/// Counts the events for one waiter, and wakes it.
pub(super) struct EventCounter {
    /// The number of events.
    events: AtomicU64,
    /// The number of them that were the closing of a file.
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

    /// Sets the answer first, then counts, and wakes last. So a waiter that sees the count sees the
    /// answer, and a waiter that reads the count after registering its waker sees the event or is
    /// woken (W1).
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

/// A subscription of one waiter to the events of a directory, which ends when dropped.
pub(super) struct Subscription {
    number: u64,
    target: WatchTarget,
    counter: Arc<EventCounter>,
    /// Where it was created: in a forked copy no thread notifies it.
    origin: Origin,
}

impl Subscription {
    /// Returns immediately. The waiter is notified when the answer is known. This counts as the
    /// closing of a file, so that the checks that follow see everything that happened before the
    /// watch was active.
    pub(super) fn new(target: WatchTarget) -> Self {
        let this = Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            target,
            counter: Arc::new(EventCounter {
                events: AtomicU64::new(0),
                closes: AtomicU64::new(0),
                inner: Mutex::new((Watched::No, None)),
            }),
            origin: Origin::here(),
        };
        this.request_watch();
        this
    }

    /// Requests a watch, even if an earlier one failed or the directory was replaced.
    pub(super) fn request_watch(&self) {
        if !self.origin.is_here() {
            return;
        }
        let mut registry = registry();
        if watcher::is_running(&mut registry) {
            // Under the registry's mutex, under which the thread reads it.
            self.counter.inner().0 = Watched::Requested;
            let watched_dir =
                registry.directories.get_or_default(Arc::clone(&self.target.directory));
            let counters = watched_dir.users.get_or_default(self.target.names.clone());
            counters.insert(self.number, Arc::clone(&self.counter));
        }
        drop(registry);
        REGISTRY.notify();
    }

    /// Sets the waker that is woken from now on.
    pub(super) fn register(&self, waker: &Waker) {
        // In a forked copy a thread that the copy does not have may hold the mutex (rule 4).
        if !self.origin.is_here() {
            return;
        }
        let inner = self.counter.inner();
        if inner.1.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        drop(inner);
        // Cloned and dropped without the mutex (Q6).
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
        if let Some(watched_dir) = registry.directories.get_mut(&self.target.directory) {
            if let Some(counters) = watched_dir.users.get_mut(&self.target.names) {
                counter = counters.remove(&self.number);
                if counters.is_empty() {
                    watched_dir.users.remove(&self.target.names);
                }
            }
            if watched_dir.event_path.is_none() && !watched_dir.is_used() {
                registry.directories.remove(&self.target.directory);
            }
        }
        let must_notify = registry.sleeps_long;
        drop(registry);
        drop(counter);
        if must_notify {
            REGISTRY.notify();
        }
    }
}
