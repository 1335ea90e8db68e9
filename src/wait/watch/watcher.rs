//! The thread that calls notify. No other file names that crate. The process has one watcher,
//! created when a thread or future waits and dropped soon after.
//!
//! Nothing depends on notify for correctness. An event is a hint to check (rules S7 and E1), a lost
//! event costs a backstop, and without a watch the waiters poll. A thread of this module calls
//! notify and no waiter does, so that a call that hangs (notify#942) delays no waiter.

#![expect(clippy::disallowed_methods, reason = "starts the thread that calls notify")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _, WatcherKind};

use super::super::deadline::now;
use super::registry::{
    EventCounter, REGISTRY, Subscription, WatchRegistry, Watched, WatchedDir, registry,
};
use super::{Names, WatchTarget};
use crate::sorted_map::SortedMap;
use crate::sync::start_thread;
use crate::sys::{self, DirectoryId};
use crate::trace;

/// How long a watch and the watcher are kept without a waiter, so that ending them does not delay a
/// woken waiter, and the next wait finds them. Not longer, since on Linux a user has only 128
/// instances in all processes together (inotify(7), `max_user_instances`).
const WATCHER_KEEPALIVE: Duration = Duration::from_millis(20);
/// A pause of unlimited length that any platform's condition variable can wait for.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// How long `is_watchable` waits for the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// After this many new names a kqueue watcher is created again. notify 8.2 opens each file that
/// appears in a watched directory, and does not close it when the file disappears (kqueue.rs,
/// `handle_kqueue` and `remove_watch`; notify#644).
const MAX_NEW_NAMES: u32 = 64;

/// Whether the thread runs; starts it if it does not.
pub(super) fn is_running(registry: &mut WatchRegistry) -> bool {
    if !registry.is_running {
        registry.is_running = start_thread("flockwork-watch", None, run).is_ok();
    }
    registry.is_running
}

/// Whether this directory, or the nearest above it that exists, can be watched. Waits for the
/// answer.
pub(crate) fn is_watchable(directory: &Path) -> bool {
    let Some(directory) = sys::nearest_directory(directory) else { return false };
    let subscription = Subscription::new(WatchTarget { directory: directory.into(), names: None });
    let waker = super::super::this_thread();
    let end = now() + ANSWER_TIMEOUT;
    loop {
        subscription.register(&waker);
        match subscription.watched() {
            Watched::Yes(_) => return true,
            Watched::Missing | Watched::No => return false,
            Watched::Requested => {}
        }
        let left = end.saturating_duration_since(now());
        if left.is_zero() {
            return false;
        }
        std::thread::park_timeout(left);
    }
}

/// The watcher, and the directories that it watches.
#[derive(Default)]
struct Watches {
    watcher: Option<RecommendedWatcher>,
    directories: SortedMap<Arc<Path>, Directory>,
}

struct Directory {
    /// The directory that the path led to when it was watched: a watch stays with it when it is
    /// moved.
    id: DirectoryId,
    /// The path that notify was given: another path of the same directory, if that was watched
    /// already.
    event_path: Arc<Path>,
    /// Since when the directory has had no waiter.
    unused_since: Option<Instant>,
}

