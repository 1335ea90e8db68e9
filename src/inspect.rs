//! Reports what is at a path and which processes hold it, without opening a primitive or creating a
//! file.

use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use crate::barrier;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::file::open::not_regular;
use crate::fork_safe::ForkSafe;
use crate::holder::Holder;
use crate::holders;
use crate::options::Options;
use crate::paths::absolute;
use crate::record::{self, Claim};
use crate::rwlock::{GATE, QUEUE};
use crate::semaphore::{self, read_capacity};
use crate::sys::{self, FileKind};
use crate::wait::{note_progress, open};
use crate::waiter_list;

/// The state of a path at one moment, and the processes that held it.
///
/// [`inspect`] returns it.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let lock = flockwork::Lock::open(dir.path().join("a.lock"))?;
/// let _held = lock.lock()?;
///
/// let status = flockwork::inspect(lock.path())?;
/// if status.is_held() {
///     for holder in status.holders() {
///         println!("held by {holder}");
///     }
/// }
/// # assert!(status.is_held());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With the feature `serde`, a status is serialized with the fields `path` (a text, in which what
/// is not Unicode is replaced), `kind` (`"missing"`, `"file"`, `"semaphore"` or `"barrier"`),
/// `held`, `holders`, `lost`, `waiters`, `capacity`, `held_slots`, `set`, `broken` and
/// `payload_len`.
///
/// # Caveats
///
/// * The status may be out of date as soon as it is returned. To acquire a lock only if it is free,
///   use [`Lock::try_lock`](crate::Lock::try_lock).
/// * The holders of a held lock may be unknown. See [`holders`](Self::holders).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Status {
    pub(crate) path: Arc<Path>,
    pub(crate) kind: StatusKind,
    pub(crate) is_held: bool,
    pub(crate) holders: Vec<Holder>,
    pub(crate) lost: Vec<Holder>,
    pub(crate) waiters: Vec<Holder>,
    pub(crate) capacity: Option<u32>,
    pub(crate) held_slots: Vec<u32>,
    pub(crate) len: Option<u64>,
    pub(crate) is_broken: bool,
    pub(crate) is_set: bool,
}

/// What kind of primitive is at a path. Returned by [`Status::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum StatusKind {
    /// Nothing exists at the path.
    Missing,
    /// A regular file: a [`Lock`](crate::Lock), an [`RwLock`](crate::RwLock), an
    /// [`Event`](crate::Event) that is set, a [`Once`](crate::Once) that is done, or a
    /// [`SharedFile`](crate::SharedFile). The file itself does not show which.
    File,
    /// The directory of a [`Semaphore`](crate::Semaphore).
    Semaphore,
    /// The directory of a [`Barrier`](crate::Barrier).
    Barrier,
}

impl Status {
    /// Returns the absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what kind of primitive is at the path.
    #[must_use]
    pub fn kind(&self) -> StatusKind {
        self.kind
    }

    /// Returns `true` if a process holds the lock or any slot of the semaphore, or waits at the
    /// barrier.
    ///
    /// This is known even if the holder is not.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Returns the known holders.
    ///
    /// For a [`Lock`](crate::Lock) or [`RwLock`](crate::RwLock), these are the processes that hold
    /// or share it. For a [`Semaphore`](crate::Semaphore), there is one entry for each slot that is
    /// held, in the order of the [slot numbers](Holder::slot). For a [`Barrier`](crate::Barrier),
    /// these are the participants that have arrived and wait.
    ///
    /// The list is empty if nothing is known about the holder, for instance because it runs in
    /// another container and left no record. See [`Lock::holders`](crate::Lock::holders).
    #[must_use]
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Returns the processes of this host that have lost the lock or a permit and do not know it.
    ///
    /// The server of a network file system drops the locks of a host that was cut off from it. The
    /// process still counts itself as the holder, but another one may acquire the lock. It stays in
    /// this list until it releases its guard, until it ends, or until another process acquires the
    /// lock. These processes are not among the [`holders`](Self::holders).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let lock = flockwork::Lock::open(dir.path().join("a.lock"))?;
    /// for holder in flockwork::inspect(lock.path())?.lost_holders() {
    ///     println!("{holder} has lost the lock");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`LockGuard::still_held`]: crate::LockGuard::still_held
    ///
    /// # Platform-specific behavior
    ///
    /// * Linux: a process is listed if it left a record, runs on this host and in this pid
    ///   namespace, and belongs to this user (the superuser finds those of all users). A reader is
    ///   not listed while other readers hold the lock. On a FUSE such as `GlusterFS` or `MooseFS`
    ///   the list shows a loss as soon as the server has dropped the lock. An NFS client, and that
    ///   of the kernel for `CephFS`, keep showing the lock to the processes of their host, so there
    ///   the process is listed as a holder. It can use [`LockGuard::still_held`].
    /// * Other systems, and local file systems: the list is empty.
    #[must_use]
    pub fn lost_holders(&self) -> &[Holder] {
        &self.lost
    }

