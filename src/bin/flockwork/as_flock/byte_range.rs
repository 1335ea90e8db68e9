//! `--fcntl`: locks on a range of bytes ("open file description locks" in fcntl(2)). They belong to
//! the open file, as those of flock(2) do. The two kinds do not exclude each other.

use std::io;
use std::os::fd::OwnedFd;

use super::request::{Mode, Range};

/// A lock that keeps another process from locking.
pub(crate) struct Conflict {
    /// `None`: it belongs to an open file, or the system does not show the process.
    pub(crate) pid: Option<u32>,
    pub(crate) is_shared: bool,
}

/// For 64-bit Linux, where `struct flock` has no hidden padding fields.
#[cfg(all(
    target_pointer_width = "64",
    not(any(target_arch = "mips64", target_arch = "mips64r6", target_arch = "sparc64"))
))]
pub(super) fn lock(file: &OwnedFd, mode: Mode, range: Range, blocks: bool) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    let lock = request(mode, range);
    let call = if blocks { FcntlArg::F_OFD_SETLKW(&lock) } else { FcntlArg::F_OFD_SETLK(&lock) };
    fcntl(file, call).map(drop).map_err(io::Error::from)
}

#[cfg(all(
    target_pointer_width = "64",
    not(any(target_arch = "mips64", target_arch = "mips64r6", target_arch = "sparc64"))
))]
fn request(mode: Mode, range: Range) -> nix::libc::flock {
    use nix::libc;
    let kind = match mode {
        Mode::Shared => libc::F_RDLCK,
        Mode::Exclusive => libc::F_WRLCK,
        Mode::Unlock => libc::F_UNLCK,
    };
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: range.start,
        l_len: range.length,
        l_pid: 0,
    }
}

/// A lock on any of the bytes by another open file or process. Acquires nothing.
#[cfg(all(
    target_pointer_width = "64",
    not(any(target_arch = "mips64", target_arch = "mips64r6", target_arch = "sparc64"))
))]
pub(super) fn conflict(file: &OwnedFd) -> Option<Conflict> {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    let mut lock = request(Mode::Exclusive, Range::default());
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    let kind = libc::c_int::from(lock.l_type);
    let pid = u32::try_from(lock.l_pid).ok().filter(|pid| *pid != 0);
    (kind != libc::F_UNLCK).then_some(Conflict { pid, is_shared: kind == libc::F_RDLCK })
}

#[cfg(not(all(
    target_pointer_width = "64",
    not(any(target_arch = "mips64", target_arch = "mips64r6", target_arch = "sparc64"))
)))]
pub(super) fn conflict(_file: &OwnedFd) -> Option<Conflict> {
    None
}

#[cfg(not(all(
    target_pointer_width = "64",
    not(any(target_arch = "mips64", target_arch = "mips64r6", target_arch = "sparc64"))
)))]
pub(super) fn lock(_file: &OwnedFd, _mode: Mode, _range: Range, _blocks: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