/// Watches the directories that have waiters, until for a while none has had one.
///
/// No waiter is missed: subscriptions are read under the mutex under which they are created, and
/// the thread ends under it. A waiter that leaves notifies only a thread that sleeps long;
/// otherwise the thread checks soon. A thread that clears `sleeps_long` also wakes it.
fn run() {
    let mut watches = Watches::default();
    let mut is_alert = false;
    let mut guard = registry();
    loop {
        if guard.has_ended {
            drop(guard);
            watches.abandon();
            guard = registry();
        } else if guard.new_names >= MAX_NEW_NAMES {
            drop(guard);
            watches.renew();
            guard = registry();
        }
        let stale = std::mem::take(&mut guard.stale);
        let now = now();
        let mut unused = Vec::new();
        let mut is_lingering = false;
        for (path, directory) in watches.directories.iter_mut() {
            if guard.directories.get(path).is_some_and(WatchedDir::is_used) {
                directory.unused_since = None;
            } else {
                let since = *directory.unused_since.get_or_insert(now);
                is_lingering |= now.saturating_duration_since(since) < WATCHER_KEEPALIVE;
            }
            let is_over =
                directory.unused_since.is_some_and(|since| now - since >= WATCHER_KEEPALIVE);
            if is_over || stale.contains(path) {
                unused.push(Arc::clone(path));
            }
        }
        if !guard.has_users() && !is_lingering {
            guard.is_running = false;
            guard.directories = SortedMap::new();
            guard.next_watcher();
            drop(guard);
            watches.end();
            return;
        }
        let is_requested = |counter: &Arc<_>| EventCounter::watched(counter) == Watched::Requested;
        let requested: Vec<Arc<Path>> = guard
            .directories
            .iter()
            .filter(|(path, watched_dir)| {
                watched_dir.is_used()
                    && (stale.contains(path) || watched_dir.counters().any(is_requested))
            })
            .map(|(path, _)| Arc::clone(path))
            .collect();
        if !requested.is_empty() || !unused.is_empty() {
            drop(guard);
            for directory in unused {
                watches.unwatch(&directory);
            }
            for directory in requested {
                answer(&directory, watches.watch(&directory));
            }
            guard = registry();
            continue;
        }
        let is_short = is_lingering || is_alert;
        guard.sleeps_long = !is_short;
        let pause = if is_short { WATCHER_KEEPALIVE } else { FOREVER };
        (guard, _) = REGISTRY.wait(guard, pause);
        is_alert = !is_short && !guard.sleeps_long;
        guard.sleeps_long = false;
    }
}

/// Notifies all waiters of the directory.
fn answer(directory: &Arc<Path>, answer: Watched) {
    let registry = registry();
    let counters: Vec<_> = registry
        .directories
        .get(directory)
        .map(|watched_dir| watched_dir.counters().cloned().collect())
        .unwrap_or_default();
    drop(registry); // wakers are called without the mutex (Q6)
    for counter in counters {
        // A file may have been closed before the watch was active, and not be unlocked yet
        // (rule 8).
        counter.notify(true, Some(answer));
    }
}

/// Called by notify, on its own thread.
struct NotifyHandler {
    watcher: u64,
}

impl notify::EventHandler for NotifyHandler {
    fn handle_event(&mut self, event: notify::Result<notify::Event>) {
        handle(event);
    }
}

impl Drop for NotifyHandler {
    /// notify drops the handler when its thread ends, also by a panic, which it does not report
    /// (inotify.rs, `event_loop_thread`).
    fn drop(&mut self) {
        let mut registry = registry();
        if registry.watcher == self.watcher {
            registry.has_ended = true;
            registry.sleeps_long = false;
            drop(registry);
            REGISTRY.notify();
        }
    }
}

