//! [`inspect`]: what lies at a path and which processes hold it. It opens no primitive and creates no
//! file.

use std::path::Path;
use std::slice;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::file::open::not_regular;
use crate::fork_safe::ForkSafe;
use crate::holder::Holder;
use crate::holders;
use crate::paths::absolute;
use crate::record;
use crate::semaphore::read_capacity;
use crate::sys::{self, FileKind};

/// What lies at a path at one moment, and which processes hold it: see [`inspect`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Status {
    path: Arc<Path>,
    kind: StatusKind,
    is_held: bool,
    holders: Vec<Holder>,
    capacity: Option<u32>,
    held_slots: Vec<u32>,
    len: Option<u64>,
}

/// What kind of thing lies at a path: see [`Status::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatusKind {
    /// Nothing exists at the path.
    Missing,
    /// A regular file: a [`Lock`](crate::Lock), an [`RwLock`](crate::RwLock), an
    /// [`Event`](crate::Event) that is set, a [`Once`](crate::Once) that is done, or a
    /// [`SharedFile`](crate::SharedFile). The file does not tell which.
    File,
    /// The directory of a [`Semaphore`](crate::Semaphore).
    Semaphore,
}

impl Status {
    /// The path, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of thing lies at the path.
    #[must_use]
    pub fn kind(&self) -> StatusKind {
        self.kind
    }

    /// Whether any process holds it, also if nothing is known of that process; of a semaphore,
    /// whether any of its slots is held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// The processes that hold it, as far as they are known: of a [`Lock`](crate::Lock) or
    /// [`RwLock`](crate::RwLock) the one that holds it, or all that share it; of a
    /// [`Semaphore`](crate::Semaphore) one entry for each slot that is held, in the order of their
    /// [numbers](Holder::slot).
    ///
    /// It is empty where nothing is known of the holder, as of one in another container that left no
    /// record: see [`Lock::holders`](crate::Lock::holders).
    #[must_use]
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// How many permits the semaphore has, held or not; `None` for anything else.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        self.capacity
    }

    /// The slots of the semaphore that are held, in order, also if nothing is known of their
    /// holders.
    #[must_use]
    pub fn held_slots(&self) -> &[u32] {
        &self.held_slots
    }

    /// As an [`Event`](crate::Event), whether it is set: a file exists at the path.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.kind == StatusKind::File
    }

    /// As a [`Once`](crate::Once), whether it is done: a file exists at the path.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_set()
    }

    /// The length of the file in bytes, which for an [`Event`](crate::Event) is that of its payload;
    /// `None` for anything else.
    #[must_use]
    pub fn payload_len(&self) -> Option<u64> {
        self.len
    }
}

