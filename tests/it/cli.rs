//! The command `flockwork` as its users run it: `lock`, `sem`, `event`, `once`. `cli_signals`, `cli_status` and
//! `cli_input` have the rest.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::running::{Running, Start as _};

/// The command, in a directory. With no signal ignored: tests that run in the background of a script begin with some that are.
pub(crate) fn flockwork(dir: &Path) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(env!("CARGO_BIN_EXE_flockwork"));
    command.current_dir(dir).stdin(Stdio::null()).env("XDG_RUNTIME_DIR", dir);
    command
}

/// What a run came to.
#[derive(Debug, PartialEq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32, out: &str) -> Self {
        assert_eq!((self.code, &*self.out), (Some(code), out), "{self:?}");
        self
    }

    /// It says so on one line, without a panic.
    #[track_caller]
    pub(crate) fn says(&self, what: &str) {
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.starts_with("flockwork: ") && self.err.contains(what), "{}", self.err);
        assert!(!self.err.contains("panicked") && !self.err.contains("Error {"), "{}", self.err);
    }
}

pub(crate) fn run(dir: &Path, words: impl IntoIterator<Item: AsRef<OsStr>>) -> Ran {
    Ran::of(flockwork(dir).args(words))
}

/// A `flockwork` whose job runs until its input ends. It is running already.
pub(crate) struct Holding(pub(crate) Running);

impl Holding {
    /// `words` end where the command begins.
    pub(crate) fn start(dir: &Path, words: &[&str]) -> Self {
        Self::of(flockwork(dir).args(words).args(["sh", "-c", "echo runs; exec cat"]))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).start();
        let mut line = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        assert_eq!(&line, b"runs\n");
        Self(child)
    }

    pub(crate) fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn a_program_can_be_locked_while_it_runs() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("/bin/sh").arg(dir.path().join("prog")).status().unwrap();
    assert!(copied.success());
    for verb in [&["lock"][..], &["lock", "-x"], &["lock", "-s"]] {
        let words = verb.iter().chain(&["prog", "./prog", "-c", "exit 3"]);
        run(dir.path(), words).expect(3, "");
    }
}

#[test]
fn the_command_gets_its_arguments_as_they_are_and_its_code_is_ours() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let words = ["a b", "", "*", "$HOME", "--", "-n", "\\", "'", "\"", "c\nd"];
    for verb in [&["lock", "f", "--"][..], &["lock", "f"], &["sem", "s", "--"], &["once", "o"]] {
        let ran = run(dir.path(), verb.iter().chain(&["printf", "<%s>"]).chain(&words));
        let wanted = format!("<{}>", words.join("><"));
        assert_eq!(ran.expect(0, &wanted).err, "");
    }
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
fn a_string_is_for_the_shell() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let shell = |words: &[&str]| Ran::of(flockwork(dir.path()).env_remove("SHELL").args(words));
    shell(&["lock", "f", "-c", "echo a; exit 3"]).expect(3, "a\n");
    shell(&["lock", "-c", "echo a | tr a b", "f"]).expect(0, "b\n");
    shell(&["lock", "--command=exit 4", "f"]).expect(4, "");
    let mut own = flockwork(dir.path());
    own.env("SHELL", "/bin/echo").args(["lock", "f", "-c", "x y"]);
    Ran::of(&mut own).expect(0, "-c x y\n");
    // What has no `#!` is a script of sh, as for execvp(3).
    let script = dir.path().join("script");
    crate::support::write_script(&script, "echo \"$1 $#\"\n");
    run(dir.path(), ["lock", "f", "./script", "a b", "c"]).expect(0, "a b 2\n");
}

#[test]
fn who_holds_it_is_in_the_way_and_named() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let holding = Holding::start(dir.path(), &["lock", "--label", "nightly backup", "f"]);
    for words in [&["lock", "-n", "f", "echo", "x"][..], &["lock", "-w", "0", "f", "echo", "x"]] {
        let ran = run(dir.path(), words).expect(75, "");
        ran.says("nightly backup");
        ran.says(&format!("process {} ", holding.0.id()));
    }
    let start = std::time::Instant::now();
    run(dir.path(), ["lock", "-w", "0.3", "f", "echo", "x"]).expect(75, "").says("nightly backup");
    assert!(start.elapsed() >= std::time::Duration::from_millis(300));
    for (words, code) in [(["-E", "9"], 9), (["-E", "0"], 0), (["-E", "1"], 1)] {
        run(dir.path(), ["lock", "-n"].iter().chain(&words).chain(&["f", "true"])).expect(code, "");
    }
    assert_eq!(run(dir.path(), ["lock", "-nq", "f", "true"]).expect(75, "").err, "");
    // Also for what knows nothing of us, and the other way round.
    let flock = |path: &str| {
        Command::new("flock").current_dir(dir.path()).args(["-n", path, "true"]).status().unwrap()
    };
    assert_eq!(flock("f").code(), Some(1));
    holding.end();
    assert!(flock("f").success());
    assert!(!dir.path().join("f.holder").exists());
}

