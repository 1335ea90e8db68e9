//! A semaphore whose capacity changes while its permits are held.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flockwork::Semaphore;

use crate::peer::LATE_BACKSTOP;
use crate::peer::Way::Block;
use crate::peer::semaphore::{Call, peer, until_leader};
use crate::semaphore::dirs;
use crate::support::until_held;

/// Acquires permits until a slot of each number from 0 is held, and returns them in order.
fn all_slots(semaphore: &Semaphore, capacity: u32) -> Vec<flockwork::Permit> {
    let mut permits: Vec<_> = (0..capacity).map(|_| semaphore.acquire().unwrap()).collect();
    permits.sort_by_key(|permit| permit.slots()[0]);
    permits
}

/// Another process holds slots 2 and 3 of a semaphore that shrinks from 4 permits to 2. A try must
/// fail until both are free, even if the semaphore shrinks once more.
#[test]
fn no_try_passes_permits_in_excess_during_a_shrink() {
    limit!();
    // Without the check of the generation, about one in 84 rounds failed.
    let most = if cfg!(windows) { 40 } else { 1500 };
    let (_dir, path) = dirs();
    let (holder, other) = (Semaphore::open(&path, 4).unwrap(), Semaphore::open(&path, 4).unwrap());
    for round in crate::support::rounds(most, Duration::from_secs(20)) {
        let mut permits = all_slots(&holder, 4);
        drop(permits.drain(..2));
        holder.set_capacity(2).unwrap();
        let is_over = AtomicBool::new(false);
        let admitted = crate::support::running::scope(|scope| {
            let tries = scope.spawn(|| {
                let mut admitted = None;
                while admitted.is_none() && !is_over.load(Ordering::SeqCst) {
                    admitted = other.try_acquire().ok();
                }
                admitted
            });
            let end = crate::support::running::on_drop(|| is_over.store(true, Ordering::SeqCst));
            holder.set_capacity(1).unwrap();
            drop(permits.remove(0)); // Slot 2: the capacity is used up now.
            std::thread::yield_now();
            drop(end);
            tries.join().unwrap()
        });
        assert!(
            admitted.is_none(),
            "round {round}: {admitted:?} was granted with {permits:?} held, of 1"
        );
        drop(permits);
        drop(holder.acquire().unwrap());
        holder.set_capacity(4).unwrap();
    }
}

/// The same race, one step at a time.
// Linux only: strace stops the process.
#[cfg(target_os = "linux")]
#[test]
fn a_try_notices_a_shrink_during_its_check() {
    limit!();
    use crate::peer::Request;
    use crate::peer::Way::Try;
    let (_dir, path) = dirs();
    let holder = Semaphore::open(&path, 4).unwrap();
    let mut permits = all_slots(&holder, 4);
    drop(permits.drain(..2));
    holder.set_capacity(2).unwrap();
    // The try acquires slots 0 and 1 first; strace stops it after that, before it checks slot 2.
    let Some(mut other) = crate::support::strace::strace(&[], "flock:signal=STOP:when=2") else {
        return;
    };
    other.run(Call::OpenExisting(path.clone()));
    let pid = other.run(Request::ProcessId).parse().unwrap();
    other.begin(Call::Acquire(1, Try));
    until_held(&path.join("slot.1"), pid);
    holder.set_capacity(1).unwrap();
    drop(permits.remove(0));
    let error = crate::support::strace::answer_of_stopped(&mut other).unwrap_err();
    assert!(error.starts_with("would-block"), "{error}, with {permits:?} held, of 1");
    drop(permits);
    other.expect(Call::Acquire(1, Try), "0");
}

