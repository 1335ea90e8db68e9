//! `RwLock` between processes and threads: exclusion, order, and holders and waiters that die or
//! stop.

use std::time::Duration;

use flockwork::{Options, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::peer::Way::{Block, Deadline, Timeout, Try};
use crate::peer::rwlock::{Call, gate, peer, until_in_turnstile};
use crate::peer::{LATE_BACKSTOP, Peer, Way, label};
use crate::support::{assert_waits, eventually, until_blocked, until_held};

#[test]
fn readers_share_and_a_writer_excludes_other_processes() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let lock = RwLock::open(&path).unwrap();
    let mut other = peer(&path, &[]);

    let reading = lock.read().unwrap();
    other.run(Call::Read(Try));
    other.expect_would_block(Call::Write(Try));
    assert!(lock.try_write().unwrap_err().is_would_block());
    other.run(Call::Unlock);
    reading.unlock().unwrap();

    let writing = lock.write().unwrap();
    other.expect_would_block(Call::Read(Try));
    other.expect_would_block(Call::Write(Try));
    other.expect_timed_out(Call::Read(Timeout(0)));
    other.expect_timed_out(Call::Write(Deadline(10)));
    writing.unlock().unwrap();
    // This is not a try, because the lock may be granted once more to the helper of the wait that
    // timed out.
    other.run(Call::Write(Timeout(100_000)));
    assert!(lock.try_read().unwrap_err().is_would_block());
    assert!(lock.read_timeout(Duration::from_millis(10)).unwrap_err().is_timed_out());
    other.run(Call::DropGuards);
    drop(lock.try_read().unwrap());
}

