//! The lock calls of fs4, which are `flock(2)` on Unix and `LockFileEx` on Windows. No other file
//! names fs4.
//!
//! They are called as `FileExt::lock(file)` and never as `file.lock()`, which is std's method since
//! Rust 1.89 (rule 5).

use std::fs::File;
use std::io;

use fs4::{FileExt, TryLockError};

use super::Mode;
use super::imp::means_busy;

pub(super) fn lock(file: &File, mode: Mode) -> io::Result<()> {
    match mode {
        Mode::Exclusive => FileExt::lock(file),
        Mode::Shared => FileExt::lock_shared(file),
    }
}

pub(super) fn try_lock(file: &File, mode: Mode) -> io::Result<bool> {
    let answer = match mode {
        Mode::Exclusive => FileExt::try_lock(file),
        Mode::Shared => FileExt::try_lock_shared(file),
    };
    match answer {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if means_busy(file, &error) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

pub(super) fn unlock(file: &File) -> io::Result<()> {
    FileExt::unlock(file)
}
