//! The queue of a semaphore: the order of waiters, which of them a release wakes, and waits without
//! file system events.

use std::future::Future as _;
use std::task::{Context, Waker};
use std::time::Duration;

use flockwork::{Options, Semaphore};
use futures_lite::future::block_on;

use crate::peer::LATE_BACKSTOP;
use crate::peer::Way::Block;
#[cfg(target_os = "linux")]
use crate::peer::semaphore::queue_up;
use crate::peer::semaphore::{Call, peer, until_leader};
use crate::semaphore::{dirs, without_fifos};
use crate::support::{until_blocked, until_held};

// Linux only: other systems do not show the queue, and Wine's order is not that of Windows.
#[cfg(target_os = "linux")]
#[test]
fn processes_acquire_in_the_order_of_arrival() {
    limit!();
    for permits in [1, 2] {
        let (_dir, path) = dirs();
        let semaphore = Semaphore::open(&path, permits).unwrap();
        let mut peers: Vec<_> = (0..4).map(|_| peer(&path, permits, LATE_BACKSTOP)).collect();
        let mut orders = Vec::new();
        for _ in 0..10 {
            let held = semaphore.acquire_many(permits).unwrap();
            queue_up(&path, &mut peers, permits);
            drop(held);
            let mut order = Vec::new();
            while order.len() < peers.len() {
                let (next, answer) = first_answer(&mut peers);
                answer.unwrap();
                assert!(
                    peers.iter_mut().all(crate::peer::Peer::is_silent),
                    "two peers have acquired"
                );
                peers[next].run(Call::Release);
                order.push(next);
            }
            orders.push(order);
        }
        assert!(orders.iter().all(|order| order.is_sorted()), "{orders:?}");
    }
}

/// Waits for the first answer, and returns its peer's number with it.
#[cfg(target_os = "linux")]
#[track_caller]
fn first_answer(peers: &mut [crate::peer::Peer]) -> (usize, crate::peer::Answer) {
    let mut first = None;
    crate::support::eventually("a peer answers", || {
        let mut answers = peers.iter_mut().enumerate();
        first = answers.find_map(|(number, peer)| Some((number, peer.has_answered()?)));
        first.is_some()
    });
    first.unwrap()
}

#[test]
fn a_holder_that_reacquires_queues_behind_waiters() {
    limit!();
    let (_dir, path) = dirs();
    let mut looping = peer(&path, 1, LATE_BACKSTOP);
    let mut waiting = peer(&path, 1, LATE_BACKSTOP);
    looping.expect(Call::Acquire(1, Block), 0);
    for _ in 0..50 {
        waiting.begin(Call::Acquire(1, Block));
        until_leader(&path, &waiting);
        looping.begin(Call::ReleaseAndAcquire);
        if cfg!(windows) {
            // Windows does not show which process is the leader, so on a busy machine the waiter
            // may not have queued yet.
            let mut has_passed = None;
            crate::support::eventually("one of them has acquired", || {
                let waited = waiting.has_answered().map(|_| false);
                has_passed = waited.or_else(|| looping.has_answered().map(|_| true));
                has_passed.is_some()
            });
            let (first, second) = match has_passed {
                Some(true) => (&mut looping, &mut waiting),
                _ => (&mut waiting, &mut looping),
            };
            first.run(Call::Release);
            assert_eq!(second.finish(), "0");
            if has_passed == Some(true) {
                waiting.run(Call::Release);
                looping.expect(Call::Acquire(1, Block), 0);
            }
            continue;
        }
        assert_eq!(waiting.finish(), "0");
        assert!(looping.is_silent());
        waiting.run(Call::Release);
        assert_eq!(looping.finish(), "0");
    }
}

