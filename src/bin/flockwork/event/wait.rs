//! `flockwork event wait`: waits until events are set, or consumes one.

use std::path::PathBuf;

use clap::Args;
use flockwork::Event;

use super::pending::Pending;
use super::{cleared, open, print_path};
use crate::command_line;
use crate::create_args::CreateArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::wait_args::{Limit, WaitArgs};

const EXAMPLES: &str = "\
Examples:
  flockwork event wait -w 30 server.ready
  job=$(flockwork event wait --consume jobs.next)
  flockwork event wait --any build.done build.failed";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct EventWaitArgs {
    #[command(flatten)]
    pub(super) wait: WaitArgs,

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

    /// The events
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
}

pub(super) fn run(arguments: &EventWaitArgs) -> Outcome {
    let wait = &arguments.wait;
    let options = arguments.create.options().any_file_type(arguments.exists);
    let paths = &arguments.paths;
    if arguments.consume && paths.len() > 1 {
        return Err(command_line::usage("event wait", "--consume requires exactly one PATH"));
    }
    if arguments.cleared && paths.len() > 1 {
        return cleared::wait_for_several(arguments, &options);
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
        output::deliver(&payload).map_err(|failure| restore(first, payload, failure))?;
        progress.ended(&format!("consumed `{}`", paths[0].display()));
        return Ok(Exit::Success);
    }
    if arguments.cleared {
        wait.run(&progress, limit, |limit| Ok(cleared::wait_for_one(first, limit)?))?;
        progress.ended(&format!("`{}` is cleared", paths[0].display()));
        return if arguments.any { print_path(&paths[0]) } else { Ok(Exit::Success) };
    }
    if arguments.any {
        let index = wait.run(&progress, limit, |limit| {
            Ok(match limit.timeout() {
                Some(timeout) => Event::wait_any_timeout(&events, timeout),
                None => Event::wait_any(&events),
            }?)
        })?;
        progress.ended(&format!("`{}` is set", paths[index].display()));
        return print_path(&paths[index]);
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
    Ok(Exit::Success)
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