/// Looks at what lies at `path` and which processes hold it. Opens no primitive and creates nothing.
///
/// Where the system lists all locks, this takes nothing and delays no process. Elsewhere it locks
/// the file, or each slot of a semaphore, for less than a microsecond, if it can: another process's
/// [`try_lock`](crate::Lock::try_lock), [`try_read`](crate::RwLock::try_read) or
/// [`try_acquire`](crate::Semaphore::try_acquire) may be refused in that time, and a process that
/// inspects the same path at the same moment may be told that it is held.
///
/// A [`Once`](crate::Once) and a [`SharedFile`](crate::SharedFile) at `P` are locked at `P.flock`, so
/// their holders are those of that path.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// use flockwork::{Lock, Semaphore, StatusKind, inspect};
///
/// let path = dir.join("a.lock");
/// assert_eq!(inspect(&path)?.kind(), StatusKind::Missing); // and still missing afterwards
///
/// let held = Lock::open(&path)?.lock()?;
/// assert!(inspect(&path)?.is_held());
/// drop(held);
/// assert!(!inspect(&path)?.is_held());
///
/// let pool = Semaphore::open(dir.join("pool"), 3)?;
/// let permit = pool.acquire()?;
/// let status = inspect(pool.path())?;
/// assert_eq!((status.capacity(), status.held_slots()), (Some(3), permit.slots()));
/// # drop(permit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// * [`ErrorKind::NotRegularFile`] if something else lies at the
///   path: a symbolic link, a directory that is not a semaphore's, a FIFO.
/// * [`ErrorKind::Corrupt`] if the capacity of the semaphore is damaged.
/// * [`ErrorKind::Io`] if a file cannot be opened where that is needed, a
///   record cannot be read, or the system refuses to answer.
///
/// # Platform-specific behavior
///
/// * Linux lists all locks in `/proc/locks`, but only in the initial pid namespace, so not in a
///   container; and the list is not used on network file systems, overlayfs and btrfs. Of a list of
///   more than some 35 locks it is believed that a lock is held, and not that it is free.
/// * Windows, and NFS where the file cannot be locked exclusively through a read-only descriptor: a
///   reader is noticed only if it left a record.
pub fn inspect(path: impl AsRef<Path>) -> Result<Status> {
    let path = absolute(path.as_ref())?;
    let mut status = Status {
        path: Arc::clone(&path),
        kind: StatusKind::Missing,
        is_held: false,
        holders: Vec::new(),
        capacity: None,
        held_slots: Vec::new(),
        len: None,
    };
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io(Operation::LookUp, &path, error)),
        Ok(found) if found.is_file() => {
            status.kind = StatusKind::File;
            status.len = Some(found.len());
            if is_held(&path)? {
                status.is_held = true;
                status.holders = holders::of(&path)?;
            }
        }
        Ok(found) if found.is_dir() => {
            status.kind = StatusKind::Semaphore;
            status.capacity = Some(capacity(&path)?);
            status.holders = holders::of(&path)?;
            // A permit may have been acquired between the two looks.
            let mut held = held_slots(&path)?;
            held.extend(status.holders.iter().filter_map(Holder::slot));
            held.sort_unstable();
            held.dedup();
            status.is_held = !held.is_empty();
            status.held_slots = held;
        }
        Ok(found) => return Err(not_regular(&path, found.file_type())),
    }
    Ok(status)
}

/// How many permits the semaphore in the directory `path` has.
fn capacity(path: &Arc<Path>) -> Result<u32> {
    match read_capacity(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::not_inspectable(path)),
        read => read,
    }
}

/// Whether any process holds the lock file at `path`.
fn is_held(path: &Arc<Path>) -> Result<bool> {
    if let Some(listed) = listed(path, slice::from_ref(path))? {
        return Ok(listed == [true]);
    }
    match probe(path, true) {
        Ok(Some(is_held)) => Ok(is_held),
        // It may be shared, or closed to this user, and a record or the system's list says more.
        Ok(None) => Ok(!holders::of(path)?.is_empty()),
        Err(error) => {
            if holders::of(path)?.is_empty() {
                Err(error)
            } else {
                Ok(true)
            }
        }
    }
}

/// The slots that are held of the semaphore in the directory `path`.
fn held_slots(path: &Arc<Path>) -> Result<Vec<u32>> {
    let slots =
        record::slots_in(path).map_err(|source| Error::io(Operation::List, path, source))?;
    let file = |slot: u32| -> Arc<Path> { path.join(record::slot_name(slot)).into() };
    let mut held = Vec::new();
    let files: Vec<_> = slots.iter().map(|slot| file(*slot)).collect();
    if let Some(listed) = listed(path, &files)? {
        held.extend(slots.into_iter().zip(listed).filter_map(|(slot, is)| is.then_some(slot)));
        return Ok(held);
    }
    for slot in slots {
        let is_held = probe(&file(slot), false).or_else(|error| {
            // This user may not open it, perhaps.
            let is_known = holders::of(path)?.iter().any(|holder| holder.slot() == Some(slot));
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
            Err(error) => return Err(Error::io(Operation::LookUp, file, error)),
        });
    }
    let existing: Vec<_> = ids.iter().copied().flatten().collect();
    let locked = sys::locked_in_list(&existing);
    let locked = locked.map_err(|source| Error::io(Operation::FindHolders, path, source))?;
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
    if sys::file_kind(path).map_err(failed(Operation::LookUp))? != FileKind::File {
        return Ok(Some(false));
    }
    match sys::through_readers(|| sys::open_to_read(path)) {
        Ok(file) => {
            // Threads that probe at the same time would take each other for a holder. (But one that
            // waits for a dead server must not keep other threads from asking.)
            let is_local = !sys::is_network(path, &file);
            let _alone = (readers && is_local).then(|| PROBING.lock());
            sys::probe(&file, readers).map_err(failed(Operation::Lock))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(false)),
        Err(error) => Err(failed(Operation::Open)(error)),
    }
}
