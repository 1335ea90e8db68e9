//! The program under the name `sem`: GNU sem, which is part of GNU parallel.
//!
//! It differs on purpose: jobs acquire permits in the order of arrival, and no option makes more
//! jobs run than `-j` allows.

mod args;
mod help;
mod options;
mod output;

use std::ffi::OsString;
use std::fs::File;

use args::{Parsed, Request};
use output::Output;

use crate::create_args::CreateArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::holder_text::HeldJob;
use crate::job::Job;
use crate::run_args::RunArgs;
use crate::sem::background::{self, CommandLine};
use crate::sem::group::Group;
use crate::sem::{self, SemArgs, drain};
use crate::wait_args::WaitArgs;
use crate::{id, output as standard_output};

/// The exit code of all errors of GNU parallel.
const FAILED: Exit = Exit::Other(255);

/// The exit code of `--st`.
const NOT_IN_TIME: u8 = 1;

/// The job in a command line of GNU sem, if there is one.
pub(crate) fn job(words: &[OsString]) -> Option<HeldJob> {
    match args::parse(words.iter().skip(1).cloned()) {
        Ok(Parsed::Request(request)) if !request.waits => Some(HeldJob::Shell(request.command)),
        _ => None,
    }
}

/// Runs GNU sem. All messages begin with its name.
pub(crate) fn run(words: &[OsString]) -> Exit {
    let words = words.get(1..).unwrap_or_default();
    let outcome = args::parse(words.iter().cloned()).and_then(|parsed| match parsed {
        Parsed::Help => standard_output::write(help::HELP.as_bytes()),
        Parsed::Version => standard_output::write(help::version().as_bytes()),
        Parsed::Request(request) => run_request(&request, words),
    });
    outcome.unwrap_or_else(|failure| failed(failure).report_as("sem"))
}

fn run_request(request: &Request, words: &[OsString]) -> Outcome {
    let name = request.id.clone().unwrap_or_else(terminal);
    let path = id::path(&name)?;
    let wait = WaitArgs {
        now: false,
        seconds: request.timeout,
        conflict: NOT_IN_TIME,
        verbose: false,
        quiet: true,
    };
    if request.waits {
        // Its exit code does not report failures of jobs.
        let group = Group::of(None)?;
        return drain::run(&wait, &path, "", &group).map(|_| Exit::Success);
    }
    id::create_directory(&name)?;
    let job = Job::shell(&request.command);
    let job = match shell() {
        Some(shell) => job.by_shell(shell),
        None => job,
    };
    let job = match &request.input {
        Some(file) => job.with_input(open(file)?),
        None => job,
    };
    let passes_input = request.input.is_none();
    if !request.is_foreground && !background::is_started() {
        // In the background, the standard input is not the terminal.
        let words = [OsString::from("--id"), name].into_iter().chain(words.iter().cloned());
        let line = CommandLine { program: "sem", words: words.collect(), passes_input };
        return background::start(&job, line, false);
    }
    let (output, job) = Output::redirect(job, request.buffering);
    let arguments = SemArgs {
        jobs: Some(request.jobs),
        id: Some(name),
        permits: 1,
        wait,
        fg: request.is_foreground,
        bg: !request.is_foreground,
        drain: false,
        group: None,
        // GNU sem stores no number: that of the latest call counts.
        resize: true,
        reentrant: false,
        label: None,
        create: CreateArgs::default(),
        close: false,
        run: RunArgs { shell: None, max_run: None },
        words: Vec::new(),
    };
    sem::run_job(&arguments, &path, job, None, passes_input, || output.finish())
}

fn open(file: &OsString) -> Result<File, Failure> {
    File::open(file).map_err(|error| {
        let file = file.to_string_lossy();
        Failure::new(FAILED, format!("Cannot open input file `{file}`: {error}"))
    })
}

/// The failure with GNU parallel's exit code and message.
fn failed(failure: Failure) -> Failure {
    if failure.exit == Exit::Other(i32::from(NOT_IN_TIME)) {
        return Failure::new(failure.exit, "Warning: Semaphore timed out. Exiting.");
    }
    failure.with_exit(FAILED)
}

/// The name of the terminal as tty(1) prints it.
#[cfg(unix)]
fn terminal() -> OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let name = rustix::termios::ttyname(std::io::stdin(), Vec::new());
    name.map_or_else(|_| "not a tty".into(), |name| OsString::from_vec(name.into_bytes()))
}

#[cfg(not(unix))]
fn terminal() -> OsString {
    "not a tty".into()
}

/// The shells that GNU parallel recognizes.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SHELLS: [&str; 17] = [
    "ash",
    "bash",
    "csh",
    "dash",
    "fish",
    "fizsh",
    "ksh",
    "ksh93",
    "mksh",
    "pdksh",
    "posh",
    "rbash",
    "sh",
    "static-sh",
    "tcsh",
    "yash",
    "zsh",
];

/// The shell that runs the command, if it is not that of `flockwork sem -c`: the shell of the
/// variable, or the one that started this program.
#[cfg(unix)]
fn shell() -> Option<OsString> {
    let variable = std::env::var_os("PARALLEL_SHELL").filter(|value| !value.is_empty());
    variable.or_else(ancestor)
}

/// Other systems have one shell.
#[cfg(not(unix))]
fn shell() -> Option<OsString> {
    None
}

/// The nearest ancestor that is a shell. Its name decides how it behaves: `sh` may be bash.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn ancestor() -> Option<OsString> {
    crate::deadlock::ancestor_pids().into_iter().find_map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let name = name.trim_end();
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        if !SHELLS.contains(&name) {
            return None;
        }
        let named = program.with_file_name(name);
        Some(if named.exists() { named } else { program }.into())
    })
}

/// Other systems do not show the program of a process.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn ancestor() -> Option<OsString> {
    None
}
