//! `Once` between processes and threads: exactly one caller completes the work, whichever callers
//! fail or die.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flockwork::{Error, ErrorKind, Once, Options};
use futures_lite::future::block_on;

use crate::peer::Way::{Async, Block, Deadline, Timeout, Try};
use crate::peer::once::{Call, Work, peer};
use crate::peer::{Peer, Way, label};
use crate::support::failure::Failure;
use crate::support::{eventually, until_blocked, until_watching};

fn lines(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

fn files() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (path, log) = (dir.path().join("built"), dir.path().join("log"));
    (dir, path, log)
}

fn call(log: &Path, work: Work, way: Way) -> Call {
    Call::Run(log.into(), work, way)
}

#[test]
fn exactly_one_of_many_concurrent_processes_does_the_work() {
    limit!();
    let (_dir, path, log) = files();
    let mut peers: Vec<Peer> = (0..8).map(|_| peer(&path, &[])).collect();
    for (peer, way) in peers.iter_mut().zip(Way::WAITING.iter().cycle()) {
        peer.begin(call(&log, Work::Slow, *way));
    }
    let answers: Vec<String> = peers.iter_mut().map(Peer::finish).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "true").count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| *answer == "false").count(), 7, "{answers:?}");
    assert_eq!(lines(&log), 1);
    assert!(Once::open(&path).unwrap().is_done().unwrap());
    peers[0].expect(call(&log, Work::Succeed, Block), false);
}

#[test]
fn one_of_many_threads_does_the_work_and_the_others_wait() {
    limit!();
    let (_dir, path, _log) = files();
    let once = Once::open(&path).unwrap();
    let counts = || Arc::new(AtomicU32::new(0));
    let (runs, finished) = (counts(), counts());
    crate::support::running::scope(|scope| {
        for thread in 0..12 {
            let (once, runs, finished) = (&once, Arc::clone(&runs), Arc::clone(&finished));
            scope.spawn(move || {
                let is_finished = Arc::clone(&finished);
                let work = move || -> std::io::Result<()> {
                    runs.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(20));
                    is_finished.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                };
                match thread % 3 {
                    0 => once.call_once(work),
                    1 => once.call_once_timeout(Duration::from_secs(100), work),
                    _ => block_on(once.call_once_async(|| async move { work() })),
                }
                .unwrap();
                assert_eq!(finished.load(Ordering::SeqCst), 1);
            });
        }
    });
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn failed_panicked_or_killed_work_is_done_by_the_next_caller() {
    limit!();
    for way in Way::WAITING {
        for work in [Work::Fail, Work::Panic, Work::Hang] {
            let (_dir, path, log) = files();
            let mut first = peer(&path, &[]);
            first.begin(call(&log, work, way));
            match work {
                Work::Hang => {
                    assert_eq!(first.finish(), "in the middle");
                    first.kill();
                }
                Work::Panic => assert_eq!(first.answer(), Err("panicked".into())),
                _ => assert_eq!(first.answer(), Err("closure: it failed".into())),
            }
            let mut second = peer(&path, &[]);
            second.expect(Call::IsDone, false);
            assert!(!path.exists());
            second.expect(call(&log, Work::Succeed, way), true);
            second.expect(Call::IsDone, true);
            assert_eq!(lines(&log), 1);
        }
    }
}

#[test]
fn a_waiter_behind_a_killed_caller_does_the_work() {
    limit!();
    for way in Way::WAITING {
        let (dir, path, log) = files();
        let (mut first, mut second) = (peer(&path, &[]), peer(&path, &[]));
        let mut watcher = peer(&path, &[]);
        first.begin(call(&log, Work::Hang, Block));
        assert_eq!(first.finish(), "in the middle");
        second.begin(call(&log, Work::Succeed, way));
        until_blocked(&dir.path().join("built.flock"), 1);
        watcher.begin(Call::Wait(way));
        assert!(second.is_silent() && watcher.is_silent());
        first.kill();
        assert_eq!(second.finish(), "true");
        watcher.finish();
    }
}

