//! `flockwork lock`.

use std::process::Command;

use crate::cli::command::{Holding, Ran, flockwork, run};
use crate::support::running::Start as _;
use crate::support::{copy_program, eventually, write_script};

#[test]
fn a_program_can_be_locked_while_it_runs() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    copy_program("/bin/sh", &dir.path().join("prog"));
    for verb in [&["lock"][..], &["lock", "-x"], &["lock", "-s"]] {
        let words = verb.iter().chain(&["prog", "./prog", "-c", "exit 3"]);
        run(dir.path(), words).expect(3, "");
    }
}

#[test]
fn arguments_are_passed_on_and_the_exit_code_is_returned() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let words = ["a b", "", "*", "$HOME", "--", "-n", "\\", "'", "\"", "c\nd"];
    for verb in [&["lock", "f", "--"][..], &["sem", "s", "--"], &["sem", "s"], &["once", "o"]] {
        let ran = run(dir.path(), verb.iter().chain(&["printf", "<%s>"]).chain(&words));
        let wanted = format!("<{}>", words.join("><"));
        assert_eq!(ran.expect(0, &wanted).err, "");
    }
    run(dir.path(), ["lock", "f", "printf", "<%s>", "a b", "", "*"]).expect(0, "<a b><><*>");
    for code in [0, 1, 7, 75, 255] {
        let exit = format!("exit {code}");
        for verb in [&["lock", "f"][..], &["sem", "s"], &["once", "never"], &["lock", "-o", "f"]] {
            if verb[0] == "once" && code == 0 {
                continue;
            }
            run(dir.path(), verb.iter().chain(&["sh", "-c", &exit])).expect(code, "");
        }
    }
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("INT", 130), ("SEGV", 139)] {
        let kill = format!("kill -{signal} $$");
        for verb in ["lock", "sem", "once"] {
            run(dir.path(), [verb, &format!("k{verb}"), "sh", "-c", &kill]).expect(code, "");
        }
    }
}

#[test]
fn a_command_string_is_run_by_the_shell() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let shell = |words: &[&str]| Ran::of(flockwork(dir.path()).env_remove("SHELL").args(words));
    shell(&["lock", "f", "-c", "echo a; exit 3"]).expect(3, "a\n");
    shell(&["lock", "-c", "echo a | tr a b", "f"]).expect(0, "b\n");
    shell(&["lock", "--command=exit 4", "f"]).expect(4, "");
    shell(&["sem", "s", "-c", "echo $FLOCKWORK_SLOT; exit 3"]).expect(3, "0\n");
    shell(&["sem", "--id", "x", "-c", "echo a"]).expect(0, "a\n");
    shell(&["once", "o", "-c", "echo a"]).expect(0, "a\n");
    shell(&["once", "o", "-c", "echo a"]).expect(0, "");
    let mut own = flockwork(dir.path());
    own.env("SHELL", "/bin/echo").args(["lock", "f", "-c", "x y"]);
    Ran::of(&mut own).expect(0, "-c x y\n");
    // A script without `#!` is run by sh, as by execvp(3).
    let script = dir.path().join("script");
    write_script(&script, "echo \"$1 $#\"\n");
    run(dir.path(), ["lock", "f", "./script", "a b", "c"]).expect(0, "a b 2\n");
}

#[test]
fn several_paths_are_locked_together() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let all = Holding::start(dir, &["lock", "--label", "all", "a", "b", "./a", "c", "--"]);
    for path in ["a", "b", "c"] {
        let ran = run(dir, ["lock", "-n", path, "true"]).expect(75, "");
        ran.assert_error("\"all\"");
    }
    all.end();
    assert!(!dir.join("a.holder").exists());
    // A lock that is not available in time releases the others.
    let holding = Holding::start(dir, &["lock", "b"]);
    run(dir, ["lock", "-w", "0.05", "c", "b", "a", "--", "true"]).expect(75, "");
    let waiting = flockwork(dir).args(["lock", "c", "b", "a", "--", "true"]).start();
    crate::support::until_blocked(&dir.join("b"), 1);
    // Every process locks them in the same order.
    run(dir, ["lock", "-n", "a", "true"]).expect(75, "");
    run(dir, ["lock", "-n", "c", "true"]).expect(0, "");
    holding.end();
    assert!(waiting.wait_with_output().unwrap().status.success());
    for path in ["a", "b", "c"] {
        run(dir, ["lock", "-n", path, "true"]).expect(0, "");
    }
    std::fs::create_dir(dir.join("d")).unwrap();
    let processes: Vec<_> = [["a", "b", "d/c"], ["d/c", "b", "a"], ["d/../b", "d/c", "d/../a"]]
        .iter()
        .cycle()
        .take(30)
        .map(|paths| flockwork(dir).arg("lock").args(paths).args(["--", "true"]).start())
        .collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    run(dir, ["lock", "-s", "a", "b", "--", "echo", "--", "x"]).expect(0, "-- x\n");
}

