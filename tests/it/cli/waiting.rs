//! Every verb that waits, with every option that says how: one table.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::cli::command::{Holding, flockwork, run};
use crate::support::running::Start as _;

/// A verb, the holder that it waits for, and what it prints to the standard output after the
/// release.
struct Verb {
    words: &'static [&'static str],
    /// The job, or the events, after the options.
    rest: &'static [&'static str],
    in_the_way: InTheWay,
    out: &'static str,
}

#[derive(Clone, Copy)]
enum InTheWay {
    /// A `flockwork` that runs a job.
    Holding(&'static [&'static str]),
    /// An event that is not set, and is set in the end.
    Unset(&'static str),
    /// An event that is set, and is cleared in the end.
    Set(&'static str),
    /// A file of any kind that is missing.
    NoDirectory(&'static str),
}

/// A process that keeps a verb waiting until it is ended.
enum Kept {
    Holding(Holding),
    Event(InTheWay),
}

impl InTheWay {
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
            Self::Event(InTheWay::Unset(event)) => std::fs::write(dir.join(event), "").unwrap(),
            Self::Event(InTheWay::Set(event)) => std::fs::remove_file(dir.join(event)).unwrap(),
            Self::Event(InTheWay::NoDirectory(path)) => {
                std::fs::create_dir(dir.join(path)).unwrap();
            }
            Self::Event(InTheWay::Holding(_)) => unreachable!(),
        }
    }
}

const fn verb(
    words: &'static [&'static str],
    rest: &'static [&'static str],
    in_the_way: InTheWay,
    out: &'static str,
) -> Verb {
    Verb { words, rest, in_the_way, out }
}

/// Beside the event `e`, `unset` never is and `set` always.
const VERBS: &[Verb] = &[
    verb(&["lock"], &["f", "echo", "ran"], InTheWay::Holding(&["lock", "f"]), "ran\n"),
    verb(&["lock", "-s"], &["f", "echo", "ran"], InTheWay::Holding(&["lock", "-x", "f"]), "ran\n"),
    verb(&["lock", "-x"], &["f", "echo", "ran"], InTheWay::Holding(&["lock", "-s", "f"]), "ran\n"),
    verb(&["sem"], &["s", "echo", "ran"], InTheWay::Holding(&["sem", "-j", "1", "s"]), "ran\n"),
    verb(
        &["sem", "-k", "2"],
        &["s2", "echo", "ran"],
        InTheWay::Holding(&["sem", "-j", "2", "s2"]),
        "ran\n",
    ),
    verb(&["sem", "--wait"], &["s"], InTheWay::Holding(&["sem", "-j", "1", "s"]), ""),
    verb(&["once"], &["o", "echo", "ran"], InTheWay::Holding(&["lock", "o.flock"]), "ran\n"),
    verb(&["once", "--reset"], &["o"], InTheWay::Holding(&["lock", "o.flock"]), ""),
    verb(&["event", "wait"], &["e"], InTheWay::Unset("e"), ""),
    verb(&["event", "wait"], &["set", "e"], InTheWay::Unset("e"), ""),
    verb(&["event", "wait", "--all"], &["e", "set"], InTheWay::Unset("e"), ""),
    verb(&["event", "wait", "--any"], &["unset", "e"], InTheWay::Unset("e"), "e\n"),
    verb(&["event", "wait", "--consume"], &["e"], InTheWay::Unset("e"), ""),
    verb(&["event", "wait", "--cleared"], &["e"], InTheWay::Set("e"), ""),
    verb(&["event", "wait", "--cleared", "--any"], &["e"], InTheWay::Set("e"), "e\n"),
    verb(&["event", "wait", "--cleared", "--all"], &["unset", "e"], InTheWay::Set("e"), ""),
    verb(&["event", "wait", "--cleared", "--any"], &["set", "e"], InTheWay::Set("e"), "e\n"),
    verb(&["event", "wait", "--exists"], &["d"], InTheWay::NoDirectory("d"), ""),
    verb(
        &["event", "wait", "--exists", "--any"],
        &["unset", "d"],
        InTheWay::NoDirectory("d"),
        "d\n",
    ),
];

/// With the result of each while the wait fails: the code, whether it waits for the given time, and
/// the number of lines on the standard error.
const IN_VAIN: &[(&[&str], i32, bool, usize)] = &[
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

fn others(dir: &Path) {
    std::fs::write(dir.join("set"), "").unwrap();
}

fn line<'a>(verb: &'a Verb, options: &'a [&'a str]) -> Vec<&'a str> {
    [verb.words, options, verb.rest].concat()
}

/// A loaded machine may make any of them wait for a second, which it prints.
fn without_progress(said: &str) -> Vec<&str> {
    said.lines().filter(|line| !line.contains(": waiting for `")).collect()
}