/// Notifies the waiters of the event's directory, or all waiters if that directory is unknown:
/// paths are canonical on macOS, have other separators on Windows, and are missing after an
/// overflow (`need_rescan`).
fn handle(event: notify::Result<notify::Event>) {
    // An overflow, or an error, may stand for any event.
    let event = event.ok().filter(|event| !event.need_rescan());
    let kind = event.as_ref().map(|event| event.kind);
    let (close, may_be_stale) = match kind {
        // No check depends on files being opened or read.
        Some(EventKind::Access(AccessKind::Close(AccessMode::Write))) => (true, false),
        Some(EventKind::Access(_)) => return,
        Some(
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)),
        ) => (false, true),
        Some(_) => (false, false),
        None => (true, true),
    };
    let paths = event.map(|event| event.paths).unwrap_or_default();
    let mut registry = registry();
    let mut is_known = false;
    let mut counters: Vec<_> = Vec::new();
    let mut stale: Vec<_> = Vec::new();
    for (directory, watched_dir) in registry.directories.iter() {
        let Some(event_path) = &watched_dir.event_path else { continue };
        let is_itself = paths.iter().any(|path| *path == **event_path);
        let is_within = paths.iter().any(|path| path.parent() == Some(event_path));
        is_known |= is_itself || is_within;
        if is_itself {
            counters.extend(watched_dir.counters().cloned());
        } else if is_within {
            let of_interest = |names: &Names| paths.iter().any(|path| concerns(names, path));
            counters.extend(watched_dir.counters_of(of_interest).cloned());
        }
        // Directories below it as well: notify 8.2 drops their watches when a watched directory is
        // moved or removed (inotify.rs, `remove_watch`), and they are not at their paths any more.
        if may_be_stale
            && (paths.is_empty() || paths.iter().any(|path| event_path.starts_with(path)))
        {
            stale.push(Arc::clone(directory));
        }
    }
    if !is_known {
        counters.extend(registry.directories.values().flat_map(WatchedDir::counters).cloned());
    }
    let has_stale = !stale.is_empty();
    registry.add_stale(stale);
    let leaks_descriptor = matches!(kind, Some(EventKind::Create(_)))
        && matches!(RecommendedWatcher::kind(), WatcherKind::Kqueue);
    registry.new_names += u32::from(leaks_descriptor);
    // A woken waiter may leave without notifying the thread, which checks for that in a while.
    let must_notify = !counters.is_empty() && std::mem::take(&mut registry.sleeps_long);
    let must_wake = must_notify || has_stale || registry.new_names >= MAX_NEW_NAMES;
    drop(registry);
    for counter in counters {
        counter.notify(close, None);
    }
    if must_wake {
        REGISTRY.notify();
    }
}

/// Whether an event of this path in the directory is of interest. Only inotify reports names byte
/// by byte as they were written.
fn concerns(names: &Names, path: &Path) -> bool {
    let (Some(names), Some(name)) = (names, path.file_name()) else { return true };
    !is_inotify() || names.iter().any(|wanted| wanted == name)
}

fn is_inotify() -> bool {
    matches!(RecommendedWatcher::kind(), WatcherKind::Inotify)
}

impl Watches {
    fn watch(&mut self, directory: &Arc<Path>) -> Watched {
        let id = sys::directory_identity(directory).ok();
        if let Some(known) = self.directories.get(directory).map(|directory| directory.id) {
            if id == Some(known) {
                return Watched::Yes(known); // it was kept, also while it had no waiter
            }
            // That watch is of a directory that had the path before. On Windows a directory is not
            // fully removed while it is watched.
            self.unwatch(directory);
        }
        let Some(id) = id else { return Watched::Missing };
        // inotify has one watch for a directory, whatever path leads there, and notify 8.2 one path
        // for a watch: the last that it was given. Unwatching the other path would end it
        // (inotify.rs, `paths`).
        let same = self.directories.values().find(|other| is_inotify() && other.id == id);
        if let Some(event_path) = same.map(|same| Arc::clone(&same.event_path)) {
            self.insert(directory, id, event_path);
            return Watched::Yes(id);
        }
        if self.watcher.is_none() {
            match watcher() {
                Ok(watcher) => self.watcher = watcher,
                Err(error) => trace::unwatched(directory, &error),
            }
        }
        let Some(watcher) = &mut self.watcher else { return Watched::No };
        // Set before the directory is watched: an event from then on may make the watch stale.
        set_event_path(directory, Some(Arc::clone(directory)));
        // notify 8.2 panics in `watch` if its thread has ended (inotify.rs, `watch_inner`).
        let answer = catch_unwind(AssertUnwindSafe(|| {
            watcher.watch(directory, RecursiveMode::NonRecursive)
        }));
        match answer {
            Ok(Ok(())) => {
                // If it was replaced since the first line, a waiter sees another id (E6).
                self.insert(directory, id, Arc::clone(directory));
                Watched::Yes(id)
            }
            Ok(Err(error)) => {
                set_event_path(directory, None);
                if !directory.is_dir() {
                    return Watched::Missing;
                }
                trace::unwatched(directory, &error);
                Watched::No
            }
            Err(_) => {
                self.abandon();
                Watched::No
            }
        }
    }

