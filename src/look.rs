//! Who holds what lies at a path, for those who only look: nothing is opened as a primitive, made or locked. Names `error`,
//! `holder`, `slot` (absolute paths) and `sys`.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::holder::{self, Holder};
use crate::slot::{absolute, not_regular};
use crate::sys::{self, Mode, Presence};

/// Who holds what lies at `path`, as far as that is known: of a [`Lock`](crate::Lock) or [`RwLock`](crate::RwLock) the one
/// who holds it, or all who share it; of a [`Semaphore`](crate::Semaphore) one entry for each slot that is held, in the order
/// of their [numbers](Holder::slot). Takes nothing, makes nothing and delays nobody.
///
/// Empty where nothing is there, where nobody holds it, and where somebody holds it of whom nothing is known: see
/// [`Lock::holder`](crate::Lock::holder) for what is known of whom. (A [`Once`](crate::Once) and a
/// [`SharedFile`](crate::SharedFile) at `P` are locked at `P.lock`.)
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("a.lock");
/// assert!(flockwork::holders(&path)?.is_empty());
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Error::Io`] if there is a record that cannot be read, the system refuses to tell, or the path cannot be made absolute.
pub fn holders(path: impl AsRef<Path>) -> Result<Vec<Holder>> {
    let path = absolute(path.as_ref())?;
    find(&path)
}

fn find(path: &Arc<Path>) -> Result<Vec<Holder>> {
    holder::find(path, true).map_err(|source| Error::io("find the holders of", path, source))
}

/// Whether anybody holds the lock file at `path`, also if nothing is known of them. Makes nothing. `false` where nothing is there.
///
/// Where the system tells who holds what, it takes nothing and delays nobody. Elsewhere it tries to share the lock, for less than a
/// microsecond, in which a [`try_lock`](crate::Lock::try_lock) of somebody else's may be refused; and who shares it, and left
/// no record, is not noticed.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("a.lock");
/// let lock = flockwork::Lock::open(&path)?;
/// assert!(!flockwork::is_held(&path)?);
/// let held = lock.lock()?;
/// assert!(flockwork::is_held(&path)?);
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Platform-specific behaviour
///
/// Linux tells, by `/proc/locks`, but for network file systems, overlayfs and btrfs. Who has inherited a lock from a process
/// that died is told of one's own processes; of those of others the superuser is told.
///
/// # Errors
///
/// [`Error::NotRegularFile`] if there is something else; [`Error::Io`] if it cannot be opened, there is a record that
/// cannot be read, or the system refuses to tell.
pub fn is_held(path: impl AsRef<Path>) -> Result<bool> {
    let path = absolute(path.as_ref())?;
    let file_path = &path;
    let failed = |operation| move |source| Error::io(operation, file_path, source);
    match std::fs::symlink_metadata(&path) {
        Ok(found) if !found.is_file() => return Err(not_regular(&path, found.file_type())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("look up")(error)),
    }
    Ok(!find(&path)?.is_empty() || is_held_unlisted(&path)?)
}

/// The slots of the semaphore at `path` that are held, in order, also if nothing is known of who does: see [`is_held`]. Makes
/// nothing. Empty where nothing is there, and for a directory that is no semaphore.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("pool");
/// let pool = flockwork::Semaphore::open(&path, 3)?;
/// let permit = pool.acquire()?;
/// assert_eq!(flockwork::held_slots(&path)?, permit.slots());
/// # drop(permit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Error::NotRegularFile`] if there is a symbolic link; [`Error::Io`] if it cannot be looked at, there is a record that
/// cannot be read, or the system refuses to tell.
pub fn held_slots(path: impl AsRef<Path>) -> Result<Vec<u32>> {
    let path = absolute(path.as_ref())?;
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(found) if found.is_symlink() => return Err(not_regular(&path, found.file_type())),
        _ => {}
    }
    let mut held: Vec<u32> = find(&path)?.iter().filter_map(Holder::slot).collect();
    let slots = holder::slots_in(&path).map_err(|source| Error::io("look into", &path, source))?;
    for slot in slots {
        if !held.contains(&slot) && is_held_unlisted(&path.join(holder::slot_name(slot)).into())? {
            held.push(slot);
        }
    }
    held.sort_unstable();
    Ok(held)
}

/// Whether somebody holds it alone whom the system does not list.
fn is_held_unlisted(path: &Arc<Path>) -> Result<bool> {
    let failed = |operation| move |source| Error::io(operation, path, source);
    // Rule 1: not to open a device, nor a FIFO.
    if sys::presence(path).map_err(failed("look up"))? != Presence::File {
        return Ok(false);
    }
    let file = match sys::through_readers(|| sys::open_to_read(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("open")(error)),
    };
    if sys::lists_locks(&file) {
        return Ok(false);
    }
    let is_had = sys::try_lock(&file, Mode::Shared).map_err(failed("lock"))?;
    if is_had {
        sys::unlock(&file).map_err(failed("unlock"))?;
    }
    Ok(!is_had)
}
