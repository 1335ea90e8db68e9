//! `flockwork sem`: runs a command while holding permits of a semaphore.

#[cfg(unix)]
pub(crate) mod background;
#[cfg(not(unix))]
#[path = "background_non_unix.rs"]
pub(crate) mod background;
pub(crate) mod drain;
pub(crate) mod group;
mod jobs;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use background::Starter;
use clap::Args;
use group::Group;
use jobs::Registration;

use flockwork::{ErrorKind, Options, Permit, Semaphore};

use crate::command_line;
use crate::create_args::CreateArgs;
use crate::deadlock;
use crate::exit::{self, Exit, Failure, NAME_FIRST, Outcome};
use crate::holder_text::{quoted, quoted_path};
use crate::id;
use crate::job::Job;
use crate::permits::PermitCount;
use crate::progress::Progress;
use crate::run_args::RunArgs;
use crate::signals::{self, Signals};
use crate::wait_args::{Limit, WaitArgs};

const EXAMPLES: &str = "\
Examples:
  find . -name '*.c' | xargs -P 16 -n 1 flockwork sem -j 4 --id cc -- cc -c
  flockwork sem -j 50% /tmp/heavy -- make test
  flockwork sem --bg -j 2 --id fetch -- curl -O URL; flockwork sem --id fetch --wait";

#[derive(Debug, Args)]
#[command(
    override_usage = "flockwork sem [OPTIONS] PATH [--] COMMAND [ARG]...\n       flockwork sem [OPTIONS] --id NAME [--] COMMAND [ARG]...\n       flockwork sem [OPTIONS] (PATH | --id NAME) -c STRING\n       flockwork sem --wait (PATH | --id NAME)",
    after_help = EXAMPLES
)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct SemArgs {
    /// The number of permits, which is stored with the semaphore: a number, or relative to the
    /// processors, such as 50%, +1 or -1 [default: the stored number, or 1 for a new semaphore]
    #[arg(
        short = 'j',
        visible_short_alias = 'P',
        long = "jobs",
        visible_alias = "max-procs",
        value_name = "N",
        value_parser = crate::permits::parse,
        allow_hyphen_values = true
    )]
    pub(crate) jobs: Option<PermitCount>,

    /// Use the semaphore NAME of this user, which is the same in cron, sudo and ssh
    #[arg(long, visible_aliases = ["semaphore-name", "semaphorename"], value_name = "NAME")]
    pub(crate) id: Option<OsString>,

    /// Acquire SLOTS permits at once
    #[arg(
        short = 'k',
        long = "permits",
        value_name = "SLOTS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true
    )]
    pub(crate) permits: u32,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,

    /// Wait for the command and exit with its code (the default)
    #[arg(long)]
    pub(crate) fg: bool,

    /// Return as soon as the command has started; --wait reports whether it fails
    #[arg(long, conflicts_with = "fg")]
    pub(crate) bg: bool,

    /// Wait until the jobs that now hold or request permits have ended, and exit with the number of
    /// --bg jobs of this session that failed (at most 101)
    #[arg(long = "wait", conflicts_with_all = ["bg", "fg", "resize"])]
    pub(crate) drain: bool,

    /// With --bg, put the job into the group NAME; with --wait, count its failed jobs instead of
    /// those of this session
    #[arg(long, value_name = "NAME", conflicts_with_all = ["fg", "resize"])]
    pub(crate) group: Option<OsString>,

    /// Change the stored number of permits to that of -j; 0 pauses the semaphore: commands that run
    /// continue, and none starts until the number is changed again
    #[arg(long, requires = "jobs")]
    pub(crate) resize: bool,

    /// If an ancestor of this process holds all permits, run the command without acquiring more
    #[arg(long)]
    pub(crate) reentrant: bool,

    /// Show TEXT to waiters and in `flockwork status`
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<OsString>,

    #[command(flatten)]
    pub(crate) create: CreateArgs,

    /// Do not let the command inherit the permit, so that only flockwork holds it
    #[arg(short = 'o', long)]
    pub(crate) close: bool,

    #[command(flatten)]
    pub(crate) run: RunArgs,

    /// The semaphore's directory, which is created if it is missing (omit it with --id), and the
    /// command to run
    #[arg(value_names = ["PATH", "COMMAND"], trailing_var_arg = true, num_args = 0.., value_hint = clap::ValueHint::AnyPath)]
    pub(crate) words: Vec<OsString>,
}

