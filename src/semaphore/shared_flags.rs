//! Two files whose lengths are flags that a semaphore's processes share: whether one of them waits,
//! and whether the capacity was changed (rules S3 and S5).

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use crate::access::Creation;
use crate::error::{Error, Operation, Result};
use crate::file::open::open_plain;
use crate::sys::{self, FileId, Retries};

/// The two files. Reading a length takes a fifth of the time of locking and unlocking. The files
/// are never locked, so that this works on Windows too (rule 7). A file that has a second name may
/// be another program's, so its length must not be changed (rule S10).
pub(super) struct SharedFlags {
    /// Empty if no process waits, or longer (S5).
    queued: File,
    /// One byte longer after each resize (S3).
    resized: File,
    ids: [FileId; 2],
}

fn length(mut file: &File) -> Option<u64> {
    file.seek(SeekFrom::End(0)).ok()
}

fn open_own(path: &Arc<Path>, creation: Creation) -> Result<(File, FileId)> {
    let mut retries = Retries::new();
    while retries.again() {
        let (file, id) = open_plain(path, creation)?;
        let failed = |source| Error::io(Operation::LookUp, path, source);
        match sys::has_one_name(path, id).map_err(failed)? {
            Some(true) => return Ok((file, id)),
            Some(false) => {
                let problem = "it has another name (a hard link)";
                return Err(Error::corrupt(path, problem, "remove one of its names"));
            }
            None => {} // removed or replaced meanwhile
        }
    }
    let source = io::Error::other("another program replaced it each time after it was opened");
    Err(Error::io(Operation::Open, path, source))
}

impl SharedFlags {
    fn names(directory: &Path) -> [Arc<Path>; 2] {
        ["queued", "resized"].map(|name| directory.join(name).into())
    }

    pub(super) fn open(directory: &Path, creation: impl Into<Creation>) -> Result<Self> {
        let creation = creation.into();
        let [queued, resized] = Self::names(directory);
        let (queued, first) = open_own(&queued, creation)?;
        let (resized, second) = open_own(&resized, creation)?;
        Ok(Self { queued, resized, ids: [first, second] })
    }

    pub(super) fn are_current(&self, directory: &Path) -> bool {
        let mut names = Self::names(directory).into_iter().zip(self.ids);
        names.all(|(path, id)| sys::names(&path, id).unwrap_or(false))
    }

    /// Whether a process may be waiting. `true` where the length cannot be read.
    pub(super) fn is_raised(&self) -> bool {
        length(&self.queued) != Some(0)
    }

    /// Returns whether it is raised now. A process that may only read the files cannot raise it.
    pub(super) fn raise(&self) -> bool {
        length(&self.queued).is_some_and(|length| length > 0) || self.queued.set_len(1).is_ok()
    }

    /// Changes the length of a raised flag, which is an event of the directory.
    pub(super) fn change_length(&self) {
        let other = if length(&self.queued) == Some(1) { 2 } else { 1 };
        if self.is_own() {
            let _ = self.queued.set_len(other);
        }
    }

    /// Only for a process that has seen that no process waits, and while none can begin to.
    pub(super) fn lower(&self) -> bool {
        self.is_own() && self.queued.set_len(0).is_ok()
    }

    /// Whether the length is one that flockwork sets.
    fn is_own(&self) -> bool {
        length(&self.queued).is_some_and(|length| length <= 2)
    }

    /// A number that differs after each resize, and where the length cannot be read.
    pub(super) fn generation(&self) -> u64 {
        length(&self.resized).unwrap_or(u64::MAX)
    }

    /// Only for the process that resizes.
    pub(super) fn next_generation(&self) -> io::Result<()> {
        // If the file cannot grow, any different length is sufficient.
        let longer = length(&self.resized).map_or(0, |length| length.saturating_add(1));
        let changed = self.resized.set_len(longer).or_else(|_| self.resized.set_len(0));
        changed.map_err(|error| match error.kind() {
            // The file was opened read-only, since this user may not write to it.
            io::ErrorKind::InvalidInput => io::ErrorKind::PermissionDenied.into(),
            _ => error,
        })
    }
}
