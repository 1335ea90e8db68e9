//! The events of directories: the one file that names notify. One watcher for the process, made when
//! somebody waits and gone soon after, directories counted by who waits.
//!
//! Nothing depends on notify for correctness. An event is a hint to look (rules S7 and E1), a lost one costs a
//! backstop, and where no watch can be had the waiters poll. Its calls are made by a thread of this
//! module and never by a waiter, so that one that hangs (notify#942) delays nobody.

#![expect(clippy::disallowed_methods, reason = "starts the thread that talks to notify")]

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _, WatcherKind};

use super::super::deadline::now;
use super::registry::{
    EventCounter, Names, REGISTRY, Subscription, WatchRegistry, WatchTarget, Watched, WatchedDir,
    registry,
};
use crate::sys::{self, DirectoryId};

/// How long a watch, and the watcher, is kept when nobody waits: who was woken is not held up by its end, and who
/// comes back finds it. Not longer, since on Linux a user has only 128 instances (inotify(7),
/// `max_user_instances`), over all processes.
const WATCHER_KEEPALIVE: Duration = Duration::from_millis(20);
/// Until something changes; a condition can be waited for so long on any platform.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// How long to wait for the answer whether a directory can be watched.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// So many new names and a watcher by kqueue is made anew. notify 8.2 opens each file that comes to a watched
/// directory, and does not close it when it goes (kqueue.rs, `handle_kqueue` and `remove_watch`; notify#644).
const MAX_NEW_NAMES: u32 = 64;

/// Whether the thread runs; starts it where it does not.
pub(super) fn is_running(registry: &mut WatchRegistry) -> bool {
    if !registry.is_running {
        let thread = std::thread::Builder::new().name("flockwork-watch".into());
        registry.is_running = thread.spawn(run).is_ok();
    }
    registry.is_running
}

/// Whether the events of this directory, or of the nearest above it that exists, can be had. Asks, and waits for
/// the answer.
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
    directories: BTreeMap<Arc<Path>, Directory>,
}

