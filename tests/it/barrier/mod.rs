//! `Barrier`: generations, every end of a wait, and every death.

mod deaths;
mod inspected;
mod python;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flockwork::{Barrier, ErrorKind, Options, Semaphore};
use futures_lite::future::{block_on, poll_once};

use crate::peer::barrier::{Action, Call, peers};
use crate::peer::{LATE_BACKSTOP, Way, options};
use crate::support::eventually;
use crate::support::running::scope;

fn kind<T: std::fmt::Debug>(outcome: flockwork::Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

/// Waits until only events wake the waiters. A waiter checks for up to a second after its watch has
/// begun and after each closing of a file (rule 8).
fn until_waiters_rely_on_events() {
    std::thread::sleep(Duration::from_millis(1200));
}

#[test]
fn every_form_of_wait_passes_with_the_others() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut peers = peers(&dir.path().join("barrier"), 4, 4, LATE_BACKSTOP);
    for round in 0..20 {
        for (peer, way) in peers.iter_mut().zip(Way::WAITING) {
            peer.begin(Call::Wait(way));
        }
        let answers: Vec<_> = peers.iter_mut().map(crate::peer::Peer::finish).collect();
        let leaders = answers.iter().filter(|text| **text == format!("{round} leader")).count();
        let others = answers.iter().filter(|text| **text == round.to_string()).count();
        assert_eq!((leaders, others), (1, 3), "{answers:?}");
    }
}

#[test]
fn a_try_passes_only_as_the_last_participant() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 2).unwrap();
    let mut peers = peers(&path, 2, 1, LATE_BACKSTOP);
    assert_eq!(kind(barrier.try_wait()), ErrorKind::WouldBlock);
    assert_eq!(barrier.waiting().unwrap(), 0);
    peers[0].begin(Call::Wait(Way::Block));
    eventually("the peer waits", || barrier.waiting().unwrap() == 1);
    // The peer may check at the moment at which all have arrived, and be the leader.
    let is_leader = barrier.try_wait().unwrap().is_leader();
    assert_eq!(peers[0].finish(), if is_leader { "0" } else { "0 leader" });
}

#[test]
fn a_dropped_future_breaks_the_barrier_once_it_was_polled() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = options(LATE_BACKSTOP).open_barrier(&path, 3).unwrap();
    drop(barrier.wait_async());
    assert!(!barrier.is_broken().unwrap());

    let mut peers = peers(&path, 3, 1, LATE_BACKSTOP);
    peers[0].begin(Call::Wait(Way::Block));
    eventually("the peer waits", || barrier.waiting().unwrap() == 1);
    let mut future = Box::pin(barrier.wait_async());
    assert!(block_on(poll_once(&mut future)).is_none());
    assert_eq!(barrier.waiting().unwrap(), 2);
    until_waiters_rely_on_events();
    drop(future);
    let error = peers[0].answer().unwrap_err();
    assert!(error.starts_with("broken: "), "{error}");
    assert!(barrier.is_broken().unwrap());
    assert_eq!(barrier.waiting().unwrap(), 0);
}

#[test]
fn a_zero_timeout_breaks_an_incomplete_generation() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let barrier = Barrier::open(dir.path().join("barrier"), 2).unwrap();
    let error = barrier.wait_timeout(Duration::ZERO).unwrap_err();
    assert!(error.is_timed_out());
    assert!(error.to_string().contains("waiting for other participants"), "{error}");
    assert_eq!(kind(barrier.wait()), ErrorKind::Broken);
    assert_eq!(kind(barrier.try_wait()), ErrorKind::Broken);
    assert_eq!(kind(block_on(barrier.wait_async())), ErrorKind::Broken);
    barrier.reset().unwrap();
    assert_eq!(kind(barrier.try_wait()), ErrorKind::WouldBlock);
}

