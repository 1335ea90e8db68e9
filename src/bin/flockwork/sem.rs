//! `flockwork sem`: runs a command while it holds a permit of a semaphore.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use flockwork::{Options, Permit, Semaphore};

use crate::count::Count;
use crate::exit::{Exit, Failure, NAME_FIRST, Outcome};
use crate::job::Job;
use crate::made::Made;
use crate::names;
use crate::progress::Progress;
use crate::signals::{self, Signals};
use crate::waiting::{Limit, Wait};
use crate::words;

#[derive(Debug, Args)]
#[command(
    override_usage = "flockwork sem [OPTIONS] PATH [--] COMMAND [ARG]...\n       flockwork sem [OPTIONS] --id NAME [--] COMMAND [ARG]...\n       flockwork sem --wait (PATH | --id NAME)",
    after_help = crate::args::SEM_EXAMPLES
)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct SemArgs {
    /// How many permits there are, kept with the semaphore: a number, 50% of the processors, +1 or -1 beside them [default: as it
    /// is; 1 if it is new]
    #[arg(
        short = 'j',
        visible_short_alias = 'P',
        long = "jobs",
        visible_alias = "max-procs",
        value_name = "N",
        value_parser = crate::count::parse,
        allow_hyphen_values = true
    )]
    jobs: Option<Count>,

    /// The semaphore of this name, in the user's runtime directory
    #[arg(long, visible_aliases = ["semaphore-name", "semaphorename"], value_name = "NAME")]
    id: Option<OsString>,

    /// Take so many permits at once
    #[arg(
        short = 'k',
        long = "permits",
        value_name = "SLOTS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true
    )]
    permits: u32,

    #[command(flatten)]
    wait: Wait,

    /// Wait for the command and exit as it does (the default)
    #[arg(long)]
    fg: bool,

    /// Return as soon as the command runs; nobody learns its exit code
    #[arg(long, conflicts_with = "fg")]
    bg: bool,

    /// Wait until all that hold a permit now, or waited before this, have given it back; run nothing
    #[arg(long = "wait", conflicts_with_all = ["bg", "fg", "resize"])]
    drain: bool,

    /// Change the number of permits, for everybody, to that of -j
    #[arg(long, requires = "jobs")]
    resize: bool,

    /// Say what a permit is held for, to those who wait and to `flockwork status`
    #[arg(long, value_name = "TEXT")]
    label: Option<OsString>,

    #[command(flatten)]
    made: Made,

    /// Keep the permit to this process: the command and what it starts do not hold it
    #[arg(short = 'o', long)]
    close: bool,

    /// The semaphore (a directory, made if it is missing) unless --id names it, and the command to run with its arguments
    #[arg(value_name = "PATH [--] COMMAND", trailing_var_arg = true, num_args = 0.., value_hint = clap::ValueHint::AnyPath)]
    words: Vec<OsString>,
}

pub(crate) fn run(arguments: &SemArgs) -> Outcome {
    let (path, words) = place(arguments)?;
    let missing = |what| words::usage("sem", what);
    if arguments.drain {
        if !words.is_empty() {
            return Err(missing("--wait runs no command"));
        }
        return drain(arguments, &path);
    }
    if words.is_empty() {
        if arguments.resize {
            signals::end_when_told()?;
            open(arguments, &path, &arguments.made.options())?;
            return Ok(Exit::Success);
        }
        return Err(missing("no command to run while a permit is held"));
    }
    let job = Job::new(words)?;
    if arguments.bg {
        return background::start(&job);
    }
    let signals = Signals::take()?;
    let background = background::Starter::watch()?;
    let permit = acquire(arguments, &path)?;
    let slots: Vec<_> = permit.slots().iter().map(ToString::to_string).collect();
    let mut job = job.with_environment("FLOCKWORK_SLOT", slots.join(","));
    if background.is_some() {
        job = job.without_input().without(background::STARTER);
    }
    let ended = signals.start(&job).and_then(|child| {
        if let Some(starter) = background {
            starter.has_started();
        }
        signals.finish(child)
    });
    let released = permit.release();
    let exit = ended?;
    released?;
    Ok(exit)
}

