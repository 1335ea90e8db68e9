//! `--fcntl`: locks on a range of bytes ("open file description locks" in fcntl(2)). They belong to
//! the open file, as those of flock(2) do. The two kinds do not exclude each other.

use std::io;
use std::os::fd::OwnedFd;

use super::request::{Mode, Range};

/// For 64-bit Linux, where `struct flock` has no hidden padding fields.
#[cfg(all(
    target_pointer_width = "64",
    not(any(target_arch = "mips64", target_arch = "mips64r6", target_arch = "sparc64"))
))]
pub(super) fn lock(file: &OwnedFd, mode: Mode, range: Range, blocks: bool) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    let kind = match mode {
        Mode::Shared => libc::F_RDLCK,
        Mode::Exclusive => libc::F_WRLCK,
        Mode::Unlock => libc::F_UNLCK,
    };
    let lock = libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: range.start,
        l_len: range.length,
        l_pid: 0,
    };
    let call = if blocks { FcntlArg::F_OFD_SETLKW(&lock) } else { FcntlArg::F_OFD_SETLK(&lock) };
    fcntl(file, call).map(drop).map_err(io::Error::from)
}

#[cfg(not(all(
    target_pointer_width = "64",
    not(any(target_arch = "mips64", target_arch = "mips64r6", target_arch = "sparc64"))
)))]
pub(super) fn lock(_file: &OwnedFd, _mode: Mode, _range: Range, _blocks: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