    /// Returns the processes that wait for the lock or for permits, in the order in which they are
    /// served.
    ///
    /// [`Holder::since`] is the time at which the process began to wait. It is known, as is the
    /// label, of a process that waits for a semaphore or an [`RwLock`](crate::RwLock). A process
    /// that waits for several permits, or in several threads, may occur several times.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let lock = flockwork::Lock::open(dir.path().join("a.lock"))?;
    /// let status = flockwork::inspect(lock.path())?;
    /// for (place, waiter) in status.waiters().iter().enumerate() {
    ///     println!("{}: {waiter}", place + 1);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Platform-specific behavior
    ///
    /// * Linux: all waiters of a semaphore or an `RwLock` on a local file system are known, and all
    ///   processes that wait in the kernel for a lock that the system lists (see
    ///   [`inspect`](crate::inspect())). Whether a waiter of an `RwLock` wants to
    ///   [share](Holder::is_shared) the lock is known only of the first. On a network file system
    ///   the waiters of this user on this host are known, of which the first one waits for the
    ///   server; those of other users and hosts are not. Waiters that poll at an interval of
    ///   [`Options::poll_interval`](crate::Options::poll_interval), and those of a
    ///   [`Barrier`](crate::Barrier) or an [`Event`](crate::Event), are not known.
    /// * Other systems: no waiter is known.
    #[must_use]
    pub fn waiters(&self) -> &[Holder] {
        &self.waiters
    }

    /// Returns the semaphore's capacity, or the barrier's number of participants.
    ///
    /// The capacity is 0 while the semaphore is [paused](crate::Semaphore::set_capacity).
    ///
    /// Returns `None` for any other primitive.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        self.capacity
    }

    /// Returns the semaphore's slots that are held, in ascending order.
    ///
    /// For a [`Barrier`](crate::Barrier), these are the numbers of the participants that have
    /// arrived and wait.
    ///
    /// They are known even if their holders are not.
    #[must_use]
    pub fn held_slots(&self) -> &[u32] {
        &self.held_slots
    }

    /// Returns `true` if the path, used as an [`Event`](crate::Event), is set.
    ///
    /// The file of an [announcement](crate::Event::set_while_alive) whose process has died does not
    /// count.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.is_set
    }

    /// Returns `true` if the path, used as a [`Once`](crate::Once), is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_set()
    }

    /// Returns `true` if the [`Barrier`](crate::Barrier) at the path is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Returns the length of the file in bytes, which is the length of an [`Event`](crate::Event)'s
    /// payload.
    ///
    /// Returns `None` if there is no regular file at the path.
    #[must_use]
    pub fn payload_len(&self) -> Option<u64> {
        self.len
    }
}

