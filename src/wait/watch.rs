//! The events of directories: the one file that names notify. One watcher for the process, made when
//! somebody waits and gone soon after, directories counted by who waits.
//!
//! Nothing depends on notify for correctness. An event is a hint to look (rule S7), a lost one costs a
//! backstop, and where no watch can be had the waiters poll. Its calls are made by a thread of this
//! module and never by a waiter, so that one that hangs (notify#942) delays nobody.

#![expect(clippy::disallowed_methods, reason = "starts the thread that talks to notify")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _, WatcherKind};

use super::deadline::now;
use super::wake;
use crate::sys::{self, Origin, PlaceId};

/// How long a watch, and the watcher, is kept when nobody waits: who was woken is not held up by its end, and who
/// comes back finds it. Not longer, since on Linux a user has only 128 instances (inotify(7),
/// `max_user_instances`), over all processes.
const LINGER: Duration = Duration::from_millis(20);
/// Until something changes; a condition can be waited for so long on any platform.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// How long to wait for the answer whether a directory can be watched.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many new names and a watcher by kqueue is made anew. notify 8.2 opens each file that comes to a watched
/// directory, and does not close it when it goes (kqueue.rs, `handle_kqueue` and `remove_watch`; notify#644).
const MOST_STRAYS: u32 = 64;

/// What the thread is told and what the waiters are told. Under one mutex, which is never held while
/// notify is called: on some platforms that waits for the handler, which takes it too.
struct Hub {
    /// The process whose thread runs; a forked copy has none.
    running: Option<Origin>,
    next_number: u64,
    users: BTreeMap<u64, User>,
    /// What the thread watches, also what nobody wants any more.
    watched: BTreeSet<Arc<Path>>,
    /// Directories that may have been replaced since they were watched: the watch stays with what was moved
    /// away, and ends with what was removed.
    doubted: BTreeSet<Arc<Path>>,
    /// Whether the thread sleeps until it is told that somebody has gone, or soon will.
    sleeps_long: bool,
    /// New names that were heard of.
    strays: u32,
}

struct User {
    place: Place,
    bell: Arc<Bell>,
}

/// Whose events one waiter wants to hear.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) directory: Arc<Path>,
    /// Only those of names that begin so are of interest, and of the directory itself.
    pub(crate) stem: Option<Arc<OsStr>>,
}

static HUB: Mutex<Hub> = Mutex::new(Hub {
    running: None,
    next_number: 0,
    users: BTreeMap::new(),
    watched: BTreeSet::new(),
    doubted: BTreeSet::new(),
    sleeps_long: false,
    strays: 0,
});
static CHANGED: Condvar = Condvar::new();

impl Hub {
    /// Whether the thread runs; starts it where it does not.
    fn start(&mut self) -> bool {
        if self.running.as_ref().is_some_and(Origin::is_here) {
            return true;
        }
        if self.running.take().is_some() {
            // The users of a forked copy are its parent's, and so is the watcher.
            self.users.clear();
            self.watched.clear();
            self.doubted.clear();
            self.sleeps_long = false;
            self.strays = 0;
        }
        let thread = std::thread::Builder::new().name("flockwork-watch".into());
        self.running = thread.spawn(run).ok().map(|_| Origin::here());
        self.running.is_some()
    }
}

fn hub() -> MutexGuard<'static, Hub> {
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
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
struct Bell {
    /// How often something was heard.
    rings: AtomicU64,
    /// How many of them were the closing of a file.
    closes: AtomicU64,
    inner: Mutex<(Watched, Option<Waker>)>,
}

