//! Permits of a semaphore across processes and threads: their number stays correct when holders and
//! waiters die, time out or resize.

// Linux only: no other system's FIFOs are used.
#[cfg(target_os = "linux")]
mod fifos;
mod files;
mod order;
mod paused;
mod permits;
mod resize;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flockwork::{ErrorKind, Options, Semaphore};
use futures_lite::future::{block_on, poll_once};

use crate::peer::Way::{Async, Block, Timeout, Try};
use crate::peer::semaphore::{Call, peer, queue_up, until_leader};
use crate::peer::{LATE_BACKSTOP, Peer, label};
use crate::support::{alone, assert_waits, descriptors, eventually, threads};

pub(crate) fn dirs() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sem");
    (dir, path)
}

/// Makes a semaphore one whose FIFOs cannot be created or opened, so that its waiters wait as on
/// systems without them.
pub(crate) fn without_fifos(path: &Path) {
    let _ = std::fs::remove_dir_all(path.join("queue"));
    std::fs::write(path.join("queue"), "").unwrap();
    for name in (0..4).map(|slot| format!("fifo.{slot}")).chain(["changed".into()]) {
        let _ = std::fs::remove_file(path.join(&name));
        std::fs::create_dir(path.join(&name)).unwrap();
    }
}

#[test]
fn each_permit_up_to_the_capacity_has_its_own_slot() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 3).unwrap();
    let permits: Vec<_> = (0..3).map(|_| semaphore.acquire().unwrap()).collect();
    let slots: BTreeSet<u32> = permits.iter().map(|permit| permit.slots()[0]).collect();
    assert_eq!(slots, BTreeSet::from([0, 1, 2]));
    assert_eq!(semaphore.available_permits().unwrap(), 0);
    for other in [&semaphore, &semaphore.clone(), &Semaphore::open(&path, 3).unwrap()] {
        assert!(other.try_acquire().unwrap_err().is_would_block());
        let short = Duration::from_millis(20);
        assert!(other.acquire_timeout(short).unwrap_err().is_timed_out());
        assert!(other.acquire_timeout(Duration::ZERO).unwrap_err().is_timed_out());
        assert!(other.acquire_deadline(Instant::now()).unwrap_err().is_timed_out());
    }
    let mut other = peer(&path, 3, &[]);
    other.expect_would_block(Call::Acquire(1, Try));
    let mut permits = permits;
    permits.pop().unwrap().release().unwrap();
    assert_eq!(semaphore.available_permits().unwrap(), 1);
    other.run(Call::Acquire(1, Try));
    assert!(semaphore.try_acquire().unwrap_err().is_would_block());
    drop((other, permits));
    assert_eq!(semaphore.available_permits().unwrap(), 3);
    assert_eq!(semaphore.path(), path);
}

#[test]
fn handles_permits_and_futures_can_be_sent_to_other_threads() {
    limit!();
    fn is_free<T: Send + Sync + 'static>(_: &T) {}
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    is_free(&semaphore);
    is_free(&semaphore.acquire_async());
    let permit = semaphore.acquire().unwrap();
    is_free(&permit);
    drop(semaphore);
    let permit = std::thread::spawn(move || permit).join().unwrap();
    let semaphore = Semaphore::open_existing(&path).unwrap();
    assert_eq!(semaphore.available_permits().unwrap(), 1);
    permit.release().unwrap();
    assert_eq!(semaphore.available_permits().unwrap(), 2);
}

#[test]
fn every_form_of_wait_acquires_a_released_permit() {
    limit!();
    for permits in [1, 2] {
        for many in 1..=permits {
            let (_dir, path) = dirs();
            let semaphore = Semaphore::open(&path, permits).unwrap();
            for way in [Block, Timeout(100_000), Async] {
                let held = semaphore.acquire_many(permits).unwrap();
                let mut other = peer(&path, permits, LATE_BACKSTOP);
                other.begin(Call::Acquire(many, way));
                until_leader(&path, &other);
                assert!(other.is_silent());
                held.release().unwrap();
                other.finish();
                assert_eq!(semaphore.available_permits().unwrap(), permits - many);
                other.run(Call::Release);
                eventually("all permits are free", || {
                    semaphore.available_permits().unwrap() == permits
                });
            }
        }
    }
}

