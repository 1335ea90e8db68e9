//! A guard counts only in the process that acquired it (rule 4).

use flockwork::{Error, ErrorKind, Lock};

use crate::peer::Way::{Timeout, Try};
use crate::peer::lock::{Call, InChild};
use crate::peer::{Peer, label};
use crate::support::until_blocked;
use flockwork::{
    FileReadGuard, FileWriteGuard, LockGuard, Options, Permit, RwLock, RwLockReadGuard,
    RwLockWriteGuard, Semaphore, SharedFile,
};

#[test]
fn a_forked_copy_of_a_guard_frees_nothing() {
    limit!();
    for what in [InChild::DropGuard, InChild::Unlock] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let mut peer = Peer::start();
        peer.open_lock(&path, &[label("parent")]);
        peer.lock();
        peer.expect(Call::Fork(what), 0);
        let lock = Lock::open(&path).unwrap();
        let error = lock.try_lock().unwrap_err();
        assert!(error.is_would_block());
        assert_eq!(error.holders()[0].label(), Some("parent"), "the record is missing");
        peer.unlock();
        drop(lock.try_lock().unwrap());
    }
}

/// Calls `release` with a copy of the guard in a child that is forked without exec. Returns the
/// guard if that fails as it should.
fn fails_in_a_fork<G>(guard: G, release: impl FnOnce(G) -> Result<(), Error>) -> Option<G> {
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let released = release(guard);
            let is_right = released.is_err_and(|error| {
                error.kind() == ErrorKind::Io
                    && error.to_string().contains("`fork`")
                    && !error.path().as_os_str().is_empty()
            });
            crate::support::exit_copy(if is_right { 0 } else { 7 })
        }
        fork::Fork::Parent(child) => {
            let status = crate::support::ended(child).exit_status();
            (status == Some(0)).then_some(guard)
        }
    }
}

#[test]
fn releasing_a_forked_copy_of_a_guard_is_an_error() {
    limit!();
    crate::support::alone(
        "protocol::forked::releasing_a_forked_copy_of_a_guard_is_an_error",
        || {
            let dir = tempfile::tempdir().unwrap();
            let lock = Options::new().label("parent").open_lock(dir.path().join("lock")).unwrap();
            let rw = RwLock::open(dir.path().join("rw")).unwrap();
            let pool = Semaphore::open(dir.path().join("pool"), 3).unwrap();
            let file = SharedFile::open(dir.path().join("file")).unwrap();

            let held = lock.lock().unwrap();
            let held = fails_in_a_fork(held, LockGuard::unlock).expect("a lock");
            assert!(Lock::open(lock.path()).unwrap().try_lock().unwrap_err().is_would_block());
            assert_eq!(lock.holders().unwrap().remove(0).label(), Some("parent"));
            held.unlock().unwrap();

            let reading =
                fails_in_a_fork(rw.read().unwrap(), RwLockReadGuard::unlock).expect("reading");
            assert!(rw.try_write().unwrap_err().is_would_block());
            reading.unlock().unwrap();
            let writing =
                fails_in_a_fork(rw.write().unwrap(), RwLockWriteGuard::unlock).expect("writing");
            assert!(rw.try_read().unwrap_err().is_would_block());
            writing.unlock().unwrap();

            for permits in [1, 2] {
                let permit = pool.acquire_many(permits).unwrap();
                let permit = fails_in_a_fork(permit, Permit::release).expect("permits");
                assert_eq!(pool.available_permits().unwrap(), 3 - permits);
                permit.release().unwrap();
                assert_eq!(pool.available_permits().unwrap(), 3);
            }

            let reading = file.lock_shared().unwrap();
            let reading = fails_in_a_fork(reading, FileReadGuard::unlock).expect("a reader");
            reading.unlock().unwrap();
            let writing = file.lock_exclusive().unwrap();
            let writing = fails_in_a_fork(writing, FileWriteGuard::unlock).expect("a writer");
            assert!(file.try_lock_shared().unwrap_err().is_would_block());
            writing.unlock().unwrap();
        },
    );
}

