//! The command `flockwork` on all systems. No test needs a shell: the job is this test binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::without_progress;
use crate::peer::Peer;
use crate::peer::line::Words as _;
use crate::support::eventually;
use crate::support::running::Start as _;

fn flockwork(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flockwork"));
    command.current_dir(dir).args(words).stdin(Stdio::null());
    command.env("FLOCKWORK_ID_DIR", dir.join("flockwork"));
    command
}

#[track_caller]
fn expect(dir: &Path, words: &[&str], code: i32, out: &str) -> String {
    let output = flockwork(dir, words).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), &*stdout), (Some(code), out), "{words:?}: {err}");
    let lines = without_progress(&err).filter(|line| !line.starts_with("hint: ")).count();
    assert_eq!(lines, usize::from(code != 0), "{words:?}: {err}");
    err
}

/// A job that holds another lock, at `own`.
fn job(dir: &Path, words: &[&str], own: &str) -> Peer {
    let mut command = flockwork(dir, words);
    command.arg(std::env::current_exe().unwrap());
    let mut job = Peer::start_as(command);
    job.open_lock(&dir.join(own), &[]);
    job.lock();
    job
}

#[test]
fn a_job_runs_while_its_lock_is_held() {
    limit!();
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
    limit!();
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
        drop(peer); // ends its input
    }
    eventually("both are free", || own.try_lock().is_ok() && held.try_lock().is_ok());
}

#[test]
fn events_and_once_return_documented_codes() {
    limit!();
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
fn status_shows_what_is_held() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    expect(dir, &["status", "f"], 0, "f: does not exist\n");
    let peer = job(dir, &["lock", "--label", "nightly", "f"], "own");
    let output = flockwork(dir, &["status", "--json", "f", "own"]).output().unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&seen[0]["held"], &seen[1]["held"]), (&true.into(), &true.into()), "{seen}");
    assert_eq!(seen[0]["holders"][0]["label"], "nightly");
    assert_eq!(seen[0]["holders"][0]["pid"], peer.id());
    drop(peer);
    expect(dir, &["status", "f"], 0, "f: free\n");
    let peer = job(dir, &["sem", "-j", "3", "-k", "2", "s"], "own");
    let output = flockwork(dir, &["status", "s"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("s: 2 of 3 permits held ["), "{text}");
    drop(peer);
}

// ---------------------------------------------------------------------- a job that ends on its own

sendable! {
    /// A task of this binary when [`short`] starts it as a job.
    enum Task {
        Exit(code: i32),
        // Prints each argument after `--` on a line with a prefix.
        PrintArguments,
        Append(log: PathBuf),
        // Fails if all these locks are held.
        LockOneOf(locks: u32, path: PathBuf),
    }
}

/// The variable with the task of the job.
const JOB: &str = "FLOCKWORK_IT_JOB";

/// The entry point of the job. It does nothing as a test.
#[test]
fn short_job() {
    limit!();
    let Ok(task) = std::env::var(JOB) else { return };
    let code = match Task::from_line(&task) {
        Task::Exit(code) => code,
        Task::PrintArguments => {
            for argument in std::env::args().skip_while(|argument| argument != "--").skip(1) {
                println!("\njob: {argument:?}");
            }
            0
        }
        Task::Append(log) => {
            let mut log = std::fs::File::options().append(true).create(true).open(log).unwrap();
            std::io::Write::write_all(&mut log, b"done\n").unwrap();
            0
        }
        Task::LockOneOf(locks, path) => {
            let lock = |n: u32| flockwork::Lock::open(path.with_extension(n.to_string())).unwrap();
            let held = (0..locks).find_map(|n| lock(n).try_lock().ok());
            std::thread::sleep(std::time::Duration::from_millis(20));
            if held.is_some() { 0 } else { 9 }
        }
    };
    std::process::exit(code);
}

