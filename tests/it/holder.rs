//! How holders are found: records, `/proc/locks`, and records that must be ignored.

use std::time::{Duration, SystemTime};

use flockwork::{Lock, Options};

use crate::peer::lock::Call;
use crate::peer::{Peer, label};
use crate::support::failure::in_full;

fn record_of(path: &std::path::Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".holder");
    name.into()
}

#[test]
fn a_labelled_holder_is_reported_with_all_details() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    assert_eq!(lock.holders().unwrap(), []);

    let mut peer = Peer::start();
    peer.open_lock(&path, &[label("nightly build")]);
    peer.expect(Call::Holder, "none");
    let before = SystemTime::now();
    peer.lock();
    let holder = lock.holders().unwrap().remove(0);
    assert_eq!(holder.pid(), peer.id());
    assert_eq!(holder.label(), Some("nightly build"));
    assert!(holder.command().unwrap().contains("peer::entry"), "{holder}");
    // Some systems have coarse clocks.
    assert!(holder.since().unwrap() >= before - Duration::from_secs(1));
    assert!(holder.since().unwrap() <= SystemTime::now());

    // Errors contain the holder, too.
    for error in [lock.try_lock().unwrap_err(), lock.lock_timeout(Duration::ZERO).unwrap_err()] {
        assert_eq!(error.holders(), std::slice::from_ref(&holder));
        let text = in_full(&error);
        for part in ["nightly build", &peer.id().to_string(), &path.display().to_string()] {
            assert!(text.contains(part), "{text}");
        }
    }
    peer.unlock();
    assert_eq!(lock.holders().unwrap(), []);
    assert!(!record_of(&path).exists());
}

#[test]
fn a_record_without_a_label_is_written_on_request() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = Options::new().record_holder(true).open_lock(dir.path().join("a.lock")).unwrap();
    let guard = lock.lock().unwrap();
    let holder = lock.holders().unwrap().remove(0);
    assert_eq!((holder.pid(), holder.label()), (std::process::id(), None));
    assert!(record_of(lock.path()).exists());
    guard.unlock().unwrap();
    assert!(!record_of(lock.path()).exists());

    let quiet = Options::new().record_holder(false).open_lock(lock.path()).unwrap();
    let _guard = quiet.lock().unwrap();
    assert!(!record_of(lock.path()).exists());
}

// Linux only: other systems do not list the holder of a lock.
#[cfg(target_os = "linux")]
#[test]
fn linux_shows_the_process_of_a_holder_without_a_record() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let mut peer = Peer::with_lock(&path);
    peer.lock();
    let holder = lock.holders().unwrap().remove(0);
    assert_eq!(holder.pid(), peer.id());
    assert!(holder.command().unwrap().contains("peer::entry"), "{holder}");
    assert_eq!((holder.label(), holder.since()), (None, None));
    let error = lock.try_lock().unwrap_err();
    assert_eq!(error.holders()[0].pid(), peer.id());
    peer.unlock();
    assert_eq!(lock.holders().unwrap(), []);
}

#[test]
fn inspecting_acquires_nothing_and_blocks_no_waiter() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Options::new().label("mine").open_lock(&path).unwrap();
    let inspector = Lock::open(&path).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    crate::support::running::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                inspector.holders().unwrap();
            }
        });
        let _end = crate::support::running::on_drop(|| {
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        for _ in 0..500 {
            let guard = lock.try_lock().expect("no other process acquires the lock");
            assert!(!guard.was_abandoned(), "no holder died");
            assert_eq!(lock.holders().unwrap().remove(0).label(), Some("mine"));
        }
    });
}

/// Some systems mount `/proc` with the list of locks unreadable for ordinary users.
// Linux only: strace makes opening `/proc/locks` fail.
#[cfg(target_os = "linux")]
#[test]
fn a_held_lock_is_noticed_without_the_list_of_locks() {
    limit!();
    use crate::peer::Request;
    let dir = tempfile::tempdir().unwrap();
    let (path, pool) = (dir.path().join("a.lock"), dir.path().join("pool"));
    let list = ["-P".as_ref(), "/proc/locks".as_ref()];
    let fault = "open,openat:error=EACCES";
    let Some(mut other) = crate::support::strace::strace(&list, fault) else { return };
    let lock = Lock::open(&path).unwrap();
    let pool = flockwork::Semaphore::open(pool, 3).unwrap();
    let held = (lock.lock().unwrap(), pool.acquire_many(2).unwrap());
    other.expect(Request::IsHeld(path.clone()), true);
    other.expect(Request::HeldSlots(pool.path().into()), "[0, 1]");
    drop(held);
    other.expect(Request::IsHeld(path.clone()), false);
    other.expect(Request::HeldSlots(pool.path().into()), "[]");
}

