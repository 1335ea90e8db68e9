//! The feature `tracing`: waits that block are spans, and polling and dead holders are events.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flockwork::{Error, Event, Lock, Once, Options, RwLock, Semaphore, SharedFile};
use futures_lite::future::{block_on, poll_once};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use crate::peer::Way::Block;
use crate::peer::{Peer, label};
use crate::support::eventually;

/// Records the spans and events of flockwork, in the order in which they began.
#[derive(Clone, Default)]
struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    last: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    /// Zero for an event.
    id: u64,
    name: String,
    fields: Vec<(String, String)>,
    level: String,
    has_closed: bool,
    /// The span in which an event occurred. Zero: none.
    within: u64,
}

impl Seen {
    fn get(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    }
}

thread_local! {
    static ENTERED: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.fields.push((field.name().into(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name().into(), value.into()));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "flockwork"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let metadata = span.metadata();
        let level = metadata.level().to_string();
        let mut seen = Seen { id, name: metadata.name().into(), level, ..Seen::default() };
        span.record(&mut seen);
        self.seen.lock().unwrap().push(seen);
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut all = self.seen.lock().unwrap();
        let seen = all.iter_mut().find(|seen| seen.id == span.into_u64()).unwrap();
        values.record(seen);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let within = ENTERED.with_borrow(|entered| entered.last().copied().unwrap_or_default());
        let level = event.metadata().level().to_string();
        let mut seen = Seen { level, within, ..Seen::default() };
        event.record(&mut seen);
        seen.name = seen.get("message").unwrap_or_default().into();
        self.seen.lock().unwrap().push(seen);
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        assert_eq!(ENTERED.with_borrow_mut(Vec::pop), Some(span.into_u64()));
    }

    fn try_close(&self, span: Id) -> bool {
        let mut all = self.seen.lock().unwrap();
        all.iter_mut().find(|seen| seen.id == span.into_u64()).unwrap().has_closed = true;
        true
    }
}

impl Recorder {
    /// Returns everything that this thread reports during `call`.
    fn during<T>(call: impl FnOnce() -> T) -> (T, Vec<Seen>) {
        let recorder = Self::default();
        let result = tracing::subscriber::with_default(recorder.clone(), call);
        (result, recorder.seen())
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Checks that exactly one wait was reported, with this outcome, and returns its events.
#[track_caller]
fn assert_waited(seen: Vec<Seen>, path: &Path, outcome: &str) -> Vec<Seen> {
    let (spans, events): (Vec<_>, Vec<_>) = seen.into_iter().partition(|seen| seen.id != 0);
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&*span.name, &*span.level), ("wait", "DEBUG"));
    assert_eq!(span.get("path"), Some(&*path.display().to_string()));
    assert_eq!(span.get("outcome"), Some(outcome), "{span:?}");
    assert!(span.has_closed, "{span:?}");
    assert!(events.iter().all(|event| event.within == span.id), "{events:?}");
    events
}

/// Returns what a wait that times out reports. On a slow machine its time may be over before it
/// begins: then it is no span, and is repeated.
#[track_caller]
fn timed_out(wait: impl Fn() -> Result<(), Error>) -> Vec<Seen> {
    loop {
        let (outcome, seen) = Recorder::during(&wait);
        assert!(outcome.unwrap_err().is_timed_out());
        if !seen.is_empty() {
            return seen;
        }
    }
}

