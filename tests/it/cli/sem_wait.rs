//! `flockwork sem --wait` and the exit codes of background jobs.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::command::{Holding, Ran, flockwork, run};
use crate::support::running::{Running, Start as _};
use crate::support::{eventually, names_in, until_blocked};

/// Waits until that many processes wait for the end of the job that holds the semaphore.
fn until_waited_for(semaphore: &Path, waiters: usize) {
    let file =
        || names_in(&semaphore.join("jobs")).first().map(|name| semaphore.join("jobs").join(name));
    eventually("the job is registered", || file().is_some());
    until_blocked(&file().unwrap(), waiters);
}

fn has_ended(process: &mut Running) -> bool {
    process.try_wait().unwrap().is_some()
}

/// Starts a background job, which returns when it runs.
fn background(dir: &Path, options: &[&str], script: &str) {
    let mut start = flockwork(dir);
    start.args(["sem", "--bg"]).args(options).args(["--", "sh", "-c", script]);
    let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0), "{script}");
}

#[test]
fn sem_wait_takes_no_permit_and_delays_no_job() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let first = Holding::start(dir.path(), &["sem", "-j", "2", "s"]);
    let mut waiting = flockwork(dir.path()).args(["sem", "--wait", "s"]).start();
    until_waited_for(&dir.path().join("s"), 1);
    run(dir.path(), ["sem", "-n", "s", "echo", "ran"]).expect(0, "ran\n");
    let later = Holding::start(dir.path(), &["sem", "-n", "s"]);
    assert!(!has_ended(&mut waiting));
    first.end();
    assert!(waiting.wait().unwrap().success());
    later.end();
    assert_eq!(names_in(&dir.path().join("s/jobs")), [""; 0]);
}

#[test]
fn sem_wait_waits_for_jobs_that_were_queued_before() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let queue = |count| {
        eventually("the jobs are registered", || {
            names_in(&dir.path().join("s/jobs")).len() == count
        });
    };
    let first = Holding::start(dir.path(), &["sem", "s"]);
    let mut queued = flockwork(dir.path());
    queued.args(["sem", "s", "sh", "-c", "touch ran; while [ ! -e go ]; do sleep 0.01; done"]);
    let mut queued = queued.start();
    queue(2);
    // A job is registered before it is queued.
    until_blocked(&dir.path().join("s/slot.0"), 1);
    let mut waiting = flockwork(dir.path()).args(["sem", "--wait", "s"]).start();
    eventually("it waits for one of the two", || {
        let jobs = dir.path().join("s/jobs");
        names_in(&jobs).iter().any(|name| crate::support::blocked(&jobs.join(name)) > 0)
    });
    let mut later = flockwork(dir.path());
    later.args(["sem", "s", "sh", "-c", "touch later; while [ ! -e stop ]; do sleep 0.01; done"]);
    let mut later = later.start();
    queue(3);
    until_blocked(&dir.path().join("s/gate"), 1);
    first.end();
    eventually("the queued job runs", || dir.path().join("ran").exists());
    assert!(!has_ended(&mut waiting));
    std::fs::write(dir.path().join("go"), "").unwrap();
    assert!(queued.wait().unwrap().success());
    assert!(waiting.wait().unwrap().success());
    eventually("the later job runs", || dir.path().join("later").exists());
    std::fs::write(dir.path().join("stop"), "").unwrap();
    assert!(later.wait().unwrap().success());
}

#[test]
fn sem_wait_waits_for_permits_of_other_programs() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for records in [true, false] {
        let options = flockwork::Options::new().record_holder(records);
        let semaphore = options.open_semaphore(dir.path().join("s"), 2).unwrap();
        let permit = semaphore.acquire().unwrap();
        let ran = run(dir.path(), ["sem", "--wait", "-n", "s"]).expect(75, "");
        ran.assert_error("`s` is in use");
        run(dir.path(), ["sem", "--wait", "-w", "0.05", "s"])
            .expect(75, "")
            .assert_error("was still in use after ");
        let mut waiting = flockwork(dir.path()).args(["sem", "--wait", "s"]).start();
        run(dir.path(), ["sem", "s", "true"]).expect(0, "");
        assert!(!has_ended(&mut waiting));
        drop(permit);
        assert!(waiting.wait().unwrap().success());
    }
}

