//! Waiting by FIFOs: the exact order of waiters, also when they are stopped, are killed, or find
//! something else in the place of a FIFO.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flockwork::{Options, Semaphore};
use futures_lite::future::block_on;

use crate::peer::Way::{Async, Block, Timeout, Try};
use crate::peer::semaphore::{Call, peer, queue_up, until_leader};
use crate::peer::{LATE_BACKSTOP, Peer};
use crate::semaphore::dirs;
use crate::support::running::Start as _;
use crate::support::{eventually, tickets, until_blocked};

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success());
    if name == "STOP" {
        // Its threads run until one of them has met the signal.
        eventually("it is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
        });
    }
}

/// Runs `body` while a forked copy of this process lives.
fn beside_a_copy(body: impl FnOnce()) {
    let (mut ends, end) = std::os::unix::net::UnixStream::pair().unwrap();
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            drop(end);
            std::io::Read::read(&mut ends, &mut [0]).unwrap();
            crate::support::exit_copy(0);
        }
        fork::Fork::Parent(child) => {
            body();
            drop(end);
            crate::support::ended(child);
        }
    }
}

/// Each peer in turn is served when the one before has released, and none before that.
#[track_caller]
fn assert_served_in_order(peers: &mut [Peer]) {
    for served in 0..peers.len() {
        peers[served].finish();
        let (_, later) = peers.split_at_mut(served + 1);
        assert!(later.iter_mut().all(Peer::is_silent), "one was passed");
        peers[served].run(Call::Release);
    }
}

#[test]
fn stops_and_signals_cost_a_waiter_no_place() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 1).unwrap();
    let held = semaphore.acquire().unwrap();
    let mut peers: Vec<_> = (0..4).map(|_| peer(&path, 1, LATE_BACKSTOP)).collect();
    queue_up(&path, &mut peers, 1);
    for peer in &peers {
        signal(peer.id(), "STOP");
        signal(peer.id(), "CONT");
    }
    drop(held);
    assert_served_in_order(&mut peers);
}

#[test]
fn waiters_that_die_are_skipped() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 1).unwrap();
    for dying in [vec![0], vec![1], vec![1, 2], vec![0, 2], vec![0, 1, 2]] {
        let held = semaphore.acquire().unwrap();
        let mut peers: Vec<_> = (0..4).map(|_| peer(&path, 1, LATE_BACKSTOP)).collect();
        queue_up(&path, &mut peers, 1);
        for number in dying.iter().rev() {
            peers.remove(*number).kill();
        }
        drop(held);
        assert_served_in_order(&mut peers);
        assert_eq!(tickets(&path.join("queue")), 0);
        assert!(semaphore.try_acquire().is_ok(), "{dying:?}: a dead waiter refuses a try");
    }
}

#[test]
fn waits_in_every_form_keep_one_order() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    let held = semaphore.acquire_many(2).unwrap();
    let ways = [Block, Async, Timeout(100_000), Async, Block];
    let mut peers: Vec<_> = ways.iter().map(|_| peer(&path, 2, LATE_BACKSTOP)).collect();
    for (ahead, (peer, way)) in peers.iter_mut().zip(ways).enumerate() {
        peer.begin(Call::Acquire(2, way));
        eventually("it has a ticket", || tickets(&path.join("queue")) > ahead);
    }
    drop(held);
    assert_served_in_order(&mut peers);
}

#[test]
fn a_try_does_not_pass_a_waiter_that_runs() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    let held = semaphore.acquire().unwrap();
    let mut both = peer(&path, 2, LATE_BACKSTOP);
    both.begin(Call::Acquire(2, Block));
    until_leader(&path, &both);
    let mut behind = peer(&path, 2, LATE_BACKSTOP);
    behind.begin(Call::Acquire(1, Block));
    until_blocked(&path.join("gate"), 1);
    let mut trying = peer(&path, 2, &[]);
    trying.expect_would_block(Call::Acquire(1, Try));
    assert!(semaphore.acquire_timeout(Duration::ZERO).unwrap_err().is_timed_out());
    drop(held);
    assert_eq!(both.finish(), "0,1");
    both.run(Call::Release);
    behind.finish();
}

#[test]
fn a_try_passes_waiters_behind_a_stopped_one() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 1).unwrap();
    let held = semaphore.acquire().unwrap();
    let mut stopped = peer(&path, 1, LATE_BACKSTOP);
    stopped.begin(Call::Acquire(1, Block));
    until_leader(&path, &stopped);
    signal(stopped.id(), "STOP");
    drop(held);
    drop(semaphore.try_acquire().unwrap());
    signal(stopped.id(), "CONT");
    stopped.finish();
}