#[test]
fn many_permits_are_acquired_together_or_not_at_all() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    let three = semaphore.acquire_many(3).unwrap();
    assert_eq!(three.slots().len(), 3);
    assert!(semaphore.try_acquire_many(2).unwrap_err().is_would_block());
    assert_eq!(
        semaphore.available_permits().unwrap(),
        1,
        "a failed try releases what it has gathered"
    );
    let short = Duration::from_millis(50);
    assert!(semaphore.acquire_many_timeout(2, short).unwrap_err().is_timed_out());
    assert_eq!(
        semaphore.available_permits().unwrap(),
        1,
        "a wait that timed out releases what it has gathered"
    );
    let mut future = Box::pin(semaphore.acquire_many_async(4));
    assert_waits(&mut future);
    eventually("the future has gathered the free permit", || {
        semaphore.available_permits().unwrap() == 0 || block_on(poll_once(&mut future)).is_some()
    });
    drop(future);
    assert_eq!(semaphore.available_permits().unwrap(), 1);
    drop(three);
    assert_eq!(block_on(semaphore.acquire_many_async(4)).unwrap().slots(), [0, 1, 2, 3]);
}

#[test]
fn invalid_permit_counts_fail_immediately() {
    limit!();
    let (_dir, path) = dirs();
    for permits in [0, 4097, u32::MAX] {
        let error = Semaphore::open(&path, permits).unwrap_err();
        assert_eq!((error.kind(), error.capacity()), (ErrorKind::InvalidPermits, Some(4096)));
        assert!(error.to_string().contains(&format!(": {permits} (must be")), "{error}");
        assert!(!path.exists(), "nothing is created");
    }
    let semaphore = Semaphore::open(&path, 2).unwrap();
    let _both = semaphore.acquire_many(2).unwrap();
    for permits in [0, 3, u32::MAX] {
        let errors = [
            semaphore.acquire_many(permits).unwrap_err(),
            semaphore.try_acquire_many(permits).unwrap_err(),
            semaphore.acquire_many_timeout(permits, Duration::MAX).unwrap_err(),
            semaphore.acquire_many_deadline(permits, Instant::now()).unwrap_err(),
            block_on(semaphore.acquire_many_async(permits)).unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.capacity()), (ErrorKind::InvalidPermits, Some(2)));
            assert!(error.to_string().contains(&format!(": {permits} (must be")), "{error}");
        }
    }
    let error = semaphore.set_capacity(4097).unwrap_err();
    assert_eq!((error.kind(), error.capacity()), (ErrorKind::InvalidPermits, Some(4096)));
    assert_eq!(semaphore.capacity().unwrap(), 2);
}

#[test]
fn concurrent_creators_are_granted_no_more_than_the_capacity() {
    limit!();
    let processes = if cfg!(windows) { 12 } else { 50 };
    let (_dir, path) = dirs();
    let mut peers: Vec<_> = (0..processes).map(|_| Peer::start()).collect();
    for peer in &mut peers {
        peer.begin(Call::Open(path.clone(), 3, vec![]));
        peer.begin(Call::Acquire(1, Try));
    }
    let mut slots = BTreeSet::new();
    for peer in &mut peers {
        peer.finish();
        match peer.answer() {
            Ok(slot) => assert!(slots.insert(slot.clone()), "slot {slot} was granted twice"),
            Err(error) => assert!(error.starts_with("would-block"), "{error}"),
        }
    }
    assert_eq!(slots, ["0", "1", "2"].map(String::from).into());
}

