//! The nearest thing to bare system calls where there is no `flock(2)`: fs4, which on Windows calls
//! `LockFileEx` and `UnlockFile` with nothing around them.

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use fs4::{FileExt, TryLockError};

/// Blocks until it is had.
pub(crate) fn lock(file: &File) {
    FileExt::lock(file).expect("lock");
}

#[allow(dead_code, reason = "only where a lock is shared")]
pub(crate) fn lock_shared(file: &File) {
    FileExt::lock_shared(file).expect("lock shared");
}

/// Makes an exclusive lock a shared one. Windows has both for a moment, and lets the exclusive one go first.
#[allow(dead_code, reason = "only where a lock is shared")]
pub(crate) fn share(file: &File) {
    lock_shared(file);
    unlock(file);
}

/// Whether it was to be had.
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

/// Looks up a path.
pub(crate) struct Stat(PathBuf);

impl Stat {
    pub(crate) fn of(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn call(&self) {
        black_box(std::fs::metadata(&self.0).expect("look up the path"));
    }

    #[allow(dead_code, reason = "only where a file is waited for")]
    pub(crate) fn is_there(&self) -> bool {
        std::fs::metadata(&self.0).is_ok()
    }
}