/// One that is stopped in the middle of the queue delays those behind it for about a second.
#[test]
fn a_stopped_waiter_is_passed_after_a_second() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 1).unwrap();
    let held = semaphore.acquire().unwrap();
    let mut peers: Vec<_> = (0..3).map(|_| peer(&path, 1, &[])).collect();
    queue_up(&path, &mut peers, 1);
    signal(peers[1].id(), "STOP");
    drop(held);
    let start = Instant::now();
    // On a busy machine the first one may run late, and the last one passes it as well.
    let mut left = vec![0, 2];
    eventually("both are served", || {
        left.retain(|number: &usize| {
            let Some(answer) = peers[*number].has_answered() else { return true };
            answer.unwrap();
            peers[*number].run(Call::Release);
            false
        });
        left.is_empty()
    });
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    signal(peers[1].id(), "CONT");
    peers[1].finish();
}

/// All holders of a slot use one FIFO, so a copy of an earlier holder has the FIFO of the present
/// one open.
#[test]
fn a_copy_of_an_earlier_holder_hides_no_release() {
    limit!();
    let (_dir, path) = dirs();
    let options = Options::new().backstop(Duration::from_secs(1000));
    let semaphore = options.open_semaphore(&path, 1).unwrap();
    let held = semaphore.acquire().unwrap();
    beside_a_copy(|| {
        held.release().unwrap();
        let mut peers = [peer(&path, 1, LATE_BACKSTOP), peer(&path, 1, LATE_BACKSTOP)];
        peers[0].run(Call::Acquire(1, Block));
        for turn in 0..6 {
            let (holder, waiter) = (turn % 2, 1 - turn % 2);
            let way = if turn < 3 { Block } else { Async };
            peers[waiter].begin(Call::Acquire(1, way));
            until_leader(&path, &peers[waiter]);
            peers[holder].run(Call::Release);
            peers[waiter].finish();
        }
    });
}

/// A copy of a waiter has its FIFO open after the waiter has died. The test stands for the copy.
#[test]
fn a_dead_waiter_is_passed_although_a_copy_of_it_lives() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 1).unwrap();
    let held = semaphore.acquire().unwrap();
    let mut peers: Vec<_> = (0..3).map(|_| peer(&path, 1, &[])).collect();
    queue_up(&path, &mut peers, 1);
    let copies: Vec<_> = (0..3)
        .map(|place| {
            let path = path.join("queue").join(place.to_string());
            std::fs::File::options().read(true).write(true).open(path).unwrap()
        })
        .collect();
    peers.remove(1).kill();
    peers.remove(0).kill();
    drop(held);
    peers[0].finish();
    peers[0].run(Call::Release);
    drop(semaphore.try_acquire().expect("a dead waiter refuses a try"));
    let start = Instant::now();
    for _ in 0..100 {
        drop(semaphore.acquire().unwrap());
    }
    // Each took a second when the dead waiter was waited for.
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    drop(copies);
}

/// The copy keeps the FIFO open as a holder does, and must not count as one.
#[test]
fn a_release_is_noticed_although_a_forked_copy_lives() {
    limit!();
    let (_dir, path) = dirs();
    let options = Options::new().backstop(Duration::from_secs(1000));
    let semaphore = options.open_semaphore(&path, 1).unwrap();
    for way in [Block, Async] {
        let held = semaphore.acquire().unwrap();
        let mut waiter = peer(&path, 1, LATE_BACKSTOP);
        waiter.begin(Call::Acquire(1, way));
        until_leader(&path, &waiter);
        beside_a_copy(|| {
            held.release().unwrap();
            waiter.finish();
        });
    }
}

#[test]
fn the_end_of_the_last_inheriting_program_is_noticed() {
    limit!();
    let (_dir, path) = dirs();
    let options = Options::new().inherit(true).backstop(Duration::from_secs(1000));
    let semaphore = options.open_semaphore(&path, 1).unwrap();
    let held = semaphore.acquire().unwrap();
    let mut job = Command::new("cat").stdin(Stdio::piped()).start();
    drop(held);
    let mut waiter = peer(&path, 1, LATE_BACKSTOP);
    waiter.begin(Call::Acquire(1, Block));
    until_leader(&path, &waiter);
    assert!(waiter.is_silent());
    drop(job.stdin.take());
    waiter.finish();
    job.wait().unwrap();
}