#[test]
fn threads_of_one_process_share_permits_without_starving() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    let inside = std::sync::atomic::AtomicUsize::new(0);
    crate::support::running::scope(|scope| {
        for number in 0..6 {
            let (semaphore, inside) = (semaphore.clone(), &inside);
            scope.spawn(move || {
                for round in 0..60 {
                    let permit = match (number + round) % 3 {
                        0 => semaphore.acquire(),
                        1 => semaphore.acquire_timeout(Duration::from_secs(100)),
                        _ => block_on(semaphore.acquire_async()),
                    };
                    let permit = permit.unwrap();
                    let before = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    assert!(before < 2, "{before} permits were already held");
                    std::thread::yield_now();
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    drop(permit);
                }
            });
        }
    });
    assert_eq!(semaphore.available_permits().unwrap(), 2);
}

#[test]
fn permits_of_a_killed_holder_go_to_waiters() {
    limit!();
    for permits in [1, 2] {
        let (_dir, path) = dirs();
        let semaphore = Semaphore::open(&path, permits).unwrap();
        let mut holder = peer(&path, permits, &[]);
        holder.run(Call::Acquire(permits, Block));
        // With a late backstop, only the notification of the death wakes the waiter. (Other systems
        // do not notify, so the waiter polls there.)
        let settings = if cfg!(target_os = "linux") { LATE_BACKSTOP } else { &[] };
        let mut waiter = peer(&path, permits, settings);
        waiter.begin(Call::Acquire(permits, Block));
        until_leader(&path, &waiter);
        holder.kill();
        waiter.finish();
        waiter.kill();
        eventually("all permits are free", || semaphore.available_permits().unwrap() == permits);
        drop(semaphore.acquire_many(permits).unwrap());
    }
}

#[test]
fn a_killed_leader_or_waiter_blocks_no_other_waiter() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    let one = semaphore.acquire().unwrap();
    let two = semaphore.acquire().unwrap();
    let mut peers: Vec<_> = (0..3).map(|_| peer(&path, 2, LATE_BACKSTOP)).collect();
    // The first peer is the leader and will have gathered one permit; the second queues behind it.
    peers[0].begin(Call::Acquire(2, Block));
    until_leader(&path, &peers[0]);
    for (behind, peer) in peers.iter_mut().enumerate().skip(1) {
        peer.begin(Call::Acquire(1, Block));
        crate::support::until_blocked(&path.join("gate"), behind);
    }
    drop(one);
    eventually("the leader gathers", || semaphore.available_permits().unwrap() == 0);
    peers[1].kill();
    peers[0].kill();
    peers[2].finish();
    drop(two);
    eventually("the other permit is free", || semaphore.available_permits().unwrap() == 1);
}

/// Other waiters pass a stopped leader (rule S8).
// Unix only: Windows cannot stop a process.
#[cfg(unix)]
#[test]
fn a_stopped_leader_delays_others_briefly() {
    limit!();
    use rustix::process::{Pid, Signal, kill_process};
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 1).unwrap();
    let permit = semaphore.acquire().unwrap();
    let mut leader = peer(&path, 1, &[]);
    leader.begin(Call::Acquire(1, Block));
    until_leader(&path, &leader);
    let mut behind = peer(&path, 1, &[]);
    behind.begin(Call::Acquire(1, Block));
    crate::support::until_blocked(&path.join("gate"), 1);
    let stopped = Pid::from_raw(i32::try_from(leader.id()).unwrap()).unwrap();
    kill_process(stopped, Signal::STOP).unwrap();
    // A thread that wakes up before it stops still acquires what it waited for.
    if cfg!(target_os = "linux") {
        crate::support::eventually("the leader has stopped", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", leader.id())).unwrap();
            let status = |task: std::path::PathBuf| std::fs::read_to_string(task.join("status"));
            tasks
                .flatten()
                .all(|task| status(task.path()).is_ok_and(|status| status.contains("State:\tT")))
        });
    } else {
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(permit);
    behind.finish();
    behind.run(Call::Release);
    drop(semaphore.acquire_timeout(Duration::from_secs(100)).unwrap());
    kill_process(stopped, Signal::CONT).unwrap();
    leader.finish();
}

