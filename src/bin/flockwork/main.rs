//! The command `flockwork`: locks, semaphores and events for shell scripts, make, cron and CI. One file for each verb;
//! sees only the library's public API. Started under the name `flock` it is flock(1).

#![expect(clippy::doc_markdown, reason = "what is said of options is shown as it stands")]

// First, for its macro.
#[cfg(test)]
#[macro_use]
#[allow(dead_code, reason = "unit tests use only a part of it")]
#[path = "../../../tests/it/limit.rs"]
mod limit;

mod args;
mod as_flock;
mod count;
mod event;
mod exit;
mod job;
mod lock;
mod made;
mod manual;
mod names;
mod once;
mod output;
mod progress;
mod seconds;
mod sem;
mod signals;
mod status;
mod waiting;
mod words;

use args::{Cli, Verb};
use exit::{Exit, Outcome};

fn main() {
    let words: Vec<_> = std::env::args_os().collect();
    let outcome = match as_flock::name(&words) {
        Some(name) => Ok(as_flock::run(&name, words)),
        None => args::parse(words).and_then(|parsed| match parsed {
            args::Parsed::Cli(cli) => run(cli),
            args::Parsed::Shown(exit) => Ok(exit),
        }),
    };
    let exit = outcome.unwrap_or_else(exit::Failure::report);
    if exit == Exit::Interrupted {
        signals::interrupt();
    }
    // Not by returning: threads that wait for nobody any more would be waited for, or torn down with what they use.
    std::process::exit(exit.code())
}

fn run(cli: Cli) -> Outcome {
    match cli.verb {
        Verb::Lock(lock) => lock::run(&lock),
        Verb::Sem(sem) => sem::run(&sem),
        Verb::Event(event) => event::run(&event.verb),
        Verb::Once(once) => once::run(&once),
        Verb::Status(status) => status::run(&status),
        Verb::Completions { shell } => manual::completions(shell),
        Verb::Man => manual::man(),
    }
}