/// `words` are those before the command.
fn short(dir: &Path, words: &[&str], task: &Task) -> Command {
    let mut command = flockwork(dir, words);
    command.arg(std::env::current_exe().unwrap()).env(JOB, task.to_line());
    command.args(["cli::everywhere::short_job", "--exact", "--nocapture", "-q"]);
    command
}

#[track_caller]
fn code_of(mut command: Command) -> i32 {
    command.output().unwrap().status.code().unwrap()
}

#[test]
fn the_jobs_exit_code_is_returned_and_its_arguments_are_kept() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for code in [0, 1, 3, 75, 255] {
        for verb in [&["lock", "f"][..], &["sem", "s", "--"], &["once", "never"]] {
            if verb[0] == "once" && code == 0 {
                continue;
            }
            assert_eq!(code_of(short(dir, verb, &Task::Exit(code))), code, "{verb:?}");
        }
    }
    if cfg!(windows) {
        // Programs that crash on Windows have such codes.
        for code in [256, 0x00C0_FFEE, -1_073_741_819] {
            assert_eq!(code_of(short(dir, &["lock", "f"], &Task::Exit(code))), code);
        }
    }
    let words = [
        "a b",
        "*",
        "%PATH%",
        "$HOME",
        "-n",
        "\\",
        "c:\\d\\",
        "\"",
        "'",
        "a\"b\\\" c",
        "ä漢",
        "^&|<>",
    ];
    for verb in [&["lock", "f", "--"][..], &["sem", "s", "--"], &["once", "o"]] {
        let output =
            short(dir, verb, &Task::PrintArguments).arg("--").args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let seen: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("job: ")).collect();
        let wanted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
        assert_eq!(seen, wanted, "{verb:?}");
    }
}

