//! `flockwork lock`: runs a command while holding a lock, exclusive or shared.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args;
use flockwork::{LockGuard, RwLockReadGuard, RwLockWriteGuard};

use crate::as_flock::FcntlLock;
use crate::command_line;
use crate::create_args::CreateArgs;
use crate::exit::{Exit, Failure, Outcome, WAIT};
use crate::holder_text::quoted_path;
use crate::job::Job;
use crate::progress::{Progress, seconds};
use crate::run_args::RunArgs;
use crate::signals::{LossCheck, Signals};
use crate::wait_args::{Limit, WaitArgs};

const EXAMPLES: &str = "\
Examples:
  flockwork lock /tmp/backup.lock -- tar czf backup.tgz data
  flockwork lock -w 10 deploy.lock -c 'git pull && make install'
  flockwork lock -s config.lock -- cat config.toml
  flockwork lock red.lock green.lock -- ./repaint";

#[derive(Debug, Args)]
#[command(
    override_usage = "flockwork lock [OPTIONS] PATH [--] COMMAND [ARG]...\n       flockwork lock [OPTIONS] PATH -c STRING\n       flockwork lock [OPTIONS] PATH PATH... -- COMMAND [ARG]...",
    after_help = EXAMPLES
)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct LockArgs {
    /// Acquire the lock shared: many readers at a time, or one writer
    #[arg(short, long, conflicts_with = "exclusive")]
    shared: bool,

    /// Acquire the kind of lock that apt, dpkg and passwd use: fcntl(2) on the whole file (Linux)
    #[arg(long, conflicts_with_all = ["label", "no_record", "exclusive", "reentrant"])]
    fcntl: bool,

    /// Acquire the lock exclusively (the default), and take turns with users of -s
    #[arg(short = 'x', visible_short_alias = 'e', long)]
    exclusive: bool,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,

    /// The same as --timeout, for scripts written for flock(1)
    #[arg(
        long = "wait",
        value_name = "SECS",
        value_parser = crate::duration::parse,
        allow_negative_numbers = true,
        hide = true,
        conflicts_with_all = ["seconds", "now"]
    )]
    flock_wait: Option<Duration>,

    /// Do not let the command inherit the lock, so that only flockwork holds it
    #[arg(short = 'o', long)]
    close: bool,

    /// Replace flockwork by the command, which then holds the lock (without a record)
    #[arg(short = 'F', long, conflicts_with_all = ["close", "label", "max_run"])]
    pub(crate) no_fork: bool,

    /// End the command with TERM, and 10 s later with KILL, if the lock is lost: a file server has
    /// dropped it, or its file was replaced. It is checked once a second; exit with 76
    #[arg(long, conflicts_with_all = ["no_fork", "fcntl"])]
    end_on_loss: bool,

    /// If an ancestor of this process holds the lock, run the command without acquiring it
    #[arg(long)]
    reentrant: bool,

    /// Show TEXT to waiters and in `flockwork status`
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<OsString>,

    #[command(flatten)]
    create: CreateArgs,

    /// Do not record the holder in a file beside the path
    #[arg(long, conflicts_with = "label")]
    no_record: bool,

    #[command(flatten)]
    run: RunArgs,

    /// The lock file, which is created with its directories if it is missing, and the command to
    /// run. Several paths are followed by `--`. They are locked in the same order by all processes,
    /// and none stays locked if one is not available in time
    #[arg(value_names = ["PATH", "COMMAND"], trailing_var_arg = true, num_args = 0.., value_hint = clap::ValueHint::AnyPath)]
    pub(crate) words: Vec<OsString>,
}

/// The guard that is held while the command runs.
enum Guard {
    Exclusive(LockGuard),
    Write(RwLockWriteGuard),
    Read(RwLockReadGuard),
    /// A lock by fcntl(2), which the end of this process releases.
    Fcntl(FcntlLock),
}

impl Guard {
    /// Removes the record and then closes the descriptor, so that processes which the command left
    /// running keep the lock.
    fn release(self) -> flockwork::Result<()> {
        match self {
            Self::Exclusive(guard) => guard.unlock(),
            Self::Write(guard) => guard.unlock(),
            Self::Read(guard) => guard.unlock(),
            Self::Fcntl(lock) => {
                drop(lock);
                Ok(())
            }
        }
    }

    /// Whether the guard is known to hold its lock no more.
    fn is_lost(&self) -> bool {
        let still_held = match self {
            Self::Exclusive(guard) => guard.still_held(),
            Self::Write(guard) => guard.still_held(),
            Self::Read(guard) => guard.still_held(),
            Self::Fcntl(_) => Ok(true),
        };
        matches!(still_held, Ok(false))
    }

    fn was_abandoned(&self) -> bool {
        match self {
            Self::Exclusive(guard) => guard.was_abandoned(),
            Self::Write(guard) => guard.was_abandoned(),
            Self::Read(guard) => guard.was_abandoned(),
            Self::Fcntl(_) => false,
        }
    }
}

