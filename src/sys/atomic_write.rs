//! Files that are never seen half-written, also not after a loss of power: written aside, in the
//! same directory, synced, and then given their name.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::imp::{
    KeptAttributes, WRITERS_LOCK, at_any_length, create_at, create_fixed, create_unique,
    is_network_directory, is_unavailable, mark_in_use, not_replaced, remove_if_left,
    sync_directory, sync_file, through_readers, unmark,
};
use super::{Bits, FileKind, Mode};

/// Makes `path` with these contents; `AlreadyExists` where anything has the name.
pub(crate) fn write_new(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    let (temporary, is_marked) = write_aside(path, contents, bits)?;
    let named = match persist_new(temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
            // Neither a rename without clobbering nor a second name (exFAT, some FUSE): first come.
            persist(write_aside(path, contents, bits)?.0, path)
        }
        named => named,
    };
    finish(path, &named?, is_marked);
    Ok(())
}

/// Puts these contents in the place of what `path` names now.
pub(crate) fn replace(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    let (temporary, is_marked) = write_aside(path, contents, bits)?;
    finish(path, &persist(temporary, path)?, is_marked);
    Ok(())
}

/// The file has its name.
fn finish(path: &Path, file: &File, is_marked: bool) {
    if is_marked {
        unmark(file);
        remove_left_files(path);
    }
}

/// Writes the contents aside, and syncs them if that can be done here: otherwise some file systems
/// may have an empty file at the name after a loss of power. Also returns whether the file is
/// [marked](mark_in_use).
fn write_aside(
    path: &Path,
    contents: &[u8],
    bits: Option<Bits>,
) -> io::Result<(NamedTempFile, bool)> {
    let is_marked = locks_show_writers(path);
    let temporary =
        if is_marked { create_numbered(path, bits) } else { create_unique(path, bits) }?;
    temporary.as_file().write_all(contents)?;
    match temporary.as_file().sync_data() {
        Err(error) if !is_unavailable(&error) => Err(error),
        _ => Ok((temporary, is_marked)),
    }
}

/// How many files can be written aside for one path at a time under a number. There are always
/// fewer, so each call looks at a few names, whatever else the directory holds.
const NUMBERS: u32 = 64;
/// After this many free numbers in a row, the rest are taken to be free as well.
const LONGEST_GAP: u32 = 8;

/// Rule 14. Where what is written for `path` lies meanwhile.
fn numbered(path: &Path, number: u32) -> std::path::PathBuf {
    // FNV-1a, which stays the same in each process and each version. Two names with one hash share
    // their numbers, which does no harm.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in path.file_name().unwrap_or_default().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    path.with_file_name(format!(".flockwork.{hash:016x}.{number}"))
}

/// Whether a lock distinguishes a living writer from a killed one. On a network file system it
/// costs much, and may mean nothing for another host.
fn locks_show_writers(path: &Path) -> bool {
    !path.parent().is_some_and(is_network_directory)
}

/// A new file to be written and then given the name `path`: at the first number that is free, or
/// that a killed writer left.
fn create_numbered(path: &Path, bits: Option<Bits>) -> io::Result<NamedTempFile> {
    for at in (0..NUMBERS).map(|number| numbered(path, number)) {
        let temporary = match create_at(&at, bits) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && remove_if_left(&at) => {
                create_at(&at, bits)
            }
            temporary => temporary,
        };
        match temporary {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // It is being removed, or another program has it open: do without a number.
            Err(_) if !WRITERS_LOCK => break,
            temporary => {
                if let Some(marked) = mark_in_use(temporary?, &at)? {
                    return Ok(marked);
                }
            }
        }
    }
    create_unique(path, bits)
}

/// Rule 14. Removes what killed writers of `path` left.
pub(crate) fn remove_left_by_others(path: &Path) {
    if locks_show_writers(path) {
        remove_left_files(path);
    }
}

fn remove_left_files(path: &Path) {
    let mut gap = 0;
    for at in (0..NUMBERS).map(|number| numbered(path, number)) {
        if super::file_kind(&at).is_ok_and(|there| there == FileKind::Nothing) {
            gap += 1;
        } else {
            gap = 0;
            remove_if_left(&at);
        }
        if gap == LONGEST_GAP {
            break;
        }
    }
}