/// `input` tests more command lines, with files that only Unix has.
#[test]
fn an_invalid_command_line_is_one_error() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("directory")).unwrap();
    std::fs::write(dir.join("directory/theirs"), "").unwrap();
    std::fs::write(dir.join("file"), "").unwrap();
    let long = "x".repeat(300);
    // A command that does not exist is reported first if PATH does not exist either.
    let program = env!("CARGO_BIN_EXE_flockwork");
    for (words, code, expected) in [
        (&[][..], 64, "no verb"),
        (&["bogus"], 64, "bogus"),
        (&["lokc", "f", "x"], 64, "lock"),
        (&["--bogus"], 64, "--bogus"),
        (&["lock"], 64, "PATH and COMMAND are missing"),
        (&["lock", "f"], 64, "COMMAND is missing"),
        (&["lock", "", "x"], 64, "empty"),
        (&["lock", "f", ""], 69, "empty"),
        (&["lock", "f", "-c"], 64, "-c"),
        (&["lock", "-s", "-x", "f", "x"], 64, "--exclusive"),
        (&["lock", "-w", "-1", "f", "x"], 64, "negative"),
        (&["lock", "-w", "x", "f", "x"], 64, "seconds"),
        (&["lock", "-w", "1e300", "f", "x"], 64, "seconds"),
        (&["lock", "-n", "-w", "1", "f", "x"], 64, "--timeout"),
        (&["lock", "-E", "256", "f", "x"], 64, "256"),
        (&["lock", "directory", "x"], 66, "is a directory"),
        (&["lock", "file/f", program], 66, "file"),
        (&["lock", &long, program], if cfg!(windows) { 64 } else { 66 }, "shorter"),
        (&["lock", "f", "nothing-of-this-name"], 69, "PATH"),
        (&["lock", "f", "directory/nothing"], 69, "could not run"),
        (&["lock", "f", "--", "-n"], 69, "could not run"),
        (&["sem"], 64, "PATH or --id NAME is missing"),
        (&["sem", "s"], 64, "COMMAND is missing"),
        (&["sem", "--id", ""], 64, "empty"),
        (&["sem", "-j", "0", "s", "x"], 64, "at least 1"),
        (&["sem", "-j", "99999", "s", program], 64, "4096"),
        (&["sem", "-k", "0", "s", "x"], 64, "0"),
        (&["sem", "-j", "2", "-k", "3", "s", program], 64, "must be 1 to 2"),
        (&["sem", "file", "x"], 66, "directory"),
        (&["sem", "directory", "x"], 66, "other files"),
        (&["event"], 64, ""),
        (&["event", "set", ""], 64, "PATH"),
        (&["event", "wait"], 64, ""),
        (&["event", "set", "directory"], 66, "is a directory"),
        (&["event", "wait", "--consume", "a", "b"], 64, "one PATH"),
        (&["event", "wait", "--any", "--all", "a"], 64, "--all"),
        (&["once"], 64, "PATH and COMMAND are missing"),
        (&["once", "directory", "x"], 66, "is a directory"),
        (
            &["status", "directory"],
            66,
            "is a directory, not a lock file, an event, a semaphore or a barrier",
        ),
        (&["completions", "nosuchshell"], 64, "nosuchshell"),
    ] {
        let stderr = expect(dir, words, code, "");
        let is_expected = stderr.starts_with("flockwork: ") && stderr.contains(expected);
        assert!(is_expected, "{words:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("Error {"), "{words:?}: {stderr}");
    }
    if cfg!(windows) {
        for (name, expected) in
            [("nul", "device"), ("f.", "names `f` on Windows"), ("file:g", "stream")]
        {
            for verb in [&["lock", name, "x"][..], &["sem", name, "x"], &["event", "set", name]] {
                let stderr = expect(dir, verb, 64, "");
                assert!(stderr.contains(expected), "{verb:?}: {stderr}");
            }
        }
    }
}

#[test]
fn a_failed_acquisition_names_the_holder_and_sets_the_code() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let holding = job(dir, &["lock", "--label", "nightly backup", "f"], "own");
    for words in [&["lock", "-n", "f", "x"][..], &["lock", "-w", "0", "f", "x"]] {
        let stderr = expect(dir, words, 75, "");
        assert!(stderr.contains("nightly backup"), "{stderr}");
        assert!(stderr.contains(&format!("process {} ", holding.id())), "{stderr}");
    }
    for code in [1, 9] {
        expect(dir, &["lock", "-n", "-E", &code.to_string(), "f", "x"], code, "");
    }
    // `-q` prints nothing.
    assert_eq!(code_of(flockwork(dir, &["lock", "-n", "-E", "0", "f", "x"])), 0);
    let quiet = flockwork(dir, &["lock", "-nq", "f", "x"]).output().unwrap();
    assert_eq!((quiet.status.code(), &*quiet.stderr), (Some(75), &b""[..]));
    // A waiter prints its progress.
    let mut waiting = short(dir, &["lock", "f"], &Task::Exit(5));
    let mut waiting = waiting.stderr(Stdio::piped()).stdout(Stdio::null()).start();
    let mut stderr = std::io::BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    assert!(line.starts_with("flockwork: waiting for f 0:"), "{line}");
    assert!(line.contains("nightly backup"), "{line}");
    drop(holding);
    assert_eq!(waiting.wait().unwrap().code(), Some(5));
}

#[test]
fn no_more_jobs_than_permits_run_at_once() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let witness = dir.join("witness");
    for (permits, jobs) in [(1, 4), (3, 12)] {
        let words = ["sem", "-j", &permits.to_string(), &format!("s{permits}")];
        let task = Task::LockOneOf(permits, witness.clone());
        let run = || short(dir, &words, &task).stdout(Stdio::null()).start();
        let jobs: Vec<_> = (0..jobs).map(|_| run()).collect();
        for mut job in jobs {
            assert_eq!(job.wait().unwrap().code(), Some(0), "of {permits}");
        }
    }
}

