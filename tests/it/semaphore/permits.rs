//! Permits that are split and merged.

use std::path::Path;
use std::time::Duration;

use flockwork::{Error, ErrorKind, Options, Permit, Semaphore, inspect};

use crate::peer::LATE_BACKSTOP;
use crate::peer::Way::{Block, Timeout};
use crate::peer::semaphore::{Call, Witness, peer, until_leader};
use crate::semaphore::dirs;
use crate::support::eventually;

#[test]
fn split_permits_are_released_one_after_the_other() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    let mut permit = semaphore.acquire_many(4).unwrap();
    let two = permit.split(2).unwrap();
    assert_eq!((permit.slots(), two.slots()), (&[0, 1][..], &[2, 3][..]));
    assert_eq!((permit.count(), two.count(), permit.slot(), two.slot()), (2, 2, 0, 2));
    assert_eq!((two.path(), semaphore.available_permits().unwrap()), (&*path, 0));
    // Each release is noticed without a check of the waiter itself.
    let mut other = peer(&path, 4, LATE_BACKSTOP);
    other.begin(Call::Acquire(2, Block));
    until_leader(&path, &other);
    assert!(other.is_silent());
    drop(two);
    assert_eq!(other.finish(), "2,3");
    other.begin(Call::Acquire(1, Block));
    until_leader(&path, &other);
    let one = permit.split(1).unwrap();
    assert!(other.is_silent());
    permit.release().unwrap();
    assert_eq!(other.finish(), "0");
    assert!(one.still_held().unwrap());
    drop(one);
    other.expect(Call::Acquire(1, Block), "1");
    drop(other);
    eventually("all permits are free", || semaphore.available_permits().unwrap() == 4);
}

#[test]
fn an_invalid_split_changes_nothing() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    let mut permit = semaphore.acquire_many(3).unwrap();
    for n in [0, 3, 4, u32::MAX] {
        let error = permit.split(n).unwrap_err();
        assert_eq!((error.kind(), error.capacity()), (ErrorKind::InvalidPermits, Some(2)));
        assert!(error.to_string().ends_with(&format!(": {n} (must be 1 to 2)")), "{error}");
    }
    assert_eq!((permit.slots(), permit.still_held().unwrap()), (&[0, 1, 2][..], true));
    let mut one = permit.split(1).unwrap();
    for n in [0, 1, 2] {
        let error = one.split(n).unwrap_err();
        assert_eq!((error.kind(), error.capacity()), (ErrorKind::InvalidPermits, Some(0)));
        assert!(error.to_string().ends_with("(a single permit cannot be split)"), "{error}");
    }
    let error = permit.split(2).unwrap_err();
    assert!(error.to_string().ends_with("2 (must be 1)"), "{error}");
    assert_eq!(semaphore.available_permits().unwrap(), 1);
}

/// A slot that its handle takes for held would never be tried again.
#[test]
fn permits_of_two_handles_are_merged_and_released() {
    limit!();
    let (_dir, path) = dirs();
    let (one, two) = (Semaphore::open(&path, 4).unwrap(), Semaphore::open(&path, 4).unwrap());
    for _ in 0..3 {
        let mut permit = one.acquire_many(2).unwrap();
        permit.merge(two.acquire().unwrap()).unwrap();
        permit.merge(one.acquire().unwrap()).unwrap();
        assert_eq!(permit.slots(), [0, 1, 2, 3]);
        assert!(permit.still_held().unwrap());
        for handle in [&one, &two] {
            assert!(handle.try_acquire().unwrap_err().is_would_block());
            assert_eq!(handle.available_permits().unwrap(), 0);
        }
        permit.release().unwrap();
        for handle in [&one, &two] {
            assert_eq!(handle.available_permits().unwrap(), 4);
            drop(handle.try_acquire_many(4).unwrap());
        }
    }
    // Also after one of the handles is gone.
    let mut permit = one.acquire().unwrap();
    permit.merge(two.acquire_many(3).unwrap()).unwrap();
    drop(two);
    let rest = permit.split(3).unwrap();
    drop(permit);
    assert_eq!(one.available_permits().unwrap(), 1);
    drop(rest);
    drop(one.try_acquire_many(4).unwrap());
}

#[test]
fn a_failed_merge_returns_the_other_permit() {
    limit!();
    let (dir, path) = dirs();
    let one = Semaphore::open(&path, 2).unwrap();
    let two = Semaphore::open(dir.path().join("b.sem"), 2).unwrap();
    let mut permit = one.acquire().unwrap();
    let failed = permit.merge(two.acquire().unwrap()).unwrap_err();
    assert!(failed.to_string().ends_with("the permits are of different semaphores"), "{failed}");
    assert_eq!(two.available_permits().unwrap(), 1);
    let other = failed.into_permit();
    assert_eq!((other.path(), other.slots()), (two.path(), &[0][..]));
    other.release().unwrap();
    assert_eq!(two.available_permits().unwrap(), 2);
    // Passed on, the error releases the permit.
    let mut merge = || -> Result<(), Error> { Ok(permit.merge(two.acquire()?)?) };
    assert_eq!(merge().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(two.available_permits().unwrap(), 2);
    assert_eq!((permit.slots(), one.available_permits().unwrap()), (&[0][..], 1));
}

// Unix only: a directory that is in use cannot be removed on Windows.
#[cfg(unix)]
#[test]
fn permits_of_a_replaced_directory_are_not_merged() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    let mut old = semaphore.acquire_many(2).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    let new = semaphore.acquire().unwrap();
    assert!(!old.still_held().unwrap());
    let new = old.merge(new).unwrap_err().into_permit();
    // The parts of the old permit are still of one directory.
    let part = old.split(1).unwrap();
    assert!(!part.still_held().unwrap());
    old.merge(part).unwrap();
    assert_eq!(old.slots(), [0, 1]);
    drop(old);
    assert!(new.still_held().unwrap());
    assert_eq!(semaphore.available_permits().unwrap(), 1);
}