/// Gives it that name, at which nothing may be: by a rename that does not clobber, or where there
/// is none by a second name of one inode.
pub(super) fn persist_new(temporary: NamedTempFile, path: &Path) -> io::Result<File> {
    match temporary.persist_noclobber(at_any_length(path)) {
        Ok(file) => Ok(file),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(error.error),
        Err(error) => {
            std::fs::hard_link(error.file.path(), path)?;
            Ok(error.file.into_file()) // which removes the first name
        }
    }
}

/// As [`replace`], with the owner, the group and the mode of what is there (`bits` are for a new
/// file), through a file `through` in the same directory. Only one process may do this at a time,
/// so what is found there is what one left who was killed: it is removed; unless its writer lives,
/// who should not (rule F2). With `durable` it has reached the disk when this returns `true`; with
/// `false` that cannot be asked for here.
///
/// `PermissionDenied` if what is there may not be written to, although it could be replaced.
pub(crate) fn replace_preserving(
    path: &Path,
    through: &Path,
    contents: &[u8],
    bits: Option<Bits>,
    durable: bool,
) -> io::Result<bool> {
    let kept = KeptAttributes::of(path)?;
    let temporary = match create_fixed(through, bits, kept.is_some()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_left(through)?;
            create_fixed(through, bits, kept.is_some())?
        }
        temporary => temporary?,
    };
    temporary.as_file().write_all(contents)?;
    if let Some(kept) = kept {
        kept.restore(temporary.as_file())?;
    }
    let is_synced = durable && sync_file(temporary.as_file())?;
    // As late as can be: a rename would replace what has taken the path's place meanwhile.
    if super::file_kind(path)? == FileKind::Other {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else took its place"));
    }
    let named = persist(check_still_named(temporary, through)?, path);
    unmark(&named.map_err(|error| not_replaced(path, error))?);
    match path.parent().filter(|_| durable) {
        Some(directory) => Ok(sync_directory(directory)? && is_synced),
        None => Ok(is_synced),
    }
}

/// The file that was created at `through`, unless another writer, which should not exist, removed
/// or replaced it. That writer keeps it then, since dropping it here would remove it by its path.
pub(super) fn check_still_named(
    temporary: NamedTempFile,
    through: &Path,
) -> io::Result<NamedTempFile> {
    if super::names(through, super::identity(temporary.as_file())?)? {
        return Ok(temporary);
    }
    let _ = temporary.keep();
    Err(io::Error::new(io::ErrorKind::AlreadyExists, NOT_ALONE))
}

const NOT_ALONE: &str = "another program writes it at this moment, although its lock is ours: was the lock file removed?";

/// What a writer left that was killed.
fn remove_left(through: &Path) -> io::Result<()> {
    let in_the_way = |what| io::Error::new(io::ErrorKind::AlreadyExists, what);
    match std::fs::symlink_metadata(through) {
        Ok(found) if !found.is_file() => {
            return Err(in_the_way(
                "at its path with `.flock.new` is something that is no regular file",
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
            "another user was killed writing it, and left a file (its path with `.flock.new`) that this one may not remove; \
             let its owner remove it",
        )),
        removed => removed,
    }
}

/// About three seconds in all.
const MAX_PAUSE: Duration = Duration::from_millis(1700);

fn is_being_written(through: &Path) -> io::Result<bool> {
    if !WRITERS_LOCK {
        return Ok(false);
    }
    let file = match super::open_to_lock(through) {
        Ok(file) => file,
        // A writer of another user was killed before it set the mode. We hold the lock, so no
        // process writes the file.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let id = super::identity(&file)?;
    // As in rule 12: a process that dies drops its locks one after the other, and had `P.flock`
    // open first.
    let mut pause = Duration::from_micros(50);
    while !super::try_lock(&file, Mode::Exclusive)? {
        if pause > MAX_PAUSE {
            return Ok(true);
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    super::unlock(&file)?;
    // What a dead one left stays where it is; who lives has renamed or removed it.
    Ok(!super::names(through, id)?)
}

fn persist(temporary: NamedTempFile, path: &Path) -> io::Result<File> {
    let mut temporary = Some(temporary);
    through_readers(|| {
        let Some(file) = temporary.take() else { return Err(io::ErrorKind::NotFound.into()) }; // unreachable: it is put back
        file.persist(at_any_length(path)).map_err(|error| {
            temporary = Some(error.file);
            error.error
        })
    })
}