/// Where the semaphore lies, and the words of the command.
fn place(arguments: &SemArgs) -> Result<(PathBuf, &[OsString]), Failure> {
    if let Some(name) = &arguments.id {
        return Ok((names::path(name)?, &arguments.words));
    }
    let nameless = "name a semaphore, by a path or by --id NAME";
    let (path, rest) = words::path_and_rest("sem", &arguments.words, nameless)?;
    Ok((path.into(), words::command("sem", rest)?))
}

fn open(arguments: &SemArgs, path: &Path, options: &Options) -> Result<Semaphore, Failure> {
    if is_somebody_elses(path) {
        return Err(Failure::new(
            Exit::CannotOpen,
            format!(
                "`{}` is a directory with other things in it, and no semaphore",
                path.display()
            ),
        )
        .hint(NAME_FIRST));
    }
    let asked = arguments.jobs.map(Count::here);
    let opened = match asked {
        // Whoever comes first makes it, however many come.
        Some(permits) => options.open_semaphore(path, permits),
        None => match options.open_existing_semaphore(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                options.open_semaphore(path, 1)
            }
            opened => opened,
        },
    };
    match opened {
        Err(flockwork::Error::CapacityMismatch { requested, .. }) if arguments.resize => {
            let semaphore = options.open_existing_semaphore(path)?;
            semaphore.resize(requested)?;
            Ok(semaphore)
        }
        opened => Ok(opened?),
    }
}

/// Whether it is a directory that is no semaphore and none that is being created: perhaps a word of the
/// command stands in the place of the path.
fn is_somebody_elses(path: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(path) else { return false };
    let is_foreign = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| !is_a_semaphores(&entry.file_name().to_string_lossy()))
    };
    let has_no_capacity = || {
        std::fs::symlink_metadata(path.join("capacity"))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    // Looked at once more last: another process may have created it meanwhile.
    has_no_capacity() && entries.any(is_foreign) && has_no_capacity()
}

/// The names of the files that a semaphore has before its `capacity`.
fn is_a_semaphores(name: &str) -> bool {
    matches!(name, "gate" | "waiters" | "queued" | "resized" | ".slots")
        || name.starts_with("slot.")
        || name.starts_with(".flockwork.")
}

fn acquire(arguments: &SemArgs, path: &Path) -> Result<Permit, Failure> {
    let wait = &arguments.wait;
    let mut options =
        arguments.made.options().inherit(cfg!(unix) && !arguments.close).record_holder(true);
    if let Some(label) = &arguments.label {
        options = options.label(label.to_string_lossy());
    }
    let (options, progress) = wait.tell(options);
    let semaphore = open(arguments, path, &options)?;
    let permits = arguments.permits;
    let permit = acquire_many(wait, &progress, wait.limit(), &semaphore, permits)?;
    let plural = if permits == 1 { "" } else { "s" };
    progress.ended(&format!("acquired {permits} permit{plural} of `{}`", path.display()));
    Ok(permit)
}

fn acquire_many(
    wait: &Wait,
    progress: &Progress,
    limit: Limit,
    semaphore: &Semaphore,
    permits: u32,
) -> Result<Permit, Failure> {
    wait.take(progress, limit, |limit| {
        Ok(match limit {
            Limit::Now => semaphore.try_acquire_many(permits),
            Limit::Never => semaphore.acquire_many(permits),
            Limit::At(deadline) => semaphore.acquire_many_deadline(permits, deadline),
        }?)
    })
}

