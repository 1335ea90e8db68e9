//! Every verb that waits, with every option of a wait.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::cli::command::{Holding, flockwork, run};
use crate::cli::without_progress;
use crate::support::running::Start as _;

/// A verb, what it waits for, and what it prints to the standard output after the wait.
struct Verb {
    words: &'static [&'static str],
    /// The job, or the events, after the options.
    rest: &'static [&'static str],
    obstacle: Obstacle,
    out: &'static str,
}

#[derive(Clone, Copy)]
enum Obstacle {
    /// A `flockwork` that holds a lock or permits for its job.
    Holding(&'static [&'static str]),
    /// An event that is cleared.
    Unset(&'static str),
    /// An event that is set.
    Set(&'static str),
    /// A directory that does not exist.
    NoDirectory(&'static str),
}

/// An obstacle that keeps a verb waiting until it is removed.
enum Kept {
    Holding(Holding),
    Event(Obstacle),
}

impl Obstacle {
    fn put(self, dir: &Path) -> Kept {
        match self {
            Self::Holding(words) => return Kept::Holding(Holding::start(dir, words)),
            Self::Unset(event) => {
                let _ = std::fs::remove_file(dir.join(event));
            }
            Self::Set(event) => std::fs::write(dir.join(event), "").unwrap(),
            Self::NoDirectory(path) => {
                let _ = std::fs::remove_dir(dir.join(path));
            }
        }
        Kept::Event(self)
    }
}

impl Kept {
    fn end(self, dir: &Path) {
        match self {
            Self::Holding(holding) => holding.end(),
            Self::Event(Obstacle::Unset(event)) => std::fs::write(dir.join(event), "").unwrap(),
            Self::Event(Obstacle::Set(event)) => std::fs::remove_file(dir.join(event)).unwrap(),
            Self::Event(Obstacle::NoDirectory(path)) => {
                std::fs::create_dir(dir.join(path)).unwrap();
            }
            Self::Event(Obstacle::Holding(_)) => unreachable!(),
        }
    }
}

const fn verb(
    words: &'static [&'static str],
    rest: &'static [&'static str],
    obstacle: Obstacle,
    out: &'static str,
) -> Verb {
    Verb { words, rest, obstacle, out }
}

/// The event `unset` is always cleared, and `set` is always set.
const VERBS: &[Verb] = &[
    verb(&["lock"], &["f", "echo", "ran"], Obstacle::Holding(&["lock", "f"]), "ran\n"),
    verb(&["lock", "-s"], &["f", "echo", "ran"], Obstacle::Holding(&["lock", "-x", "f"]), "ran\n"),
    verb(&["lock", "-x"], &["f", "echo", "ran"], Obstacle::Holding(&["lock", "-s", "f"]), "ran\n"),
    verb(&["sem"], &["s", "echo", "ran"], Obstacle::Holding(&["sem", "-j", "1", "s"]), "ran\n"),
    verb(
        &["sem", "-k", "2"],
        &["s2", "echo", "ran"],
        Obstacle::Holding(&["sem", "-j", "2", "s2"]),
        "ran\n",
    ),
    verb(&["sem", "--wait"], &["s"], Obstacle::Holding(&["sem", "-j", "1", "s"]), ""),
    verb(&["once"], &["o", "echo", "ran"], Obstacle::Holding(&["lock", "o.flock"]), "ran\n"),
    verb(&["once", "--reset"], &["o"], Obstacle::Holding(&["lock", "o.flock"]), ""),
    verb(&["event", "wait"], &["e"], Obstacle::Unset("e"), ""),
    verb(&["event", "wait"], &["set", "e"], Obstacle::Unset("e"), ""),
    verb(&["event", "wait", "--all"], &["e", "set"], Obstacle::Unset("e"), ""),
    verb(&["event", "wait", "--any"], &["unset", "e"], Obstacle::Unset("e"), "e\n"),
    verb(&["event", "wait", "--consume"], &["e"], Obstacle::Unset("e"), ""),
    verb(&["event", "wait", "--cleared"], &["e"], Obstacle::Set("e"), ""),
    verb(&["event", "wait", "--cleared", "--any"], &["e"], Obstacle::Set("e"), "e\n"),
    verb(&["event", "wait", "--cleared", "--all"], &["unset", "e"], Obstacle::Set("e"), ""),
    verb(&["event", "wait", "--cleared", "--any"], &["set", "e"], Obstacle::Set("e"), "e\n"),
    verb(&["event", "wait", "--exists"], &["d"], Obstacle::NoDirectory("d"), ""),
    verb(
        &["event", "wait", "--exists", "--any"],
        &["unset", "d"],
        Obstacle::NoDirectory("d"),
        "d\n",
    ),
];

