//! A participant dies or is stopped at each point. With a late backstop, a test ends only if the
//! waiters are notified.

use std::fs;

use flockwork::{Barrier, ErrorKind, Lock};

use super::{kind, until_waiters_rely_on_events};
use crate::peer::barrier::{Action, Call, peers};
use crate::peer::{LATE_BACKSTOP, Way};
use crate::support::eventually;

fn until_waiting(barrier: &Barrier, count: u32) {
    eventually("participants wait", || barrier.waiting().unwrap() == count);
}

#[test]
fn a_death_before_arriving_breaks_nothing() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let mut peers = peers(&path, 2, 3, LATE_BACKSTOP);
    peers[2].run(Call::Waiting);
    peers[2].kill();
    peers[0].begin(Call::Wait(Way::Block));
    peers[1].begin(Call::Wait(Way::Block));
    peers[0].finish();
    peers[1].finish();
}

/// A caller locks its file first and marks its arrival afterwards.
#[test]
fn a_death_while_arriving_breaks_nothing() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 2).unwrap();
    let arriving = Lock::open(path.join("participant.0")).unwrap().lock().unwrap();
    let mut peers = peers(&path, 2, 2, LATE_BACKSTOP);
    peers[0].begin(Call::Wait(Way::Block));
    until_waiting(&barrier, 1);
    peers[1].begin(Call::Wait(Way::Block));
    eventually("the caller waits for a file", || path.join("wanted").exists());
    assert!(peers[0].is_silent() && peers[1].is_silent());
    // The close of a descriptor that may write is an event. This lock was opened read-only, so its
    // release is followed by the event that a caller causes. The peer may have found the file
    // unlocked, and caused the event, before that.
    arriving.unlock().unwrap();
    let _ = fs::remove_file(path.join("wanted"));
    peers[0].finish();
    peers[1].finish();
}

/// It has marked its arrival, and does not hold the lock any more.
#[test]
fn a_death_after_arriving_breaks_the_barrier_for_later_callers() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 3).unwrap();
    for way in Way::WAITING.into_iter().chain([Way::Try]) {
        let mut peers = peers(&path, 3, 2, LATE_BACKSTOP);
        peers[0].begin(Call::Wait(Way::Block));
        until_waiting(&barrier, 1);
        peers[0].kill(); // no other participant waits
        assert!(barrier.is_broken().unwrap());
        assert_eq!(barrier.waiting().unwrap(), 0);
        let error = peers[1].expect_error(Call::Wait(way));
        assert!(error.starts_with("broken: ") || way == Way::Try, "{error}");
        assert_eq!(kind(barrier.wait()), ErrorKind::Broken);
        barrier.reset().unwrap();
        assert!(!barrier.is_broken().unwrap());
    }
}

#[test]
fn a_death_while_waiting_wakes_all_waiters() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 6).unwrap();
    let mut waiters = peers(&path, 6, 4, LATE_BACKSTOP);
    let mut victim = peers(&path, 6, 1, LATE_BACKSTOP).remove(0);
    for (peer, way) in waiters.iter_mut().zip(Way::WAITING) {
        peer.begin(Call::Wait(way));
    }
    victim.begin(Call::Wait(Way::Block));
    until_waiting(&barrier, 5);
    until_waiters_rely_on_events();
    victim.kill();
    for peer in &mut waiters {
        let error = peer.answer().unwrap_err();
        assert!(error.starts_with("broken: "), "{error}");
    }
    assert_eq!(kind(barrier.wait()), ErrorKind::Broken);
}

#[test]
fn a_death_of_the_leader_in_its_action_breaks_the_barrier() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 3).unwrap();
    let mut peers = peers(&path, 3, 3, LATE_BACKSTOP);
    for peer in &mut peers {
        peer.begin(Call::WaitWith(dir.path().join("log"), Action::Hang));
    }
    let mut leader = None;
    eventually("one of them runs its action", || {
        leader = peers.iter_mut().position(|peer| peer.has_answered().is_some());
        leader.is_some()
    });
    let mut leader = peers.remove(leader.unwrap());
    assert!(peers.iter_mut().all(crate::peer::Peer::is_silent));
    assert_eq!(barrier.waiting().unwrap(), 3);
    until_waiters_rely_on_events();
    leader.kill();
    for peer in &mut peers {
        let error = peer.answer().unwrap_err();
        assert!(error.starts_with("broken: "), "{error}");
    }
}