/// The kernel returns a list longer than a page in pieces, and locks change position between two
/// reads.
// Linux only: reads `/proc/locks`.
#[cfg(target_os = "linux")]
#[test]
fn a_held_lock_is_never_free_in_a_long_list_of_locks() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let open = |name: String| std::fs::File::create(dir.path().join(name)).unwrap();
    let others: Vec<_> = (0..400).map(|number| open(format!("other.{number}"))).collect();
    for other in &others[..200] {
        fs4::FileExt::lock(other).unwrap();
    }
    let path = dir.path().join("a.lock");
    let _held = Lock::open(&path).unwrap().lock().unwrap();
    for other in &others[200..] {
        fs4::FileExt::lock(other).unwrap();
    }
    let is_over = std::sync::atomic::AtomicBool::new(false);
    crate::support::running::scope(|scope| {
        let others = &others;
        let is_over = &is_over;
        let _end = crate::support::running::on_drop(|| {
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        scope.spawn(move || {
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                for other in others {
                    fs4::FileExt::unlock(other).unwrap();
                }
                for other in others {
                    fs4::FileExt::lock(other).unwrap();
                }
            }
        });
        for round in crate::support::rounds(2000, Duration::from_secs(10)) {
            assert!(flockwork::inspect(&path).unwrap().is_held(), "round {round}");
        }
    });
}

/// A record removed after the release could be the next holder's, so this test slows down the
/// removal.
// Linux only: strace delays a system call.
#[cfg(target_os = "linux")]
#[test]
fn a_record_is_removed_before_the_release() {
    limit!();
    use crate::peer::Way::Block;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let slow = "unlink,unlinkat:delay_enter=100000";
    let Some(mut first) = crate::support::strace::injected(&record_of(&path), slow) else { return };
    let mut second = Peer::start();
    for (peer, name) in [(&mut first, "first"), (&mut second, "second")] {
        peer.open_lock(&path, &[label(name)]);
    }
    first.lock();
    second.begin(Call::Acquire(Block));
    crate::support::until_blocked(&path, 1);
    first.unlock();
    second.finish();
    let holder = Lock::open(&path).unwrap().holders().unwrap().remove(0);
    assert_eq!(holder.label(), Some("second"));
}

#[test]
fn only_the_next_holder_learns_of_a_killed_labelled_holder() {
    limit!();
    for (settings, in_words) in [(&[][..], "without"), (&[label("next")], "with")] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let lock = Lock::open(&path).unwrap();
        assert!(!lock.lock().unwrap().was_abandoned());
        let mut killed = Peer::start();
        killed.open_lock(&path, &[label("killed")]);
        killed.lock();
        killed.expect(Call::WasAbandoned, false);
        killed.kill();
        assert!(record_of(&path).exists());
        assert_eq!(lock.holders().unwrap(), [], "a dead holder's record was read");

        let mut next = Peer::start();
        next.open_lock(&path, settings);
        next.lock();
        // The dead process's record is not taken for a record of the current holder.
        let mut holders = lock.holders().unwrap().into_iter();
        assert!(holders.all(|holder| holder.label() != Some("killed")), "{in_words} label");
        next.expect(Call::WasAbandoned, true);
        next.expect(Call::WasAbandoned, true);
        next.unlock();
        next.lock();
        next.expect(Call::WasAbandoned, false);
    }
}

/// A record that no living process has locked is ignored, and the next holder replaces it.
#[test]
fn a_forged_record_is_not_believed() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Options::new().label("real").open_lock(&path).unwrap();
    let forged = format!("flockwork holder 1\npid {}\nhost x\nlabel forged\n", std::process::id());
    for text in [forged.as_str(), &format!("{forged}end\n"), "flockwork holder 1\n", "flock"] {
        std::fs::write(record_of(&path), text).unwrap();
        assert_eq!(lock.holders().unwrap(), []);
        let guard = lock.lock().unwrap();
        assert!(!guard.was_abandoned(), "{text:?} names no file");
        assert_eq!(lock.holders().unwrap().remove(0).label(), Some("real"));
        drop(guard);
        assert!(!record_of(&path).exists());
    }
}

/// A file that is not a record belongs to a user: it keeps its contents, and the lock has no
/// record.
#[test]
fn another_users_file_in_place_of_the_record_is_left_alone() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("account");
    let labelled = Options::new().label("real").open_lock(&path).unwrap();
    let plain = Lock::open(&path).unwrap();
    let mut aside = record_of(&path).into_os_string();
    aside.push(".new");
    let mut places = vec![record_of(&path)];
    if cfg!(unix) {
        places.push(aside.into());
    }
    for place in places {
        for content in [b"my precious notes".as_slice(), b"\xff\xfe\x00", &[b'x'; 9000]] {
            std::fs::write(&place, content).unwrap();
            for lock in [&labelled, &plain] {
                let guard = lock.lock().unwrap();
                assert!(!guard.was_abandoned());
                let mut holders = lock.holders().unwrap().into_iter();
                assert!(holders.all(|holder| holder.label().is_none()));
                guard.unlock().unwrap();
            }
            assert_eq!(std::fs::read(&place).unwrap(), content);
        }
        std::fs::remove_file(&place).unwrap();
        std::fs::create_dir(&place).unwrap();
        drop(labelled.lock().unwrap());
        assert!(place.is_dir());
        std::fs::remove_dir(&place).unwrap();
    }
    // A lock file of that name belongs to another program too, although it is empty.
    let theirs = Lock::open(record_of(&path)).unwrap();
    let _held = theirs.lock().unwrap();
    drop(labelled.lock().unwrap());
    assert!(Lock::open(record_of(&path)).unwrap().try_lock().unwrap_err().is_would_block());
}