/// Timeouts that expire while the last participant arrives: either all pass or none does.
#[test]
fn a_generation_passes_for_all_participants_or_for_none() {
    limit!();
    const PARTIES: u32 = 3;
    const ROUNDS: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let between = std::sync::Barrier::new(PARTIES as usize);
    let passed: Vec<AtomicU32> = (0..ROUNDS).map(|_| AtomicU32::new(0)).collect();
    let leaders: Vec<AtomicU32> = (0..ROUNDS).map(|_| AtomicU32::new(0)).collect();
    scope(|scope| {
        for thread in 0..PARTIES {
            let (between, passed, leaders, path) = (&between, &passed, &leaders, &path);
            scope.spawn(move || {
                let barrier = Barrier::open(path, PARTIES).unwrap();
                for round in 0..ROUNDS {
                    if between.wait().is_leader() {
                        barrier.reset().unwrap();
                    }
                    between.wait();
                    // Around the time that the others take to arrive.
                    let span = Duration::from_micros(((round as u64 * 7) % 40 + 1) * 25);
                    let outcome = if thread == 0 {
                        barrier.wait_timeout(span)
                    } else {
                        std::thread::sleep(span / 4);
                        barrier.wait()
                    };
                    match outcome {
                        Ok(result) => {
                            passed[round].fetch_add(1, Ordering::SeqCst);
                            leaders[round].fetch_add(result.is_leader().into(), Ordering::SeqCst);
                        }
                        Err(error) => assert!(
                            error.is_timed_out() || error.kind() == ErrorKind::Broken,
                            "{error}"
                        ),
                    }
                }
            });
        }
    });
    let counts = |counts: &[AtomicU32]| -> Vec<u32> {
        counts.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    };
    for (passed, leaders) in counts(&passed).into_iter().zip(counts(&leaders)) {
        assert!(matches!((passed, leaders), (0, 0) | (PARTIES, 1)), "{passed}, {leaders}");
    }
}

#[test]
fn more_callers_than_participants_pass_in_groups() {
    limit!();
    const CALLS: u32 = 600;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let (begun, leaders) = (AtomicU32::new(0), AtomicU32::new(0));
    scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let barrier = options(LATE_BACKSTOP).open_barrier(&path, 4).unwrap();
                // The calls that have begun and not returned belong to different threads, so the
                // last ones are enough for a generation.
                while begun.fetch_add(1, Ordering::SeqCst) < CALLS {
                    let is_leader = barrier.wait().unwrap().is_leader();
                    leaders.fetch_add(is_leader.into(), Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(leaders.load(Ordering::SeqCst), CALLS / 4);
}

#[test]
fn threads_share_one_handle() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let barrier = options(LATE_BACKSTOP).open_barrier(dir.path().join("barrier"), 4).unwrap();
    let leaders = AtomicU32::new(0);
    scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for generation in 0..100 {
                    let result = barrier.wait().unwrap();
                    assert_eq!(result.generation(), generation);
                    leaders.fetch_add(result.is_leader().into(), Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(leaders.load(Ordering::SeqCst), 100);
}

#[test]
fn an_action_that_fails_or_panics_breaks_the_barrier() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let mut peers = peers(&path, 2, 2, LATE_BACKSTOP);
    let log = dir.path().join("log");
    for (action, text) in [(Action::Fail, "closure: it failed"), (Action::Panic, "panicked")] {
        peers[0].begin(Call::WaitWith(log.clone(), action));
        peers[1].begin(Call::WaitWith(log.clone(), action));
        let errors: Vec<_> = peers.iter_mut().map(|peer| peer.answer().unwrap_err()).collect();
        assert_eq!(errors.iter().filter(|error| *error == text).count(), 1, "{errors:?}");
        let broken = errors.iter().filter(|error| error.starts_with("broken: ")).count();
        assert_eq!(broken, 1, "{errors:?}");
        peers[0].run(Call::Reset);
    }
    assert!(!log.exists());
}

// Unix only: on Windows the peer checks often, and might end the generation itself.
#[cfg(unix)]
#[test]
fn a_timeout_during_the_action_breaks_the_barrier() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 2).unwrap();
    let mut peers = peers(&path, 2, 1, LATE_BACKSTOP);
    loop {
        peers[0].begin(Call::Wait(Way::Timeout(3000)));
        eventually("the peer waits, or has given up", || {
            barrier.waiting().unwrap() == 1 || barrier.is_broken().unwrap()
        });
        until_waiters_rely_on_events();
        let mut has_run = false;
        let passed = barrier.wait_with(|| {
            has_run = true;
            let error = peers[0].answer().unwrap_err();
            assert!(error.starts_with("timed-out: "), "{error}");
            Ok::<(), flockwork::Error>(())
        });
        if has_run {
            assert_eq!(kind(passed), ErrorKind::Broken);
            break;
        }
        // On a slow machine the peer has given up before the action, or was the leader.
        let _ = peers[0].answer();
        barrier.reset().unwrap();
    }
}

#[test]
fn a_callback_that_panics_breaks_the_barrier() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let options =
        Options::new().on_wait(Duration::from_millis(1), Duration::from_millis(1), |waiting| {
            assert!(waiting.to_string().contains("barrier"), "{waiting}");
            std::panic::resume_unwind(Box::new("it panicked"));
        });
    let barrier = options.open_barrier(&path, 2).unwrap();
    assert!(std::panic::catch_unwind(|| barrier.wait()).is_err());
    assert!(Barrier::open(&path, 2).unwrap().is_broken().unwrap());
}