/// A process that fails to read the new state of the semaphore must not use half of it.
// Linux only: strace makes a system call fail.
#[cfg(target_os = "linux")]
#[test]
fn a_failed_reread_of_a_resized_semaphore_changes_nothing() {
    limit!();
    use crate::peer::Way::Try;
    for call in ["getdents64:error=EIO:when=5", "getdents64:error=EIO:when=7"] {
        let (_dir, path) = dirs();
        let holder = Semaphore::open(&path, 5).unwrap();
        let mut permits = all_slots(&holder, 5);
        let Some(mut other) = crate::support::strace::strace(&[], call) else { return };
        other.run(Call::OpenExisting(path.clone()));
        drop(permits.drain(1..3));
        holder.set_capacity(3).unwrap();
        let answer = other.expect_error(Call::Acquire(1, Try));
        assert!(answer.contains(": could not list "), "{answer}");
        let answer = other.expect_error(Call::Acquire(1, Try));
        assert!(answer.starts_with("would-block"), "{answer}: all three permits are held");
        drop(permits);
        other.expect(Call::Acquire(3, Try), "0,1,2");
    }
}

/// A leader that restarted at each check would starve among processes that try in a loop.
#[test]
fn a_leader_keeps_what_it_gathered_while_slots_are_in_excess() {
    limit!();
    let (_dir, path) = dirs();
    let holder = Semaphore::open(&path, 6).unwrap();
    let mut permits = all_slots(&holder, 6);
    holder.set_capacity(5).unwrap();
    drop(permits.drain(1..5));
    // Slot 0 is held, and slot 5 is in excess: four permits need all other slots below 5.
    let mut leader = peer(&path, 5, LATE_BACKSTOP);
    leader.begin(Call::Acquire(4, Block));
    until_leader(&path, &leader);
    for slot in 1..5 {
        until_held(&path.join(format!("slot.{slot}")), leader.id());
    }
    let other = Semaphore::open(&path, 5).unwrap();
    for _ in 0..20 {
        assert!(other.try_acquire().unwrap_err().is_would_block());
    }
    assert!(leader.is_silent());
    drop(permits.pop()); // The slot in excess.
    assert_eq!(leader.finish(), "1,2,3,4");
    assert!(other.try_acquire().unwrap_err().is_would_block());
    drop(permits);
    drop(other.try_acquire().unwrap());
}

/// The leader has gathered a slot beyond the new capacity, and another thread of its handle reads
/// that capacity first.
#[test]
fn a_leader_returns_no_slot_beyond_a_capacity_that_shrank() {
    limit!();
    let most = if cfg!(windows) { 5 } else { 100 };
    for _ in crate::support::rounds(most, Duration::from_secs(20)) {
        let (_dir, path) = dirs();
        let (holder, handle) =
            (Semaphore::open(&path, 5).unwrap(), Semaphore::open(&path, 5).unwrap());
        let mut permits = all_slots(&holder, 5);
        let slots = crate::support::running::scope(|scope| {
            let leader = scope.spawn(|| handle.acquire_many_timeout(2, Duration::from_secs(60)));
            until_held(&path.join("gate"), std::process::id());
            drop(permits.pop()); // Slot 4.
            until_held(&path.join("slot.4"), std::process::id());
            let shrunk = holder.set_capacity(3).and_then(|()| handle.capacity());
            permits.truncate(1);
            assert_eq!(shrunk.unwrap(), 3);
            leader.join().unwrap().unwrap().slots().to_vec()
        });
        assert_eq!(slots, [1, 2]);
    }
}

/// Two administrators change the capacity independently.
#[test]
fn waiters_acquire_while_the_capacity_keeps_changing() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    let is_over = AtomicBool::new(false);
    let rounds = if cfg!(windows) { 10 } else { 200 };
    crate::support::running::scope(|scope| {
        let _end = crate::support::running::on_drop(|| is_over.store(true, Ordering::SeqCst));
        scope.spawn(|| {
            for capacity in (1..=4).cycle() {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                semaphore.set_capacity(capacity).unwrap();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let own = Semaphore::open_existing(&path).unwrap();
                scope.spawn(move || {
                    for _ in 0..rounds {
                        let permit = own.acquire_timeout(Duration::from_secs(60))?;
                        assert!(permit.slots()[0] < 4);
                        permit.release()?;
                    }
                    Ok::<_, flockwork::Error>(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap().unwrap();
        }
    });
}
