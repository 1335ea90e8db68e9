//! Waiters of one host for a file on a network file system: they queue on their host, and only the
//! first of them sends requests to the server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fuse::{Mount, UNKNOWN};
use crate::peer::{Peer, Way, lock, rwlock, semaphore};
use crate::support::{eventually, open_files};

/// A type of which blocked requests are known to be granted promptly.
const PROMPT: &str = "fuse.ceph-fuse";
/// A type of which one process of a host may be blocked.
const ONE_BLOCKED: &str = "fuse.glusterfs";

/// A mount, and a directory for the queues of the processes that are its host.
struct Host {
    mount: Mount,
    local: tempfile::TempDir,
}

impl Host {
    fn start(kind: &str) -> Option<Self> {
        let mount = Mount::start_as(kind)?;
        Some(Self { mount, local: tempfile::tempdir().unwrap() })
    }

    fn peer(&self) -> Peer {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("TMPDIR", self.local.path());
        Peer::start_as(command)
    }

    fn lock_peer(&self, path: &Path) -> Peer {
        let mut peer = self.peer();
        peer.open_lock(path, &[]);
        peer
    }

    /// Lets the peers wait for the lock, one after the other.
    fn queue_up(&self, path: &Path, ways: &[Way]) -> Vec<Peer> {
        let wait = |way: &Way| {
            let mut peer = self.lock_peer(path);
            peer.begin(lock::Call::Acquire(*way));
            until_queued(&peer);
            peer
        };
        ways.iter().map(wait).collect()
    }

    /// Starts a host on which a peer holds `a.lock`, and others wait for it. Returns `None` where
    /// no file system can be mounted.
    fn with_queue(kind: &str, ways: &[Way]) -> Option<(Self, Peer, Vec<Peer>)> {
        let host = Self::start(kind)?;
        let path = host.mount.at("a.lock");
        let mut holder = host.lock_peer(&path);
        holder.lock();
        let peers = host.queue_up(&path, ways);
        Some((host, holder, peers))
    }

    /// Waits until the server has at most that many requests in each of three seconds.
    fn until_idle(&mut self, most: u64) {
        let mut idle = 0;
        eventually("the waiters are idle", || {
            let (before, start) = (self.mount.operations(), Instant::now());
            std::thread::sleep(Duration::from_secs(1));
            let operations = self.mount.operations() - before;
            // On a busy machine this thread sleeps for longer.
            let most = u128::from(most) * start.elapsed().as_millis() / 1000;
            idle = if u128::from(operations) <= most { idle + 1 } else { 0 };
            idle == 3
        });
    }
}

/// Lets the peers acquire the lock and release it. If the waiter at the front of their queue does
/// not wait for the server, or runs late on a busy machine, the others acquire in any order.
fn pass_in_any_order(peers: &mut [Peer], release: impl Fn(&mut Peer)) {
    let mut waiting: Vec<_> = peers.iter_mut().collect();
    eventually("all peers have acquired the lock", || {
        waiting.retain_mut(|peer| {
            let Some(answer) = peer.has_answered() else { return true };
            answer.unwrap();
            release(peer);
            false
        });
        waiting.is_empty()
    });
}

fn release_permits(peer: &mut Peer) {
    peer.run(semaphore::Call::Release);
}

/// Lets the peers acquire the lock and release it, and returns their order.
fn order_of(peers: &mut [Peer]) -> Vec<usize> {
    let mut order = Vec::new();
    while order.len() < peers.len() {
        let mut next = None;
        eventually("a peer has acquired the lock", || {
            let mut answers = peers.iter_mut().enumerate();
            next = answers.find_map(|(index, peer)| Some((index, peer.has_answered()?)));
            next.is_some()
        });
        let (index, answer) = next.unwrap();
        answer.unwrap();
        assert!(peers.iter_mut().all(Peer::is_silent), "two peers have acquired the lock");
        peers[index].unlock();
        order.push(index);
    }
    order
}

/// Waits until the process has a place in a queue on its host.
fn until_queued(peer: &Peer) {
    eventually("a waiter has queued", || places_of(peer.id()) > 0);
}

