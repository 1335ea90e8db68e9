//! The part of [`super`] about directories that only one user may use, for systems that have none.

use std::io;
use std::path::Path;

/// There is no number for a user here, and no directory that only one user may use.
pub(crate) fn user_number() -> Option<u32> {
    None
}

pub(crate) fn create_private_directory(_path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn is_private_directory(_path: &Path) -> bool {
    false
}

pub(crate) fn protects_names(_directory: &Path) -> bool {
    false
}

/// A directory that is listed again and again.
pub(crate) struct ListedDirectory {
    path: std::path::PathBuf,
}

impl ListedDirectory {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        super::read_dir(path).map(|_| Self { path: path.into() })
    }

    /// Processes do not share what they find here.
    #[allow(clippy::unused_self, reason = "other systems have a key")]
    pub(crate) fn key(&self) -> Option<String> {
        None
    }

    pub(crate) fn names(&mut self) -> io::Result<Vec<std::ffi::OsString>> {
        super::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    pub(crate) fn is_at_its_path(&self) -> bool {
        self.path.is_dir()
    }
}
