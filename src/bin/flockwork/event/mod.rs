//! `flockwork event`: sets, clears and queries events, and waits for them.

mod cleared;
mod pending;
mod wait;

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use flockwork::{Event, Options};

use crate::command_line;
use crate::create_args::CreateArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::signals;
use wait::EventWaitArgs;

const EXAMPLES: &str = "\
Examples:
  flockwork event wait -w 30 server.ready
  flockwork event set server.ready --data 8080
  job=$(flockwork event wait --consume jobs.next)
  flockwork event wait --exists -w 30 /run/database.sock
  flockwork event wait --any build.done build.failed";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EventArgs {
    #[command(subcommand)]
    pub(crate) verb: EventVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventVerb {
    /// Set an event: create the file PATH and wake all waiters
    #[command(after_help = "Example:\n  flockwork event set server.ready --data 8080")]
    Set {
        /// The event
        path: PathBuf,
        /// Store TEXT as the payload (- reads the payload from the standard input)
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        data: Option<OsString>,
        /// Set the event only if it is cleared, atomically; exit with 1 if it is set
        #[arg(long)]
        new: bool,
        #[command(flatten)]
        create: CreateArgs,
    },
    /// Clear an event: remove the file PATH
    #[command(after_help = "Example:\n  flockwork event clear server.ready")]
    Clear {
        /// The events
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Wait until an event is set
    Wait(EventWaitArgs),
    /// Print whether an event is set; exit with 0 if it is, and with 1 if it is cleared
    #[command(after_help = "Example:\n  flockwork event status server.ready && echo ready")]
    Status {
        /// The event
        path: PathBuf,
    },
}

pub(crate) fn run(verb: &EventVerb) -> Outcome {
    match verb {
        EventVerb::Wait(_) => {} // it may run a command, to which signals are forwarded
        _ => signals::end_on_signals()?,
    }
    match verb {
        EventVerb::Set { path, data, new, create } => {
            let event = open(path, &create.options())?;
            let was_unset = match (data, new) {
                (None, _) => event.set()?,
                (Some(data), true) => event.set_new(payload(data)?)?,
                (Some(data), false) => event.set_with(&payload(data)?)?,
            };
            Ok(if *new && !was_unset { Exit::No } else { Exit::Success })
        }
        EventVerb::Clear { paths } => {
            let open = |path: &PathBuf| open(path, &Options::new());
            let events = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
            // A failure does not keep the other events from being cleared.
            let cleared: Vec<_> = events.iter().map(Event::clear).collect();
            for result in cleared {
                result?;
            }
            Ok(Exit::Success)
        }
        EventVerb::Status { path } => {
            let is_set = open(path, &Options::new())?.is_set()?;
            let (line, exit) =
                if is_set { ("set\n", Exit::Success) } else { ("cleared\n", Exit::No) };
            match output::write(line.as_bytes())? {
                Exit::Success => Ok(exit),
                other => Ok(other),
            }
        }
        EventVerb::Wait(arguments) => wait::run(arguments),
    }
}

fn open(path: &Path, options: &Options) -> Result<Event, Failure> {
    if path.as_os_str().is_empty() {
        return Err(command_line::usage("event", "PATH is empty"));
    }
    Ok(options.open_event(path)?)
}

/// The payload given on the command line, or read from the standard input for `-`.
fn payload(data: &OsString) -> Result<Vec<u8>, Failure> {
    if data != "-" {
        return Ok(data.as_encoded_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| {
        Failure::new(Exit::CannotOpen, format!("could not read the standard input: {error}"))
    })?;
    Ok(bytes)
}

/// Prints the path of the event that ended a wait for any of several events.
fn print_path(path: &Path) -> Outcome {
    let mut line = path.as_os_str().as_encoded_bytes().to_vec();
    line.push(b'\n');
    output::write(&line)
}
