//! Files that are never seen half-written, also not after a loss of power: written aside, in the same
//! directory, synced, and then given their name.
//! May name tempfile, the platform's file beside this one and std.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use super::imp::{
    Keeping, aside, at_any_length, fixed, is_unavailable, not_replaced, sync_directory, sync_file,
    through_readers,
};
use super::{Bits, Mode, Presence};

/// Makes `path` with these contents; `AlreadyExists` where anything has the name.
pub(crate) fn write_new(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    match name_new(written(path, contents, bits)?, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
            // Neither a rename without clobbering nor a second name (exFAT, some FUSE): first come.
            persist(written(path, contents, bits)?, path)
        }
        named => named.map(drop),
    }
}

/// Written aside, and synced if that can be done here: otherwise some file systems may have an empty file at the name
/// after a loss of power.
fn written(
    path: &Path,
    contents: &[u8],
    bits: Option<Bits>,
) -> io::Result<tempfile::NamedTempFile> {
    let made = aside(path, bits)?;
    made.as_file().write_all(contents)?;
    match made.as_file().sync_data() {
        Err(error) if !is_unavailable(&error) => Err(error),
        _ => Ok(made),
    }
}

/// Gives it that name, at which nothing may be: by a rename that does not clobber, or where there is none by a second name
/// of one inode.
pub(super) fn name_new(made: tempfile::NamedTempFile, path: &Path) -> io::Result<std::fs::File> {
    match made.persist_noclobber(at_any_length(path)) {
        Ok(file) => Ok(file),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(error.error),
        Err(error) => {
            std::fs::hard_link(error.file.path(), path)?;
            Ok(error.file.into_file()) // which removes the first name
        }
    }
}

/// Puts these contents in the place of what `path` names now.
pub(crate) fn replace(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    persist(written(path, contents, bits)?, path)
}

/// The same, with the owner, the group and the mode of what is there (`bits` are for a new file), through a file
/// `through` in the same directory. Only one process may do this at a time, so what is found there is what one left who
/// was killed: it is removed; unless its writer lives, who should not (rule F2). With `durable` it has reached the
/// disk when this returns `true`; with `false` that cannot be asked for here.
///
/// `PermissionDenied` if what is there may not be written to, although it could be replaced.
pub(crate) fn put(
    path: &Path,
    through: &Path,
    contents: &[u8],
    bits: Option<Bits>,
    durable: bool,
) -> io::Result<bool> {
    let kept = Keeping::of(path)?;
    let made = match fixed(through, bits, kept.is_some()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_left(through)?;
            fixed(through, bits, kept.is_some())?
        }
        made => made?,
    };
    made.as_file().write_all(contents)?;
    if let Some(kept) = kept {
        kept.restore(made.as_file())?;
    }
    let is_synced = durable && sync_file(made.as_file())?;
    // As late as can be: a rename would replace what has taken the path's place meanwhile.
    if super::presence(path)? == Presence::Other {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else took its place"));
    }
    persist(still_ours(made, through)?, path).map_err(|error| not_replaced(path, error))?;
    match path.parent().filter(|_| durable) {
        Some(directory) => Ok(sync_directory(directory)? && is_synced),
        None => Ok(is_synced),
    }
}

/// What was made at `through`, unless another writer removed or replaced it, who should not be there: then it is left to
/// that one, since to drop it would remove it by its path.
pub(super) fn still_ours(
    made: tempfile::NamedTempFile,
    through: &Path,
) -> io::Result<tempfile::NamedTempFile> {
    if super::names(through, super::identity(made.as_file())?)? {
        return Ok(made);
    }
    let _ = made.keep();
    Err(io::Error::new(io::ErrorKind::AlreadyExists, NOT_ALONE))
}

const NOT_ALONE: &str = "another program writes it at this moment, although its lock is ours: was the lock file removed?";

/// What a writer left that was killed.
fn remove_left(through: &Path) -> io::Result<()> {
    let in_the_way = |what| io::Error::new(io::ErrorKind::AlreadyExists, what);
    match std::fs::symlink_metadata(through) {
        Ok(found) if !found.is_file() => {
            return Err(in_the_way(
                "at its path with `.lock.new` is something that is no regular file",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    if is_being_written(through)? {
        return Err(in_the_way(NOT_ALONE));
    }
    match through_readers(|| std::fs::remove_file(through)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(io::Error::new(
            error.kind(),
            "another user was killed writing it, and left a file (its path with `.lock.new`) that this one may not remove; \
             let its owner remove it",
        )),
        removed => removed,
    }
}

/// About three seconds in all.
const MOST_PAUSE: Duration = Duration::from_millis(1700);

fn is_being_written(through: &Path) -> io::Result<bool> {
    if !super::imp::WRITERS_LOCK {
        return Ok(false);
    }
    let file = match super::open_to_lock(through) {
        Ok(file) => file,
        // Another user's, who was killed before it had its mode. The lock is ours: nobody writes it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let id = super::identity(&file)?;
    // As in rule 12: a process that dies drops its locks one after the other, and had `P.lock` open first.
    let mut pause = Duration::from_micros(50);
    while !super::try_lock(&file, Mode::Exclusive)? {
        if pause > MOST_PAUSE {
            return Ok(true);
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    super::unlock(&file)?;
    // What a dead one left stays where it is; who lives has renamed or removed it.
    Ok(!super::names(through, id)?)
}

fn persist(made: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    let mut made = Some(made);
    through_readers(|| {
        let Some(file) = made.take() else { return Ok(()) };
        file.persist(at_any_length(path)).map(drop).map_err(|error| {
            made = Some(error.file);
            error.error
        })
    })
}
