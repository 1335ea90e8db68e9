//! Files that are never seen half-written, also not after a loss of power: written aside, in the same
//! directory, synced, and then given their name.
//! May name tempfile, the platform's file beside this one and std.

use std::io::{self, Write as _};
use std::path::Path;

use super::Bits;
use super::imp::{aside, through_readers};

/// Makes `path` with these contents; `AlreadyExists` where anything has the name.
pub(crate) fn write_new(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    let made = aside(path, bits)?;
    made.as_file().write_all(contents)?;
    made.as_file().sync_data()?;
    match made.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(error.error),
        // No way to rename without clobbering on this file system (exFAT, some FUSE): a second name of one
        // inode is the other way that fails where the name is taken; and without that, first come.
        Err(error) => {
            let made = error.file;
            match std::fs::hard_link(made.path(), path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
                    made.persist(path).map(drop).map_err(|error| error.error)
                }
                linked => linked,
            }
        }
    }
}

/// Puts these contents in the place of what `path` names now.
pub(crate) fn replace(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    let made = aside(path, bits)?;
    made.as_file().write_all(contents)?;
    made.as_file().sync_data()?;
    let mut made = Some(made);
    through_readers(|| {
        let Some(file) = made.take() else { return Ok(()) };
        file.persist(path).map(drop).map_err(|error| {
            made = Some(error.file);
            error.error
        })
    })
}