struct Directory {
    /// What the path led to when it was watched: a watch stays with what was moved away.
    id: DirectoryId,
    /// The path that notify was given: another one that leads to the same directory, where that was watched
    /// already.
    event_path: Arc<Path>,
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
        let doubted = std::mem::take(&mut guard.doubted);
        let now = now();
        let mut unwanted = Vec::new();
        let mut is_lingering = false;
        for (path, directory) in &mut watches.directories {
            if guard.directories.get(path).is_some_and(WatchedDir::is_used) {
                directory.unused_since = None;
            } else {
                let since = *directory.unused_since.get_or_insert(now);
                is_lingering |= now.saturating_duration_since(since) < WATCHER_KEEPALIVE;
            }
            let is_over =
                directory.unused_since.is_some_and(|since| now - since >= WATCHER_KEEPALIVE);
            if is_over || doubted.contains(path) {
                unwanted.push(Arc::clone(path));
            }
        }
        if !guard.has_users() && !is_lingering {
            guard.is_running = false;
            guard.directories.clear();
            guard.next_watcher();
            drop(guard);
            watches.end();
            return;
        }
        let is_asked = |counter: &Arc<_>| EventCounter::watched(counter) == Watched::Asked;
        let asked: BTreeSet<Arc<Path>> = guard
            .directories
            .iter()
            .filter(|(path, watched_dir)| {
                watched_dir.is_used()
                    && (doubted.contains(*path) || watched_dir.counters().any(is_asked))
            })
            .map(|(path, _)| Arc::clone(path))
            .collect();
        if !asked.is_empty() || !unwanted.is_empty() {
            drop(guard);
            for directory in unwanted {
                watches.unwatch(&directory);
            }
            for directory in asked {
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

/// Rings all who listen there.
fn answer(directory: &Arc<Path>, answer: Watched) {
    let registry = registry();
    let counters: Vec<_> = registry
        .directories
        .get(directory)
        .map(|watched_dir| watched_dir.counters().cloned().collect())
        .unwrap_or_default();
    drop(registry); // Q6
    for counter in counters {
        // A file may have been closed before, and not be unlocked yet (rule 8).
        counter.notify(true, Some(answer));
    }
}

/// What notify calls, on its own thread.
struct NotifyHandler {
    watcher: u64,
}

impl notify::EventHandler for NotifyHandler {
    fn handle_event(&mut self, event: notify::Result<notify::Event>) {
        handle(event);
    }
}

impl Drop for NotifyHandler {
    /// notify drops it where its thread ends: also by a panic of its own (inotify.rs, `event_loop_thread`), which
    /// it tells nobody.
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

/// Who listens at the directory of the event's path looks; or everybody, where that is none we
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
    let mut registry = registry();
    let mut is_known = false;
    let mut meant: Vec<_> = Vec::new();
    let mut doubted: Vec<_> = Vec::new();
    for (directory, watched_dir) in &registry.directories {
        let Some(event_path) = &watched_dir.event_path else { continue };
        let is_itself = paths.iter().any(|path| *path == **event_path);
        let is_within = paths.iter().any(|path| path.parent() == Some(event_path));
        is_known |= is_itself || is_within;
        if is_itself {
            meant.extend(watched_dir.counters().cloned());
        } else if is_within {
            let of_interest = |names: &Names| paths.iter().any(|path| concerns(names, path));
            meant.extend(watched_dir.counters_of(of_interest).cloned());
        }
        // With what lies below: notify 8.2 drops the watches of all that when a watched directory is moved or
        // removed (inotify.rs, `remove_watch`), and it is not where it was.
        if doubt && (paths.is_empty() || paths.iter().any(|path| event_path.starts_with(path))) {
            doubted.push(Arc::clone(directory));
        }
    }
    if !is_known {
        meant.extend(registry.directories.values().flat_map(WatchedDir::counters).cloned());
    }
    let has_doubts = !doubted.is_empty();
    registry.doubted.extend(doubted);
    let is_stray = matches!(kind, Some(EventKind::Create(_)))
        && matches!(RecommendedWatcher::kind(), WatcherKind::Kqueue);
    registry.new_names += u32::from(is_stray);
    // Who is woken may go, and need not stop to say so: the thread looks for that in a while.
    let is_to_be_told = !meant.is_empty() && std::mem::take(&mut registry.sleeps_long);
    let is_due = is_to_be_told || has_doubts || registry.new_names >= MAX_NEW_NAMES;
    drop(registry);
    for counter in meant {
        counter.notify(close, None);
    }
    if is_due {
        REGISTRY.notify();
    }
}

/// Whether an event of this path in the directory is of interest. Only inotify gives back names as they were
/// written, byte for byte.
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
                return Watched::Yes(known); // it is heard of since then, also while nobody listened
            }
            // Of what had the path before. On Windows that is not quite gone as long as it is watched.
            self.unwatch(directory);
        }
        let Some(id) = id else { return Watched::Missing };
        // inotify has one watch for a directory, whatever path leads there, and notify 8.2 one path for a
        // watch: the last that it was given. With the other one it would end (inotify.rs, `paths`).
        let twin = self.directories.values().find(|other| is_inotify() && other.id == id);
        if let Some(event_path) = twin.map(|twin| Arc::clone(&twin.event_path)) {
            self.note(directory, id, event_path);
            return Watched::Yes(id);
        }
        if self.watcher.is_none() {
            self.watcher = watcher();
        }
        let Some(watcher) = &mut self.watcher else { return Watched::No };
        // Before it is watched: what is heard of it from then on may make it doubtful.
        set_heard_as(directory, Some(Arc::clone(directory)));
        // notify 8.2 panics in `watch` where its thread has ended (inotify.rs, `watch_inner`).
        let answer = catch_unwind(AssertUnwindSafe(|| {
            watcher.watch(directory, RecursiveMode::NonRecursive)
        }));
        match answer {
            Ok(Ok(())) => {
                // Should it have been replaced since the first line, who waits sees another id (E6).
                self.note(directory, id, Arc::clone(directory));
                Watched::Yes(id)
            }
            Ok(Err(_)) => {
                set_heard_as(directory, None);
                if directory.is_dir() { Watched::No } else { Watched::Missing }
            }
            Err(_) => {
                self.abandon();
                Watched::No
            }
        }
    }

    fn note(&mut self, directory: &Arc<Path>, id: DirectoryId, event_path: Arc<Path>) {
        set_heard_as(directory, Some(Arc::clone(&event_path)));
        let known = Directory { id, event_path, unused_since: None };
        self.directories.insert(Arc::clone(directory), known);
    }

    fn unwatch(&mut self, directory: &Arc<Path>) {
        set_heard_as(directory, None);
        let Some(known) = self.directories.remove(directory) else { return };
        if known.event_path != *directory {
            return; // it was heard of by another path
        }
        // Whoever was heard of by this one is watched by its own.
        let twins = self.directories.iter().filter(|(_, other)| other.event_path == *directory);
        let twins: Vec<_> = twins.map(|(path, _)| Arc::clone(path)).collect();
        for twin in &twins {
            self.directories.remove(twin);
            set_heard_as(twin, None);
        }
        registry().doubted.extend(twins);
        let Some(watcher) = &mut self.watcher else { return };
        // An error says that it was not watched any more: the directory is gone.
        if catch_unwind(AssertUnwindSafe(|| watcher.unwatch(directory))).is_err() {
            self.abandon();
        }
    }

    /// Begins again with another watcher.
    fn renew(&mut self) {
        let mut registry = registry();
        registry.next_watcher();
        registry.new_names = 0;
        registry.doubted.extend(self.directories.keys().cloned());
        drop(registry);
        std::mem::take(self).end();
    }

    /// Its thread has ended, and its `drop` panics for that. Who listened polls, and asks again after a while: what
    /// ended it may end the next one too.
    fn abandon(&mut self) {
        let mut registry = registry();
        registry.next_watcher();
        registry.has_ended = false;
        drop(registry);
        std::mem::forget(self.watcher.take());
        for directory in std::mem::take(&mut self.directories).into_keys() {
            set_heard_as(&directory, None);
            answer(&directory, Watched::No);
        }
    }

    fn end(self) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.watcher)));
    }
}

/// The path with which events of that directory come.
fn set_heard_as(directory: &Arc<Path>, event_path: Option<Arc<Path>>) {
    let mut registry = registry();
    let watched_dir = registry.directories.entry(Arc::clone(directory)).or_default();
    watched_dir.event_path = event_path;
    if watched_dir.event_path.is_none() && !watched_dir.is_used() {
        registry.directories.remove(directory);
    }
}

/// A watcher whose thread runs. notify 8.2 does not say where that could not be started (`let _ = spawn`, in
/// each backend), and panics later: a message that is answered by it, and fails without a panic, tells.
fn watcher() -> Option<RecommendedWatcher> {
    // Where the system has no events (illumos) notify looks every 30 seconds. We look more often ourselves.
    if matches!(RecommendedWatcher::kind(), WatcherKind::PollWatcher | WatcherKind::NullWatcher) {
        return None;
    }
    // The handler of a watcher that could not be created is not the handler of this one.
    let ears = NotifyHandler { watcher: registry().next_watcher() };
    let mut watcher = RecommendedWatcher::new(ears, Config::default()).ok()?;
    if watcher.configure(Config::default()).is_ok() {
        return Some(watcher);
    }
    std::mem::forget(watcher);
    None
}
