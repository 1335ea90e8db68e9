//! A holder has locked the file that the path names, even if files are replaced (rule 2).

use std::path::Path;

use flockwork::Lock;

use crate::peer::Peer;
use crate::peer::Way::{Async, Block, Timeout, Try};
use crate::peer::lock::Call;
use crate::support::assert_waits;
use crate::support::until_blocked;

const WAYS: [fn(&Path); 4] = [
    |path| std::fs::remove_file(path).unwrap(),
    |path| std::fs::rename(path, path.with_extension("moved")).unwrap(),
    |path| {
        let new = path.with_extension("new");
        std::fs::write(&new, "").unwrap();
        std::fs::rename(&new, path).unwrap();
    },
    // The file itself keeps its only link, so only comparing the whole path detects this.
    |path| {
        let parent = path.parent().unwrap();
        let elsewhere = tempfile::tempdir_in(parent.parent().unwrap()).unwrap().keep();
        std::fs::rename(parent, elsewhere.join("moved")).unwrap();
    },
];

fn in_each_way(test: impl Fn(&Path, fn(&Path)) + Sync) {
    crate::support::running::share(WAYS.len(), &WAYS, |way| {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("parent");
        std::fs::create_dir(&parent).unwrap();
        test(&parent.join("a.lock"), *way);
    });
}

#[test]
fn the_next_acquirer_locks_the_file_that_the_path_names() {
    limit!();
    in_each_way(|path, replace| {
        let lock = Lock::open(path).unwrap();
        drop(lock.lock().unwrap());
        replace(path);
        let held = lock.try_lock().unwrap();
        assert!(Lock::open(path).unwrap().try_lock().unwrap_err().is_would_block());
        drop(held);
        replace(path);
        let _held = lock.lock().unwrap();
        assert!(Lock::open(path).unwrap().try_lock().unwrap_err().is_would_block());
    });
}

/// Another wait is in progress, so that the acquisition does not begin with a try.
#[test]
fn the_next_acquirer_ignores_the_holder_of_a_replaced_file() {
    limit!();
    in_each_way(|path, replace| {
        let other = Lock::open(path.with_extension("other")).unwrap();
        let _held = other.lock().unwrap();
        let mut waiting = Box::pin(other.lock_async());
        assert_waits(&mut waiting);
        let lock = Lock::open(path).unwrap();
        let mut holder = Peer::with_lock(path);
        for acquire in [
            (|lock| lock.lock()) as fn(&Lock) -> _,
            |lock| lock.lock_timeout(std::time::Duration::MAX),
            |lock| futures_lite::future::block_on(lock.lock_async()),
        ] {
            holder.lock();
            replace(path);
            drop(acquire(&lock).unwrap());
            holder.unlock();
        }
    });
}

#[test]
fn a_lock_conflict_on_a_replaced_file_is_ignored() {
    limit!();
    in_each_way(|path, replace| {
        let lock = Lock::open(path).unwrap();
        let mut holder = Peer::with_lock(path);
        holder.lock();
        assert!(lock.try_lock().unwrap_err().is_would_block());
        replace(path);
        drop(lock.try_lock().unwrap());
    });
}

#[test]
fn a_waiter_for_a_replaced_file_locks_the_new_one_exclusively() {
    limit!();
    in_each_way(|path, replace| {
        for way in [Block, Timeout(100_000), Async] {
            let mut first = Peer::with_lock(path);
            first.lock();
            let mut waiter = Peer::with_lock(path);
            waiter.begin(Call::Acquire(way));
            until_blocked(path, 1);
            replace(path);
            let mut second = Peer::with_lock(path);
            second.run(Call::Acquire(Try));
            // The waiter acquires the old file, which is no longer the lock.
            first.unlock();
            until_blocked(path, 1);
            assert!(waiter.is_silent());
            second.unlock();
            waiter.finish();
            second.expect_would_block(Call::Acquire(Try));
            waiter.unlock();
        }
    });
}