#[test]
fn a_try_that_would_block_reports_the_holder() {
    limit!();
    let (_dir, path, log) = files();
    let mut busy = peer(&path, &[label("unpacking")]);
    busy.begin(call(&log, Work::Hang, Block));
    assert_eq!(busy.finish(), "in the middle");
    let mut other = peer(&path, &[]);
    for (way, complaint) in
        [(Try, "would-block"), (Timeout(0), "timed-out"), (Deadline(20), "timed-out")]
    {
        let answer = other.expect_error(call(&log, Work::Succeed, way));
        assert!(answer.starts_with(complaint), "{answer}");
        assert!(answer.contains("\"unpacking\"") && answer.contains("built`"), "{answer}");
    }
    assert!(other.run(Call::Holder).contains("\"unpacking\""));
    other.expect_timed_out(Call::Reset(Timeout(0)));
    other.expect_timed_out(Call::Reset(Timeout(10)));
    for way in [Timeout(0), Deadline(20)] {
        let answer = other.expect_error(Call::Wait(way));
        assert!(answer.starts_with("timed-out") && answer.contains("being run by"), "{answer}");
        assert!(answer.contains("\"unpacking\""), "{answer}");
    }
    busy.kill();
    // A helper of the waits that have timed out may still acquire the lock, and then releases it.
    eventually("nothing is held", || other.run(Call::Holder) == "none");
    other.expect(call(&log, Work::Succeed, Block), true);
    other.run(Call::Wait(Timeout(0)));
    other.expect(call(&log, Work::Succeed, Try), false);
}

#[test]
fn every_form_passes_the_path_and_the_holder_to_the_callback() {
    limit!();
    use std::sync::Mutex;
    let (_dir, path, log) = files();
    let mut busy = peer(&path, &[label("unpacking")]);
    busy.begin(call(&log, Work::Hang, Block));
    assert_eq!(busy.finish(), "in the middle");
    let reported = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&reported);
    let once = Options::new()
        .on_wait(Duration::from_millis(5), Duration::from_millis(5), move |waiting| {
            record.lock().unwrap().push(waiting.to_string());
        })
        .open_once(&path)
        .unwrap();
    let timeout = Duration::from_millis(50);
    let begin = format!("waiting for `{}`", path.display());
    let check = |error: &Error| {
        assert_eq!(error.path(), path);
        assert_eq!(error.holders()[0].label(), Some("unpacking"));
        assert!(error.waited().is_some_and(|waited| waited >= timeout), "{error}");
        let reported = std::mem::take(&mut *reported.lock().unwrap());
        for line in &reported {
            assert!(line.starts_with(&begin) && line.contains("\"unpacking\""), "{line}");
        }
        !reported.is_empty()
    };
    // On a busy machine the timeout may pass before this thread runs again.
    eventually("the callback of a caller is called", || {
        check(&once.call_once_timeout(timeout, || Ok::<(), Error>(())).unwrap_err())
    });
    eventually("the callback of a waiter is called", || {
        check(&once.wait_timeout(timeout).unwrap_err())
    });
    eventually("the callback of a reset is called", || {
        check(&once.reset_timeout(timeout).unwrap_err())
    });
    busy.kill();
}

#[test]
fn wait_returns_when_another_process_has_done_the_work() {
    limit!();
    for way in Way::WAITING {
        let (dir, path, log) = files();
        let mut waiter = peer(&path, crate::peer::LATE_BACKSTOP);
        waiter.begin(Call::Wait(way));
        until_watching(waiter.id(), dir.path());
        assert!(waiter.is_silent());
        peer(&path, &[]).expect(call(&log, Work::Succeed, Block), true);
        waiter.finish();
        waiter.run(Call::Wait(way));
    }
}