/// Another user may read the file, but cannot create files in its directory.
// Unix only: mode bits and another user.
#[cfg(unix)]
#[test]
fn without_a_turnstile_the_lock_file_alone_is_locked() {
    limit!();
    use crate::peer::Way::Async;
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let set_mode = |mode| {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let path = dir.path().join("data.lock");
    std::fs::write(&path, "").unwrap();
    set_mode(0o555);
    let mut other = crate::support::unprivileged::unprivileged();
    other.open_rwlock(&path, &[]);
    let file = flockwork::Lock::open(&path).unwrap(); // It needs no turnstile.
    for call in [Call::Read, Call::Write] {
        for way in [Block, Try, Timeout(100_000), Deadline(100_000), Async] {
            let held = file.lock().unwrap();
            other.expect_would_block(call(Try));
            other.expect_timed_out(call(Timeout(5)));
            if way == Try {
                drop(held);
                crate::support::eventually("the lock is free", || other.ask(call(Try)).is_ok());
            } else {
                other.begin(call(way));
                until_blocked(&path, 1);
                drop(held);
                other.finish();
            }
            assert!(file.try_lock().unwrap_err().is_would_block());
            other.run(Call::Unlock);
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // Once a turnstile exists, waiters use it.
    set_mode(0o755);
    let lock = RwLock::open(&path).unwrap();
    set_mode(0o555);
    let reading = lock.read().unwrap();
    let mut writer = peer(&path, &[]);
    writer.begin(Call::Write(Block));
    until_in_turnstile(&path);
    other.expect_would_block(Call::Read(Try));
    drop(reading);
    writer.finish();
    set_mode(0o755);
}

#[test]
fn threads_exclude_each_other_through_one_handle() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = RwLock::open(dir.path().join("data.lock")).unwrap();
    let reading = lock.read().unwrap();
    crate::support::running::scope(|scope| {
        scope.spawn(|| drop(lock.try_read().unwrap()));
        scope.spawn(|| assert!(lock.clone().try_write().unwrap_err().is_would_block()));
    });
    drop(reading);
    let writing = lock.write().unwrap();
    crate::support::running::scope(|scope| {
        scope.spawn(|| assert!(lock.try_read().unwrap_err().is_would_block()));
    });
    std::thread::spawn(move || drop(writing)).join().unwrap();
    drop(lock.try_write().unwrap());
}

#[test]
fn two_read_guards_of_one_handle_are_independent() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let lock = RwLock::open(&path).unwrap();
    let mut other = peer(&path, &[]);
    let (one, two) = (lock.read().unwrap(), lock.read().unwrap());
    drop(one);
    other.expect_would_block(Call::Write(Try));
    let three = lock.read().unwrap();
    two.unlock().unwrap();
    other.expect_would_block(Call::Write(Try));
    drop(lock);
    other.expect_would_block(Call::Write(Try));
    drop(three);
    other.run(Call::Write(Try));
}

#[test]
fn handles_and_guards_can_be_sent_and_shared() {
    limit!();
    fn is<T: Send + Sync + 'static>() {}
    fn is_a_future<T: Send + 'static>(_: T) {}
    is::<RwLock>();
    is::<RwLockReadGuard>();
    is::<RwLockWriteGuard>();
    let dir = tempfile::tempdir().unwrap();
    let lock = RwLock::open(dir.path().join("data.lock")).unwrap();
    is_a_future(lock.read_async());
    is_a_future(lock.write_async());
}

/// Each form of wait acquires the lock after a release, a dropped guard and a killed holder.
#[test]
fn a_release_or_a_death_wakes_a_waiter_of_every_form() {
    limit!();
    let releases: [fn(&mut Peer); 3] =
        [|peer| drop(peer.run(Call::Unlock)), |peer| drop(peer.run(Call::DropGuards)), Peer::kill];
    for (number, way) in Way::WAITING.iter().enumerate() {
        for (held, wanted) in [
            (Call::Write(Block), Call::Read(*way)),
            (Call::Write(Block), Call::Write(*way)),
            (Call::Read(Block), Call::Write(*way)),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data.lock");
            let (mut holder, mut waiter) = (peer(&path, &[]), peer(&path, &[]));
            holder.run(held);
            waiter.begin(wanted);
            until_blocked(&path, 1);
            assert!(waiter.is_silent());
            releases[number % 3](&mut holder);
            waiter.finish();
        }
    }
}

#[test]
fn a_writer_waits_for_earlier_readers_and_blocks_later_ones() {
    limit!();
    for way in Way::WAITING {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        // With the default interval of rule R3, they would pass a writer that runs late.
        let open = || peer(&path, LATE_BACKSTOP);
        let (mut first, mut writer, mut second, mut third) = (open(), open(), open(), open());
        first.run(Call::Read(Block));
        writer.begin(Call::Write(way));
        until_in_turnstile(&path);
        until_blocked(&path, 1);
        second.begin(Call::Read(way));
        until_blocked(&gate(&path), 1);
        third.begin(Call::Write(way));
        until_blocked(&gate(&path), 2);
        // The second reader could share the lock with the first, but neither a wait nor a try
        // passes the writer.
        peer(&path, &[]).expect_would_block(Call::Read(Try));
        assert!(second.is_silent() && writer.is_silent());
        first.run(Call::Unlock);
        writer.finish();
        until_blocked(&path, 1);
        assert!(second.is_silent());
        writer.run(Call::Unlock);
        // Two neighbors at the turnstile may swap places: if another caller tries the turnstile at
        // the moment when the first of them is woken, that one begins to wait again. (Wine does not
        // keep their order either.)
        let mut first = None;
        eventually("one of them has acquired the lock", || {
            first = [&mut second, &mut third].iter_mut().position(|peer| {
                peer.has_answered().inspect(|answer| assert!(answer.is_ok())).is_some()
            });
            first.is_some()
        });
        let (first, last) =
            if first == Some(0) { (&mut second, &mut third) } else { (&mut third, &mut second) };
        until_blocked(&path, 1);
        assert!(last.is_silent());
        first.run(Call::Unlock);
        last.finish();
    }
}

/// Plain flock would starve the writer.
#[test]
fn overlapping_readers_do_not_starve_writers_or_vice_versa() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let (path, end) = (dir.path().join("data.lock"), dir.path().join("end"));
    let mut readers: Vec<Peer> = (0..4).map(|_| peer(&path, &[])).collect();
    for (reader, ms) in readers.iter_mut().zip([3, 4, 5, 7]) {
        reader.begin(Call::ReadUntil(end.clone(), ms));
    }
    let writing = RwLock::open(&path).unwrap();
    let mut writes = 0;
    eventually("each reader has read", || {
        drop(writing.write().unwrap());
        drop(futures_lite::future::block_on(writing.write_async()).unwrap());
        writes += 2;
        readers.iter().all(|reader| dir.path().join(format!("end.{}", reader.id())).exists())
    });
    for _ in writes..120 {
        drop(writing.write().unwrap());
    }
    std::fs::write(&end, "").unwrap();
    for reader in &mut readers {
        let reads: u32 = reader.finish().parse().unwrap();
        assert!(reads >= 5, "{reads}");
    }
}

