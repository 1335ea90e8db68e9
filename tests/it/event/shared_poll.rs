//! Waits for events on a network file system: one process of a host polls for all others, and no
//! wake-up is lost if it is killed or stopped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fuse::Mount;
use crate::peer::Way::{Async, Block, Timeout};
use crate::peer::event::{Call, peer};
use crate::peer::{Peer, options};
use crate::support::strace::traced;
use crate::support::{eventually, names_in, open_files};

/// The other processes take over within a second, and would find the event after 30 seconds
/// otherwise.
const TAKE_OVER: Duration = Duration::from_secs(25);

/// A host: a network file system, and the local directory in which its processes meet.
struct Host {
    mount: Mount,
    local: tempfile::TempDir,
}

impl Host {
    fn new() -> Option<Self> {
        let mount = Mount::start()?;
        std::fs::create_dir(mount.at("events")).unwrap();
        Some(Self { mount, local: tempfile::tempdir().unwrap() })
    }

    fn event(&self) -> PathBuf {
        self.mount.at("events/ready")
    }

    fn program(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("TMPDIR", self.local.path());
        command
    }

    /// Starts a peer that opens the event.
    fn peer(&self) -> Peer {
        self.opened(Peer::start_as(self.program()))
    }

    fn opened(&self, mut peer: Peer) -> Peer {
        peer.open_event(&self.event(), &[]);
        peer
    }

    /// Starts a peer under strace, in which one of the `calls` on the host's files has a fault.
    fn faulty_peer(&self, calls: &str, fault: &str) -> Option<Peer> {
        if !crate::support::has("strace", &["-V"]) {
            return None;
        }
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null"]).env("TMPDIR", self.local.path());
        // strace compares only the first path of a call, and the process renames nothing else.
        if !calls.starts_with("rename") {
            for path in [self.shared(".events.1"), self.shared(".events.1.lock")] {
                command.arg("-P").arg(path);
            }
        }
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{fault}")]);
        command.arg(std::env::current_exe().unwrap());
        Some(self.opened(Peer::start_as(command)))
    }

    /// Returns the file of the directory in one of the two directories of the host.
    fn shared(&self, directory: &str) -> PathBuf {
        use std::os::unix::fs::MetadataExt as _;
        let user = rustix::process::geteuid().as_raw();
        let runtime = Path::new("/run/user").join(user.to_string());
        let host = if runtime.is_dir() {
            runtime.join("flockwork")
        } else {
            self.local.path().join(format!("flockwork-{user}"))
        };
        let found = std::fs::metadata(self.mount.at("events")).unwrap();
        host.join(directory).join(format!("{}.{}", found.dev(), found.ino()))
    }

    /// Returns the process that polls.
    fn poller(&self) -> Option<u32> {
        let beat = std::fs::read(self.shared(".events.1.lock")).ok()?;
        let pid = u64::from_le_bytes(beat.get(24..32)?.try_into().unwrap());
        Some(u32::try_from(pid).unwrap()).filter(|pid| *pid != 0)
    }

    fn until_polled_by(&self, pid: u32) {
        eventually("the process polls", || self.poller() == Some(pid));
    }

    /// Starts two waiters in processes that leave the polling to the process `poller`. `None` if
    /// another one polls by then, since that process did not run for a second.
    fn followers(&self, poller: u32) -> Option<[Peer; 2]> {
        eventually("a listing is shared", || self.shared(".events.1").exists());
        let mut followers = [self.peer(), self.peer()];
        begin_to_wait(&mut followers);
        let beat = self.shared(".events.1.lock");
        let follows = |peer: &Peer| open_files(peer.id()).contains(&beat);
        eventually("both processes follow", || {
            followers.iter().all(follows) || self.poller() != Some(poller)
        });
        // They check the event once more when they know that a process polls.
        std::thread::sleep(Duration::from_millis(200));
        if self.poller() == Some(poller) {
            return Some(followers);
        }
        self.set();
        finish(&mut followers);
        self.clear();
        None
    }

    /// Starts a peer that polls, and two that follow it. Begins again if another one polls, or if
    /// the poller ended before the others followed it; `start` gets the number of the attempt.
    fn led(&self, start: impl Fn(u32) -> Option<(Peer, u32)>) -> Option<(Peer, u32, [Peer; 2])> {
        for attempt in 0.. {
            let (mut poller, pid) = start(attempt)?;
            poller.begin(Call::Wait(Block));
            self.until_polled_by(pid);
            if let Some(followers) = self.followers(pid) {
                return Some((poller, pid, followers));
            }
            poller.kill();
        }
        None
    }

    /// The same without strace.
    fn led_by_a_peer(&self) -> (Peer, [Peer; 2]) {
        let start = |_| {
            let peer = self.peer();
            let pid = peer.id();
            Some((peer, pid))
        };
        let (poller, _, followers) = self.led(start).unwrap();
        (poller, followers)
    }

    fn set(&self) {
        std::fs::write(self.event(), "").unwrap();
    }

    fn clear(&self) {
        std::fs::remove_file(self.event()).unwrap();
    }
}

