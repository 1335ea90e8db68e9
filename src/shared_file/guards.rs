//! The guards of a [`SharedFile`](crate::SharedFile).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Operation, Result};
use crate::file::data_file::{DataFile, text};
use crate::rwlock::{RwLockReadGuard, RwLockWriteGuard};

/// A guard that shares the lock of a [`SharedFile`](crate::SharedFile) and releases it when
/// dropped.
///
/// No other holder of the lock writes the file while the guard exists. The guard owns its lock: it
/// can be sent to another thread, kept in a struct, and outlive the
/// [`SharedFile`](crate::SharedFile).
///
/// [`SharedFile::lock_shared`](crate::SharedFile::lock_shared) and its other forms, and
/// [`FileWriteGuard::downgrade`], return this guard.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let index = flockwork::SharedFile::open(dir.path().join("index"))?;
/// index.write("a b")?;
///
/// let reading = index.lock_shared()?;
/// assert_eq!(reading.read_to_string()?, "a b");
/// assert!(index.try_lock_exclusive().is_err()); // no writer while the guard exists
/// reading.unlock()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Caveats
///
/// * A program that does not lock the file can still change it.
/// * A guard that `fork` copied into a child releases nothing: [`unlock`](Self::unlock) returns an
///   error there.
#[must_use = "if unused, the lock is released immediately"]
#[clippy::has_significant_drop]
pub struct FileReadGuard {
    pub(super) guard: RwLockReadGuard,
    pub(super) contents: Arc<DataFile>,
}

impl FileReadGuard {
    /// Reads the whole file.
    ///
    /// # Errors
    ///
    /// See [`SharedFile::read`](crate::SharedFile::read).
    pub fn read(&self) -> Result<Vec<u8>> {
        self.contents.read()
    }

    /// Reads the whole file as text.
    ///
    /// # Errors
    ///
    /// See [`SharedFile::read_to_string`](crate::SharedFile::read_to_string).
    pub fn read_to_string(&self) -> Result<String> {
        text(self.contents.path(), self.read()?)
    }

    /// Releases the lock and reports an error, which dropping the guard cannot do.
    ///
    /// # Errors
    ///
    /// See [`RwLockReadGuard::unlock`].
    pub fn unlock(self) -> Result<()> {
        self.guard.unlock()
    }

    /// Returns `true` if a previous holder died without releasing the lock.
    ///
    /// See [`LockGuard::was_abandoned`](crate::LockGuard::was_abandoned).
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.guard.was_abandoned()
    }

    /// Returns `true` while this guard excludes other callers that open the path now.
    ///
    /// It works as [`LockGuard::still_held`](crate::LockGuard::still_held) does.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the path cannot be looked up.
    pub fn still_held(&self) -> Result<bool> {
        self.guard.still_held()
    }

    /// Returns the absolute path of the data file.
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

/// A guard that holds the lock of a [`SharedFile`](crate::SharedFile) exclusively.
///
/// No other process or thread holds the lock while the guard exists. Dropping the guard releases
/// it. The guard owns its lock: it can be sent to another thread, kept in a struct, and outlive the
/// [`SharedFile`](crate::SharedFile).
///
/// [`SharedFile::lock_exclusive`](crate::SharedFile::lock_exclusive) and its other forms return
/// this guard.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let index = flockwork::SharedFile::open(dir.path().join("index"))?;
/// let mut writing = index.lock_exclusive_timeout(std::time::Duration::from_secs(5))?;
/// writing.replace("a b")?;
/// let reading = writing.downgrade()?; // no other writer in between
/// assert_eq!(reading.read()?, b"a b");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Caveats
///
/// * [`SharedFile::read`](crate::SharedFile::read) takes no lock, so it sees each change before the
///   guard is dropped.
/// * A program that does not lock the file can still change it.
/// * A guard that `fork` copied into a child writes and releases nothing:
///   [`replace`](Self::replace) and [`unlock`](Self::unlock) return an error there.
#[must_use = "if unused, the lock is released immediately"]
#[clippy::has_significant_drop]
pub struct FileWriteGuard {
    pub(super) guard: RwLockWriteGuard,
    pub(super) contents: Arc<DataFile>,
}

impl FileWriteGuard {
    /// Reads the whole file.
    ///
    /// # Errors
    ///
    /// See [`SharedFile::read`](crate::SharedFile::read).
    pub fn read(&self) -> Result<Vec<u8>> {
        self.contents.read()
    }

    /// Reads the whole file as text.
    ///
    /// # Errors
    ///
    /// See [`SharedFile::read_to_string`](crate::SharedFile::read_to_string).
    pub fn read_to_string(&self) -> Result<String> {
        text(self.contents.path(), self.read()?)
    }

    /// Replaces the contents, any number of times.
    ///
    /// A program that reads without the lock sees the new contents immediately.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::ErrorKind::Lost) if the server of a network file system has dropped the
    /// lock. The file is not changed then. Otherwise see
    /// [`SharedFile::write`](crate::SharedFile::write).
    pub fn replace(&mut self, contents: impl AsRef<[u8]>) -> Result<()> {
        self.guard.check_held(Operation::Write)?;
        self.contents.replace(contents.as_ref())
    }

    /// Changes the contents. See [`SharedFile::update`](crate::SharedFile::update).
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
    /// See [`SharedFile::update`](crate::SharedFile::update).
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

    /// Turns the exclusive lock into a shared one, with no other writer in between.
    ///
    /// See [`RwLockWriteGuard::downgrade`].
    ///
    /// # Errors
    ///
    /// See [`RwLockWriteGuard::downgrade`].
    pub fn downgrade(self) -> Result<FileReadGuard> {
        let Self { guard, contents } = self;
        Ok(FileReadGuard { guard: guard.downgrade()?, contents })
    }

    /// Releases the lock and reports an error, which dropping the guard cannot do.
    ///
    /// An error concerns the lock alone: changes are already written when this is called.
    ///
    /// # Errors
    ///
    /// See [`RwLockWriteGuard::unlock`].
    pub fn unlock(self) -> Result<()> {
        self.guard.unlock()
    }

    /// Returns `true` if a previous holder died without releasing the lock.
    ///
    /// See [`LockGuard::was_abandoned`](crate::LockGuard::was_abandoned).
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.guard.was_abandoned()
    }

    /// Returns `true` while this guard excludes other callers that open the path now.
    ///
    /// It works as [`LockGuard::still_held`](crate::LockGuard::still_held) does.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the path cannot be looked up.
    pub fn still_held(&self) -> Result<bool> {
        self.guard.still_held()
    }

    /// Returns the fencing token of this acquisition.
    ///
    /// It works as [`LockGuard::fencing_token`](crate::LockGuard::fencing_token) does.
    ///
    /// # Errors
    ///
    /// See [`LockGuard::fencing_token`](crate::LockGuard::fencing_token).
    pub fn fencing_token(&self) -> Result<u64> {
        self.guard.fencing_token()
    }

    /// Returns the absolute path of the data file.
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
