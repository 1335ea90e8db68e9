//! `RwLock`: one file, locked shared or exclusively, behind a gate that keeps the order.

mod gate;
mod guards;

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

use self::gate::{GATE, GatedLock, Locking};
pub use self::guards::{RwLockReadGuard, RwLockWriteGuard};
use crate::access::Access;
use crate::error::{Error, Result};
use crate::file::guard::{GuardOptions, RawGuard};
use crate::file::lock_file::{FileLock, LockFile};
use crate::holder::Holder;
use crate::holders;
use crate::lock_request::{self, LockRequest, QUEUES};
use crate::options::Options;
use crate::sys::{self, FileKind, Mode};
use crate::wait::{
    Acquire, Deadline, Outcome, QueuedWaiter, TurnstileWait, WaitCallback, acquire, pass,
};

/// A lock on a path that many may share for reading, or one has for writing, between processes and threads alike.
///
/// Any number of programs open the same path. At any moment there are, over all of their processes and threads, any
/// number of [`RwLockReadGuard`]s or one [`RwLockWriteGuard`]. When a holder dies, however it dies, the kernel lets the next one
/// in. The file's content is never touched.
///
/// **Nobody starves.** Who wants it, to read or to write, queues in the order of arrival. A writer waits for the
/// readers that came before it, and readers that come later wait for the writer; so readers that overlap without end
/// keep no writer out, as they do with plain `flock`, and writers keep no readers out. The queue is a second
/// file, the *gate*, beside the path (`data.lock.gate` for `data.lock`).
///
/// An `RwLock` is a cheap handle: clone it, share it between threads, keep it. It keeps two descriptors open, and one
/// more for each guard. It does not remember who locked: a thread that asks for it to write while it has it to read waits for itself, and one that asks
/// for it to read a second time can wait for a writer that waits for the first.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("index.lock");
/// use flockwork::RwLock;
///
/// let index = RwLock::open(&path)?;
/// {
///     let _one = index.read()?;
///     let _another = index.read()?; // as many as like to, in any process
///     assert!(index.try_write().unwrap_err().is_would_block());
/// } // both released
///
/// let writing = index.write()?; // nobody else is here
/// // ... bring it up to date ...
/// let reading = writing.downgrade()?; // and look at it, with other readers, before anybody changes it again
/// reading.unlock()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Together with others
///
/// At the same path it excludes whoever uses `flock(2)`: `flock -s` shares with readers, `flock -x` (and a
/// [`Lock`](crate::Lock)) is a writer. These do not pass the gate, so they do not queue: they get it whenever it
/// is free for them, and among them a writer may starve. A shell script that queues as well:
///
/// ```sh
/// exec 8>>data.lock.gate 9>>data.lock
/// flock 8; flock -s 9; flock -u 8   # to read; `flock -x 9` to write
/// ```
///
/// # What is not promised
///
/// * What [`Lock`](crate::Lock) does not promise either: the lock is advisory; do not remove its files; at the
///   moment of a release who asks may pass those who wait for the gate.
/// * A `try_` call is refused while a writer waits, also if only readers have the lock: it does not pass those who
///   wait. It can be refused, very rarely, by somebody who is on the way through the gate and does not get on.
///   That look can itself be in the way of another `try_` call at the same moment; and programs that try again and
///   again without a pause come before those who queue more often than is their turn.
/// * A program that is stopped (SIGSTOP, Ctrl-Z) in front of the queue costs the others a second or more for each
///   acquisition: they look past it when they have waited that long, and get the lock when nobody has it, and on Linux, where
///   the system tells that it is stopped, readers also from other readers (rule R3 of the [protocol](crate::_protocol)).
/// * Those who queue for longer than a moment are woken each second, and by a helper thread when their turn comes.
/// * Removing the gate costs the order for those who wait then, and never the exclusion.
/// * Where the gate is missing and this user cannot create it (a read-only file system, a directory that belongs to another
///   user), readers and writers lock the file itself, as `flock` does, and there is no order: readers that overlap can keep a
///   writer out. The gate is used as soon as another program has created it.
///
/// # Platform-specific behaviour
///
/// As for [`Lock`](crate::Lock). On Windows the file cannot be read or written while it is locked, so give the
/// lock a file of its own; or use [`SharedFile`](crate::SharedFile), which does that.
#[derive(Clone)]
pub struct RwLock {
    inner: Arc<Inner>,
}

