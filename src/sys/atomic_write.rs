//! Writes files so that no process ever sees a part of one, even after a loss of power: a temporary
//! file in the same directory is written, synced, and then given the name.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::imp::{
    KeptAttributes, WRITERS_LOCK, at_any_length, create_at, create_fixed, create_unique,
    is_network_directory, is_unavailable, lock_announcement, mark_in_use, not_replaced,
    remove_if_left, sync_directory, sync_file, through_readers, unmark,
};
use super::{Bits, FileKind, Mode, announcement};

/// Creates `path` with these contents; fails with `AlreadyExists` if anything has the name.
pub(crate) fn write_new(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    let (file, is_marked) = name_new(path, || write_aside(path, contents, bits))?;
    finish(path, &file, is_marked);
    Ok(())
}

/// Gives the file that `write` makes a name that must not exist.
fn name_new(
    path: &Path,
    write: impl Fn() -> io::Result<(NamedTempFile, bool)>,
) -> io::Result<(File, bool)> {
    let (temporary, is_marked) = write()?;
    match persist_new(temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
            // The file system supports neither a rename that does not replace nor a second name
            // (exFAT, some FUSE): rename the file, since nothing had the name just now.
            let (temporary, is_marked) = write()?;
            Ok((persist(temporary, path)?, is_marked))
        }
        named => Ok((named?, is_marked)),
    }
}

/// Writes an announcement to `path`, which counts while the returned file is open (rule E8). Fails
/// with `AlreadyExists` if anything has the name, unless it `replaces`.
pub(crate) fn announce(
    path: &Path,
    contents: &[u8],
    bits: Option<Bits>,
    replaces: bool,
) -> io::Result<File> {
    let write = || {
        let (temporary, is_marked) = create_aside(path, bits)?;
        temporary.as_file().write_all(contents)?;
        // Both before it has its name: a process that finds it decides by them whether it counts.
        lock_announcement(temporary.as_file())?;
        announcement::mark(temporary.as_file())?;
        // The time is synced too, or it would count forever after a loss of power.
        match temporary.as_file().sync_all() {
            Err(error) if !is_unavailable(&error) => Err(error),
            _ => Ok((temporary, is_marked)),
        }
    };
    let (file, is_marked) = if replaces {
        let (temporary, is_marked) = write()?;
        let named = persist(temporary, path).map_err(|error| not_replaced(path, error));
        (named?, is_marked)
    } else {
        name_new(path, write)?
    };
    if is_marked {
        remove_left_files(path);
    }
    Ok(file)
}

/// Makes an announcement no longer count, even if another process has inherited the open file.
pub(crate) fn end_announcement(file: &File) {
    unmark(file);
}

/// Replaces the file at `path` with one that has these contents.
pub(crate) fn replace(path: &Path, contents: &[u8], bits: Option<Bits>) -> io::Result<()> {
    let (temporary, is_marked) = write_aside(path, contents, bits)?;
    let named = persist(temporary, path).map_err(|error| not_replaced(path, error));
    finish(path, &named?, is_marked);
    Ok(())
}

/// Unmarks a file once it has its name, and removes files that killed writers left.
fn finish(path: &Path, file: &File, is_marked: bool) {
    if is_marked {
        unmark(file);
        remove_left_files(path);
    }
}

/// Writes the contents to a temporary file, and syncs them if that is possible: otherwise some file
/// systems may have an empty file at the name after a loss of power. Also returns whether the file
/// is [marked](mark_in_use).
fn write_aside(
    path: &Path,
    contents: &[u8],
    bits: Option<Bits>,
) -> io::Result<(NamedTempFile, bool)> {
    let (temporary, is_marked) = create_aside(path, bits)?;
    temporary.as_file().write_all(contents)?;
    match temporary.as_file().sync_data() {
        Err(error) if !is_unavailable(&error) => Err(error),
        _ => Ok((temporary, is_marked)),
    }
}

fn create_aside(path: &Path, bits: Option<Bits>) -> io::Result<(NamedTempFile, bool)> {
    let is_marked = locks_show_writers(path);
    let temporary =
        if is_marked { create_numbered(path, bits) } else { create_unique(path, bits) }?;
    Ok((temporary, is_marked))
}

/// How many numbered temporary files one path can have at a time. In practice there are fewer, so
/// each call checks only a few names, whatever else the directory contains.
const NUMBERS: u32 = 64;
/// After this many free numbers in a row, the rest are assumed to be free.
const LONGEST_GAP: u32 = 8;

/// The temporary file for `path` with that number (rule 14).
fn numbered(path: &Path, number: u32) -> std::path::PathBuf {
    // FNV-1a gives the same hash in each process and each version. Two names with the same hash
    // share their numbers, which does no harm.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in path.file_name().unwrap_or_default().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    path.with_file_name(format!(".flockwork.{hash:016x}.{number}"))
}

/// Whether a lock distinguishes a living writer from a killed one. On a network file system a lock
/// takes long, and may not be visible to other hosts.
fn locks_show_writers(path: &Path) -> bool {
    !path.parent().is_some_and(is_network_directory)
}

