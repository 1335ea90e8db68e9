//! The bare system calls on Unix, `flock(2)` and `stat(2)`.

use std::ffi::CString;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Blocks until the lock is acquired.
pub(crate) fn lock(file: &File) {
    flock(file, FlockOperation::LockExclusive).expect("flock(LOCK_EX)");
}

#[allow(dead_code, reason = "only the bench of shared locks uses it")]
pub(crate) fn lock_shared(file: &File) {
    flock(file, FlockOperation::LockShared).expect("flock(LOCK_SH)");
}

/// Downgrades an exclusive lock to a shared one.
#[allow(dead_code, reason = "only the bench of shared locks uses it")]
pub(crate) fn share(file: &File) {
    lock_shared(file);
}

/// Returns whether the lock was acquired.
pub(crate) fn try_lock(file: &File) -> bool {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(Errno::WOULDBLOCK) => false,
        Err(error) => panic!("flock(LOCK_EX | LOCK_NB): {error}"),
    }
}

pub(crate) fn unlock(file: &File) {
    flock(file, FlockOperation::Unlock).expect("flock(LOCK_UN)");
}

/// A path to call `stat(2)` on, stored as a C string.
pub(crate) struct Stat(CString);

impl Stat {
    pub(crate) fn of(path: &Path) -> Self {
        Self(CString::new(path.as_os_str().as_encoded_bytes()).expect("a path without NUL"))
    }

    pub(crate) fn call(&self) {
        black_box(rustix::fs::stat(&self.0).expect("stat"));
    }

    #[allow(dead_code, reason = "only the bench of events uses it")]
    pub(crate) fn exists(&self) -> bool {
        rustix::fs::stat(&self.0).is_ok()
    }
}