fn begin_to_wait(waiters: &mut [Peer]) {
    for waiter in waiters {
        waiter.begin(Call::Wait(Block));
    }
}

fn finish(waiters: &mut [Peer]) {
    for waiter in waiters {
        waiter.finish();
    }
}

/// Sets the event, and checks that the waiter is woken in time.
#[track_caller]
fn assert_woken(host: &Host, waiters: &mut [Peer]) {
    assert!(waiters.iter_mut().all(Peer::is_silent));
    host.set();
    let start = Instant::now();
    finish(waiters);
    assert!(start.elapsed() < TAKE_OVER, "{:?}", start.elapsed());
    host.clear();
}

fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Returns whether the process is stopped, or has ended.
fn is_out(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !["R", "S", "D"].iter().any(|state| status.contains(&format!("State:\t{state}")))
}

#[test]
fn every_form_of_wait_is_woken_on_a_network_mount() {
    limit!();
    let Some(host) = Host::new() else { return };
    let event = options(&[]).open_event(host.event()).unwrap();
    let (mut first, mut second) = (host.peer(), host.peer());
    for call in [
        Call::Wait(Block),
        Call::Wait(Timeout(1_000_000)),
        Call::Wait(Async),
        Call::WaitAny(Block),
        Call::WaitAll(Async),
        Call::WaitPayload(Block),
    ] {
        for peer in [&mut first, &mut second] {
            peer.begin(call.clone());
        }
        eventually("a process polls", || host.poller().is_some());
        std::thread::sleep(Duration::from_millis(30));
        assert!(first.is_silent() && second.is_silent());
        event.set_with(b"payload").unwrap();
        for peer in [&mut first, &mut second] {
            peer.finish();
            peer.begin(Call::WaitCleared(Async));
        }
        event.clear().unwrap();
        first.finish();
        second.finish();
        first.begin(Call::Consume(Block));
        event.set_with(b"consumed").unwrap();
        assert_eq!(first.finish(), "consumed");
    }
    first.expect_timed_out(Call::Wait(Timeout(20)));
    // The peers still run. One that ends at once may leave files.
    let shared = |directory| names_in(host.shared(directory).parent().unwrap());
    eventually("without a waiter there is nothing to share", || {
        shared(".events.1.lock").is_empty() && shared(".events.1").is_empty()
    });
    drop((first, second));
}

/// The process of an announcement ends without a change of the directory.
#[test]
fn the_end_of_an_announcement_is_noticed_on_a_network_mount() {
    limit!();
    // A type of file system that stores the time of a modification.
    let (dir, path) = super::dirs();
    let start = || {
        let inject = format!("statfs,{}", crate::support::strace::NFS);
        let mut peer = crate::support::strace::injected(dir.path(), &inject)?;
        peer.open_event(&path, &[]);
        Some(peer)
    };
    let (Some(mut waiter), Some(mut setter)) = (start(), start()) else { return };
    for round in 0..4 {
        let mut announcer = peer(&path, &[]);
        announcer.run(Call::Announce("here".into()));
        waiter.begin(Call::WaitCleared(Block));
        std::thread::sleep(Duration::from_millis(if round < 2 { 300 } else { 0 }));
        assert!(waiter.is_silent());
        announcer.kill();
        waiter.finish();
        // A stale announcement has the name of the event, which does not count.
        waiter.begin(Call::Wait(Block));
        std::thread::sleep(Duration::from_millis(if round < 2 { 300 } else { 0 }));
        assert!(waiter.is_silent());
        setter.run(Call::SetWith("payload".into()));
        waiter.finish();
        setter.run(Call::Clear);
    }
}

#[test]
fn the_waiters_of_a_host_cost_its_server_what_one_costs() {
    limit!();
    let Some(mut host) = Host::new() else { return };
    let mut waiters: Vec<Peer> = (0..6).map(|_| host.peer()).collect();
    begin_to_wait(&mut waiters);
    eventually("a process polls", || host.poller().is_some());
    let beat = host.shared(".events.1.lock");
    let (operations, elapsed) = loop {
        eventually("all others follow it", || {
            waiters.iter().all(|waiter| open_files(waiter.id()).contains(&beat))
        });
        std::thread::sleep(Duration::from_millis(1500));
        let poller = host.poller();
        let (before, start) = (host.mount.operations(), Instant::now());
        std::thread::sleep(Duration::from_secs(2));
        let (operations, elapsed) = (host.mount.operations() - before, start.elapsed());
        // A process that did not run for a second was replaced meanwhile.
        if operations > 0 && poller.is_some() && host.poller() == poller {
            break (operations, elapsed);
        }
    };
    // One process lists the directory every 37 ms at most, with two requests, and checks its path
    // once a second. Each of the six would send ten requests every 50 ms or so.
    let of_one = u64::try_from(elapsed.as_millis()).unwrap() / 37 * 2 + 20;
    assert!(operations < 2 * of_one, "{operations} in {elapsed:?}");
    assert_woken(&host, &mut waiters);
}

