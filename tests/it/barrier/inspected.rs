//! What `inspect` and `flockwork status` show of a barrier.

use flockwork::{Barrier, Holder, StatusKind, inspect};

use crate::peer::barrier::{Call, peers};
use crate::peer::{LATE_BACKSTOP, Way};
use crate::support::eventually;

#[test]
fn inspect_shows_the_participants_that_wait() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let barrier = Barrier::open(&path, 3).unwrap();
    let status = inspect(&path).unwrap();
    assert_eq!((status.kind(), status.capacity()), (StatusKind::Barrier, Some(3)));
    assert!(!status.is_held() && !status.is_broken() && !status.is_set());
    assert_eq!((status.held_slots(), status.payload_len()), (&[][..], None));

    let mut peers = peers(&path, 3, 2, LATE_BACKSTOP);
    for peer in &mut peers {
        peer.begin(Call::Wait(Way::Block));
    }
    eventually("both wait", || barrier.waiting().unwrap() == 2);
    let status = inspect(&path).unwrap();
    assert!(status.is_held() && !status.is_broken());
    assert_eq!(status.held_slots().len(), 2);
    // Only Linux names the processes.
    if cfg!(target_os = "linux") {
        let slots: Vec<_> = status.holders().iter().filter_map(Holder::slot).collect();
        assert_eq!(slots, status.held_slots());
        let mut pids: Vec<_> = status.holders().iter().map(Holder::pid).collect();
        let mut expected: Vec<_> = peers.iter().map(crate::peer::Peer::id).collect();
        pids.sort_unstable();
        expected.sort_unstable();
        assert_eq!(pids, expected);
    }

    // A death is shown before any process has noticed it.
    for peer in &mut peers {
        peer.kill();
    }
    let status = inspect(&path).unwrap();
    assert!(status.is_broken() && !status.is_held());
    assert!(status.held_slots().is_empty() && status.holders().is_empty());
    barrier.reset().unwrap();
    assert!(!inspect(&path).unwrap().is_broken());
}

/// A participant unlocks its file after the generation has ended.
#[test]
fn inspect_does_not_mistake_a_leaving_participant_for_dead() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("barrier");
    let mut peers = peers(&path, 2, 2, LATE_BACKSTOP);
    let mut inspections = 0;
    // On a slow machine the rounds may be over after a few inspections, and begin again.
    for course in 0.. {
        let files = ["0", "1"].map(|name| dir.path().join(format!("{name}.{course}")));
        let files: Vec<_> = files.into();
        for (peer, own) in peers.iter_mut().zip(&files) {
            peer.begin(Call::Rounds(own.clone(), files.clone(), 100));
        }
        let mut running: Vec<_> = peers.iter_mut().collect();
        while !running.is_empty() {
            let status = inspect(&path).unwrap();
            assert!(!status.is_broken(), "{status:?}");
            inspections += 1;
            running.retain_mut(|peer| match peer.has_answered() {
                Some(answer) => answer.is_err_and(|error| panic!("{error}")),
                None => true,
            });
        }
        if inspections > 10 {
            break;
        }
    }
}

// Linux only: the text names processes.
#[cfg(all(feature = "cli", target_os = "linux"))]
#[test]
fn the_command_shows_a_barrier() {
    limit!();
    use serde_json::{Value, json};

    use crate::cli::command::run;

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let barrier = Barrier::open(dir.join("b"), 3).unwrap();
    let as_json = || -> Vec<Value> {
        serde_json::from_str(&run(dir, ["status", "--json", "b"]).out).unwrap()
    };
    let free = json!({
        "path": "b", "kind": "barrier", "held": false, "participants": 3, "arrived": 0,
        "broken": false, "holders": [], "waiters": [], "removed": [], "lost": [], "version": 1
    });
    assert_eq!(as_json(), [free]);
    run(dir, ["status", "b"]).expect(0, "b: 0 of 3 participants have arrived\n");

    let mut peers = peers(&dir.join("b"), 3, 1, LATE_BACKSTOP);
    peers[0].begin(Call::Wait(Way::Block));
    eventually("it waits", || barrier.waiting().unwrap() == 1);
    let seen = &as_json()[0];
    assert_eq!((&seen["held"], &seen["arrived"]), (&json!(true), &json!(1)));
    assert_eq!(seen["holders"][0]["pid"], peers[0].id());
    let text = run(dir, ["status", "b"]).out;
    let first = "b: 1 of 3 participants have arrived\n  participant 0: process ";
    assert!(text.starts_with(first), "{text}");

    peers[0].kill();
    run(dir, ["status", "b"]).expect(0, "b: broken, a barrier for 3 participants\n");
    assert_eq!(as_json()[0]["broken"], true);
}
