//! `flockwork event set`: sets an event for good, while a command runs, or while a process lives.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;

use super::{open, while_process};
use crate::command_line;
use crate::create_args::CreateArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::job::Job;
use crate::run_args::RunArgs;
use crate::signals::{self, Signals};

const EXAMPLES: &str = "\
Examples:
  flockwork event set server.ready --data 8080
  flockwork event set --while $! server.ready
  flockwork event set server.running -- ./server --port 8080";

#[derive(Debug, Args)]
#[command(
    override_usage = "flockwork event set [OPTIONS] PATH\n       flockwork event set [OPTIONS] --while PID PATH\n       flockwork event set [OPTIONS] PATH -- COMMAND [ARG]...\n       flockwork event set [OPTIONS] PATH -c STRING",
    after_help = EXAMPLES
)]
pub(crate) struct EventSetArgs {
    /// The event
    pub(crate) path: PathBuf,

    /// Store TEXT as the payload (- reads the payload from the standard input)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    data: Option<OsString>,

    /// Set the event only if it is cleared, atomically; exit with 1 if it is set
    #[arg(long)]
    new: bool,

    /// Set the event until the process PID ends, and return immediately: a process in the
    /// background keeps it set
    #[arg(
        long = "while",
        value_name = "PID",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)),
        conflicts_with_all = ["new", "shell", "max_run", "command"]
    )]
    pub(crate) pid: Option<u32>,

    #[command(flatten)]
    create: CreateArgs,

    #[command(flatten)]
    run: RunArgs,

    /// Run this command, and keep the event set until it ends
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The command to run.
pub(super) fn job(arguments: &EventSetArgs) -> Result<Option<Job>, Failure> {
    command_line::job("event set", &arguments.command, arguments.run.shell.as_ref())
}

pub(super) fn run(arguments: &EventSetArgs) -> Outcome {
    let EventSetArgs { path, data, new, create, .. } = arguments;
    if let Some(pid) = arguments.pid {
        signals::end_on_signals()?;
        return while_process::set(path, pid, &create.options(), || payload(data.as_ref()));
    }
    if let Some(job) = job(arguments)? {
        if *new {
            return Err(command_line::usage("event set", "--new cannot be used with COMMAND"));
        }
        return while_running(arguments, &job);
    }
    if arguments.run.max_run.is_some() {
        return Err(command_line::usage("event set", "--max-run requires COMMAND"));
    }
    signals::end_on_signals()?;
    let event = open(path, &create.options())?;
    let was_unset = match (data, new) {
        (None, _) => event.set()?,
        (data, true) => event.set_new(payload(data.as_ref())?)?,
        (data, false) => event.set_with(&payload(data.as_ref())?)?,
    };
    Ok(if *new && !was_unset { Exit::No } else { Exit::Success })
}

/// Keeps the event set until the command has ended. The command inherits the setting, so that the
/// event stays set if this process is killed.
fn while_running(arguments: &EventSetArgs, job: &Job) -> Outcome {
    let options = arguments.create.options().inherit(cfg!(unix));
    let event = open(&arguments.path, &options)?;
    command_line::check("event set", &arguments.path, job)?;
    let payload = payload(arguments.data.as_ref())?;
    let signals = Signals::install()?.max_run(arguments.run.max_run);
    let announcement = event.set_while_alive(payload)?;
    let ended = signals.run(job);
    let withdrawn = announcement.withdraw();
    let exit = ended?;
    withdrawn?;
    Ok(exit)
}

/// The payload given on the command line, or read from the standard input for `-`.
fn payload(data: Option<&OsString>) -> Result<Vec<u8>, Failure> {
    let Some(data) = data else { return Ok(Vec::new()) };
    if data != "-" {
        return Ok(data.as_encoded_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| {
        Failure::new(Exit::CannotOpen, format!("could not read the standard input: {error}"))
    })?;
    Ok(bytes)
}
