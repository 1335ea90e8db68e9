//! Started as `flock`: flock(1) of util-linux 2.38, with the options that 2.43 adds. Here is the order of what it does; the
//! command line is read in `args`, and the lock is `unix` or `elsewhere`.
//!
//! It keeps no records beside the file, and passes no gate: it is the bare lock, which the library's locks respect.

mod args;
mod long;
mod numbers;
mod text;

#[cfg(unix)]
mod descriptor;
#[cfg(not(unix))]
mod elsewhere;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod range;
mod timed;
#[cfg(unix)]
mod unix;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Instant;

use crate::exit::{Exit, Failure, Outcome, printable};
use crate::job::Job;
use crate::output;
use crate::signals::{self, Signals};

use args::{Asked, Parsed, Work};
#[cfg(not(unix))]
use elsewhere::Target;
use numbers::Wait;
#[cfg(unix)]
use unix::Target;

/// Whether a lock was had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Had,
    /// Somebody else has it.
    Busy,
}

/// The name to speak under, where this program was started as `flock`.
pub(crate) fn name(words: &[OsString]) -> Option<String> {
    let file = Path::new(words.first()?).file_name()?;
    let is_flock = file == "flock" || file.eq_ignore_ascii_case(OsStr::new("flock.exe"));
    is_flock.then(|| "flock".to_string())
}

/// All that it says begins with its name.
pub(crate) fn run(name: &str, words: Vec<OsString>) -> Exit {
    #[cfg(unix)]
    if let Some(helper) = descriptor::Helper::recognize(&words) {
        return helper.run();
    }
    let parsed = args::parse(words.into_iter().skip(1));
    let outcome = parsed.and_then(|parsed| match parsed {
        Parsed::Help => show(&text::help()),
        Parsed::Version => show(&text::version()),
        Parsed::Asked(asked) => lock_and_run(name, &asked),
    });
    outcome.unwrap_or_else(|failure| failure.report_as(name))
}

/// With the code and the text of flock(1) where that fails; flock(1) ignores an output that is not
/// open.
fn show(text: &str) -> Outcome {
    match output::try_write(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Other(128 + 13)),
        Err(error) if error.raw_os_error() != Some(EBADF) => {
            Err(Failure::new(Exit::Other(1), format!("write error: {}", timed::reason(&error))))
        }
        _ => Ok(Exit::Success),
    }
}

const EBADF: i32 = 9;

/// Nothing is unlocked at the end: what the command left running holds on to what it inherited, and a descriptor that we
/// were given is its owner's.
fn lock_and_run(name: &str, asked: &Asked) -> Outcome {
    let mut target = Target::open(asked)?;
    let deadline = match asked.wait {
        Wait::Until(span) => Instant::now().checked_add(span),
        Wait::Impossible => {
            return Err(Failure::new(Exit::System, "cannot set up timer: Invalid argument"));
        }
        Wait::Forever | Wait::Never => None,
    };
    let start = Instant::now();
    // The first try goes before all that opens descriptors of our own: the one that we were told may not be open.
    let first = target.attempt()?;
    let mut took = start.elapsed();
    // A command that takes our place would inherit what is blocked.
    let signals = match &asked.work {
        Some(_) if !(asked.no_fork && cfg!(unix)) => Some(Signals::take()?),
        _ => {
            signals::end_when_told()?;
            None
        }
    };
    if first == Taken::Busy {
        if asked.wait == Wait::Never {
            return Err(refused(asked, "failed to get lock"));
        }
        if target.wait(deadline)? == Taken::Busy {
            return Err(refused(asked, "timeout while waiting to get lock"));
        }
        took = start.elapsed();
    }
    if asked.verbose {
        let (seconds, micros) = (took.as_secs(), took.subsec_micros());
        let line = format!("{name}: getting lock took {seconds}.{micros:06} seconds\n");
        let _ = output::write(line.as_bytes());
    }
    let Some(work) = &asked.work else { return Ok(Exit::Success) };
    let job = match work {
        Work::Words(words) => Job::new(words)?,
        Work::Shell(string) => Job::shell(string),
    };
    if asked.verbose {
        let program = printable(&job.program().to_string_lossy());
        let _ = output::write(format!("{name}: executing {program}\n").as_bytes());
    }
    target.hand_on(asked.close)?;
    match signals {
        Some(signals) => signals.run(&job),
        None => Err(in_our_place(&job)),
    }
}

/// The code that was asked for, and no word about it but for those who want to hear.
fn refused(asked: &Asked, why: &str) -> Failure {
    let why = if asked.verbose { why } else { "" };
    Failure::new(Exit::Other(asked.conflict), why)
}

#[cfg(unix)]
fn in_our_place(job: &Job) -> Failure {
    // A command that inherits it ignored would not learn how its children end. A handler does not outlive the exec.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGCHLD, std::sync::Arc::default());
    job.exec()
}

#[cfg(not(unix))]
fn in_our_place(_job: &Job) -> Failure {
    unreachable!("there, a command is always started")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_by_the_files_name() {
        limit!();
        for (word, is_flock) in [
            ("flock", true),
            ("/usr/bin/flock", true),
            ("./flock.exe", true),
            ("FLOCK.EXE", true),
            ("flockwork", false),
            ("flock/flockwork", false),
            ("Flock", false),
            ("", false),
        ] {
            assert_eq!(name(&[word.into()]).is_some(), is_flock, "{word}");
        }
        assert!(name(&[]).is_none());
    }
}