#[test]
fn the_capacity_is_stored_with_the_semaphore() {
    limit!();
    let (_dir, path) = dirs();
    let error = Semaphore::open_existing(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("there is no semaphore"), "{error}");
    assert!(!path.exists());
    let semaphore = Semaphore::open(&path, 5).unwrap();
    let error = Semaphore::open(&path, 4).unwrap_err();
    assert_eq!((error.kind(), error.capacity()), (ErrorKind::CapacityMismatch, Some(5)));
    assert!(error.to_string().ends_with("has 5 permits, not 4"), "{error}");
    assert_eq!(Semaphore::open_existing(&path).unwrap().capacity().unwrap(), 5);
    assert_eq!(Options::new().open_existing_semaphore(&path).unwrap().capacity().unwrap(), 5);
    assert_eq!(semaphore.capacity().unwrap(), 5);
}

#[test]
fn waiters_acquire_added_permits_immediately() {
    limit!();
    for permits in [1, 2] {
        let (_dir, path) = dirs();
        let semaphore = Semaphore::open(&path, permits).unwrap();
        let held = semaphore.acquire_many(permits).unwrap();
        let mut peers: Vec<_> = (0..3).map(|_| peer(&path, permits, LATE_BACKSTOP)).collect();
        queue_up(&path, &mut peers, 1);
        let mut other = peer(&path, permits, &[]);
        other.run(Call::Resize(permits + 3));
        for peer in &mut peers {
            peer.finish();
        }
        assert!(semaphore.try_acquire().unwrap_err().is_would_block());
        assert_eq!(semaphore.capacity().unwrap(), permits + 3);
        drop((held, peers));
        eventually("all permits are free", || {
            semaphore.available_permits().unwrap() == permits + 3
        });
        drop(semaphore.acquire_many(permits + 3).unwrap());
    }
}

#[test]
fn a_lower_capacity_takes_effect_as_permits_are_released() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 4).unwrap();
    let mut permits: Vec<_> = (0..4).map(|_| semaphore.acquire().unwrap()).collect();
    permits.sort_by_key(|permit| permit.slots()[0]);
    let mut other = peer(&path, 4, LATE_BACKSTOP);
    semaphore.set_capacity(2).unwrap();
    // The slots within the capacity are free, and two beyond it are held.
    drop(permits.drain(..2));
    let fresh = Semaphore::open(&path, 2).unwrap();
    for semaphore in [&semaphore, &fresh] {
        assert!(semaphore.try_acquire().unwrap_err().is_would_block());
        assert_eq!(semaphore.available_permits().unwrap(), 0);
    }
    other.begin(Call::Acquire(1, Block));
    until_leader(&path, &other);
    assert!(other.is_silent());
    drop(permits.pop());
    let slot = other.finish();
    assert!(slot == "0" || slot == "1", "{slot}");
    assert!(
        semaphore.try_acquire().unwrap_err().is_would_block(),
        "one permit beyond the capacity is held, and one within"
    );
    drop(permits);
    drop(semaphore.try_acquire().unwrap());
    assert!(semaphore.try_acquire_many(2).unwrap_err().is_would_block());
    other.run(Call::Release);
    drop(fresh.try_acquire_many(2).unwrap());
    // The capacity grows again.
    fresh.set_capacity(3).unwrap();
    drop(semaphore.try_acquire_many(3).unwrap());
}

/// The process that changed the capacity may have died before it notified waiters.
#[test]
fn a_resize_to_the_stored_capacity_notifies_too() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    let _held = semaphore.acquire_many(2).unwrap();
    let mut waiter = peer(&path, 2, LATE_BACKSTOP);
    waiter.begin(Call::Acquire(1, Block));
    until_leader(&path, &waiter);
    std::thread::sleep(Duration::from_millis(50)); // Its watch starts.
    // Writing in place instead of renaming keeps the change unnoticed, unless the watch starts
    // later.
    std::fs::write(path.join("capacity"), "3\n").unwrap();
    Semaphore::open_existing(&path).unwrap().set_capacity(3).unwrap();
    assert_eq!(waiter.finish(), "2");
    assert!(semaphore.try_acquire().unwrap_err().is_would_block());
    // The waiter was notified, and did not just check after a second.
    assert_eq!(std::fs::metadata(path.join("resized")).unwrap().len(), 1);
}

