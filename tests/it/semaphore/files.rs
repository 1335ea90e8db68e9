//! The files of a semaphore: what its own rules do to them, and what other programs do.

use std::path::Path;

use flockwork::{ErrorKind, Semaphore};

use crate::peer::Way::{Block, Timeout, Try};
#[cfg(unix)]
use crate::peer::semaphore::until_leader;
use crate::peer::semaphore::{Call, peer};
use crate::semaphore::dirs;
#[cfg(unix)]
use crate::support::{eventually, until_held};

#[test]
fn an_invalid_capacity_file_is_corrupt() {
    limit!();
    let long = "9".repeat(1 << 20);
    for text in
        ["", "\n", "-0", "-1", "4 permits", "4097", "18446744073709551616", "\u{1b}[2J", &long]
    {
        let (_dir, path) = dirs();
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("capacity"), text).unwrap();
        for opened in [Semaphore::open(&path, 4), Semaphore::open_existing(&path)] {
            let error = opened.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert_eq!(error.path(), path.join("capacity"));
            assert!(!error.to_string().contains('\u{1b}'));
            assert!(error.to_string().contains("0 to 4096"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(path.join("capacity")).unwrap(), text);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "no other file is created");
    }
    // The capacity file is damaged while the semaphore is in use.
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    std::fs::write(path.join("capacity"), "four").unwrap();
    for error in [
        semaphore.capacity().unwrap_err(),
        semaphore.set_capacity(3).unwrap_err(),
        semaphore.acquire().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    std::fs::write(path.join("capacity"), "4\n").unwrap();
    drop(semaphore.acquire_many(4).unwrap());
}

#[test]
fn files_that_are_not_semaphores_are_rejected_and_left_alone() {
    limit!();
    let (dir, path) = dirs();
    std::fs::write(&path, "theirs").unwrap();
    let error = Semaphore::open(&path, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
    assert!(error.to_string().contains("not a directory"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");

    let other = dir.path().join("b.sem");
    std::fs::create_dir_all(other.join("capacity")).unwrap();
    let error = Semaphore::open(&other, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");

    let third = dir.path().join("c.sem");
    drop(Semaphore::open(&third, 2).unwrap());
    std::fs::remove_file(third.join("slot.0")).unwrap();
    std::fs::create_dir(third.join("slot.0")).unwrap();
    let semaphore = Semaphore::open(&third, 2).unwrap();
    let error = semaphore.acquire_many(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
    std::fs::remove_dir(third.join("slot.0")).unwrap();
    drop(semaphore.acquire_many(2).unwrap());
    for path in ["", "a\0b"] {
        assert!(Semaphore::open(path, 2).is_err());
    }
}

// Unix only: Wine creates no symbolic links. `windows` tests links where they exist.
#[cfg(unix)]
#[test]
fn a_symbolic_link_is_rejected_and_its_target_left_alone() {
    limit!();
    let (dir, path) = dirs();
    let target = dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    for path in [path.clone(), path.join("")] {
        let error = Semaphore::open(&path, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
    }
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
    // The same applies to links within the directory.
    let own = dir.path().join("own");
    let theirs = dir.path().join("theirs");
    std::fs::write(&theirs, "x").unwrap();
    for name in ["capacity", "gate", "waiters", "queued", "resized", "slot.0"] {
        std::fs::create_dir(&own).unwrap();
        std::os::unix::fs::symlink(&theirs, own.join(name)).unwrap();
        let failed = Semaphore::open(&own, 1).and_then(|semaphore| semaphore.acquire());
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::NotRegularFile, "{name}");
        std::fs::remove_dir_all(&own).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "x");
}

/// Holds all permits, damages the slot files with `harm`, and checks that neither existing nor new
/// handles acquire a permit. All permits must be available after the release.
///
/// Windows permits little of that while the files are open.
fn assert_none_is_admitted(harm: impl Fn(&Path)) {
    for permits in [1, 3] {
        let (_dir, path) = dirs();
        let mut holder = peer(&path, permits, &[]);
        holder.run(Call::Acquire(permits, Block));
        let mut old = peer(&path, permits, &[]);
        old.expect_would_block(Call::Acquire(1, Try));
        harm(&path);
        let mut new = peer(&path, permits, &[]);
        for peer in [&mut old, &mut new] {
            for way in [Try, Timeout(20)] {
                peer.expect_error(Call::Acquire(1, way));
            }
        }
        holder.run(Call::Release);
        for peer in [&mut old, &mut new, &mut holder] {
            peer.run(Call::Acquire(permits, Block));
            peer.run(Call::Release);
        }
    }
}

#[test]
fn removed_slot_files_grant_no_extra_permit() {
    limit!();
    assert_none_is_admitted(|path| {
        for slot in 0..3 {
            let _ = std::fs::remove_file(path.join(format!("slot.{slot}")));
        }
    });
    assert_none_is_admitted(|path| {
        let _ = std::fs::rename(path.join("slot.0"), path.join("elsewhere"));
    });
    assert_none_is_admitted(|path| {
        let removed = std::fs::remove_dir_all(path.join(".slots"));
        assert!(removed.is_ok() || cfg!(windows), "{removed:?}");
    });
}

#[test]
fn replaced_slot_files_grant_no_extra_permit() {
    limit!();
    assert_none_is_admitted(|path| {
        for slot in 0..3 {
            let _ = std::fs::remove_file(path.join(format!("slot.{slot}")));
            let written = std::fs::write(path.join(format!("slot.{slot}")), "");
            assert!(written.is_ok() || cfg!(windows), "{written:?}");
        }
    });
}

// Unix only: Windows refuses to remove or replace a slot file that is open.
#[cfg(unix)]
#[test]
fn a_permit_is_still_held_until_its_directory_is_replaced() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sem");
    let mut holder = peer(&path, 1, &[]);
    holder.run(Call::Acquire(1, Block));
    holder.expect(Call::StillHeld, true);
    // The next process restores the slot file, so the permit still counts.
    for harm in [
        |slot: &Path| std::fs::remove_file(slot).unwrap(),
        |slot: &Path| {
            std::fs::write(slot.with_extension("new"), "").unwrap();
            std::fs::rename(slot.with_extension("new"), slot).unwrap();
        },
    ] {
        harm(&path.join("slot.0"));
        holder.expect(Call::StillHeld, true);
        peer(&path, 1, &[]).expect_would_block(Call::Acquire(1, Try));
        holder.expect(Call::StillHeld, true);
    }
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    holder.expect(Call::StillHeld, false);
    let mut other = peer(&path, 1, &[]);
    other.run(Call::Acquire(1, Try));
    holder.expect(Call::StillHeld, false);
    other.expect(Call::StillHeld, true);
}

/// The next process that needs a removed file creates it again, and no process waits forever.
// Unix only: Windows does not remove files that are open.
#[cfg(unix)]
#[test]
fn removed_files_of_a_semaphore_are_recreated() {
    limit!();
    for name in ["capacity", "gate", "waiters", "queued", "resized"] {
        let (_dir, path) = dirs();
        let semaphore = Semaphore::open(&path, 2).unwrap();
        let held = semaphore.acquire_many(2).unwrap();
        let mut waiter = peer(&path, 2, &[]);
        waiter.begin(Call::Acquire(1, Block));
        until_leader(&path, &waiter);
        std::fs::remove_file(path.join(name)).unwrap();
        let mut other = peer(&path, 2, &[]);
        other.begin(Call::Acquire(1, Block));
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(held);
        for peer in [&mut waiter, &mut other] {
            peer.finish();
        }
        assert!(semaphore.try_acquire().unwrap_err().is_would_block(), "{name}");
        drop((waiter, other));
        eventually("all permits are free", || semaphore.available_permits().unwrap() == 2);
        drop(semaphore.acquire_many(2).unwrap());
    }
}

// Unix only: Windows does not remove the directory of an open semaphore.
#[cfg(unix)]
#[test]
fn a_removed_directory_is_recreated() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    drop(semaphore.acquire_many(2).unwrap());
    std::fs::remove_dir_all(&path).unwrap();
    let held = semaphore.acquire_many(2).unwrap();
    assert_eq!(std::fs::read_to_string(path.join("capacity")).unwrap(), "2\n");
    let other = Semaphore::open(&path, 2).unwrap();
    assert!(other.try_acquire().unwrap_err().is_would_block());
    // The directory is removed while a process waits.
    let mut waiter = peer(&path, 2, &[]);
    waiter.begin(Call::Acquire(1, Block));
    until_leader(&path, &waiter);
    std::fs::remove_dir_all(&path).unwrap();
    waiter.finish();
    drop(held);
    eventually("one permit is free", || semaphore.available_permits().unwrap() == 1);
}

// Unix only: mode bits. On Windows a file inherits the access list of its directory.
#[cfg(unix)]
#[test]
fn created_files_have_the_requested_access() {
    limit!();
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, path) = dirs();
    let options = flockwork::Options::new().access(flockwork::Access::Everyone).label("x");
    let semaphore = options.open_semaphore(&path, 2).unwrap();
    let held = semaphore.acquire_many(2).unwrap();
    semaphore.set_capacity(3).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in [".", ".slots", "holders"] {
        assert_eq!(mode(&path.join(name)), 0o777, "{name}");
    }
    for name in ["capacity", "gate", "waiters", "queued", "resized", "slot.0", "slot.1", "resize"] {
        assert_eq!(mode(&path.join(name)), 0o666, "{name}");
    }
    drop(held);
}

/// Another user may acquire and release permits, and can be waited for.
// Unix only: becomes another user, and sets mode bits.
#[cfg(unix)]
#[test]
fn a_user_with_read_permission_alone_can_acquire() {
    limit!();
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (dir, path) = dirs();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let semaphore = Semaphore::open(&path, 1).unwrap();
    drop(semaphore.acquire().unwrap());
    let mut other = crate::support::unprivileged::unprivileged();
    other.run(Call::OpenExisting(path.clone()));
    other.expect(Call::Acquire(1, Try), 0);
    assert!(semaphore.try_acquire().unwrap_err().is_would_block());
    crate::support::running::scope(|scope| {
        let waiter = scope.spawn(|| semaphore.acquire().unwrap());
        until_held(&path.join("gate"), std::process::id());
        other.run(Call::Release);
        let held = waiter.join().unwrap();
        other.begin(Call::Acquire(1, Block));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(other.is_silent());
        drop(held);
        assert_eq!(other.finish(), "0");
    });
    let failed = other.expect_error(Call::Resize(2));
    assert!(failed.starts_with("PermissionDenied: could not "), "{failed}");
}

/// A user who may not create files in the directory finds all slots of a semaphore that was only
/// opened.
// Unix only: becomes another user, and sets mode bits.
#[cfg(unix)]
#[test]
fn a_user_who_cannot_create_slots_uses_existing_ones() {
    limit!();
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (dir, path) = dirs();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let semaphore = Semaphore::open(&path, 3).unwrap();
    let mut other = crate::support::unprivileged::unprivileged();
    other.run(Call::OpenExisting(path.clone()));
    other.expect(Call::Acquire(3, Try), "0,1,2");
    other.run(Call::DropPermits);
    other.expect(Call::Available, 3);

    // It seems that the slot has not been created yet.
    let remove = |number: u32| {
        std::fs::remove_file(path.join(format!("slot.{number}"))).unwrap();
        std::fs::remove_file(path.join(format!(".slots/{number}"))).unwrap();
    };
    remove(2);
    let mut third = crate::support::unprivileged::unprivileged();
    third.run(Call::OpenExisting(path.clone()));
    third.run(Call::Acquire(1, Try));
    third.run(Call::Acquire(1, Try));
    third.expect(Call::Available, 0);
    third.expect_would_block(Call::Acquire(1, Try));
    // Each round is a race: the waiting process finds no file of slot 2 and may not create one, and
    // another process creates it before the first has looked again.
    let mut waiter = crate::support::unprivileged::unprivileged();
    for round in 0..30 {
        waiter.run(Call::OpenExisting(path.clone()));
        waiter.begin(Call::Acquire(1, Block));
        until_held(&path.join("gate"), waiter.id());
        if round == 0 {
            assert!(waiter.is_silent());
        }
        // This creates slot 2. The waiting process notices the file immediately and may lock it
        // first.
        drop(semaphore.try_acquire());
        assert_eq!(waiter.finish(), "2", "round {round}");
        waiter.run(Call::DropPermits);
        remove(2);
    }
    third.run(Call::DropPermits);

    (0..2).for_each(remove);
    let mut fourth = crate::support::unprivileged::unprivileged();
    fourth.run(Call::OpenExisting(path.clone()));
    let failed = fourth.expect_error(Call::Acquire(1, Try));
    assert!(failed.starts_with("PermissionDenied: could not create "), "{failed}");
}

/// The semaphore's creator was killed before it had created all of its files.
#[test]
fn opening_a_semaphore_creates_slots_that_are_missing() {
    limit!();
    let (_dir, path) = dirs();
    drop(Semaphore::open(&path, 100).unwrap());
    let slots = || (0..100).filter(|slot| path.join(format!("slot.{slot}")).exists()).count();
    assert_eq!(slots(), 100);
    for number in [0, 7, 99] {
        std::fs::remove_file(path.join(format!("slot.{number}"))).unwrap();
        // A slot has a second name on Unix.
        if cfg!(unix) {
            std::fs::remove_file(path.join(format!(".slots/{number}"))).unwrap();
        }
    }
    drop(Semaphore::open_existing(&path).unwrap());
    assert_eq!(slots(), 100);
    let small = path.with_extension("small");
    let semaphore = Semaphore::open(&small, 2).unwrap();
    semaphore.set_capacity(5).unwrap();
    assert!((0..5).all(|slot| small.join(format!("slot.{slot}")).exists()));
}

// Unix only: Windows has no limit of descriptors that a test can set.
#[cfg(unix)]
#[test]
fn running_out_of_descriptors_is_an_error_and_holds_nothing() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 100).unwrap();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap());
    let mut other = crate::peer::Peer::start_as(command);
    other.open_semaphore(&path, 100, &[]);
    let answer = other.expect_error(Call::Acquire(100, Block));
    assert!(answer.contains("ulimit -n") && answer.contains(": could not "), "{answer}");
    eventually("no permit is held", || semaphore.available_permits().unwrap() == 100);
    other.run(Call::Acquire(5, Block));
}