#[test]
fn a_barrier_is_opened_only_with_its_own_number() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/barrier");
    let barrier = Barrier::open(&path, 3).unwrap();
    assert_eq!((barrier.parties(), barrier.path()), (3, &*path));
    let error = Barrier::open(&path, 4).unwrap_err();
    assert_eq!((error.kind(), error.capacity()), (ErrorKind::CapacityMismatch, Some(3)));
    assert!(error.to_string().ends_with("has 3 participants, not 4"), "{error}");
    for parties in [0, 4097] {
        let error = Barrier::open(dir.path().join("c"), parties).unwrap_err();
        assert_eq!((error.kind(), error.capacity()), (ErrorKind::InvalidPermits, Some(4096)));
        assert!(error.to_string().contains("invalid number of participants"), "{error}");
    }
    assert!(!dir.path().join("c").exists());
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(kind(Barrier::open(dir.path().join("file"), 2)), ErrorKind::NotRegularFile);
    Semaphore::open(dir.path().join("semaphore"), 2).unwrap();
    let error = Barrier::open(dir.path().join("semaphore"), 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile);
    let text = "is a semaphore's directory, not a barrier's directory";
    assert!(error.to_string().ends_with(text), "{error}");
}

#[test]
fn a_semaphore_is_not_opened_in_a_barriers_directory() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 2).unwrap();
    let files = || std::fs::read_dir(&path).unwrap().count();
    let before = files();
    for opened in [Semaphore::open(&path, 2), Semaphore::open_existing(&path)] {
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRegularFile);
        let text = "is a barrier's directory, not a semaphore's directory";
        assert!(error.to_string().ends_with(text), "{error}");
        assert!(error.hint().is_some());
    }
    for error in [
        flockwork::Lock::open(&path).unwrap_err(),
        flockwork::Event::open(&path).and_then(|event| event.set()).unwrap_err(),
        flockwork::SharedFile::open(&path).and_then(|file| file.write("x")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
    }
    assert_eq!(files(), before);
    assert_eq!(barrier.waiting().unwrap(), 0);
}

#[test]
fn processes_that_create_a_barrier_at_once_share_it() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = dir.path().join(round.to_string());
        scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let barrier = options(LATE_BACKSTOP).open_barrier(&path, 4).unwrap();
                    for generation in 0..3 {
                        assert_eq!(barrier.wait().unwrap().generation(), generation);
                    }
                });
            }
        });
    }
}

// Unix only: on Windows a lock file that is open cannot be removed (rule 7).
#[cfg(unix)]
#[test]
fn waiters_of_a_removed_directory_fail_and_it_is_created_again() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let mut peers = peers(&path, 2, 2, &[]);
    peers[0].begin(Call::Wait(Way::Block));
    let barrier = Barrier::open(&path, 2).unwrap();
    eventually("the peer waits", || barrier.waiting().unwrap() == 1);
    drop(barrier);
    // The peer may rename the state while the directory is removed file by file.
    eventually("it is removed", || std::fs::remove_dir_all(&path).is_ok() || !path.exists());
    let error = peers[0].answer().unwrap_err();
    assert!(error.starts_with("broken: "), "{error}");
    for peer in &mut peers {
        peer.begin(Call::Wait(Way::Block));
    }
    for peer in &mut peers {
        peer.finish();
    }
}

#[test]
fn a_removed_directory_of_arrivals_is_created_again() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 1).unwrap();
    barrier.wait().unwrap();
    std::fs::remove_dir_all(path.join("arrived")).unwrap();
    assert_eq!(barrier.waiting().unwrap(), 0);
    assert_eq!(barrier.wait().unwrap().generation(), 1);
}

#[test]
fn a_reset_without_participants_changes_nothing() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let barrier = Barrier::open(dir.path().join("barrier"), 1).unwrap();
    barrier.reset().unwrap();
    assert_eq!(barrier.wait().unwrap().generation(), 0);
    barrier.abort().unwrap();
    barrier.abort().unwrap();
    barrier.reset().unwrap();
    assert_eq!(barrier.wait().unwrap().generation(), 2);
}

#[test]
fn resets_leave_a_bounded_number_of_files() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 2).unwrap();
    for _ in 0..50 {
        assert!(barrier.wait_timeout(Duration::ZERO).unwrap_err().is_timed_out());
        barrier.reset().unwrap();
    }
    let count = |path: &std::path::Path| std::fs::read_dir(path).unwrap().count();
    assert!(count(&path) <= 7, "{}", count(&path));
    assert!(count(&path.join("arrived")) <= 2);
}
