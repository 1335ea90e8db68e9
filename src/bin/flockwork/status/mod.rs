//! `flockwork status`: shows the state, the holders and the waiters of locks, semaphores, events
//! and barriers.

mod clock;
mod json;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod kernel;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "kernel_non_linux.rs"]
mod kernel;
mod process;
mod screen;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use flockwork::{Status, StatusKind};

use crate::command_line;
use crate::exit::{Exit, Failure, Outcome};
use crate::{id, live_line, output, signals};
use kernel::LockList;
use process::Process;
use screen::Screen;

const EXAMPLES: &str = "\
Examples:
  flockwork status /tmp/backup.lock
  flockwork status --json --id cc
  flockwork status --watch deploy.lock

--json prints an array with an object for each path, and for PATH.flock if it exists (the lock
of `once`, SharedFile and consumed events). Each object has version (1), path, kind (missing,
file, semaphore or barrier), held, holders, waiters (in their order), removed (holders of a
removed file of that name) and lost (processes of this host that count themselves as holders,
although a file server has dropped their lock). A file also has shared and bytes. A file and a
missing path have set (as an event) and done (as a once). A semaphore has permits, available
and slots (those that are held). A barrier has participants, arrived (those that wait) and
broken.
A holder has pid, pid_namespace, same_pid_namespace, host, user, command, label, since (RFC
3339), slot, shared and fcntl, which are null if unknown. Use its pid, for example with kill,
only if same_pid_namespace is true: other containers and hosts number their processes separately.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    /// Print JSON: an array with an object for each path
    #[arg(long)]
    json: bool,

    /// Print nothing; exit with 0 if a lock or permit is held, 1 if all are free, and 2 if no PATH
    /// exists
    #[arg(short = 'q', long, conflicts_with_all = ["json", "watch"])]
    quiet: bool,

    /// Print the status until interrupted: redraw it on a terminal, or else print it when it
    /// changes
    #[arg(long)]
    watch: bool,

    /// Lock files, semaphores, events or barriers. Without PATH and --id, everything that this user
    /// holds or waits for is shown (on Linux), and all semaphores of --id
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// The semaphore NAME of this user
    #[arg(long, value_name = "NAME")]
    id: Vec<std::ffi::OsString>,
}

/// The status of a path, which is printed as given.
#[derive(Debug)]
struct PathStatus {
    path: PathBuf,
    status: Status,
    holders: Vec<Process>,
    waiters: Vec<Process>,
    /// The processes that do not know that a file server has dropped their lock.
    lost: Vec<Process>,
    /// The holders of a file that was removed from the path.
    removed: Vec<Process>,
    /// The lock beside the path, if there is one.
    sidecar: Option<Sidecar>,
}

/// The state of `PATH.flock`, the lock of a `once`, a data file or an event that is consumed.
#[derive(Debug, PartialEq)]
struct Sidecar {
    is_held: bool,
    holders: Vec<Process>,
    waiters: Vec<Process>,
    lost: Vec<Process>,
    /// Whether it is the lock of a data file.
    is_data_file: bool,
}

/// Whether both are shown alike.
impl PartialEq for PathStatus {
    fn eq(&self, other: &Self) -> bool {
        fn state(seen: &PathStatus) -> impl PartialEq {
            let status = &seen.status;
            let flags = (status.is_held(), status.is_set(), status.is_broken());
            (
                status.kind(),
                status.capacity(),
                status.held_slots().to_vec(),
                status.payload_len(),
                flags,
            )
        }
        self.path == other.path
            && state(self) == state(other)
            && self.holders == other.holders
            && self.waiters == other.waiters
            && self.lost == other.lost
            && self.removed == other.removed
            && self.sidecar == other.sidecar
    }
}