#[test]
fn an_fcntl_lock_excludes_programs_that_use_that_kind() {
    limit!();
    if !crate::support::has("python3", &["-c", "import fcntl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let python = "import fcntl, sys; f = open('f', 'r+'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print('runs', flush=True); sys.stdin.read()";
    let try_lock = || Ran::of(Command::new("python3").args(["-c", python]).current_dir(dir));
    let holding = Holding::start(dir, &["lock", "--fcntl", "f"]);
    assert!(try_lock().err.contains("BlockingIOError"));
    run(dir, ["lock", "-n", "--fcntl", "f", "true"]).expect(75, "").assert_error("is busy");
    run(dir, ["lock", "-w", "0.1", "--fcntl", "f", "true"]).expect(75, "");
    run(dir, ["lock", "-n", "f", "echo", "other kind"]).expect(0, "other kind\n");
    holding.end();
    let other = Holding::of(Command::new("python3").args(["-c", python]).current_dir(dir));
    let mut waiting = flockwork(dir);
    waiting.args(["lock", "--fcntl", "f", "true"]).stderr(std::process::Stdio::piped());
    let mut waiting = waiting.start();
    let mut line = String::new();
    let mut stderr = std::io::BufReader::new(waiting.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    assert!(line.starts_with("flockwork: waiting for f 0:"), "{line}");
    other.end();
    assert!(waiting.wait().unwrap().success());
    // The job inherits the lock, and readers share it.
    let mut holding = Holding::start(dir, &["lock", "-s", "--fcntl", "f"]);
    run(dir, ["lock", "-s", "-n", "--fcntl", "f", "echo", "x"]).expect(0, "x\n");
    holding.0.kill().unwrap();
    let _input = holding.0.stdin.take();
    holding.0.wait().unwrap();
    assert!(try_lock().err.contains("BlockingIOError"));
}

#[test]
fn options_may_stand_between_path_and_command() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), ["lock", "f", "-n", "--label", "a", "echo", "-x"]).expect(0, "-x\n");
    run(dir.path(), ["lock", "f", "-w", "1m30s", "--", "echo", "x"]).expect(0, "x\n");
    run(dir.path(), ["lock", "--wait", "500ms", "f", "echo", "x"]).expect(0, "x\n");
    run(dir.path(), ["sem", "s", "-j", "2", "echo", "-j", "9"]).expect(0, "-j 9\n");
    run(dir.path(), ["sem", "s", "--wait"]).expect(0, "");
    run(dir.path(), ["once", "o", "--fsync", "echo", "x"]).expect(0, "x\n");
    run(dir.path(), ["once", "o", "--reset"]).expect(0, "");
    let holding = Holding::start(dir.path(), &["lock", "f"]);
    run(dir.path(), ["lock", "f", "-n", "-E", "9", "echo", "x"]).expect(9, "");
    holding.end();
}

#[test]
fn the_command_replaces_flockwork_with_no_fork() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for mode in [&["-F"][..], &["-F", "-s"], &["-F", "-x"]] {
        let words = [&["lock", "f"][..], mode].concat();
        let holding = Holding::start(dir.path(), &words);
        let program = format!("/proc/{}/exe", holding.0.id());
        eventually("the job replaced flockwork", || {
            std::fs::read_link(&program).unwrap().ends_with("cat")
        });
        let ran = run(dir.path(), ["lock", "-n", "f", "true"]).expect(75, "");
        ran.assert_error(&format!("process {} (cat)", holding.0.id()));
        holding.end();
        run(dir.path(), ["lock", "-n", "f", "true"]).expect(0, "");
    }
    // Neither the mask nor the handlers of the signals are inherited.
    let shown = run(dir.path(), ["lock", "-F", "f", "grep", "SigBlk", "/proc/self/status"]);
    assert!(shown.out.trim_end().ends_with("0000000000000000"), "{shown:?}");
    run(dir.path(), ["lock", "-F", "f", "sh", "-c", "kill -TERM $$"]);
    assert!(!dir.path().join("f.holder").exists());
    run(dir.path(), ["lock", "-F", "f", "./nothing"]).expect(69, "").assert_error("no such file");
}

#[test]
fn the_holder_blocks_a_try_and_is_named() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let holding = Holding::start(dir.path(), &["lock", "--label", "nightly backup", "f"]);
    for words in [&["lock", "-n", "f", "echo", "x"][..], &["lock", "-w", "0", "f", "echo", "x"]] {
        let ran = run(dir.path(), words).expect(75, "");
        ran.assert_error("nightly backup");
        ran.assert_error(&format!("process {} ", holding.0.id()));
    }
    let start = std::time::Instant::now();
    run(dir.path(), ["lock", "-w", "0.3", "f", "echo", "x"])
        .expect(75, "")
        .assert_error("nightly backup");
    assert!(start.elapsed() >= std::time::Duration::from_millis(300));
    for (words, code) in [(["-E", "9"], 9), (["-E", "0"], 0), (["-E", "1"], 1)] {
        run(dir.path(), ["lock", "-n"].iter().chain(&words).chain(&["f", "true"])).expect(code, "");
    }
    assert_eq!(run(dir.path(), ["lock", "-nq", "f", "true"]).expect(75, "").err, "");
    // flock(1) is excluded as well.
    let flock = |path: &str| {
        Command::new("flock").current_dir(dir.path()).args(["-n", path, "true"]).status().unwrap()
    };
    assert_eq!(flock("f").code(), Some(1));
    holding.end();
    assert!(flock("f").success());
    assert!(!dir.path().join("f.holder").exists());
}