#[test]
fn an_idle_wait_on_a_network_mount_costs_ever_less() {
    limit!();
    let Some(mut host) = Host::new() else { return };
    let mut waiters = [host.peer(), host.peer(), host.peer()];
    begin_to_wait(&mut waiters);
    let mut fewest = u64::MAX;
    // Each process may list the directory on its own every 30 to 60 seconds.
    eventually("the server gets few requests", || {
        let before = host.mount.operations();
        std::thread::sleep(Duration::from_secs(3));
        fewest = fewest.min(host.mount.operations() - before);
        fewest <= 12
    });
    assert_woken(&host, &mut waiters);
}

#[test]
fn another_process_polls_when_the_poller_is_killed() {
    limit!();
    let Some(host) = Host::new() else { return };
    for _ in 0..3 {
        let (mut poller, mut waiters) = host.led_by_a_peer();
        poller.kill();
        assert_woken(&host, &mut waiters);
    }
}

#[test]
fn another_process_polls_when_the_poller_is_stopped() {
    limit!();
    let Some(host) = Host::new() else { return };
    for _ in 0..3 {
        let (mut poller, mut waiters) = host.led_by_a_peer();
        send(poller.id(), rustix::process::Signal::STOP);
        eventually("the poller is stopped", || is_out(poller.id()));
        assert_woken(&host, &mut waiters);
        // It was stopped for a while, and finds that another process polls.
        begin_to_wait(&mut waiters);
        eventually("another process polls", || {
            host.poller().is_some_and(|pid| waiters.iter().any(|waiter| waiter.id() == pid))
        });
        send(poller.id(), rustix::process::Signal::CONT);
        host.set();
        poller.finish();
        finish(&mut waiters);
        host.clear();
    }
}

/// The poller is killed or stopped at each of the calls with which it shares what it has found.
#[test]
fn a_poller_may_end_or_stop_at_any_step() {
    limit!(2 * crate::limit::LIMIT); // it waits for the death of 8 processes, one after the other
    let Some(host) = Host::new() else { return };
    const LOOKUPS: &str = "newfstatat,lstat,stat,statx";
    const RENAMES: &str = "rename,renameat,renameat2";
    for (signal, calls, when) in [
        ("KILL", "write", 100),
        ("STOP", "write", 101),
        ("KILL", "write", 102),
        ("STOP", LOOKUPS, 100),
        ("KILL", LOOKUPS, 101),
        ("STOP", LOOKUPS, 102),
        // The listing with the event is published.
        ("KILL", RENAMES, 2),
        ("STOP", RENAMES, 2),
    ] {
        let start = |attempt| {
            let when = if when == 2 { 2 } else { when + attempt * 100 };
            let fault = format!("signal={signal}:when={when}");
            let poller = host.faulty_peer(calls, &fault)?;
            let pid = traced(&poller);
            Some((poller, pid))
        };
        let Some((mut poller, pid, mut waiters)) = host.led(start) else { return };
        // Another process may have replaced it before it has come to that call.
        let is_out = || {
            let what = format!("it is out at {calls} {when} {signal}");
            eventually(&what, || is_out(pid) || host.poller() != Some(pid));
        };
        if when == 2 {
            assert_woken(&host, &mut waiters);
            is_out();
        } else {
            is_out();
            assert_woken(&host, &mut waiters);
        }
        poller.kill();
    }
}

/// The directory at the path is another one than the one that is polled.
#[test]
fn a_replaced_directory_is_polled_on_a_network_mount() {
    limit!();
    let Some(host) = Host::new() else { return };
    let mut waiters = [host.peer(), host.peer()];
    for round in 0..3 {
        begin_to_wait(&mut waiters);
        eventually("a process polls", || host.poller().is_some());
        std::thread::sleep(Duration::from_millis(100));
        let (events, away) = (host.mount.at("events"), host.mount.at(&round.to_string()));
        std::fs::rename(&events, &away).unwrap();
        std::fs::create_dir(&events).unwrap();
        assert_woken(&host, &mut waiters);
    }
    // The directory is missing when the wait begins.
    std::fs::remove_dir(host.mount.at("events")).unwrap();
    begin_to_wait(&mut waiters);
    std::thread::sleep(Duration::from_millis(100));
    std::fs::create_dir(host.mount.at("events")).unwrap();
    assert_woken(&host, &mut waiters);
}

#[test]
fn each_process_polls_where_none_can_be_shared() {
    limit!();
    let Some(host) = Host::new() else { return };
    let user = rustix::process::geteuid().as_raw();
    if Path::new("/run/user").join(user.to_string()).is_dir() {
        return crate::support::left_out("the user has a runtime directory");
    }
    std::fs::write(host.local.path().join(format!("flockwork-{user}")), "theirs").unwrap();
    let mut waiters = [host.peer(), host.peer()];
    begin_to_wait(&mut waiters);
    std::thread::sleep(Duration::from_millis(300));
    assert_woken(&host, &mut waiters);
    assert_eq!(names_in(host.local.path()), [format!("flockwork-{user}")]);
}