/// The variable with the numbers of the slots that a job holds.
const SLOT: &str = "FLOCKWORK_SLOT";

impl SemArgs {
    /// Whether there is no command, so that nothing waits.
    pub(crate) fn only_resizes(&self) -> bool {
        self.resize && self.words.len() <= 1 && self.run.shell.is_none()
    }
}

/// The number of permits of a paused semaphore.
const PAUSE: PermitCount = PermitCount::Fixed(0);

/// How long a job waits before its progress is shown. A wait is normal here, and many jobs often
/// wait at the same time.
const DELAY: Duration = Duration::from_secs(10);

/// The command to run.
pub(crate) fn job(arguments: &SemArgs) -> Result<Option<Job>, Failure> {
    let rest = path_and_rest(arguments)?.1;
    command_line::job("sem", rest, arguments.run.shell.as_ref())
}

pub(crate) fn run(arguments: &SemArgs) -> Outcome {
    let (path, rest) = path_and_rest(arguments)?;
    let job = command_line::job("sem", rest, arguments.run.shell.as_ref())?;
    if arguments.drain {
        if job.is_some() {
            return Err(command_line::usage("sem", "--wait cannot be used with COMMAND"));
        }
        let group = Group::of(arguments.group.as_deref())?;
        return drain::run(&arguments.wait, &path, &subject(arguments, &path), &group);
    }
    if arguments.group.is_some() && !arguments.bg {
        return Err(command_line::usage("sem", "--group requires --bg or --wait"));
    }
    if arguments.jobs == Some(PAUSE) && (!arguments.resize || job.is_some()) {
        let problem =
            "-j must be at least 1 (0 pauses the semaphore, with --resize and no COMMAND)";
        return Err(command_line::usage("sem", problem));
    }
    if let Some(job) = &job {
        command_line::check("sem", &path, job)?;
    }
    if let Some(name) = arguments.id.as_ref().filter(|_| job.is_some() || arguments.resize) {
        id::create_directory(name)?;
    }
    let Some(job) = job else {
        if arguments.resize {
            signals::end_on_signals()?;
            open(arguments, &path, &arguments.create.options())?;
            return Ok(Exit::Success);
        }
        return Err(command_line::command_missing("sem", &path));
    };
    let group = if arguments.bg { Some(Group::of(arguments.group.as_deref())?) } else { None };
    if arguments.bg && !background::is_started() {
        let warns = !arguments.wait.quiet;
        return background::start(&job, background::CommandLine::own(), warns);
    }
    run_job(arguments, &path, job, group.as_ref(), false, || ())
}

/// Waits for the permits and runs the job, in this process or in one that was started for it. The
/// latter reads the input of its starter, or none. `at_end` is called before the permits are
/// released.
pub(crate) fn run_job(
    arguments: &SemArgs,
    path: &Path,
    mut job: Job,
    group: Option<&Group>,
    reads_input: bool,
    at_end: impl FnOnce(),
) -> Outcome {
    let signals = Signals::install()?.max_run(arguments.run.max_run);
    let mut starter = if arguments.bg { Starter::watch(reads_input)? } else { None };
    let wait = &arguments.wait;
    let progress = wait.progress(&subject(arguments, path)).after(DELAY);
    let options = progress.attach(holder_options(arguments));
    let semaphore = open(arguments, path, &options)?;
    let registration = register(arguments, path, group);
    let permit = match acquire(arguments, &progress, &semaphore) {
        Err(failure) if arguments.reentrant && failure.is_reentrant() => None,
        acquired => Some(acquired?),
    };
    if let Some(name) = &arguments.id {
        id::protect(name);
    }
    if let Some(permit) = &permit {
        let slots: Vec<_> = permit.slots().iter().map(ToString::to_string).collect();
        job = job.with_environment(SLOT, slots.join(","));
    }
    if let Some(starter) = &mut starter {
        job = job.without_environment(background::STARTER);
        job = match starter.input.take() {
            Some(input) => job.with_input(input),
            None => job.without_input(),
        };
    }
    if let Some(registration) = &registration {
        registration.starts();
    }
    let mut is_started = false;
    let ended = signals.start(&job).and_then(|child| {
        is_started = true;
        if let Some(starter) = starter {
            starter.notify();
        }
        signals.finish(child)
    });
    at_end();
    let released = permit.map_or(Ok(()), Permit::release);
    if let Some(registration) = registration {
        let exit = ended.as_ref().map_or_else(|failure| failure.exit, |exit| *exit);
        registration.ended(is_started.then_some(exit));
    }
    let exit = ended?;
    released?;
    Ok(exit)
}

