//! `Cancel`: waits that end from outside, in every form, and what they leave behind.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use flockwork::{Cancel, Error, ErrorKind, Event, Lock, Options, RwLock, Semaphore, SharedFile};
use futures_lite::future::block_on;

use crate::support::{assert_waits, eventually};

const LONG: Duration = Duration::from_secs(10_000);

/// A wait that runs in a thread and returns its error.
type Wait = Box<dyn FnOnce(&Options, &Path) -> Result<(), Error> + Send>;

fn waits(kind: &str) -> Vec<(&'static str, Wait)> {
    fn wait(run: impl FnOnce(&Options, &Path) -> Result<(), Error> + Send + 'static) -> Wait {
        Box::new(run)
    }
    match kind {
        "lock" => vec![
            ("lock", wait(|options, path| options.open_lock(path)?.lock().map(drop))),
            (
                "timeout",
                wait(|options, path| options.open_lock(path)?.lock_timeout(LONG).map(drop)),
            ),
            (
                "async",
                wait(|options, path| block_on(options.open_lock(path)?.lock_async()).map(drop)),
            ),
        ],
        "rwlock" => vec![
            ("write", wait(|options, path| options.open_rwlock(path)?.write().map(drop))),
            ("read", wait(|options, path| options.open_rwlock(path)?.read().map(drop))),
            (
                "timeout",
                wait(|options, path| options.open_rwlock(path)?.read_timeout(LONG).map(drop)),
            ),
            (
                "async",
                wait(|options, path| block_on(options.open_rwlock(path)?.write_async()).map(drop)),
            ),
        ],
        "semaphore" => vec![
            ("acquire", wait(|options, path| options.open_semaphore(path, 2)?.acquire().map(drop))),
            (
                "many",
                wait(|options, path| options.open_semaphore(path, 2)?.acquire_many(2).map(drop)),
            ),
            (
                "timeout",
                wait(|options, path| {
                    options.open_semaphore(path, 2)?.acquire_timeout(LONG).map(drop)
                }),
            ),
            (
                "async",
                wait(|options, path| {
                    block_on(options.open_semaphore(path, 2)?.acquire_async()).map(drop)
                }),
            ),
        ],
        "event" => vec![
            ("wait", wait(|options, path| options.open_event(path)?.wait())),
            ("consume", wait(|options, path| options.open_event(path)?.consume().map(drop))),
            ("timeout", wait(|options, path| options.open_event(path)?.wait_timeout(LONG))),
            ("async", wait(|options, path| block_on(options.open_event(path)?.wait_async()))),
            (
                "any",
                wait(|options, path| {
                    let other = Event::open(path.with_extension("other"))?;
                    Event::wait_any([&options.open_event(path)?, &other]).map(drop)
                }),
            ),
        ],
        "file" => vec![
            (
                "update",
                wait(|options, path| {
                    options.open_shared_file(path)?.update(|_| Ok::<(), Error>(()))
                }),
            ),
            (
                "async",
                wait(|options, path| {
                    block_on(options.open_shared_file(path)?.lock_exclusive_async()).map(drop)
                }),
            ),
        ],
        _ => vec![
            (
                "call",
                wait(|options, path| {
                    options.open_once(path)?.call_once(|| Ok::<(), Error>(())).map(drop)
                }),
            ),
            ("wait", wait(|options, path| options.open_once(path)?.wait())),
        ],
    }
}

/// Something that makes each wait for that path wait.
fn obstruct(kind: &str, path: &Path) -> Box<dyn std::any::Any> {
    match kind {
        "lock" => Box::new(Lock::open(path).unwrap().lock().unwrap()),
        "rwlock" => Box::new(RwLock::open(path).unwrap().write().unwrap()),
        "semaphore" => Box::new(Semaphore::open(path, 2).unwrap().acquire_many(2).unwrap()),
        "file" => Box::new(SharedFile::open(path).unwrap().lock_exclusive().unwrap()),
        "once" => {
            let sidecar = path.with_file_name("p.flock");
            Box::new(Lock::open(sidecar).unwrap().lock().unwrap())
        }
        _ => Box::new(()),
    }
}

/// Starts the wait, with a callback that reports that it waits.
fn start(cancel: &Cancel, path: &Path, wait: Wait) -> (mpsc::Receiver<()>, JoinHandle<Error>) {
    let (report, waits) = mpsc::channel();
    let options = Options::new().cancel(cancel).on_wait(Duration::ZERO, Duration::MAX, move |_| {
        report.send(()).unwrap();
    });
    let path = path.to_path_buf();
    (waits, std::thread::spawn(move || wait(&options, &path).unwrap_err()))
}

#[test]
fn every_wait_ends_with_an_error_that_names_the_path() {
    limit!();
    for kind in ["lock", "rwlock", "semaphore", "event", "file", "once"] {
        for (form, wait) in waits(kind) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("p");
            let obstacle = obstruct(kind, &path);
            let cancel = Cancel::new();
            let (waiting, thread) = start(&cancel, &path, wait);
            waiting.recv().unwrap_or_else(|_| panic!("{kind}, {form}: it did not wait"));
            cancel.cancel();
            let error = thread.join().unwrap();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{kind}, {form}: {error}");
            assert!(error.is_cancelled() && error.waited().is_some());
            assert_eq!(error.path().file_name(), path.file_name(), "{kind}, {form}: {error}");
            assert!(error.to_string().contains("was cancelled after"), "{error}");
            drop(obstacle);
        }
    }
}