pub(crate) fn run(arguments: &LockArgs) -> Outcome {
    let no_path = "PATH and COMMAND are missing";
    let (paths, rest) = command_line::paths_and_rest("lock", &arguments.words, no_path)?;
    let job = command_line::job("lock", rest, arguments.run.shell.as_ref())?;
    let job = job.ok_or_else(|| command_line::command_missing("lock", Path::new(&paths[0])))?;
    for path in paths {
        command_line::check("lock", Path::new(path), &job)?;
    }
    let signals = Signals::install()?.max_run(arguments.run.max_run);
    let wait =
        WaitArgs { seconds: arguments.wait.seconds.or(arguments.flock_wait), ..arguments.wait };
    let (limit, progress) = (wait.limit(), wait.progress(""));
    let mut guards = Vec::new();
    for path in in_fixed_order(paths) {
        let progress = progress.of(&quoted_path(path));
        let acquired = if arguments.fcntl {
            acquire_fcntl(arguments, path, limit, &progress)
        } else {
            acquire(arguments, path, limit, &progress)
        };
        match acquired {
            Ok(guard) => guards.push(guard),
            Err(failure) if arguments.reentrant && failure.is_reentrant() => {}
            // The locks that were acquired before are released.
            Err(failure) => return Err(failure),
        }
    }
    if arguments.no_fork {
        return Err(signals.exec(&job));
    }
    let guards = Arc::new(Mutex::new(guards));
    let checked = Arc::clone(&guards);
    let is_lost = move || locked(&checked).iter().any(Guard::is_lost);
    let check: LossCheck = Arc::new(is_lost);
    let signals = signals.end_on_loss(Some(check).filter(|_| arguments.end_on_loss));
    let ended = signals.run(&job);
    let mut released = Ok(());
    let guards = std::mem::take(&mut *locked(&guards));
    for guard in guards.into_iter().rev() {
        released = released.and(guard.release());
    }
    let exit = ended?;
    released?;
    Ok(exit)
}

fn locked(guards: &Mutex<Vec<Guard>>) -> MutexGuard<'_, Vec<Guard>> {
    guards.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The paths in an order that is the same in all processes, so that two of them that name the same
/// paths never deadlock. Each file occurs once.
fn in_fixed_order(paths: &[OsString]) -> Vec<&Path> {
    if let [path] = paths {
        return vec![Path::new(path)];
    }
    let canonical = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
        match (parent, path.file_name()) {
            (Some(parent), Some(name)) => parent.join(name),
            _ => path,
        }
    };
    let paths = paths.iter().map(Path::new);
    let mut ordered: Vec<(PathBuf, &Path)> = Vec::new();
    for path in paths {
        let canonical = canonical(path);
        if let Err(at) = ordered.binary_search_by(|(other, _)| other.cmp(&canonical)) {
            ordered.insert(at, (canonical, path));
        }
    }
    ordered.into_iter().map(|(_, path)| path).collect()
}

/// The command to run.
pub(crate) fn job(arguments: &LockArgs) -> Result<Option<Job>, Failure> {
    let (_, rest) = command_line::paths_and_rest("lock", &arguments.words, "")?;
    command_line::job("lock", rest, arguments.run.shell.as_ref())
}

/// Acquires a lock by fcntl(2), which neither leaves a record nor excludes the other kind of lock.
fn acquire_fcntl(
    arguments: &LockArgs,
    path: &Path,
    limit: Limit,
    progress: &Progress,
) -> Result<Guard, Failure> {
    let mut lock = FcntlLock::open(path, arguments.shared)?;
    let busy = |why: &str| Failure::new(Exit::NotInTime, format!("`{}` {why}", path.display()));
    arguments.wait.run(progress, limit, |limit| {
        if lock.attempt()? {
            return Ok(());
        }
        let deadline = match limit {
            Limit::Now => return Err(busy("is busy").hint(WAIT)),
            Limit::Never => None,
            Limit::At(deadline) => Some(deadline),
        };
        let acquired = progress.show_while(|| lock.wait(deadline))?;
        let (text, waited) = ("stayed busy until the timeout", seconds(progress.waited()));
        if acquired { Ok(()) } else { Err(busy(&format!("{text} after {waited} s"))) }
    })?;
    lock.set_inheritable(arguments.close)?;
    progress.ended(&format!("acquired `{}`", path.display()));
    Ok(Guard::Fcntl(lock))
}

/// Readers and `-x` pass a turnstile, so that writers do not starve. Without `-s` and `-x`, the
/// lock is a plain one unless the turnstile's file exists.
fn acquire(
    arguments: &LockArgs,
    path: &Path,
    limit: Limit,
    progress: &Progress,
) -> Result<Guard, Failure> {
    let wait = &arguments.wait;
    let mut options = arguments.create.options().inherit(cfg!(unix) && !arguments.close);
    // Readers' records are files in a directory that is never removed.
    options =
        options.record_holder(!arguments.no_record && !arguments.shared && !arguments.no_fork);
    if let Some(label) = &arguments.label {
        options = options.label(label.to_string_lossy());
    }
    let options = progress.attach(options);
    let mut turnstile = path.as_os_str().to_os_string();
    turnstile.push(".gate");
    let guard = if arguments.shared {
        let lock = options.open_rwlock(path)?;
        Guard::Read(wait.run_unless_deadlock(progress, limit, true, |limit| {
            Ok(match limit {
                Limit::Now => lock.try_read(),
                Limit::Never => lock.read(),
                Limit::At(deadline) => lock.read_deadline(deadline),
            }?)
        })?)
    } else if arguments.exclusive || Path::new(&turnstile).is_file() {
        let lock = options.open_rwlock(path)?;
        Guard::Write(wait.run_unless_deadlock(progress, limit, false, |limit| {
            Ok(match limit {
                Limit::Now => lock.try_write(),
                Limit::Never => lock.write(),
                Limit::At(deadline) => lock.write_deadline(deadline),
            }?)
        })?)
    } else {
        let lock = options.open_lock(path)?;
        Guard::Exclusive(wait.run_unless_deadlock(progress, limit, false, |limit| {
            Ok(match limit {
                Limit::Now => lock.try_lock(),
                Limit::Never => lock.lock(),
                Limit::At(deadline) => lock.lock_deadline(deadline),
            }?)
        })?)
    };
    progress.ended(&format!("acquired `{}`", path.display()));
    progress.previous_holder_died(guard.was_abandoned(), path);
    Ok(guard)
}