#[test]
fn many_processes_pass_together_and_learn_of_a_death() {
    limit!();
    const COUNT: u32 = 24;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, COUNT).unwrap();
    let mut peers = peers(&path, COUNT, COUNT, LATE_BACKSTOP);
    let files: Vec<_> = (0..COUNT).map(|peer| dir.path().join(format!("log.{peer}"))).collect();
    for (peer, own) in peers.iter_mut().zip(&files) {
        peer.begin(Call::Rounds(own.clone(), files.clone(), 20));
    }
    for peer in &mut peers {
        peer.finish();
    }
    let mut victim = peers.pop().unwrap();
    victim.begin(Call::Wait(Way::Block));
    for peer in &mut peers[1..] {
        peer.begin(Call::Wait(Way::Block));
    }
    until_waiting(&barrier, COUNT - 1);
    victim.kill();
    for peer in &mut peers[1..] {
        let error = peer.answer().unwrap_err();
        assert!(error.starts_with("broken: "), "{error}");
    }
}

/// All have arrived, and the last one dies before it changes the state.
#[test]
fn a_death_of_the_last_before_the_release_breaks_the_barrier() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 2).unwrap();
    let mut peers = peers(&path, 2, 1, &[]);
    peers[0].begin(Call::Wait(Way::Block));
    until_waiting(&barrier, 1);
    // The peer has one of the two files: the mark of the other one is a dead participant's.
    for number in 0..2 {
        fs::write(path.join(format!("arrived/0.{number}")), "").unwrap();
    }
    let error = peers[0].answer().unwrap_err();
    assert!(error.starts_with("broken: "), "{error}");
}

/// A participant is killed at each of its system calls. The other one passes, or learns that the
/// barrier is broken, or goes on waiting for a participant that arrives; and it can use the barrier
/// again.
// Linux only: strace.
#[cfg(target_os = "linux")]
#[test]
fn a_participant_may_be_killed_at_any_system_call() {
    limit!(4 * crate::limit::LIMIT); // it starts a hundred processes, one after the other
    let calls = ["flock", "openat", "open", "newfstatat", "getdents64", "renameat2", "statx"];
    let (mut killed, mut outcomes) = (0, std::collections::BTreeSet::new());
    for call in calls {
        for when in 1.. {
            match killed_at(call, when) {
                Some((true, outcome)) => outcomes.insert(outcome),
                Some((false, _)) => break,
                None => return, // There is no strace.
            };
            killed += 1;
        }
    }
    assert!(killed > 20, "{killed}");
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["broken", "passed", "waited"]);
}

/// Kills a participant at a call on one of the barrier's files, if it makes the call that often.
/// Returns whether it was killed, and what the other participant did.
#[cfg(target_os = "linux")]
fn killed_at(call: &str, when: u32) -> Option<(bool, &'static str)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 2).unwrap();
    let mut other = peers(&path, 2, 1, LATE_BACKSTOP).remove(0);
    other.begin(Call::Wait(Way::Block));
    until_waiting(&barrier, 1);
    let names = ["", "arrived", "arrived/0.0", "arrived/0.1", "participant.0", "participant.1"];
    let states = ["open.2.0", "open.2.1", "wanted"];
    let files: Vec<_> = names.iter().chain(&states).map(|name| path.join(name)).collect();
    let files: Vec<_> = files.iter().map(|file| file.components().as_path()).collect();
    let arguments: Vec<_> =
        files.iter().flat_map(|file| ["-P".as_ref(), file.as_os_str()]).collect();
    let inject = format!("{call}:signal=KILL:when={when}");
    let mut victim = crate::support::strace::strace(&arguments, &inject)?;
    victim.begin(Call::Open(path.clone(), 2, LATE_BACKSTOP.into()));
    let mut is_killed = victim.answer_or_death().is_none();
    if !is_killed {
        victim.begin(Call::Wait(Way::Block));
        is_killed = victim.answer_or_death().is_none();
    }
    let mut answer = None;
    eventually("the other participant has ended its wait, or still waits", || {
        answer = other.has_answered();
        answer.is_some() || !barrier.is_broken().unwrap() && barrier.waiting().unwrap() == 1
    });
    let outcome = match answer {
        Some(Ok(_)) => "passed",
        Some(Err(error)) => {
            assert!(error.starts_with("broken: ") && is_killed, "{call} {when}: {error}");
            barrier.reset().unwrap();
            "broken"
        }
        None => {
            assert!(is_killed, "{call} {when}");
            barrier.wait().unwrap();
            other.finish();
            "waited"
        }
    };
    other.begin(Call::Wait(Way::Block));
    barrier.wait().unwrap();
    other.finish();
    Some((is_killed, outcome))
}