/// Reports what is at `path` and which processes hold it, without creating anything.
///
/// Where the system lists all locks, this acquires nothing and delays no process. Elsewhere it
/// locks the file, or each slot of a semaphore, for less than a microsecond if it is free. In that
/// time, [`try_lock`](crate::Lock::try_lock), [`try_read`](crate::RwLock::try_read) or
/// [`try_acquire`](crate::Semaphore::try_acquire) of another process may find it held, and so may
/// another process that inspects the same path.
///
/// A [`Once`](crate::Once) or [`SharedFile`](crate::SharedFile) at `P` is locked at `P.flock`:
/// inspect that path for its holders.
///
/// # Examples
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
/// * [`NotRegularFile`](ErrorKind::NotRegularFile) if the path names something else: a symbolic
///   link, a FIFO, or a directory of neither a semaphore nor a barrier.
/// * [`Corrupt`](ErrorKind::Corrupt) if the semaphore's capacity or the barrier's state is damaged.
/// * [`TimedOut`](ErrorKind::TimedOut) if the server of a network file system does not respond for
///   a second.
/// * [`Io`](ErrorKind::Io) if a system call fails, for instance because a file or a record cannot
///   be opened.
///
/// # Platform-specific behavior
///
/// * Linux: all locks are listed in `/proc/locks`, except in a container (outside the initial pid
///   namespace) and on network file systems, overlayfs and btrfs. A list of more than about 35
///   locks can prove that a lock is held, but not that it is free, so a lock that the list does not
///   show is then also tested by locking it.
/// * Windows, and NFS where a read-only descriptor cannot be locked exclusively: a reader is
///   noticed only if it left a record.
pub fn inspect(path: impl AsRef<Path>) -> Result<Status> {
    open(&Options::new(), path.as_ref(), |_, path| inspect_here(path))
}

fn inspect_here(path: &Path) -> Result<Status> {
    let path = absolute(path)?;
    let mut status = Status {
        path: Arc::clone(&path),
        kind: StatusKind::Missing,
        is_held: false,
        holders: Vec::new(),
        lost: Vec::new(),
        waiters: Vec::new(),
        capacity: None,
        held_slots: Vec::new(),
        len: None,
        is_broken: false,
        is_set: false,
    };
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io(Operation::LookUp, &path, error)),
        Ok(found) if found.is_file() => {
            status.kind = StatusKind::File;
            status.len = Some(found.len());
            let announcement = announcement(&path, &found)?;
            status.is_set = announcement.unwrap_or(true);
            let holders = match announcement {
                // A probe for an exclusive lock would be taken for the process that announced it.
                Some(true) => Some(holders::of(&path)?),
                Some(false) => None,
                None => lock_holders(&path)?,
            };
            status.is_held = holders.is_some();
            status.holders = holders.unwrap_or_default();
            // A lock that is free has no waiters for longer than a moment.
            if announcement.is_none() {
                status.lost = lost_locks(&path)?;
            }
            if status.is_held {
                let (queue, gate) = (sys::beside(&path, QUEUE), sys::beside(&path, GATE));
                status.waiters = waiters(&path, &path, &path, queue, &gate)?;
            }
        }
        Ok(found) if found.is_dir() => match read_capacity(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                inspect_barrier(&path, &mut status)?;
            }
            capacity => {
                status.capacity = Some(capacity?);
                inspect_semaphore(&path, &mut status)?;
            }
        },
        Ok(found) => return Err(not_regular(&path, found.file_type())),
    }
    Ok(status)
}

fn inspect_semaphore(path: &Arc<Path>, status: &mut Status) -> Result<()> {
    status.kind = StatusKind::Semaphore;
    status.holders = holders::of(path)?;
    // A permit may have been acquired between the two lookups.
    let mut held = held_slots(path, &status.holders)?;
    held.extend(status.holders.iter().filter_map(Holder::slot));
    held.sort_unstable();
    held.dedup();
    status.is_held = !held.is_empty();
    status.lost = lost_slots(path, &held)?;
    status.held_slots = held;
    // The leader waits in the kernel for the only slot (rule S9).
    let (only, queue) = (path.join(record::slot_name(0)), path.join(semaphore::QUEUE));
    let gate = path.join("gate");
    status.waiters = waiters(path, &only, &gate, queue, &gate)?;
    Ok(())
}

