//! A semaphore that is paused, and a capacity that several processes adjust.

use std::time::Duration;

use flockwork::{ErrorKind, Semaphore, StatusKind, inspect};
use futures_lite::future::block_on;

use crate::peer::Way::{Async, Block, Timeout, Try};
use crate::peer::semaphore::{Call, peer, until_leader};
use crate::peer::{LATE_BACKSTOP, Peer};
use crate::semaphore::{dirs, without_fifos};
use crate::support::assert_waits;

#[test]
fn a_paused_semaphore_grants_no_permit() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 3).unwrap();
    let held = semaphore.acquire_many(2).unwrap();
    semaphore.set_capacity(0).unwrap();
    let mut other = peer(&path, 5, &[]); // any number opens it
    for handle in [&semaphore, &Semaphore::open_existing(&path).unwrap()] {
        assert_eq!(handle.capacity().unwrap(), 0);
        assert_eq!(handle.available_permits().unwrap(), 0);
        for permits in [1, 2, 4096] {
            let error = handle.try_acquire_many(permits).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            assert_eq!(error.to_string(), format!("`{}` is paused", path.display()));
            assert!(error.hint().unwrap().contains("set_capacity"), "{error:?}");
        }
        let error = handle.acquire_timeout(Duration::from_millis(20)).unwrap_err();
        assert!(error.is_timed_out() && error.to_string().ends_with("it was paused"), "{error}");
        for permits in [0, 4097] {
            let error = handle.try_acquire_many(permits).unwrap_err();
            assert_eq!((error.kind(), error.capacity()), (ErrorKind::InvalidPermits, Some(4096)));
        }
    }
    other.expect_would_block(Call::Acquire(1, Try));
    other.expect_timed_out(Call::Acquire(1, Timeout(20)));
    let status = inspect(&path).unwrap();
    assert_eq!((status.kind(), status.capacity()), (StatusKind::Semaphore, Some(0)));
    assert_eq!(status.held_slots(), [0, 1]);
    assert!(held.still_held().unwrap());
    held.release().unwrap();
    assert_eq!(semaphore.available_permits().unwrap(), 0);
    other.expect_would_block(Call::Acquire(1, Try));
    assert_eq!(Semaphore::open(&path, 0).unwrap_err().kind(), ErrorKind::InvalidPermits);

    semaphore.set_capacity(2).unwrap();
    assert_eq!(semaphore.available_permits().unwrap(), 2);
    other.expect(Call::Acquire(2, Try), "0,1");
    let error = Semaphore::open(&path, 5).unwrap_err();
    assert_eq!((error.kind(), error.capacity()), (ErrorKind::CapacityMismatch, Some(2)));
}

/// Slots that were held before the pause still count after it.
#[test]
fn holders_from_before_a_pause_count_after_it() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    let permits = semaphore.acquire_many(4).unwrap();
    let other = Semaphore::open(&path, 4).unwrap();
    semaphore.set_capacity(0).unwrap();
    assert_eq!(other.capacity().unwrap(), 0);
    semaphore.set_capacity(2).unwrap();
    for handle in [&semaphore, &other] {
        assert_eq!(handle.available_permits().unwrap(), 0);
        assert!(handle.try_acquire().unwrap_err().is_would_block());
    }
    drop(permits);
    drop(other.try_acquire_many(2).unwrap());
}

/// The ways in which waiters are notified.
#[cfg(target_os = "linux")]
const KINDS: &[(u32, bool)] = &[(2, true), (1, true), (2, false), (1, false), (70, true)];

// Linux only: elsewhere waiters can overtake each other, and Wine has an order of its own.
#[cfg(target_os = "linux")]
#[test]
fn waiters_of_a_paused_semaphore_keep_their_places() {
    limit!();
    for (capacity, has_fifos) in KINDS {
        let (_dir, path) = dirs();
        let semaphore = Semaphore::open(&path, *capacity).unwrap();
        if !has_fifos {
            without_fifos(&path);
        }
        let held = semaphore.acquire_many(*capacity).unwrap();
        let mut waiters: Vec<Peer> =
            (0..3).map(|_| peer(&path, *capacity, LATE_BACKSTOP)).collect();
        crate::peer::semaphore::queue_up(&path, &mut waiters, 1);
        semaphore.set_capacity(0).unwrap();
        drop(held);
        // A new caller queues behind them.
        let mut last = peer(&path, *capacity, LATE_BACKSTOP);
        last.begin(Call::Acquire(1, Block));
        crate::support::until_blocked(&path.join("gate"), 3);
        assert_eq!(semaphore.available_permits().unwrap(), 0);
        assert!(waiters.iter_mut().all(Peer::is_silent) && last.is_silent());
        semaphore.set_capacity(1).unwrap();
        for waiter in &mut waiters {
            assert_eq!(waiter.finish(), "0");
            assert!(last.is_silent());
            waiter.run(Call::Release);
        }
        assert_eq!(last.finish(), "0");
    }
}