#[test]
fn each_wait_that_blocks_is_a_span() {
    limit!();
    // A wait of another test in this process would make calls join a queue that need not wait.
    crate::support::alone("tracing::each_wait_that_blocks_is_a_span", || {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let short = Duration::from_millis(20);
        let lock = Lock::open(at("lock")).unwrap();
        let rwlock = RwLock::open(at("rwlock")).unwrap();
        let semaphore = Semaphore::open(at("semaphore"), 1).unwrap();
        let event = Event::open(at("event")).unwrap();
        let once = Once::open(at("once")).unwrap();
        let file = SharedFile::open(at("file")).unwrap();
        file.write("").unwrap();

        // Without a wait there is no span, also with a deadline that has passed.
        let (held, seen) = Recorder::during(|| {
            drop(lock.lock_timeout(Duration::ZERO).unwrap());
            let held =
                (lock.lock().unwrap(), rwlock.write().unwrap(), semaphore.acquire().unwrap());
            block_on(async { once.call_once_async(|| async { Ok::<_, Error>(()) }).await })
                .unwrap();
            assert!(lock.try_lock().unwrap_err().is_would_block());
            assert!(lock.lock_timeout(Duration::ZERO).unwrap_err().is_timed_out());
            assert!(event.wait_timeout(Duration::ZERO).unwrap_err().is_timed_out());
            (held, file.lock_exclusive().unwrap())
        });
        assert!(seen.is_empty(), "{seen:?}");
        once.reset().unwrap();

        let running = std::sync::Barrier::new(2);
        let ended = std::sync::Barrier::new(2);
        crate::support::running::scope(|scope| {
            scope.spawn(|| {
                once.call_once(|| {
                    running.wait();
                    ended.wait();
                    Ok::<_, Error>(())
                })
            });
            running.wait();
            type Wait<'a> = (&'a dyn Fn() -> Result<(), Error>, &'a Path);
            let (event_path, once_path) = (at("event"), at("once"));
            let waits: &[Wait<'_>] = &[
                (&|| lock.lock_timeout(short).map(drop), lock.path()),
                (&|| rwlock.read_timeout(short).map(drop), rwlock.path()),
                (&|| rwlock.write_timeout(short).map(drop), rwlock.path()),
                (&|| semaphore.acquire_timeout(short).map(drop), semaphore.path()),
                (&|| event.wait_timeout(short), &event_path),
                (&|| event.wait_payload_timeout(short).map(drop), &event_path),
                (&|| once.wait_timeout(short), &once_path),
                // The lock file is beside the path.
                (&|| once.call_once_timeout(short, || Ok::<_, Error>(())).map(drop), &once_path),
                (&|| file.lock_shared_timeout(short).map(drop), file.path()),
            ];
            for (wait, path) in waits {
                assert_waited(timed_out(wait), path, "timed out");
            }
            ended.wait();
        });

        let ((), seen) = Recorder::during(|| {
            let waiting = lock.lock_async();
            assert!(block_on(poll_once(waiting)).is_none());
        });
        assert_waited(seen, lock.path(), "given up");

        std::fs::remove_dir_all(dir.path().join("semaphore")).ok();
        drop(held);
    });
}

#[test]
fn a_wait_that_acquires_is_a_span_that_ends_then() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = RwLock::open(&path).unwrap();
    let plain = Lock::open(dir.path().join("b.lock")).unwrap();
    for way in 0..4 {
        let recorder = Recorder::default();
        let (other, held) = (lock.write().unwrap(), plain.lock().unwrap());
        crate::support::running::scope(|scope| {
            let (lock, plain, recorder) = (&lock, &plain, &recorder);
            let waiter = scope.spawn(move || {
                tracing::subscriber::with_default(recorder.clone(), || match way {
                    0 => drop(lock.write().unwrap()),
                    1 => drop(block_on(lock.read_async()).unwrap()),
                    2 => drop(plain.lock().unwrap()),
                    _ => drop(plain.lock_timeout(Duration::from_secs(100)).unwrap()),
                });
            });
            eventually("a wait has begun", || !recorder.seen().is_empty());
            drop((other, held));
            waiter.join().unwrap();
            let seen = recorder.seen();
            let path = if way < 2 { lock.path() } else { plain.path() };
            assert!(assert_waited(seen, path, "succeeded").is_empty());
        });
    }
}

#[test]
fn a_wait_that_polls_reports_why_once() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().poll_interval(Duration::from_millis(1));
    let lock = options.open_lock(dir.path().join("lock")).unwrap();
    let semaphore = options.open_semaphore(dir.path().join("semaphore"), 1).unwrap();
    let event = options.open_event(dir.path().join("event")).unwrap();
    let _held = (lock.lock().unwrap(), semaphore.acquire().unwrap());
    let short = Duration::from_millis(30);
    for (wait, path) in [
        (
            &(|| lock.lock_timeout(short).map(drop)) as &dyn Fn() -> Result<(), Error>,
            lock.path().to_path_buf(),
        ),
        (&|| semaphore.acquire_timeout(short).map(drop), semaphore.path().to_path_buf()),
        (&|| event.wait_timeout(short), dir.path().join("event")),
    ] {
        let events = assert_waited(timed_out(wait), &path, "timed out");
        assert_polls(&events, "an interval is set with `Options::poll_interval`");
    }
    // Also in the first poll of a future.
    let (pending, seen) = Recorder::during(|| block_on(poll_once(event.wait_async())));
    assert!(pending.is_none());
    let events = assert_waited(seen, &dir.path().join("event"), "given up");
    assert_polls(&events, "an interval is set with `Options::poll_interval`");
}

