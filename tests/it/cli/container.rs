//! `flockwork` as the first process of a pid namespace. The kernel discards unhandled signals to
//! it. flockwork handles them, so they end it during any wait.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::command::Holding;
use crate::support::running::{Running, Start as _};
use crate::support::{eventually, has};

const UNSHARE: [&str; 4] = ["--fork", "--pid", "--mount-proc", "--kill-child"];
const FLOCKWORK: &str = env!("CARGO_BIN_EXE_flockwork");

fn can_unshare() -> bool {
    has("unshare", &[&UNSHARE[..], &["true"]].concat())
}

/// The pid of the first process of the namespace, as soon as it handles signals.
fn first_process(unshare: &Running) -> Pid {
    let outer = unshare.id();
    let mut first = None;
    eventually("the first process handles TERM", || {
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
        first =
            children.unwrap_or_default().split_whitespace().next().map(|pid| pid.parse().unwrap());
        let Some(pid) = first else { return false };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let handles = |line: &str| {
            let mask = line.strip_prefix("SigBlk:").or_else(|| line.strip_prefix("SigCgt:"));
            mask.is_some_and(|mask| {
                u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1))
                    != 0
            })
        };
        status.starts_with("Name:\tflock") && status.lines().any(handles)
    });
    Pid::from_raw(first.unwrap()).unwrap()
}

fn start(dir: &Path, program: &Path, words: &[&str]) -> Running {
    // Tests that run in the background of a script inherit ignored signals.
    let mut command = Command::new("env");
    command.args(["--default-signal", "unshare"]).args(UNSHARE).arg(program).args(words);
    command
        .current_dir(dir)
        .env("FLOCKWORK_ID_DIR", dir.join("id"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.stderr(Stdio::null()).start()
}

#[test]
fn signals_end_the_first_process_of_a_container() {
    limit!();
    if !can_unshare() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let flockwork = Path::new(FLOCKWORK);
    let flock = dir.join("flock");
    std::os::unix::fs::symlink(flockwork, &flock).unwrap();
    std::fs::write(dir.join("set"), "").unwrap();
    let holdings = [&["lock", "f"][..], &["lock", "o.flock"], &["sem", "s"]];
    let holdings = holdings.map(|words| Holding::start(dir, words));
    for (program, words) in [
        (flockwork, &["event", "wait", "unset"][..]),
        (flockwork, &["event", "wait", "-v", "-w", "1000", "unset"]),
        (flockwork, &["event", "wait", "--consume", "unset"]),
        (flockwork, &["event", "wait", "--cleared", "set"]),
        (flockwork, &["event", "wait", "--cleared", "--any", "set", "set"]),
        (flockwork, &["lock", "f", "true"]),
        (flockwork, &["lock", "-s", "f", "true"]),
        (flockwork, &["sem", "s", "true"]),
        (flockwork, &["sem", "--wait", "s"]),
        (flockwork, &["once", "o", "true"]),
        (flockwork, &["once", "--reset", "o"]),
        (flockwork, &["status", "--watch", "f"]),
        (&flock, &["f", "true"]),
        (&flock, &["-w", "1000", "f", "true"]),
        (&flock, &["-F", "f", "true"]),
    ] {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let mut unshare = start(dir, program, words);
            kill_process(first_process(&unshare), signal).unwrap();
            eventually(&format!("{words:?} has ended"), || unshare.try_wait().unwrap().is_some());
            assert_eq!(unshare.wait().unwrap().code(), Some(code), "{words:?}");
        }
    }
    holdings.into_iter().for_each(Holding::end);
}

#[test]
fn a_signal_reaches_the_job_of_the_first_process() {
    limit!();
    if !can_unshare() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let flockwork = Path::new(FLOCKWORK);
    let job = "trap 'exit 7' TERM; echo > up; while :; do sleep 0.01; done";
    for verb in ["lock", "sem", "once"] {
        let mut unshare = start(dir, flockwork, &[verb, &format!("{verb}-path"), "sh", "-c", job]);
        eventually("the job runs", || dir.join("up").exists());
        std::fs::remove_file(dir.join("up")).unwrap();
        kill_process(first_process(&unshare), Signal::TERM).unwrap();
        eventually("the container has ended", || unshare.try_wait().unwrap().is_some());
        assert_eq!(unshare.wait().unwrap().code(), Some(7), "{verb}");
    }
}
