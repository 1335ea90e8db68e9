//! The command `flockwork`: locks, semaphores and events for shell scripts, make, cron and CI. Each
//! verb has its own file or directory.

#![expect(clippy::doc_markdown, reason = "doc comments of options are the help text")]

// Declared first, so that all modules see its macro.
#[cfg(test)]
#[macro_use]
#[allow(dead_code, reason = "unit tests use only a part of it")]
#[path = "../../../tests/it/limit.rs"]
mod limit;

mod args;
mod as_flock;
mod color;
mod command_line;
mod completions;
mod create_args;
mod deadlock;
mod duration;
mod event;
mod exit;
mod holder_text;
mod id;
mod job;
mod live_line;
mod lock;
mod man;
mod once;
mod output;
mod parse;
mod permits;
mod progress;
mod run_args;
mod sem;
mod signals;
mod status;
mod usage_error;
mod wait_args;
mod wait_text;

use args::{Cli, Verb};
use clap::CommandFactory as _;
use exit::Outcome;
use parse::Parsed;

fn main() {
    let words: Vec<_> = std::env::args_os().collect();
    let outcome = match as_flock::name(&words) {
        Some(name) => Ok(as_flock::run(&name, words)),
        None => parse::parse(&words).and_then(|parsed| match parsed {
            Parsed::Cli(cli) => run(cli),
            Parsed::Shown(exit) => Ok(exit),
        }),
    };
    let exit = outcome.unwrap_or_else(exit::Failure::report);
    drop(live_line::erase());
    signals::die_by_signal(exit);
    // Destructors could wait for other threads, which are still running.
    std::process::exit(exit.code())
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