#[test]
fn readers_share_and_who_wants_it_alone_does_not_starve() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let one = Holding::start(dir.path(), &["lock", "-s", "f"]);
    run(dir.path(), ["lock", "-s", "-n", "f", "echo", "x"]).expect(0, "x\n");
    for alone in [&["lock", "-n", "f"][..], &["lock", "-x", "-n", "f"], &["lock", "-en", "f"]] {
        run(dir.path(), alone.iter().chain(&["echo", "x"])).expect(75, "");
    }
    // One who waits for it alone goes before readers who come after it.
    let waiting = flockwork(dir.path()).args(["lock", "f", "true"]).start();
    crate::support::until_held(&dir.path().join("f.gate"), waiting.id());
    run(dir.path(), ["lock", "-s", "-n", "f", "echo", "x"]).expect(75, "");
    one.end();
    assert!(waiting.wait_with_output().unwrap().status.success());
    run(dir.path(), ["lock", "-s", "-n", "f", "echo", "x"]).expect(0, "x\n");
    let alone = Holding::start(dir.path(), &["lock", "f"]);
    run(dir.path(), ["lock", "-s", "-n", "f", "echo", "x"]).expect(75, "");
    alone.end();
}

#[test]
fn an_exclusive_lock_makes_no_other_file_that_stays() {
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
fn a_job_never_runs_without_what_it_was_started_with() {
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
        // The job has our end of its input still, and its own copy of what is held.
        let input = holding.0.stdin.take();
        holding.0.wait().unwrap();
        let ran = run(dir.path(), try_it).expect(75, "");
        ran.says("cat"); // and that it holds on is told
        drop(input);
        crate::support::eventually("it is free when the job has ended", || {
            run(dir.path(), try_it).code == Some(0)
        });
    }
    // With -o it is the command's own risk.
    let mut holding = Holding::start(dir.path(), &["lock", "-o", "f"]);
    run(dir.path(), ["lock", "-n", "f", "true"]).expect(75, "");
    holding.0.kill().unwrap();
    let _input = holding.0.stdin.take();
    holding.0.wait().unwrap();
    run(dir.path(), ["lock", "-n", "f", "true"]).expect(0, "");
}

#[test]
fn what_a_job_leaves_running_holds_on() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (verb, name) in [("lock", "f"), ("sem", "s")] {
        // Not inherited but opened: with our pipes, `run` would wait for the one that is left.
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

// --------------------------------------------------------------------------------------------- sem

#[test]
fn never_more_than_four_of_sixteen_run_at_once() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    // A witness that does not trust us: who cannot make a directory for itself is one too many.
    let job = "for i in 0 1 2 3; do mkdir w$i 2>/dev/null && { sleep 0.01; rmdir w$i; exit 0; }; done; echo TOO MANY; exit 9";
    let line = format!("seq 100 | xargs -P 16 -n 1 \"$0\" sem -j 4 --id cc -- sh -c '{job}'");
    let mut xargs = Command::new("sh");
    xargs.args(["-c", &line, env!("CARGO_BIN_EXE_flockwork")]);
    xargs.current_dir(dir.path()).env("XDG_RUNTIME_DIR", dir.path());
    let ran = Ran::of(&mut xargs);
    assert_eq!((ran.code, &*ran.out), (Some(0), ""), "{ran:?}");
    assert!(dir.path().join("flockwork/cc/capacity").exists(), "kept in the runtime directory");
}

#[test]
fn each_job_knows_its_slot() {
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
    // With neither a number nor a semaphore it is a mutex.
    let held = Holding::start(dir.path(), &["sem", "--id", "mutex"]);
    run(dir.path(), ["sem", "--id", "mutex", "-n", "true"]).expect(75, "");
    held.end();
}

