//! Setting and clearing a marker.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Marker, Setting, something_else};
use crate::error::{Error, Operation, Result};
use crate::paths::create_parents;
use crate::sys::{self, FileKind, Mode, Retries};

impl Marker {
    /// Sets the marker, unless it is set. Returns whether it was not set before. An existing
    /// payload stays.
    pub(crate) fn set(&self) -> Result<bool> {
        self.may_change(Operation::Set)?;
        self.retry(|retries| match sys::create_new(&self.path, self.creation.bits()) {
            Ok(_) => {
                self.remove_left_files();
                Some(Ok(true))
            }
            // The marker exists, or a network file system returned a spurious error (rule 9).
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.is_set_or_vacated().map(|is_set| is_set.then_some(false)).transpose()
            }
            Err(error) => self.after_failure(error, retries),
        })
    }

    /// Whether the marker is set. An announcement that no longer counts is removed.
    fn is_set_or_vacated(&self) -> Result<bool> {
        match self.setting()? {
            Setting::Nothing => Ok(false),
            Setting::Plain | Setting::Announced => Ok(true),
            Setting::Stale(file) => self.remove_stale(Operation::Set, &file).map(|()| false),
            Setting::Other => Err(something_else(&self.path)),
        }
    }

    /// Sets the marker with a payload, unless it is set. Returns whether it was not set before. An
    /// existing payload stays (rule E2).
    pub(crate) fn set_new(&self, payload: &[u8]) -> Result<bool> {
        if payload.is_empty() {
            return self.set();
        }
        self.may_change(Operation::Set)?;
        self.retry(|retries| {
            match self.is_set_or_vacated() {
                Ok(true) => return Some(Ok(false)),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
            match sys::write_new(&self.path, payload, self.creation.bits()) {
                Ok(()) => Some(Ok(true)),
                // Another process has set it since it was checked, and may have cleared it again.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => self.after_failure(error, retries),
            }
        })
    }

    /// Sets the marker with a payload, or replaces the payload. Returns whether it was not set
    /// before (rule E2).
    pub(crate) fn set_with(&self, payload: &[u8]) -> Result<bool> {
        self.may_change(Operation::Set)?;
        let bits = self.creation.bits();
        self.retry(|retries| {
            let written = match self.vacated() {
                Ok(Some(true)) => sys::replace(&self.path, payload, bits).map(|()| false),
                Ok(Some(false)) => sys::write_new(&self.path, payload, bits).map(|()| true),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            };
            match written {
                Ok(was_unset) => Some(Ok(was_unset)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => self.after_failure(error, retries),
            }
        })
    }

    pub(super) fn may_change(&self, operation: Operation) -> Result<()> {
        if self.any_kind {
            let source = sys::explained(
                io::ErrorKind::InvalidInput,
                "an event that was opened for files of any type can only be waited for",
                "open it without `Options::any_file_type`",
            );
            return Err(Error::io(operation, &self.path, source));
        }
        Ok(())
    }

    /// Removes files that killed processes left, at most once a second: setting takes a few
    /// microseconds, and this takes longer (rule 14).
    fn remove_left_files(&self) {
        let now = sys::coarse_milliseconds();
        let last = self.swept.load(Ordering::Relaxed);
        if last == 0 || now.saturating_sub(last) > 1000 {
            self.swept.store(now.max(1), Ordering::Relaxed);
            sys::remove_left_by_others(&self.path);
        }
    }

    /// Clears the marker. Returns whether it was set. An announcement that no longer counts is
    /// removed too.
    pub(crate) fn clear(&self) -> Result<bool> {
        self.may_change(Operation::Clear)?;
        let remove = |path: &Path| match sys::remove_at_once(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(Operation::Clear, &self.path, error)),
        };
        let (setting, taken) = self.setting_and_taken()?;
        let mut was_set = match setting {
            Setting::Nothing => false,
            Setting::Plain | Setting::Announced => remove(&self.path)?,
            Setting::Stale(file) => {
                self.remove_stale(Operation::Clear, &file)?;
                false
            }
            Setting::Other => return Err(something_else(&self.path)),
        };
        if taken == FileKind::File {
            // A process that consumes at this moment counts as having done so before this call. If
            // no process does, the file remains from a dead one.
            if let Some(_locked) = self.lock()?.try_lock(Mode::Exclusive)? {
                let counts = !matches!(self.setting_at(&self.taken())?, Setting::Stale(_));
                was_set |= remove(&self.taken())? && counts;
            }
        }
        Ok(was_set)
    }

    /// Repeats a step of setting the marker until the step has an outcome.
    pub(super) fn retry<T>(
        &self,
        mut step: impl FnMut(&Retries) -> Option<Result<T>>,
    ) -> Result<T> {
        let mut retries = Retries::new();
        while retries.again() {
            if let Some(done) = step(&retries) {
                return done;
            }
        }
        let source = io::Error::other("other processes set and cleared it during each attempt");
        Err(Error::io(Operation::Set, &self.path, source))
    }

    /// Handles a failed creation: `None` if another try may succeed.
    pub(super) fn after_failure<T>(
        &self,
        error: io::Error,
        retries: &Retries,
    ) -> Option<Result<T>> {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let failed = Error::io(Operation::Set, &self.path, error);
        if !is_missing || !self.creation.directories {
            return Some(Err(failed));
        }
        create_parents(&self.path, self.creation.access, failed, retries).err().map(Err)
    }
}