// Unix only: Windows does not remove a slot file that is open.
#[cfg(unix)]
#[test]
fn slots_beyond_the_capacity_count_without_their_files() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 3).unwrap();
    let mut permits: Vec<_> = (0..3).map(|_| semaphore.acquire().unwrap()).collect();
    permits.sort_by_key(|permit| permit.slots()[0]);
    std::fs::remove_file(path.join("slot.1")).unwrap();
    std::fs::remove_file(path.join("slot.2")).unwrap();
    drop(permits.remove(0));
    semaphore.set_capacity(1).unwrap();
    for semaphore in [&semaphore, &Semaphore::open(&path, 1).unwrap()] {
        assert!(semaphore.try_acquire().unwrap_err().is_would_block());
    }
    drop(permits.remove(0));
    assert!(semaphore.try_acquire().unwrap_err().is_would_block(), "one permit is still held");
    drop(permits);
    drop(semaphore.try_acquire().unwrap());
}

/// A thread whose try fails must not hide a release from a waiting thread.
#[test]
fn threads_that_try_do_not_hide_a_release_from_one_that_waits() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = flockwork::Options::new();
    let semaphore =
        if cfg!(windows) { semaphore } else { semaphore.backstop(Duration::from_secs(1000)) };
    let semaphore = semaphore.open_semaphore(&path, 2).unwrap();
    let rounds = if cfg!(windows) { 5 } else { 60 };
    let mut others = [peer(&path, 2, &[]), peer(&path, 2, &[])];
    others[1].run(Call::Acquire(1, Block));
    for _ in 0..rounds {
        others[0].run(Call::Acquire(1, Block));
        let is_over = std::sync::atomic::AtomicBool::new(false);
        crate::support::running::scope(|scope| {
            let waiter = scope.spawn(|| drop(semaphore.acquire().unwrap()));
            let end = crate::support::running::on_drop(|| {
                is_over.store(true, std::sync::atomic::Ordering::SeqCst);
            });
            crate::support::until_held(&path.join("gate"), std::process::id());
            for _ in 0..3 {
                // A thread whose try succeeds releases the permit and notifies. All of them end
                // after the release.
                scope.spawn(|| {
                    while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                        drop(semaphore.try_acquire());
                    }
                });
            }
            others[0].run(Call::Release);
            drop(end);
            waiter.join().unwrap();
        });
    }
}

#[test]
fn a_waiter_for_more_than_the_new_capacity_fails() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 3).unwrap();
    let _held = semaphore.acquire().unwrap();
    let mut waiter = peer(&path, 3, LATE_BACKSTOP);
    waiter.begin(Call::Acquire(3, Block));
    until_leader(&path, &waiter);
    semaphore.set_capacity(2).unwrap();
    let error = waiter.answer().unwrap_err();
    assert!(error.starts_with("invalid: ") && error.contains("1 to 2"), "{error}");
    eventually("the gathered permits are free", || semaphore.available_permits().unwrap() == 1);
}

/// Processes die and time out in each form, over and over. With late backstops, a lost notification
/// shows as a wait that does not end.
#[test]
fn many_deaths_lose_no_permit_and_grant_none_too_many() {
    limit!();
    let (dir, path) = dirs();
    let permits = 3;
    let (processes, rounds, kills) = if cfg!(windows) { (4, 30, 6) } else { (12, 600, 40) };
    // Where no event reports a death, waiters poll.
    let settings = if cfg!(target_os = "linux") { LATE_BACKSTOP } else { &[] };
    let churn = |peer: &mut Peer, number: usize| {
        peer.open_semaphore(&path, permits, settings);
        let many = if number % 4 == 3 { 2 } else { 1 };
        let mixed = [Block, Timeout(300_000), Async];
        let ways = [&[Block][..], &mixed, &[Async]][number % 3].to_vec();
        peer.begin(Call::Churn(dir.path().into(), many, rounds, ways));
    };
    let mut peers: Vec<_> = (0..processes).map(|_| Peer::start()).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        churn(peer, number);
    }
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(5 + kill % 7));
        let number = usize::try_from(kill).unwrap() * 5 % processes;
        peers[number].kill();
        peers[number] = Peer::start();
        churn(&mut peers[number], number);
    }
    for peer in &mut peers {
        peer.finish();
    }
    drop(peers);
    let semaphore = Semaphore::open_existing(&path).unwrap();
    assert_eq!(semaphore.available_permits().unwrap(), permits);
    drop(semaphore.acquire_many(permits).unwrap());
}