#[test]
fn another_number_is_refused_until_it_is_changed_for_all() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), ["sem", "-j", "2", "s", "true"]).expect(0, "");
    run(dir.path(), ["sem", "-j", "3", "s", "true"]).expect(64, "").says("-j 2");
    run(dir.path(), ["sem", "-k", "3", "s", "true"]).expect(64, "").says("1 to 2");
    run(dir.path(), ["sem", "-j", "3", "--resize", "s"]).expect(0, "");
    run(dir.path(), ["sem", "-j", "3", "-k", "3", "s", "echo", "x"]).expect(0, "x\n");
    run(dir.path(), ["sem", "-j", "1", "--resize", "s", "echo", "x"]).expect(0, "x\n");
    for (count, ok) in [("100%", true), ("+1", true), ("-1", true), ("0", false), ("x", false)] {
        let name = format!("s{count}");
        let ran = run(dir.path(), ["sem", "-j", count, &name, "true"]);
        assert_eq!(ran.code, Some(if ok { 0 } else { 64 }), "{ran:?}");
    }
}

#[test]
fn jobs_in_the_background_are_waited_for() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir, ["sem", "--id", "never", "--wait"]).expect(0, "");
    for job in 0..4 {
        // Returns when it runs, and that is when one of two permits could be had.
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
    // What cannot be run is told to who started it.
    run(dir, ["sem", "--bg", "--id", "bg", "./nothing"]).expect(69, "").says("`./nothing`");
    let ran = run(dir, ["sem", "--bg", "-n", "--id", "bg", "sh", "-c", "exit 5"]).expect(0, "");
    assert_eq!(ran.err, "");
    run(dir, ["sem", "--id", "bg", "--wait"]).expect(0, "");
}

#[test]
fn a_job_whose_starter_was_killed_while_it_waited_is_not_run() {
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
    crate::support::eventually("who stays has left", || {
        crate::support::blocked(&dir.path().join("s/slot.0")) == 0
    });
    holding.end();
    run(dir.path(), ["sem", "s", "true"]).expect(0, "");
    assert!(!dir.path().join("ran").exists());
}

#[test]
fn what_is_made_larger_meanwhile_is_waited_for_as_well() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let one = Holding::start(dir.path(), &["sem", "-j", "1", "s"]);
    let mut waiting = flockwork(dir.path()).args(["sem", "--wait", "s"]).start();
    crate::support::until_blocked(&dir.path().join("s/slot.0"), 1);
    let more = flockwork(dir.path()).args(["sem", "-j", "3", "--resize", "s"]).status().unwrap();
    assert!(more.success());
    // Whoever has one of the new ones by now has queued before it or after it. That one has not.
    one.end();
    assert!(waiting.wait().unwrap().success());
    run(dir.path(), ["sem", "-k", "3", "s", "true"]).expect(0, "");
}

// ------------------------------------------------------------------------------------------- event

#[test]
fn an_event_is_set_seen_and_cleared() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir, ["event", "status", "e"]).expect(1, "cleared\n");
    run(dir, ["event", "wait", "-n", "e"]).expect(75, "").says("`");
    run(dir, ["event", "wait", "-w", "0.1", "e"]).expect(75, "").says("was not set");
    run(dir, ["event", "set", "e"]).expect(0, "");
    run(dir, ["event", "status", "e"]).expect(0, "set\n");
    run(dir, ["event", "wait", "e"]).expect(0, "");
    run(dir, ["event", "wait", "--cleared", "-n", "e"]).expect(75, "");
    run(dir, ["event", "clear", "e"]).expect(0, "");
    run(dir, ["event", "clear", "e"]).expect(0, "");
    run(dir, ["event", "wait", "--cleared", "e"]).expect(0, "");
    assert!(!dir.join("e").exists());
}

#[test]
fn only_setting_an_event_creates_its_directory() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (words, code) in [
        (&["wait", "-n"][..], 75),
        (&["wait", "-w", "0.05"], 75),
        (&["wait", "--consume", "-w", "0.05"], 75),
        (&["wait", "--cleared"], 0),
        (&["status"], 1),
        (&["clear"], 0),
    ] {
        let ran = run(dir, ["event"].iter().chain(words).chain(&["out/er/ready"]));
        assert_eq!(ran.code, Some(code), "{words:?}: {ran:?}");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "{words:?}");
    }
    run(dir, ["event", "set", "out/er/ready"]).expect(0, "");
    assert!(dir.join("out/er/ready").exists());
}

