//! Runs the command while one of its system calls fails.

use std::path::Path;
use std::process::Command;

use super::attempt::{Calls, Outcome, locks_below};
use super::{CALLS, MOST, Sharing, a_part_of, is_all, listed};
use crate::cli::command::{Ran, flockwork};
use crate::cli::without_progress;

/// Commands that run first, and the command under test.
const RUNS: &[(&[&[&str]], &[&str])] = &[
    (&[], &["lock", "it", "true"]),
    (&[], &["lock", "--shared", "it", "true"]),
    (&[], &["lock", "-w", "20", "it", "true"]),
    (&[], &["sem", "-j", "2", "it", "true"]),
    (&[&["sem", "-j", "2", "it", "true"]], &["sem", "it", "true"]),
    (&[], &["event", "set", "it", "--data", "payload"]),
    (&[&["event", "set", "it"]], &["event", "clear", "it"]),
    (&[&["event", "set", "it"]], &["event", "status", "it"]),
    (&[&["event", "set", "it", "--data", "x"]], &["event", "wait", "-w", "20", "it"]),
    (&[&["event", "set", "it", "--data", "x"]], &["event", "wait", "--consume", "it"]),
    (&[], &["event", "wait", "-w", "0.05", "it"]),
    (&[], &["once", "it", "true"]),
    (&[&["once", "it", "true"]], &["once", "--reset", "it"]),
    (&[&["lock", "it", "true"], &["sem", "pool", "true"]], &["status", "it", "pool"]),
];

/// The exit codes that README.md documents: that of the job (here `true`), and those of the
/// command.
const CODES: [i32; 8] = [0, 64, 65, 66, 69, 71, 73, 75];

struct Run {
    ran: Ran,
    log: String,
}

fn run(before: &[&[&str]], words: &[&str], strace: &[&str]) -> (tempfile::TempDir, Run) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    std::fs::create_dir(&dir).unwrap();
    for words in before {
        assert_eq!(Ran::of(flockwork(&dir).args(*words)).code, Some(0));
    }
    let log = temp.path().join("log");
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", "strace", "-o"]).arg(&log).args(strace);
    command.args(["-e", "signal=none", "env", "--default-signal"]);
    command.arg(env!("CARGO_BIN_EXE_flockwork")).args(words);
    let ran = Ran::of(command.current_dir(&dir).stdin(std::process::Stdio::null()));
    let log = std::fs::read_to_string(log).unwrap_or_default();
    (temp, Run { ran, log })
}

/// Counts the system calls before the program itself begins and after that, in the first thread and
/// in all others.
fn counted(log: &str) -> (Calls, Calls) {
    use std::collections::BTreeMap;
    let first = log.split_whitespace().next().unwrap_or_default();
    let mut own: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut others: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    // `env`, the loader and std's startup run first.
    let mut began = false;
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if call.contains(' ') || call.starts_with('<') {
            continue;
        }
        if thread != first {
            others.entry(call).or_default().1 += 1;
        } else if call == "sigaltstack" {
            began = true;
        } else {
            let count = own.entry(call).or_default();
            if began { count.1 += 1 } else { count.0 += 1 }
        }
    }
    let listed = |counts: BTreeMap<&str, (usize, usize)>| {
        counts.into_iter().map(|(call, (before, within))| (call.into(), before, within)).collect()
    };
    (listed(own), listed(others))
}

/// The number of lines on the standard error, without hints and the progress of a slow machine.
fn lines_of(ran: &Ran) -> usize {
    without_progress(&ran.err).filter(|line| !line.starts_with("hint: ")).count()
}