/// A helper that waits for one file must not serve a waiter for another file.
#[test]
fn a_restored_file_is_waited_for_again() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let (path, aside) = (dir.path().join("a.lock"), dir.path().join("aside"));
    let lock = Lock::open(&path).unwrap();
    let mut first = Peer::with_lock(&path);
    first.lock();
    let long = std::time::Duration::from_secs(100);
    crate::support::running::scope(|scope| {
        let waiter = scope.spawn(|| lock.lock_timeout(long).map(drop));
        until_blocked(&path, 1);
        std::fs::rename(&path, &aside).unwrap();
        let mut second = Peer::with_lock(&path);
        second.lock();
        first.unlock(); // The helper acquires the old file, and starts again.
        until_blocked(&path, 1);
        std::fs::rename(&aside, &path).unwrap(); // The old file is back, and free.
        drop(lock.lock_timeout(long).unwrap());
        second.unlock();
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn a_timed_waiter_for_a_replaced_file_locks_the_new_one() {
    limit!();
    in_each_way(|path, replace| {
        let locks_the_new_one = |milliseconds| {
            let mut holder = Peer::with_lock(path);
            holder.lock();
            let mut waiter = Peer::with_lock(path);
            waiter.begin(Call::Acquire(Timeout(milliseconds)));
            until_blocked(path, 1);
            replace(path);
            let answer = waiter.answer();
            let is_late = |error: &String| error.starts_with("timed-out: ");
            assert!(answer.as_ref().err().is_none_or(is_late), "{answer:?}");
            answer.is_ok()
        };
        // The first is enough time to replace the file, except on a busy machine.
        assert!([6000, 60_000].into_iter().any(locks_the_new_one));
    });
}

/// strace makes lstat report that the path names another file, or none.
// Linux only: strace changes the result of lstat.
#[cfg(target_os = "linux")]
#[test]
fn a_file_replaced_900_times_in_a_row_is_locked_after_that() {
    limit!();
    for way in [Block, Try] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let inject = "newfstatat:error=ENOENT:when=1..900";
        let Some(mut peer) = crate::support::strace::injected(&path, inject) else { return };
        peer.open_lock(&path, &[]);
        peer.run(Call::Acquire(way));
        peer.unlock();
    }
}

// Linux only: strace changes the result of lstat.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_always_replaced_is_an_error_in_the_end() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let inject = "newfstatat:error=ENOENT";
    let Some(mut peer) = crate::support::strace::injected(&path, inject) else { return };
    peer.open_lock(&path, &[]);
    let answer = peer.expect_error(Call::Acquire(Try));
    assert!(
        answer.contains("another program replaced the file each time before it was locked"),
        "{answer}"
    );
}

#[test]
fn a_file_that_is_replaced_all_the_time_never_has_two_holders() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    crate::support::running::scope(|scope| {
        let _end = crate::support::running::on_drop(|| {
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        // The file is replaced many times in a row, with pauses between. On a busy machine a file
        // replaced without a pause would change at each attempt.
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for _ in 0..50 {
                    let _ = std::fs::remove_file(&path);
                    std::thread::yield_now();
                }
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let mut peer = Peer::with_lock(&path);
        for _ in 0..100 {
            drop(lock.lock().unwrap());
            peer.lock();
            peer.unlock();
        }
    });
}

// Unix only: Windows refuses to remove or replace a lock file that is open.
#[cfg(unix)]
#[test]
fn still_held_is_false_once_the_file_is_replaced() {
    limit!();
    in_each_way(|path, replace| {
        let mut holder = Peer::with_lock(path);
        holder.run(Call::Acquire(Block));
        holder.expect(Call::StillHeld, true);
        replace(path);
        holder.expect(Call::StillHeld, false);
        let mut other = Peer::with_lock(path);
        other.run(Call::Acquire(Try));
        other.expect(Call::StillHeld, true);
        holder.expect(Call::StillHeld, false);
    });
}

// Unix only: Windows refuses to remove or replace a lock file that is open.
#[cfg(unix)]
#[test]
fn every_guard_reports_that_its_file_was_removed() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let rwlock = flockwork::RwLock::open(at("rwlock")).unwrap();
    let file = flockwork::SharedFile::open(at("file")).unwrap();
    let reads = (rwlock.read().unwrap(), file.lock_shared().unwrap());
    assert!(reads.0.still_held().unwrap() && reads.1.still_held().unwrap());
    std::fs::remove_file(at("rwlock")).unwrap();
    std::fs::remove_file(at("file.flock")).unwrap();
    assert!(!reads.0.still_held().unwrap() && !reads.1.still_held().unwrap());
    let writes = (rwlock.write().unwrap(), file.lock_exclusive().unwrap());
    assert!(writes.0.still_held().unwrap() && writes.1.still_held().unwrap());
    std::fs::remove_file(at("rwlock")).unwrap();
    std::fs::remove_file(at("file.flock")).unwrap();
    assert!(!writes.0.still_held().unwrap() && !writes.1.still_held().unwrap());
}