#[test]
fn a_reset_waits_for_the_running_call_and_undoes_its_work() {
    limit!();
    for way in [Block, Timeout(100_000), Async] {
        let (dir, path, log) = files();
        let once = Once::open(&path).unwrap();
        let mut other = peer(&path, &[]);
        other.expect(Call::Reset(Block), false);
        let reset = once.call_once(|| -> Result<(), std::io::Error> {
            other.begin(Call::Reset(way));
            until_blocked(&dir.path().join("built.flock"), 1);
            assert!(other.is_silent());
            Ok(())
        });
        assert!(reset.unwrap());
        assert_eq!(other.finish(), "true");
        assert!(!once.is_done().unwrap());
        other.expect(call(&log, Work::Succeed, Block), true);
        assert!(once.reset().unwrap());
    }
}

#[test]
fn the_marker_file_alone_decides_whether_the_work_is_done() {
    limit!();
    let (dir, path, _log) = files();
    let once = Once::open(&path).unwrap();
    std::fs::write(&path, "by hand").unwrap();
    assert!(once.is_done().unwrap());
    assert!(!once.call_once(|| Err::<(), _>(Failure::Closure("must not run"))).unwrap());
    assert!(!dir.path().join("built.flock").exists(), "a call needs no lock if the work is done");
    std::fs::remove_file(&path).unwrap();
    assert!(once.call_once(|| Ok::<(), Error>(())).unwrap());
    once.reset().unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(once.is_done().unwrap_err().kind(), ErrorKind::NotRegularFile);
    let error = once.call_once(|| Ok::<(), Error>(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile);
    assert!(path.is_dir());
}

#[test]
fn only_a_call_and_a_reset_create_directories() {
    limit!();
    let (dir, ..) = files();
    let short = std::time::Duration::from_millis(10);
    let once = Once::open(dir.path().join("out/er/done")).unwrap();
    assert!(!once.is_done().unwrap());
    assert!(once.holders().unwrap().is_empty());
    assert!(once.wait_timeout(short).unwrap_err().is_timed_out());
    assert!(block_on(futures_lite::future::poll_once(once.wait_async())).is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(once.call_once(|| Ok::<(), Error>(())).unwrap());
    assert!(once.reset().unwrap());
}

fn is_send<T: Send>(_: T) {}
fn is<T: Send + Sync + 'static>() {}

#[test]
fn a_dropped_future_leaves_the_work_to_the_next_one() {
    limit!();
    let (_dir, path, _log) = files();
    let once = Once::open(&path).unwrap();
    let forever = once.call_once_async(std::future::pending::<Result<(), Error>>);
    assert!(block_on(futures_lite::future::poll_once(Box::pin(forever))).is_none());
    assert!(once.try_call_once(|| Ok::<(), Error>(())).unwrap());

    is_send(once.call_once_async(|| async { Ok::<(), Error>(()) }));
    is_send(once.reset_async());
    is::<Once>();
}

#[test]
fn the_error_of_the_closure_is_returned_unchanged() {
    limit!();
    let (_dir, path, _log) = files();
    let once = Options::new().fsync(true).open_once(&path).unwrap();
    let error = once.call_once(|| Err::<(), _>(Failure::Closure(42))).unwrap_err();
    assert!(matches!(error, Failure::Closure(42)), "{error:?}");
    let error = once.call_once(|| std::fs::read(&path).map(drop)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let failed = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    let error = once.call_once(|| Err::<(), _>(failed)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let boxed = |fails: bool| -> Result<bool, Box<dyn std::error::Error>> {
        let work = || if fails { Err("no".into()) } else { Ok(()) };
        once.call_once(work)
    };
    assert_eq!(boxed(true).unwrap_err().to_string(), "no");
    assert!(boxed(false).unwrap());
    assert!(once.reset().unwrap());
}

/// Threads of many processes call repeatedly; the work is done exactly once for each reset.
#[test]
fn it_is_done_exactly_once_after_each_reset() {
    limit!();
    let (_dir, path, log) = files();
    let mut peers: Vec<Peer> = (0..4).map(|_| peer(&path, &[])).collect();
    let once = Once::open(&path).unwrap();
    for round in 1..=20 {
        for peer in &mut peers {
            peer.begin(call(&log, Work::Succeed, Way::WAITING[round % 4]));
        }
        let by = peers.iter_mut().filter_map(|peer| (peer.finish() == "true").then_some(()));
        assert_eq!(by.count(), 1);
        assert_eq!(lines(&log), round);
        assert!(once.reset().unwrap());
    }
}

/// Processes are killed at random moments; completed work alone is marked as done.
#[test]
fn random_kills_leave_the_work_either_done_or_not_done() {
    limit!();
    let (dir, path, _) = files();
    let once = Once::open(&path).unwrap();
    // Wine takes a third of a second to start a process.
    for round in 0..if cfg!(windows) { 6 } else { 30 } {
        let log = dir.path().join(format!("log{round}"));
        let mut peers: Vec<Peer> = (0..3).map(|_| peer(&path, &[])).collect();
        for peer in &mut peers {
            peer.begin(call(&log, Work::Succeed, Block));
        }
        std::thread::sleep(Duration::from_micros(100 * round));
        peers[0].kill();
        peers[1].kill();
        let last = peers[2].finish();
        assert!(last == "true" || last == "false", "{last}");
        assert!(once.is_done().unwrap());
        // A process killed between the work and the marker leaves it undone, so the next one
        // repeats the work.
        let times = lines(&log);
        assert!((1..=3).contains(&times), "{times}");
        assert!(once.reset().unwrap());
    }
}

// Unix only: Windows has no fork.
#[cfg(unix)]
#[test]
fn a_fork_that_returns_from_the_closure_marks_nothing_done() {
    limit!();
    let (_dir, path, log) = files();
    let mut parent = peer(&path, &[]);
    for way in [Block, Timeout(100_000)] {
        let error = parent.expect_error(call(&log, Work::ReturnInFork, way));
        assert_eq!(error, "closure: the copy ended with Some(0)");
        parent.expect(Call::IsDone, false);
    }
    parent.expect(call(&log, Work::Succeed, Block), true);
}

// Linux only: strace injects errors and delays.
#[cfg(target_os = "linux")]
#[test]
fn it_is_marked_done_only_after_the_work_is_synced() {
    limit!();
    use crate::peer::Setting;
    let (_dir, path, log) = files();
    // Syncing the file system of the path fails, so the work is not marked as done.
    let Some(mut peer) = crate::support::strace::strace(&[], "syncfs:error=EIO:when=1") else {
        return;
    };
    peer.open_once(&path, &[Setting::Fsync]);
    let answer = peer.expect_error(call(&log, Work::Succeed, Block));
    assert!(answer.contains("could not sync the directory of"), "{answer}");
    assert_eq!(lines(&log), 1);
    assert!(!path.exists());
    peer.expect(call(&log, Work::Succeed, Block), true);
    // The marker exists until the reset, and again once the work is done. The process stops at its
    // last system call before the marker is created.
    let Some(mut peer) = crate::support::strace::strace(&[], "sync:signal=STOP:when=1") else {
        return;
    };
    peer.open_once(&path, &[Setting::Fsync]);
    peer.expect(Call::Reset(Block), true);
    peer.begin(call(&log, Work::Succeed, Block));
    eventually("the work is done", || lines(&log) == 3);
    crate::support::strace::until_stopped(&peer);
    assert!(!path.exists(), "the marker is not created yet");
    assert_eq!(crate::support::strace::answer_of_stopped(&mut peer), Ok("true".into()));
    // Without the option, `Once` syncs nothing.
    let Some(mut peer) = crate::support::strace::strace(&[], "syncfs,fsync,sync:error=EIO") else {
        return;
    };
    peer.open_once(&path, &[]);
    peer.expect(Call::Reset(Block), true);
    peer.expect(call(&log, Work::Succeed, Block), true);
}
