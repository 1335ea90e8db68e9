//! The cases of `BarrierTests` in `CPython`'s `Lib/test/lock_tests.py` and
//! `_test_multiprocessing.py`, with five processes.

use std::path::Path;

use crate::peer::barrier::{Action, Call, peers};
use crate::peer::{Answer, LATE_BACKSTOP, Peer, Way};
use crate::support::eventually;

const N: u32 = 5;

fn start(path: &Path) -> Vec<Peer> {
    peers(path, N, N, LATE_BACKSTOP)
}

fn begin_all(peers: &mut [Peer], call: &Call) {
    for peer in peers {
        peer.begin(call.clone());
    }
}

fn answers(peers: &mut [Peer]) -> Vec<Answer> {
    peers.iter_mut().map(Peer::answer).collect()
}

/// Lets all peers wait in these forms, and returns the index of the leader.
#[track_caller]
fn pass(peers: &mut [Peer]) -> usize {
    begin_all(peers, &Call::Wait(Way::Block));
    let answers: Vec<_> = answers(peers).into_iter().map(Result::unwrap).collect();
    let leaders: Vec<_> =
        (0..answers.len()).filter(|index| answers[*index].ends_with("leader")).collect();
    assert_eq!(leaders.len(), 1, "{answers:?}");
    let generation = |text: &String| text.split(' ').next().unwrap().to_string();
    assert!(answers.iter().all(|text| generation(text) == generation(&answers[0])), "{answers:?}");
    leaders[0]
}

#[track_caller]
fn assert_broken(answer: &Answer) {
    assert!(answer.as_ref().is_err_and(|error| error.starts_with("broken: ")), "{answer:?}");
}

#[track_caller]
fn all_broken(peers: &mut [Peer]) {
    for answer in answers(peers) {
        assert_broken(&answer);
    }
}

fn multipass(passes: u32) {
    let dir = tempfile::tempdir().unwrap();
    let mut peers = start(&dir.path().join("barrier"));
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    std::fs::create_dir(&first).unwrap();
    std::fs::create_dir(&second).unwrap();
    begin_all(&mut peers, &Call::Multipass(first, second, passes));
    for answer in answers(&mut peers) {
        answer.unwrap();
    }
    peers[0].expect(Call::Waiting, 0);
    peers[0].expect(Call::IsBroken, false);
}

#[test]
fn python_test_barrier() {
    limit!();
    multipass(1);
}

#[test]
fn python_test_barrier_10() {
    limit!();
    multipass(10);
}

/// Python returns a different number to each participant; std and this crate name one leader.
#[test]
fn python_test_wait_return() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut peers = start(&dir.path().join("barrier"));
    for _ in 0..3 {
        pass(&mut peers);
    }
}

#[test]
fn python_test_action() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut peers = start(&dir.path().join("barrier"));
    let log = dir.path().join("log");
    begin_all(&mut peers, &Call::WaitWith(log.clone(), Action::Succeed));
    for answer in answers(&mut peers) {
        answer.unwrap();
    }
    assert_eq!(std::fs::read_to_string(log).unwrap(), "done\n");
}

#[test]
fn python_test_abort() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut peers = start(&dir.path().join("barrier"));
    let leader = pass(&mut peers);
    let mut aborting = peers.remove(leader);
    begin_all(&mut peers, &Call::Wait(Way::Block));
    aborting.run(Call::Abort);
    all_broken(&mut peers);
    aborting.expect(Call::IsBroken, true);
}

#[test]
fn python_test_reset() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut peers = start(&dir.path().join("barrier"));
    let leader = pass(&mut peers);
    let mut resetting = peers.remove(leader);
    begin_all(&mut peers, &Call::Wait(Way::Block));
    eventually("all others wait", || resetting.run(Call::Waiting) == (N - 1).to_string());
    resetting.run(Call::Reset);
    all_broken(&mut peers);
    peers.push(resetting);
    pass(&mut peers);
}

#[test]
fn python_test_abort_and_reset() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut peers = start(&dir.path().join("barrier"));
    let leader = pass(&mut peers);
    let mut aborting = peers.remove(leader);
    begin_all(&mut peers, &Call::Wait(Way::Block));
    aborting.run(Call::Abort);
    all_broken(&mut peers);
    // The dialogue with the test replaces Python's second barrier.
    aborting.run(Call::Reset);
    peers.push(aborting);
    pass(&mut peers);
    peers[0].expect(Call::IsBroken, false);
}

#[test]
fn python_test_timeout() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut peers = start(&dir.path().join("barrier"));
    let leader = pass(&mut peers);
    let mut late = peers.remove(leader);
    begin_all(&mut peers, &Call::Wait(Way::Timeout(500)));
    // Python reports a timeout as a broken barrier, too.
    let given_up = answers(&mut peers);
    for answer in &given_up {
        let error = answer.as_ref().unwrap_err();
        assert!(error.starts_with("broken: ") || error.starts_with("timed-out: "), "{error}");
    }
    assert!(given_up.iter().any(|answer| {
        answer.as_ref().is_err_and(|error| error.contains("not all participants arrived"))
    }));
    assert_broken(&late.ask(Call::Wait(Way::Timeout(500))));
}

/// Python's default timeout is a deadline here, and the other participants wait without one.
#[test]
fn python_test_default_timeout() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut peers = start(&dir.path().join("barrier"));
    let leader = pass(&mut peers);
    let mut late = peers.remove(leader);
    let mut limited = peers.remove(0);
    begin_all(&mut peers, &Call::Wait(Way::Block));
    limited.expect_timed_out(Call::Wait(Way::Deadline(300)));
    all_broken(&mut peers);
    assert_broken(&late.ask(Call::Wait(Way::Block)));
}

#[test]
fn python_test_single_thread() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let barrier = flockwork::Barrier::open(dir.path().join("barrier"), 1).unwrap();
    for generation in 0..2 {
        let passed = barrier.wait().unwrap();
        assert!(passed.is_leader());
        assert_eq!(passed.generation(), generation);
    }
}

#[test]
fn python_test_thousand() {
    limit!();
    // Under Wine a generation takes a tenth of a second.
    let rounds = if cfg!(windows) { 100 } else { 1000 };
    let dir = tempfile::tempdir().unwrap();
    let mut peers = start(&dir.path().join("barrier"));
    // Each peer has its own file, since not every system appends in one step.
    let files: Vec<_> = (0..N).map(|peer| dir.path().join(format!("log.{peer}"))).collect();
    for (peer, own) in peers.iter_mut().zip(&files) {
        peer.begin(Call::Rounds(own.clone(), files.clone(), rounds));
    }
    for answer in answers(&mut peers) {
        answer.unwrap();
    }
    for file in files {
        assert_eq!(std::fs::metadata(file).unwrap().len(), rounds);
    }
}