#[test]
fn a_downgrade_admits_readers_and_no_waiting_writer() {
    limit!();
    for way in Way::WAITING {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        let lock = RwLock::open(&path).unwrap();
        // With the default interval of rule R3, the reader would pass a writer that runs late.
        let (mut writer, mut reader) = (peer(&path, LATE_BACKSTOP), peer(&path, LATE_BACKSTOP));
        let writing = lock.write().unwrap();
        writer.begin(Call::Write(way));
        until_in_turnstile(&path);
        until_blocked(&path, 1);
        reader.begin(Call::Read(way));
        until_blocked(&gate(&path), 1);
        let reading = writing.downgrade().unwrap();
        // The writer is first in the turnstile, and now waits for a reader.
        until_blocked(&path, 1);
        assert!(writer.is_silent() && reader.is_silent());
        assert_eq!(reading.path(), path);
        reading.unlock().unwrap();
        writer.finish();
        writer.run(Call::Downgrade);
        reader.finish();
        assert!(lock.try_write().unwrap_err().is_would_block());
        drop(lock.try_read().unwrap());
    }
}

/// Writers wait in the kernel all the time, and one of them would acquire the lock between two
/// steps of a downgrade.
#[test]
fn each_downgrade_is_atomic_for_a_waiting_writer() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let (path, inside) = (dir.path().join("data.lock"), dir.path().join("inside"));
    let lock = RwLock::open(&path).unwrap();
    let mut peers: Vec<Peer> = (0..3).map(|_| peer(&path, &[])).collect();
    for peer in &mut peers {
        peer.begin(Call::Churn(inside.clone(), 300, 1));
    }
    for _ in 0..300 {
        let reading = lock.write().unwrap().downgrade().unwrap();
        drop(reading);
    }
    for peer in &mut peers {
        peer.finish();
    }
}

#[test]
fn writers_exclude_all_processes_in_every_form() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let (path, witness) = (dir.path().join("data.lock"), dir.path().join("witness"));
    let mut peers: Vec<Peer> = (0..6).map(|_| peer(&path, &[])).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        let writes = [2, 3, 5][number % 3];
        peer.begin(Call::Churn(witness.clone(), 150, writes));
    }
    for peer in &mut peers {
        peer.finish();
    }
}

#[test]
fn killed_waiters_block_no_other_waiter() {
    limit!();
    for way in Way::WAITING {
        for wanted in [Call::Read, Call::Write] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data.lock");
            let (mut holder, mut waiter) = (peer(&path, &[]), peer(&path, &[]));
            let (mut in_turnstile, mut at_turnstile) = (peer(&path, &[]), peer(&path, &[]));
            holder.run(Call::Write(Block));
            in_turnstile.begin(wanted(way));
            until_blocked(&path, 1);
            at_turnstile.begin(wanted(way));
            until_blocked(&gate(&path), 1);
            waiter.begin(Call::Write(way));
            until_blocked(&gate(&path), 2);
            in_turnstile.kill();
            at_turnstile.kill();
            until_held(&gate(&path), waiter.id());
            assert!(waiter.is_silent());
            holder.run(Call::Unlock);
            waiter.finish();
        }
    }
}

