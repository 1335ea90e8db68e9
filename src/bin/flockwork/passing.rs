//! Passes a descriptor through a socket (`SCM_RIGHTS` in unix(7)), to another process or to this
//! one.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

pub(crate) use chosen::{receive, send};

#[cfg(not(target_os = "solaris"))]
mod chosen {
    use std::io::{IoSlice, IoSliceMut};
    use std::os::fd::AsRawFd as _;

    use super::{OwnedFd, RawFd, UnixStream, io};

    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    use rustix::io::Errno;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    /// Sends the descriptor of that number, with one byte.
    pub(crate) fn send(socket: &UnixStream, number: RawFd) -> io::Result<()> {
        let (message, numbers) = ([IoSlice::new(b".")], [number]);
        let rights = [ControlMessage::ScmRights(&numbers)];
        let sent =
            sendmsg::<UnixAddr>(socket.as_raw_fd(), &message, &rights, MsgFlags::empty(), None);
        sent.map(drop).map_err(io::Error::from)
    }

    /// Receives a descriptor, which is closed on exec.
    pub(crate) fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
        let mut messages = control.drain();
        let received = messages.find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let received = received.ok_or_else(|| io::Error::from(Errno::MFILE))?;
        rustix::io::fcntl_setfd(&received, rustix::io::FdFlags::CLOEXEC)?;
        Ok(received)
    }
}

/// The libraries for system calls do not pass descriptors on Solaris.
#[cfg(target_os = "solaris")]
mod chosen {
    use super::{OwnedFd, RawFd, UnixStream, io};

    pub(crate) fn send(_socket: &UnixStream, _number: RawFd) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn receive(_socket: &UnixStream) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