/// Creates a temporary file for `path`, at the first number that is free or that a killed writer
/// left.
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
            // The file is being removed, or another program has it open: do without a number.
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

/// Removes the files that killed writers of `path` left (rule 14).
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

/// Gives the file a name that must not exist: by a rename that does not replace, or if that is not
/// supported, by a hard link.
pub(super) fn persist_new(temporary: NamedTempFile, path: &Path) -> io::Result<File> {
    match temporary.persist_noclobber(at_any_length(path)) {
        Ok(file) => Ok(file),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(error.error),
        Err(error) => {
            std::fs::hard_link(error.file.path(), path)?;
            Ok(error.file.into_file()) // this removes the first name
        }
    }
}

/// Like [`replace`], but the new file takes over the owner, the group and the mode of the old one
/// (`bits` are for a file that did not exist), and the temporary file is `through`, in the same
/// directory. Only one process may do this at a time, so a file found at `through` remains from a
/// killed writer and is removed, unless a writer that should not exist holds it (rule F2). With
/// `durable`, the file is synced if this returns `true`; `false` means that syncing is not
/// available.
///
/// Fails with `PermissionDenied` if this user may not write to the old file, even if it could be
/// replaced.
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
    // Checked as late as possible: the rename would replace anything else that is at the path by
    // now.
    if super::file_kind(path)? == FileKind::Other {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no longer a regular file"));
    }
    let named = persist(check_still_named(temporary, through)?, path);
    unmark(&named.map_err(|error| not_replaced(path, error))?);
    match path.parent().filter(|_| durable) {
        Some(directory) => Ok(sync_directory(directory)? && is_synced),
        None => Ok(is_synced),
    }
}

/// Overwrites the file at `path`, of which other processes may see a part meanwhile. `None`: there
/// is no file. `Some(false)`: it was to be `durable`, and syncing is not available.
///
/// Fails with `PermissionDenied` if this user may not write to the file.
pub(crate) fn overwrite(path: &Path, contents: &[u8], durable: bool) -> io::Result<Option<bool>> {
    if KeptAttributes::of(path)?.is_none() {
        return Ok(None);
    }
    let mut file = super::open_existing(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no longer a regular file"));
    }
    file.write_all(contents)?;
    // Shortened last: until then no byte of the old contents is lost that the new ones do not
    // replace.
    file.set_len(contents.len() as u64)?;
    Ok(Some(durable && sync_file(&file)?))
}

/// Returns the file that was created at `through`, unless another writer, which should not exist,
/// removed or replaced it. In that case the other writer keeps its file, which dropping `temporary`
/// here would remove by its path.
pub(super) fn check_still_named(
    temporary: NamedTempFile,
    through: &Path,
) -> io::Result<NamedTempFile> {
    if super::names(through, super::identity(temporary.as_file())?)? {
        return Ok(temporary);
    }
    let _ = temporary.keep();
    Err(written_without_lock())
}

fn written_without_lock() -> io::Error {
    super::explained(
        io::ErrorKind::AlreadyExists,
        "another program is writing it without holding its lock",
        "check that no program removes or replaces its lock file",
    )
}

/// Removes the file that a killed writer left at `through`.
fn remove_left(through: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(through) {
        Ok(found) if !found.is_file() => {
            return Err(super::explained(
                io::ErrorKind::AlreadyExists,
                "the path of its temporary file, which ends in `.flock.new`, is not a regular file",
                "remove or rename what is there",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    if is_being_written(through)? {
        return Err(written_without_lock());
    }
    match through_readers(|| std::fs::remove_file(through)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(super::explained(
            error.kind(),
            "this user may not remove the temporary file of a killed writer, which ends in `.flock.new`",
            "remove that file as its owner",
        )),
        removed => removed,
    }
}

/// The longest pause of a wait of about three seconds in all.
const MAX_PAUSE: Duration = Duration::from_millis(1700);

fn is_being_written(through: &Path) -> io::Result<bool> {
    if !WRITERS_LOCK {
        return Ok(false);
    }
    let file = match super::open_to_lock(through) {
        Ok(file) => file,
        // A writer of another user was killed before it set the mode. This process holds the lock,
        // so no process writes the file.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let id = super::identity(&file)?;
    // A dying process drops its locks one after the other, and opened `P.flock` first, so this lock
    // may be dropped later (rule F2).
    let mut pause = Duration::from_micros(50);
    while !super::try_lock(&file, Mode::Exclusive)? {
        if pause > MAX_PAUSE {
            return Ok(true);
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    super::unlock(&file)?;
    // The file of a dead writer is still at its name; a living writer has renamed or removed it.
    Ok(!super::names(through, id)?)
}

fn persist(temporary: NamedTempFile, path: &Path) -> io::Result<File> {
    let mut temporary = Some(temporary);
    through_readers(|| {
        // Always there: a failed rename puts it back.
        let Some(file) = temporary.take() else { return Err(io::ErrorKind::NotFound.into()) };
        file.persist(at_any_length(path)).map_err(|error| {
            temporary = Some(error.file);
            error.error
        })
    })
}
