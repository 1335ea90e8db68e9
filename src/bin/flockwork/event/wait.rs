//! `flockwork event wait`: waits until events are set, or consumes one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use flockwork::Event;

use super::pending::Pending;
use super::{cleared, open, print_path};
use crate::command_line;
use crate::create_args::CreateArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::job::Job;
use crate::output;
use crate::run_args::RunArgs;
use crate::signals::{self, Signals};
use crate::wait_args::{Limit, WaitArgs};

const EXAMPLES: &str = "\
Examples:
  flockwork event wait -w 30 server.ready
  job=$(flockwork event wait --consume jobs.next)
  flockwork event wait --any build.done build.failed
  flockwork event wait server.ready -- sh -c 'curl localhost:$FLOCKWORK_PAYLOAD'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct EventWaitArgs {
    #[command(flatten)]
    pub(crate) wait: WaitArgs,

    /// Wait until the event is cleared instead
    #[arg(long)]
    cleared: bool,

    /// Clear the event and print its payload; each setting goes to exactly one consumer
    #[arg(long, conflicts_with = "cleared")]
    consume: bool,

    /// Wait for any one of the events, and print its path
    #[arg(long, conflicts_with = "consume")]
    pub(super) any: bool,

    /// Wait until all events are set at the same time (the default)
    #[arg(long, conflicts_with_all = ["any", "consume"])]
    all: bool,

    /// Wait for a file of any type, such as a directory, a socket or a symbolic link to a file
    #[arg(long, conflicts_with = "consume")]
    exists: bool,

    #[command(flatten)]
    create: CreateArgs,

    /// Print the payload without clearing the event
    #[arg(long, conflicts_with_all = ["cleared", "consume", "any", "exists"])]
    print: bool,

    #[command(flatten)]
    run: RunArgs,

    /// The events
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// Run this command after the wait. FLOCKWORK_PAYLOAD is the payload of the only event, or with
    /// --any of the event whose path is FLOCKWORK_EVENT
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The action after the wait.
#[expect(clippy::large_enum_variant, reason = "only one value exists")]
enum After {
    Nothing,
    Run(Job, Signals),
}

impl After {
    fn of(arguments: &EventWaitArgs) -> Result<Self, Failure> {
        let shell = arguments.run.shell.as_ref();
        match command_line::job("event wait", &arguments.command, shell)? {
            Some(_) if arguments.print => {
                Err(command_line::usage("event wait", "--print cannot be used with COMMAND"))
            }
            None if arguments.run.max_run.is_some() => {
                Err(command_line::usage("event wait", "--max-run requires COMMAND"))
            }
            Some(job) => Ok(Self::Run(job, Signals::install()?.max_run(arguments.run.max_run))),
            None => {
                signals::end_wait_on_signals()?;
                Ok(Self::Nothing)
            }
        }
    }

    /// Runs the command if there is one, with the payload of an event.
    fn run(self, payload: Option<Vec<u8>>) -> Outcome {
        let Self::Run(mut job, signals) = self else { return Ok(Exit::Success) };
        if let Some(payload) = payload {
            job = job.with_environment("FLOCKWORK_PAYLOAD", as_variable(payload)?);
        }
        signals.run(&job)
    }
}

/// A payload as the value of a variable, which cannot have a zero byte.
fn as_variable(payload: Vec<u8>) -> Result<OsString, Failure> {
    let failed = |why| {
        Failure::new(Exit::Data, format!("could not pass the payload to the command: {why}"))
            .hint("read the payload from the event's file, or use --print")
    };
    if payload.contains(&0) {
        return Err(failed("it contains a zero byte"));
    }
    #[cfg(unix)]
    return Ok(std::os::unix::ffi::OsStringExt::from_vec(payload));
    #[cfg(not(unix))]
    return String::from_utf8(payload).map(Into::into).map_err(|_| failed("it is not UTF-8"));
}

pub(super) fn run(arguments: &EventWaitArgs) -> Outcome {
    let wait = &arguments.wait;
    let options = arguments.create.options().any_file_type(arguments.exists);
    let paths = &arguments.paths;
    if arguments.consume && paths.len() > 1 {
        return Err(command_line::usage("event wait", "--consume requires exactly one PATH"));
    }
    if arguments.print && paths.len() > 1 {
        return Err(command_line::usage("event wait", "--print requires exactly one PATH"));
    }
    let after = After::of(arguments)?;
    if arguments.cleared && paths.len() > 1 {
        let index = cleared::wait_for_several(arguments, &options)?;
        return any_ended(arguments, index, after, None);
    }
    let (plain, progress) = (options.clone(), wait.progress(""));
    let pending = Pending::open(paths, &plain, arguments.any, arguments.cleared)?;
    let options = progress.attach_subject(options, move || pending.subject());
    let open = |path: &PathBuf| {
        open(path, &options).map_err(|failure| match failure.exit {
            Exit::CannotOpen if !arguments.consume && !arguments.exists && path.exists() => {
                failure.hint("use --exists to wait for a file of any type")
            }
            _ => failure,
        })
    };
    let events = paths.iter().map(open).collect::<Result<Vec<_>, Failure>>()?;
    let first = &events[0];
    let limit = wait.limit();
    if arguments.consume {
        let payload = wait.run(&progress, limit, |limit| {
            Ok(match limit {
                Limit::Now => first.try_consume(),
                Limit::Never => first.consume(),
                Limit::At(deadline) => first.consume_deadline(deadline),
            }?)
        })?;
        crate::front::has_waited();
        progress.ended(&format!("consumed `{}`", paths[0].display()));
        let delivered = match after {
            After::Nothing => output::deliver(&payload).map(|()| Exit::Success),
            After::Run(..) => after.run(Some(payload.clone())),
        };
        return delivered.map_err(|failure| restore(first, payload, failure));
    }
    if arguments.cleared {
        wait.run(&progress, limit, |limit| Ok(cleared::wait_for_one(first, limit)?))?;
        progress.ended(&format!("`{}` is cleared", paths[0].display()));
        return any_ended(arguments, arguments.any.then_some(0), after, None);
    }
    if arguments.any {
        let (index, payload) = wait.run(&progress, limit, |limit| {
            loop {
                let index = match limit.timeout() {
                    Some(timeout) => Event::wait_any_timeout(&events, timeout),
                    None => Event::wait_any(&events),
                }?;
                if !needs_payload(arguments) {
                    return Ok((index, None));
                }
                // If the event was cleared in the meantime, the wait continues.
                if let Some(payload) = events[index].payload()? {
                    return Ok((index, Some(payload)));
                }
            }
        })?;
        progress.ended(&format!("`{}` is set", paths[index].display()));
        return any_ended(arguments, Some(index), after, payload);
    }
    if paths.len() == 1 && needs_payload(arguments) {
        let payload = wait.run(&progress, limit, |limit| {
            Ok(match limit {
                Limit::Now => first.try_wait_payload(),
                Limit::Never => first.wait_payload(),
                Limit::At(deadline) => first.wait_payload_deadline(deadline),
            }?)
        })?;
        progress.ended(&format!("`{}` is set", paths[0].display()));
        if arguments.print {
            return output::write(&payload);
        }
        return after.run(Some(payload));
    }
    wait.run(&progress, limit, |limit| {
        Ok(match limit.timeout() {
            Some(timeout) => Event::wait_all_timeout(&events, timeout),
            None => Event::wait_all(&events),
        }?)
    })?;
    match paths.as_slice() {
        [path] => progress.ended(&format!("`{}` is set", path.display())),
        paths => progress.ended(&format!("all {} events are set", paths.len())),
    }
    after.run(None)
}

/// Whether the payload is printed or passed to a command.
fn needs_payload(arguments: &EventWaitArgs) -> bool {
    let runs = arguments.run.shell.is_some() || !arguments.command.is_empty();
    (arguments.print || runs) && !arguments.exists
}

/// Prints the path of the event that ended a wait for any of several, or runs the command.
fn any_ended(
    arguments: &EventWaitArgs,
    index: Option<usize>,
    after: After,
    payload: Option<Vec<u8>>,
) -> Outcome {
    let path = index.map(|index| &arguments.paths[index]);
    match (after, path) {
        (After::Nothing, None) => Ok(Exit::Success),
        (After::Nothing, Some(path)) => print_path(path),
        (After::Run(job, signals), None) => After::Run(job, signals).run(payload),
        (After::Run(job, signals), Some(path)) => {
            let job = job.with_environment("FLOCKWORK_EVENT", path.clone().into_os_string());
            After::Run(job, signals).run(payload)
        }
    }
}

/// Sets the event again with a payload that could not be printed, so that the next consumer
/// receives it. If another process has set the event since, its payload stays and this one is lost.
fn restore(event: &Event, payload: Vec<u8>, failure: Failure) -> Failure {
    failure.hint(match event.set_new(payload) {
        Ok(true) => "consume the event again, since it was set again with its payload",
        Ok(false) => "the payload is lost, since another process has set the event meanwhile",
        Err(_) => "the payload is lost, since the event could not be set again",
    })
}