struct Inner {
    read: Arc<LockRequest>,
    write: Arc<LockRequest>,
    /// `P.gate`.
    gate_path: Arc<Path>,
    /// Through the gate, to read and to write. Empty as long as there is no gate.
    gated_locks: OnceBox<[Arc<GatedLock>; 2]>,
    access: Access,
    check_interval: Option<Duration>,
    guard_options: GuardOptions,
    notice: Option<WaitCallback>,
}

impl RwLock {
    /// Opens the lock at `path`. The file, its gate and missing parent directories are created, and created again
    /// should they be gone at a later acquisition. Where the file exists and the gate cannot be created, the lock works
    /// without a gate: see *What is not promised*.
    ///
    /// The path is made absolute, so that a later change of the current directory changes nothing.
    /// Symbolic links in parent directories are followed, at the last component refused.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if there is something else at the path, or at that of the gate; it is left as it was.
    /// * [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the platform has no locks.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io) if the file can neither be opened nor created, or the gate exists and cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_rwlock(path)
    }

    // ------------------------------------------------------------------------------------ read

    /// Waits until it can be had for reading, without limit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the file system has no locks; [`ErrorKind::Io`](crate::ErrorKind::Io) for what else the system
    /// refuses, such as another descriptor. Then nothing is held.
    pub fn read(&self) -> Result<RwLockReadGuard> {
        self.reading(|| Deadline::NEVER)
    }

    /// Takes it for reading if nobody writes or waits to write, and never waits (but for somebody who is on the way
    /// through the gate, for less than a millisecond).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let writing = lock.write()?;
    /// assert!(lock.try_read().unwrap_err().is_would_block());
    /// drop(writing);
    /// let (_one, _another) = (lock.try_read()?, lock.try_read()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) if somebody is in the way, also another thread of this process; otherwise as
    /// [`read`](Self::read).
    pub fn try_read(&self) -> Result<RwLockReadGuard> {
        self.inner.try_lock(&self.inner.read).and_then(|locked| self.inner.read_guard(locked))
    }

    /// Waits until it can be had for reading, for at most `timeout`. Zero tries once; what no clock can show waits
    /// forever.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if it could not be had in time; otherwise as [`read`](Self::read).
    pub fn read_timeout(&self, timeout: Duration) -> Result<RwLockReadGuard> {
        self.reading(|| Deadline::after(timeout))
    }

    /// Waits until it can be had for reading, until `deadline`. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if it could not be had in time; otherwise as [`read`](Self::read).
    pub fn read_deadline(&self, deadline: Instant) -> Result<RwLockReadGuard> {
        self.reading(|| Deadline::at(deadline))
    }

    /// Waits until it can be had for reading, as a future, under any runtime. Dropping the future gives up.
    ///
    /// The wait begins when it is first polled, and it holds up no executor thread. A future that was polled
    /// must be polled on or dropped: when its turn comes it holds the lock or the gate, also while nobody polls it. One
    /// that is polled after it has ended stays pending.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_async(&self) -> impl Future<Output = Result<RwLockReadGuard>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move { inner.read_guard(inner.lock_async(&inner.read).await?) }
    }

    // ----------------------------------------------------------------------------------- write

    /// Waits until it can be had for writing, without limit.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn write(&self) -> Result<RwLockWriteGuard> {
        self.writing(|| Deadline::NEVER)
    }

    /// Takes it for writing if nobody has it, and never waits (but for somebody who is on the way through the gate,
    /// for less than a millisecond).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) if somebody is in the way, also another thread of this process; otherwise as
    /// [`read`](Self::read).
    pub fn try_write(&self) -> Result<RwLockWriteGuard> {
        self.inner.try_lock(&self.inner.write).and_then(|locked| self.inner.write_guard(locked))
    }

    /// Waits until it can be had for writing, for at most `timeout`. Zero tries once; what no clock can show waits
    /// forever.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let reading = lock.read()?;
    /// let error = lock.write_timeout(std::time::Duration::from_millis(10)).unwrap_err();
    /// assert!(error.is_timed_out());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if it could not be had in time; otherwise as [`read`](Self::read).
    pub fn write_timeout(&self, timeout: Duration) -> Result<RwLockWriteGuard> {
        self.writing(|| Deadline::after(timeout))
    }

    /// Waits until it can be had for writing, until `deadline`. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if it could not be had in time; otherwise as [`read`](Self::read).
    pub fn write_deadline(&self, deadline: Instant) -> Result<RwLockWriteGuard> {
        self.writing(|| Deadline::at(deadline))
    }

    /// Waits until it can be had for writing, as a future: see [`read_async`](Self::read_async).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// # futures_lite::future::block_on(async {
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let writing = lock.write_async().await?;
    /// # drop(writing);
    /// # Ok::<(), flockwork::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn write_async(&self) -> impl Future<Output = Result<RwLockWriteGuard>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move { inner.write_guard(inner.lock_async(&inner.write).await?) }
    }

    // ----------------------------------------------------------------------------------- about

    /// The path of the lock, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.read.file.path()
    }

    /// Who has the lock at this moment, to read or to write, as far as that is known. Takes nothing and delays nobody.
    ///
    /// Who was opened with [`Options::label`] or [`Options::record_holder`] left a record: a writer in
    /// `data.lock.holder`, each reader in a file of the directory `data.lock.holders`. For others Linux tells the
    /// process (once, however often it has it), as it does for a [`Lock`](crate::Lock::holders). A snapshot: it may be out of date when it is returned.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Options::new().label("report").open_rwlock(&path)?;
    /// let _reading = (lock.read()?, lock.read()?);
    /// let holders = lock.holders()?;
    /// assert_eq!(holders.len(), 2);
    /// assert_eq!(holders[0].label(), Some("report"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if there is a record that cannot be read, or the system refuses to tell.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::of(self.inner.read.file.path())
    }

    fn reading(&self, deadline: impl FnOnce() -> Deadline) -> Result<RwLockReadGuard> {
        self.wait(&self.inner.read, deadline).and_then(|locked| self.inner.read_guard(locked))
    }

    fn writing(&self, deadline: impl FnOnce() -> Deadline) -> Result<RwLockWriteGuard> {
        self.wait(&self.inner.write, deadline).and_then(|locked| self.inner.write_guard(locked))
    }

    fn wait(
        &self,
        request: &Arc<LockRequest>,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<FileLock> {
        let (gated, notice) = (self.inner.gated(request)?, self.inner.notice.as_ref());
        let waited = match gated {
            Some(gated) => pass(&QUEUES, gated, deadline, notice),
            None => acquire(&QUEUES, request, deadline, notice),
        };
        match waited? {
            Outcome::Held(locked) => Ok(locked),
            Outcome::TimedOut(waited) => {
                let behind = gated.and_then(|gated| gated.readers_turnstile());
                Err(Error::timed_out_behind(request.file.path(), waited, behind))
            }
        }
    }
}

