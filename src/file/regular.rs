//! Opens a regular file that any process may have written, and reads it as a whole.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::sys::{self, FileKind};

/// Opens the file at `path` if it is a regular file. `operation` names the caller's purpose in
/// errors.
pub(crate) fn open(path: &Path, operation: Operation) -> Result<File> {
    let failed = |source| Error::io(operation, &path.into(), source);
    match sys::through_readers(|| sys::open_to_read(path)) {
        Ok(file) if file.metadata().map_err(failed)?.is_file() => Ok(file),
        Ok(_) => Err(something_else(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(failed(error)),
        // The file has just been replaced; with O_NOFOLLOW the error is ELOOP, EMLINK or EFTYPE.
        Err(error) => match sys::file_kind(path) {
            Ok(FileKind::Other) => Err(something_else(path)),
            _ => Err(failed(error)),
        },
    }
}

/// Opens the file `from` and reads it to its end; `path` is the path that errors name. Another host
/// may replace the file in between: then the one that has the name by then is opened (rule 9).
pub(crate) fn open_and_read(
    from: &Path,
    path: &Arc<Path>,
    operation: Operation,
) -> Result<Vec<u8>> {
    let is_stale = |error: &Error| error.io_error().is_some_and(sys::is_stale);
    sys::through_replacements_of(is_stale, || read(&mut open(from, operation)?, path, operation))
}

/// Reads the file to its end; `path` is the path that errors name.
pub(crate) fn read(file: &mut File, path: &Arc<Path>, operation: Operation) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    match file.read_to_end(&mut contents) {
        Ok(_) => Ok(contents),
        Err(source) => Err(Error::io(operation, path, source)),
    }
}

/// Turns the error of a missing file into `None`.
pub(crate) fn if_there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The error for a path that does not name a regular file, with the kind of file it names.
pub(crate) fn something_else(path: &Path) -> Error {
    let found = match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => sys::describe(found.file_type()),
        _ => "of another type",
    };
    Error::not_regular(&path.into(), found)
}