#[test]
fn a_cancelled_waiter_keeps_neither_turnstile_nor_lock() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let lock = RwLock::open(&path).unwrap();
    let mut other = peer(&path, &[]);
    let writing = lock.write().unwrap();
    for call in [Call::Read(Timeout(20)), Call::Write(Timeout(20))] {
        other.expect_timed_out(call);
    }
    other.run(Call::DropReadFutures(50));
    other.run(Call::DropWriteFutures(50));
    drop(writing);
    drop(lock.write_timeout(Duration::from_secs(100)).unwrap());
    other.run(Call::Write(Block));
    other.run(Call::Unlock);
    drop(lock.read().unwrap());
}

#[test]
fn futures_acquire_in_order_and_a_dropped_one_hands_over() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = RwLock::open(dir.path().join("data.lock")).unwrap();
    let writing = lock.write().unwrap();
    let mut dropped = Box::pin(lock.write_async());
    let mut first = Box::pin(lock.read_async());
    let mut second = Box::pin(lock.read_async());
    assert_waits(&mut dropped);
    assert_waits(&mut first);
    assert_waits(&mut second);
    drop(dropped);
    assert_waits(&mut first);
    drop(writing);
    let both = futures_lite::future::block_on(futures_lite::future::zip(first, second));
    let (_first, _second) = (both.0.unwrap(), both.1.unwrap());
    assert!(lock.try_write().unwrap_err().is_would_block());
}

#[test]
fn a_finished_future_that_is_kept_holds_nothing() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = RwLock::open(dir.path().join("data.lock")).unwrap();
    let writing = lock.write().unwrap();
    let (mut first, mut second) = (Box::pin(lock.write_async()), Box::pin(lock.read_async()));
    assert_waits(&mut first);
    drop(writing);
    drop(futures_lite::future::block_on(&mut first).unwrap());
    let reading = futures_lite::future::block_on(&mut second).unwrap();
    drop(lock.try_read().unwrap());
    drop(reading);
    drop(lock.try_write().unwrap());
    drop((first, second));
}

#[test]
fn readers_and_writers_are_distinguished() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let (mut one, mut two) = (peer(&path, &[label("one")]), peer(&path, &[label("two")]));
    let plain = Options::new().open_rwlock(&path).unwrap();
    assert_eq!(plain.holders().unwrap(), []);
    one.run(Call::Read(Block));
    two.run(Call::Read(Block));
    let labels = |lock: &RwLock| -> Vec<Option<String>> {
        lock.holders().unwrap().iter().map(|holder| holder.label().map(String::from)).collect()
    };
    assert_eq!(labels(&plain), [Some("one".into()), Some("two".into())]);
    let error = plain.write_timeout(Duration::from_millis(10)).unwrap_err();
    assert!(error.to_string().contains("\"one\""), "{error}");
    assert!(error.to_string().contains("and 1 more"), "{error}");
    // The record of a dead reader is ignored.
    one.kill();
    assert_eq!(labels(&plain), [Some("two".into())]);
    two.run(Call::Unlock);
    // The helper of the wait that timed out acquires the lock for a moment.
    eventually("the lock is free", || plain.holders().unwrap().is_empty());
    two.run(Call::Read(Block));
    two.run(Call::Read(Block));
    assert_eq!(labels(&plain), [Some("two".into()), Some("two".into())]);
    two.run(Call::DropGuards);
    let records = || std::fs::read_dir(dir.path().join("data.lock.holders")).unwrap().count();
    assert!(records() <= 1, "at most the dead reader's record is left");
    two.run(Call::Write(Block));
    assert_eq!(labels(&plain), [Some("two".into())]);
    assert!(dir.path().join("data.lock.holder").exists());
    two.run(Call::Downgrade);
    assert_eq!(labels(&plain), [Some("two".into())]);
    assert!(!dir.path().join("data.lock.holder").exists());
    assert_eq!(records(), 1);
    two.kill();
    let again = Options::new().record_holder(true).open_rwlock(&path).unwrap();
    drop(again.write().unwrap());
    assert_eq!(records(), 0);
}