impl Inner {
    /// Waits for the lock in the mode of `request`.
    async fn lock_async(&self, request: &Arc<LockRequest>) -> Result<FileLock> {
        let waiter = match self.gated(request)? {
            Some(gated) => Locking::TurnstileWait(TurnstileWait::new(&QUEUES, Arc::clone(gated))),
            None => Locking::Alone(QueuedWaiter::new(&QUEUES, Arc::clone(request))),
        };
        Acquire::new(waiter, self.notice.clone()).await
    }

    /// The lock behind its gate. Rule R5: `None` if there is no gate and this user cannot create one. It is looked for
    /// at each acquisition, since another user may create it.
    fn gated(&self, request: &Arc<LockRequest>) -> Result<Option<&Arc<GatedLock>>> {
        let gated = match self.gated_locks.get() {
            Some(gated) => gated,
            None => match self.open_gate()? {
                Some(gated) => self.gated_locks.get_or_init(|| Box::new(gated)),
                None => return Ok(None),
            },
        };
        let [read, write] = gated;
        Ok(Some(if request.mode == Mode::Shared { read } else { write }))
    }

    fn open_gate(&self) -> Result<Option<[Arc<GatedLock>; 2]>> {
        let file = match LockFile::open(&self.gate_path, self.access) {
            Ok(file) => file,
            Err(error) if self.lacks_gate(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if sys::FILES_HAVE_NUMBERS && self.read.file.latest() == file.latest() {
            let problem = format!(
                "it is the same file as `{}`, by a hard link, and would be waited for by those who hold that; remove it",
                self.read.file.path().display()
            );
            return Err(Error::corrupt(&self.gate_path, problem));
        }
        let (mode, poll_every) = (Mode::Exclusive, self.read.poll_every);
        let gate = Arc::new(LockRequest { file, mode, poll_every, coordinator: None });
        Ok(Some([&self.read, &self.write].map(|lock| {
            let (gate, lock) = (Arc::clone(&gate), Arc::clone(lock));
            Arc::new(GatedLock { gate, lock, check_interval: self.check_interval })
        })))
    }

    fn lacks_gate(&self, error: &Error) -> bool {
        error.is_refused()
            && sys::file_kind(&self.gate_path).is_ok_and(|there| there == FileKind::Nothing)
    }

    fn try_lock(&self, request: &Arc<LockRequest>) -> Result<FileLock> {
        if let Some(gated) = self.gated(request)? {
            return gated.try_lock();
        }
        let taken = request.file.try_lock(request.mode)?;
        taken.ok_or_else(|| Error::would_block(request.file.path()))
    }

    fn read_guard(self: &Arc<Self>, locked: FileLock) -> Result<RwLockReadGuard> {
        let file = &self.read.file;
        Ok(RwLockReadGuard { raw: RawGuard::new(file, Mode::Shared, locked, &self.guard_options)? })
    }

    fn write_guard(self: &Arc<Self>, locked: FileLock) -> Result<RwLockWriteGuard> {
        let file = &self.write.file;
        let raw = RawGuard::new(file, Mode::Exclusive, locked, &self.guard_options)?;
        Ok(RwLockWriteGuard { raw, options: self.guard_options.clone() })
    }
}

impl AsRef<Path> for RwLock {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// A panic in a callback leaves nothing half-changed: what is shared lies in files and in the kernel.
impl UnwindSafe for RwLock {}
impl RefUnwindSafe for RwLock {}

impl fmt::Debug for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens an [`RwLock`] at `path` with these settings: see [`RwLock::open`].
    ///
    /// # Errors
    ///
    /// As [`RwLock::open`].
    pub fn open_rwlock(&self, path: impl AsRef<Path>) -> Result<RwLock> {
        let file = LockFile::open(path.as_ref(), self.access)?;
        let notice = lock_request::notice(self, file.path());
        let (gate_path, poll_every) = (sys::beside(file.path(), GATE).into(), self.poll_every);
        let request = |mode| {
            Arc::new(LockRequest { file: Arc::clone(&file), mode, poll_every, coordinator: None })
        };
        let inner = Inner {
            read: request(Mode::Shared),
            write: request(Mode::Exclusive),
            gate_path,
            gated_locks: OnceBox::new(),
            access: self.access,
            check_interval: self.backstop,
            guard_options: GuardOptions::of(self),
            notice,
        };
        inner.gated(&inner.read)?;
        Ok(RwLock { inner: Arc::new(inner) })
    }
}
