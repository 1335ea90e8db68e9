//! Locks a file or directory that this program opens, or an inherited descriptor, on Unix.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Access, Mode as Bits, OFlags};
use rustix::io::Errno;

use super::request::{LockTarget, Mode, Range, Request};
use super::timeout::reason;
use super::{Attempt, descriptor, timeout};
use crate::exit::{Exit, Failure};

#[derive(Debug)]
pub(super) enum Target {
    File(OpenedFile),
    Descriptor(descriptor::InheritedDescriptor),
}

#[derive(Debug)]
pub(super) struct OpenedFile {
    path: OsString,
    file: Arc<OwnedFd>,
    is_read_write: bool,
    mode: Mode,
    range: Option<Range>,
}

impl Target {
    pub(super) fn open(request: &Request) -> Result<Self, Failure> {
        if request.range.is_some() && !cfg!(any(target_os = "linux", target_os = "android")) {
            return Err(Failure::usage(
                "--fcntl, --start and --length are not supported on this system",
            )
            .hint("omit them to lock the whole file"));
        }
        match &request.target {
            LockTarget::Descriptor(number) => Ok(Self::Descriptor(
                descriptor::InheritedDescriptor::new(*number, request.mode, request.range),
            )),
            LockTarget::Path(path) => {
                // An exclusive lock on a range requires a file that is open for writing.
                let writes = request.range.is_some() && request.mode == Mode::Exclusive;
                let flags = if writes { OFlags::WRONLY } else { OFlags::RDONLY };
                let (file, _) = open(path, flags)?;
                Ok(Self::File(OpenedFile {
                    path: path.clone(),
                    file: Arc::new(file),
                    is_read_write: false,
                    mode: request.mode,
                    range: request.range,
                }))
            }
        }
    }

    /// Tries to lock without waiting.
    pub(super) fn attempt(&mut self) -> Result<Attempt, Failure> {
        match self {
            Self::File(opened) => opened.attempt(),
            Self::Descriptor(descriptor) => descriptor.attempt(),
        }
    }

    /// Waits for the lock until the deadline.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<Attempt, Failure> {
        match self {
            Self::File(opened) => opened.wait(deadline),
            Self::Descriptor(descriptor) => descriptor.wait(deadline),
        }
    }

    /// Lets the command inherit the descriptor, unless `close`.
    pub(super) fn set_inheritable(&mut self, close: bool) -> Result<(), Failure> {
        match self {
            Self::File(_) if close => Ok(()),
            Self::File(opened) => {
                rustix::io::fcntl_setfd(&opened.file, rustix::io::FdFlags::empty())
                    .map_err(|error| opened.failed(&error.into()))
            }
            Self::Descriptor(descriptor) if close => descriptor.close(),
            Self::Descriptor(_) => Ok(()),
        }
    }
}

impl OpenedFile {
    fn attempt(&mut self) -> Result<Attempt, Failure> {
        loop {
            let error = match lock(&self.file, self.mode, self.range, false) {
                Ok(()) => return Ok(Attempt::Acquired),
                Err(error) => error,
            };
            match Errno::from_io_error(&error) {
                // Both mean that another process holds the lock (fcntl(2)).
                Some(Errno::AGAIN | Errno::ACCESS) => return Ok(Attempt::WouldBlock),
                // On NFS, flock(2) is emulated by fcntl(2), whose exclusive lock requires a file
                // that is open for writing.
                Some(Errno::IO | Errno::BADF) if self.can_reopen_for_writing() => {
                    let (file, flags) = open(&self.path, OFlags::RDWR)?;
                    self.file = Arc::new(file);
                    self.is_read_write = true;
                    if !flags.contains(OFlags::RDWR) {
                        return Err(self.failed(&Errno::ISDIR.into()));
                    }
                }
                _ => return Err(self.failed(&error)),
            }
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<Attempt, Failure> {
        let (file, mode, range) = (Arc::clone(&self.file), self.mode, self.range);
        timeout::lock(deadline, move || lock(&file, mode, range, true))?
            .map_err(|error| self.failed(&error))
    }

    fn can_reopen_for_writing(&self) -> bool {
        !self.is_read_write
            && self.mode != Mode::Shared
            && rustix::fs::access(&self.path, Access::READ_OK | Access::WRITE_OK).is_ok()
    }

    fn failed(&self, error: &io::Error) -> Failure {
        failed(&self.path.to_string_lossy(), error)
    }
}

/// Opens the file as flock(1) does, following symbolic links, and also returns the flags. The file
/// is closed on exec until it is locked.
fn open(path: &OsString, access: OFlags) -> Result<(OwnedFd, OFlags), Failure> {
    let everyone = Bits::from_raw_mode(0o666);
    let common = OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut flags = access | OFlags::CREATE | common;
    let mut opened = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, everyone));
    if matches!(opened, Err(Errno::ISDIR)) {
        flags = OFlags::RDONLY | common;
        opened = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, everyone));
    }
    match opened {
        Ok(file) => Ok((file, flags)),
        Err(errno) => {
            let exit = match errno {
                Errno::NOMEM | Errno::MFILE | Errno::NFILE => Exit::System,
                Errno::ROFS | Errno::NOSPC => Exit::CannotCreate,
                _ => Exit::CannotOpen,
            };
            let (path, why) = (path.to_string_lossy(), reason(&errno.into()));
            Err(Failure::new(exit, format!("cannot open lock file {path}: {why}")))
        }
    }
}

pub(super) fn lock(
    file: &OwnedFd,
    mode: Mode,
    range: Option<Range>,
    blocks: bool,
) -> io::Result<()> {
    retry_eintr(|| match range {
        None => flock(file.as_raw_fd(), mode, blocks),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(range) => super::byte_range::lock(file, mode, range, blocks),
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
    })
}

/// Calls flock(2) with a number, since no value in this program owns an inherited descriptor.
#[cfg(not(target_os = "solaris"))]
#[expect(deprecated, reason = "its replacement owns the file, and unlocks when dropped")]
pub(super) fn flock(descriptor: RawFd, mode: Mode, blocks: bool) -> io::Result<()> {
    use nix::fcntl::FlockArg;
    let argument = match (mode, blocks) {
        (Mode::Shared, true) => FlockArg::LockShared,
        (Mode::Shared, false) => FlockArg::LockSharedNonblock,
        (Mode::Exclusive, true) => FlockArg::LockExclusive,
        (Mode::Exclusive, false) => FlockArg::LockExclusiveNonblock,
        (Mode::Unlock, _) => FlockArg::Unlock,
    };
    nix::fcntl::flock(descriptor, argument).map_err(io::Error::from)
}

/// Solaris has no flock(2).
#[cfg(target_os = "solaris")]
pub(super) fn flock(_descriptor: RawFd, _mode: Mode, _blocks: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Repeats a call that a signal interrupts.
pub(super) fn retry_eintr(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The failure of a lock on `target`.
pub(super) fn failed(target: &str, error: &io::Error) -> Failure {
    let exit = match Errno::from_io_error(error) {
        Some(Errno::NOLCK | Errno::NOMEM) => Exit::System,
        _ => Exit::Data,
    };
    Failure::new(exit, format!("{target}: {}", reason(error)))
}
