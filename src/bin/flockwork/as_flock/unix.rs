//! What is locked, on Unix: a file or directory that is opened here, or a descriptor that this process was started with.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Access, Mode as Bits, OFlags};
use rustix::io::Errno;

use super::args::{Asked, Mode, Range, What};
use super::timed::reason;
use super::{Taken, descriptor, timed};
use crate::exit::{Exit, Failure};

#[derive(Debug)]
pub(super) enum Target {
    File(Opened),
    Descriptor(descriptor::Given),
}

#[derive(Debug)]
pub(super) struct Opened {
    path: OsString,
    file: Arc<OwnedFd>,
    is_read_write: bool,
    mode: Mode,
    range: Option<Range>,
}

impl Target {
    pub(super) fn open(asked: &Asked) -> Result<Self, Failure> {
        if asked.range.is_some() && !cfg!(any(target_os = "linux", target_os = "android")) {
            return Err(Failure::usage(
                "--fcntl, --start and --length: this system has no such locks; leave them out to lock the whole file",
            ));
        }
        match &asked.what {
            What::Descriptor(number) => {
                Ok(Self::Descriptor(descriptor::Given::new(*number, asked.mode, asked.range)))
            }
            What::Path(path) => {
                // For a range, an exclusive lock wants a file that may be written to.
                let writes = asked.range.is_some() && asked.mode == Mode::Exclusive;
                let flags = if writes { OFlags::WRONLY } else { OFlags::RDONLY };
                let (file, _) = open(path, flags)?;
                Ok(Self::File(Opened {
                    path: path.clone(),
                    file: Arc::new(file),
                    is_read_write: false,
                    mode: asked.mode,
                    range: asked.range,
                }))
            }
        }
    }

    /// Takes it if nobody is in the way.
    pub(super) fn attempt(&mut self) -> Result<Taken, Failure> {
        match self {
            Self::File(opened) => opened.attempt(),
            Self::Descriptor(given) => given.attempt(),
        }
    }

    /// Waits for it, until then at most.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<Taken, Failure> {
        match self {
            Self::File(opened) => opened.wait(deadline),
            Self::Descriptor(given) => given.wait(deadline),
        }
    }

    /// To the command, or not: from now on it inherits the descriptor, or not.
    pub(super) fn hand_on(&mut self, close: bool) -> Result<(), Failure> {
        match self {
            Self::File(_) if close => Ok(()),
            Self::File(opened) => {
                rustix::io::fcntl_setfd(&opened.file, rustix::io::FdFlags::empty())
                    .map_err(|error| opened.failed(&error.into()))
            }
            Self::Descriptor(given) if close => given.keep(),
            Self::Descriptor(_) => Ok(()),
        }
    }
}

impl Opened {
    fn attempt(&mut self) -> Result<Taken, Failure> {
        loop {
            let error = match lock(&self.file, self.mode, self.range, false) {
                Ok(()) => return Ok(Taken::Had),
                Err(error) => error,
            };
            match Errno::from_io_error(&error) {
                // fcntl(2): either may mean that.
                Some(Errno::AGAIN | Errno::ACCESS) => return Ok(Taken::Busy),
                // On NFS, flock(2) is a lock of fcntl(2), and wants a file that may be written to.
                Some(Errno::IO | Errno::BADF) if self.may_be_written_to() => {
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

    fn wait(&self, deadline: Option<Instant>) -> Result<Taken, Failure> {
        let (file, mode, range) = (Arc::clone(&self.file), self.mode, self.range);
        timed::lock(deadline, move || lock(&file, mode, range, true))?
            .map_err(|error| self.failed(&error))
    }

    fn may_be_written_to(&self) -> bool {
        !self.is_read_write
            && self.mode != Mode::Shared
            && rustix::fs::access(&self.path, Access::READ_OK | Access::WRITE_OK).is_ok()
    }

    fn failed(&self, error: &io::Error) -> Failure {
        failed(&self.path.to_string_lossy(), error)
    }
}

/// Opens it as flock(1) does, following symbolic links, and tells how. The command is to inherit it only when it is locked.
fn open(path: &OsString, access: OFlags) -> Result<(OwnedFd, OFlags), Failure> {
    let everybody = Bits::from_raw_mode(0o666);
    let common = OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut flags = access | OFlags::CREATE | common;
    let mut opened = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, everybody));
    if matches!(opened, Err(Errno::ISDIR)) {
        flags = OFlags::RDONLY | common;
        opened = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, everybody));
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
    again(|| match range {
        None => flock(file.as_raw_fd(), mode, blocks),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(range) => super::range::lock(file, mode, range, blocks),
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
    })
}

/// The system call, on a descriptor by its number: what was inherited has no owner in this program.
#[cfg(not(target_os = "solaris"))]
#[expect(deprecated, reason = "what came instead wants to own the file, and unlocks when dropped")]
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

/// There is no such call.
#[cfg(target_os = "solaris")]
pub(super) fn flock(_descriptor: RawFd, _mode: Mode, _blocks: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Until no signal interrupts it.
pub(super) fn again(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// `what` cannot be locked.
pub(super) fn failed(what: &str, error: &io::Error) -> Failure {
    let exit = match Errno::from_io_error(error) {
        Some(Errno::NOLCK | Errno::NOMEM) => Exit::System,
        _ => Exit::Data,
    };
    Failure::new(exit, format!("{what}: {}", reason(error)))
}