/// The processes that count themselves as holders of the lock, which the server has dropped.
fn lost_locks(path: &Arc<Path>) -> Result<Vec<Holder>> {
    if !path.parent().is_some_and(sys::is_network_directory) {
        return Ok(Vec::new());
    }
    let claims = record::claims_to_lock(path).map_err(|source| no_holders(path, source))?;
    let (shared, exclusive) = claims.into_iter().partition(Claim::is_shared);
    let mut lost = lost(path, exclusive, false)?;
    lost.extend(self::lost(path, shared, true)?);
    Ok(lost)
}

/// The same for the slots of the semaphore in the directory `path`, some of which are `held`.
fn lost_slots(path: &Arc<Path>, held: &[u32]) -> Result<Vec<Holder>> {
    let mut found = Vec::new();
    if !sys::is_network_directory(path) {
        return Ok(found);
    }
    let slots =
        record::slots_in(path).map_err(|source| Error::io(Operation::List, path, source))?;
    for slot in slots.into_iter().filter(|slot| !held.contains(slot)) {
        note_progress();
        let claim = record::claim_to_slot(path, slot).map_err(|source| no_holders(path, source))?;
        let file = path.join(record::slot_name(slot)).into();
        found.extend(lost(&file, claim.into_iter().collect(), false)?);
    }
    Ok(found)
}

/// The holders whose claims stand before and after a moment in which `file` is not locked. A holder
/// that acquires or releases the lock has no claim at one of the two times.
fn lost(file: &Arc<Path>, claims: Vec<Claim<'_>>, readers: bool) -> Result<Vec<Holder>> {
    let mut lost = Vec::new();
    if claims.is_empty() || probe(file, readers)? != Some(false) {
        return Ok(lost);
    }
    for claim in claims {
        if claim.still_stands().map_err(|source| no_holders(file, source))? {
            lost.push(claim.into_holder());
        }
    }
    Ok(lost)
}

fn no_holders(path: &Arc<Path>, source: std::io::Error) -> Error {
    Error::io(Operation::FindHolders, path, source)
}

/// The waiters for `path`, which queue for the file `queued`.
fn waiters(
    path: &Arc<Path>,
    locked: &Path,
    queued: &Path,
    queue: PathBuf,
    gate: &Path,
) -> Result<Vec<Holder>> {
    waiter_list::waiters(locked, queued, queue, gate).map_err(|source| no_holders(path, source))
}

/// The directory is not a semaphore's.
fn inspect_barrier(path: &Arc<Path>, status: &mut Status) -> Result<()> {
    let has_participants = record::has_participants(path)
        .map_err(|source| Error::io(Operation::LookUp, path, source))?;
    let found = if has_participants {
        barrier::read_status(path, |numbers| locked_participants(path, numbers))?
    } else {
        None
    };
    let Some(found) = found else { return Err(Error::not_inspectable(path)) };
    status.kind = StatusKind::Barrier;
    status.capacity = Some(found.parties);
    status.is_broken = found.is_broken;
    status.is_held = !found.waiting.is_empty();
    status.holders = holders::of_participants(path, &found.waiting)?;
    status.held_slots = found.waiting;
    Ok(())
}

/// Whether the announcement at `path` counts, since its process lives (rule E8). `None`: the file
/// is no announcement.
fn announcement(path: &Arc<Path>, found: &std::fs::Metadata) -> Result<Option<bool>> {
    if !sys::is_announcement(found) {
        return Ok(None);
    }
    let failed = |operation| move |source| Error::io(operation, path, source);
    match sys::through_readers(|| sys::open_to_read(path)) {
        Ok(file) => {
            let opened = file.metadata().map_err(failed(Operation::LookUp))?;
            if !sys::is_announcement(&opened) {
                return Ok(None); // it was replaced meanwhile
            }
            sys::writer_lives(path, &file).map(Some).map_err(failed(Operation::Lock))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(false)),
        Err(error) => Err(failed(Operation::Open)(error)),
    }
}

