//! `flockwork once`: runs a command once, however many processes ask for it.

use std::ffi::OsString;

use clap::Args;
use flockwork::{Error, Once};

use crate::command_line;
use crate::create_args::CreateArgs;
use crate::exit::{self, Exit, Failure, Outcome};
use crate::holder_text::quoted_path;
use crate::job::Job;
use crate::run_args::RunArgs;
use crate::signals::{self, Signals};
use crate::wait_args::{Limit, WaitArgs};

const EXAMPLES: &str = "\
Examples:
  flockwork once ~/.cache/tool/unpacked -- tar xzf tool.tgz -C ~/.cache/tool
  flockwork once --reset ~/.cache/tool/unpacked";

#[derive(Debug, Args)]
#[command(
    override_usage = "flockwork once [OPTIONS] PATH [--] COMMAND [ARG]...\n       flockwork once [OPTIONS] PATH -c STRING\n       flockwork once --reset PATH",
    after_help = EXAMPLES
)]
pub(crate) struct OnceArgs {
    #[command(flatten)]
    pub(crate) wait: WaitArgs,

    /// Show TEXT to waiters and in `flockwork status`
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<OsString>,

    /// If an ancestor of this process holds the lock, run the command without acquiring it
    #[arg(long)]
    reentrant: bool,

    /// Sync all files to the disk before PATH is created
    #[arg(long)]
    fsync: bool,

    #[command(flatten)]
    create: CreateArgs,

    /// Remove PATH, so that the next caller runs its command again
    #[arg(long)]
    reset: bool,

    #[command(flatten)]
    run: RunArgs,

    /// The file that is created when the command has succeeded (its lock is PATH.flock), and the
    /// command to run
    #[arg(value_names = ["PATH", "COMMAND"], trailing_var_arg = true, num_args = 0.., value_hint = clap::ValueHint::AnyPath)]
    pub(crate) words: Vec<OsString>,
}

/// The command to run.
pub(crate) fn job(arguments: &OnceArgs) -> Result<Option<Job>, Failure> {
    let (_, rest) = command_line::path_and_rest("once", &arguments.words, "")?;
    command_line::job("once", rest, arguments.run.shell.as_ref())
}

pub(crate) fn run(arguments: &OnceArgs) -> Outcome {
    let no_path = "PATH and COMMAND are missing";
    let (path, rest) = command_line::path_and_rest("once", &arguments.words, no_path)?;
    let job = command_line::job("once", rest, arguments.run.shell.as_ref())?;
    let wait = &arguments.wait;
    let mut options =
        arguments.create.options().inherit(cfg!(unix)).record_holder(true).fsync(arguments.fsync);
    if let Some(label) = &arguments.label {
        options = options.label(label.to_string_lossy());
    }
    let progress = wait.progress(&quoted_path(path));
    let options = progress.attach(options);
    if arguments.reset {
        if job.is_some() {
            return Err(command_line::usage("once", "--reset cannot be used with COMMAND"));
        }
        signals::end_wait_on_signals()?;
        let once = options.open_once(path)?;
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
    let job = job.ok_or_else(|| command_line::command_missing("once", path))?;
    command_line::check("once", path, &job)?;
    let signals = Signals::install()?.max_run(arguments.run.max_run);
    let once = options.open_once(path)?;
    // The result of the command, if this process runs it.
    let mut ended = None;
    let mut run = || -> Result<(), NotDone> {
        progress.ended(&format!("acquired `{}`", path.display()));
        let outcome = signals.run(&job);
        let is_done = matches!(outcome, Ok(Exit::Other(0)));
        ended = Some(outcome);
        if is_done { Ok(()) } else { Err(NotDone::CommandFailed) }
    };
    let called = wait.run_unless_deadlock(&progress, wait.limit(), false, |limit| {
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
    });
    if let Err(failure) = called {
        let runs_anyway = arguments.reentrant && failure.is_reentrant();
        return if runs_anyway { signals.run(&job) } else { Err(failure) };
    }
    ended.unwrap_or_else(|| {
        progress.ended(&format!("`{}` is done", path.display()));
        Ok(Exit::Success)
    })
}

/// Why the command is not done.
enum NotDone {
    CommandFailed,
    Library(Error),
}

impl From<Error> for NotDone {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

/// Warns if `--fsync` had no effect. This is not a failure, since the command has run.
fn warn_if_not_durable(arguments: &OnceArgs, once: &Once) {
    if arguments.fsync && !once.is_durable() {
        let path = once.path().display();
        exit::print_error(&format!(
            "`{path}` was not synced to the disk, since its file system does not support it"
        ));
    }
}