#[track_caller]
fn assert_polls(events: &[Seen], reason: &str) {
    let [event] = events else { panic!("{events:?}") };
    assert_eq!((&*event.name, &*event.level), ("polls instead of being notified", "DEBUG"));
    assert_eq!(event.get("reason"), Some(reason));
}

// Linux only: the process may have no inotify instance.
#[cfg(all(target_os = "linux", feature = "watch"))]
#[test]
fn a_directory_that_cannot_be_watched_is_reported() {
    limit!();
    const USER: &[&str] = &["--user", "--map-root-user", "sh", "-c"];
    const WITHOUT: &str = "echo 0 > /proc/sys/user/max_inotify_instances";
    if !crate::support::has("unshare", &[USER, &[WITHOUT]].concat()) {
        return;
    }
    let mut command = std::process::Command::new("unshare");
    command.args(USER).arg(format!("{WITHOUT} && exec \"$@\"")).arg("sh");
    command.arg(std::env::current_exe().unwrap());
    crate::support::alone_under(
        command,
        "tracing::a_directory_that_cannot_be_watched_is_reported",
        || {
            let dir = tempfile::tempdir().unwrap();
            let event = Event::open(dir.path().join("event")).unwrap();
            // Another thread reports the reason, so the recorder is that of the whole process.
            let recorder = Recorder::default();
            tracing::subscriber::set_global_default(recorder.clone()).unwrap();
            crate::support::running::scope(|scope| {
                let _wake = crate::support::running::on_panic(|| drop(event.set()));
                let waiter = scope.spawn(|| event.wait());
                eventually("both are reported", || {
                    let seen = recorder.seen();
                    let has = |field| seen.iter().any(|seen| seen.get(field).is_some());
                    has("directory") && has("reason")
                });
                event.set().unwrap();
                waiter.join().unwrap().unwrap();
            });
            let (watch, wait): (Vec<_>, Vec<_>) =
                recorder.seen().into_iter().partition(|seen| seen.get("directory").is_some());
            let events = assert_waited(wait, &dir.path().join("event"), "succeeded");
            assert_polls(&events, "the directory cannot be watched");
            assert_eq!(watch[0].name, "cannot watch the directory");
            assert_eq!(watch[0].get("directory"), Some(&*dir.path().display().to_string()));
            assert!(watch[0].get("error").is_some_and(|error| !error.is_empty()));
        },
    );
}

#[test]
fn a_dead_holder_is_reported_once() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let options = Options::new().label("next");
    let lock = options.open_lock(at("lock")).unwrap();
    let semaphore = options.open_semaphore(at("semaphore"), 1).unwrap();
    let event = Event::open(at("event")).unwrap();

    let mut peer = Peer::start();
    peer.open_lock(&at("lock"), &[label("dead")]);
    peer.run(crate::peer::lock::Call::Acquire(Block));
    let mut holder = crate::peer::semaphore::peer(&at("semaphore"), 1, &[label("dead")]);
    holder.run(crate::peer::semaphore::Call::Acquire(1, Block));
    let mut announcer = crate::peer::event::peer(&at("event"), &[]);
    announcer.run(crate::peer::event::Call::Announce("dead".into()));
    peer.kill();
    holder.kill();
    announcer.kill();

    let acquire: [(&dyn Fn(), _); 3] = [
        (&|| drop(lock.lock().unwrap()), lock.path()),
        (&|| drop(semaphore.acquire().unwrap()), semaphore.path()),
        (&|| assert!(event.set_new("next").is_ok()), event.path()),
    ];
    for (acquire, path) in acquire {
        let ((), seen) = Recorder::during(acquire);
        let events: Vec<_> = seen.into_iter().filter(|seen| seen.id == 0).collect();
        let [found] = &events[..] else { panic!("{events:?}") };
        assert_eq!((&*found.name, &*found.level), ("found a dead holder", "WARN"));
        assert_eq!(found.get("path"), Some(&*path.display().to_string()));
        let ((), seen) = Recorder::during(acquire);
        assert!(seen.is_empty(), "{seen:?}");
    }
}
