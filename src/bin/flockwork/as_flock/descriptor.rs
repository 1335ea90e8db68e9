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
use super::args::{Mode, Range};
use super::timed::{self, reason};
use super::unix::{self, again, failed, flock};
use crate::exit::{Exit, Failure};

/// The first word of a helper's command line.
const HELPER: &str = "--as-helper-of-flock";

#[derive(Debug)]
pub(super) struct Given {
    number: RawFd,
    mode: Mode,
    /// The bytes to lock by fcntl(2), instead of the whole file by flock(2).
    range: Option<Range>,
    /// A copy of the same open file, which shares its locks: the calls for a range take no number.
    /// Where the command is not to inherit the number, only this copy is left.
    copy: Option<OwnedFd>,
}

impl Given {
    pub(super) fn new(number: RawFd, mode: Mode, range: Option<Range>) -> Self {
        Self { number, mode, range, copy: None }
    }

    fn lock(&mut self, blocks: bool) -> io::Result<()> {
        let Some(range) = self.range else {
            return again(|| flock(self.number, self.mode, blocks));
        };
        let mode = self.mode;
        unix::lock(self.copy()?, mode, Some(range), blocks)
    }

    fn copy(&mut self) -> io::Result<&OwnedFd> {
        let copied = match self.copy.take() {
            Some(copied) => copied,
            None => copy(self.number)?,
        };
        Ok(self.copy.insert(copied))
    }

    pub(super) fn attempt(&mut self) -> Result<Taken, Failure> {
        match self.lock(false) {
            Ok(()) => Ok(Taken::Had),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => Ok(Taken::Busy),
                // fcntl(2): it may mean the same.
                Some(Errno::ACCESS) if self.range.is_some() => Ok(Taken::Busy),
                _ => Err(self.failed(&error)),
            },
        }
    }

    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<Taken, Failure> {
        let Some(deadline) = deadline else {
            return match self.lock(true) {
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
        if let Some(range) = self.range {
            command.args([range.start.to_string(), range.length.to_string()]);
        }
        match self.number {
            0 => command.stdout(OwnedFd::from(its)),
            _ => command.stdin(OwnedFd::from(its)),
        };
        Ok((command.spawn()?, ours))
    }

    /// From the command: it is a copy of ours that holds the lock from now on, which is closed when the command is started.
    /// (What the others have that share the open file is not touched.)
    pub(super) fn keep(&mut self) -> Result<(), Failure> {
        let number = self.number;
        let kept = self.copy().map(drop);
        kept.and_then(|()| Ok(nix::unistd::close(number)?)).map_err(|error| {
            let why = reason(&error);
            Failure::new(
                Exit::System,
                format!("cannot keep the descriptor {number} from the command (--close): {why}"),
            )
            .hint(format!("leave --close out and close it in the command ({number}>&-)"))
        })
    }

    fn failed(&self, error: &io::Error) -> Failure {
        failed(&self.number.to_string(), error)
    }
}

/// A copy of a descriptor that is known by its number alone, closed on exec: by a message from this process to itself. To
/// open `/dev/fd/9` opens the file again on Linux, and `pidfd_getfd(2)` is not allowed in many containers.
#[cfg(not(target_os = "solaris"))]
fn copy(number: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (here, there) = UnixStream::pair()?;
    if [here.as_raw_fd(), there.as_raw_fd()].contains(&number) {
        return Err(Errno::BADF.into()); // it was free until now
    }
    let (message, numbers) = ([io::IoSlice::new(b".")], [number]);
    let copied = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<UnixAddr>(here.as_raw_fd(), &message, &copied, MsgFlags::empty(), None)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&there, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    let mut messages = control.drain();
    let copied = messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let copied = copied.ok_or_else(|| io::Error::from(Errno::MFILE))?;
    rustix::io::fcntl_setfd(&copied, rustix::io::FdFlags::CLOEXEC)?;
    Ok(copied)
}

/// There are no such locks.
#[cfg(target_os = "solaris")]
fn copy(_number: RawFd) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// This program, waiting for a lock on behalf of another one.
pub(super) struct Helper(Given);

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
        (flag == HELPER).then(|| Self(Given::new(number, mode, range)))
    }

    pub(super) fn run(mut self) -> Exit {
        let is_input = self.0.number == 0;
        let watching = std::thread::Builder::new().spawn(move || {
            let mut byte = [0];
            let leash = if is_input { rustix::stdio::stdout() } else { rustix::stdio::stdin() };
            while rustix::io::read(leash, &mut byte) == Err(Errno::INTR) {}
            std::process::exit(Exit::System.code()); // who started us has gone
        });
        if watching.is_err() {
            return Exit::System;
        }
        match self.0.lock(true) {
            Ok(()) => Exit::Success,
            Err(_) => Exit::System,
        }
    }
}
