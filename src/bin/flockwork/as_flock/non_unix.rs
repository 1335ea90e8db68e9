//! Locks a whole file on systems other than Unix.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fs4::{FileExt, TryLockError};

use super::request::{LockTarget, Mode, Request};
use super::timeout::reason;
use super::{Attempt, timeout};
use crate::exit::{Exit, Failure, is_exhausted};

#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    file: Arc<File>,
    mode: Mode,
}

impl Target {
    pub(super) fn open(request: &Request) -> Result<Self, Failure> {
        if request.range.is_some() {
            return Err(Failure::usage(
                "--fcntl, --start and --length are not supported on this system",
            )
            .hint("omit them to lock the whole file"));
        }
        let path = match &request.target {
            LockTarget::Path(path) => PathBuf::from(path),
            LockTarget::Descriptor(number) => {
                let problem = format!("{number}: descriptors are not supported on this system");
                return Err(Failure::usage(problem).hint("give a file and a command"));
            }
        };
        if path.is_dir() {
            let problem = format!("{}: this system cannot lock a directory", path.display());
            return Err(
                Failure::usage(problem).hint("give a file, which is created if it is missing")
            );
        }
        let file = open(&path)?;
        Ok(Self { path, file: Arc::new(file), mode: request.mode })
    }

    /// Tries to lock without waiting.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "same signature as on Unix")]
    pub(super) fn attempt(&mut self) -> Result<Attempt, Failure> {
        let result = match self.mode {
            Mode::Shared => FileExt::try_lock_shared(&*self.file),
            Mode::Exclusive => FileExt::try_lock(&*self.file),
            Mode::Unlock => Ok(()), // this file was opened just now and is not locked
        };
        match result {
            Ok(()) => Ok(Attempt::Acquired),
            Err(TryLockError::WouldBlock) => Ok(Attempt::WouldBlock),
            Err(TryLockError::Error(error)) => Err(self.failed(&error)),
        }
    }

    /// Waits for the lock until the deadline.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "same signature as on Unix")]
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<Attempt, Failure> {
        let (file, mode) = (Arc::clone(&self.file), self.mode);
        let blocking = move || match mode {
            Mode::Shared => FileExt::lock_shared(&*file),
            Mode::Exclusive => FileExt::lock(&*file),
            Mode::Unlock => Ok(()),
        };
        timeout::lock(deadline, blocking)?.map_err(|error| self.failed(&error))
    }

    /// Has no effect, since a command does not inherit a lock on this system.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "same signature as on Unix"
    )]
    pub(super) fn set_inheritable(&mut self, _close: bool) -> Result<(), Failure> {
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::new(Exit::Data, format!("{}: {}", self.path.display(), reason(error)))
    }
}

/// Creates a missing file. A file that is not writable is opened for reading.
fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let opened = match opened {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            File::open(path).map_err(|_| error)
        }
        opened => opened,
    };
    opened.map_err(|error| {
        let exit = match error.kind() {
            ErrorKind::OutOfMemory => Exit::System,
            _ if is_exhausted(&error) => Exit::System,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull => Exit::CannotCreate,
            _ => Exit::CannotOpen,
        };
        Failure::new(exit, format!("cannot open lock file {}: {}", path.display(), reason(&error)))
    })
}