/// The copy does not know what happened after the fork, and the record may belong to a living
/// holder.
#[test]
fn a_forked_copy_of_a_guard_reports_no_abandoned_lock() {
    limit!();
    crate::support::alone(
        "protocol::forked::a_forked_copy_of_a_guard_reports_no_abandoned_lock",
        || {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.lock");
            let (mut signal, sender) = std::os::unix::net::UnixStream::pair().unwrap();
            let held = Lock::open(&path).unwrap().lock().unwrap();
            match fork::fork().unwrap() {
                fork::Fork::Child => {
                    drop(sender);
                    let _ = std::io::Read::read(&mut signal, &mut [0]);
                    crate::support::exit_copy(if held.was_abandoned() { 7 } else { 0 })
                }
                fork::Fork::Parent(child) => {
                    held.unlock().unwrap();
                    let next = Options::new().label("next").open_lock(&path).unwrap();
                    let _next = next.lock().unwrap();
                    drop(sender);
                    assert_eq!(crate::support::ended(child).exit_status(), Some(0));
                    assert_eq!(next.holders().unwrap().remove(0).label(), Some("next"));
                }
            }
        },
    );
}

#[test]
fn a_forked_copy_of_a_handle_is_excluded_as_any_other_process() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    for what in [InChild::Try, InChild::TimeOut] {
        let mut peer = Peer::with_lock(&path);
        peer.lock();
        // The child keeps the copied guard until it ends, so either the child or its parent makes
        // both calls fail.
        peer.expect(Call::Fork(what), 0);
        peer.unlock();
        // The child now has a copy of the kept descriptor, and must lock another descriptor.
        peer.expect(Call::Fork(InChild::Cycle), 0);
        peer.run(Call::Acquire(Try));
    }
}

/// `pthread_atfork(3)` waits for a fork in progress, so the thread that registers the handler at
/// its first use is often in the middle of it when the process forks.
#[test]
fn a_fork_during_the_first_use_does_not_hang_the_copy() {
    limit!();
    crate::support::alone(
        "protocol::forked::a_fork_during_the_first_use_does_not_hang_the_copy",
        || {
            let dir = tempfile::tempdir().unwrap();
            let [by_thread, by_copy] = ["thread", "copy"].map(|name| dir.path().join(name));
            let locks = |path| Lock::open(path).and_then(|lock| lock.lock()).is_ok();
            for round in crate::support::rounds(300, std::time::Duration::from_secs(20)) {
                // This process has not used the library yet, so each child uses it for the first
                // time.
                let fork::Fork::Parent(child) = fork::fork().unwrap() else {
                    let start = std::sync::Barrier::new(2);
                    let status = crate::support::running::scope(|scope| {
                        scope.spawn(|| {
                            start.wait();
                            locks(&by_thread)
                        });
                        start.wait();
                        match fork::fork().unwrap() {
                            fork::Fork::Child => {
                                crate::support::exit_copy(i32::from(!locks(&by_copy)))
                            }
                            fork::Fork::Parent(copy) => crate::support::ended(copy).exit_status(),
                        }
                    });
                    crate::support::exit_copy(status.unwrap_or(7))
                };
                assert_eq!(crate::support::ended(child).exit_status(), Some(0), "in round {round}");
            }
        },
    );
}

/// The child inherits the kept descriptor. A lock on that descriptor would belong to the child and
/// its parent at once.
#[test]
fn a_lock_acquired_by_a_forked_child_excludes_its_parent() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let mut peer = Peer::with_lock(&path);
    peer.begin(Call::Fork(InChild::Hold));
    let answers = [peer.finish(), peer.finish()];
    assert!(answers.iter().any(|answer| answer == "the child holds"), "{answers:?}");
    let child: i32 = answers.iter().find_map(|answer| answer.parse().ok()).unwrap();
    peer.expect_would_block(Call::Acquire(Try));
    peer.begin(Call::Acquire(Timeout(100_000)));
    until_blocked(&path, 1);
    let child = rustix::process::Pid::from_raw(child).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    peer.finish();
}

#[test]
fn a_release_counts_while_a_forked_child_keeps_the_descriptor() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let mut peer = Peer::with_lock(&path);
    peer.lock();
    let child: i32 = peer.run(Call::Fork(InChild::Stay)).parse().unwrap();
    peer.unlock();
    drop(Lock::open(&path).unwrap().try_lock().unwrap());
    let child = rustix::process::Pid::from_raw(child).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_forked_copy_of_a_guard_is_not_reported_as_held() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut peer = Peer::with_lock(&dir.path().join("a.lock"));
    peer.run(Call::Acquire(crate::peer::Way::Block));
    peer.expect(Call::Fork(InChild::StillHeld), 0);
    peer.expect(Call::StillHeld, true);
}