#[test]
fn sem_wait_exits_with_the_number_of_failed_jobs() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for script in ["exit 3", "true", "kill -9 $$", "exit 75"] {
        background(dir, &["--id", "bg"], script);
    }
    run(dir, ["sem", "--id", "bg", "--wait"]).expect(3, "");
    run(dir, ["sem", "--id", "bg", "--wait"]).expect(0, "");
    // A job that could not be started is the failure of the call.
    run(dir, ["sem", "--bg", "--id", "bg", "./nothing"]).expect(69, "");
    // The failure of a job in the foreground is its own exit code.
    run(dir, ["sem", "--id", "bg", "sh", "-c", "exit 5"]).expect(5, "");
    run(dir, ["sem", "--id", "bg", "--wait"]).expect(0, "");
}

#[test]
fn sem_wait_counts_the_failures_of_its_group_only() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    background(dir, &["--group", "a", "s"], "exit 1");
    background(dir, &["--group", "a", "s"], "exit 1");
    background(dir, &["--group", "b/c", "s"], "exit 1");
    let mut other_session = Command::new("setsid");
    other_session.args(["-w", env!("CARGO_BIN_EXE_flockwork"), "sem", "--bg", "s", "false"]);
    assert!(other_session.current_dir(dir).stdin(Stdio::null()).status().unwrap().success());
    run(dir, ["sem", "--wait", "s"]).expect(0, "");
    run(dir, ["sem", "--wait", "s", "--group", "a"]).expect(2, "");
    run(dir, ["sem", "--wait", "s", "--group", "b/c"]).expect(1, "");
    run(dir, ["sem", "--wait", "s", "--group", "a"]).expect(0, "");
    run(dir, ["sem", "--group", "a", "s", "true"]).expect(64, "").assert_error("--bg or --wait");
    run(dir, ["sem", "--bg", "--group", "", "s", "true"]).expect(64, "").assert_error("is empty");
}

#[test]
fn sem_wait_counts_at_most_101_failures() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let line = "seq 105 | xargs -P 8 -I {} \"$0\" sem --bg -j 8 --group g s false; \"$0\" sem --wait --group g s";
    let mut script = Command::new("sh");
    script.args(["-c", line, env!("CARGO_BIN_EXE_flockwork")]).current_dir(dir.path());
    Ran::of(&mut script).expect(101, "");
}

#[test]
fn a_killed_background_job_is_a_failure_and_no_hang() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let script = "echo $PPID > supervisor; echo $$ > job; exec sleep 1000";
    background(dir.path(), &["-j", "2", "s"], script);
    let pid = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    eventually("the job runs", || pid("job").ends_with('\n'));
    let mut waiting = flockwork(dir.path()).args(["sem", "--wait", "s"]).start();
    until_waited_for(&dir.path().join("s"), 1);
    let kill = |name: &str| {
        let status = Command::new("kill").args(["-9", pid(name).trim()]).status();
        assert!(status.unwrap().success());
    };
    // The job still runs, and holds the permit that it inherited.
    kill("supervisor");
    run(dir.path(), ["sem", "--wait", "-n", "s"]).expect(75, "");
    assert!(!has_ended(&mut waiting));
    kill("job");
    assert_eq!(waiting.wait().unwrap().code(), Some(1));
}

#[test]
fn sem_wait_ignores_files_of_other_programs_among_the_jobs() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), ["sem", "s", "true"]).expect(0, "");
    let jobs = dir.path().join("s/jobs");
    std::fs::create_dir(jobs.join("x@1")).unwrap();
    std::fs::write(jobs.join("n-g@1.x"), "junk").unwrap();
    std::fs::write(jobs.join("junk"), "").unwrap();
    std::os::unix::fs::symlink("junk", jobs.join("link@1")).unwrap();
    run(dir.path(), ["sem", "--wait", "--group", "g", "s"]).expect(0, "");
    run(dir.path(), ["sem", "--bg", "--group", "g", "s", "true"]).expect(0, "");
    std::fs::remove_dir_all(&jobs).unwrap();
    std::os::unix::fs::symlink(dir.path(), &jobs).unwrap();
    run(dir.path(), ["sem", "s", "echo", "ran"]).expect(0, "ran\n");
    run(dir.path(), ["sem", "--wait", "s"]).expect(0, "");
}

#[test]
fn bg_warns_that_it_does_not_read_a_pipe() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let bg = |line: &str| {
        let mut sh = Command::new("sh");
        sh.args(["-c", line, env!("CARGO_BIN_EXE_flockwork")]).current_dir(dir.path());
        Ran::of(&mut sh).expect(0, "")
    };
    let ran = bg("echo x | \"$0\" sem --bg s cat; \"$0\" sem --wait s");
    ran.assert_error("the command does not read the pipe");
    for line in ["echo x | \"$0\" sem --bg -q s cat", "\"$0\" sem --bg s cat < /dev/null"] {
        assert_eq!(bg(line).err, "", "{line}");
    }
}
