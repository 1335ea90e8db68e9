//! The command `flockwork`: locks, semaphores and events for shell scripts, make, cron and CI. Each
//! verb has its own file or directory.

#![expect(clippy::doc_markdown, reason = "doc comments of options are the help text")]

// Declared first, so that all modules see its macro.
#[cfg(test)]
#[macro_use]
#[allow(dead_code, reason = "unit tests use only a part of it")]
#[path = "../../../tests/it/limit.rs"]
mod limit;

#[cfg(unix)]
mod again;
mod args;
mod as_flock;
mod as_sem;
mod color;
mod command_line;
mod completions;
mod create_args;
mod deadlock;
mod duration;
mod event;
mod exit;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod front;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "no_front.rs"]
mod front;
mod getopt;
mod holder_text;
mod id;
mod job;
mod live_line;
mod lock;
mod man;
mod once;
mod output;
mod parse;
#[cfg(unix)]
mod passing;
mod permits;
#[cfg(unix)]
mod process_stat;
mod progress;
mod run_args;
mod sem;
mod signals;
mod status;
mod thread;
mod usage_error;
mod wait_args;
mod wait_text;

use std::ffi::OsString;
use std::path::Path;

use args::{Cli, Verb};
use clap::CommandFactory as _;
use exit::Outcome;
use parse::Parsed;

fn main() {
    let words: Vec<_> = std::env::args_os().collect();
    let outcome = match program(&words) {
        Program::Flock => Ok(as_flock::run("flock", words)),
        Program::Sem => Ok(as_sem::run(&words)),
        Program::Flockwork => parse::parse(&words).and_then(|parsed| match parsed {
            Parsed::Cli(cli) => front::run(&cli, &words).unwrap_or_else(|| run(cli)),
            Parsed::Shown(exit) => Ok(exit),
        }),
    };
    let exit = outcome.unwrap_or_else(exit::Failure::report);
    drop(live_line::erase());
    signals::die_by_signal(exit);
    front::exits(exit.code());
    // Destructors could wait for other threads, which are still running.
    std::process::exit(exit.code())
}

/// The program whose command line this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Flock,
    Sem,
    Flockwork,
}

/// The program, by the name under which this one was started.
pub(crate) fn program(words: &[OsString]) -> Program {
    let name = words.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let is = |program: &str| {
        name == program || name.eq_ignore_ascii_case(format!("{program}.exe").as_str())
    };
    match () {
        () if is("flock") => Program::Flock,
        () if is("sem") => Program::Sem,
        () => Program::Flockwork,
    }
}

fn run(cli: Cli) -> Outcome {
    match cli.verb {
        Verb::Lock(lock) => lock::run(&lock),
        Verb::Sem(sem) => sem::run(&sem),
        Verb::Event(event) => event::run(&event.verb),
        Verb::Once(once) => once::run(&once),
        Verb::Status(status) => status::run(&status),
        Verb::Completions(completions) => completions::run(&completions, &mut Cli::command()),
        Verb::Man(arguments) => man::run(&arguments, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_decides() {
        limit!();
        for (word, expected) in [
            ("flock", Program::Flock),
            ("/usr/bin/flock", Program::Flock),
            ("./flock.exe", Program::Flock),
            ("FLOCK.EXE", Program::Flock),
            ("sem", Program::Sem),
            ("/usr/bin/sem", Program::Sem),
            ("Sem.exe", Program::Sem),
            ("flockwork", Program::Flockwork),
            ("flock/flockwork", Program::Flockwork),
            ("Flock", Program::Flockwork),
            ("", Program::Flockwork),
        ] {
            assert_eq!(program(&[word.into()]), expected, "{word}");
        }
        assert_eq!(program(&[]), Program::Flockwork);
    }
}