/// How many places in queues on its host the process uses: its own, and those that it watches.
fn places_of(pid: u32) -> usize {
    let is_place = |path: &PathBuf| {
        let is_queue = path.parent().is_some_and(|it| it.extension() == Some("queue".as_ref()));
        let name = path.file_name().and_then(|name| name.to_str());
        is_queue && name.is_some_and(|name| name.parse::<u32>().is_ok())
    };
    open_files(pid).into_iter().filter(is_place).collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn idle_waiters_of_a_host_cost_a_server_what_one_does() {
    limit!();
    for (kind, waiters) in [(PROMPT, 12), (ONE_BLOCKED, 4), (UNKNOWN, 4)] {
        let ways = [Way::Block, Way::Async].repeat(waiters / 2);
        let Some((mut host, mut holder, mut peers)) = Host::with_queue(kind, &ways) else { return };
        host.until_idle(6);
        holder.unlock();
        pass_in_any_order(&mut peers, Peer::unlock);
    }
}

#[test]
fn idle_writers_and_permit_waiters_cost_a_server_no_more() {
    limit!();
    let Some(mut host) = Host::start(PROMPT) else { return };
    let path = host.mount.at("a.lock");
    let mut peers: Vec<_> = (0..6).map(|_| host.peer()).collect();
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.open_rwlock(&path, &[]);
        peer.begin(rwlock::Call::Write(Way::Block));
        if index == 0 { drop(peer.finish()) } else { until_queued(peer) }
    }
    host.until_idle(6);
    peers[0].run(rwlock::Call::Unlock);
    pass_in_any_order(&mut peers[1..], |peer| drop(peer.run(rwlock::Call::Unlock)));
    for capacity in [1, 2] {
        let path = host.mount.at(&format!("{capacity}"));
        let mut holder = semaphore::peer(&path, capacity, &[]);
        holder.run(semaphore::Call::Acquire(capacity, Way::Block));
        let mut peers: Vec<_> = (0..6).map(|_| host.peer()).collect();
        for peer in &mut peers {
            peer.open_semaphore(&path, capacity, &[]);
            peer.begin(semaphore::Call::Acquire(1, Way::Timeout(1_000_000)));
            until_queued(peer);
        }
        host.until_idle(if capacity == 1 { 6 } else { 12 });
        holder.run(semaphore::Call::Release);
        pass_in_any_order(&mut peers, release_permits);
    }
}

#[test]
fn waiters_of_a_host_acquire_in_their_order() {
    limit!();
    for kind in [PROMPT, ONE_BLOCKED, UNKNOWN] {
        let ways = [Way::Block, Way::Async, Way::Timeout(100_000), Way::Block];
        let mut orders: Vec<Vec<usize>> = Vec::new();
        // On a busy machine, the others may pass one that runs late when it is its turn.
        while !orders.last().is_some_and(|order| order.is_sorted()) {
            assert!(orders.len() < 4, "{kind}: {orders:?}");
            let Some((_host, mut holder, mut peers)) = Host::with_queue(kind, &ways) else {
                return;
            };
            holder.unlock();
            orders.push(order_of(&mut peers));
        }
    }
}

#[test]
fn a_dead_waiter_holds_up_no_other_of_its_host() {
    limit!();
    for kind in [PROMPT, ONE_BLOCKED, UNKNOWN] {
        let ways = [Way::Block; 4];
        let Some((_host, mut holder, mut peers)) = Host::with_queue(kind, &ways) else { return };
        peers.remove(0).kill(); // the one that waits for the server
        peers.remove(1).kill();
        holder.unlock();
        pass_in_any_order(&mut peers, Peer::unlock);
    }
}

#[test]
fn a_stopped_waiter_is_passed_by_others_of_its_host() {
    limit!();
    let ways = [Way::Block, Way::Async, Way::Block];
    let Some((_host, mut holder, mut peers)) = Host::with_queue(UNKNOWN, &ways) else { return };
    let signal = |peer: &Peer, signal| {
        let pid = i32::try_from(peer.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), signal).unwrap();
    };
    signal(&peers[0], rustix::process::Signal::STOP);
    // A thread of it may be about to acquire the lock.
    eventually("all its threads are stopped", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", peers[0].id())).unwrap();
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        })
    });
    holder.unlock();
    pass_in_any_order(&mut peers[1..], Peer::unlock);
    signal(&peers[0], rustix::process::Signal::CONT);
    peers[0].finish();
    peers[0].unlock();
}