#[test]
fn a_readers_record_exists_while_another_process_inspects() {
    limit!();
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let (plain, done) = (RwLock::open(&path).unwrap(), AtomicBool::new(false));
    crate::support::running::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                plain.holders().unwrap();
            }
        });
        let _end = crate::support::running::on_drop(|| done.store(true, Ordering::Relaxed));
        let lock = Options::new().label("reader").open_rwlock(&path).unwrap();
        let is_missing = |_: &u32| {
            let _reading = lock.read().unwrap();
            let holders = lock.holders().unwrap();
            holders.iter().all(|holder| holder.label() != Some("reader"))
        };
        let missing = (0..300).filter(is_missing).count();
        // On Windows an inspecting process can get in the way of a reader's record, because opening
        // the record is how it learns that the reader is alive.
        assert!(missing == 0 || cfg!(windows), "{missing} of 300");
    });
}

#[test]
fn readers_and_the_next_writer_learn_that_a_writer_died() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let mut writer = peer(&path, &[label("importer")]);
    writer.run(Call::Write(Block));
    writer.kill();
    let lock = RwLock::open(&path).unwrap();
    let (one, two) = (lock.read().unwrap(), lock.read().unwrap());
    assert!(one.was_abandoned() && two.was_abandoned());
    drop((one, two));
    assert!(lock.write().unwrap().was_abandoned());
    assert!(!lock.write().unwrap().was_abandoned());
    assert!(!lock.read().unwrap().was_abandoned());
}

#[test]
fn a_callback_is_called_for_both_and_polling_works() {
    limit!();
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let called = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&called);
    let options = Options::new()
        .on_wait(Duration::from_millis(5), Duration::from_millis(5), move |waiting| {
            assert!(waiting.path().ends_with("data.lock"));
            count.fetch_add(1, Ordering::SeqCst);
        })
        .poll_interval(Duration::from_millis(2));
    let lock = options.open_rwlock(&path).unwrap();
    let mut other = peer(&path, &[]);
    other.run(Call::Write(Block));
    // On a busy machine the timeout may pass before this thread runs again.
    let timeout = Duration::from_millis(50);
    eventually("the callback of a reader is called", || {
        assert!(lock.read_timeout(timeout).unwrap_err().is_timed_out());
        called.swap(0, Ordering::SeqCst) > 0
    });
    eventually("the callback of a writer is called", || {
        assert!(lock.write_timeout(timeout).unwrap_err().is_timed_out());
        called.swap(0, Ordering::SeqCst) > 0
    });
    let (lock, waiter) = (lock.clone(), std::thread::spawn(move || lock.write().map(drop)));
    other.run(Call::Unlock);
    waiter.join().unwrap().unwrap();
    drop(lock.read().unwrap());
}

#[test]
fn removed_files_are_recreated_without_breaking_exclusion() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/data.lock");
    let lock = RwLock::open(&path).unwrap();
    drop(lock.write().unwrap());
    if cfg!(unix) {
        std::fs::remove_dir_all(dir.path().join("deep")).unwrap();
        drop(lock.write().unwrap());
        assert!(path.exists() && gate(&path).exists());
        let reading = lock.read().unwrap();
        std::fs::remove_file(gate(&path)).unwrap();
        assert!(RwLock::open(&path).unwrap().try_write().unwrap_err().is_would_block());
        drop(reading);
    }
    drop(lock.try_write().unwrap());
}

#[test]
fn special_files_are_rejected_as_lock_file_and_as_turnstile() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    std::fs::create_dir(&path).unwrap();
    let error = RwLock::open(&path).unwrap_err();
    assert_eq!(error.kind(), flockwork::ErrorKind::NotRegularFile, "{error}");
    std::fs::remove_dir(&path).unwrap();
    std::fs::create_dir(gate(&path)).unwrap();
    let error = RwLock::open(&path).unwrap_err();
    assert_eq!(error.kind(), flockwork::ErrorKind::NotRegularFile, "{error}");
    assert_eq!(error.path(), gate(&path));
}

