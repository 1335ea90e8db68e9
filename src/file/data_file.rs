//! One data file, which is read and replaced as a whole. The caller holds its lock (rules F1 to
//! F4).

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::durability::Durability;
use super::regular::{self, something_else};
use crate::error::{Error, Operation, Result};
use crate::options::Options;
use crate::paths::{absolute_file, resolved, sidecar_lock};
use crate::sys::{self, Bits, FileKind};

/// A data file, and the path to which new contents are written first.
pub(crate) struct DataFile {
    path: Arc<Path>,
    /// `P.flock.new`.
    aside: Arc<Path>,
    bits: Option<Bits>,
    must_exist: bool,
    is_overwritten: bool,
    durability: Durability,
}

impl DataFile {
    /// Checks the path, and changes nothing.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self> {
        let path = absolute_file(&resolved(path, options.follows_links)?)?;
        let file = Self {
            aside: sys::beside(&sidecar_lock(&path), ".new").into(),
            path,
            bits: options.access.bits(),
            must_exist: options.creates_nothing,
            is_overwritten: options.writes_in_place,
            durability: Durability::new(options.fsync),
        };
        file.check(Operation::Read)?;
        Ok(file)
    }

    /// Syncs the names of directories above the file that may have been created, if syncing is
    /// wanted. `above` is the nearest directory that existed before.
    pub(crate) fn sync_directories(&self, above: Option<&Path>) -> Result<()> {
        let missing = self.path.ancestors().skip(1).filter(|_| self.durability.is_wanted);
        for directory in
            missing.take_while(|directory| above.is_none_or(|above| *directory != above))
        {
            let Some(parent) = directory.parent() else { break };
            let synced = sys::sync_directory(parent);
            self.durability
                .note(synced.map_err(|source| Error::io(Operation::Sync, &self.path, source))?);
        }
        Ok(())
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durability.is_durable()
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Reads the contents; the error is `NotFound` if there is no file.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        regular::through_replacements(|| {
            self.refresh_name();
            let mut file = regular::open(&self.path, Operation::Read)?;
            regular::read(&mut file, &self.path, Operation::Read)
        })
    }

    /// Reads the contents, which are empty if there is no file.
    pub(crate) fn read_or_empty(&self) -> Result<Vec<u8>> {
        Ok(regular::if_there(self.read())?.unwrap_or_default())
    }

    /// Replaces the contents in one step. Only for a process that holds the lock exclusively
    /// (rule F2).
    pub(crate) fn replace(&self, contents: &[u8]) -> Result<()> {
        self.refresh_name();
        if self.must_exist || self.is_overwritten {
            self.check(Operation::Write)?;
        }
        let durable = self.durability.is_wanted;
        let overwritten = if self.is_overwritten {
            sys::overwrite(&self.path, contents, durable).transpose()
        } else {
            None
        };
        let replaced = overwritten.unwrap_or_else(|| {
            sys::replace_preserving(&self.path, &self.aside, contents, self.bits, durable)
        });
        let is_synced = replaced.map_err(|source| match self.check(Operation::Write) {
            Err(something_else) => something_else, // it is at the path, or has replaced the file
            Ok(()) => Error::io(Operation::Write, &self.path, source),
        })?;
        self.durability.note(is_synced);
        Ok(())
    }

    /// Fails for anything but a regular file or nothing. A symbolic link is an error too: replacing
    /// it would leave the file that it leads to unchanged, and following it would write to a place
    /// that another user chose (rule F1).
    fn check(&self, operation: Operation) -> Result<()> {
        match sys::file_kind(&self.path) {
            Ok(FileKind::Nothing) if self.must_exist => {
                Err(Error::io(operation, &self.path, io::ErrorKind::NotFound.into()))
            }
            Ok(FileKind::Nothing | FileKind::File) => Ok(()),
            Ok(FileKind::Other) => Err(something_else(&self.path)),
            Err(source) => Err(Error::io(operation, &self.path, source)),
        }
    }

    /// Reads the directory on a network file system. An NFS client caches which file a name refers
    /// to for up to 30 seconds, and reading the directory makes it drop that (rule F4).
    fn refresh_name(&self) {
        let Some(directory) = self.path.parent().filter(|d| sys::is_network_directory(d)) else {
            return;
        };
        if let Ok(entries) = sys::read_dir(directory) {
            entries.for_each(drop);
        }
    }
}

/// The contents as text.
pub(crate) fn text(path: &Arc<Path>, contents: Vec<u8>) -> Result<String> {
    String::from_utf8(contents).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidData, error.utf8_error());
        Error::io(Operation::ReadText, path, source)
    })
}