/// Returns everything that is wrong with a run.
fn judge(plain: &Ran, Run { ran: tried, log }: &Run, dir: &Path, words: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    let code = tried.code.unwrap_or(-1);
    let is_as_plain = tried.code == plain.code;
    if !is_as_plain && !CODES.contains(&code) {
        problems.push(format!("exit code {code}"));
    }
    let lines = lines_of(tried);
    let expected = if code == 0 { 0 } else { lines_of(plain).max(1) };
    // The system call that failed may have been the one that writes these lines.
    let has_line_failed = log.lines().any(|line| {
        line.trim_start_matches(|it: char| it.is_ascii_digit() || it == ' ').starts_with("write(2")
            && line.contains("(INJECTED)")
    });
    if lines != expected && !has_line_failed && !(is_as_plain && lines == lines_of(plain)) {
        problems.push(format!("{lines} lines on standard error"));
    }
    if lines > 0 && !tried.err.starts_with("flockwork: ") || tried.err.contains("panicked") {
        problems.push("the line does not begin with the command's name".into());
    }
    if code == 0 && tried.out != plain.out {
        problems.push(format!("the output is {:?}, not {:?}", tried.out, plain.out));
    }
    if let Err(problem) = locks_below(dir) {
        problems.push(format!("after the command, {problem}"));
    }
    // The same command runs again.
    let event_is_needed = words.first() == Some(&"event") && !words.contains(&"set");
    if event_is_needed && plain.code == Some(0) {
        Ran::of(flockwork(dir).args(["event", "set", "it"]));
    }
    let next = Ran::of(flockwork(dir).args(words));
    if next.code != plain.code {
        problems.push(format!("the next call: {next:?}"));
    }
    problems
}

#[test]
fn each_failed_call_of_the_command_is_one_line_and_a_code() {
    limit!(4 * crate::limit::LIMIT); // it starts hundreds of processes
    if !crate::support::has("strace", &["-V"]) {
        return;
    }
    let only = std::env::var("FLOCKWORK_FAULTS_OF").unwrap_or_default();
    let runs: Vec<_> = RUNS.iter().enumerate().collect();
    let sharing = Sharing::new(runs.into_iter().filter(|(_, it)| it.1.join(" ").contains(&only)));
    sharing.run(|(place, (before, words))| {
        let name = format!("`flockwork {}`", words.join(" "));
        let trace = format!("trace={},sigaltstack", listed());
        let (_, plain) = run(before, words, &["-f", "-e", &trace]);
        let (own, others) = counted(&plain.log);
        let mut faults = Vec::new();
        for (call, errors) in CALLS {
            let of_call = |(made, _, _): &&(String, usize, usize)| made == call;
            let (mut begin, mut times, mut follows) = (1, 0, false);
            if let Some((_, earlier, within)) = own.iter().find(of_call) {
                (begin, times) = (earlier + 1, *within);
            } else if let Some((_, _, within)) = others.iter().find(of_call) {
                // Only other threads make this call. The job, which is another program, makes none
                // of these.
                let is_helpers = call.starts_with("inotify") || call.starts_with('e');
                (times, follows) = (if is_helpers { *within } else { 0 }, true);
            }
            for when in begin..begin + times.min(MOST) {
                for error in *errors {
                    faults.push((*call, when, follows, *error));
                }
            }
        }
        if !is_all() {
            faults = a_part_of(&name, &faults, |(call, when, _, _)| (*call, *when));
        }
        for (call, when, follows, error) in faults {
            let inject = format!("inject={call}:error={error}:when={when}");
            let trace = format!("trace={call}");
            let mut strace = vec!["-e", &trace, "-e", &inject];
            if follows {
                strace.push("-f");
            }
            let (temp, tried) = run(before, words, &strace);
            if !tried.log.contains("(INJECTED)") {
                continue;
            }
            let problems = judge(&plain.ran, &tried, &temp.path().join("d"), words);
            let outcome = match &tried.ran {
                ran if ran.code == plain.ran.code => Outcome::Ok(String::new()),
                ran => Outcome::Err { kind: String::new(), number: ran.code, text: String::new() },
            };
            sharing.note(*place, &name, call, &outcome, &problems, || {
                format!("{inject}: {:?}\n{}", tried.ran, tried.log)
            });
        }
    });
    sharing.end("command");
}
