//! A process whose lock the server of a network file system has dropped is shown until it learns of
//! that, and a process that holds, acquires or releases a lock is not.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flockwork::{Holder, Status, inspect};

use crate::fuse::{Mount, responded};
use crate::peer::{Peer, Way, label, lock, rwlock, semaphore};
use crate::support::eventually;
use crate::support::running::scope;

fn lost(path: &Path) -> Vec<(u32, Option<u32>, bool)> {
    let status = responded(|| inspect(path));
    let shown = |holder: &Holder| {
        assert!(holder.label().is_some() && holder.same_pid_namespace(), "{holder:?}");
        (holder.pid(), holder.slot(), holder.is_shared())
    };
    status.lost_holders().iter().map(shown).collect()
}

fn holders(status: &Status) -> Vec<u32> {
    status.holders().iter().map(Holder::pid).collect()
}

fn lock_peer(path: &Path, name: &str) -> Peer {
    let mut peer = Peer::start();
    peer.open_lock(path, &[label(name)]);
    peer
}

#[test]
fn a_lost_lock_is_shown_until_its_holder_learns_of_the_loss() {
    limit!();
    let Some(mut mount) = Mount::start() else { return };
    let path = mount.at("a.lock");
    let mut holder = lock_peer(&path, "first");
    for _ in 0..2 {
        holder.lock();
        let status = responded(|| inspect(&path));
        assert_eq!((holders(&status), status.lost_holders()), (vec![holder.id()], &[][..]));
        mount.forget_locks();
        let status = responded(|| inspect(&path));
        assert!(!status.is_held() && status.holders().is_empty(), "{status:?}");
        holder.expect(lock::Call::StillHeld, false);
        assert_eq!(lost(&path), [(holder.id(), None, false)]);
        let error = holder.expect_error(lock::Call::Unlock);
        assert!(error.starts_with("Lost: "), "{error}");
        assert_eq!(lost(&path), []);
    }
}

#[test]
fn a_lost_lock_is_not_shown_once_another_process_has_it() {
    limit!();
    let Some(mut mount) = Mount::start() else { return };
    for next in ["with a record", ""] {
        let path = mount.at(&format!("{next}.lock"));
        let mut first = lock_peer(&path, "first");
        first.lock();
        mount.forget_locks();
        let mut second = Peer::start();
        let settings: Vec<_> =
            Some(next).filter(|next| !next.is_empty()).map(label).into_iter().collect();
        second.open_lock(&path, &settings);
        second.lock();
        let status = responded(|| inspect(&path));
        assert!(status.is_held() && status.lost_holders().is_empty(), "{status:?}");
        assert!(!holders(&status).contains(&first.id()), "{status:?}");
        second.unlock();
    }
}

#[test]
fn lost_locks_of_readers_writers_and_permits_are_shown() {
    limit!();
    let Some(mut mount) = Mount::start() else { return };
    let (shared, written, pool) = (mount.at("shared"), mount.at("written"), mount.at("pool"));
    let mut readers = ["one", "two"].map(|name| rwlock::peer(&shared, &[label(name)]));
    for reader in &mut readers {
        reader.run(rwlock::Call::Read(Way::Block));
    }
    let mut writer = rwlock::peer(&written, &[label("writer")]);
    writer.run(rwlock::Call::Write(Way::Block));
    let mut permits = semaphore::peer(&pool, 3, &[label("permits")]);
    permits.run(semaphore::Call::Acquire(2, Way::Block));
    for path in [&shared, &written, &pool] {
        assert_eq!(lost(path), [], "{path:?}");
    }
    mount.forget_locks();
    let [one, two] = readers.each_ref().map(|reader| (reader.id(), None, true));
    assert_eq!(lost(&shared), [one, two]);
    assert_eq!(lost(&written), [(writer.id(), None, false)]);
    let [first, second] = [0, 1].map(|slot| (permits.id(), Some(slot), false));
    assert_eq!(lost(&pool), [first, second]);
    // Another process acquires the first slot, and the writer's lock for reading.
    let mut next = semaphore::peer(&pool, 3, &[label("next")]);
    assert_eq!(next.run(semaphore::Call::Acquire(1, Way::Block)), "0");
    assert_eq!(lost(&pool), [second]);
    let mut reader = rwlock::peer(&written, &[label("reader")]);
    reader.run(rwlock::Call::Read(Way::Block));
    let status = responded(|| inspect(&written));
    assert_eq!((status.is_held(), holders(&status)), (true, vec![reader.id()]));
    assert_eq!(lost(&written), [(writer.id(), None, false)]);
    permits.expect_error(semaphore::Call::Release);
    assert_eq!(lost(&pool), []);
}