/// The FIFOs and the other files of a queue are changed while processes wait.
#[test]
fn waiters_are_served_after_fifos_were_removed_or_replaced() {
    limit!();
    let replace_by_file = |path: &Path| {
        let _ = std::fs::remove_file(path);
        std::fs::write(path, "another program's").unwrap();
    };
    let replace_by_fifo = |path: &Path| {
        let _ = std::fs::remove_file(path);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let remove = |path: &Path| drop(std::fs::remove_file(path));
    let fill = |path: &Path| {
        let fifo = std::fs::File::options().read(true).write(true).open(path);
        let _ = fifo.map(|mut fifo| fifo.write_all(&[7; 1000]));
    };
    let changes: [&dyn Fn(&Path); 4] = [&replace_by_file, &replace_by_fifo, &remove, &fill];
    for change in changes {
        for names in
            [&["fifo.0", "changed"][..], &["queue/0", "queue/1", "queue/2"], &["queue/tickets"]]
        {
            let (_dir, path) = dirs();
            let semaphore = Semaphore::open(&path, 1).unwrap();
            let held = semaphore.acquire().unwrap();
            let mut peers: Vec<_> = (0..3).map(|_| peer(&path, 1, &[])).collect();
            queue_up(&path, &mut peers, 1);
            for name in names {
                change(&path.join(name));
            }
            let mut late = peer(&path, 1, &[]);
            late.begin(Call::Acquire(1, Block));
            drop(held);
            peers.push(late);
            let mut left: Vec<usize> = (0..peers.len()).collect();
            while !left.is_empty() {
                let mut served = None;
                eventually("one is served", || {
                    served =
                        left.iter().copied().find(|number| peers[*number].has_answered().is_some());
                    served.is_some()
                });
                let served = served.unwrap();
                assert!(left.iter().all(|other| *other == served || peers[*other].is_silent()));
                peers[served].run(Call::Release);
                left.retain(|number| *number != served);
            }
        }
    }
}

#[test]
fn more_than_64_permits_are_handed_over_by_events() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 65).unwrap();
    assert!(!path.join("fifo.64").exists());
    for way in [Block, Async] {
        let mut held: Vec<_> = (0..65).map(|_| semaphore.acquire().unwrap()).collect();
        for slot in [64, 0] {
            let mut waiter = peer(&path, 65, LATE_BACKSTOP);
            waiter.begin(Call::Acquire(1, way));
            until_leader(&path, &waiter);
            crate::support::until_watching(waiter.id(), &path);
            let index = held.iter().position(|permit| permit.slot() == slot).unwrap();
            drop(held.swap_remove(index));
            assert_eq!(waiter.finish(), slot.to_string());
            waiter.run(Call::Release);
            held.push(semaphore.acquire().unwrap());
        }
    }
}

/// The leader needs other FIFOs, or none, after each of these.
#[test]
fn a_leader_follows_the_capacity_across_64() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    let mut held = vec![semaphore.acquire_many(2).unwrap()];
    for capacity in [3, 66, 67] {
        let semaphore = Semaphore::open_existing(&path).unwrap();
        let mut leader = Peer::start();
        leader.run(Call::OpenExisting(path.clone()));
        leader.begin(Call::Acquire(1, Block));
        until_leader(&path, &leader);
        assert!(leader.is_silent());
        semaphore.set_capacity(capacity).unwrap();
        leader.finish();
        let free = semaphore.available_permits().unwrap();
        if free > 0 {
            held.push(semaphore.acquire_many(free).unwrap());
        }
        assert!(semaphore.try_acquire().unwrap_err().is_would_block());
        leader.run(Call::Release);
        held.push(semaphore.acquire().unwrap());
    }
    // From more than 64 to fewer, which waits for those that are in excess.
    let mut leader = peer(&path, 67, LATE_BACKSTOP);
    leader.begin(Call::Acquire(1, Block));
    until_leader(&path, &leader);
    semaphore.set_capacity(1).unwrap();
    while let Some(permit) = held.pop() {
        assert!(leader.is_silent());
        drop(permit);
    }
    assert_eq!(leader.finish(), "0");
}

#[test]
fn futures_that_are_dropped_leave_the_queue() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 1).unwrap();
    let held = semaphore.acquire().unwrap();
    let mut futures: Vec<_> = (0..5)
        .map(|_| {
            let mut future = Box::pin(semaphore.acquire_async());
            crate::support::assert_waits(&mut future);
            future
        })
        .collect();
    assert_eq!(tickets(&path.join("queue")), 5);
    drop(futures.remove(3));
    drop(futures.remove(0));
    drop(held);
    for future in futures {
        drop(block_on(future).unwrap());
    }
    assert_eq!(tickets(&path.join("queue")), 0);
    drop(semaphore.try_acquire().unwrap());
}
