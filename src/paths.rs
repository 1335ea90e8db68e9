//! Paths as callers give them: makes them absolute, checks them, and creates missing parent
//! directories.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::access::Access;
use crate::error::{Error, Operation, Result};
use crate::sys::{self, Retries};

/// Returns the absolute path, so that a later change of the current directory has no effect. Every
/// path that is opened passes through here first.
pub(crate) fn absolute(path: &Path) -> Result<Arc<Path>> {
    if !sys::SUPPORTED {
        let source = io::ErrorKind::Unsupported.into();
        return Err(Error::unsupported(&path.into(), source));
    }
    let absolute = if path.as_os_str().as_encoded_bytes().contains(&0) {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it contains a NUL byte"))
    } else if let Some(source) = sys::misnamed(path) {
        return Err(Error::io(Operation::Resolve, &path.into(), source));
    } else {
        std::path::absolute(path)
    };
    match absolute {
        Ok(absolute) => Ok(absolute.into()),
        Err(source) => Err(Error::io(Operation::Resolve, &path.into(), source)),
    }
}

/// Returns the absolute path of a file. A path that can only name a directory is an error.
pub(crate) fn absolute_file(path: &Path) -> Result<Arc<Path>> {
    let path = absolute(path)?;
    let last = path.as_os_str().as_encoded_bytes().last();
    let is_directory = last.is_some_and(|byte| std::path::is_separator(char::from(*byte)));
    if is_directory || path.parent().is_none() || path.file_name().is_none() {
        return Err(Error::not_regular(&path, "a directory path"));
    }
    Ok(path)
}

/// The path that a symbolic link at the last component of `path` leads to, if `follows`; otherwise
/// `path`. The target need not exist.
pub(crate) fn resolved(path: &Path, follows: bool) -> Result<PathBuf> {
    /// As many links as Linux follows (`path_resolution(7)`).
    const MAX_LINKS: u32 = 40;
    let mut path = path.to_path_buf();
    if !follows {
        return Ok(path);
    }
    for _ in 0..MAX_LINKS {
        let failed = |operation, source| Error::io(operation, &path.as_path().into(), source);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {}
            Ok(_) => return Ok(path),
            Err(error) => match error.kind() {
                // The caller examines the path, too.
                io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidInput => return Ok(path),
                _ => return Err(failed(Operation::LookUp, error)),
            },
        }
        let target = std::fs::read_link(&path);
        let target = target.map_err(|source| failed(Operation::Resolve, source))?;
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    let source = sys::explained(
        io::ErrorKind::InvalidInput,
        "too many symbolic links",
        "check the symbolic links in the path for a loop",
    );
    Err(Error::io(Operation::Resolve, &path.as_path().into(), source))
}

/// Returns the path of the lock file beside a marker or a data file. It is not `P.lock`: programs
/// such as git and kubectl create that name exclusively while they write `P`, and remove it
/// afterwards. A `P.lock` that stays would block them for good, and their file would not exclude us
/// (rule 15).
pub(crate) fn sidecar_lock(path: &Path) -> Arc<Path> {
    sys::beside(path, ".flock").into()
}

/// Creates the missing parent directories of a file, after an attempt to create the file has
/// `failed`. If none is missing, another process has just created them, and the caller tries again.
/// After many retries the cause must be another one, and `failed` is returned.
pub(crate) fn create_parents(
    path: &Arc<Path>,
    access: Access,
    failed: Error,
    retries: &Retries,
) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    match std::fs::metadata(parent) {
        // Windows reports only that the path was not found.
        Ok(found) if !found.is_dir() => {
            return Err(Error::io(Operation::LookUp, path, io::ErrorKind::NotADirectory.into()));
        }
        Ok(_) => return if retries.are_many() { Err(failed) } else { Ok(()) },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Creating the directory would fail with `AlreadyExists`, which hides the real cause.
        Err(error) => return Err(Error::io(Operation::LookUp, path, error)),
    }
    sys::create_directories(parent, access.bits())
        .map_err(|source| Error::io(Operation::CreateParent, path, dangling_link(parent, source)))
}

/// Explains that a symbolic link leads to nothing. For such a link mkdir(2) reports only that it
/// exists.
fn dangling_link(directory: &Path, error: io::Error) -> io::Error {
    let is_dangling = |above: &&Path| {
        above.is_symlink()
            && std::fs::metadata(above).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let link = directory.ancestors().find(is_dangling);
    match link.filter(|_| error.kind() == io::ErrorKind::AlreadyExists) {
        Some(link) => {
            let link = link.display();
            sys::explained(
                io::ErrorKind::NotFound,
                format!("the target of the symbolic link `{link}` does not exist"),
                "create the target, or change the link",
            )
        }
        None => error,
    }
}
