//! What is locked where it is not Unix: a file, wholly.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fs4::{FileExt, TryLockError};

use super::args::{Asked, Mode, What};
use super::timed::reason;
use super::{Taken, timed};
use crate::exit::{Exit, Failure, is_exhausted};

#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    file: Arc<File>,
    mode: Mode,
}

impl Target {
    pub(super) fn open(asked: &Asked) -> Result<Self, Failure> {
        if asked.range.is_some() {
            return Err(Failure::usage(
                "--fcntl, --start and --length: this system has no such locks; leave them out to lock the whole file",
            ));
        }
        let path = match &asked.what {
            What::Path(path) => PathBuf::from(path),
            What::Descriptor(number) => {
                return Err(Failure::usage(format!(
                    "{number}: this system has no descriptors that a program inherits by their number; name a file, and a command to run while it is locked"
                )));
            }
        };
        if path.is_dir() {
            return Err(Failure::usage(format!(
                "{}: this system cannot lock a directory; name a file, which is made if it is missing",
                path.display()
            )));
        }
        let file = open(&path)?;
        Ok(Self { path, file: Arc::new(file), mode: asked.mode })
    }

    /// Takes it if nobody is in the way.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "the other's signature")]
    pub(super) fn attempt(&mut self) -> Result<Taken, Failure> {
        let tried = match self.mode {
            Mode::Shared => FileExt::try_lock_shared(&*self.file),
            Mode::Exclusive => FileExt::try_lock(&*self.file),
            Mode::Unlock => Ok(()), // opened just now, it is not locked
        };
        match tried {
            Ok(()) => Ok(Taken::Had),
            Err(TryLockError::WouldBlock) => Ok(Taken::Busy),
            Err(TryLockError::Error(error)) => Err(self.failed(&error)),
        }
    }

    /// Waits for it, until then at most.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "the other's signature")]
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<Taken, Failure> {
        let (file, mode) = (Arc::clone(&self.file), self.mode);
        let blocking = move || match mode {
            Mode::Shared => FileExt::lock_shared(&*file),
            Mode::Exclusive => FileExt::lock(&*file),
            Mode::Unlock => Ok(()),
        };
        timed::lock(deadline, blocking)?.map_err(|error| self.failed(&error))
    }

    /// Nothing is handed on here, closed or not: the lock is this process's.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the other's signature"
    )]
    pub(super) fn hand_on(&mut self, _close: bool) -> Result<(), Failure> {
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::new(Exit::Data, format!("{}: {}", self.path.display(), reason(error)))
    }
}

/// Makes it if it is missing. One that may only be read can be locked as well.
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
