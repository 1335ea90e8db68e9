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
        Ok(file) if is_regular(&file).map_err(failed)? => Ok(file),
        Ok(_) => Err(something_else(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(failed(error)),
        // The file has just been replaced; with O_NOFOLLOW the error is ELOOP, EMLINK or EFTYPE.
        Err(error) => match sys::file_kind(path) {
            Ok(FileKind::Other) => Err(something_else(path)),
            _ => Err(failed(error)),
        },
    }
}

fn is_regular(file: &File) -> io::Result<bool> {
    file.metadata().map(|found| found.is_file()).map_err(sys::of_open_file)
}

/// Repeats a call that opens a file and reads it, while another host replaces the file (rule 9).
pub(crate) fn through_replacements<T>(call: impl FnMut() -> Result<T>) -> Result<T> {
    let is_stale = |error: &Error| error.io_error().is_some_and(sys::is_stale);
    sys::through_replacements_of(is_stale, call)
}

/// Reads the file to its end; `path` is the path that errors name.
pub(crate) fn read(file: &mut File, path: &Arc<Path>, operation: Operation) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    match file.read_to_end(&mut contents) {
        Ok(_) => Ok(contents),
        Err(source) => Err(Error::io(operation, path, sys::of_open_file(source))),
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