impl Bell {
    fn inner(&self) -> MutexGuard<'_, (Watched, Option<Waker>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts first and wakes then: who looks at the count after registering its waker sees it or is
    /// woken (W1).
    fn ring(&self, close: bool, watched: Option<Watched>) {
        if close {
            self.closes.fetch_add(1, Ordering::SeqCst);
        }
        self.rings.fetch_add(1, Ordering::SeqCst);
        let mut inner = self.inner();
        if let Some(watched) = watched {
            inner.0 = watched;
        }
        let waker = inner.1.take();
        drop(inner);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

/// One waiter's interest in the events of a directory, which ends when dropped.
pub(super) struct Subscription {
    number: u64,
    bell: Arc<Bell>,
}

impl Subscription {
    /// Returns at once. The bell rings when the answer is there, and that ring counts as the closing of a file:
    /// what happened before the watch was up is seen by the looks that follow it.
    pub(super) fn new(place: Place) -> Self {
        let bell = Arc::new(Bell {
            rings: AtomicU64::new(0),
            closes: AtomicU64::new(0),
            inner: Mutex::new((Watched::Asked, None)),
        });
        let user = User { place, bell: Arc::clone(&bell) };
        let mut hub = hub();
        let number = hub.next_number;
        hub.next_number += 1;
        let started = hub.start();
        hub.users.insert(number, user);
        drop(hub);
        if !started {
            bell.inner().0 = Watched::No;
        }
        CHANGED.notify_one();
        Self { number, bell }
    }

    /// Asks again for a watch that could not be had, or that is of a directory which was replaced.
    pub(super) fn ask_again(&self) {
        if hub().start() {
            self.bell.inner().0 = Watched::Asked;
            CHANGED.notify_one();
        }
    }

    /// Who is woken from now on.
    pub(super) fn register(&self, waker: &Waker) {
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
        self.bell.inner().0
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut hub = hub();
        let user = hub.users.remove(&self.number);
        let is_to_be_told = hub.sleeps_long;
        drop(hub);
        drop(user);
        if is_to_be_told {
            CHANGED.notify_one();
        }
    }
}

/// Whether the events of this directory, or of the nearest above it that exists, can be had. Asks, and waits for
/// the answer.
pub(crate) fn is_watchable(directory: &Path) -> bool {
    let directory = sys::nearest_directory(directory).into();
    let subscription = Subscription::new(Place { directory, stem: None });
    let waker = super::this_thread();
    let end = now() + PATIENCE;
    loop {
        subscription.register(&waker);
        match subscription.watched() {
            Watched::Yes(_) => return true,
            Watched::Missing | Watched::No => return false,
            Watched::Asked => {}
        }
        let left = end.saturating_duration_since(now());
        if left.is_zero() {
            return false;
        }
        std::thread::park_timeout(left);
    }
}

/// What the thread has of notify.
#[derive(Default)]
struct Watches {
    watcher: Option<RecommendedWatcher>,
    /// With the directory that the path led to then: a watch stays with one that was moved away.
    directories: BTreeMap<Arc<Path>, Directory>,
}

struct Directory {
    id: PlaceId,
    /// Since when nobody has wanted it.
    unused_since: Option<Instant>,
}

/// Brings notify to what the users want, again and again, until nobody has wanted anything for a while.
///
/// No user is missed: what they want is read under the mutex under which they say it, and so is the end. Who
/// leaves says so only to a thread that sleeps for long: one that does not looks soon. Whoever clears `sleeps_long`
/// wakes it.
fn run() {
    let mut watches = Watches::default();
    let mut is_alert = false;
    let mut guard = hub();
    loop {
        if guard.strays >= MOST_STRAYS {
            guard.strays = 0;
            let all: Vec<_> = watches.directories.keys().map(Arc::clone).collect();
            guard.doubted.extend(all);
            drop(guard);
            std::mem::take(&mut watches).end();
            guard = hub();
        }
        let doubted = std::mem::take(&mut guard.doubted);
        let now = now();
        let mut unwanted = Vec::new();
        let mut is_lingering = false;
        for (path, directory) in &mut watches.directories {
            let is_used = guard.users.values().any(|user| user.place.directory == *path);
            if is_used {
                directory.unused_since = None;
            } else {
                let since = *directory.unused_since.get_or_insert(now);
                is_lingering |= now.saturating_duration_since(since) < LINGER;
            }
            let is_over = directory.unused_since.is_some_and(|since| now - since >= LINGER);
            if is_over || doubted.contains(path) {
                unwanted.push(Arc::clone(path));
            }
        }
        if guard.users.is_empty() && !is_lingering {
            guard.running = None;
            guard.watched.clear();
            drop(guard);
            watches.end();
            return;
        }
        let wants = |user: &&User| {
            user.bell.inner().0 == Watched::Asked || doubted.contains(&user.place.directory)
        };
        let asked: BTreeSet<Arc<Path>> =
            guard.users.values().filter(wants).map(|u| Arc::clone(&u.place.directory)).collect();
        if !asked.is_empty() || !unwanted.is_empty() {
            drop(guard);
            for directory in unwanted {
                watches.unwatch(&directory);
            }
            for directory in asked {
                let answer = watches.watch(&directory);
                for bell in bells(&directory) {
                    // A file may have been closed before, and not be unlocked yet (rule 8).
                    bell.ring(true, Some(answer));
                }
            }
            guard = hub();
            continue;
        }
        let is_short = is_lingering || is_alert;
        guard.sleeps_long = !is_short;
        let pause = if is_short { LINGER } else { FOREVER };
        let (again, _) = CHANGED.wait_timeout(guard, pause).unwrap_or_else(PoisonError::into_inner);
        guard = again;
        is_alert = !is_short && !guard.sleeps_long;
        guard.sleeps_long = false;
    }
}

/// The bells of a directory. Rung without the mutex (Q6).
fn bells(directory: &Arc<Path>) -> Vec<Arc<Bell>> {
    let hub = hub();
    let users = hub.users.values().filter(|user| user.place.directory == *directory);
    users.map(|user| Arc::clone(&user.bell)).collect()
}

/// On notify's thread. Who watches the directory of the event's path looks; or everybody, where that is none we
/// know: paths come back canonical on macOS, with other separators on Windows, and not at all with an overflow
/// (`need_rescan`).
fn handle(event: notify::Result<notify::Event>) {
    // An overflow, or whatever else is no event, may stand for anything.
    let event = event.ok().filter(|event| !event.need_rescan());
    let kind = event.as_ref().map(|event| event.kind);
    let (close, doubt) = match kind {
        // To look needs no opening, but others' opening and reading is no news.
        Some(EventKind::Access(AccessKind::Close(AccessMode::Write))) => (true, false),
        Some(EventKind::Access(_)) => return,
        Some(
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)),
        ) => (false, true),
        Some(_) => (false, false),
        None => (true, true),
    };
    let paths = event.map(|event| event.paths).unwrap_or_default();
    let mut hub = hub();
    let mut is_known = false;
    let mut meant: Vec<_> = Vec::new();
    for user in hub.users.values() {
        let directory = &user.place.directory;
        let is_itself = paths.iter().any(|path| *path == **directory);
        let mut names = paths.iter().filter(|path| path.parent() == Some(directory)).peekable();
        is_known |= is_itself || names.peek().is_some();
        if is_itself || names.any(|path| user.place.concerns(path)) {
            meant.push(Arc::clone(&user.bell));
        }
    }
    if !is_known {
        meant.extend(hub.users.values().map(|user| Arc::clone(&user.bell)));
    }
    let is_doubtful = |watched: &&Arc<Path>| {
        doubt && (paths.is_empty() || paths.iter().any(|path| *path == ***watched))
    };
    let doubted: Vec<_> = hub.watched.iter().filter(is_doubtful).map(Arc::clone).collect();
    let has_doubts = !doubted.is_empty();
    hub.doubted.extend(doubted);
    let is_stray = matches!(kind, Some(EventKind::Create(_)))
        && matches!(RecommendedWatcher::kind(), WatcherKind::Kqueue);
    hub.strays += u32::from(is_stray);
    // Who is woken may go, and need not stop to say so: the thread looks for that in a while.
    let is_to_be_told = !meant.is_empty() && std::mem::take(&mut hub.sleeps_long);
    let is_due = is_to_be_told || has_doubts || hub.strays >= MOST_STRAYS;
    drop(hub);
    for bell in meant {
        bell.ring(close, None);
    }
    if is_due {
        CHANGED.notify_one();
    }
}