/// The first of them had gathered a permit, which a pause takes back.
#[test]
fn a_waiter_for_many_permits_continues_after_a_pause() {
    limit!();
    for has_fifos in [true, false] {
        let (_dir, path) = dirs();
        let semaphore = Semaphore::open(&path, 3).unwrap();
        if !has_fifos {
            without_fifos(&path);
        }
        let held = semaphore.acquire_many(2).unwrap();
        let mut waiter = peer(&path, 3, LATE_BACKSTOP);
        waiter.begin(Call::Acquire(3, Block));
        until_leader(&path, &waiter);
        crate::support::until_held(&path.join("slot.2"), waiter.id());
        semaphore.set_capacity(0).unwrap();
        crate::support::eventually("the waiter has released the slot", || {
            inspect(&path).unwrap().held_slots() == [0, 1]
        });
        semaphore.set_capacity(4).unwrap();
        assert!(waiter.is_silent());
        drop(held);
        waiter.finish();
        // A waiter for more permits than the semaphore has after the pause fails.
        semaphore.set_capacity(0).unwrap();
        let mut other = peer(&path, 3, LATE_BACKSTOP);
        other.begin(Call::Acquire(3, Async));
        until_leader(&path, &other);
        semaphore.set_capacity(2).unwrap();
        let error = other.answer().unwrap_err();
        assert!(error.contains("invalid number of permits"), "{error}");
    }
}

#[test]
fn a_waiter_of_a_paused_semaphore_can_give_up_or_die() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 1).unwrap();
    semaphore.set_capacity(0).unwrap();
    let mut dies = peer(&path, 1, LATE_BACKSTOP);
    dies.begin(Call::Acquire(1, Block));
    until_leader(&path, &dies);
    let mut future = Box::pin(semaphore.acquire_async());
    assert_waits(&mut future);
    dies.kill();
    assert_waits(&mut future);
    semaphore.set_capacity(1).unwrap();
    drop(block_on(future).unwrap());
    assert_eq!(semaphore.available_permits().unwrap(), 1);
}

#[test]
fn two_processes_adjust_the_capacity_and_lose_no_change() {
    limit!();
    let (_dir, path) = dirs();
    let times = if cfg!(windows) { 10 } else { 50 };
    let semaphore = Semaphore::open(&path, 3).unwrap();
    let mut peers: Vec<Peer> = (0..2).map(|_| peer(&path, 3, &[])).collect();
    for peer in &mut peers {
        peer.begin(Call::Adjust(1, times));
    }
    for peer in &mut peers {
        peer.finish();
    }
    assert_eq!(semaphore.capacity().unwrap(), 3 + 2 * times);
    for (peer, delta) in peers.iter_mut().zip([-1, -2]) {
        peer.begin(Call::Adjust(delta, times / 2));
    }
    for peer in &mut peers {
        peer.finish();
    }
    assert_eq!(semaphore.capacity().unwrap(), 3 + times / 2);
    assert_eq!(semaphore.adjust_capacity(0).unwrap(), 3 + times / 2);
}

#[test]
fn an_adjustment_beyond_the_limits_changes_nothing() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    for (delta, text) in [
        (-3, "-1 (must be 0 to 4096)"),
        (4095, "4097 (must be 0 to 4096)"),
        (i32::MIN, "-2147483646 (must be 0 to 4096)"),
        (i32::MAX, "2147483649 (must be 0 to 4096)"),
    ] {
        let error = semaphore.adjust_capacity(delta).unwrap_err();
        assert_eq!((error.kind(), error.capacity()), (ErrorKind::InvalidPermits, Some(4096)));
        assert!(error.to_string().ends_with(text), "{error}");
        assert_eq!(semaphore.capacity().unwrap(), 2);
    }
    // The waiter goes on when the pause ends.
    assert_eq!(semaphore.adjust_capacity(-2).unwrap(), 0);
    let mut waiter = peer(&path, 2, LATE_BACKSTOP);
    waiter.begin(Call::Acquire(1, Block));
    until_leader(&path, &waiter);
    assert_eq!(semaphore.adjust_capacity(1).unwrap(), 1);
    assert_eq!(waiter.finish(), "0");
}