/// Registers the job of this process, so that `--wait` waits for it.
fn register(arguments: &SemArgs, path: &Path, group: Option<&Group>) -> Option<Registration> {
    let options = arguments.create.options().inherit(cfg!(unix) && !arguments.close);
    let registration = Registration::new(path, group, &options);
    if registration.is_none() && group.is_some() && !arguments.wait.quiet {
        exit::print_error("no file could be created for the job: --wait will not count it");
    }
    registration
}

/// The path of the semaphore, and the words that follow it.
fn path_and_rest(arguments: &SemArgs) -> Result<(PathBuf, &[OsString]), Failure> {
    if let Some(name) = &arguments.id {
        return Ok((id::path(name)?, &arguments.words));
    }
    let no_path = "PATH or --id NAME is missing";
    let (path, rest) = command_line::path_and_rest("sem", &arguments.words, no_path)?;
    Ok((path.into(), rest))
}

/// The semaphore as the user typed it.
fn subject(arguments: &SemArgs, path: &Path) -> String {
    match &arguments.id {
        Some(name) => format!("--id {}", quoted([name].into_iter())),
        None => quoted_path(path),
    }
}

fn open(arguments: &SemArgs, path: &Path, options: &Options) -> Result<Semaphore, Failure> {
    // A wait is ended in another way if the file server does not respond.
    let is_unrelated = if arguments.only_resizes() {
        flockwork::_command::ask(path, is_unrelated_directory)?
    } else {
        is_unrelated_directory(path)
    };
    if is_unrelated {
        return Err(Failure::new(
            Exit::CannotOpen,
            format!("`{}` is a directory with other files in it, not a semaphore", path.display()),
        )
        .hint(NAME_FIRST));
    }
    let requested = arguments.jobs.map(PermitCount::on_this_machine);
    // A number relative to the processors has another value elsewhere, for example in a container.
    let is_fixed = matches!(arguments.jobs, Some(PermitCount::Fixed(_)));
    let opened = match requested {
        // Nothing is created to be paused.
        Some(0) => options.open_existing_semaphore(path),
        // If several processes start at the same time, one of them creates it.
        Some(permits) if is_fixed || arguments.resize => options.open_semaphore(path, permits),
        _ => match options.open_existing_semaphore(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                open_as_created(options, path, requested.unwrap_or(1))
            }
            opened => opened,
        },
    };
    match opened {
        // A paused semaphore is opened with any number.
        Ok(semaphore) => {
            if let Some(requested) = requested.filter(|_| arguments.resize) {
                if semaphore.capacity()? != requested {
                    semaphore.set_capacity(requested)?;
                }
            }
            Ok(semaphore)
        }
        Err(error) => match (error.kind(), requested) {
            (ErrorKind::CapacityMismatch, Some(requested)) if arguments.resize => {
                let semaphore = options.open_existing_semaphore(path)?;
                semaphore.set_capacity(requested)?;
                Ok(semaphore)
            }
            (ErrorKind::CapacityMismatch, Some(requested)) => {
                let advice = match error.capacity() {
                    Some(stored) => format!("use -j {stored}, omit -j, or"),
                    None => "omit -j, or".into(),
                };
                let subject = subject(arguments, path);
                Err(Failure::from(error).hint(format!(
                    "{advice} change the number with `flockwork sem --resize -j {requested} {subject}`"
                )))
            }
            // The error is about the path itself, not about a file of the semaphore.
            (ErrorKind::NotRegularFile, _) if error.path().file_name() == path.file_name() => {
                Err(Failure::from(error).hint(NAME_FIRST))
            }
            _ => Err(error.into()),
        },
    }
}