impl Place {
    /// Whether an event of this path in the directory is of interest. Only inotify gives back names as they were
    /// written, byte for byte.
    fn concerns(&self, path: &Path) -> bool {
        let (Some(stem), Some(name)) = (&self.stem, path.file_name()) else { return true };
        !matches!(RecommendedWatcher::kind(), WatcherKind::Inotify)
            || name.as_encoded_bytes().starts_with(stem.as_encoded_bytes())
    }
}

impl Watches {
    fn watch(&mut self, directory: &Arc<Path>) -> Watched {
        let id = sys::place_identity(directory).ok();
        if let Some(known) = self.directories.get(directory).map(|directory| directory.id) {
            if id == Some(known) {
                return Watched::Yes(known);
            }
            // Of what had the path before. On Windows that is not quite gone as long as it is watched.
            self.unwatch(directory);
        }
        let Some(id) = id else { return Watched::Missing };
        if self.watcher.is_none() {
            self.watcher = watcher();
        }
        let Some(watcher) = &mut self.watcher else { return Watched::No };
        // Before it is watched: what is heard of it from then on may make it doubtful.
        hub().watched.insert(Arc::clone(directory));
        // notify 8.2 panics in `watch` where its thread has ended (inotify.rs, `watch_inner`).
        let answer = catch_unwind(AssertUnwindSafe(|| {
            watcher.watch(directory, RecursiveMode::NonRecursive)
        }));
        match answer {
            Ok(Ok(())) => {
                // Should it have been replaced since the first line, who waits sees another id (E6).
                let known = Directory { id, unused_since: None };
                self.directories.insert(Arc::clone(directory), known);
                Watched::Yes(id)
            }
            Ok(Err(_)) => {
                hub().watched.remove(directory);
                if directory.is_dir() { Watched::No } else { Watched::Missing }
            }
            Err(_) => {
                self.abandon();
                Watched::No
            }
        }
    }

    fn unwatch(&mut self, directory: &Arc<Path>) {
        self.directories.remove(directory);
        hub().watched.remove(directory);
        let Some(watcher) = &mut self.watcher else { return };
        // An error says that it was not watched any more: the directory is gone.
        if catch_unwind(AssertUnwindSafe(|| watcher.unwatch(directory))).is_err() {
            self.abandon();
        }
    }

    /// Its thread has ended, and its `drop` panics for that.
    fn abandon(&mut self) {
        self.directories.clear();
        hub().watched.clear();
        std::mem::forget(self.watcher.take());
    }

    fn end(self) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.watcher)));
    }
}

/// A watcher whose thread runs. notify 8.2 does not say where that could not be started (`let _ = spawn`, in
/// each backend), and panics later: a message that is answered by it, and fails without a panic, tells.
fn watcher() -> Option<RecommendedWatcher> {
    // Where the system has no events (illumos) notify looks every 30 seconds. We look more often ourselves.
    if matches!(RecommendedWatcher::kind(), WatcherKind::PollWatcher | WatcherKind::NullWatcher) {
        return None;
    }
    let mut watcher = RecommendedWatcher::new(handle, Config::default()).ok()?;
    if watcher.configure(Config::default()).is_ok() {
        return Some(watcher);
    }
    std::mem::forget(watcher);
    None
}
