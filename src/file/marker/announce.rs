//! A setting that counts while its process lives (rule E8).

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Marker, Setting, something_else};
use crate::error::{Error, Operation, Result};
use crate::file::open::OpenFile;
use crate::sys::{self, Mode, Retries};
use crate::trace;

/// An announcement of this process. Dropping it clears the marker if the marker is still this
/// setting.
#[derive(Debug)]
pub(crate) struct Announced {
    path: Arc<Path>,
    /// Taken out when it is withdrawn.
    open: Option<OpenFile>,
}

impl Marker {
    /// Sets the marker until the returned value is dropped or its process dies. Replaces any other
    /// setting.
    pub(crate) fn announce(&self, payload: &[u8]) -> Result<Announced> {
        self.may_change(Operation::Set)?;
        let bits = self.creation.bits();
        self.retry(|retries| {
            let replaces = match self.vacated() {
                Ok(Some(replaces)) => replaces,
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            };
            let file = match sys::announce(&self.path, payload, bits, replaces) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return None,
                Err(error) if sys::locks_unsupported(&error) => {
                    return Some(Err(Error::unsupported(&self.path, error)));
                }
                Err(error) => return self.after_failure(error, retries),
            };
            let open = OpenFile::of(file).map_err(|source| self.not_looked_up(source));
            Some(open.map(|open| Announced { path: Arc::clone(&self.path), open: Some(open) }))
        })
    }

    /// Prepares the path for a new payload: removes what no longer counts. Returns whether a file
    /// is to be replaced. `None`: check again.
    pub(super) fn vacated(&self) -> Result<Option<bool>> {
        match self.setting()? {
            Setting::Nothing => Ok(Some(false)),
            Setting::Plain => Ok(Some(true)),
            Setting::Announced => {
                sys::make_replaceable(&self.path)
                    .map_err(|source| Error::io(Operation::Set, &self.path, source))?;
                Ok(Some(true))
            }
            Setting::Stale(file) => self.remove_stale(Operation::Set, &file).map(|()| None),
            Setting::Other => Err(something_else(&self.path)),
        }
    }

    /// Removes the announcement of a process that has ended, unless the path names another file by
    /// now.
    ///
    /// The lock of the consumers makes callers that find it at the same time remove it one after
    /// the other, so that none of them renames a file that another one has set since. A holder that
    /// keeps that lock (it may be stopped) delays this for about three seconds.
    pub(super) fn remove_stale(&self, operation: Operation, file: &File) -> Result<()> {
        let mut retries = Retries::new();
        let _locked = loop {
            match self.lock().and_then(|lock| lock.try_lock(Mode::Exclusive)) {
                Ok(Some(locked)) => break Some(locked),
                Ok(None) if retries.again() => {}
                Ok(None) | Err(_) => break None,
            }
        };
        self.remove_stale_locked(operation, file)
    }

    /// Does the same for a caller that holds that lock.
    pub(super) fn remove_stale_locked(&self, operation: Operation, file: &File) -> Result<()> {
        let removed = sys::remove_exactly(&self.path, file);
        if matches!(removed, Ok(true)) {
            trace::dead_holder(&self.path);
        }
        removed.map(drop).map_err(|source| Error::io(operation, &self.path, source))
    }
}

impl Announced {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the announcement is this process's, and not a copy that `fork` made.
    fn is_here(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.origin.is_here())
    }

    /// Whether the marker is still this setting, and this is not a forked copy.
    pub(crate) fn is_current(&self) -> Result<bool> {
        let Some(open) = self.open.as_ref().filter(|_| self.is_here()) else { return Ok(false) };
        sys::still_names(&self.path, open.file())
            .map_err(|source| Error::io(Operation::LookUp, &self.path, source))
    }

    /// Makes the programs that this process starts from now on keep the marker set if this process
    /// is killed.
    pub(crate) fn make_inheritable(&self) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        sys::make_inheritable(open.file())
            .map_err(|source| Error::io(Operation::Inherit, &self.path, source))
    }

    /// Clears the marker if it is still this setting. Returns an error in a forked copy, which
    /// clears nothing (rule 4).
    pub(crate) fn withdraw(mut self) -> Result<()> {
        if !self.is_here() {
            return Err(Error::forked_copy(Operation::Clear, &self.path));
        }
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(open) = self.open.take().filter(|open| open.origin.is_here()) else {
            return Ok(());
        };
        let removed = sys::remove_exactly(&self.path, open.file());
        // Also if it could not be removed: then it no longer counts. A close alone would leave it
        // counting with any child that was forked meanwhile (rule 4).
        sys::end_announcement(open.file());
        removed.map(drop).map_err(|source| Error::io(Operation::Clear, &self.path, source))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