#[test]
fn records_move_with_the_slots_of_a_split_permit() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Options::new().label("part").open_semaphore(&path, 3).unwrap();
    let mut permit = semaphore.acquire_many(3).unwrap();
    let part = permit.split(2).unwrap();
    let recorded = |slots: &[u32]| {
        let holders = semaphore.holders().unwrap();
        let named: Vec<_> = holders.iter().filter_map(flockwork::Holder::slot).collect();
        assert_eq!(named, slots);
        assert!(holders.iter().all(|holder| holder.label() == Some("part")), "{holders:?}");
        assert_eq!(inspect(&path).unwrap().held_slots(), slots);
        let record = |slot: u32| path.join(format!("holders/slot.{slot}")).exists();
        let found: Vec<_> = (0..3).filter(|slot| record(*slot)).collect();
        assert_eq!(found, slots);
    };
    recorded(&[0, 1, 2]);
    drop(part);
    recorded(&[0]);
    permit.merge(semaphore.acquire_many(2).unwrap()).unwrap();
    recorded(&[0, 1, 2]);
    permit.release().unwrap();
    recorded(&[]);
}

#[test]
fn was_abandoned_is_that_of_the_slots_of_a_part() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Options::new().record_holder(true).open_semaphore(&path, 2).unwrap();
    let first = semaphore.acquire().unwrap();
    let mut other = crate::peer::Peer::start();
    other.open_semaphore(&path, 2, &[crate::peer::Setting::Label("dies".into())]);
    other.expect(Call::Acquire(1, Block), "1");
    other.kill();
    drop(first);
    let mut permit = semaphore.acquire_many(2).unwrap();
    assert!(permit.was_abandoned());
    let part = permit.split(1).unwrap();
    assert_eq!((part.slots(), part.was_abandoned()), (&[1][..], true));
    assert!(!permit.was_abandoned());
    permit.merge(part).unwrap();
    assert!(permit.was_abandoned());
}

#[test]
fn the_death_of_a_holder_releases_all_parts_of_its_permit() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    let mut other = peer(&path, 4, &[]);
    other.expect(Call::Acquire(3, Block), "0,1,2");
    other.expect(Call::Split(1), "2");
    other.expect(Call::Split(1), "1");
    other.expect(Call::Acquire(1, Block), "3");
    other.run(Call::Release); // slot 0
    assert_eq!(semaphore.available_permits().unwrap(), 1);
    other.expect(Call::Merge, "1,2");
    let mut waiter = peer(&path, 4, &[]);
    waiter.begin(Call::Acquire(4, Block));
    until_leader(&path, &waiter);
    assert!(waiter.is_silent());
    other.kill();
    assert_eq!(waiter.finish(), "0,1,2,3");
}

// Unix only: Windows has no fork.
#[cfg(unix)]
#[test]
fn a_forked_copy_of_a_permit_is_neither_split_nor_merged() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    let mut other = peer(&path, 4, &[]);
    other.run(Call::Acquire(2, Block));
    other.run(Call::Acquire(1, Block));
    other.expect(Call::SplitAndMergeInFork, 0);
    assert_eq!(semaphore.available_permits().unwrap(), 1, "the copy released something");
    other.expect(Call::Merge, "0,1,2");
    other.expect(Call::DropPermitsInFork, 0);
    assert_eq!(semaphore.available_permits().unwrap(), 1);
    other.run(Call::DropPermits);
    assert_eq!(semaphore.available_permits().unwrap(), 4);
}

/// The parts are released in other threads, while another process acquires the same slots.
#[test]
fn parts_are_released_in_other_threads() {
    limit!();
    let (dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    let rounds = if cfg!(windows) { 20 } else { 200 };
    let mut other = peer(&path, 4, &[]);
    other.begin(Call::Churn(dir.path().into(), 2, rounds, vec![Block, Timeout(60_000)]));
    let witnessed = |permit: &Permit| -> Vec<Witness> {
        let enter = |slot: &u32| Witness::enter(dir.path(), *slot).unwrap();
        permit.slots().iter().map(enter).collect()
    };
    for _ in crate::support::rounds(rounds, Duration::from_secs(20)) {
        let mut rest = semaphore.acquire_many(4).unwrap();
        let parts: Vec<_> = (0..3).map(|_| rest.split(1).unwrap()).collect();
        crate::support::running::scope(|scope| {
            for part in parts.into_iter().chain([rest]) {
                scope.spawn(|| {
                    drop(witnessed(&part));
                    drop(part);
                });
            }
        });
    }
    other.finish();
    assert_eq!(slots_of_all(&path), [0, 1, 2, 3]);
}

fn slots_of_all(path: &Path) -> Vec<u32> {
    let semaphore = Semaphore::open_existing(path).unwrap();
    semaphore.acquire_many(semaphore.capacity().unwrap()).unwrap().slots().to_vec()
}