/// Creates the semaphore. If another process creates it at the same time with another number, that
/// number counts.
fn open_as_created(options: &Options, path: &Path, permits: u32) -> flockwork::Result<Semaphore> {
    match options.open_semaphore(path, permits) {
        Err(error) if error.kind() == ErrorKind::CapacityMismatch => {
            options.open_existing_semaphore(path)
        }
        opened => opened,
    }
}

/// Whether the path is a directory that is neither a semaphore nor about to become one. A user who
/// forgets the path may have given a word of the command instead.
fn is_unrelated_directory(path: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(path) else { return false };
    let is_foreign = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| !is_semaphore_file(&entry.file_name().to_string_lossy()))
    };
    let has_no_capacity = || {
        std::fs::symlink_metadata(path.join("capacity"))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    // The second check is for a semaphore that another process has just created.
    has_no_capacity() && entries.any(is_foreign) && has_no_capacity()
}

/// Whether a semaphore creates a file of that name before its `capacity`.
fn is_semaphore_file(name: &str) -> bool {
    matches!(name, "gate" | "waiters" | "queued" | "resized" | "changed" | "queue" | ".slots")
        || name.starts_with("fifo.")
        || name.starts_with("slot.")
        || name.starts_with(".flockwork.")
}

fn holder_options(arguments: &SemArgs) -> Options {
    let options =
        arguments.create.options().inherit(cfg!(unix) && !arguments.close).record_holder(true);
    match &arguments.label {
        Some(label) => options.label(label.to_string_lossy()),
        None => options,
    }
}

fn acquire(
    arguments: &SemArgs,
    progress: &Progress,
    semaphore: &Semaphore,
) -> Result<Permit, Failure> {
    let (wait, permits) = (&arguments.wait, arguments.permits);
    refuse_deadlock(semaphore, permits, false)?;
    let permit = acquire_many(wait, progress, wait.limit(), semaphore, permits)?;
    let plural = if permits == 1 { "" } else { "s" };
    progress
        .ended(&format!("acquired {permits} permit{plural} of `{}`", semaphore.path().display()));
    Ok(permit)
}

/// Fails if too few permits remain beside those that the ancestors of this process hold. Only the
/// jobs of a semaphore have such ancestors, and they have its variable.
fn refuse_deadlock(semaphore: &Semaphore, permits: u32, is_drain: bool) -> Result<(), Failure> {
    if std::env::var_os(SLOT).is_none() {
        return Ok(());
    }
    let holders = semaphore.holders()?;
    let ancestors = deadlock::ancestors(&holders);
    let held = u32::try_from(ancestors.len()).unwrap_or(u32::MAX);
    let capacity = semaphore.capacity()?;
    // How many permits there will be after a pause is not known.
    if held == 0 || capacity == 0 || capacity.saturating_sub(held) >= permits {
        return Ok(());
    }
    Err(deadlock::failure(&ancestors, held >= permits && !is_drain))
}

fn acquire_many(
    wait: &WaitArgs,
    progress: &Progress,
    limit: Limit,
    semaphore: &Semaphore,
    permits: u32,
) -> Result<Permit, Failure> {
    wait.run(progress, limit, |limit| {
        Ok(match limit {
            Limit::Now => semaphore.try_acquire_many(permits),
            Limit::Never => semaphore.acquire_many(permits),
            Limit::At(deadline) => semaphore.acquire_many_deadline(permits, deadline),
        }?)
    })
}