/// All waiters of one process have one token: those at the front, and those behind them.
#[test]
fn one_token_ends_a_whole_queue_and_leaves_nothing_behind() {
    limit!();
    for kind in ["lock", "rwlock", "semaphore"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        let obstacle = obstruct(kind, &path);
        let cancel = Cancel::new();
        let started: Vec<_> =
            waits(kind).into_iter().map(|(_, wait)| start(&cancel, &path, wait)).collect();
        for (waiting, _) in &started {
            waiting.recv().unwrap();
        }
        cancel.clone().cancel();
        for (_, thread) in started {
            assert!(thread.join().unwrap().is_cancelled(), "{kind}");
        }
        drop(obstacle);
        // A leftover would make one of these wait or fail.
        match kind {
            "lock" => drop(Lock::open(&path).unwrap().try_lock().unwrap()),
            "rwlock" => drop(RwLock::open(&path).unwrap().try_write().unwrap()),
            _ => drop(Semaphore::open(&path, 2).unwrap().try_acquire_many(2).unwrap()),
        }
    }
}

#[test]
fn a_cancelled_waiter_is_skipped_and_others_keep_their_places() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    let semaphore = Semaphore::open(&path, 1).unwrap();
    let held = semaphore.acquire().unwrap();
    let mut first = Box::pin(semaphore.acquire_async());
    assert_waits(&mut first);
    let cancel = Cancel::new();
    let wait: Wait = Box::new(|options, path| options.open_semaphore(path, 1)?.acquire().map(drop));
    let (waiting, thread) = start(&cancel, &path, wait);
    waiting.recv().unwrap();
    let mut last = Box::pin(semaphore.acquire_async());
    assert_waits(&mut last);
    cancel.cancel();
    assert!(thread.join().unwrap().is_cancelled());
    assert_waits(&mut first);
    assert_waits(&mut last);
    drop(held);
    let permit = block_on(first).unwrap();
    assert_waits(&mut last);
    drop(permit);
    drop(block_on(last).unwrap());
}

#[test]
fn later_waits_fail_immediately_and_tries_do_not() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let options = Options::new().cancel(&cancel);
    let lock = options.open_lock(dir.path().join("a.lock")).unwrap();
    let rwlock = options.open_rwlock(dir.path().join("b.lock")).unwrap();
    let semaphore = options.open_semaphore(dir.path().join("sem"), 1).unwrap();
    let event = options.open_event(dir.path().join("event")).unwrap();
    drop(lock.lock().unwrap());
    let held = lock.lock().unwrap();
    cancel.cancel();
    held.unlock().unwrap();
    assert!(lock.lock().unwrap_err().is_cancelled());
    assert!(lock.lock_timeout(Duration::ZERO).unwrap_err().is_cancelled());
    assert!(block_on(lock.lock_async()).unwrap_err().is_cancelled());
    assert!(rwlock.read().unwrap_err().is_cancelled());
    assert!(block_on(rwlock.write_async()).unwrap_err().is_cancelled());
    assert!(semaphore.acquire().unwrap_err().is_cancelled());
    event.set().unwrap();
    assert!(event.wait().unwrap_err().is_cancelled());
    drop(lock.try_lock().unwrap());
    drop(rwlock.try_write().unwrap());
    drop(semaphore.try_acquire().unwrap());
    assert!(event.is_set().unwrap());
    assert!(cancel.is_cancelled() && format!("{cancel:?}").contains("true"));
}

/// The token is cancelled while the lock is released: the waiter gets one of the two.
#[test]
fn a_cancellation_and_a_grant_exclude_each_other() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    let semaphore = Semaphore::open(&path, 1).unwrap();
    let rwlock = RwLock::open(path.with_extension("lock")).unwrap();
    let (mut granted, mut cancelled) = (0, 0);
    for round in 0..300 {
        let cancel = Cancel::new();
        let options = Options::new().cancel(&cancel);
        let held = (semaphore.acquire().unwrap(), rwlock.write().unwrap());
        let (path, lock) = (path.clone(), rwlock.path().to_path_buf());
        let thread = std::thread::spawn(move || {
            if round % 2 == 0 {
                options.open_semaphore(path, 1)?.acquire().map(drop)
            } else {
                options.open_rwlock(lock)?.write().map(drop)
            }
        });
        if round % 3 == 0 {
            drop(held);
            cancel.cancel();
        } else {
            cancel.cancel();
            drop(held);
        }
        match thread.join().unwrap() {
            Ok(()) => granted += 1,
            Err(error) => {
                assert!(error.is_cancelled(), "{error}");
                cancelled += 1;
            }
        }
    }
    assert!(cancelled > 0, "{granted} were granted");
    eventually("nothing is held", || semaphore.try_acquire().is_ok() && rwlock.try_write().is_ok());
}

/// A token that outlives many waits does not keep their wakers.
#[test]
fn waits_that_end_withdraw_from_the_token() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let options = Options::new().cancel(&cancel);
    let lock = options.open_lock(dir.path().join("a.lock")).unwrap();
    let held = lock.lock().unwrap();
    let probe = std::sync::Arc::new(());
    struct Probe(#[allow(dead_code, reason = "only counted")] std::sync::Arc<()>);
    impl std::task::Wake for Probe {
        fn wake(self: std::sync::Arc<Self>) {}
    }
    for _ in 0..100 {
        let waker = std::task::Waker::from(std::sync::Arc::new(Probe(probe.clone())));
        let mut future = Box::pin(lock.lock_async());
        let mut context = std::task::Context::from_waker(&waker);
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    eventually("all wakers are dropped", || std::sync::Arc::strong_count(&probe) == 1);
    drop(held);
}
