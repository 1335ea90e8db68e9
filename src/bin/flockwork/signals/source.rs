//! Where signals come from, each with whether the terminal sent it: to all of the group that it listens to.

use nix::sys::signal::{SigSet, Signal};

pub(super) enum Next {
    /// With whether the terminal sent it.
    Signal(Signal, bool),
    /// Somebody else had it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Nothing,
    End,
}

/// Where the signals come from.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) struct Source(nix::sys::signalfd::SignalFd);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Source {
    pub(super) fn new(set: SigSet) -> nix::Result<Self> {
        use nix::sys::signalfd::{SfdFlags, SignalFd};
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&set, flags).map(Self)
    }

    /// Until there may be one.
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

    pub(super) fn next(&self, _set: SigSet) -> Next {
        /// `SI_KERNEL`: sent by no process (sigaction(2)).
        const BY_THE_KERNEL: i32 = 0x80;
        match self.0.read_signal() {
            Ok(Some(info)) => {
                let number = i32::try_from(info.ssi_signo).ok();
                let signal = number.and_then(|number| Signal::try_from(number).ok());
                signal.map_or(Next::End, |signal| {
                    Next::Signal(signal, info.ssi_code == BY_THE_KERNEL)
                })
            }
            Ok(None) | Err(nix::errno::Errno::EINTR) => Next::Nothing,
            Err(_) => Next::End,
        }
    }
}

/// Other systems do not say who sent a signal, without code that is not checked. What can come from the terminal, while
/// it listens to our group, is taken to.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) struct Source;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Source {
    #[expect(clippy::unnecessary_wraps, reason = "the other's signature")]
    pub(super) fn new(_set: SigSet) -> nix::Result<Self> {
        Ok(Self)
    }

    #[expect(clippy::unused_self, reason = "the other's signature")]
    pub(super) fn next(&self, set: SigSet) -> Next {
        let Ok(signal) = set.wait() else { return Next::End };
        let can_be = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP);
        let group = || {
            let terminal = std::fs::File::open("/dev/tty").ok()?;
            rustix::termios::tcgetpgrp(terminal).ok()
        };
        Next::Signal(signal, can_be && group() == Some(rustix::process::getpgrp()))
    }
}