// Linux only: elsewhere no signal stops a process.
#[cfg(target_os = "linux")]
mod stopped {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

    use super::*;
    use crate::peer::Peer;

    fn signal(peer: &Peer, signal: Signal) {
        let pid = Pid::from_raw(peer.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        if signal == Signal::STOP {
            // A thread that still runs could notice what happens next.
            waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
        }
    }

    /// A barrier, and processes of which the first is stopped while it waits there.
    fn with_one_stopped(parties: u32, processes: u32) -> (tempfile::TempDir, Barrier, Vec<Peer>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("barrier");
        let barrier = Barrier::open(&path, parties).unwrap();
        let mut peers = peers(&path, parties, processes, LATE_BACKSTOP);
        peers[0].begin(Call::Wait(Way::Block));
        until_waiting(&barrier, 1);
        signal(&peers[0], Signal::STOP);
        (dir, barrier, peers)
    }

    /// The generation ends, and one of the two next callers finds no free participant's file, since
    /// the stopped process has not left.
    fn let_a_caller_wait(barrier: &Barrier, peers: &mut [Peer]) {
        assert_eq!(peers[1].run(Call::Wait(Way::Block)), "0 leader");
        peers[1].begin(Call::Wait(Way::Block));
        peers[2].begin(Call::Wait(Way::Block));
        eventually("a caller waits for a file", || barrier.path().join("wanted").exists());
        until_waiters_rely_on_events();
    }

    #[test]
    fn a_death_while_leaving_breaks_nothing() {
        limit!();
        let (_dir, barrier, mut peers) = with_one_stopped(2, 3);
        let_a_caller_wait(&barrier, &mut peers);
        peers[0].kill();
        let passed = [peers[1].finish(), peers[2].finish()];
        assert!(passed.iter().all(|text| text.starts_with('1')), "{passed:?}");
        assert!(!barrier.is_broken().unwrap());
    }

    #[test]
    fn a_participant_that_leaves_late_lets_a_caller_in() {
        limit!();
        let (_dir, barrier, mut peers) = with_one_stopped(2, 3);
        let_a_caller_wait(&barrier, &mut peers);
        signal(&peers[0], Signal::CONT);
        assert_eq!(peers[0].finish(), "0");
        peers[1].finish();
        peers[2].finish();
    }

    /// The participant was stopped in a generation that has been reset, and several after it.
    #[test]
    fn a_stopped_participant_learns_that_its_generation_was_reset() {
        limit!();
        let (_dir, barrier, mut peers) = with_one_stopped(2, 1);
        for _ in 0..5 {
            barrier.abort().unwrap();
            barrier.reset().unwrap();
        }
        signal(&peers[0], Signal::CONT);
        let error = peers[0].answer().unwrap_err();
        assert!(error.starts_with("broken: "), "{error}");
    }

    /// The opposite: its generation was released, and later ones were reset.
    #[test]
    fn a_stopped_participant_learns_that_all_have_passed() {
        limit!();
        let (_dir, barrier, mut peers) = with_one_stopped(2, 1);
        assert!(barrier.wait().unwrap().is_leader());
        for _ in 0..5 {
            barrier.abort().unwrap();
            barrier.reset().unwrap();
        }
        signal(&peers[0], Signal::CONT);
        assert_eq!(peers[0].finish(), "0");
    }

    #[test]
    fn a_stopped_participant_does_not_delay_the_timeouts_of_others() {
        limit!();
        let (_dir, _barrier, mut peers) = with_one_stopped(3, 2);
        peers[1].expect_timed_out(Call::Wait(Way::Timeout(50)));
        signal(&peers[0], Signal::CONT);
        let error = peers[0].answer().unwrap_err();
        assert!(error.starts_with("broken: "), "{error}");
    }
}
