//! `flockwork sem`.

use std::process::{Command, Stdio};

use crate::cli::command::{Holding, Ran, flockwork, run};
use crate::support::running::Start as _;

#[test]
fn at_most_four_of_sixteen_jobs_run_at_once() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    // Each job creates one of four directories. A fifth job finds none left and fails.
    let job = "for i in 0 1 2 3; do mkdir w$i 2>/dev/null && { sleep 0.01; rmdir w$i; exit 0; }; done; echo TOO MANY; exit 9";
    let line = format!("seq 100 | xargs -P 16 -n 1 \"$0\" sem -j 4 --id cc -- sh -c '{job}'");
    let mut xargs = Command::new("sh");
    xargs.args(["-c", &line, env!("CARGO_BIN_EXE_flockwork")]);
    xargs.current_dir(dir.path()).env("FLOCKWORK_ID_DIR", dir.path().join("flockwork"));
    let ran = Ran::of(&mut xargs);
    assert_eq!((ran.code, &*ran.out), (Some(0), ""), "{ran:?}");
    assert!(dir.path().join("flockwork/cc/capacity").exists(), "not in the directory for --id");
}

#[test]
fn each_job_receives_its_slot() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let slot = ["sh", "-c", "echo $FLOCKWORK_SLOT"];
    let of = |words: &[&str]| run(dir.path(), words.iter().chain(&slot)).expect(0, "0\n");
    of(&["sem", "-j", "3", "s"]);
    let held = Holding::start(dir.path(), &["sem", "s"]);
    let next = run(dir.path(), ["sem", "-n", "s"].iter().chain(&slot));
    assert!(["1\n", "2\n"].contains(&&*next.out), "{next:?}");
    held.end();
    run(dir.path(), ["sem", "-k", "3", "s"].iter().chain(&slot)).expect(0, "0,1,2\n");
    // A new semaphore without -j has one permit.
    let held = Holding::start(dir.path(), &["sem", "--id", "mutex"]);
    run(dir.path(), ["sem", "--id", "mutex", "-n", "true"]).expect(75, "");
    held.end();
}

#[test]
fn a_different_capacity_is_an_error_without_resize() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), ["sem", "-j", "2", "s", "true"]).expect(0, "");
    run(dir.path(), ["sem", "-j", "3", "s", "true"]).expect(64, "").assert_error("-j 2");
    run(dir.path(), ["sem", "-k", "3", "s", "true"]).expect(64, "").assert_error("1 to 2");
    run(dir.path(), ["sem", "-j", "3", "--resize", "s"]).expect(0, "");
    run(dir.path(), ["sem", "-j", "3", "-k", "3", "s", "echo", "x"]).expect(0, "x\n");
    run(dir.path(), ["sem", "-j", "1", "--resize", "s", "echo", "x"]).expect(0, "x\n");
    let exact = "change the number with `flockwork sem --resize -j 3 'a b'`";
    run(dir.path(), ["sem", "-j", "2", "a b", "true"]).expect(0, "");
    run(dir.path(), ["sem", "-j", "3", "a b", "true"]).expect(64, "").assert_error(exact);
    run(dir.path(), ["sem", "--resize", "-j", "3", "a b"]).expect(0, "");
    for (count, ok) in [("100%", true), ("+1", true), ("-1", true), ("0", false), ("x", false)] {
        let name = format!("s{count}");
        let ran = run(dir.path(), ["sem", "-j", count, &name, "true"]);
        assert_eq!(ran.code, Some(if ok { 0 } else { 64 }), "{ran:?}");
    }
}

#[test]
fn a_relative_count_is_not_compared_with_the_stored_one() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let many = ["sem", "-j", "+100", "s", "true"];
    run(dir.path(), many).expect(0, "");
    for count in ["50%", "+1", "-1", "300%"] {
        run(dir.path(), ["sem", "-j", count, "s", "true"]).expect(0, "");
    }
    let processors = std::thread::available_parallelism().unwrap().get();
    let stored = || std::fs::read_to_string(dir.path().join("s/capacity")).unwrap();
    assert_eq!(stored().trim(), (processors + 100).to_string());
    run(dir.path(), ["sem", "--resize", "-j", "100%", "s"]).expect(0, "");
    assert_eq!(stored().trim(), processors.to_string());
}

