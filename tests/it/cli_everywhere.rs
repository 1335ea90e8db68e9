//! The command `flockwork` where there is no shell to rely on: the job is this test binary, as a peer.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::peer::Peer;
use crate::support::eventually;

fn flockwork(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flockwork"));
    command.current_dir(dir).args(words).stdin(Stdio::null()).env("XDG_RUNTIME_DIR", dir);
    command
}

#[track_caller]
fn expect(dir: &Path, words: &[&str], code: i32, out: &str) -> String {
    let output = flockwork(dir, words).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), &*said), (Some(code), out), "{words:?}: {err}");
    assert_eq!(err.lines().count(), usize::from(code != 0), "{words:?}: {err}");
    err
}

/// A job that holds a lock of its own.
fn job(dir: &Path, words: &[&str], own: &str) -> Peer {
    let mut command = flockwork(dir, words);
    command.arg(std::env::current_exe().unwrap());
    let mut job = Peer::start_as(command);
    job.expect(&format!("open\t{}", dir.join(own).display()), "ok");
    job.expect("lock", "held");
    job
}

#[test]
fn a_job_runs_while_it_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let this = std::env::current_exe().unwrap();
    let this = this.to_str().unwrap();
    for (hold, other) in [
        (&["lock", "f", "--"][..], &["lock", "-n", "f"][..]),
        (&["lock", "-s", "g"], &["lock", "-n", "g"]),
        (&["sem", "-j", "1", "s"], &["sem", "-n", "s"]),
        (&["sem", "--id", "n", "--"], &["sem", "-w", "0.01", "--id", "n", "--"]),
    ] {
        let peer = job(dir, hold, "own");
        let nothing = [other, &[this, "peer::entry", "--exact", "-q"]].concat();
        let refused = flockwork(dir, &nothing).output().unwrap();
        assert_eq!(refused.status.code(), Some(75), "{refused:?}");
        drop(peer);
        let ran = flockwork(dir, &nothing).output().unwrap();
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        let wrong = [other, &[this, "--no-such-option"]].concat();
        let own = Command::new(this).arg("--no-such-option").output().unwrap().status.code();
        assert_eq!(flockwork(dir, &wrong).output().unwrap().status.code(), own);
    }
    expect(dir, &["lock", "f", "no-such-program"], 69, "");
    expect(dir, &["lock"], 64, "");
    assert!(expect(dir, &["lock", ".", "x"], 66, "").contains("directory"));
}

#[test]
fn a_killed_wrapper_leaves_no_job_without_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let own = flockwork::Lock::open(dir.join("own")).unwrap();
    let held = flockwork::Lock::open(dir.join("f")).unwrap();
    let mut peer = job(dir, &["lock", "f"], "own");
    assert!(own.try_lock().unwrap_err().is_would_block());
    peer.kill();
    if cfg!(windows) {
        eventually("the job has ended with it", || own.try_lock().is_ok());
    } else {
        assert!(held.try_lock().unwrap_err().is_would_block());
        assert!(own.try_lock().unwrap_err().is_would_block());
        drop(peer); // its input ends
    }
    eventually("both are free", || own.try_lock().is_ok() && held.try_lock().is_ok());
}

#[test]
fn an_event_and_what_is_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cleared = flockwork(dir, &["event", "status", "e"]).output().unwrap();
    assert_eq!((cleared.status.code(), &*cleared.stdout), (Some(1), &b"cleared\n"[..]));
    expect(dir, &["event", "wait", "-w", "0.01", "e"], 75, "");
    expect(dir, &["event", "set", "e", "--data", "8080"], 0, "");
    expect(dir, &["event", "status", "e"], 0, "set\n");
    expect(dir, &["event", "wait", "--any", "d", "e"], 0, "e\n");
    expect(dir, &["event", "wait", "--consume", "e"], 0, "8080");
    expect(dir, &["event", "wait", "--cleared", "e"], 0, "");
    let this = std::env::current_exe().unwrap();
    let nothing = [this.to_str().unwrap(), "peer::entry", "--exact", "-q"];
    let once = [&["once", "o"], &nothing[..]].concat();
    assert!(flockwork(dir, &once).output().unwrap().status.success());
    assert!(dir.join("o").exists());
    expect(dir, &["once", "o", "no-such-program"], 0, "");
    expect(dir, &["once", "--reset", "o"], 0, "");
    expect(dir, &["once", "o", "no-such-program"], 69, "");
}

#[test]
fn what_is_held_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    expect(dir, &["status", "f"], 0, "f: not there (nobody holds it; as an event, cleared)\n");
    let peer = job(dir, &["lock", "--label", "nightly", "f"], "own");
    let output = flockwork(dir, &["status", "--json", "f", "own"]).output().unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&seen[0]["held"], &seen[1]["held"]), (&true.into(), &true.into()), "{seen}");
    assert_eq!(seen[0]["holders"][0]["label"], "nightly");
    assert_eq!(seen[0]["holders"][0]["pid"], peer.id());
    drop(peer);
    expect(dir, &["status", "f"], 0, "f: free (as an event, set, 0 bytes)\n");
    let peer = job(dir, &["sem", "-j", "3", "-k", "2", "s"], "own");
    let output = flockwork(dir, &["status", "s"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("s: 2 of 3 permits held ["), "{text}");
    drop(peer);
}