/// Whoever waits came before, or comes after: first come, first served. So when all permits are had at once, all who came
/// before have given theirs back.
fn drain(arguments: &SemArgs, path: &Path) -> Outcome {
    let wait = &arguments.wait;
    if !path.try_exists().unwrap_or(true) {
        return Ok(Exit::Success); // nobody has ever had one
    }
    let (options, progress) = wait.tell(Options::new());
    let semaphore = options.open_existing_semaphore(path)?;
    signals::end_when_told()?;
    let limit = wait.limit();
    loop {
        let all = semaphore.capacity()?;
        match acquire_many(wait, &progress, limit, &semaphore, all) {
            Ok(taken) => {
                let is_more = semaphore.capacity()? > all;
                taken.release()?;
                if !is_more {
                    progress.ended(&format!("all permits of `{}` were free", path.display()));
                    return Ok(Exit::Success);
                } // somebody made it larger: who came before may have had one of the new ones
            }
            // Somebody made it smaller meanwhile.
            Err(failure) if failure.exit == Exit::Usage && semaphore.capacity()? < all => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// `--bg`: this program once more, which stays with the command; and a line between the two, on which it says that the
/// command runs. Should the starter be gone before that, nothing is run any more.
#[cfg(unix)]
mod background {
    use std::io::{Read as _, Write as _};
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::exit::{Exit, Failure, Outcome};
    use crate::job::{Job, exit_of};

    /// Names the process that waits for this one to say that the command runs. Not for what the command starts.
    pub(super) const STARTER: &str = "FLOCKWORK_STARTER";

    pub(super) fn start(job: &Job) -> Outcome {
        let failed = |error: std::io::Error| {
            let name = job.program().to_string_lossy();
            Failure::new(Exit::System, format!("could not run `{name}` in the background: {error}"))
        };
        let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        // Whatever its file is called: by the name `flock` it would be flock(1).
        std::os::unix::process::CommandExt::arg0(&mut command, "flockwork");
        // Its own words, but for the one that brought us here: the first of its kind, before any of the command's.
        let mut words: Vec<_> = std::env::args_os().skip(1).collect();
        if let Some(at) = words.iter().position(|word| word == "--bg") {
            words.remove(at);
        }
        command.args(words);
        command.env(STARTER, std::process::id().to_string());
        let mut child = command.stdin(OwnedFd::from(theirs)).spawn().map_err(failed)?;
        drop(command); // and with it our copy of their end
        match ours.read(&mut [0]) {
            Ok(1) => Ok(Exit::Success),
            _ => child.wait().map(exit_of).map_err(failed),
        }
    }

    /// Who started this process, on the other end of its standard input.
    pub(super) struct Starter {
        line: UnixStream,
        is_over: Arc<AtomicBool>,
    }

    impl Starter {
        /// If there is one.
        pub(super) fn watch() -> Result<Option<Self>, Failure> {
            if std::env::var_os(STARTER).is_none() {
                return Ok(None);
            }
            let failed = |error: std::io::Error| {
                Failure::new(
                    Exit::System,
                    format!("could not listen to the process that started this: {error}"),
                )
            };
            let line = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
            let line = UnixStream::from(line);
            let mut heard = line.try_clone().map_err(failed)?;
            let is_over = Arc::new(AtomicBool::new(false));
            let shared = Arc::clone(&is_over);
            let wait = move || {
                let _ = heard.read(&mut [0]);
                if !shared.load(Ordering::SeqCst) {
                    std::process::exit(Exit::NotInTime.code()); // it gave up, or was killed
                }
            };
            std::thread::Builder::new()
                .name("flockwork-starter".into())
                .spawn(wait)
                .map_err(failed)?;
            Ok(Some(Self { line, is_over }))
        }

        pub(super) fn has_started(mut self) {
            self.is_over.store(true, Ordering::SeqCst);
            let _ = self.line.write_all(b".");
            let _ = self.line.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[cfg(not(unix))]
mod background {
    use crate::exit::{Failure, Outcome};
    use crate::job::Job;

    pub(super) fn start(_job: &Job) -> Outcome {
        Err(Failure::usage(
            "sem: --bg is not there on this system; start it in the background yourself (`start /b flockwork sem ...`)",
        ))
    }

    pub(super) const STARTER: &str = "FLOCKWORK_STARTER";

    pub(super) struct Starter;

    impl Starter {
        pub(super) fn watch() -> Result<Option<Self>, Failure> {
            Ok(None)
        }

        pub(super) fn has_started(self) {}
    }
}
