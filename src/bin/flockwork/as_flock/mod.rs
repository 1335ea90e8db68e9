//! The program under the name `flock`: flock(1) of util-linux 2.38, with the options that 2.43
//! adds.
//!
//! It acquires the bare lock, which excludes the library's locks. It leaves no record of the holder
//! and does not pass the turnstile.

mod args;
mod help;
mod numbers;
mod options;
mod request;
mod timeout;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod byte_range;
#[cfg(unix)]
mod descriptor;
#[cfg(not(unix))]
mod non_unix;
#[cfg(unix)]
mod unix;

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use crate::exit::{Exit, Failure, Outcome, printable};
use crate::holder_text::HeldJob;
use crate::job::Job;
use crate::output;
use crate::signals::{self, Signals};

use args::Parsed;
#[cfg(not(unix))]
use non_unix::Target;
use request::{JobSource, LockTarget, Mode, Range, Request, Wait};
#[cfg(unix)]
use unix::Target;

/// The result of trying or waiting to lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Acquired,
    WouldBlock,
}

/// The job in a command line of flock(1), if there is one.
pub(crate) fn job(words: &[OsString]) -> Option<HeldJob> {
    match args::parse(words.iter().skip(1).cloned()) {
        Ok(Parsed::Request(Request { job, .. })) => match job? {
            JobSource::Words(words) => Some(HeldJob::Words(words)),
            JobSource::Shell(string) => Some(HeldJob::Shell(string)),
        },
        _ => None,
    }
}

/// A lock by fcntl(2) on all bytes of a file, which `flockwork lock --fcntl` acquires. It is
/// released when this process and all that inherited it have ended or closed it.
pub(crate) struct FcntlLock(Target);

impl FcntlLock {
    pub(crate) fn open(path: &Path, is_shared: bool) -> Result<Self, Failure> {
        let request = Request {
            mode: if is_shared { Mode::Shared } else { Mode::Exclusive },
            wait: Wait::Forever,
            conflict: 1,
            close: false,
            no_fork: false,
            verbose: false,
            range: Some(Range::default()),
            target: LockTarget::Path(path.as_os_str().to_os_string()),
            job: None,
        };
        Target::open(&request).map(Self)
    }

    /// Returns whether the lock was acquired.
    pub(crate) fn attempt(&mut self) -> Result<bool, Failure> {
        Ok(self.0.attempt()? == Attempt::Acquired)
    }

    /// Waits until the deadline. Returns whether the lock was acquired.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Result<bool, Failure> {
        Ok(self.0.wait(deadline)? == Attempt::Acquired)
    }

    /// Lets the command inherit the lock, unless `close`.
    pub(crate) fn set_inheritable(&mut self, close: bool) -> Result<(), Failure> {
        self.0.set_inheritable(close)
    }
}

/// The lock by fcntl(2) that keeps this process from locking an existing file. Creates and acquires
/// nothing.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn fcntl_conflict(path: &Path) -> Option<byte_range::Conflict> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    byte_range::conflict(&rustix::fs::open(path, flags, Mode::empty()).ok()?)
}

/// Runs flock(1). All messages begin with `name`.
pub(crate) fn run(name: &str, words: Vec<OsString>) -> Exit {
    #[cfg(unix)]
    if let Some(helper) = descriptor::Helper::recognize(&words) {
        return helper.run();
    }
    let parsed = args::parse(words.into_iter().skip(1));
    let outcome = parsed.and_then(|parsed| match parsed {
        Parsed::Help => print(&help::help()),
        Parsed::Version => print(&help::version()),
        Parsed::Request(request) => lock_and_run(name, &request),
    });
    outcome.unwrap_or_else(|failure| failure.report_as(name))
}

/// Prints a text. A failure has flock(1)'s exit code and message, and a closed standard output is
/// ignored as there.
fn print(text: &str) -> Outcome {
    match output::try_write(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Other(128 + 13)),
        Err(error) if error.raw_os_error() != Some(EBADF) => {
            Err(Failure::new(Exit::Other(1), format!("write error: {}", timeout::reason(&error))))
        }
        _ => Ok(Exit::Success),
    }
}

const EBADF: i32 = 9;

/// Does not unlock at the end: processes that the command left running keep the lock that they
/// inherited, and a lock on an inherited descriptor belongs to the parent process.
fn lock_and_run(name: &str, request: &Request) -> Outcome {
    let mut target = Target::open(request)?;
    let deadline = match request.wait {
        Wait::Until(span) => Instant::now().checked_add(span),
        Wait::Impossible => {
            return Err(Failure::new(Exit::System, "cannot set up timer: Invalid argument"));
        }
        Wait::Forever | Wait::Never => None,
    };
    let start = Instant::now();
    // The first attempt precedes everything that opens a descriptor: the given number may be
    // closed, and must not become a descriptor of this program.
    let first = target.attempt()?;
    let mut waited = start.elapsed();
    // With `--no-fork`, the command would inherit the blocked signals.
    let signals = match &request.job {
        Some(_) if !(request.no_fork && cfg!(unix)) => Some(Signals::install()?),
        _ => {
            signals::end_on_signals()?;
            None
        }
    };
    if first == Attempt::WouldBlock {
        if request.wait == Wait::Never {
            return Err(conflict(request, "failed to get lock"));
        }
        if target.wait(deadline)? == Attempt::WouldBlock {
            return Err(conflict(request, "timeout while waiting to get lock"));
        }
        waited = start.elapsed();
    }
    if request.verbose {
        let (seconds, micros) = (waited.as_secs(), waited.subsec_micros());
        let line = format!("{name}: getting lock took {seconds}.{micros:06} seconds\n");
        let _ = output::write(line.as_bytes());
    }
    let Some(source) = &request.job else { return Ok(Exit::Success) };
    let job = match source {
        JobSource::Words(words) => Job::new(words)?,
        JobSource::Shell(string) => Job::shell(string),
    };
    if request.verbose {
        let program = printable(&job.program().to_string_lossy());
        let _ = output::write(format!("{name}: executing {program}\n").as_bytes());
    }
    target.set_inheritable(request.close)?;
    match signals {
        Some(signals) => signals.run(&job),
        None => Err(replace_process(&job)),
    }
}

/// The failure with the code of `-E`, printed only with `--verbose`.
fn conflict(request: &Request, why: &str) -> Failure {
    let why = if request.verbose { why } else { "" };
    Failure::new(Exit::Other(request.conflict), why)
}

#[cfg(unix)]
fn replace_process(job: &Job) -> Failure {
    // A command that inherits an ignored SIGCHLD could not wait for its children. The handler is
    // reset by the exec.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGCHLD, std::sync::Arc::default());
    job.exec()
}

#[cfg(not(unix))]
fn replace_process(_job: &Job) -> Failure {
    unreachable!("a command is always started on this system")
}
