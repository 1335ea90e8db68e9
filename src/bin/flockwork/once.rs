//! `flockwork once`: runs a command once, however many processes ask for it.

use std::ffi::OsString;

use clap::Args;
use flockwork::{Error, Once};

use crate::command_line;
use crate::create_args::CreateArgs;
use crate::exit::{self, Exit, Outcome};
use crate::job::Job;
use crate::signals::{self, Signals};
use crate::wait_args::{Limit, WaitArgs};

const EXAMPLES: &str = "\
Examples:
  flockwork once ~/.cache/tool/unpacked -- tar xzf tool.tgz -C ~/.cache/tool
  flockwork once --reset ~/.cache/tool/unpacked";

#[derive(Debug, Args)]
#[command(
    override_usage = "flockwork once [OPTIONS] PATH [--] COMMAND [ARG]...\n       flockwork once --reset PATH",
    after_help = EXAMPLES
)]
pub(crate) struct OnceArgs {
    #[command(flatten)]
    wait: WaitArgs,

    /// Say what is being done, to those who wait and to `flockwork status`
    #[arg(long, value_name = "TEXT")]
    label: Option<OsString>,

    /// All that was written reaches the disk before PATH says that it is done
    #[arg(long)]
    fsync: bool,

    #[command(flatten)]
    create: CreateArgs,

    /// Make it undone, so that the next one does it again
    #[arg(long)]
    reset: bool,

    /// The file that says that it is done (a lock lies beside it), and the command to run with its
    /// arguments
    #[arg(value_name = "PATH [--] COMMAND", trailing_var_arg = true, num_args = 0.., value_hint = clap::ValueHint::AnyPath)]
    words: Vec<OsString>,
}

pub(crate) fn run(arguments: &OnceArgs) -> Outcome {
    let no_path = "name the file that says that it is done, and a command to run";
    let (path, rest) = command_line::path_and_rest("once", &arguments.words, no_path)?;
    let words = command_line::command("once", rest)?;
    let wait = &arguments.wait;
    let mut options =
        arguments.create.options().inherit(cfg!(unix)).record_holder(true).fsync(arguments.fsync);
    if let Some(label) = &arguments.label {
        options = options.label(label.to_string_lossy());
    }
    let (options, progress) = wait.show_progress(options);
    if arguments.reset {
        if !words.is_empty() {
            return Err(command_line::usage("once", "--reset runs no command"));
        }
        let once = options.open_once(path)?;
        signals::end_on_signals()?;
        wait.run(&progress, wait.limit(), |limit| {
            Ok(match limit.timeout() {
                Some(timeout) => once.reset_timeout(timeout),
                None => once.reset(),
            }?)
        })?;
        progress.ended(&format!("reset `{}`", path.display()));
        warn_if_not_durable(arguments, &once);
        return Ok(Exit::Success);
    }
    if words.is_empty() {
        return Err(command_line::usage("once", "no command to run"));
    }
    let job = Job::new(words)?;
    let signals = Signals::install()?;
    let once = options.open_once(path)?;
    // What the command's end was is the answer, if it was run.
    let mut ended = None;
    let mut run = || -> Result<(), NotDone> {
        progress.ended(&format!("acquired `{}`", path.display()));
        let outcome = signals.run(&job);
        let is_done = matches!(outcome, Ok(Exit::Other(0)));
        ended = Some(outcome);
        if is_done { Ok(()) } else { Err(NotDone::CommandFailed) }
    };
    wait.run(&progress, wait.limit(), |limit| {
        let called = match limit {
            Limit::Now => once.try_call_once(&mut run),
            Limit::Never => once.call_once(&mut run),
            Limit::At(deadline) => once.call_once_deadline(deadline, &mut run),
        };
        match called {
            Ok(has_run) => {
                if has_run {
                    warn_if_not_durable(arguments, &once);
                }
                Ok(())
            }
            Err(NotDone::CommandFailed) => Ok(()),
            Err(NotDone::Library(error)) => Err(error.into()),
        }
    })?;
    ended.unwrap_or_else(|| {
        progress.ended(&format!("`{}` is done", path.display()));
        Ok(Exit::Success)
    })
}

/// Why it is not done.
enum NotDone {
    CommandFailed,
    Library(Error),
}

impl From<Error> for NotDone {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

/// Prints a warning if `--fsync` has no effect. The command has run, so this is no failure.
fn warn_if_not_durable(arguments: &OnceArgs, once: &Once) {
    if arguments.fsync && !once.is_durable() {
        let path = once.path().display();
        exit::print_error(&format!(
            "`{path}`: files cannot be synced here, so a loss of power may undo this"
        ));
    }
}
