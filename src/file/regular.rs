//! A regular file that others wrote, opened to be read as a whole.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::sys::{self, FileKind};

/// Opens what is there, if it is a regular file. `operation` says in errors what that is for.
pub(crate) fn open(path: &Path, operation: Operation) -> Result<File> {
    let failed = |source| Error::io(operation, &path.into(), source);
    match sys::through_readers(|| sys::open_to_read(path)) {
        Ok(file) if file.metadata().map_err(failed)?.is_file() => Ok(file),
        Ok(_) => Err(something_else(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(failed(error)),
        // Something else took its place meanwhile; O_NOFOLLOW says ELOOP, EMLINK or EFTYPE.
        Err(error) => match sys::file_kind(path) {
            Ok(FileKind::Other) => Err(something_else(path)),
            _ => Err(failed(error)),
        },
    }
}

/// Reads it to its end; `path` is what it was asked for by.
pub(crate) fn read(file: &mut File, path: &Arc<Path>, operation: Operation) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    match file.read_to_end(&mut contents) {
        Ok(_) => Ok(contents),
        Err(source) => Err(Error::io(operation, path, source)),
    }
}

/// `None` if it was not there.
pub(crate) fn if_there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says what is at the path that is no regular file.
pub(crate) fn something_else(path: &Path) -> Error {
    let found = match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => sys::describe(found.file_type()),
        _ => "something else",
    };
    Error::not_regular(&path.into(), found)
}