// Unix only: Windows has no FIFOs in directories, and Wine creates no symbolic links.
#[cfg(unix)]
#[test]
fn a_symlink_or_fifo_in_place_of_the_record_is_not_opened() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "flockwork holder 1\n").unwrap();
    let lock = Options::new().label("real").open_lock(&path).unwrap();
    for name in ["a.lock.holder", "a.lock.holder.new"] {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert_eq!(lock.holders().unwrap(), []);
        drop(lock.lock().unwrap());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "flockwork holder 1\n");
        assert_eq!(std::fs::read_link(&link).unwrap(), victim);
        std::fs::remove_file(link).unwrap();
    }
    let fifo = dir.path().join("a.lock.holder");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(lock.holders().unwrap(), []);
    drop(lock.lock().unwrap());
}

/// The holder of a replaced lock file holds another lock. Its record is not read as a record of the
/// new lock, its release is not a death, and it removes no record but its own.
// Unix only: Windows does not remove a lock file that is open.
#[cfg(unix)]
#[test]
fn the_record_of_a_replaced_lock_file_is_ignored() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let (mut old, mut new) = (Peer::start(), Peer::start());
    old.open_lock(&path, &[label("old")]);
    old.lock();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(lock.holders().unwrap(), []);
    let guard = lock.lock().unwrap();
    assert!(!guard.was_abandoned());
    assert!(lock.holders().unwrap().iter().all(|holder| holder.label().is_none()));
    drop(guard);

    new.open_lock(&path, &[label("new")]);
    new.lock();
    old.unlock();
    assert_eq!(lock.holders().unwrap().remove(0).label(), Some("new"));
    new.kill();
    assert!(lock.lock().unwrap().was_abandoned());
}

/// Returns a killed holder's record, locked as its owner had locked it.
#[cfg(unix)]
fn record_of_a_killed_holder(path: &std::path::Path) -> std::fs::File {
    let mut killed = Peer::start();
    killed.open_lock(path, &[label("killed")]);
    killed.lock();
    let record = std::fs::File::open(record_of(path)).unwrap();
    killed.kill();
    fs4::FileExt::lock(&record).unwrap();
    record
}

/// The kernel drops the locks of a dying process one after the other, so the next holder may find
/// the record still locked. The record reports a death even while another process keeps it locked.
// Unix only: locks the record. `windows` opens it with a share mode.
#[cfg(unix)]
#[test]
fn a_death_is_reported_while_the_record_is_still_locked() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let _record = record_of_a_killed_holder(&path);
    let lock = Lock::open(&path).unwrap();
    assert!(lock.lock().unwrap().was_abandoned());
}

/// A release that cannot find or remove its record still marks the record as released.
// Unix only: moves a directory with open files. `windows` prevents the removal in another way.
#[cfg(unix)]
#[test]
fn a_release_that_cannot_remove_its_record_is_not_a_death() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let (parent, moved) = (dir.path().join("parent"), dir.path().join("moved"));
    let lock = Options::new().label("mover").open_lock(parent.join("a.lock")).unwrap();
    let guard = lock.lock().unwrap();
    std::fs::rename(&parent, &moved).unwrap();
    drop(guard);
    assert!(record_of(&moved.join("a.lock")).exists());
    let next = Options::new().label("next").open_lock(moved.join("a.lock")).unwrap();
    assert!(!next.lock().unwrap().was_abandoned());
    assert!(!record_of(&moved.join("a.lock")).exists());
}

/// Any process that may read a record can lock it, but that does not make the process a holder.
// Linux only: other systems do not show that the process has ended.
#[cfg(target_os = "linux")]
#[test]
fn a_dead_record_locked_by_another_process_is_ignored() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let _record = record_of_a_killed_holder(&path);
    assert_eq!(flockwork::inspect(&path).unwrap().holders(), []);
    let mut other = Peer::with_lock(&path);
    other.lock();
    let pids: Vec<_> =
        flockwork::inspect(&path).unwrap().holders().iter().map(flockwork::Holder::pid).collect();
    assert_eq!(pids, [other.id()]);
}
