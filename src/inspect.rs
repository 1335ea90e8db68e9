//! The holders of a path, for callers that only look: no primitive is opened and no file is
//! created.

use std::path::Path;
use std::slice;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file::open::not_regular;
use crate::fork_safe::ForkSafe;
use crate::holder::Holder;
use crate::paths::absolute;
use crate::record;
use crate::sys::{self, FileKind};

/// Who holds what lies at `path`, as far as that is known: of a [`Lock`](crate::Lock) or [`RwLock`](crate::RwLock) the one
/// who holds it, or all who share it; of a [`Semaphore`](crate::Semaphore) one entry for each slot that is held, in the order
/// of their [numbers](Holder::slot). Takes nothing, makes nothing and delays nobody.
///
/// Empty where nothing is there, where no process holds it, and where nothing is known of the holder, as of one in another
/// container that left no record: see [`Lock::holder`](crate::Lock::holder) for what is known of which holder, and
/// [`is_held`] for whether there is one. (A [`Once`](crate::Once) and a [`SharedFile`](crate::SharedFile) at `P` are locked
/// at `P.flock`.)
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
    record::find(path, true).map_err(|source| Error::io("find the holders of", path, source))
}

/// Whether any process holds the lock file at `path`, also if nothing is known of that process.
///
/// Creates nothing. `false` where nothing is there. Where the system lists all locks, the answer takes nothing and delays
/// no process. Elsewhere this locks the file exclusively for less than a microsecond, if it can: another process's
/// [`try_lock`](crate::Lock::try_lock) or [`try_read`](crate::RwLock::try_read) may be refused in that time, and the answer may be
/// `true` of a process that asks the same at the same moment.
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
/// * Linux lists all locks in `/proc/locks`, but only in the initial pid namespace, so not in a container; and it is not
///   asked on network file systems, overlayfs and btrfs. Of a long list (more than some 35 locks) it is believed that a
///   lock is held, and not that it is free.
/// * Windows, and NFS where the file cannot be locked exclusively through a read-only descriptor: a reader is noticed
///   only if it left a record.
///
/// # Errors
///
/// [`Error::NotRegularFile`] if there is something else; [`Error::Io`] if the file cannot be opened
/// where that is needed, or the system refuses to answer.
pub fn is_held(path: impl AsRef<Path>) -> Result<bool> {
    let path = absolute(path.as_ref())?;
    match std::fs::symlink_metadata(&path) {
        Ok(found) if !found.is_file() => return Err(not_regular(&path, found.file_type())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("look up", &path, error)),
    }
    if let Some(listed) = listed(&path, slice::from_ref(&path))? {
        return Ok(listed == [true]);
    }
    match probe(&path, true) {
        Ok(Some(is_held)) => Ok(is_held),
        // It may be shared, or closed to this user, and a record or the system's list says more.
        Ok(None) => Ok(!find(&path)?.is_empty()),
        Err(error) => {
            if find(&path)?.is_empty() {
                Err(error)
            } else {
                Ok(true)
            }
        }
    }
}

/// The slots of the semaphore at `path` that are held, in order, also if nothing is known of their holders: see [`is_held`].
///
/// Creates nothing. Empty where nothing is there, and for a directory that is no semaphore. Where the system does not list all
/// locks, each slot is locked for less than a microsecond.
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
/// [`Error::NotRegularFile`] if there is a symbolic link; [`Error::Io`] if the directory cannot be
/// read, a slot cannot be opened where that is needed, or the system refuses to answer.
pub fn held_slots(path: impl AsRef<Path>) -> Result<Vec<u32>> {
    let path = absolute(path.as_ref())?;
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(found) if found.is_symlink() => return Err(not_regular(&path, found.file_type())),
        _ => {}
    }
    let slots = record::slots_in(&path).map_err(|source| Error::io("look into", &path, source))?;
    let file = |slot: u32| -> Arc<Path> { path.join(record::slot_name(slot)).into() };
    let mut held = Vec::new();
    let files: Vec<_> = slots.iter().map(|slot| file(*slot)).collect();
    if let Some(listed) = listed(&path, &files)? {
        held.extend(slots.into_iter().zip(listed).filter_map(|(slot, is)| is.then_some(slot)));
        return Ok(held);
    }
    for slot in slots {
        let is_held = probe(&file(slot), false).or_else(|error| {
            // This user may not open it, perhaps.
            let is_known = find(&path)?.iter().any(|holder| holder.slot() == Some(slot));
            if is_known { Ok(Some(true)) } else { Err(error) }
        })?;
        held.extend(Some(slot).filter(|_| is_held == Some(true)));
    }
    Ok(held)
}

/// For each of these files, all on the file system of `path`, whether the system lists it as locked. `None` if the system
/// does not list all locks there, or this user may not read its list.
fn listed(path: &Arc<Path>, files: &[Arc<Path>]) -> Result<Option<Vec<bool>>> {
    if !sys::lists_locks(path) {
        return Ok(None);
    }
    let mut ids = Vec::new();
    for file in files {
        ids.push(match sys::path_identity(file) {
            Ok(id) => Some(id),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None, // removed meanwhile
            Err(error) => return Err(Error::io("look up", file, error)),
        });
    }
    let existing: Vec<_> = ids.iter().copied().flatten().collect();
    let locked = sys::locked_in_list(&existing);
    let locked = locked.map_err(|source| Error::io("find the holders of", path, source))?;
    let is_locked = |locked: Vec<_>| {
        ids.into_iter().map(|id| id.is_some_and(|id| locked.contains(&id))).collect()
    };
    Ok(locked.map(is_locked))
}

/// Whether it is locked, by a try; with `readers` shared locks count too. `None`: perhaps by
/// readers.
fn probe(path: &Arc<Path>, readers: bool) -> Result<Option<bool>> {
    static PROBING: ForkSafe<()> = ForkSafe::new((), |()| ());
    let failed = |operation| move |source| Error::io(operation, path, source);
    // Rule 1: not to open a device, nor a FIFO.
    if sys::file_kind(path).map_err(failed("look up"))? != FileKind::File {
        return Ok(Some(false));
    }
    match sys::through_readers(|| sys::open_to_read(path)) {
        Ok(file) => {
            // Threads that probe at the same time would take each other for a holder. (But one that
            // waits for a dead server must not keep other threads from asking.)
            let is_local = !sys::is_network(path, &file);
            let _alone = (readers && is_local).then(|| PROBING.lock());
            sys::probe(&file, readers).map_err(failed("lock"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(false)),
        Err(error) => Err(failed("open")(error)),
    }
}