/// A process has at most 64 helpers for futures. A further one takes its turn when it is polled.
#[test]
fn a_future_that_is_not_polled_holds_up_no_other_of_its_host() {
    limit!();
    let Some(host) = Host::start(UNKNOWN) else { return };
    let (path, other) = (host.mount.at("a.lock"), host.mount.at("b.lock"));
    let mut holder = host.lock_peer(&path);
    holder.lock();
    let mut other_holder = host.lock_peer(&other);
    other_holder.lock();
    let mut first = host.queue_up(&path, &[Way::Block]);
    let mut unpolled = host.lock_peer(&path);
    unpolled.run(lock::Call::StopPolling(other, 64));
    let mut peers = host.queue_up(&path, &[Way::Block, Way::Async, Way::Timeout(100_000)]);
    holder.unlock();
    // After the first one, it is the turn of the future.
    first.append(&mut peers);
    pass_in_any_order(&mut first, Peer::unlock);
    unpolled.kill();
}

#[test]
fn a_waiter_that_times_out_leaves_its_hosts_queue() {
    limit!();
    for kind in [PROMPT, ONE_BLOCKED, UNKNOWN] {
        let Some(host) = Host::start(kind) else { return };
        let path = host.mount.at("a.lock");
        let mut holder = host.lock_peer(&path);
        holder.lock();
        let mut first = host.lock_peer(&path);
        first.expect_timed_out(lock::Call::Acquire(Way::Timeout(50)));
        let mut peers = host.queue_up(&path, &[Way::Block]);
        first.expect_timed_out(lock::Call::Acquire(Way::Timeout(50)));
        first.expect_would_block(lock::Call::Acquire(Way::Try));
        holder.unlock();
        peers[0].finish();
        peers[0].unlock();
        first.lock();
    }
}

#[test]
fn waiters_for_two_files_of_a_host_both_acquire() {
    limit!();
    let Some(host) = Host::start(ONE_BLOCKED) else { return };
    let paths = ["a.lock", "b.lock"].map(|name| host.mount.at(name));
    let mut holders = paths.each_ref().map(|path| host.lock_peer(path));
    holders.iter_mut().for_each(Peer::lock);
    let mut waiters = paths.each_ref().map(|path| host.queue_up(path, &[Way::Block]));
    for index in [1, 0] {
        holders[index].unlock();
        waiters[index][0].finish();
        waiters[index][0].unlock();
    }
}