#[test]
fn one_of_many_once_commands_runs_its_job() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let task = Task::Append(dir.join("log"));
    for times in 1..=2 {
        let run = || short(dir, &["once", "o"], &task).stdout(Stdio::null()).start();
        let jobs: Vec<_> = (0..5).map(|_| run()).collect();
        for mut job in jobs {
            assert!(job.wait().unwrap().success());
        }
        let log = std::fs::read_to_string(dir.join("log")).unwrap();
        assert_eq!(log.lines().count(), times);
        expect(dir, &["once", "--reset", "o"], 0, "");
    }
    assert_eq!(code_of(short(dir, &["once", "o"], &Task::Exit(4))), 4);
    assert!(!dir.join("o").exists(), "a failed job counts as done");
}

#[test]
fn events_wake_waiters_and_each_payload_is_consumed_once() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let start = |words: &[&str]| flockwork(dir, words).stdout(Stdio::piped()).start();
    let printed = |child: crate::support::running::Running| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let any = start(&["event", "wait", "--any", "a", "ä 漢"]);
    let all = start(&["event", "wait", "--all", "b", "ä 漢"]);
    expect(dir, &["event", "set", "ä 漢"], 0, "");
    assert_eq!(printed(any), "ä 漢\n");
    expect(dir, &["event", "set", "b"], 0, "");
    assert_eq!(printed(all), "");
    let cleared = start(&["event", "wait", "--cleared", "b"]);
    expect(dir, &["event", "clear", "b"], 0, "");
    printed(cleared);
    let consumers: Vec<_> = (0..3).map(|_| start(&["event", "wait", "--consume", "c"])).collect();
    for number in 0..3 {
        expect(dir, &["event", "set", "c", "--data", &format!("{number};")], 0, "");
        expect(dir, &["event", "wait", "--cleared", "c"], 0, "");
    }
    let mut all: Vec<_> = consumers.into_iter().map(printed).collect();
    all.sort();
    assert_eq!(all, ["0;", "1;", "2;"]);
    expect(dir, &["event", "wait", "-w", "0.01", "c"], 75, "");
}

#[test]
fn names_and_labels_may_be_any_text() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let peer = job(dir, &["lock", "--label", "nächtlich 漢", "ein weg/ä 漢.lock"], "own");
    let stderr = expect(dir, &["lock", "-n", "ein weg/ä 漢.lock", "x"], 75, "");
    assert!(stderr.contains("nächtlich 漢"), "{stderr}");
    let output = flockwork(dir, &["status", "--json", "ein weg/ä 漢.lock"]).output().unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen[0]["path"], "ein weg/ä 漢.lock");
    assert_eq!(seen[0]["holders"][0]["label"], "nächtlich 漢");
    drop(peer);
    // Each of these names is invalid as a file name on some system.
    let ids = ["con", "a.", "a", "A", "x/y:z", "*", "nul.txt", " "];
    let peers: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(number, id)| job(dir, &["sem", "--id", id, "--"], &format!("own{number}")))
        .collect();
    for id in ids {
        expect(dir, &["sem", "-n", "--id", id, "--", "x"], 75, "");
        let output = flockwork(dir, &["status", "--json", "--id", id]).output().unwrap();
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&seen[0]["permits"], &seen[0]["available"]), (&1.into(), &0.into()), "{id}");
    }
    drop(peers);
}

#[test]
fn a_closed_pipe_ends_commands_that_print() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut watching = flockwork(dir, &["status", "--watch", "--json", "f"]);
    let mut watching = watching.stdout(Stdio::piped()).stderr(Stdio::piped()).start();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(watching.stdout.take().unwrap()));
    assert!(lines.next().unwrap().unwrap().contains("\"missing\""));
    let peer = job(dir, &["lock", "f"], "own");
    let held = lines.find(|line| line.as_ref().unwrap().contains("\"held\":true"));
    assert!(held.unwrap().unwrap().contains(&peer.id().to_string()));
    drop(lines);
    // Windows reports a closed pipe only to a write, and only a change is written.
    let peer = cfg!(unix).then_some(peer);
    let output = watching.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(141), &b""[..]));
    drop(peer);
}
