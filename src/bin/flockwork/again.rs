//! Starts this program again, as a process in the background. The two are connected by the standard
//! input of the second one.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// Starts the process under this name, since the file of this program may be named `flock`, under
/// which it would be flock(1).
pub(crate) fn start(
    name: &str,
    words: impl IntoIterator<Item = OsString>,
    prepare: impl FnOnce(&mut Command),
) -> io::Result<(UnixStream, Child)> {
    let (socket, child_socket) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0(name).args(words).stdin(OwnedFd::from(child_socket));
    prepare(&mut command);
    // When `command` is dropped, this process's copy of the child's socket is closed.
    let child = command.spawn()?;
    Ok((socket, child))
}

/// The socket to the process that started this one.
pub(crate) fn socket_to_starter() -> io::Result<UnixStream> {
    io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from)
}