#[test]
fn cancelled_waits_leave_nothing_behind() {
    limit!();
    alone("semaphore::cancelled_waits_leave_nothing_behind", || {
        let (_dir, path) = dirs();
        let mut holder = peer(&path, 2, &[]);
        holder.run(Call::Acquire(2, Block));
        let semaphore = Semaphore::open(&path, 2).unwrap();
        let idle = threads();
        let give_up = |times: u32| {
            for round in 0..times {
                if round % 2 == 0 {
                    assert_waits(semaphore.acquire_many_async(1 + round % 4 / 2));
                } else {
                    let timeout = Duration::from_micros(500);
                    let error = semaphore.acquire_timeout(timeout).unwrap_err();
                    assert!(error.is_timed_out());
                }
            }
        };
        give_up(10);
        // The next waiter uses the helper that is blocked at the gate file, and the helper ends
        // with the leader.
        eventually("threads end", || threads() <= idle);
        let before = descriptors();
        give_up(300);
        eventually("threads end", || threads() <= idle);
        assert!(descriptors() <= before, "{} from {before}", descriptors());
        drop(holder);
        eventually("free", || semaphore.available_permits().unwrap() == 2);
    });
}

#[test]
fn holders_lists_the_holder_of_each_slot() {
    limit!();
    let (_dir, path) = dirs();
    let mut first = peer(&path, 2, &[label("first")]);
    let mut second = peer(&path, 2, &[label("second")]);
    first.expect(Call::Acquire(1, Block), 0);
    second.expect(Call::Acquire(1, Block), 1);
    let semaphore = Options::new().label("third").open_semaphore(&path, 2).unwrap();
    let shown: Vec<_> = semaphore
        .holders()
        .unwrap()
        .into_iter()
        .map(|holder| (holder.slot(), holder.pid(), holder.label().map(String::from)))
        .collect();
    assert_eq!(
        shown,
        [
            (Some(0), first.id(), Some("first".to_string())),
            (Some(1), second.id(), Some("second".to_string()))
        ]
    );
    let error = semaphore.try_acquire().unwrap_err();
    assert_eq!(error.holders()[0].label(), Some("first"));
    assert_eq!(error.holders().len(), 2);
    let timed_out = semaphore.acquire_timeout(Duration::from_millis(1)).unwrap_err();
    let text = timed_out.to_string();
    assert!(text.contains("\"first\"") && text.contains("and 1 more"), "{text}");
    assert_eq!(timed_out.holders()[0].pid(), first.id());

    first.kill();
    let permit = semaphore.acquire().unwrap();
    assert!(permit.was_abandoned());
    assert_eq!(permit.slots(), [0]);
    assert_eq!(semaphore.holders().unwrap()[0].label(), Some("third"));
    permit.release().unwrap();
    second.run(Call::DropPermits);
    assert_eq!(semaphore.holders().unwrap(), []);
    let again = semaphore.acquire().unwrap();
    assert!(!again.was_abandoned());
}

// Linux only: other systems do not list the holder of a lock.
#[cfg(target_os = "linux")]
#[test]
fn holders_without_a_record_are_found_through_the_system() {
    limit!();
    let (_dir, path) = dirs();
    let mut holder = peer(&path, 4, &[]);
    holder.run(Call::Acquire(3, Block));
    let semaphore = Semaphore::open_existing(&path).unwrap();
    eventually("the holders are listed", || {
        let holders = semaphore.holders().unwrap();
        holders.len() == 3 && holders.iter().all(|other| other.pid() == holder.id())
    });
}

