//! Locks between two hosts that share a network file system. `ci/shared-fs.sh` starts one, and
//! passes how to run a program on each host.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::peer::Way::{Block, Timeout, Try};
use crate::peer::{
    Peer, Request, Setting, barrier, event, label, lock, once, rwlock, semaphore, shared_file,
};
use crate::support::{eventually, left_out};

/// The command that controls the hosts, the directory of each of them, and (if it is not 1) the
/// number of trials of the tests that wait for a lease: separated by spaces.
const HOSTS: &str = "FLOCKWORK_HOSTS";

/// The file servers and this test share a machine, which may be busy for more than the second that
/// a server has by default.
const PATIENT: Setting = Setting::ServerTimeoutSeconds(30);

/// The default.
const IMPATIENT: Setting = Setting::ServerTimeoutSeconds(1);

/// `MooseFS` drops the locks of a host after two minutes.
const LEASES: Duration = Duration::from_secs(3000);

struct Hosts {
    control: String,
    directories: [PathBuf; 2],
    trials: usize,
}

#[derive(Clone, Copy)]
enum Host {
    A,
    B,
}

impl Host {
    fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

impl Hosts {
    /// Returns the hosts, with a new directory for one test that both of them see.
    fn new(test: &str) -> Option<Self> {
        let Ok(hosts) = std::env::var(HOSTS) else {
            left_out(&format!("`{HOSTS}` is not set; `ci/shared-fs.sh` runs the tests of hosts"));
            return None;
        };
        let words: Vec<_> = hosts.split(' ').collect();
        let own = format!("{test}-{}", std::process::id());
        let directories = [1, 2].map(|word| PathBuf::from(words[word]).join(&own));
        let trials = words.get(3).map_or(1, |trials| trials.parse().unwrap());
        let hosts = Self { control: words[0].into(), directories, trials };
        let made = hosts.command(Host::A).arg("mkdir").arg(&hosts.directories[0]).status().unwrap();
        assert!(made.success());
        Some(hosts)
    }

    /// Returns a command that runs on this host. The program is added to it.
    fn command(&self, host: Host) -> Command {
        let mut command = Command::new(&self.control);
        command.args(["run", host.name()]);
        command
    }

    fn peer(&self, host: Host) -> Peer {
        let mut command = self.command(host);
        let variables = ["FLOCKWORK_IT_PEER=1".into(), format!("FLOCKWORK_TEST_LIMIT={}", 4000)];
        command.arg("env").args(variables).arg(std::env::current_exe().unwrap());
        Peer::start_as(command)
    }

    /// Starts a peer on each host that opens the lock `name` with its host's name as the label.
    fn lock_peers(&self, name: &str) -> [Peer; 2] {
        [Host::A, Host::B].map(|host| {
            let mut peer = self.peer(host);
            peer.open_lock(&self.at(host, name), &[label(host.name()), PATIENT]);
            peer
        })
    }

    fn at(&self, host: Host, name: &str) -> PathBuf {
        self.directories[host as usize].join(name)
    }

