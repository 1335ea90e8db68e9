//! The guards of a [`SharedFile`](crate::SharedFile), through which it is read and changed while its lock is held.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Operation, Result};
use crate::file::data_file::{DataFile, text};
use crate::rwlock::{RwLockReadGuard, RwLockWriteGuard};

/// No other holder of the lock writes the file while this is there. Released when dropped.
#[must_use = "if unused, the lock is released at once"]
#[clippy::has_significant_drop]
pub struct FileReadGuard {
    pub(super) guard: RwLockReadGuard,
    pub(super) contents: Arc<DataFile>,
}

impl FileReadGuard {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::read`](crate::SharedFile::read).
    pub fn read(&self) -> Result<Vec<u8>> {
        self.contents.read()
    }

    /// Reads the file as text.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::read_to_string`](crate::SharedFile::read_to_string).
    pub fn read_to_string(&self) -> Result<String> {
        text(self.contents.path(), self.read()?)
    }

    /// Releases the lock, and says if that failed, which dropping cannot.
    ///
    /// # Errors
    ///
    /// As [`RwLockReadGuard::unlock`].
    pub fn unlock(self) -> Result<()> {
        self.guard.unlock()
    }

    /// Whether a holder before this one died without releasing the lock: see
    /// [`LockGuard::was_abandoned`](crate::LockGuard::was_abandoned).
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.guard.was_abandoned()
    }

    /// The path of the data file, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.contents.path()
    }
}

impl fmt::Debug for FileReadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReadGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// No other process or thread holds the lock while this is there. Released when dropped.
#[must_use = "if unused, the lock is released at once"]
#[clippy::has_significant_drop]
pub struct FileWriteGuard {
    pub(super) guard: RwLockWriteGuard,
    pub(super) contents: Arc<DataFile>,
}

impl FileWriteGuard {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::read`](crate::SharedFile::read).
    pub fn read(&self) -> Result<Vec<u8>> {
        self.contents.read()
    }

    /// Reads the file as text.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::read_to_string`](crate::SharedFile::read_to_string).
    pub fn read_to_string(&self) -> Result<String> {
        text(self.contents.path(), self.read()?)
    }

    /// Writes the file anew, as often as one likes. A program that reads without the lock sees it at once.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::write`](crate::SharedFile::write).
    pub fn replace(&mut self, contents: impl AsRef<[u8]>) -> Result<()> {
        self.guard.check_here(Operation::Write)?;
        self.contents.replace(contents.as_ref())
    }

    /// Changes the file: see [`SharedFile::update`](crate::SharedFile::update).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let log = flockwork::SharedFile::open(dir.path().join("log"))?;
    /// let mut writing = log.lock_exclusive_timeout(std::time::Duration::from_secs(5))?;
    /// writing.update(|lines| {
    ///     lines.extend(b"one more line\n");
    ///     Ok::<_, flockwork::Error>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`SharedFile::update`](crate::SharedFile::update).
    pub fn update<R, E: From<Error>>(
        &mut self,
        change: impl FnOnce(&mut Vec<u8>) -> Result<R, E>,
    ) -> Result<R, E> {
        let old = self.contents.read_or_empty()?;
        let mut new = old.clone();
        let returned = change(&mut new)?;
        if new != old {
            self.replace(new)?;
        }
        Ok(returned)
    }

    /// Shares the lock from now on, with no writer in between: see [`RwLockWriteGuard::downgrade`].
    ///
    /// # Errors
    ///
    /// As [`RwLockWriteGuard::downgrade`].
    pub fn downgrade(self) -> Result<FileReadGuard> {
        let Self { guard, contents } = self;
        Ok(FileReadGuard { guard: guard.downgrade()?, contents })
    }

    /// Releases the lock, and says if that failed, which dropping cannot. What was written is written before this.
    ///
    /// # Errors
    ///
    /// As [`RwLockReadGuard::unlock`].
    pub fn unlock(self) -> Result<()> {
        self.guard.unlock()
    }

    /// Whether a holder before this one died without releasing the lock: see
    /// [`LockGuard::was_abandoned`](crate::LockGuard::was_abandoned).
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.guard.was_abandoned()
    }

    /// The path of the data file, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.contents.path()
    }
}

impl fmt::Debug for FileWriteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWriteGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}