/// The process has locked the file before its record has a name, and removes the record before it
/// unlocks the file.
#[test]
fn a_lock_that_changes_hands_is_never_shown_as_lost() {
    limit!();
    let Some(mount) = Mount::start() else { return };
    let (path, count, pool) = (mount.at("a.lock"), mount.at("count"), mount.at("pool"));
    std::fs::write(&count, "0").unwrap();
    let mut peers = ["one", "two"].map(|name| lock_peer(&path, name));
    let witness = tempfile::tempdir().unwrap();
    let mut permits = semaphore::peer(&pool, 2, &[label("permits")]);
    let churn = |ways| semaphore::Call::Churn(witness.path().into(), 1, 100, ways);
    let (inspected, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    scope(|scope| {
        let watching = scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                assert_eq!((lost(&path), lost(&pool)), (vec![], vec![]));
                inspected.fetch_add(1, Ordering::SeqCst);
            }
        });
        // On a busy machine the other thread may see too little of one round.
        loop {
            for peer in &mut peers {
                peer.begin(lock::Call::Count(count.clone(), 150, Way::Block));
            }
            permits.begin(churn(vec![Way::Block]));
            for peer in peers.iter_mut().chain([&mut permits]) {
                peer.finish();
            }
            if inspected.load(Ordering::SeqCst) > 20 || watching.is_finished() {
                break;
            }
        }
        ended.store(true, Ordering::SeqCst);
        watching.join().unwrap();
    });
}

/// Its record remains.
#[test]
fn a_holder_that_dies_or_runs_another_program_is_not_shown() {
    limit!();
    let Some(mut mount) = Mount::start() else { return };
    let path = mount.at("a.lock");
    for is_lost in [false, true] {
        for dies in [false, true] {
            let mut holder = lock_peer(&path, "doomed");
            holder.lock();
            if is_lost {
                mount.forget_locks();
            }
            if dies {
                holder.kill();
            } else {
                holder.begin(lock::Call::Exec);
                let name = format!("/proc/{}/comm", holder.id());
                let is_replaced = || std::fs::read_to_string(&name).unwrap() == "sleep\n";
                eventually("another program runs", is_replaced);
            }
            eventually("the lock is free", || !responded(|| inspect(&path)).is_held());
            assert!(mount.at("a.lock.holder").exists());
            assert_eq!(lost(&path), []);
            if !dies {
                holder.kill();
            }
        }
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_command_shows_lost_locks() {
    limit!();
    let Some(mut mount) = Mount::start() else { return };
    let (path, data, pool) = (mount.at("a.lock"), mount.at("data"), mount.at("pool"));
    let mut holder = lock_peer(&path, "nightly");
    holder.lock();
    let mut writer = rwlock::peer(&mount.at("data.flock"), &[label("writer")]);
    writer.run(rwlock::Call::Write(Way::Block));
    let mut permits = semaphore::peer(&pool, 3, &[label("permits")]);
    permits.run(semaphore::Call::Acquire(2, Way::Block));
    let run = |words: &[&str], path: &Path| loop {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flockwork"));
        let output = command.arg("status").args(words).arg(path).output().unwrap();
        if output.status.code() == Some(75) {
            continue; // On a busy machine the server may not respond within a second.
        }
        let text = String::from_utf8(output.stdout).unwrap();
        break (text, String::from_utf8(output.stderr).unwrap(), output.status.code());
    };
    assert!(!run(&[], &path).0.contains("lost"));
    assert_eq!(run(&["-q"], &path).2, Some(0));
    mount.forget_locks();
    let (text, errors, code) = run(&[], &path);
    assert_eq!((&*errors, code), ("", Some(0)), "{text}");
    assert!(
        text.starts_with(&format!("{}: free\n  lost by process {} (", path.display(), holder.id())),
        "{text}"
    );
    assert!(text.contains("), \"nightly\", held since "), "{text}");
    assert_eq!(run(&["-q"], &path).2, Some(1));
    let text = run(&[], &data).0;
    assert!(text.contains(&format!("\n  lost by process {} (", writer.id())), "{text}");
    let text = run(&[], &pool).0;
    for slot in [0, 1] {
        let line = format!("\n  slot {slot}, lost by process {} (", permits.id());
        assert!(text.contains("0 of 3 permits held") && text.contains(&line), "{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"], &path).0).unwrap();
    let [seen] = json.as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((&seen["held"], &seen["holders"]), (&false.into(), &serde_json::json!([])));
    assert_eq!(seen["lost"][0]["pid"], holder.id());
    assert_eq!(seen["lost"][0]["label"], "nightly");
}
