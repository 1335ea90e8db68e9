//! The guards of an [`RwLock`](super::RwLock).

use std::fmt;
use std::path::Path;

use crate::error::{Operation, Result};
use crate::file::guard::{GuardOptions, RawGuard};
use crate::wait::Kept;

/// A guard that holds an [`RwLock`](crate::RwLock) for reading and releases it when dropped.
///
/// A guard owns its lock: it can be sent to another thread, kept in a struct, and outlive the
/// [`RwLock`](crate::RwLock). Dropping one guard releases no other. A copy of a guard in a child
/// created by `fork` releases nothing.
///
/// [`RwLock::read`](crate::RwLock::read) and its other forms return it, and so does
/// [`RwLockWriteGuard::downgrade`].
#[must_use = "if unused, the lock is released immediately"]
#[clippy::has_significant_drop]
pub struct RwLockReadGuard {
    pub(super) raw: Kept<RawGuard>,
}

impl RwLockReadGuard {
    /// Releases the lock and reports errors, which dropping the guard cannot do.
    ///
    /// # Errors
    ///
    /// * [`Lost`](crate::ErrorKind::Lost) if the server of a network file system had dropped the
    ///   lock before: see [`LockGuard::unlock`](crate::LockGuard::unlock).
    /// * [`Io`](crate::ErrorKind::Io) if the system fails to unlock the file. The descriptor is
    ///   closed then, which also releases the lock unless a forked child has it open.
    ///
    /// A forked copy of the guard releases nothing and also returns [`Io`](crate::ErrorKind::Io).
    pub fn unlock(self) -> Result<()> {
        self.raw.finish(RawGuard::unlock)
    }

    /// Returns the absolute path of the lock.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.raw.get().path()
    }

    /// Returns whether an earlier writer died without releasing the lock.
    ///
    /// It works as [`LockGuard::was_abandoned`](crate::LockGuard::was_abandoned) does, except that
    /// a reader does not settle the matter: every reader reports the death until a writer has.
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.raw.ask(|raw| Ok(raw.abandoned())).unwrap_or(false)
    }

    /// Returns `true` while this guard excludes other callers that open the path now.
    ///
    /// It works as [`LockGuard::still_held`](crate::LockGuard::still_held) does.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the path cannot be looked up.
    pub fn still_held(&self) -> Result<bool> {
        self.raw.ask(RawGuard::still_held)
    }
}

impl fmt::Debug for RwLockReadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockReadGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// A guard that holds an [`RwLock`](crate::RwLock) for writing and releases it when dropped.
///
/// A guard owns its lock: it can be sent to another thread, kept in a struct, and outlive the
/// [`RwLock`](crate::RwLock). A copy of a guard in a child created by `fork` releases nothing.
///
/// [`RwLock::write`](crate::RwLock::write) and its other forms return it.
#[must_use = "if unused, the lock is released immediately"]
#[clippy::has_significant_drop]
pub struct RwLockWriteGuard {
    pub(super) raw: Kept<RawGuard>,
    pub(super) options: GuardOptions,
}

impl RwLockWriteGuard {
    /// Turns the writer into a reader, without letting another writer in between.
    ///
    /// Other readers are admitted from then on, and writers are not, even those that already wait.
    /// So the changes can be checked before another writer makes more.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let reader = lock.write()?.downgrade()?;
    /// let _another = lock.try_read()?;
    /// assert!(lock.try_write().unwrap_err().is_would_block());
    /// # drop(reader);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the system fails to change the lock;
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if another process acquired the lock in
    /// between. Nothing is held then.
    ///
    /// # Platform-specific behavior
    ///
    /// Linux (since 4.0), the BSDs and macOS change the lock in one step. On Windows the handle has
    /// both locks for a moment. Linux before 4.0 releases the lock for a moment, in which a waiting
    /// writer can acquire it.
    pub fn downgrade(self) -> Result<RwLockReadGuard> {
        let Self { raw, options } = self;
        let server = raw.server().cloned();
        let shared = raw.finish(move |raw| raw.share(&options))?;
        Ok(RwLockReadGuard { raw: Kept::new(shared, server.as_ref()) })
    }

    /// Returns an error if `fork` created this copy of the guard, since the lock then belongs to
    /// the process that acquired it (rule 4).
    pub(crate) fn check_held(&self, operation: Operation) -> Result<()> {
        self.raw.get().check_held(operation)
    }

    /// Releases the lock and reports errors, which dropping the guard cannot do.
    ///
    /// # Errors
    ///
    /// * [`Lost`](crate::ErrorKind::Lost) if the server of a network file system had dropped the
    ///   lock before: see [`LockGuard::unlock`](crate::LockGuard::unlock).
    /// * [`Io`](crate::ErrorKind::Io) if the system fails to unlock the file. The descriptor is
    ///   closed then, which also releases the lock unless a forked child has it open.
    ///
    /// A forked copy of the guard releases nothing and also returns [`Io`](crate::ErrorKind::Io).
    pub fn unlock(self) -> Result<()> {
        self.raw.finish(RawGuard::unlock)
    }

    /// Returns the absolute path of the lock.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.raw.get().path()
    }

    /// Returns whether an earlier writer died without releasing the lock: see
    /// [`LockGuard::was_abandoned`](crate::LockGuard::was_abandoned).
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.raw.ask(|raw| Ok(raw.abandoned())).unwrap_or(false)
    }

    /// Returns `true` while this guard excludes other callers that open the path now.
    ///
    /// It works as [`LockGuard::still_held`](crate::LockGuard::still_held) does.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the path cannot be looked up.
    pub fn still_held(&self) -> Result<bool> {
        self.raw.ask(RawGuard::still_held)
    }

    /// Returns the fencing token of this acquisition.
    ///
    /// It works as [`LockGuard::fencing_token`](crate::LockGuard::fencing_token) does.
    ///
    /// # Errors
    ///
    /// See [`LockGuard::fencing_token`](crate::LockGuard::fencing_token).
    pub fn fencing_token(&self) -> Result<u64> {
        self.raw.ask(RawGuard::fencing_token)
    }
}

impl fmt::Debug for RwLockWriteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockWriteGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}
