//! `flock 9`: a lock on an inherited descriptor. The lock belongs to the open file, which the
//! parent shell shares, and outlives this process.
//!
//! A thread that blocks in flock(2) therefore cannot implement a timeout: if the lock were granted
//! just after the deadline, the shell would hold a lock that this program reported as not acquired.
//! Instead, a helper process (this program again, with the same descriptor) waits without a
//! timeout. It is killed at the deadline. After its end, one attempt without waiting decides the
//! result.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::Instant;

use rustix::io::Errno;

use super::Attempt;
use super::request::{Mode, Range};
use super::timeout::{self, reason};
use super::unix::{self, failed, flock, retry_eintr};
use crate::exit::{Exit, Failure};
use crate::{passing, thread};

/// The first argument of a helper process.
const HELPER: &str = "--as-helper-of-flock";

#[derive(Debug)]
pub(super) struct InheritedDescriptor {
    number: RawFd,
    mode: Mode,
    /// The bytes to lock by fcntl(2), instead of the whole file by flock(2).
    range: Option<Range>,
    /// A duplicate of the descriptor, which shares its locks: the calls for a range take no number.
    /// With `--close`, the number is closed and only this duplicate remains.
    duplicate: Option<OwnedFd>,
}

impl InheritedDescriptor {
    pub(super) fn new(number: RawFd, mode: Mode, range: Option<Range>) -> Self {
        Self { number, mode, range, duplicate: None }
    }

    fn lock(&mut self, blocks: bool) -> io::Result<()> {
        let Some(range) = self.range else {
            return retry_eintr(|| flock(self.number, self.mode, blocks));
        };
        let mode = self.mode;
        unix::lock(self.duplicate()?, mode, Some(range), blocks)
    }

    fn duplicate(&mut self) -> io::Result<&OwnedFd> {
        let duplicate = match self.duplicate.take() {
            Some(duplicate) => duplicate,
            None => duplicate(self.number)?,
        };
        Ok(self.duplicate.insert(duplicate))
    }

    pub(super) fn attempt(&mut self) -> Result<Attempt, Failure> {
        match self.lock(false) {
            Ok(()) => Ok(Attempt::Acquired),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => Ok(Attempt::WouldBlock),
                // It may mean the same (fcntl(2)).
                Some(Errno::ACCESS) if self.range.is_some() => Ok(Attempt::WouldBlock),
                _ => Err(self.failed(&error)),
            },
        }
    }

    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<Attempt, Failure> {
        let Some(deadline) = deadline else {
            return match self.lock(true) {
                Ok(()) => Ok(Attempt::Acquired),
                Err(error) => Err(self.failed(&error)),
            };
        };
        let no_helper = |error: &io::Error| {
            Failure::new(Exit::System, format!("cannot set up timer: {}", reason(error)))
        };
        // With SIGCHLD ignored, the exit status of a child would be discarded.
        let _ =
            signal_hook::flag::register(signal_hook::consts::SIGCHLD, std::sync::Arc::default());
        let (mut helper, liveness_socket) =
            self.start_helper().map_err(|error| no_helper(&error))?;
        // The helper's end of the socket closes when it ends.
        let mut socket = liveness_socket.try_clone().map_err(|error| no_helper(&error))?;
        let ended = timeout::run_until(deadline, move || {
            let _ = socket.read(&mut [0]);
        });
        if !matches!(ended, Ok(true)) {
            let _ = helper.kill();
        }
        let status = helper.wait();
        drop(liveness_socket);
        if self.attempt()? == Attempt::Acquired {
            return Ok(Attempt::Acquired);
        }
        match (ended?, status) {
            // The helper acquired the lock, and another process that shares the open file has
            // released it since.
            (true, Ok(status)) if status.success() => self.wait(Some(deadline)),
            (true, Ok(status)) => {
                Err(no_helper(&io::Error::other(format!("helper process: {status}"))))
            }
            _ => Ok(Attempt::WouldBlock),
        }
    }

    /// Starts the helper. If it outlived this process, it would acquire a lock that the shell does
    /// not expect, so it ends when the returned socket closes. The other end is its standard input,
    /// or its standard output if descriptor 0 is to be locked.
    fn start_helper(&self) -> io::Result<(Child, UnixStream)> {
        let (socket, helper_socket) = UnixStream::pair()?;
        let mode = if self.mode == Mode::Shared { "shared" } else { "exclusive" };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg0("flock").args([HELPER, mode, &self.number.to_string()]);
        if let Some(range) = self.range {
            command.args([range.start.to_string(), range.length.to_string()]);
        }
        match self.number {
            0 => command.stdout(OwnedFd::from(helper_socket)),
            _ => command.stdin(OwnedFd::from(helper_socket)),
        };
        Ok((command.spawn()?, socket))
    }

    /// Closes the number, so that the command does not inherit it. The duplicate, which is closed
    /// on exec, keeps the lock. Descriptors of other processes are not affected.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        let number = self.number;
        let duplicated = self.duplicate().map(drop);
        duplicated.and_then(|()| Ok(nix::unistd::close(number)?)).map_err(|error| {
            let why = reason(&error);
            Failure::new(
                Exit::System,
                format!("cannot keep the descriptor {number} from the command (--close): {why}"),
            )
            .hint(format!("omit --close, and close it in the command ({number}>&-)"))
        })
    }

    fn failed(&self, error: &io::Error) -> Failure {
        failed(&self.number.to_string(), error)
    }
}

/// Duplicates a descriptor that is known only by its number, by sending it through a socket to this
/// process. On Linux, opening `/dev/fd/9` would open the file again, and many containers forbid
/// pidfd_getfd(2).
fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let (sender, receiver) = UnixStream::pair()?;
    if [sender.as_raw_fd(), receiver.as_raw_fd()].contains(&number) {
        return Err(Errno::BADF.into()); // the number was closed before
    }
    passing::send(&sender, number)?;
    passing::receive(&receiver)
}

/// This process is a helper, which waits for a lock on behalf of its parent.
pub(super) struct Helper(InheritedDescriptor);

impl Helper {
    pub(super) fn recognize(words: &[OsString]) -> Option<Self> {
        let (flag, mode, number, range) = match words {
            [_, flag, mode, number] => (flag, mode, number, None),
            [_, flag, mode, number, start, length] => (flag, mode, number, Some((start, length))),
            _ => return None,
        };
        let range = match range {
            None => None,
            Some((start, length)) => Some(Range {
                start: start.to_str()?.parse().ok()?,
                length: length.to_str()?.parse().ok()?,
            }),
        };
        let mode = match mode.to_str() {
            Some("shared") => Mode::Shared,
            Some("exclusive") => Mode::Exclusive,
            _ => return None,
        };
        let number = number.to_str()?.parse().ok()?;
        (flag == HELPER).then(|| Self(InheritedDescriptor::new(number, mode, range)))
    }

    pub(super) fn run(mut self) -> Exit {
        let is_input = self.0.number == 0;
        let watcher = thread::start("flock-watch", move || {
            let mut byte = [0];
            let liveness_socket =
                if is_input { rustix::stdio::stdout() } else { rustix::stdio::stdin() };
            while rustix::io::read(liveness_socket, &mut byte) == Err(Errno::INTR) {}
            std::process::exit(Exit::System.code()); // the parent has ended
        });
        if watcher.is_err() {
            return Exit::System;
        }
        match self.0.lock(true) {
            Ok(()) => Exit::Success,
            Err(_) => Exit::System,
        }
    }
}
