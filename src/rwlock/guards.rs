//! The guards of an [`RwLock`](super::RwLock).

use std::fmt;
use std::path::Path;

use crate::error::{Operation, Result};
use crate::file::guard::{GuardOptions, RawGuard};

/// The lock, had for reading. Released when dropped.
///
/// It owns what it holds: it can be sent to another thread, kept in a struct, and outlive the [`RwLock`](crate::RwLock). Each guard is
/// its own: dropping one frees nothing of another. A copy that `fork` makes of it releases nothing.
#[must_use = "if unused, the lock is released at once"]
#[clippy::has_significant_drop]
pub struct RwLockReadGuard {
    pub(super) raw: RawGuard,
}

impl RwLockReadGuard {
    /// Releases the lock, and says if that failed, which dropping cannot.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the system refuses to unlock. The descriptor is closed then, which releases the
    /// lock too unless a forked child also has it open. [`ErrorKind::Io`](crate::ErrorKind::Io) also in a copy of the guard that `fork`
    /// made: the copy releases nothing.
    pub fn unlock(self) -> Result<()> {
        self.raw.unlock()
    }

    /// The path of the lock, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.raw.path()
    }

    /// Whether a writer before this died without releasing the lock: see
    /// [`LockGuard::was_abandoned`](crate::LockGuard::was_abandoned). A reader only looks: each of them is told, until a writer
    /// was.
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.raw.abandoned()
    }
}

impl fmt::Debug for RwLockReadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockReadGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// The lock, had for writing. Released when dropped.
///
/// It owns what it holds: it can be sent to another thread, kept in a struct, and outlive the [`RwLock`](crate::RwLock).
/// A copy that `fork` makes of it releases nothing.
#[must_use = "if unused, the lock is released at once"]
#[clippy::has_significant_drop]
pub struct RwLockWriteGuard {
    pub(super) raw: RawGuard,
    pub(super) options: GuardOptions,
}

impl RwLockWriteGuard {
    /// Makes a reader of the writer: others may read from now on, and no writer comes in between, also if one is waiting.
    /// So what was written can be looked at before anybody changes it again.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let reading = lock.write()?.downgrade()?;
    /// let _another = lock.try_read()?;
    /// assert!(lock.try_write().unwrap_err().is_would_block());
    /// # drop(reading);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Platform-specific behaviour
    ///
    /// Linux (since 4.0), the BSDs and macOS change the lock in one step; on Windows the handle has both locks for a
    /// moment. A Linux before that lets go of it for a moment, in which a writer that waits already may come: rule R4 of the
    /// [protocol](crate::_protocol).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the system refuses; [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) if it let somebody else in between. Nothing is held
    /// then.
    pub fn downgrade(self) -> Result<RwLockReadGuard> {
        let Self { raw, options } = self;
        raw.share(&options).map(|raw| RwLockReadGuard { raw })
    }

    /// For what must only be done by the one who holds it, and not by a copy of the guard that `fork` made.
    pub(crate) fn check_here(&self, operation: Operation) -> Result<()> {
        self.raw.check_here(operation)
    }

    /// Releases the lock, and says if that failed, which dropping cannot.
    ///
    /// # Errors
    ///
    /// As [`RwLockReadGuard::unlock`].
    pub fn unlock(self) -> Result<()> {
        self.raw.unlock()
    }

    /// The path of the lock, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.raw.path()
    }

    /// Whether a writer before this died without releasing the lock: see
    /// [`LockGuard::was_abandoned`](crate::LockGuard::was_abandoned).
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.raw.abandoned()
    }
}

impl fmt::Debug for RwLockWriteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockWriteGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}
