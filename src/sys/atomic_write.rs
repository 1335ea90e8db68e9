//! Files that are never seen half-written, also not after a loss of power: written aside, in the
//! same directory, synced, and then given their name.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::imp::{
    KeptAttributes, WRITERS_LOCK, at_any_length, claim, fixed, is_network_directory,
    is_unavailable, make_at, not_replaced, remove_if_left, sync_directory, sync_file,
    through_readers, unclaim, unique_aside,
};
use super::{Bits, FileKind, Mode};

/// Makes `path` with these contents; `AlreadyExists` where anything has the name.
pub(crate) fn write_new(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    let (made, is_claimed) = written(path, contents, bits)?;
    let named = match name_new(made, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
            // Neither a rename without clobbering nor a second name (exFAT, some FUSE): first come.
            persist(written(path, contents, bits)?.0, path)
        }
        named => named,
    };
    end(path, &named?, is_claimed);
    Ok(())
}

/// Puts these contents in the place of what `path` names now.
pub(crate) fn replace(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    let (made, is_claimed) = written(path, contents, bits)?;
    end(path, &persist(made, path)?, is_claimed);
    Ok(())
}

/// The file has its name.
fn end(path: &Path, file: &File, is_claimed: bool) {
    if is_claimed {
        unclaim(file);
        sweep(path);
    }
}

/// Writes the contents aside, and syncs them if that can be done here: otherwise some file systems
/// may have an empty file at the name after a loss of power. Also returns whether the file is
/// [claimed](claim).
fn written(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<(NamedTempFile, bool)> {
    let is_claimed = locks_tell(path);
    let made = if is_claimed { aside(path, bits) } else { unique_aside(path, bits) }?;
    made.as_file().write_all(contents)?;
    match made.as_file().sync_data() {
        Err(error) if !is_unavailable(&error) => Err(error),
        _ => Ok((made, is_claimed)),
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
fn locks_tell(path: &Path) -> bool {
    !path.parent().is_some_and(is_network_directory)
}

/// A new file to be written and then given the name `path`: at the first number that is free, or
/// that a killed writer left.
fn aside(path: &Path, bits: Option<Bits>) -> io::Result<NamedTempFile> {
    for at in (0..NUMBERS).map(|number| numbered(path, number)) {
        let made = match make_at(&at, bits) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && remove_if_left(&at) => {
                make_at(&at, bits)
            }
            made => made,
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // It is being removed, or another program has it open: do without a number.
            Err(_) if !WRITERS_LOCK => break,
            made => {
                if let Some(claimed) = claim(made?, &at)? {
                    return Ok(claimed);
                }
            }
        }
    }
    unique_aside(path, bits)
}

/// Rule 14. Removes what killed writers of `path` left.
pub(crate) fn remove_left_by_others(path: &Path) {
    if locks_tell(path) {
        sweep(path);
    }
}

fn sweep(path: &Path) {
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
pub(super) fn name_new(made: NamedTempFile, path: &Path) -> io::Result<File> {
    match made.persist_noclobber(at_any_length(path)) {
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
pub(crate) fn put(
    path: &Path,
    through: &Path,
    contents: &[u8],
    bits: Option<Bits>,
    durable: bool,
) -> io::Result<bool> {
    let kept = KeptAttributes::of(path)?;
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
    if super::file_kind(path)? == FileKind::Other {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else took its place"));
    }
    let named = persist(still_ours(made, through)?, path);
    unclaim(&named.map_err(|error| not_replaced(path, error))?);
    match path.parent().filter(|_| durable) {
        Some(directory) => Ok(sync_directory(directory)? && is_synced),
        None => Ok(is_synced),
    }
}

/// The file that was created at `through`, unless another writer, which should not exist, removed
/// or replaced it. That writer keeps it then, since dropping it here would remove it by its path.
pub(super) fn still_ours(made: NamedTempFile, through: &Path) -> io::Result<NamedTempFile> {
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

fn persist(made: NamedTempFile, path: &Path) -> io::Result<File> {
    let mut made = Some(made);
    through_readers(|| {
        let Some(file) = made.take() else { return Err(io::ErrorKind::NotFound.into()) }; // unreachable: it is put back
        file.persist(at_any_length(path)).map_err(|error| {
            made = Some(error.file);
            error.error
        })
    })
}