    fn insert(&mut self, directory: &Arc<Path>, id: DirectoryId, event_path: Arc<Path>) {
        set_event_path(directory, Some(Arc::clone(&event_path)));
        let known = Directory { id, event_path, unused_since: None };
        self.directories.insert(Arc::clone(directory), known);
    }

    fn unwatch(&mut self, directory: &Arc<Path>) {
        set_event_path(directory, None);
        let Some(known) = self.directories.remove(directory) else { return };
        if known.event_path != *directory {
            return; // notify reports its events under another path
        }
        // Directories whose events are reported under this path are watched under their own paths
        // then.
        let same = self.directories.iter().filter(|(_, other)| other.event_path == *directory);
        let same: Vec<_> = same.map(|(path, _)| Arc::clone(path)).collect();
        for path in &same {
            self.directories.remove(path);
            set_event_path(path, None);
        }
        registry().add_stale(same);
        let Some(watcher) = &mut self.watcher else { return };
        // An error means that the directory was no longer watched, because it is gone.
        if catch_unwind(AssertUnwindSafe(|| watcher.unwatch(directory))).is_err() {
            self.abandon();
        }
    }

    /// Starts again with another watcher.
    fn renew(&mut self) {
        let mut registry = registry();
        registry.next_watcher();
        registry.new_names = 0;
        registry.add_stale(self.directories.iter().map(|(path, _)| Arc::clone(path)));
        drop(registry);
        std::mem::take(self).end();
    }

    /// Leaks the watcher: its thread has ended, so its `drop` would panic. The waiters poll, and
    /// request a watch again after a while: the same cause may end the next watcher.
    fn abandon(&mut self) {
        let mut registry = registry();
        registry.next_watcher();
        registry.has_ended = false;
        drop(registry);
        std::mem::forget(self.watcher.take());
        for (directory, _) in std::mem::take(&mut self.directories).into_pairs() {
            set_event_path(&directory, None);
            answer(&directory, Watched::No);
        }
    }

    fn end(self) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.watcher)));
    }
}

/// Sets the path under which notify reports events of the directory.
fn set_event_path(directory: &Arc<Path>, event_path: Option<Arc<Path>>) {
    let mut registry = registry();
    let watched_dir = registry.directories.get_or_default(Arc::clone(directory));
    watched_dir.event_path = event_path;
    if watched_dir.event_path.is_none() && !watched_dir.is_used() {
        registry.directories.remove(directory);
    }
}

/// A watcher whose thread runs. notify 8.2 does not report if the thread did not start (`let _ =
/// spawn`, in each backend), and panics later. `configure` sends a message to that thread, and
/// fails without a panic.
fn watcher() -> notify::Result<Option<RecommendedWatcher>> {
    // If the system has no events (illumos), notify polls every 30 seconds. The waiters poll more
    // often.
    if matches!(RecommendedWatcher::kind(), WatcherKind::PollWatcher | WatcherKind::NullWatcher) {
        return Ok(None);
    }
    // The handler of a watcher that could not be created is not the handler of this one.
    let handler = NotifyHandler { watcher: registry().next_watcher() };
    let mut watcher = RecommendedWatcher::new(handler, Config::default())?;
    if watcher.configure(Config::default()).is_ok() {
        return Ok(Some(watcher));
    }
    std::mem::forget(watcher);
    Ok(None)
}
