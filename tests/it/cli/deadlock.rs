//! A job that waits for what its own ancestor holds.

use std::path::Path;
use std::process::Command;

use crate::cli::command::{Ran, run};
use crate::support::running::Start as _;

/// Runs a shell script under a verb. `$F` is flockwork.
fn under(dir: &Path, verb: &[&str], script: &str) -> Ran {
    let script = format!("F={}; {script}", env!("CARGO_BIN_EXE_flockwork"));
    run(dir, verb.iter().copied().chain(["sh", "-c", &script]))
}

#[test]
fn waiting_for_an_ancestor_is_an_error() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (verb, job) in [
        (&["lock", "f"][..], "lock f true"),
        (&["lock", "f"], "lock -n f true"),
        (&["lock", "f"], "lock -w 1000 f true"),
        (&["lock", "-o", "f"], "lock f true"),
        (&["lock", "f"], "lock -s f true"),
        (&["lock", "-x", "f"], "lock -x f true"),
        (&["sem", "-j1", "s"], "sem s true"),
        (&["sem", "-j1", "s"], "sem s -w 1000 true"),
        (&["sem", "-j2", "s2"], "sem s2 -k 2 true"),
        (&["once", "o"], "once o true"),
        (&["once", "o"], "once -n o true"),
    ] {
        let ran = under(dir, verb, &format!("\"$F\" {job}; test $? = 71"));
        assert_eq!(ran.code, Some(0), "{verb:?} {job}: {ran:?}");
        ran.assert_error("flockwork: would deadlock: held by your ancestor, process ");
        let _ = std::fs::remove_file(dir.join("o"));
    }
    // The program itself is the child of the holder.
    let flockwork = env!("CARGO_BIN_EXE_flockwork");
    let ran = run(dir, ["lock", "f", flockwork, "lock", "f", "true"]).expect(71, "");
    ran.assert_error("would deadlock: held by your parent process ");
    ran.assert_error("lock f true); use --reentrant to run the command under the lock");
    // flock(1) is an ancestor like any other.
    let mut flock = Command::new("flock");
    flock.args(["f", flockwork, "lock", "f", "true"]).current_dir(dir);
    Ran::of(&mut flock).expect(71, "").assert_error("(flock f ");
    // Draining a semaphore includes the permit of the job.
    let ran = under(dir, &["sem", "s"], "\"$F\" sem s --wait; test $? = 71").expect(0, "");
    assert!(!ran.err.contains("--reentrant"), "{ran:?}");
}

#[test]
fn a_reentrant_job_runs_under_the_lock_of_its_ancestor() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (verb, job) in [
        (&["lock", "f"][..], "lock --reentrant f"),
        (&["lock", "-s", "f"], "lock -s --reentrant f"),
        (&["sem", "s"], "sem --reentrant s"),
        (&["once", "o"], "once --reentrant o"),
    ] {
        let ran = under(dir, verb, &format!("\"$F\" {job} -- echo ran"));
        assert_eq!(ran.expect(0, "ran\n").err, "", "{verb:?}");
    }
    // A shared lock does not permit an exclusive job, and one permit is not two.
    for (verb, job) in [(&["lock", "-s", "f"][..], "lock f"), (&["sem", "-j2", "s2"], "sem -k2 s2")]
    {
        let ran = under(dir, verb, &format!("\"$F\" {job} --reentrant -- echo ran; test $? = 71"));
        assert!(!ran.expect(0, "").err.contains("use --reentrant"), "{verb:?}");
    }
    // Without an ancestor that holds the lock, the option changes nothing.
    let holding = crate::cli::command::Holding::start(dir, &["lock", "--reentrant", "f"]);
    run(dir, ["lock", "-n", "--reentrant", "f", "true"]).expect(75, "");
    let waiting =
        crate::cli::command::flockwork(dir).args(["lock", "--reentrant", "f", "true"]).start();
    crate::support::until_blocked(&dir.join("f"), 1);
    holding.end();
    assert!(waiting.wait_with_output().unwrap().status.success());
}

#[test]
fn permits_that_suffice_beside_the_ancestors_are_acquired() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    under(dir.path(), &["sem", "-j3", "s"], "\"$F\" sem -k2 s echo ran").expect(0, "ran\n");
    under(dir.path(), &["lock", "-s", "f"], "\"$F\" lock -s f echo ran").expect(0, "ran\n");
    under(dir.path(), &["lock", "f"], "\"$F\" lock g echo ran").expect(0, "ran\n");
}
