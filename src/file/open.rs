//! Opens or creates a regular file for locking or writing (rule 1).

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::access::{Access, Creation};
use crate::error::{Error, Operation, Result};
use crate::paths::create_parents;
use crate::sys::{self, Directory, FileId, Origin, Retries};

/// The purpose for which a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Locking,
    /// For writing, or, on Linux, so that closing the file is an event. inotify has two kinds of
    /// close, and notify 8.2 subscribes to that of a descriptor that may write (inotify.rs,
    /// `add_single_watch`). This event notifies the leader of a semaphore's queue that a holder has
    /// died (rule S7).
    Writing,
}

impl Purpose {
    fn open(self, path: &Path) -> io::Result<File> {
        match self {
            Self::Locking => sys::open_to_lock(path),
            Self::Writing => sys::open_existing(path),
        }
    }

    fn create(self, path: &Path, access: Access) -> io::Result<File> {
        match self {
            Self::Locking => sys::create_to_lock(path, access.bits()),
            Self::Writing => sys::create_new(path, access.bits()),
        }
    }
}

/// An open file and its identity.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// Taken out when it is closed.
    file: Option<File>,
    pub(super) id: FileId,
    /// Whether the file has its second name.
    pub(super) is_kept: bool,
    pub(super) origin: Origin,
}

const OPEN: &str = "only closing takes the file, and consumes or drops `self`";

impl OpenFile {
    pub(super) fn of(file: File) -> io::Result<Self> {
        let id = sys::identity(&file)?;
        Ok(Self::with(file, id))
    }

    fn with(file: File, id: FileId) -> Self {
        Self { file: Some(file), id, is_kept: false, origin: Origin::here() }
    }

    pub(super) fn file(&self) -> &File {
        self.file.as_ref().expect(OPEN)
    }
}

impl Drop for OpenFile {
    /// Closes the file, except in a forked copy that may not have it. `fork` copies the table of
    /// descriptors first and the memory later (`copy_process` in `kernel/fork.c`). A file that
    /// another thread opened in between has no descriptor in the copy: its number is free there, or
    /// belongs to another file by now, which must not be closed (rule 4).
    fn drop(&mut self) {
        if self.origin.is_here() {
            return;
        }
        if let Some(file) = self.file.take() {
            if !sys::identity(&file).is_ok_and(|id| id == self.id) {
                std::mem::forget(file);
            }
        }
    }
}

/// Opens a regular file, or creates it and its missing parent directories. It checks the path
/// before it opens the file, since opening a device or a FIFO has side effects. It opens the file
/// without following a link or blocking, since the path may name another file by then, and checks
/// the opened file (rule 1).
///
/// With `spare`, the file also gets that second name. If `path` is missing or names another file,
/// it is made to name the file at `spare` again (rule S2).
pub(super) fn open(
    path: &Arc<Path>,
    spare: Option<&Path>,
    creation: Creation,
    purpose: Purpose,
) -> Result<OpenFile> {
    open_beside(path, spare, &mut Spares::default(), creation, purpose)
}

/// The directory of second names, for a caller that opens many files. It is held open: through a
/// symbolic link at its path, a spare would be created or found elsewhere.
#[derive(Default)]
pub(crate) struct Spares(Option<Directory>);

impl Spares {
    /// The directory at the path; `None` if it is missing and cannot be created.
    fn at(&mut self, path: &Path, creation: Creation) -> Option<&Directory> {
        if !self.0.as_ref().is_some_and(|directory| directory.is_at(path)) {
            self.0 = own_directory(path, creation).ok();
        }
        self.0.as_ref()
    }
}