#[test]
fn a_paused_semaphore_starts_no_command() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), ["sem", "-j", "0", "--resize", "s"]).expect(66, "").assert_error("create it");
    run(dir.path(), ["sem", "-j", "2", "s", "true"]).expect(0, "");
    let held = Holding::start(dir.path(), &["sem", "s"]);
    for wrong in [&["-j", "0", "s", "true"][..], &["-j", "0", "--resize", "s", "true"]] {
        let arguments = ["sem"].iter().chain(wrong);
        run(dir.path(), arguments).expect(64, "").assert_error("at least 1");
    }
    run(dir.path(), ["sem", "-j", "0", "--resize", "s"]).expect(0, "");
    let status = run(dir.path(), ["status", "s"]);
    assert!(status.out.starts_with("s: paused, 1 permit held\n  slot "), "{status:?}");
    let status = run(dir.path(), ["status", "--json", "s"]);
    assert!(status.out.contains("\"permits\":0") && status.out.contains("\"available\":0"));
    for arguments in [&["sem", "-n", "s", "true"][..], &["sem", "-j", "5", "-n", "s", "true"]] {
        run(dir.path(), arguments).expect(75, "").assert_error("is paused");
    }
    let waiter = flockwork(dir.path()).args(["sem", "s", "echo", "waited"]).start();
    held.end();
    run(dir.path(), ["sem", "-j", "2", "--resize", "s", "echo", "resumed"]).expect(0, "resumed\n");
    assert_eq!(waiter.wait_with_output().unwrap().status.code(), Some(0));
    run(dir.path(), ["sem", "-j", "2", "s", "true"]).expect(0, "");
}

#[test]
fn sem_wait_waits_for_background_jobs() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir, ["sem", "--id", "never", "--wait"]).expect(0, "");
    for job in 0..4 {
        // This returns when the job has acquired a permit and started.
        let script = format!("while [ ! -e go ]; do sleep 0.01; done; echo {job} >> done");
        let mut start = flockwork(dir);
        start.args(["sem", "--bg", "-j", "4", "--id", "bg", "sh", "-c", &script]);
        start.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(start.status().unwrap().success());
    }
    run(dir, ["sem", "--id", "bg", "-n", "true"]).expect(75, "");
    run(dir, ["sem", "--id", "bg", "--wait", "-n"]).expect(75, "");
    std::fs::write(dir.join("go"), "").unwrap();
    run(dir, ["sem", "--id", "bg", "--wait"]).expect(0, "");
    assert_eq!(std::fs::read_to_string(dir.join("done")).unwrap().lines().count(), 4);
    // The starter reports a command that cannot be run.
    run(dir, ["sem", "--bg", "--id", "bg", "./nothing"]).expect(69, "").assert_error("`./nothing`");
    let ran = run(dir, ["sem", "--bg", "-n", "--id", "bg", "sh", "-c", "exit 5"]).expect(0, "");
    assert_eq!(ran.err, "");
    run(dir, ["sem", "--id", "bg", "--wait"]).expect(1, "");
}

#[test]
fn a_background_job_is_not_run_after_its_starter_was_killed() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let holding = Holding::start(dir.path(), &["sem", "s"]);
    let mut start = flockwork(dir.path());
    start.args(["sem", "--bg", "s", "touch", "ran"]).stderr(Stdio::null());
    let mut start = start.start();
    crate::support::eventually("it waits", || {
        crate::support::blocked(&dir.path().join("s/slot.0")) > 0
    });
    start.kill().unwrap();
    start.wait().unwrap();
    // One read may miss a waiter, since /proc/locks is read in pieces while it changes.
    crate::support::eventually("the background process has ended", || {
        (0..20).all(|_| crate::support::blocked(&dir.path().join("s/slot.0")) == 0)
    });
    holding.end();
    run(dir.path(), ["sem", "s", "true"]).expect(0, "");
    assert!(!dir.path().join("ran").exists());
}