/// The participants whose files are locked.
fn locked_participants(path: &Arc<Path>, numbers: &[u32]) -> Result<Vec<u32>> {
    let file = |number: &u32| -> Arc<Path> { path.join(record::participant_name(*number)).into() };
    let files: Vec<_> = numbers.iter().map(file).collect();
    if let Some(listed) = listed(path, &files)? {
        let numbers = numbers.iter().copied().zip(listed);
        return Ok(numbers.filter_map(|(number, is)| is.then_some(number)).collect());
    }
    let mut locked = Vec::new();
    for (number, file) in numbers.iter().zip(&files) {
        if probe(file, false)? == Some(true) {
            locked.push(*number);
        }
    }
    // A caller may have found a file locked by this probe.
    barrier::notify_callers(path);
    Ok(locked)
}

/// The known holders of the lock file at `path`; `None` if no process holds it.
fn lock_holders(path: &Arc<Path>) -> Result<Option<Vec<Holder>>> {
    let is_held = match listed(path, slice::from_ref(path))? {
        Some(listed) => Ok(Some(listed == [true])),
        None => probe(path, true),
    };
    if let Ok(Some(false)) = is_held {
        return Ok(None);
    }
    let holders = holders::of(path)?;
    match is_held {
        // The lock may be shared, or this user may not open the file. Then only a record or the
        // system's list shows that it is held.
        Ok(None) if holders.is_empty() => Ok(None),
        Err(error) if holders.is_empty() => Err(error),
        _ => Ok(Some(holders)),
    }
}

/// The slots that are held of the semaphore in the directory `path`, some of them by `holders`.
fn held_slots(path: &Arc<Path>, holders: &[Holder]) -> Result<Vec<u32>> {
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
            // This user may not be permitted to open the slot.
            let is_known = holders.iter().any(|holder| holder.slot() == Some(slot));
            if is_known { Ok(Some(true)) } else { Err(error) }
        })?;
        held.extend(Some(slot).filter(|_| is_held == Some(true)));
    }
    Ok(held)
}

/// For each of these files, all on the file system of `path`, whether the system lists it as
/// locked. `None` if the system does not list all locks there, or this user may not read its list.
fn listed(path: &Arc<Path>, files: &[Arc<Path>]) -> Result<Option<Vec<bool>>> {
    if !sys::lists_locks(path) {
        return Ok(None);
    }
    let mut ids = Vec::new();
    for file in files {
        ids.push(match sys::path_identity(file) {
            Ok(id) => Some(id),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None, // removed since
            Err(error) => return Err(Error::io(Operation::LookUp, file, error)),
        });
    }
    let existing: Vec<_> = ids.iter().copied().flatten().collect();
    let locked = sys::locked_in_list(&existing);
    let locked = locked.map_err(|source| no_holders(path, source))?;
    let is_locked = |locked: Vec<_>| {
        ids.into_iter().map(|id| id.is_some_and(|id| locked.contains(&id))).collect()
    };
    Ok(locked.map(is_locked))
}

/// Tries to lock the file to find out whether it is locked. With `readers`, shared locks count too.
/// Returns `None` if readers may hold it.
fn probe(path: &Arc<Path>, readers: bool) -> Result<Option<bool>> {
    static PROBING: ForkSafe<()> = ForkSafe::new((), |()| ());
    let failed = |operation| move |source| Error::io(operation, path, source);
    note_progress();
    // Opening a device or a FIFO can have side effects or block (rule 1).
    if sys::file_kind(path).map_err(failed(Operation::LookUp))? != FileKind::File {
        return Ok(Some(false));
    }
    match sys::through_readers(|| sys::open_to_read(path)) {
        Ok(file) => {
            // Threads that probe at the same time would mistake each other for a holder. They still
            // run in parallel on a network file system, since a thread that waits for a dead server
            // must not block all of them.
            let is_local = !sys::is_network(path, &file);
            let _alone = (readers && is_local).then(|| PROBING.lock());
            sys::probe(&file, readers).map_err(failed(Operation::Lock))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(false)),
        Err(error) => Err(failed(Operation::Open)(error)),
    }
}