#[test]
fn threads_of_a_process_acquire_in_the_order_of_arrival() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore =
        Options::new().backstop(Duration::from_secs(1000)).open_semaphore(&path, 1).unwrap();
    let held = semaphore.acquire().unwrap();
    let (send, order) = std::sync::mpsc::channel();
    crate::support::running::scope(|scope| {
        let mut futures = Vec::new();
        for number in 0..6 {
            let mut future = Box::pin(semaphore.acquire_async());
            crate::support::assert_waits(&mut future);
            futures.push((number, future));
        }
        for (number, future) in futures {
            let send = send.clone();
            scope.spawn(move || {
                let permit = block_on(future).unwrap();
                send.send(number).unwrap();
                drop(permit);
            });
        }
        drop(held);
    });
    drop(send);
    assert_eq!(order.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

// Linux only: counts wake-ups through `/proc`.
#[cfg(target_os = "linux")]
#[test]
fn a_release_wakes_only_the_leader() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    let mut held: Vec<_> = (0..2).map(|_| semaphore.acquire().unwrap()).collect();
    let mut peers: Vec<_> = (0..24).map(|_| peer(&path, 2, LATE_BACKSTOP)).collect();
    queue_up(&path, &mut peers, 1);
    let settled = |peers: &[crate::peer::Peer]| -> Vec<u64> {
        peers.iter().map(|peer| crate::support::sleeps(peer.id())).collect()
    };
    crate::support::eventually("the waiters sleep", || {
        let before = settled(&peers);
        std::thread::sleep(Duration::from_millis(50));
        before == settled(&peers)
    });
    let before = settled(&peers);
    drop(held.pop());
    // On a busy machine two waiters may change places.
    let mut finished = Vec::new();
    while finished.len() < 10 {
        let (next, _) = first_answer(&mut peers);
        finished.push(next);
        peers[next].run(Call::Release);
    }
    // Of the waiters behind, the first has a permit by now, and the second is the leader. If each
    // release woke all of them, they would wake 120 times. On a busy machine some of them had not
    // quite fallen asleep before.
    let after = settled(&peers);
    let mut woken: Vec<u64> = (0..peers.len())
        .filter(|number| !finished.contains(number))
        .map(|number| after[number].saturating_sub(before[number]))
        .collect();
    woken.sort_unstable();
    let asleep = &woken[..woken.len() - 2];
    assert!(asleep.iter().sum::<u64>() <= 40, "{before:?} {after:?}");
    // All peers are killed first, because each could wait for the next one to end.
    peers.iter_mut().for_each(crate::peer::Peer::kill);
}

// Linux only: counts wake-ups through `/proc`.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_leader_wakes_at_most_twice_a_second() {
    limit!();
    let (_dir, path) = dirs();
    let mut leaders = [1, 2].map(|permits| {
        let path = path.join(permits.to_string());
        let semaphore = Semaphore::open(&path, permits).unwrap();
        let held = semaphore.acquire_many(permits).unwrap();
        let mut waiter = peer(&path, permits, &[]);
        waiter.begin(Call::Acquire(1, Block));
        until_leader(&path, &waiter);
        (waiter, held)
    });
    std::thread::sleep(Duration::from_millis(300)); // Their watches start.
    crate::support::assert_sleep(&leaders.each_ref().map(|(leader, _)| (leader.id(), 2.0)));
    for (leader, _) in &mut leaders {
        leader.kill();
    }
}

/// The directory cannot be changed, so the release notifies in another way (rule S7).
#[test]
fn a_release_that_cannot_notify_is_noticed() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    std::fs::create_dir(path.join("poke")).unwrap();
    without_fifos(&path);
    for _ in 0..if cfg!(windows) { 4 } else { 20 } {
        let held = semaphore.acquire_many(2).unwrap();
        let mut waiter = peer(&path, 2, LATE_BACKSTOP);
        waiter.begin(Call::Acquire(1, Block));
        until_leader(&path, &waiter);
        drop(held);
        waiter.finish();
    }
}

#[test]
fn waits_are_event_driven_where_the_system_supports_it() {
    limit!();
    let (_dir, path) = dirs();
    let semaphore = Semaphore::open(&path, 2).unwrap();
    assert!(semaphore.is_event_driven());
    let polling =
        Options::new().poll_interval(Duration::from_millis(2)).open_semaphore(&path, 2).unwrap();
    assert!(!polling.is_event_driven());
    let held = semaphore.acquire_many(2).unwrap();
    crate::support::running::scope(|scope| {
        let waiter = scope.spawn(|| polling.acquire().unwrap());
        until_held(&path.join("gate"), std::process::id());
        drop(held);
        drop(waiter.join().unwrap());
    });
}