/// The waiters have their tickets in a queue beside which there is nothing at the path.
#[cfg(feature = "cli")]
#[test]
fn the_status_lists_the_waiters_of_a_host_in_their_order() {
    limit!();
    let Some(host) = Host::start(UNKNOWN) else { return };
    let other_user = tempfile::tempdir().unwrap();
    let status = |path: &Path, directory: &Path| -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flockwork"));
        command.args(["status", "--json"]).arg(path).env("TMPDIR", directory);
        let mut output = command.output().unwrap();
        while output.status.code() == Some(75) {
            // On a busy machine the server may not respond within a second.
            output = command.output().unwrap();
        }
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()[0].take()
    };
    let waiters = |path: &Path| {
        let status = status(path, host.local.path());
        let pid = |waiter: &serde_json::Value| u32::try_from(waiter["pid"].as_u64().unwrap());
        status["waiters"].as_array().unwrap().iter().map(|it| pid(it).unwrap()).collect::<Vec<_>>()
    };
    let ids = |peers: &[Peer]| peers.iter().map(Peer::id).collect::<Vec<_>>();
    let (lock, pool) = (host.mount.at("a.lock"), host.mount.at("pool"));
    let mut holder = host.lock_peer(&lock);
    holder.open_semaphore(&pool, 2, &[]);
    assert_eq!((waiters(&lock), waiters(&pool)), (vec![], vec![]));
    assert_eq!(crate::support::names_in(host.local.path()), Vec::<String>::new());
    holder.lock();
    holder.run(semaphore::Call::Acquire(2, Way::Block));
    let mut locking = host.queue_up(&lock, &[Way::Block, Way::Async, Way::Timeout(100_000)]);
    let acquire = |_| {
        let mut peer = host.peer();
        peer.open_semaphore(&pool, 2, &[crate::peer::label("permits")]);
        peer.begin(semaphore::Call::Acquire(1, Way::Block));
        until_queued(&peer);
        peer
    };
    let mut acquiring: Vec<_> = (0..3).map(acquire).collect();
    eventually("all waiters of the lock are listed", || waiters(&lock) == ids(&locking));
    eventually("all waiters of the pool are listed", || waiters(&pool) == ids(&acquiring));
    let shown = status(&pool, host.local.path());
    assert_eq!(
        (&shown["waiters"][2]["label"], &shown["kind"]),
        (&"permits".into(), &"semaphore".into())
    );
    assert!(shown["waiters"][0]["since"].is_string(), "{shown}");
    // Another user has another directory, which a lookup does not create.
    assert_eq!(status(&lock, other_user.path())["waiters"], serde_json::json!([]));
    assert_eq!(crate::support::names_in(other_user.path()), Vec::<String>::new());
    holder.unlock();
    // It is the first of them, unless that one runs late on a busy machine.
    let mut next = None;
    eventually("a waiter has acquired the lock", || {
        next = locking.iter_mut().position(|peer| {
            peer.has_answered().inspect(|answer| assert!(answer.is_ok(), "{answer:?}")).is_some()
        });
        next.is_some()
    });
    let mut next = locking.remove(next.unwrap());
    eventually("the next waiters are listed", || waiters(&lock) == ids(&locking));
    next.unlock();
    holder.run(semaphore::Call::Release);
    pass_in_any_order(&mut locking, Peer::unlock);
    pass_in_any_order(&mut acquiring, release_permits);
}

/// The queue and the files of the shared poller are no locks of the user's.
#[cfg(feature = "cli")]
#[test]
fn a_status_of_everything_names_the_files_that_are_waited_for() {
    limit!();
    let Some(host) = Host::start(ONE_BLOCKED) else { return };
    let (path, pool) = (host.mount.at("a.lock"), host.mount.at("pool"));
    let mut holder = host.lock_peer(&path);
    holder.open_semaphore(&pool, 1, &[]);
    holder.lock();
    holder.run(semaphore::Call::Acquire(1, Way::Block));
    let mut peers = host.queue_up(&path, &[Way::Block; 2]);
    let mut acquiring = host.peer();
    acquiring.open_semaphore(&pool, 1, &[]);
    acquiring.begin(semaphore::Call::Acquire(1, Way::Block));
    until_queued(&acquiring);
    let mut event = host.peer();
    event.run(crate::peer::event::Call::Open(host.mount.at("event"), vec![]));
    event.begin(crate::peer::event::Call::Wait(Way::Block));
    let directory =
        host.local.path().join(format!("flockwork-{}", rustix::process::geteuid().as_raw()));
    eventually("an event is polled", || directory.join(".events.1.lock").exists());
    // On a busy machine the server may not respond within a second.
    eventually("the files that are waited for are named", || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flockwork"));
        let output = command.args(["status", "--json"]).env("TMPDIR", host.local.path()).output();
        let all: Vec<serde_json::Value> =
            serde_json::from_slice(&output.unwrap().stdout).unwrap_or_default();
        let all: Vec<_> = all.iter().map(|it| Path::new(it["path"].as_str().unwrap())).collect();
        assert!(!all.iter().any(|path| path.starts_with(host.local.path())), "{all:?}");
        all.contains(&&*path) && all.contains(&&*pool)
    });
    event.kill();
    holder.unlock();
    holder.run(semaphore::Call::Release);
    acquiring.finish();
    pass_in_any_order(&mut peers, Peer::unlock);
}
