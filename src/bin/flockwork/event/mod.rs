//! `flockwork event`: sets, clears and queries events, and waits for them.

mod cleared;
mod pending;
mod set;
mod wait;
#[cfg(unix)]
mod while_process;
#[cfg(not(unix))]
#[path = "while_process_non_unix.rs"]
mod while_process;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use flockwork::{Event, Options};

use crate::command_line;
use crate::exit::{Exit, Failure, Outcome};
use crate::job::Job;
use crate::output;
use crate::signals;
use set::EventSetArgs;
use wait::EventWaitArgs;

const EXAMPLES: &str = "\
Examples:
  flockwork event wait -w 30 server.ready
  flockwork event set server.ready --data 8080
  flockwork event set server.running -- ./server
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
    ///
    /// With --while or COMMAND, the event is set until a process ends, also if it is killed. The
    /// file PATH may then remain, so use `flockwork event status` and not `test -e`.
    Set(EventSetArgs),
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

/// The command that runs while the event is set.
pub(crate) fn job(verb: &EventVerb) -> Result<Option<Job>, Failure> {
    match verb {
        EventVerb::Set(arguments) => set::job(arguments),
        _ => Ok(None),
    }
}

pub(crate) fn run(verb: &EventVerb) -> Outcome {
    match verb {
        // These may run a command, to which signals are forwarded.
        EventVerb::Wait(_) | EventVerb::Set(_) => {}
        _ => signals::end_on_signals()?,
    }
    match verb {
        EventVerb::Set(arguments) => set::run(arguments),
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

/// Prints the path of the event that ended a wait for any of several events.
fn print_path(path: &Path) -> Outcome {
    let mut line = path.as_os_str().as_encoded_bytes().to_vec();
    line.push(b'\n');
    output::write(&line)
}