    /// Cuts host A off from the server, or connects it again.
    fn control(&self, verb: &str) {
        assert!(Command::new(&self.control).args([verb, "a"]).status().unwrap().success());
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.control("heal");
    }
}

#[test]
fn hosts_exclude_each_other() {
    limit!();
    let Some(hosts) = Hosts::new("exclude") else { return };
    let [mut a, mut b] = hosts.lock_peers("a.lock");
    for [holder, other] in [[0, 1], [1, 0]] {
        let peers = [&mut a, &mut b];
        peers[holder].lock();
        peers[other].expect_would_block(lock::Call::Acquire(Try));
        peers[other].expect_timed_out(lock::Call::Acquire(Timeout(200)));
        peers[other].begin(lock::Call::Acquire(Block));
        assert_eq!(peers[holder].run(lock::Call::StillHeld), "true");
        peers[holder].unlock();
        peers[other].finish();
        peers[other].unlock();
    }
    let [file_a, file_b] = [Host::A, Host::B].map(|host| hosts.at(host, "count"));
    a.run(shared_file::Call::Open(file_a, vec![PATIENT]));
    b.run(shared_file::Call::Open(file_b, vec![PATIENT]));
    a.run(shared_file::Call::Write("0".into(), Block));
    a.begin(shared_file::Call::Count(hosts.at(Host::A, "log.a"), 100));
    b.begin(shared_file::Call::Count(hosts.at(Host::B, "log.b"), 100));
    a.finish();
    b.finish();
    b.expect(shared_file::Call::Read, "200");
    let [pool_a, pool_b] = [Host::A, Host::B].map(|host| hosts.at(host, "pool"));
    a.open_semaphore(&pool_a, 2, &[PATIENT]);
    b.open_semaphore(&pool_b, 2, &[PATIENT]);
    a.run(semaphore::Call::Acquire(2, Block));
    b.expect_would_block(semaphore::Call::Acquire(1, Try));
    b.begin(semaphore::Call::Acquire(1, Block));
    a.run(semaphore::Call::Release);
    b.finish();
}

#[test]
fn every_other_primitive_works_between_hosts() {
    limit!();
    let Some(hosts) = Hosts::new("others") else { return };
    let [mut a, mut b] = [Host::A, Host::B].map(|host| hosts.peer(host));
    let at = |name: &str| [Host::A, Host::B].map(|host| hosts.at(host, name));

    let [file_a, file_b] = at("a.rwlock");
    a.open_rwlock(&file_a, &[PATIENT]);
    b.open_rwlock(&file_b, &[PATIENT]);
    a.run(rwlock::Call::Read(Block));
    b.run(rwlock::Call::Read(Try));
    b.run(rwlock::Call::Unlock);
    b.expect_would_block(rwlock::Call::Write(Try));
    b.begin(rwlock::Call::Write(Block));
    a.run(rwlock::Call::Unlock);
    b.finish();
    a.expect_would_block(rwlock::Call::Read(Try));
    b.run(rwlock::Call::Unlock);

    let [file_a, file_b] = at("event");
    a.open_event(&file_a, &[PATIENT]);
    b.open_event(&file_b, &[PATIENT]);
    b.begin(event::Call::Wait(Block));
    a.run(event::Call::Set);
    b.finish();
    b.begin(event::Call::WaitCleared(Block));
    a.run(event::Call::Clear);
    b.finish();
    b.begin(event::Call::Consume(Block));
    a.run(event::Call::SetWith("payload".into()));
    assert_eq!(b.finish(), "payload");
    // A client may answer from its cache for a second.
    eventually("the event is clear", || a.ask(event::Call::IsSet) == Ok("false".into()));

    let [file_a, file_b] = at("once");
    a.open_once(&file_a, &[PATIENT]);
    b.open_once(&file_b, &[PATIENT]);
    let [log_a, log_b] = at("log");
    a.begin(once::Call::Run(log_a, once::Work::Slow, Block));
    let ran_b = b.run(once::Call::Run(log_b, once::Work::Slow, Block));
    let ran_a = a.finish();
    assert_ne!(ran_a, ran_b, "one of the two ran the work");

    let [file_a, file_b] = at("barrier");
    a.run(barrier::Call::Open(file_a, 2, vec![PATIENT]));
    b.run(barrier::Call::Open(file_b, 2, vec![PATIENT]));
    for _ in 0..20 {
        a.begin(barrier::Call::Wait(Block));
        b.run(barrier::Call::Wait(Block));
        a.finish();
    }
}

/// The waiter is blocked in the kernel. Where it polled instead, once a second, the median would be
/// half a second.
#[test]
fn a_released_lock_goes_to_the_other_host_at_once() {
    limit!();
    let Some(hosts) = Hosts::new("hand-off") else { return };
    let [mut a, mut b] = hosts.lock_peers("a.lock");
    let mut waits = Vec::new();
    a.lock();
    for _ in 0..15 {
        for [holder, other] in [[0, 1], [1, 0]] {
            let peers = [&mut a, &mut b];
            peers[other].begin(lock::Call::Acquire(Block));
            std::thread::sleep(Duration::from_millis(150));
            let start = Instant::now();
            peers[holder].unlock();
            peers[other].finish();
            waits.push(start.elapsed());
        }
    }
    waits.sort_unstable();
    let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    eprintln!(
        "hand-off, with the messages of the test: median {median:.1?}, longest {longest:.1?}"
    );
    assert!(median < Duration::from_millis(250), "{waits:?}");
}

/// Each call ends in time in at least one of three attempts: the machine may be busy.
#[test]
fn limits_hold_on_a_host_that_is_cut_off() {
    limit!(LEASES);
    let Some(hosts) = Hosts::new("limits") else { return };
    let [mut a, mut b] = [Host::A, Host::B].map(|host| hosts.peer(host));
    let at = |name| hosts.at(Host::A, name);
    let opening: [Request; 3] = [
        lock::Call::Open(at("a.lock"), vec![IMPATIENT]).into(),
        event::Call::Open(at("event"), vec![IMPATIENT]).into(),
        semaphore::Call::Open(at("pool"), 2, vec![IMPATIENT]).into(),
    ];
    for open in opening {
        eventually("it is open", || a.ask(open.clone()).is_ok());
    }
    b.open_lock(&hosts.at(Host::B, "a.lock"), &[PATIENT]);
    b.lock();
    hosts.control("cut");
    let calls: [(&str, Request, u64); 6] = [
        ("lock_timeout", lock::Call::Acquire(Timeout(2000)).into(), 2000),
        ("try_lock", lock::Call::Acquire(Try).into(), 1000),
        ("wait_timeout", event::Call::Wait(Timeout(2000)).into(), 2000),
        ("is_set", event::Call::IsSet.into(), 1000),
        ("acquire_timeout", semaphore::Call::Acquire(1, Timeout(2000)).into(), 2000),
        ("try_acquire", semaphore::Call::Acquire(1, Try).into(), 1000),
    ];
    for (name, call, limit) in calls {
        let latest = Duration::from_millis(limit + 500);
        let mut took = Vec::new();
        while took.iter().all(|time| *time > latest) {
            assert!(took.len() < 3, "{name}: {took:?}");
            let start = Instant::now();
            a.expect_error(call.clone());
            took.push(start.elapsed());
        }
        eprintln!("{name}, cut off: {took:.2?}, with a limit of {limit} ms");
    }
    hosts.control("heal");
    b.unlock();
    let acquire = lock::Call::Acquire(Timeout(1000));
    eventually("the host takes part again", || a.ask(acquire.clone()).is_ok());
}

/// The mounts have different device numbers, also if both are on this machine.
#[test]
fn a_holder_killed_on_another_host_is_reported() {
    limit!();
    let Some(hosts) = Hosts::new("killed") else { return };
    let [_, mut b] = hosts.lock_peers("a.lock");
    for trial in 0..10 {
        let mut a = hosts.peer(Host::A);
        a.open_lock(&hosts.at(Host::A, "a.lock"), &[label("doomed"), PATIENT]);
        a.lock();
        let shown = b.run(lock::Call::Holder);
        assert!(shown.contains("\"doomed\""), "{trial}: {shown}");
        b.begin(lock::Call::Acquire(Block));
        a.kill();
        b.finish();
        b.expect(lock::Call::WasAbandoned, true);
        b.unlock();
        b.lock();
        b.expect(lock::Call::WasAbandoned, false);
        b.unlock();
    }
}

#[test]
fn files_that_another_host_replaces_are_readable() {
    limit!();
    let Some(hosts) = Hosts::new("replaced") else { return };
    let [mut a, mut b] = hosts.lock_peers("a.lock");
    let [event_a, event_b] = [Host::A, Host::B].map(|host| hosts.at(host, "event"));
    a.run(event::Call::Open(event_a, vec![PATIENT]));
    b.run(event::Call::Open(event_b, vec![PATIENT]));
    a.run(event::Call::SetWith("first".into()));
    a.begin(event::Call::SetWholePayloads(1));
    let mut read = std::collections::BTreeSet::new();
    let mut times = 0;
    // A client with caches sees few of the payloads.
    eventually("the payload changes", || {
        read.insert(b.run(event::Call::Payload));
        times += 1;
        times >= 300 && read.len() > 1
    });
    a.kill();
    let mut a = hosts.peer(Host::A);
    a.open_lock(&hosts.at(Host::A, "a.lock"), &[label("busy"), PATIENT]);
    let count = hosts.at(Host::A, "count");
    a.run(shared_file::Call::Open(count.clone(), vec![PATIENT]));
    a.run(shared_file::Call::Write("0".into(), Block));
    a.begin(lock::Call::Count(count, 150, Block));
    for _ in 0..150 {
        b.run(lock::Call::Holder);
        // No inspection has a longer limit than the default.
        let inspect = Request::Holders(hosts.at(Host::B, "a.lock"));
        while let Err(error) = b.ask(inspect.clone()) {
            assert!(error.starts_with("timed-out: "), "{error}");
        }
    }
    a.finish();
}

#[test]
fn a_holder_that_was_cut_off_learns_that_it_lost() {
    limit!(LEASES);
    let Some(hosts) = Hosts::new("cut") else { return };
    for trial in 0..hosts.trials {
        let [mut a, mut b] = hosts.lock_peers(&format!("{trial}.lock"));
        let [pool_a, pool_b] =
            [Host::A, Host::B].map(|host| hosts.at(host, &format!("{trial}.pool")));
        a.open_semaphore(&pool_a, 1, &[label("a"), PATIENT]);
        b.open_semaphore(&pool_b, 1, &[label("b"), PATIENT]);
        a.lock();
        a.run(semaphore::Call::Acquire(1, Block));
        let first: u64 = a.run(lock::Call::FencingToken).parse().unwrap();
        a.expect(lock::Call::StillHeld, true);
        a.expect(semaphore::Call::StillHeld, true);
        hosts.control("cut");
        let start = Instant::now();
        b.lock();
        let waited = start.elapsed();
        b.run(semaphore::Call::Acquire(1, Block));
        // Of every second trial the next holder has released the lock before this one is back.
        let is_released = trial % 2 == 1;
        let second: u64 = b.run(lock::Call::FencingToken).parse().unwrap();
        assert!(second > first, "{second} after {first}");
        b.expect(lock::Call::WasAbandoned, true);
        if is_released {
            b.unlock();
            b.run(semaphore::Call::Release);
        }
        hosts.control("heal");
        let lost = Ok("false".to_string());
        eventually("the lock is lost", || a.ask(lock::Call::StillHeld) == lost);
        eventually("the permit is lost", || a.ask(semaphore::Call::StillHeld) == lost);
        let error = a.expect_error(lock::Call::Unlock);
        assert!(error.starts_with("Lost: "), "{error}");
        let error = a.expect_error(semaphore::Call::Release);
        assert!(error.starts_with("Lost: "), "{error}");
        if !is_released {
            b.expect(lock::Call::StillHeld, true);
            b.expect(semaphore::Call::StillHeld, true);
            a.expect_would_block(lock::Call::Acquire(Try));
            b.unlock();
            b.run(semaphore::Call::Release);
        }
        // The host that was cut off takes part again.
        a.lock();
        a.expect(lock::Call::StillHeld, true);
        let third: u64 = a.run(lock::Call::FencingToken).parse().unwrap();
        assert!(third > second, "{third} after {second}");
        a.unlock();
        eprintln!("trial {trial}: available to the other host after {waited:.1?}");
    }
}