#[test]
fn on_wait_reports_a_semaphores_holders() {
    limit!();
    let (_dir, path) = dirs();
    let mut holder = peer(&path, 1, &[label("the holder is listed")]);
    holder.expect(Call::Acquire(1, Block), 0);
    let (send, calls) = std::sync::mpsc::channel();
    let semaphore = Options::new()
        .on_wait(Duration::from_millis(5), Duration::from_millis(5), move |waiting| {
            let _ = send.send((waiting.to_string(), waiting.holders().len()));
        })
        .open_semaphore(&path, 1)
        .unwrap();
    crate::support::running::scope(|scope| {
        let waiter = scope.spawn(|| semaphore.acquire().unwrap());
        let (text, holders) = calls.recv_timeout(Duration::from_secs(100)).unwrap();
        assert!(text.contains("the holder is listed"), "{text}");
        assert_eq!(holders, 1);
        holder.run(Call::Release);
        drop(waiter.join().unwrap());
    });
}

// Unix only: Windows has no fork.
#[cfg(unix)]
#[test]
fn a_forked_copy_of_a_permit_releases_nothing() {
    limit!();
    let (_dir, path) = dirs();
    let mut holder = peer(&path, 1, &[label("x")]);
    holder.expect(Call::Acquire(1, Block), 0);
    holder.expect(Call::DropPermitsInFork, 0);
    holder.expect(Call::StillHeld, true);
    let semaphore = Semaphore::open(&path, 1).unwrap();
    assert!(semaphore.try_acquire().unwrap_err().is_would_block());
    assert_eq!(semaphore.holders().unwrap().len(), 1);
    holder.run(Call::Release);
    drop(semaphore.try_acquire().unwrap());
}

/// A fork copies the handle's mutexes as they are, but not the threads that may have locked them.
// Unix only: Windows has no fork.
#[cfg(unix)]
#[test]
fn a_fork_while_threads_use_a_semaphore_does_not_hang_it() {
    limit!();
    use std::sync::atomic::{AtomicBool, Ordering};
    const FORKS: u32 = 150;
    alone("semaphore::a_fork_while_threads_use_a_semaphore_does_not_hang_it", || {
        for permits in [1, 3] {
            let (_dir, path) = dirs();
            let semaphore = Semaphore::open(&path, permits).unwrap();
            let is_over = AtomicBool::new(false);
            crate::support::running::scope(|scope| {
                let _end =
                    crate::support::running::on_drop(|| is_over.store(true, Ordering::Relaxed));
                for way in 0..3 {
                    let (semaphore, is_over) = (&semaphore, &is_over);
                    scope.spawn(move || {
                        while !is_over.load(Ordering::Relaxed) {
                            match way {
                                0 => drop(semaphore.try_acquire()),
                                1 => drop(semaphore.acquire_timeout(Duration::from_micros(200))),
                                _ => drop(semaphore.available_permits()),
                            }
                        }
                    });
                }
                let mut rounds = crate::support::rounds(FORKS, Duration::from_secs(20));
                rounds.try_for_each(|_| in_a_fork(&semaphore)).unwrap();
            });
        }
    });
}

/// Acquires a permit in a child and checks the semaphore.
#[cfg(unix)]
fn in_a_fork(semaphore: &Semaphore) -> Result<(), String> {
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let used = semaphore.acquire_timeout(Duration::from_secs(60)).and_then(|permit| {
                permit.release()?;
                semaphore.available_permits()?;
                semaphore.capacity()
            });
            if let Err(error) = &used {
                eprintln!("in the child: {error}");
            }
            crate::support::exit_copy(i32::from(used.is_err()))
        }
        fork::Fork::Parent(child) => {
            let pid = rustix::process::Pid::from_raw(child).unwrap();
            let start = Instant::now();
            loop {
                let options = rustix::process::WaitOptions::NOHANG;
                if let Some((_, status)) = rustix::process::waitpid(Some(pid), options).unwrap() {
                    let code = status.exit_status();
                    return if code == Some(0) { Ok(()) } else { Err(format!("{status:?}")) };
                }
                if start.elapsed() > Duration::from_secs(100) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    let _ =
                        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                    return Err("the child hangs".into());
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}