#[test]
fn readers_share_and_a_writer_does_not_starve() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let one = Holding::start(dir.path(), &["lock", "-s", "f"]);
    run(dir.path(), ["lock", "-s", "-n", "f", "echo", "x"]).expect(0, "x\n");
    for alone in [&["lock", "-n", "f"][..], &["lock", "-x", "-n", "f"], &["lock", "-en", "f"]] {
        run(dir.path(), alone.iter().chain(&["echo", "x"])).expect(75, "");
    }
    // A waiting writer precedes readers that arrive after it.
    let waiting = flockwork(dir.path()).args(["lock", "f", "true"]).start();
    // It holds the turnstile for good when it waits for the lock itself.
    crate::support::until_blocked(&dir.path().join("f"), 1);
    let refused = run(dir.path(), ["lock", "-s", "-n", "f", "echo", "x"]).expect(75, "");
    refused.assert_error("is busy: held by process ");
    assert!(
        refused.err.contains(&format!("waited for by process {}", waiting.id())),
        "{refused:?}"
    );
    assert_eq!(refused.err.matches("held by").count(), 1, "{refused:?}");
    one.end();
    assert!(waiting.wait_with_output().unwrap().status.success());
    run(dir.path(), ["lock", "-s", "-n", "f", "echo", "x"]).expect(0, "x\n");
    let alone = Holding::start(dir.path(), &["lock", "f"]);
    run(dir.path(), ["lock", "-s", "-n", "f", "echo", "x"]).expect(75, "");
    alone.end();
}

#[test]
fn an_exclusive_lock_leaves_only_its_lock_file() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), ["lock", "f", "true"]).expect(0, "");
    run(dir.path(), ["lock", "--no-record", "f", "ls"]).expect(0, "f\n");
    run(dir.path(), ["lock", "--access", "private", "p", "true"]).expect(0, "");
    let mode = |name: &str| {
        let found = std::fs::metadata(dir.path().join(name)).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777
    };
    assert_eq!(mode("p"), 0o600);
    std::fs::remove_file(dir.path().join("p")).unwrap();
    run(dir.path(), ["sem", "--access", "everyone", "p/s", "true"]).expect(0, "");
    assert_eq!((mode("p"), mode("p/s"), mode("p/s/slot.0")), (0o777, 0o777, 0o666));
    std::fs::remove_dir_all(dir.path().join("p")).unwrap();
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["f"]);
}

#[test]
fn a_job_keeps_its_lock_when_flockwork_is_killed() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let verbs = [
        (&["lock", "f"][..], &["lock", "-n", "f", "true"][..]),
        (&["lock", "-s", "g"], &["lock", "-n", "g", "true"]),
        (&["sem", "s"], &["sem", "-n", "s", "true"]),
        (&["sem", "-j", "2", "-k", "2", "--id", "two"], &["sem", "-n", "--id", "two", "true"]),
        (&["once", "o"], &["once", "-n", "o", "true"]),
    ];
    for (hold, try_it) in verbs {
        let mut holding = Holding::start(dir.path(), hold);
        holding.0.kill().unwrap();
        // The job still has its input, and it has inherited the lock.
        let input = holding.0.stdin.take();
        holding.0.wait().unwrap();
        let ran = run(dir.path(), try_it).expect(75, "");
        ran.assert_error("cat"); // the error names the job
        drop(input);
        crate::support::eventually("the lock is free after the job has ended", || {
            run(dir.path(), try_it).code == Some(0)
        });
    }
    // With -o, only flockwork holds the lock.
    let mut holding = Holding::start(dir.path(), &["lock", "-o", "f"]);
    run(dir.path(), ["lock", "-n", "f", "true"]).expect(75, "");
    holding.0.kill().unwrap();
    let _input = holding.0.stdin.take();
    holding.0.wait().unwrap();
    run(dir.path(), ["lock", "-n", "f", "true"]).expect(0, "");
}

#[test]
fn processes_that_a_job_leaves_running_keep_the_lock() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (verb, name) in [("lock", "f"), ("sem", "s")] {
        // With inherited pipes, `run` would wait for the process that is left.
        let leave = "cat fifo > /dev/null 2>&1 & exit 0";
        run(dir.path(), [verb, name, "sh", "-c", leave]).expect(0, "");
        run(dir.path(), [verb, "-n", name, "true"]).expect(75, "");
        drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
        run(dir.path(), [verb, name, "true"]).expect(0, "");
        run(dir.path(), [verb, "-o", name, "sh", "-c", leave]).expect(0, "");
        run(dir.path(), [verb, "-n", name, "true"]).expect(0, "");
        drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
    }
}