impl PathStatus {
    /// Each call that asks a file server is limited.
    fn inspect(path: &Path, locks: &Arc<LockList>) -> Result<Self, Failure> {
        let mut status = flockwork::inspect(path)?;
        let all = Arc::clone(locks);
        let mut removed = ask(path, move |path| all.removed(path))?;
        if !status.is_held() && removed.is_empty() && status.lost_holders().is_empty() {
            if let Some(holders) = ask(path, recorded_holders)? {
                // A process may have acquired the lock in the meantime.
                status = flockwork::inspect(path)?;
                removed = if status.is_held() { Vec::new() } else { holders };
            }
        }
        let mut holders: Vec<_> = status.holders().iter().map(Process::holder).collect();
        let mut waiters: Vec<_> = status.waiters().iter().map(Process::waiter).collect();
        let lost = status.lost_holders().iter().map(Process::holder).collect();
        // The other kind of lock, which flockwork acquires only with `lock --fcntl`.
        let (all, is_held) = (Arc::clone(locks), status.is_held());
        let others = ask(path, move |path| all.fcntl(path, is_held))?;
        holders.extend(others.holders);
        waiters.extend(others.waiters);
        Ok(Self { path: path.into(), status, holders, waiters, lost, removed, sidecar: None })
    }

    /// Whether a process holds the path, by either kind of lock.
    fn is_held(&self) -> bool {
        self.status.is_held() || self.holders.iter().any(|holder| holder.is_fcntl)
    }

    fn all_waiters(&self) -> impl Iterator<Item = &Process> {
        self.waiters.iter().chain(self.sidecar.iter().flat_map(|sidecar| &sidecar.waiters))
    }

    fn all_lost(&self) -> impl Iterator<Item = &Process> {
        self.lost.iter().chain(self.sidecar.iter().flat_map(|sidecar| &sidecar.lost))
    }
}

/// The process whose record is beside the path, if it lives: it keeps its record locked. `None`:
/// the record is missing, or remains from a dead process.
fn recorded_holders(path: &Path) -> Option<Vec<Process>> {
    let record = with_suffix(path, ".holder");
    if !std::fs::symlink_metadata(&record).is_ok_and(|found| found.is_file()) {
        return None;
    }
    let status = flockwork::inspect(record).ok().filter(Status::is_held)?;
    let holders: Vec<_> = status.holders().iter().map(Process::holder).collect();
    let unknown = || vec![Process::listed(None, false, false)];
    Some(if holders.is_empty() { unknown() } else { holders })
}