#[test]
fn readers_are_distinguished_and_a_blocking_waiter_is_named() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let lock = Options::new().label("reading").open_rwlock(&path).unwrap();
    let mut writer = peer(&path, &[]);
    let reading = lock.read().unwrap();
    assert!(lock.holders().unwrap()[0].is_shared());
    let error = lock.try_write().unwrap_err();
    let hint = error.hint().unwrap();
    assert!(error.holders()[0].is_this_process());
    assert_eq!(error.hint(), Some(hint));
    assert!(hint.contains("release this process's own guard first"), "{hint}");
    writer.begin(Call::Write(Block));
    until_in_turnstile(&path);
    until_blocked(&path, 1);
    let failed = lock.try_read().unwrap_err();
    let late = lock.read_timeout(Duration::from_millis(10)).unwrap_err();
    for error in [&failed, &late] {
        let [holder] = error.holders() else { panic!("{:?}", error.holders()) };
        assert_eq!((holder.label(), holder.is_shared()), (Some("reading"), true));
    }
    assert_eq!(failed.to_string(), format!("`{}` is busy", path.display()));
    let at_once = lock.read_timeout(Duration::ZERO).unwrap_err();
    let waits = format!("waited for by process {}", writer.id());
    for text in [late.to_string(), at_once.to_string(), format!("{failed:#}")] {
        assert!(text.contains("\"reading\"") && text.contains(", shared"), "{text}");
        // Only Linux names the holder of a lock without a record.
        assert!(text.contains(&waits) || !cfg!(target_os = "linux"), "{text}");
    }
    drop(reading);
    writer.finish();
    let holders = lock.holders().unwrap();
    assert!(holders.iter().all(|holder| !holder.is_shared()), "{holders:?}");
}

#[test]
fn a_lock_at_the_same_path_is_a_writer() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let (lock, plain) = (RwLock::open(&path).unwrap(), flockwork::Lock::open(&path).unwrap());
    let reading = lock.read().unwrap();
    assert!(plain.try_lock().unwrap_err().is_would_block());
    drop(reading);
    let _held = plain.lock().unwrap();
    assert!(lock.try_read().unwrap_err().is_would_block());
    assert!(lock.try_write().unwrap_err().is_would_block());
}

#[test]
fn files_at_record_names_that_are_not_records_are_left_alone() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.lock");
    let (victim, holders) = (dir.path().join("victim"), dir.path().join("data.lock.holders"));
    std::fs::create_dir(&victim).unwrap();
    let record = "flockwork holder 1\npid 1\nend\n";
    for (name, text) in
        [("empty.new", ""), ("record", record), (".flockwork.0123456789abcdef", record)]
    {
        std::fs::write(victim.join(name), text).unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(&victim, &holders).unwrap();
    let lock = Options::new().label("x").open_rwlock(&path).unwrap();
    drop(lock.write().unwrap());
    drop((lock.read().unwrap(), lock.read().unwrap()));
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 3);
    // In a directory of that name, only files with a name of this crate are removed.
    if cfg!(unix) {
        std::fs::remove_file(&holders).unwrap();
    } else {
        std::fs::remove_dir(&holders).unwrap();
    }
    std::fs::rename(&victim, &holders).unwrap();
    drop(lock.write().unwrap());
    assert_eq!(std::fs::read_dir(&holders).unwrap().count(), 2);
    assert!(holders.join("empty.new").exists() && holders.join("record").exists());
}

// Unix only: stops processes, forks, and identifies files by inode number.
#[cfg(unix)]
mod signals {
    use std::path::Path;

    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

    use super::*;