/// Options, and the result when the wait fails: the exit code, whether the wait lasts for the given
/// time, and the number of lines on the standard error without the hint.
const FAILED_WAITS: &[(&[&str], i32, bool, usize)] = &[
    (&["-n"], 75, false, 1),
    (&["-w", "0"], 75, false, 1),
    (&["-w", "0.05"], 75, true, 1),
    (&["-n", "-q"], 75, false, 0),
    (&["-w", "0.05", "-q"], 75, true, 0),
    (&["-n", "-v"], 75, false, 1),
    (&["-w", "0", "-v"], 75, false, 1),
    (&["-w", "0.05", "-v"], 75, true, 2),
    (&["-n", "-E", "9"], 9, false, 1),
    (&["-w", "0.05", "-E", "9"], 9, true, 1),
    (&["-w", "0.05", "-v", "-E", "9"], 9, true, 2),
    (&["-q", "-n", "-E", "0"], 0, false, 0),
    (&["-n", "-w", "1"], 64, false, 1),
    (&["-v", "-q"], 64, false, 1),
];

fn create_set_event(dir: &Path) {
    std::fs::write(dir.join("set"), "").unwrap();
}

fn line<'a>(verb: &'a Verb, options: &'a [&'a str]) -> Vec<&'a str> {
    [verb.words, options, verb.rest].concat()
}

/// The lines without hints and progress.
fn errors_of(stderr: &str) -> Vec<&str> {
    let lines = without_progress(stderr).filter(|line| !line.starts_with("hint: "));
    lines.map(str::trim_end).collect()
}

#[test]
fn each_option_works_when_the_wait_fails() {
    limit!();
    for verb in VERBS {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        create_set_event(dir);
        let kept = verb.obstacle.put(dir);
        for (options, code, waits, lines) in FAILED_WAITS {
            let words = line(verb, options);
            let start = Instant::now();
            let ran = run(dir, &words).expect(*code, "");
            let took = start.elapsed();
            assert!(!waits || took >= Duration::from_millis(50), "{words:?}: {took:?}");
            let stderr = errors_of(&ran.err);
            assert_eq!(stderr.len(), *lines, "{words:?}: {ran:?}");
            let first = stderr.first().copied().unwrap_or_default();
            assert_eq!(first.ends_with("; waiting"), *lines == 2, "{words:?}: {ran:?}");
            let at_once = !waits && *code != 64 && *lines == 1;
            let is_advised = ran.err.contains("omit -n, or use -w SECS");
            assert_eq!(is_advised, at_once, "{words:?}: {ran:?}");
        }
        kept.end(dir);
    }
}

#[test]
fn each_option_works_when_the_wait_succeeds() {
    limit!();
    for verb in VERBS {
        for (options, lines) in [
            (&[][..], 0),
            (&["-q"][..], 0),
            (&["-w", "1000"], 0),
            (&["-w", "1000", "-q"], 0),
            (&["-E", "9"], 0),
            (&["-v"], 2),
            (&["-v", "-w", "1000"], 2),
            (&["-v", "-E", "9"], 2),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            create_set_event(dir);
            let kept = verb.obstacle.put(dir);
            let words = line(verb, options);
            let mut waiting = flockwork(dir);
            waiting.args(&words).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut waiting = waiting.start();
            let mut err = BufReader::new(waiting.stderr.take().unwrap());
            let mut stderr = String::new();
            if lines > 0 {
                err.read_line(&mut stderr).unwrap();
                assert!(stderr.ends_with("; waiting\n"), "{words:?}: {stderr}");
            }
            kept.end(dir);
            err.read_to_string(&mut stderr).unwrap();
            let output = waiting.wait_with_output().unwrap();
            let out = String::from_utf8_lossy(&output.stdout);
            assert_eq!((output.status.code(), &*out), (Some(0), verb.out), "{words:?}: {stderr}");
            assert_eq!(errors_of(&stderr).len(), lines, "{words:?}: {stderr}");
        }
    }
}