#[test]
fn each_option_works_when_the_acquisition_fails() {
    limit!();
    for verb in VERBS {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        others(dir);
        let kept = verb.in_the_way.put(dir);
        for (options, code, waits, lines) in IN_VAIN {
            let words = line(verb, options);
            let start = Instant::now();
            let ran = run(dir, &words).expect(*code, "");
            let took = start.elapsed();
            assert!(!waits || took >= Duration::from_millis(50), "{words:?}: {took:?}");
            let said = without_progress(&ran.err);
            assert_eq!(said.len(), *lines, "{words:?}: {ran:?}");
            let first = said.first().copied().unwrap_or_default();
            assert_eq!(first.ends_with("; waiting"), *lines == 2, "{words:?}: {ran:?}");
            let at_once = !waits && *code != 64 && *lines == 1;
            assert_eq!(first.contains("without -n, or with -w"), at_once, "{words:?}: {ran:?}");
        }
        kept.end(dir);
    }
}

#[test]
fn once_it_is_over_each_option_of_each_verb_goes_on() {
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
            others(dir);
            let kept = verb.in_the_way.put(dir);
            let words = line(verb, options);
            let mut waiting = flockwork(dir);
            waiting.args(&words).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut waiting = waiting.start();
            let mut err = BufReader::new(waiting.stderr.take().unwrap());
            let mut said = String::new();
            if lines > 0 {
                err.read_line(&mut said).unwrap();
                assert!(said.ends_with("; waiting\n"), "{words:?}: {said}");
            }
            kept.end(dir);
            err.read_to_string(&mut said).unwrap();
            let output = waiting.wait_with_output().unwrap();
            let out = String::from_utf8_lossy(&output.stdout);
            assert_eq!((output.status.code(), &*out), (Some(0), verb.out), "{words:?}: {said}");
            assert_eq!(without_progress(&said).len(), lines, "{words:?}: {said}");
        }
    }
}

#[test]
fn what_is_free_is_taken_at_once_with_any_option() {
    limit!();
    for verb in VERBS {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        others(dir);
        for options in [&[][..], &["-n"], &["-w", "0"], &["-w", "1000"], &["-q"], &["-v"], &["-nv"]]
        {
            // Makes what has to exist, and sets or clears it.
            verb.in_the_way.put(dir).end(dir);
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

/// The line after a second, and that at the end, are about the events that are missing.
#[test]
fn of_several_events_the_missing_ones_are_named() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for event in ["a", "c"] {
        std::fs::write(dir.join(event), "").unwrap();
    }
    crate::support::running::scope(|scope| {
        for (words, waiting, end) in [
            (&["a", "b"][..], "waiting for `{b}` for ", "waiting for `{b}`: it was not set;"),
            (
                &["--all", "a", "b", "c", "d"],
                "waiting for `{b}` and 1 other for ",
                "waiting for `{b}`: it was not set, nor was 1 other;",
            ),
            (
                &["b", "d", "e"],
                "waiting for `{b}` and 2 others for ",
                "waiting for `{b}`: it was not set, nor were 2 others;",
            ),
            (
                &["--any", "b", "d"],
                "waiting for `{b}` or 1 other for ",
                "waiting for `{b}`: it was not set, nor was 1 other;",
            ),
            (&["--exists", "a", "d"], "waiting for `{d}` for ", "waiting for `{d}`: "),
            (
                &["--cleared", "b", "c"],
                "waiting for `{c}` for ",
                "waiting for `{c}` to be cleared;",
            ),
            (
                &["--cleared", "--all", "d", "a", "c"],
                "waiting for `{a}` and 1 other for ",
                "waiting for `{a}` and 1 other to be cleared;",
            ),
            (
                &["--cleared", "--any", "a", "c"],
                "waiting for `{a}` or 1 other for ",
                "waiting for `{a}` or 1 other to be cleared;",
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
                assert!(line.contains(&named(waiting)), "{words:?}: {line}");
                let words = [&["event", "wait", "-w", "0.5"], words].concat();
                let ran = run(dir, &words).expect(75, "");
                let said = without_progress(&ran.err);
                assert_eq!(said.len(), 1, "{words:?}: {ran:?}");
                assert!(said[0].contains(&named(end)), "{words:?}: {ran:?}");
                assert!(said[0].starts_with("flockwork: gave up after "), "{words:?}: {ran:?}");
            });
        }
    });
    // And at once.
    for (words, says) in [
        (&["a", "b"][..], "/b` is not set; try again later"),
        (&["--any", "b", "d", "e"], "/b` and 2 others are not set; try again later"),
        (&["--cleared", "b", "c"], "/c` is still set; try again later"),
        (&["--cleared", "--any", "a", "c"], "/a` and 1 other are still set; try again later"),
    ] {
        let words = [&["event", "wait", "-n"], words].concat();
        run(dir, &words).expect(75, "").says(says);
    }
}
