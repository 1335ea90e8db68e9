//! The closest thing to bare system calls on systems without `flock(2)`: fs4, which on Windows only
//! calls `LockFileEx` and `UnlockFile`.

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use fs4::{FileExt, TryLockError};

/// Blocks until the lock is acquired.
pub(crate) fn lock(file: &File) {
    FileExt::lock(file).expect("lock");
}

#[allow(dead_code, reason = "only the bench of shared locks uses it")]
pub(crate) fn lock_shared(file: &File) {
    FileExt::lock_shared(file).expect("lock shared");
}

/// Downgrades an exclusive lock to a shared one. On Windows the handle has both for a moment, and
/// unlocking releases the exclusive one first.
#[allow(dead_code, reason = "only the bench of shared locks uses it")]
pub(crate) fn share(file: &File) {
    lock_shared(file);
    unlock(file);
}

/// Returns whether the lock was acquired.
pub(crate) fn try_lock(file: &File) -> bool {
    match FileExt::try_lock(file) {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => panic!("try to lock: {error}"),
    }
}

pub(crate) fn unlock(file: &File) {
    FileExt::unlock(file).expect("unlock");
}

/// A path to call `stat` on.
pub(crate) struct Stat(PathBuf);

impl Stat {
    pub(crate) fn of(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn call(&self) {
        black_box(std::fs::metadata(&self.0).expect("look up the path"));
    }

    #[allow(dead_code, reason = "only the bench of events uses it")]
    pub(crate) fn exists(&self) -> bool {
        std::fs::metadata(&self.0).is_ok()
    }
}
