//! Receives signals, and whether the terminal sent each one to its foreground process group.

use nix::sys::signal::{SigSet, Signal};

pub(super) enum Received {
    /// The signal, and whether the terminal sent it.
    Signal(Signal, bool),
    /// No signal was pending, since another thread has received it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Nothing,
    End,
}

/// Reads signals from a signalfd(2).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) struct Source(nix::sys::signalfd::SignalFd);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Source {
    pub(super) fn new(set: SigSet) -> nix::Result<Self> {
        use nix::sys::signalfd::{SfdFlags, SignalFd};
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&set, flags).map(Self)
    }

    /// Blocks until a signal may be pending. Returns false after an error.
    pub(super) fn wait(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None) {
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    pub(super) fn next(&self, _set: SigSet) -> Received {
        /// Sent by the kernel, not by a process (sigaction(2)).
        const SI_KERNEL: i32 = 0x80;
        match self.0.read_signal() {
            Ok(Some(info)) => {
                let number = i32::try_from(info.ssi_signo).ok();
                let signal = number.and_then(|number| Signal::try_from(number).ok());
                signal.map_or(Received::End, |signal| {
                    Received::Signal(signal, info.ssi_code == SI_KERNEL)
                })
            }
            Ok(None) | Err(nix::errno::Errno::EINTR) => Received::Nothing,
            Err(_) => Received::End,
        }
    }
}

/// Receives signals with sigwait(3), which does not report the sender. While this process is in the
/// terminal's foreground group, signals that a terminal can send are attributed to it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) struct Source;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Source {
    #[expect(clippy::unnecessary_wraps, reason = "same signature as on Linux")]
    pub(super) fn new(_set: SigSet) -> nix::Result<Self> {
        Ok(Self)
    }

    #[expect(clippy::unused_self, reason = "same signature as on Linux")]
    pub(super) fn next(&self, set: SigSet) -> Received {
        let Ok(signal) = set.wait() else { return Received::End };
        let is_terminal_signal =
            matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP);
        let foreground_group = || {
            let terminal = std::fs::File::open("/dev/tty").ok()?;
            rustix::termios::tcgetpgrp(terminal).ok()
        };
        Received::Signal(
            signal,
            is_terminal_signal && foreground_group() == Some(rustix::process::getpgrp()),
        )
    }
}
