//! `flockwork event set --while PID`: starts this program again in the background, which keeps the
//! event set until the process has ended.
//!
//! The two are connected by the standard input of the second. It receives the payload, opens the
//! process, sets the event and sends a byte. The first one then checks that the process that the
//! user named is still the same, and answers with a byte. Without that byte, the event is cleared
//! again.

use std::io::{Read as _, Write as _};
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use flockwork::Options;

use super::open;
use crate::again;
use crate::exit::{Exit, Failure, Outcome};
use crate::job::exit_of;

/// The variable by which the second process recognizes that it is in the background.
const BACKGROUND: &str = "FLOCKWORK_BACKGROUND";

/// How often the second process checks whether the event still has its setting. If not, it ends.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

pub(super) fn set(
    path: &Path,
    pid: u32,
    options: &Options,
    payload: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Outcome {
    if std::env::var_os(BACKGROUND).is_some() {
        return keep_set(path, pid, options);
    }
    let process = LiveProcess::open(pid)?;
    // A usage error is reported here.
    open(path, options)?;
    let payload = payload()?;
    let failed = |error: std::io::Error| {
        Failure::new(Exit::System, format!("could not start a process in the background: {error}"))
    };
    let started = again::start("flockwork", std::env::args_os().skip(1), |command| {
        command.env(BACKGROUND, "1").stdout(Stdio::null()).stderr(Stdio::piped());
    });
    let (mut socket, mut child) = started.map_err(failed)?;
    let length = payload.len() as u64;
    let sent = socket.write_all(&length.to_le_bytes()).and_then(|()| socket.write_all(&payload));
    let is_set = sent.is_ok() && socket.read_exact(&mut [0]).is_ok();
    if !is_set {
        drop(socket);
        if let Some(mut errors) = child.stderr.take() {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            let _ = std::io::stderr().write_all(&text);
        }
        return child.wait().map(exit_of).map_err(failed);
    }
    if !process.is_alive() {
        drop(socket);
        let _ = child.wait();
        return Err(no_process(pid));
    }
    socket.write_all(b".").map_err(failed)?;
    Ok(Exit::Success)
}

/// The second process. A signal of the terminal does not reach it, since it would clear the event
/// although the process lives.
fn keep_set(path: &Path, pid: u32, options: &Options) -> Outcome {
    let _ = rustix::process::setsid();
    let failed = |error: std::io::Error| {
        Failure::new(Exit::System, format!("could not receive the payload: {error}"))
    };
    let mut socket = again::socket_to_starter().map_err(failed)?;
    let mut length = [0; 8];
    socket.read_exact(&mut length).map_err(failed)?;
    let mut payload = Vec::new();
    let length = u64::from_le_bytes(length);
    let received = (&socket).take(length).read_to_end(&mut payload).map_err(failed)?;
    if received as u64 != length {
        return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let process = LiveProcess::open(pid)?;
    let event = open(path, options)?;
    let announcement = event.set_while_alive(payload)?;
    let answered = socket.write_all(b".").and_then(|()| socket.read_exact(&mut [0]));
    drop(socket);
    if answered.is_ok() {
        while process.is_alive_after(CHECK_INTERVAL) && announcement.still_set().unwrap_or(true) {}
    }
    announcement.withdraw()?;
    Ok(Exit::Success)
}

fn no_process(pid: u32) -> Failure {
    Failure::new(Exit::Usage, format!("event set: there is no process {pid}"))
        .hint("give the number of a running process, as in --while $!")
}

/// A process that lived when it was opened.
#[cfg(target_os = "linux")]
struct LiveProcess {
    /// Refers to that process even if its number belongs to another one later (`pidfd_open(2)`).
    descriptor: OwnedFd,
}

#[cfg(target_os = "linux")]
impl LiveProcess {
    fn open(pid: u32) -> Result<Self, Failure> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| no_process(pid))?;
        let descriptor = pidfd_open(number, PidfdFlags::empty()).map_err(|error| match error {
            // The second error: it is a thread and not a process.
            rustix::io::Errno::SRCH | rustix::io::Errno::INVAL => no_process(pid),
            error => Failure::new(Exit::System, format!("could not watch process {pid}: {error}")),
        })?;
        let process = Self { descriptor };
        if process.is_alive() { Ok(process) } else { Err(no_process(pid)) }
    }

    fn is_alive(&self) -> bool {
        self.is_alive_after(Duration::ZERO)
    }

    /// Waits until the process has ended, at most for this time.
    fn is_alive_after(&self, time: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut polled = [PollFd::new(&self.descriptor, PollFlags::IN)];
        let time = Timespec::try_from(time).ok();
        !matches!(poll(&mut polled, time.as_ref()), Ok(1..))
    }
}

/// Other systems do not show whether a number belongs to another process by now.
#[cfg(not(target_os = "linux"))]
struct LiveProcess {
    number: rustix::process::Pid,
}

#[cfg(not(target_os = "linux"))]
impl LiveProcess {
    fn open(pid: u32) -> Result<Self, Failure> {
        let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let process = number.map(|number| Self { number }).filter(Self::is_alive);
        process.ok_or_else(|| no_process(pid))
    }

    fn is_alive(&self) -> bool {
        // A process of another user may not be signalled.
        !matches!(rustix::process::test_kill_process(self.number), Err(rustix::io::Errno::SRCH))
    }

    /// Checks once per second whether the process lives, for this time.
    fn is_alive_after(&self, time: Duration) -> bool {
        let start = std::time::Instant::now();
        while self.is_alive() {
            if start.elapsed() >= time {
                return true;
            }
            std::thread::sleep(Duration::from_secs(1).min(time));
        }
        false
    }
}
