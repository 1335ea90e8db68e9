//! A hanging test is reported and ended, together with the processes that it started.

use std::process::Command;
use std::time::Duration;

use flockwork::Lock;

use crate::limit;
use crate::peer::Peer;
use crate::support::running::{on_panic, scope};
use crate::support::{alone, until_blocked};

/// Selects how [`entry`] hangs.
const ROLE: &str = "FLOCKWORK_IT_HANG";
/// The path of the lock that the hanging test waits for.
const PATH: &str = "FLOCKWORK_IT_HANG_PATH";

/// Hangs in a process that another test has started. In an ordinary run it returns immediately.
#[test]
fn entry() {
    limit!();
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "lock" => {
            let path = std::path::PathBuf::from(std::env::var_os(PATH).unwrap());
            let mut peer = Peer::with_lock(&path);
            peer.lock();
            std::thread::spawn({
                let path = path.clone();
                move || {
                    until_blocked(&path, 1);
                    limit!(Duration::from_millis(1));
                    std::thread::park();
                }
            });
            drop(Lock::open(&path).unwrap().lock());
        }
        "alone" => alone("hanging_tests::entry", || {
            loop {
                std::thread::park();
            }
        }),
        other => panic!("unknown: {other}"),
    }
}

fn hang(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["hanging_tests::entry", "--exact", "--test-threads=1"]).env(ROLE, role);
    // The process's own limit ends it if nothing else does.
    limit::extend(Duration::from_secs(30));
    command
}

#[test]
fn a_test_that_exceeds_its_limit_ends_with_a_report() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let output = hang("lock").env(PATH, &path).output().unwrap();
    assert_eq!(output.status.code(), Some(limit::CODE), "{output:?}");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(
        report.contains("\nhanging_tests::entry exceeded its time limit: it has run for "),
        "{report}"
    );
    if cfg!(target_os = "linux") {
        // The report lists this process and the peer, each with its threads.
        assert_eq!(report.matches("\nprocess ").count(), 2, "{report}");
        assert!(report.contains("peer::entry"), "{report}");
        let waits = format!("on {}\n", path.display());
        assert!(report.contains(&waits), "{report}");
        // The watchdog killed the peer that held the lock.
        drop(Lock::open(&path).unwrap().lock_timeout(Duration::from_secs(100)).unwrap());
    }
}

#[test]
fn a_test_that_hangs_in_a_process_of_its_own_shows_its_report() {
    limit!();
    // The first process extends its own limit. That may take seconds on a slow machine.
    let output = hang("alone").env(limit::SECONDS, "10").output().unwrap();
    assert_eq!(output.status.code(), Some(101), "{output:?}");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("in its own process: exit"), "{report}");
    assert!(report.contains("hanging_tests::entry exceeded its time limit"), "{report}");
}

#[test]
fn a_scope_that_panics_ends_while_its_threads_wait() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let mut peer = Peer::with_lock(&path);
    peer.lock();
    let (send, acquired) = std::sync::mpsc::channel();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        scope(|scope| {
            scope.spawn(|| send.send(lock.lock().is_ok()).unwrap());
            until_blocked(&path, 1);
            std::panic::resume_unwind(Box::new("without a message"));
        });
    }));
    assert!(panicked.is_err());
    assert!(acquired.recv().unwrap());
    assert!(limit::remaining().unwrap() <= limit::AFTER_A_PANIC);
    assert_eq!(peer.answer_or_death(), None);
}

// Linux only: a shell starts the peer, and `/proc` lists its descendants.
#[cfg(target_os = "linux")]
#[test]
fn a_panic_kills_the_descendants_of_a_process_as_well() {
    limit!();
    use crate::peer::Way::Block;
    use crate::peer::semaphore;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let panicked = std::panic::catch_unwind(|| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$0\" \"$@\"; exit"]).arg(std::env::current_exe().unwrap());
        let mut peer = Peer::start_as(shell);
        peer.open_lock(&path, &[]);
        peer.lock();
        // A peer that is blocked in a call does not notice the end of its input.
        peer.begin(semaphore::Call::Open(dir.path().join("s"), 1, vec![]));
        peer.begin(semaphore::Call::Acquire(1, Block));
        peer.begin(semaphore::Call::Acquire(1, Block));
        std::panic::resume_unwind(Box::new("without a message"));
    });
    assert!(panicked.is_err());
    drop(Lock::open(&path).unwrap().lock_timeout(Duration::from_secs(100)).unwrap());
}

#[test]
fn on_panic_acts_only_in_a_panic() {
    limit!();
    let done = std::cell::Cell::new(0);
    drop(on_panic(|| done.set(1)));
    assert_eq!(done.get(), 0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _end = on_panic(|| done.set(2));
        std::panic::resume_unwind(Box::new("without a message"));
    }));
    assert!(panicked.is_err());
    assert_eq!(done.get(), 2);
}
