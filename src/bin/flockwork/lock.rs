//! `flockwork lock`: runs a command while it holds a lock, exclusively or shared.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Args;
use flockwork::{LockGuard, ReadGuard, WriteGuard};

use crate::exit::{Failure, Outcome};
use crate::job::Job;
use crate::made::Made;
use crate::signals::Signals;
use crate::waiting::{Limit, Wait};
use crate::words;

#[derive(Debug, Args)]
#[command(
    override_usage = "flockwork lock [OPTIONS] PATH [--] COMMAND [ARG]...\n       flockwork lock [OPTIONS] PATH -c STRING",
    after_help = crate::args::LOCK_EXAMPLES
)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct LockArgs {
    /// Share it with others who do: many readers, or one writer
    #[arg(short, long, conflicts_with = "exclusive")]
    shared: bool,

    /// Hold it alone, and queue with those who share it (with neither, alone)
    #[arg(short = 'x', visible_short_alias = 'e', long)]
    exclusive: bool,

    #[command(flatten)]
    wait: Wait,

    /// Keep the lock to this process: the command and what it starts do not hold it
    #[arg(short = 'o', long)]
    close: bool,

    /// Say what it is held for, to those who wait and to `flockwork status`
    #[arg(long, value_name = "TEXT")]
    label: Option<OsString>,

    #[command(flatten)]
    made: Made,

    /// Leave no record of who holds it beside the path
    #[arg(long, conflicts_with = "label")]
    no_record: bool,

    /// Run STRING by the shell ($SHELL, or /bin/sh)
    #[arg(short = 'c', long = "command", value_name = "STRING")]
    shell: Option<OsString>,

    /// What to lock (a file, made with its directories if missing), and the command with its arguments
    #[arg(value_name = "PATH [--] COMMAND", trailing_var_arg = true, num_args = 0.., value_hint = clap::ValueHint::AnyPath)]
    words: Vec<OsString>,
}

/// What is held while the command runs.
enum Held {
    Alone(LockGuard),
    Writing(WriteGuard),
    Reading(ReadGuard),
}

pub(crate) fn run(arguments: &LockArgs) -> Outcome {
    let (path, job) = plan(arguments)?;
    let signals = Signals::take()?;
    let held = acquire(arguments, path)?;
    let ended = signals.run(&job);
    // The record first, and then the descriptor: what the command left running holds on.
    let released = match held {
        Held::Alone(held) => held.unlock(),
        Held::Writing(held) => held.unlock(),
        Held::Reading(held) => held.unlock(),
    };
    let exit = ended?;
    released?;
    Ok(exit)
}

/// What to lock and what to run.
fn plan(arguments: &LockArgs) -> Result<(&Path, Job), Failure> {
    let wrong = |what| words::usage("lock", what);
    let nameless = "name a file to lock, and a command to run";
    let (path, rest) = words::path_and_rest("lock", &arguments.words, nameless)?;
    let job = match (&arguments.shell, rest) {
        (Some(string), []) => Job::shell(string),
        (Some(_), _) => return Err(wrong("-c takes one string, and no command besides")),
        (None, [flag, string]) if is_string_flag(flag) => Job::shell(string),
        (None, [flag, ..]) if is_string_flag(flag) => {
            return Err(wrong("-c takes exactly one string"));
        }
        (None, rest) => match words::command("lock", rest)? {
            [] => return Err(wrong("no command to run while it is held")),
            words => Job::new(words)?,
        },
    };
    Ok((path, job))
}

/// flock(1) takes it behind the file.
fn is_string_flag(word: &OsStr) -> bool {
    word == "-c" || word == "--command"
}

/// Who shares passes a gate, so that those who want it alone do not starve; and who wants it alone passes it where there is
/// one. With neither `-s` nor a gate, the file alone will do.
fn acquire(arguments: &LockArgs, path: &Path) -> Result<Held, Failure> {
    let wait = &arguments.wait;
    let mut options = arguments.made.options().inherit(cfg!(unix) && !arguments.close);
    // Each reader's record would be a file in a directory that stays.
    options = options.record_holder(!arguments.no_record && !arguments.shared);
    if let Some(label) = &arguments.label {
        options = options.label(label.to_string_lossy());
    }
    let (options, progress) = wait.tell(options);
    let mut gate = path.as_os_str().to_os_string();
    gate.push(".gate");
    let limit = wait.limit();
    let held = if arguments.shared {
        let lock = options.open_rwlock(path)?;
        Held::Reading(wait.take(&progress, limit, |limit| {
            Ok(match limit {
                Limit::Now => lock.try_read(),
                Limit::Never => lock.read(),
                Limit::At(deadline) => lock.read_deadline(deadline),
            }?)
        })?)
    } else if arguments.exclusive || Path::new(&gate).is_file() {
        let lock = options.open_rwlock(path)?;
        Held::Writing(wait.take(&progress, limit, |limit| {
            Ok(match limit {
                Limit::Now => lock.try_write(),
                Limit::Never => lock.write(),
                Limit::At(deadline) => lock.write_deadline(deadline),
            }?)
        })?)
    } else {
        let lock = options.open_lock(path)?;
        Held::Alone(wait.take(&progress, limit, |limit| {
            Ok(match limit {
                Limit::Now => lock.try_lock(),
                Limit::Never => lock.lock(),
                Limit::At(deadline) => lock.lock_deadline(deadline),
            }?)
        })?)
    };
    progress.ended(&format!("acquired `{}`", path.display()));
    let died = match &held {
        Held::Alone(held) => held.abandoned(),
        Held::Writing(held) => held.abandoned(),
        Held::Reading(held) => held.abandoned(),
    };
    progress.died(died, path);
    Ok(held)
}
