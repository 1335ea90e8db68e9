//! `flockwork sem --bg`: starts this program again, which waits for the permit and the command. It
//! writes a byte to a socket pair when the command runs, and ends if the starter ends before that.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::{Exit, Failure, Outcome, print_error};
use crate::job::{Job, exit_of};
use crate::{again, passing, thread};

/// The variable with the pid of the process that waits until the command runs. The command does not
/// inherit it.
pub(super) const STARTER: &str = "FLOCKWORK_STARTER";

/// Whether this process was started by `start`.
pub(crate) fn is_started() -> bool {
    std::env::var_os(STARTER).is_some()
}

/// The command line of the process in the background.
pub(crate) struct CommandLine<'a> {
    pub(crate) program: &'a str,
    pub(crate) words: Vec<OsString>,
    /// Whether the command reads the standard input of this process.
    pub(crate) passes_input: bool,
}

impl CommandLine<'_> {
    /// That of this process, which gives the command an empty input.
    pub(super) fn own() -> Self {
        let words = std::env::args_os().skip(1).collect();
        Self { program: "flockwork", words, passes_input: false }
    }
}

/// Starts the process, and waits until it has started the command.
pub(crate) fn start(job: &Job, line: CommandLine<'_>, warns: bool) -> Outcome {
    let failed = |error: std::io::Error| {
        let name = job.program().to_string_lossy();
        Failure::new(Exit::System, format!("could not run `{name}` in the background: {error}"))
    };
    if warns && is_pipe() {
        print_error("the command does not read the pipe: --bg gives it an empty standard input");
    }
    let started = again::start(line.program, line.words, |command| {
        command.env(STARTER, std::process::id().to_string());
    });
    let (mut socket, mut child) = started.map_err(failed)?;
    if line.passes_input {
        passing::send(&socket, std::io::stdin().as_raw_fd()).map_err(failed)?;
    }
    match socket.read(&mut [0]) {
        Ok(1) => Ok(Exit::Success),
        _ => child.wait().map(exit_of).map_err(failed),
    }
}

/// Whether the standard input is a pipe.
fn is_pipe() -> bool {
    let status = rustix::fs::fstat(std::io::stdin());
    status.is_ok_and(|status| {
        rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Fifo
    })
}

/// The process that started this one, connected by the standard input.
pub(super) struct Starter {
    /// The standard input of the starter, if the command reads that.
    pub(super) input: Option<OwnedFd>,
    socket: UnixStream,
    has_started: Arc<AtomicBool>,
}

impl Starter {
    /// Returns `None` if this process was not started by `--bg`.
    pub(super) fn watch(passes_input: bool) -> Result<Option<Self>, Failure> {
        if !is_started() {
            return Ok(None);
        }
        let failed = |error: std::io::Error| {
            Failure::new(
                Exit::System,
                format!("could not watch the process that started this one: {error}"),
            )
        };
        let socket = again::socket_to_starter().map_err(failed)?;
        let input =
            if passes_input { Some(passing::receive(&socket).map_err(failed)?) } else { None };
        let mut reader = socket.try_clone().map_err(failed)?;
        let has_started = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&has_started);
        let watch = move || {
            let _ = reader.read(&mut [0]);
            if !shared.load(Ordering::SeqCst) {
                std::process::exit(Exit::NotInTime.code()); // the starter has ended
            }
        };
        thread::start("flockwork-starter", watch).map_err(failed)?;
        Ok(Some(Self { input, socket, has_started }))
    }

    pub(super) fn notify(mut self) {
        self.has_started.store(true, Ordering::SeqCst);
        let _ = self.socket.write_all(b".");
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}