#[test]
fn each_option_works_without_a_wait() {
    limit!();
    for verb in VERBS {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        create_set_event(dir);
        for options in [&[][..], &["-n"], &["-w", "0"], &["-w", "1000"], &["-q"], &["-v"], &["-nv"]]
        {
            // This creates the files that have to exist, and sets or clears the event.
            verb.obstacle.put(dir).end(dir);
            let _ = std::fs::remove_file(dir.join("o"));
            let words = line(verb, options);
            let ran = run(dir, &words).expect(0, verb.out);
            let is_verbose = options.iter().any(|option| option.contains('v'));
            assert_eq!(ran.err.lines().count(), usize::from(is_verbose), "{words:?}: {ran:?}");
            if is_verbose {
                assert!(ran.err.contains(" after "), "{words:?}: {ran:?}");
            }
        }
    }
}

/// The progress and the error name only the events that are not in the desired state.
#[test]
fn only_the_missing_events_of_several_are_named() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for event in ["a", "c"] {
        std::fs::write(dir.join(event), "").unwrap();
    }
    crate::support::running::scope(|scope| {
        for (words, waiting, end) in [
            (&["a", "b"][..], "waiting for {b} 0:", "waiting for `{b}`: it was not set"),
            (
                &["--all", "a", "b", "c", "d"],
                "waiting for {b} and 1 other 0:",
                "waiting for `{b}`: it was not set, nor was 1 other",
            ),
            (
                &["b", "d", "e"],
                "waiting for {b} and 2 others 0:",
                "waiting for `{b}`: it was not set, nor were 2 others",
            ),
            (
                &["--any", "b", "d"],
                "waiting for {b} or 1 other 0:",
                "waiting for `{b}`: it was not set, nor was 1 other",
            ),
            (&["--exists", "a", "d"], "waiting for {d} 0:", "waiting for `{d}`: it was not set"),
            (
                &["--cleared", "b", "c"],
                "waiting for {c} to be cleared 0:",
                "waiting for `{c}` to be cleared",
            ),
            (
                &["--cleared", "--all", "d", "a", "c"],
                "waiting for {a} and 1 other to be cleared 0:",
                "waiting for `{a}` and 1 other to be cleared",
            ),
            (
                &["--cleared", "--any", "a", "c"],
                "waiting for {a} or 1 other to be cleared 0:",
                "waiting for `{a}` or 1 other to be cleared",
            ),
        ] {
            scope.spawn(move || {
                let named = |text: &str| {
                    let (before, rest) = text.split_once('{').unwrap();
                    let (event, after) = rest.split_once('}').unwrap();
                    format!("{before}{}{after}", dir.join(event).display())
                };
                let mut waits = flockwork(dir);
                waits.args(["event", "wait"]).args(words).stderr(Stdio::piped());
                let mut waits = waits.start();
                let mut line = String::new();
                BufReader::new(waits.stderr.take().unwrap()).read_line(&mut line).unwrap();
                waits.kill().unwrap();
                waits.wait().unwrap();
                let waiting = format!("flockwork: {}", waiting.replace(['{', '}'], ""));
                assert!(line.starts_with(&waiting), "{words:?}: {line}");
                // On a busy machine the time may be over before the first check, which has another
                // error.
                let has_waited = ["0.5", "3", "20"].into_iter().any(|limit| {
                    let words = [&["event", "wait", "-w", limit], words].concat();
                    let ran = run(dir, &words).expect(75, "");
                    let stderr = errors_of(&ran.err);
                    assert_eq!(stderr.len(), 1, "{words:?}: {ran:?}");
                    let has_waited = stderr[0].starts_with("flockwork: timed out after ");
                    assert!(!has_waited || stderr[0].ends_with(&named(end)), "{words:?}: {ran:?}");
                    has_waited
                });
                assert!(has_waited, "{words:?}");
            });
        }
    });
    // The errors with -n name them too.
    for (words, expected) in [
        (&["a", "b"][..], "/b` is not set; try again later"),
        (&["--any", "b", "d", "e"], "/b` and 2 others are not set; try again later"),
        (&["--cleared", "b", "c"], "/c` is still set; try again later"),
        (&["--cleared", "--any", "a", "c"], "/a` and 1 other are still set; try again later"),
    ] {
        let words = [&["event", "wait", "-n"], words].concat();
        run(dir, &words).expect(75, "").assert_error(expected);
    }
}