/// Makes a call about the path, which fails if a file server does not respond.
fn ask<T: Send + Sync + 'static>(
    path: &Path,
    call: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T, Failure> {
    Ok(flockwork::_command::ask(path, call)?)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

/// The statuses of all paths that can be inspected, and why others cannot.
#[derive(Default)]
struct Seen {
    all: Vec<PathStatus>,
    failures: Vec<Failure>,
}

impl Seen {
    /// With `separate`, the lock beside a path is an entry of its own.
    fn of(paths: &Paths, separate: bool) -> Self {
        let locks = Arc::new(LockList::read());
        let mut seen = Self::default();
        seen.add(&paths.named, &locks, separate);
        // A path that was only found may be another program's, or may be removed by now.
        let mut found = Self::default();
        found.add(&paths.found, &locks, separate);
        seen.all.extend(found.all);
        seen.failures.extend(found.failures.into_iter().filter(Failure::is_not_in_time));
        seen
    }

    fn add(&mut self, paths: &[PathBuf], locks: &Arc<LockList>, separate: bool) {
        for path in paths {
            let inspected = PathStatus::inspect(path, locks);
            let has_server_failed = inspected.as_ref().is_err_and(Failure::is_not_in_time);
            let mut inspected = self.keep(inspected);
            if has_server_failed {
                continue;
            }
            // `Once`, `SharedFile` and `Event::consume` lock a file beside the path.
            let sidecar = with_suffix(path, ".flock");
            let is_file = |path: &Path| (path.is_file(), with_suffix(path, ".gate").is_file());
            let (has_sidecar, has_gate) =
                self.keep(ask(&sidecar, is_file)).unwrap_or((false, false));
            let beside =
                if has_sidecar { self.keep(PathStatus::inspect(&sidecar, locks)) } else { None };
            if let (Some(inspected), Some(beside)) = (&mut inspected, &beside) {
                inspected.sidecar = Some(Sidecar {
                    is_held: beside.is_held(),
                    holders: beside.holders.clone(),
                    waiters: beside.waiters.clone(),
                    lost: beside.lost.clone(),
                    is_data_file: has_gate,
                });
            }
            let is_described = inspected.is_some() && !separate;
            self.all.extend(inspected);
            self.all.extend(beside.filter(|_| !is_described));
        }
    }

    fn keep<T>(&mut self, inspected: Result<T, Failure>) -> Option<T> {
        inspected.map_err(|failure| self.failures.push(failure)).ok()
    }

    /// The first failure. Further ones are printed.
    fn failure(self) -> Option<Failure> {
        let mut failures = self.failures.into_iter();
        let first = failures.next();
        for failure in failures {
            failure.report();
        }
        first
    }

    /// The exit code of `-q`.
    fn summary(&self) -> Exit {
        let is_held = |seen: &PathStatus| {
            seen.is_held() || seen.sidecar.as_ref().is_some_and(|sidecar| sidecar.is_held)
        };
        let exists =
            |seen: &PathStatus| seen.status.kind() != StatusKind::Missing || seen.sidecar.is_some();
        if self.all.iter().any(is_held) {
            Exit::Success
        } else if self.all.iter().any(exists) {
            Exit::No
        } else {
            Exit::Other(2)
        }
    }
}

/// The interval of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &StatusArgs) -> Outcome {
    let mut named = arguments.paths.clone();
    for name in &arguments.id {
        named.push(id::path(name)?);
    }
    if named.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(command_line::usage("status", "PATH is empty"));
    }
    signals::end_on_signals()?;
    if arguments.watch {
        return watch(arguments, &named);
    }
    let seen = Seen::of(&paths(&named)?, arguments.json);
    if arguments.quiet {
        let summary = seen.summary();
        return seen.failure().map_or(Ok(summary), Err);
    }
    let written = output::write(written(arguments, &seen.all, None).as_bytes())?;
    match seen.failure() {
        Some(failure) if written == Exit::Success => Err(failure),
        _ => Ok(written),
    }
}

struct Paths {
    named: Vec<PathBuf>,
    found: Vec<PathBuf>,
}

/// The paths that the user named, or those of everything that belongs to the user.
fn paths(named: &[PathBuf]) -> Result<Paths, Failure> {
    if !named.is_empty() {
        return Ok(Paths { named: named.to_vec(), found: Vec::new() });
    }
    let ids = id::names();
    let named = ids.iter().map(|id| id::path(id.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let mut found = LockList::read().paths_of_user();
    found.retain(|path| !named.contains(path));
    Ok(Paths { named, found })
}

/// With `columns`, the text for a terminal.
fn written(arguments: &StatusArgs, all: &[PathStatus], columns: Option<usize>) -> String {
    let names_none = arguments.paths.is_empty() && arguments.id.is_empty();
    match all {
        _ if arguments.json => json::of_all(all),
        [] if names_none => "nothing is held or waited for\n".into(),
        all => columns.map_or_else(|| text::of_all(all), |columns| text::for_columns(all, columns)),
    }
}

/// Prints the status until this process is interrupted.
fn watch(arguments: &StatusArgs, named: &[PathBuf]) -> Outcome {
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let mut screen = (is_terminal && !arguments.json && !live_line::is_dumb()).then(Screen::new);
    let mut last = None;
    loop {
        // A path that is missing now and then does not end it.
        let Seen { all, failures } = Seen::of(&paths(named)?, arguments.json);
        let result = match &mut screen {
            Some(screen) => screen.draw(|columns| written(arguments, &all, Some(columns)))?,
            None if last.as_ref() != Some(&all) => {
                output::write(written(arguments, &all, None).as_bytes())?
            }
            None if output::is_reader_gone() => Exit::Other(128 + 13),
            None => Exit::Success,
        };
        if result != Exit::Success {
            return Ok(result);
        }
        for failure in failures.into_iter().filter(|_| last.is_none()) {
            failure.report();
        }
        last = Some(all);
        std::thread::sleep(WATCH_INTERVAL);
    }
}
