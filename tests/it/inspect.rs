//! The waiters that `inspect` lists, in the order in which they are served.

use std::path::Path;

use flockwork::{Holder, Lock, Options, Semaphore, inspect};

use crate::peer::{Peer, Way, label, lock, rwlock, semaphore};
use crate::support::{eventually, until_blocked};

#[track_caller]
fn assert_waiters(path: &Path, peers: &[&Peer]) -> Vec<Holder> {
    let expected: Vec<_> = peers.iter().map(|peer| peer.id()).collect();
    let mut status = inspect(path).unwrap();
    // The list of the kernel, which has the locks of all tests, is read in pieces.
    eventually(&format!("the waiters are {expected:?}"), || {
        status = inspect(path).unwrap();
        status.waiters().iter().map(Holder::pid).eq(expected.iter().copied())
    });
    for waiter in status.waiters() {
        assert!(waiter.same_pid_namespace() && waiter.slot().is_none(), "{waiter:?}");
        assert!(waiter.command().unwrap().contains("peer::entry"), "{waiter}");
    }
    status.waiters().to_vec()
}

#[test]
fn waiters_of_a_lock_are_listed_in_their_order() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    assert!(inspect(&path).unwrap().waiters().is_empty());
    let held = Lock::open(&path).unwrap().lock().unwrap();
    assert_waiters(&path, &[]);
    let mut peers = [(); 3].map(|()| Peer::with_lock(&path));
    for (index, way) in [Way::Block, Way::Timeout(300_000), Way::Async].into_iter().enumerate() {
        peers[index].begin(lock::Call::Acquire(way));
        until_blocked(&path, index + 1);
    }
    assert_waiters(&path, &[&peers[0], &peers[1], &peers[2]]);
    peers[1].kill();
    assert_waiters(&path, &[&peers[0], &peers[2]]);
    held.unlock().unwrap();
    peers[0].finish();
    let status = inspect(&path).unwrap();
    assert_waiters(&path, &[&peers[2]]);
    assert_eq!(status.holders()[0].pid(), peers[0].id());
    peers[0].unlock();
    peers[2].finish();
    assert_waiters(&path, &[]);
}

#[test]
fn waiters_of_an_rwlock_are_listed_in_their_order() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let held = Options::new().open_rwlock(&path).unwrap().write().unwrap();
    let mut readers = ["first", "third"].map(|name| rwlock::peer(&path, &[label(name)]));
    let mut writers = ["second", "fourth"].map(|name| rwlock::peer(&path, &[label(name)]));
    // A program that does not queue waits only in the kernel.
    let mut plain = Peer::with_lock(&path);
    readers[0].begin(rwlock::Call::Read(Way::Block));
    until_blocked(&path, 1);
    writers[0].begin(rwlock::Call::Write(Way::Timeout(300_000)));
    until_blocked(&rwlock::gate(&path), 1);
    readers[1].begin(rwlock::Call::Read(Way::Async));
    until_blocked(&rwlock::gate(&path), 2);
    writers[1].begin(rwlock::Call::Write(Way::Block));
    until_blocked(&rwlock::gate(&path), 3);
    plain.begin(lock::Call::Acquire(Way::Block));
    until_blocked(&path, 2);
    let order = [&readers[0], &plain, &writers[0], &readers[1], &writers[1]];
    let listed = assert_waiters(&path, &order);
    let labels: Vec<_> = listed.iter().map(Holder::label).collect();
    assert_eq!(labels, [Some("first"), None, Some("second"), Some("third"), Some("fourth")]);
    let known: Vec<_> = listed.iter().map(|waiter| waiter.since().is_some()).collect();
    assert_eq!(known, [true, false, true, true, true]);
    assert!(listed[0].is_shared() && !listed[1].is_shared());
    assert!(listed[0].since() <= listed[2].since() && listed[2].since() <= listed[3].since());
    // The next writer may pass it: it requests the lock when the reader has released it, and the
    // process that the kernel has woken then may not have run yet.
    plain.kill();
    assert_waiters(&path, &[&readers[0], &writers[0], &readers[1], &writers[1]]);
    held.unlock().unwrap();
    readers[0].finish();
    readers[0].run(rwlock::Call::Unlock);
    for (writer, reader) in
        writers.iter_mut().zip(readers.iter_mut().skip(1).map(Some).chain([None]))
    {
        writer.finish();
        writer.run(rwlock::Call::Unlock);
        if let Some(reader) = reader {
            reader.finish();
            reader.run(rwlock::Call::Unlock);
        }
    }
    assert_waiters(&path, &[]);
}

#[test]
fn waiters_of_a_semaphore_are_listed_in_their_order() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for capacity in [1, 2] {
        let path = dir.path().join(capacity.to_string());
        let held = Semaphore::open(&path, capacity).unwrap().acquire_many(capacity).unwrap();
        let mut peers =
            ["a", "b", "c"].map(|name| semaphore::peer(&path, capacity, &[label(name)]));
        semaphore::queue_up(&path, &mut peers, 1);
        let waiters = assert_waiters(&path, &[&peers[0], &peers[1], &peers[2]]);
        let labels: Vec<_> = waiters.iter().filter_map(Holder::label).collect();
        assert_eq!(labels, ["a", "b", "c"]);
        assert!(waiters.iter().all(|waiter| waiter.since().is_some()));
        // Listing them takes no signal that wakes one of them.
        held.release().unwrap();
        for peer in &mut peers {
            peer.finish();
            peer.run(semaphore::Call::Release);
        }
        assert_waiters(&path, &[]);
    }
}

#[test]
fn listing_waiters_again_and_again_delays_none() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool");
    let pool = Semaphore::open(&path, 2).unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    crate::support::running::scope(|scope| {
        let _end = crate::support::running::on_drop(|| {
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                inspect(&path).unwrap();
            }
        });
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let pool = pool.clone();
                scope.spawn(move || {
                    for _ in 0..200 {
                        pool.acquire().unwrap().release().unwrap();
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
    });
    eventually("no waiter is left", || inspect(&path).unwrap().waiters().is_empty());
}