#[test]
fn a_payload_goes_through_as_it_is() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for data in ["hello", "", "a\nb\n", "-x", "--data", "ä"] {
        run(dir, ["event", "set", "e", "--data", data]).expect(0, "");
        assert_eq!(std::fs::read_to_string(dir.join("e")).unwrap(), data);
        run(dir, ["event", "wait", "--consume", "e"]).expect(0, data);
        run(dir, ["event", "wait", "--consume", "-n", "e"]).expect(75, "");
    }
    // What cannot be written is not lost.
    run(dir, ["event", "set", "e", "--data", "kept"]).expect(0, "");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut consume = flockwork(dir);
    let consume =
        consume.args(["event", "wait", "--consume", "e"]).stdout(full).stderr(Stdio::piped());
    let output = consume.start().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(71), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the event is set again"));
    run(dir, ["event", "wait", "--consume", "e"]).expect(0, "kept");
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    std::fs::write(dir.join("input"), &bytes).unwrap();
    let mut set = flockwork(dir);
    set.args(["event", "set", "e", "--data", "-"]);
    set.stdin(std::fs::File::open(dir.join("input")).unwrap());
    Ran::of(&mut set).expect(0, "");
    let output = flockwork(dir).args(["event", "wait", "--consume", "e"]).output().unwrap();
    assert!(output.stdout == bytes);
}

#[test]
fn one_who_waits_is_woken() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for (wait, act) in [
        (&["wait", "e"][..], &["set", "e", "--data", "x"][..]),
        (&["wait", "--cleared", "e"], &["clear", "e"]),
        (&["wait", "--consume", "e"], &["set", "e", "--data", "x"]),
        (&["wait", "--any", "d", "e"], &["set", "e"]),
        (&["wait", "--cleared", "--any", "f", "e"], &["clear", "e"]),
        (&["wait", "--all", "f", "e"], &["set", "e"]),
        (&["wait", "--cleared", "--all", "d", "e"], &["clear", "e"]),
    ] {
        std::fs::write(dir.path().join("f"), "").unwrap();
        let mut waiter = flockwork(dir.path());
        let waiter = waiter.arg("event").args(wait).stdout(Stdio::piped()).start();
        crate::support::until_watching(waiter.id(), dir.path());
        run(dir.path(), ["event"].iter().chain(act)).expect(0, "");
        let output = waiter.wait_with_output().unwrap();
        assert!(output.status.success(), "{wait:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let wanted = match wait[1] {
            "--consume" => "x",
            "--any" => "e\n",
            "--cleared" if wait[2] == "--any" => "e\n",
            _ => "",
        };
        assert_eq!(said, wanted, "{wait:?}");
    }
}

// -------------------------------------------------------------------------------------------- once

/// Each is refused each time, as by a file system or an old container runtime that does not know it.
#[test]
fn what_cannot_be_synced_is_done_and_said_in_one_line() {
    limit!();
    if !crate::support::has("strace", &["-V"]) {
        return;
    }
    for errno in ["EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"] {
        let dir = tempfile::tempdir().unwrap();
        let traced = |words: &[&str]| {
            let calls = "renameat2,fsync,fdatasync,syncfs,faccessat2,fchmod";
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
            command.args(["-e", &format!("inject={calls}:error={errno}")]);
            command.arg(env!("CARGO_BIN_EXE_flockwork")).args(words).current_dir(dir.path());
            Ran::of(command.stdin(Stdio::null()))
        };
        let ran = traced(&["once", "--fsync", "o", "true"]).expect(0, "");
        ran.says("files cannot be synced here");
        traced(&["once", "--fsync", "--reset", "o"]).expect(0, "").says("cannot be synced here");
        assert_eq!(traced(&["once", "o", "true"]).expect(0, "").err, "");
        for data in ["one", "two"] {
            assert_eq!(traced(&["event", "set", "e", "--data", data]).expect(0, "").err, "");
        }
        assert_eq!(traced(&["event", "wait", "--consume", "e"]).expect(0, "two").err, "");
    }
}

#[test]
fn of_all_who_come_one_runs_it() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let mut one = flockwork(dir.path());
        one.args(["once", "o", "sh", "-c", "echo ran >> ran"]).start()
    };
    let all: Vec<_> = (0..20).map(|_| start()).collect();
    for mut one in all {
        assert!(one.wait().unwrap().success());
    }
    let ran = || std::fs::read_to_string(dir.path().join("ran")).unwrap().lines().count();
    assert_eq!(ran(), 1);
    run(dir.path(), ["once", "--reset", "o"]).expect(0, "");
    run(dir.path(), ["once", "o", "sh", "-c", "exit 3"]).expect(3, "");
    assert!(!dir.path().join("o").exists());
    run(dir.path(), ["once", "--fsync", "o", "sh", "-c", "echo ran >> ran"]).expect(0, "");
    run(dir.path(), ["once", "o", "false"]).expect(0, "");
    assert_eq!(ran(), 2);
    run(dir.path(), ["once", "--reset", "o", "x"]).expect(64, "");
    run(dir.path(), ["once", "x", "./nothing"]).expect(69, "").says("./nothing");
    assert!(!dir.path().join("x").exists());
}