    fn signal(peer: &Peer, signal: Signal) {
        let pid = Pid::from_raw(peer.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        if signal == Signal::STOP {
            // All threads must have stopped: the lock could be granted to one that still runs.
            waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
        }
    }

    /// Returns a stopped peer that is first in the turnstile.
    fn stopped(path: &Path, way: Way) -> Peer {
        let mut stopped = peer(path, &[]);
        stopped.begin(Call::Write(way));
        until_held(&gate(path), stopped.id());
        until_blocked(path, 1);
        signal(&stopped, Signal::STOP);
        stopped
    }

    /// Other waiters pass a stopped process that waits for the lock (rule R3).
    #[test]
    fn a_waiter_stopped_in_the_turnstile_delays_others_briefly() {
        limit!();
        for way in Way::WAITING {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data.lock");
            let options = Options::new();
            // One form of wait is tested with the default interval.
            let options =
                if way == Block { options } else { options.backstop(Duration::from_millis(50)) };
            let lock = options.open_rwlock(&path).unwrap();
            let writing = lock.write().unwrap();
            let mut stopped = stopped(&path, way);
            drop(writing);
            drop(lock.read().unwrap());
            drop(lock.write().unwrap());
            drop(lock.read_timeout(Duration::from_secs(100)).unwrap());
            drop(futures_lite::future::block_on(lock.write_async()).unwrap());
            signal(&stopped, Signal::CONT);
            stopped.finish();
            assert!(lock.try_read().unwrap_err().is_would_block());
            stopped.run(Call::Unlock);
        }
    }

    // Linux only: other systems do not show which process is stopped.
    #[cfg(target_os = "linux")]
    #[test]
    fn readers_pass_a_stopped_writer_but_no_running_one() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        let lock = RwLock::open(&path).unwrap();
        let reading = lock.read().unwrap();
        let mut stopped = stopped(&path, Block);
        drop(lock.read().unwrap());
        signal(&stopped, Signal::CONT);
        // The writer runs again, so a reader that waits for longer than the interval of rule R3
        // keeps waiting.
        let error = lock.read_timeout(Duration::from_millis(2500)).unwrap_err();
        assert!(error.is_timed_out(), "{error}");
        drop(reading);
        stopped.finish();
    }

    #[test]
    fn a_fork_while_threads_use_the_handle_does_not_hang_the_child() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let mut parent = peer(&dir.path().join("data.lock"), &[]);
        parent.run(Call::ForkWhileBusy(100));
    }

    #[test]
    fn a_turnstile_linked_to_the_lock_file_is_an_error() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        std::fs::write(&path, "").unwrap();
        std::fs::hard_link(&path, gate(&path)).unwrap();
        let error = RwLock::open(&path).unwrap_err();
        assert_eq!(error.kind(), flockwork::ErrorKind::Corrupt, "{error}");
    }

    // Linux only: other systems do not show which process is stopped.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_try_and_a_short_timeout_pass_a_stopped_waiter() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        let lock = RwLock::open(&path).unwrap();
        let writing = lock.write().unwrap();
        let mut stopped = stopped(&path, Block);
        drop(writing);
        drop(lock.try_read().unwrap());
        drop(lock.try_write().unwrap());
        drop(lock.read_timeout(Duration::ZERO).unwrap());
        // One that runs late by a second makes the check of rule R3 instead, which needs two.
        let passes = |_: u32| lock.write_timeout(Duration::from_millis(5)).is_ok();
        assert!((0..3).any(passes));
        stopped.kill();
    }

    #[test]
    fn a_forked_copy_of_a_guard_neither_unlocks_nor_downgrades() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        let lock = RwLock::open(&path).unwrap();
        let mut parent = peer(&path, &[]);
        parent.run(Call::Write(Block));
        parent.expect(Call::DowngradeInFork, 0);
        assert!(lock.try_read().unwrap_err().is_would_block());
        parent.expect(Call::DropGuardsInFork, 0);
        assert!(lock.try_read().unwrap_err().is_would_block());
        parent.run(Call::Downgrade);
        parent.expect(Call::DropGuardsInFork, 0);
        drop(lock.try_read().unwrap());
        assert!(lock.try_write().unwrap_err().is_would_block());
    }
}

// Linux only: uses flock(1), strace and `/proc`.
#[cfg(target_os = "linux")]
mod tools {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::peer::rwlock::until_turnstile_is_held;
    use crate::support::running::{Running, Start as _};

    fn flock(arguments: &[&str], path: &Path, command: &[&str]) -> Running {
        let mut flock = Command::new("flock");
        flock.args(arguments).arg(path).args(command).stdin(Stdio::piped()).stdout(Stdio::null());
        flock.start()
    }