/// The same for a caller that opens other files with a second name in the same directory.
pub(super) fn open_beside(
    path: &Arc<Path>,
    spare: Option<&Path>,
    spares: &mut Spares,
    creation: Creation,
    purpose: Purpose,
) -> Result<OpenFile> {
    let access = creation.access;
    let directory =
        spare.and_then(Path::parent).and_then(|directory| spares.at(directory, creation));
    let spare = directory.zip(spare.and_then(Path::file_name));
    let spare = spare.map(|(directory, name)| directory.path().join(name));
    let spare = spare.as_deref();
    let failed = |operation| move |source| Error::io(operation, path, source);
    let opened = |file: File| OpenFile::of(file).map_err(failed(Operation::LookUp));
    // `None`: the path named a different file than `spare`.
    let kept = |mut open: OpenFile| {
        let Some(spare) = spare else { return Ok::<_, Error>(Some(open)) };
        let kept = restore(path, open.id, spare).map_err(failed(Operation::Restore))?;
        Ok(kept.map(|is_kept| {
            open.is_kept = is_kept;
            open
        }))
    };
    let mut retries = Retries::new();
    while retries.again() {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => match purpose.open(path) {
                Ok(file) => {
                    let id = sys::regular_identity(&file).map_err(failed(Operation::LookUp))?;
                    let Some(id) = id else {
                        let found = file.metadata().map_err(failed(Operation::LookUp))?;
                        return Err(not_regular(path, found.file_type()));
                    };
                    if let Some(open) = kept(OpenFile::with(file, id))? {
                        return Ok(open);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // has just been removed
                // Another host has just replaced it.
                Err(error) if sys::is_stale(&error) && !retries.are_many() => {}
                Err(error) => match std::fs::symlink_metadata(path) {
                    // The file has just been replaced; with O_NOFOLLOW the error is ELOOP, EMLINK
                    // or EFTYPE.
                    Ok(found) if !found.is_file() => {
                        return Err(not_regular(path, found.file_type()));
                    }
                    _ => return Err(failed(Operation::Open)(error)),
                },
            },
            Ok(found) => return Err(not_regular(path, found.file_type())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match spare.map(|spare| std::fs::hard_link(spare, path)) {
                    Some(Ok(())) => continue,
                    Some(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(Operation::Create)(error));
                    }
                    _ => {} // there is no spare
                }
                if !creation.files {
                    return Err(failed(Operation::Open)(error));
                }
                match purpose.create(path, access) {
                    Ok(file) => {
                        if let Some(open) = kept(opened(file)?)? {
                            return Ok(open);
                        }
                    }
                    // Another process created it first, or a network file system returned a
                    // spurious error (rule 9).
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound && creation.directories =>
                    {
                        create_parents(path, access, failed(Operation::Create)(error), &retries)?;
                    }
                    Err(error) => return Err(failed(Operation::Create)(error)),
                }
            }
            Err(error) if sys::is_stale(&error) && !retries.are_many() => {}
            Err(error) => return Err(failed(Operation::LookUp)(error)),
        }
    }
    let source = io::Error::other("another program removed it each time before it could be opened");
    Err(failed(Operation::Open)(source))
}

/// Opens the directory, and creates it if it is missing and that is allowed.
pub(crate) fn own_directory(path: &Path, creation: Creation) -> io::Result<Directory> {
    match Directory::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && creation.directories => {
            sys::create_directories(path, creation.bits())?;
            Directory::open(path)
        }
        opened => opened,
    }
}

/// Opens or creates a file that is written to and not locked, by the same rule.
pub(crate) fn open_plain(path: &Arc<Path>, creation: Creation) -> Result<(File, FileId)> {
    let mut open = open(path, None, creation, Purpose::Writing)?;
    let file = open.file.take().expect(OPEN);
    Ok((file, open.id))
}

/// Makes `path`, which names the file `id`, and `spare` name the same file, and returns whether
/// they do. Without hard links (FAT, some FUSE) a second name is not possible. `None`: the path
/// named another file, so it must be opened again.
fn restore(path: &Path, id: FileId, spare: &Path) -> io::Result<Option<bool>> {
    match sys::path_identity(spare) {
        Ok(kept) if kept == id => Ok(Some(true)),
        // Another program replaced the file at the path, and the original one may be locked. The
        // original keeps its second name, and gets a third one that is then renamed to the path.
        Ok(_) => {
            let third = sys::beside(spare, ".again");
            let renamed = match std::fs::hard_link(spare, &third) {
                Ok(()) => std::fs::rename(&third, path),
                Err(error) => Err(error),
            };
            // The third name remains if both names referred to the same file already, or if a
            // process died at this point.
            let _ = std::fs::remove_file(&third);
            match renamed {
                // `NotFound` and `AlreadyExists` mean that another process does the same at this
                // moment.
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                    ) =>
                {
                    Err(error)
                }
                _ => Ok(None),
            }
        }
        Err(_) => {
            let _ = std::fs::hard_link(path, spare);
            Ok(Some(sys::path_identity(spare).is_ok_and(|kept| kept == id)))
        }
    }
}

/// The error for a path that does not name a regular file.
pub(crate) fn not_regular(path: &Arc<Path>, kind: std::fs::FileType) -> Error {
    Error::not_regular(path, sys::describe(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spare of the old directory would otherwise take the place of a file of the new one.
    #[test]
    fn a_replaced_directory_of_spares_is_opened_again() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spares");
        let mut spares = Spares::default();
        for round in ["first", "second", "third"] {
            let directory = spares.at(&path, Access::Umask.into()).unwrap();
            std::fs::write(directory.path().join(round), "").unwrap();
            assert!(path.join(round).exists(), "{round}");
            std::fs::rename(&path, dir.path().join(round)).unwrap();
        }
    }
}
