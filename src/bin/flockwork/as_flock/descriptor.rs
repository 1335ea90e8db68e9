//! `flock 9`: a lock on a descriptor that this process was started with. It belongs to the open file that the descriptor
//! shares with the shell that started us, and outlives us.
//!
//! So a thread that blocks in flock(2) will not do for a limited time: granted a moment too late, the lock would be the
//! shell's, which we told that it is not. A helper waits instead, this program again, untimed and with the same descriptor;
//! past the deadline it is killed, and when it is gone one try that does not block tells how it is.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::Instant;

use rustix::io::Errno;

use super::Taken;
use super::args::Mode;
use super::timed::{self, reason};
use super::unix::{again, failed, flock};
use crate::exit::{Exit, Failure};

/// The first word of a helper's command line.
const HELPER: &str = "--as-helper-of-flock";

#[derive(Debug)]
pub(super) struct Given {
    number: RawFd,
    mode: Mode,
    /// Instead of the number, where the command is not to inherit it.
    kept: Option<OwnedFd>,
}

impl Given {
    pub(super) fn new(number: RawFd, mode: Mode) -> Self {
        Self { number, mode, kept: None }
    }

    pub(super) fn attempt(&self) -> Result<Taken, Failure> {
        match again(|| flock(self.number, self.mode, false)) {
            Ok(()) => Ok(Taken::Had),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => Ok(Taken::Busy),
            Err(error) => Err(self.failed(&error)),
        }
    }

    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<Taken, Failure> {
        let Some(deadline) = deadline else {
            return match again(|| flock(self.number, self.mode, true)) {
                Ok(()) => Ok(Taken::Had),
                Err(error) => Err(self.failed(&error)),
            };
        };
        let no_helper = |error: &io::Error| {
            Failure::new(Exit::System, format!("cannot set up timer: {}", reason(error)))
        };
        // Where SIGCHLD is ignored, nobody learns how a child ended.
        let _ =
            signal_hook::flag::register(signal_hook::consts::SIGCHLD, std::sync::Arc::default());
        let (mut helper, leash) = self.helper().map_err(|error| no_helper(&error))?;
        // Its end of the leash closes with it.
        let mut line = leash.try_clone().map_err(|error| no_helper(&error))?;
        let ended = timed::by(deadline, move || {
            let _ = line.read(&mut [0]);
        });
        if !matches!(ended, Ok(Some(()))) {
            let _ = helper.kill();
        }
        let status = helper.wait();
        drop(leash);
        if self.attempt()? == Taken::Had {
            return Ok(Taken::Had);
        }
        match (ended?, status) {
            // It had it, and another process that shares the open file has let go of it since.
            (Some(()), Ok(status)) if status.success() => self.wait(Some(deadline)),
            (Some(()), Ok(status)) => {
                Err(no_helper(&io::Error::other(format!("the process that waits: {status}"))))
            }
            _ => Ok(Taken::Busy),
        }
    }

    /// What waits, and what it ends with: it must not outlive us, or it would lock for a shell that counts on nothing. It
    /// has the other end of a pair of sockets as its standard input, or output if that is what is to be locked.
    fn helper(&self) -> io::Result<(Child, UnixStream)> {
        let (ours, its) = UnixStream::pair()?;
        let mode = if self.mode == Mode::Shared { "shared" } else { "exclusive" };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg0("flock").args([HELPER, mode, &self.number.to_string()]);
        match self.number {
            0 => command.stdout(OwnedFd::from(its)),
            _ => command.stdin(OwnedFd::from(its)),
        };
        Ok((command.spawn()?, ours))
    }

    /// From the command: it is a copy of ours that holds the lock from now on, which is closed when the command is started.
    /// (What the others have that share the open file is not touched.)
    pub(super) fn keep(&mut self) -> Result<(), Failure> {
        let kept = copy(self.number).and_then(|kept| {
            nix::unistd::close(self.number)?;
            Ok(kept)
        });
        let number = self.number;
        self.kept = Some(kept.map_err(|error| {
            let why = reason(&error);
            Failure::new(
                Exit::System,
                format!(
                    "cannot keep the descriptor {number} from the command (--close): {why}; leave --close out and close it in the command ({number}>&-)"
                ),
            )
        })?);
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Failure {
        failed(&self.number.to_string(), error)
    }
}

/// A copy of a descriptor that is known by its number alone, closed on exec.
#[cfg(target_os = "linux")]
fn copy(number: RawFd) -> io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(this, number, PidfdGetfdFlags::empty())?)
}

/// rustix does not know of it there, and to open `/dev/fd/9` opens the file anew.
#[cfg(target_os = "android")]
fn copy(_number: RawFd) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// On other systems, to open these names is to copy what they stand for.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn copy(number: RawFd) -> io::Result<OwnedFd> {
    let path = format!("/dev/fd/{number}");
    let reading = std::fs::File::open(&path);
    let file = reading.or_else(|_| std::fs::OpenOptions::new().write(true).open(&path))?;
    Ok(file.into())
}

/// This program, waiting for a lock on behalf of another one.
pub(super) struct Helper {
    number: RawFd,
    mode: Mode,
}

impl Helper {
    pub(super) fn recognize(words: &[OsString]) -> Option<Self> {
        let [_, flag, mode, number] = words else { return None };
        let mode = match mode.to_str() {
            Some("shared") => Mode::Shared,
            Some("exclusive") => Mode::Exclusive,
            _ => return None,
        };
        let number = number.to_str()?.parse().ok()?;
        (flag == HELPER).then_some(Self { number, mode })
    }

    pub(super) fn run(self) -> Exit {
        let is_input = self.number == 0;
        let watching = std::thread::Builder::new().spawn(move || {
            let mut byte = [0];
            let leash = if is_input { rustix::stdio::stdout() } else { rustix::stdio::stdin() };
            while rustix::io::read(leash, &mut byte) == Err(Errno::INTR) {}
            std::process::exit(Exit::System.code()); // who started us has gone
        });
        if watching.is_err() {
            return Exit::System;
        }
        match again(|| flock(self.number, self.mode, true)) {
            Ok(()) => Exit::Success,
            Err(_) => Exit::System,
        }
    }
}