    fn succeeds(arguments: &[&str], path: &Path) -> bool {
        flock(arguments, path, &["true"]).wait().unwrap().success()
    }

    #[test]
    fn flock_1_counts_as_a_reader_or_a_writer() {
        limit!();
        if !crate::support::has("flock", &["--version"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        let lock = RwLock::open(&path).unwrap();
        let reading = lock.read().unwrap();
        assert!(succeeds(&["-n", "-s"], &path));
        assert!(!succeeds(&["-n", "-x"], &path));
        drop(reading);
        let writing = lock.write().unwrap();
        assert!(!succeeds(&["-n", "-s"], &path));
        assert!(!succeeds(&["-n", "-x"], &path));
        let reading = writing.downgrade().unwrap();
        assert!(succeeds(&["-n", "-s"], &path));
        assert!(!succeeds(&["-n", "-x"], &path));
        drop(reading);
        for (mode, can_read) in [("-s", true), ("-x", false)] {
            // flock(1) holds the lock until the input of cat ends.
            let mut holder = flock(&[mode], &path, &["cat"]);
            eventually("flock(1) holds the lock", || lock.try_write().is_err());
            eventually("the turnstile is free", || lock.try_read().is_ok() == can_read);
            assert!(lock.try_write().unwrap_err().is_would_block());
            drop(holder.stdin.take());
            drop(lock.write().unwrap());
            holder.wait().unwrap();
        }
    }

    /// A waiter in the turnstile sleeps without waking up. A waiter at the turnstile wakes up for
    /// the check of rule R3, and so does its helper.
    #[test]
    fn waiters_sleep() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        let _writing = RwLock::open(&path).unwrap().write().unwrap();
        let (mut in_turnstile, mut at_turnstile) = (peer(&path, &[]), peer(&path, &[]));
        in_turnstile.begin(Call::Write(Block));
        until_blocked(&path, 1);
        at_turnstile.begin(Call::Read(Block));
        until_blocked(&gate(&path), 1);
        crate::support::assert_sleep(&[(in_turnstile.id(), 0.4), (at_turnstile.id(), 3.0)]);
        in_turnstile.kill();
        at_turnstile.kill();
    }

    /// strace replaces the result of fstatfs with the magic number of NFS, so no wait may block in
    /// the kernel.
    #[test]
    fn on_a_network_file_system_both_are_polled() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        let inject = "fstatfs:poke_exit=@arg2=6969000000000000";
        let Some(mut other) = crate::support::strace::strace(&[], inject) else { return };
        other.open_rwlock(&path, &[]);
        let lock = RwLock::open(&path).unwrap();
        for way in Way::WAITING {
            for is_reading in [true, false] {
                let writing = is_reading.then(|| lock.write().unwrap());
                let reading = (!is_reading).then(|| lock.read().unwrap());
                let call = if is_reading { Call::Read } else { Call::Write };
                other.begin(call(way));
                until_turnstile_is_held(&path);
                assert_eq!(crate::support::blocked(&path), 0, "{way:?} blocks in the kernel");
                assert!(other.is_silent());
                drop((reading, writing));
                other.finish();
                other.run(Call::Unlock);
            }
        }
    }

    /// flock(1) does not use the turnstile and waits in the kernel, but a downgrade still gives it
    /// no chance.
    #[test]
    fn flock_1_cannot_acquire_during_a_downgrade() {
        limit!();
        if !crate::support::has("flock", &["--version"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.lock");
        let lock = RwLock::open(&path).unwrap();
        let writing = lock.write().unwrap();
        let mut others: Vec<Running> = (0..3).map(|_| flock(&["-x"], &path, &["true"])).collect();
        until_blocked(&path, 3);
        let reading = writing.downgrade().unwrap();
        until_blocked(&path, 3);
        assert!(others.iter_mut().all(|other| other.try_wait().unwrap().is_none()));
        drop(reading);
        assert!(others.iter_mut().all(|other| other.wait().unwrap().success()));
    }
}