/// A helper checks for other waiters on behalf of the wait that started it. If that wait has been
/// cancelled, a mark set in its name would never be removed: every acquisition would queue, and
/// every release would notify.
#[test]
fn a_wait_cancelled_immediately_leaves_no_waiter_mark() {
    limit!();
    for _ in 0..50 {
        let (_dir, path) = dirs();
        let semaphore = Semaphore::open(&path, 1).unwrap();
        without_fifos(&path);
        let held = semaphore.acquire().unwrap();
        let first = Semaphore::open(&path, 1).unwrap();
        let context = &mut Context::from_waker(Waker::noop());
        let mut at_front = Box::pin(first.acquire_async());
        assert!(at_front.as_mut().poll(context).is_pending());
        let cancelled = Semaphore::open(&path, 1).unwrap();
        let mut given_up = Box::pin(cancelled.acquire_async());
        assert!(given_up.as_mut().poll(context).is_pending());
        drop(given_up);
        until_blocked(&path.join("gate"), 1);
        drop(at_front);
        drop(held);
        assert_eq!(std::fs::metadata(path.join("queued")).unwrap().len(), 0, "no process waits");
    }
}

// Linux only: strace injects the errors.
#[cfg(target_os = "linux")]
mod scarce {
    use super::*;
    use crate::peer::Peer;
    use crate::peer::Way::{Async, Timeout};

    /// Checks that every form of wait still ends with a permit, with FIFOs and without.
    #[track_caller]
    fn assert_waits_without_events(mut other: Peer, permits: &[u32], with_fifos: bool) {
        let (_dir, path) = dirs();
        let cases = permits.iter().flat_map(|permits| [(*permits, true), (*permits, false)]);
        for (permits, has_fifos) in cases {
            let path = path.join(format!("{permits} {has_fifos}"));
            let semaphore = Semaphore::open(&path, permits).unwrap();
            if !has_fifos {
                without_fifos(&path);
            }
            other.open_semaphore(&path, permits, &[]);
            other.expect(Call::IsEventDriven, has_fifos && with_fifos);
            for way in [Block, Timeout(100_000), Async] {
                let held = semaphore.acquire_many(permits).unwrap();
                other.begin(Call::Acquire(1, way));
                // The peer's pid is that of strace, so `until_leader` does not work here.
                crate::support::eventually("the peer waits", || {
                    crate::support::tickets(&path.join("queue")) > 0
                        || std::fs::metadata(path.join("queued"))
                            .is_ok_and(|queued| queued.len() > 0)
                });
                assert!(other.is_silent());
                drop(held);
                other.finish();
                other.run(Call::Release);
            }
        }
    }

    #[test]
    fn without_an_inotify_instance_waits_are_polled() {
        limit!();
        let inject = "inotify_init1,inotify_init:error=EMFILE";
        if let Some(other) = crate::support::strace::strace(&[], inject) {
            assert_waits_without_events(other, &[1, 2], true);
        }
    }

    #[test]
    fn without_a_watch_waits_are_polled() {
        limit!();
        if let Some(other) = crate::support::strace::strace(&[], "inotify_add_watch:error=ENOSPC") {
            assert_waits_without_events(other, &[1, 2], true);
        }
    }

    #[test]
    fn without_threads_waits_are_polled() {
        limit!();
        if let Some(other) = crate::support::strace::strace(&[], "clone3,clone:error=EAGAIN") {
            assert_waits_without_events(other, &[1, 2], true);
        }
    }

    /// The fault hits the first thread that each thread starts. libtest works without one; the
    /// first thread that this crate starts is notify's own, whose failure notify does not report.
    #[test]
    fn without_notifys_own_thread_waits_are_polled() {
        limit!();
        if let Some(other) = crate::support::strace::strace(&[], "clone3,clone:error=EAGAIN:when=1")
        {
            // notify starts its thread the next time it is needed.
            assert_waits_without_events(other, &[2], true);
        }
    }

    #[test]
    fn on_a_network_file_system_waits_are_polled() {
        limit!();
        let inject = "fstatfs:poke_exit=@arg2=6969000000000000";
        if let Some(other) = crate::support::strace::strace(&[], inject) {
            assert_waits_without_events(other, &[1, 2], false);
        }
    }
}
