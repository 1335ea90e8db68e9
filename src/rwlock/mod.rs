//! [`RwLock`]: one file, locked shared or exclusively, behind a turnstile that orders the waiters.

mod gate;
mod guards;

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

pub(crate) use self::gate::{GATE, QUEUE};
use self::gate::{GatedLock, Locking};
pub use self::guards::{RwLockReadGuard, RwLockWriteGuard};
use crate::access::Creation;
use crate::error::{Error, Result};
use crate::file::guard::{GuardOptions, RawGuard};
use crate::file::lock_file::{FileLock, LockFile};
use crate::file::ticket_queue::TicketQueue;
use crate::holder::Holder;
use crate::holders;
use crate::line::{HostLine, Line};
use crate::lock_request::{self, LockRequest, QUEUES};
use crate::options::Options;
use crate::paths::resolved;
use crate::sys::{self, Mode};
use crate::wait::{
    HostWait, Kept, Limit, Outcome, QueuedWaiter, RemoteFuture, Server, Target as _, TryNow,
    TurnstileWait, WaitHooks, acquire, acquire_on_host, open, pass, try_pass, wait_on_host,
};

/// A reader-writer lock on a path, between unrelated processes and between threads.
///
/// Any number of programs can open the same path. At any moment, any number of [`RwLockReadGuard`]s
/// or one [`RwLockWriteGuard`] exist, across all of their processes and threads. The contents of
/// the file are never touched. When a holder dies, even by SIGKILL, the kernel releases its lock.
///
/// Unlike with plain `flock`, overlapping readers cannot starve a writer, and writers cannot starve
/// readers: see [Fairness](#fairness).
///
/// An `RwLock` is a cheap handle: clone it, share it between threads, and keep it for later use. It
/// keeps two descriptors open, and one more for each guard. The lock is not reentrant. A thread
/// that calls [`write`](Self::write) while it holds a guard deadlocks. One that calls
/// [`read`](Self::read) a second time can deadlock with a writer that waits for its first guard. A
/// read guard cannot be upgraded, since two readers would wait for each other: see
/// [`recipes`](crate::_documentation::recipes).
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
///     // Any number of readers can hold the lock, in any process.
///     let _first = index.read()?;
///     let _second = index.read()?;
///     assert!(index.try_write().unwrap_err().is_would_block());
/// } // both released
///
/// let writer = index.write()?; // excludes readers and other writers
/// // ... update the index ...
/// let reader = writer.downgrade()?; // admits other readers, and no writer in between
/// // ... check the update ...
/// reader.unlock()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Interoperability
///
/// The lock excludes every program that uses `flock(2)` on the same path. `flock -s` counts as a
/// reader. `flock -x` and a [`Lock`](crate::Lock) count as writers. Such programs do not queue:
/// they acquire the lock whenever it is available to them.
///
/// A shell script can queue as well. It locks the turnstile, a second file beside the path, before
/// the path itself:
///
/// ```sh
/// exec 8>>data.lock.gate 9>>data.lock
/// flock 8; flock -s 9; flock -u 8   # to read; `flock -x 9` to write
/// ```
///
/// # Fairness
///
/// Readers and writers queue for one *turnstile*, the lock file `data.lock.gate` for the path
/// `data.lock`. The waiter at the front holds the turnstile until the readers or the writer before
/// it have released the lock, and all later readers and writers wait behind it. On Linux, waiters
/// reach the turnstile in the order of their arrival, across processes and threads: no new caller
/// goes before a waiter, and a waiter that is interrupted or stopped keeps its place. So
/// [`write`](Self::write) is the fair exclusive lock, where [`Lock`](crate::Lock) is not. Elsewhere
/// the order at the turnstile is that of a [`Lock`](crate::Lock#fairness): first come, first
/// served, except that a new caller can barge in, and that a process that is stopped and continued
/// loses its place. There are three more exceptions:
///
/// * A waiter that has queued for a second tries the lock itself, once per second, so that a
///   stopped process (SIGSTOP, Ctrl-Z) that holds the turnstile does not block it for good. It
///   acquires the lock if no process holds it. On Linux, where the system shows that the process is
///   stopped, a reader also acquires it beside other readers.
/// * The `try_` forms do not queue. They fail while a writer waits, and on Linux while any waiter
///   that runs is ahead. Elsewhere programs that call them in a tight loop acquire the lock ahead
///   of waiters more often than is their turn.
/// * If the turnstile does not exist and the user cannot create it (on a read-only file system, or
///   in another user's directory), readers and writers lock the file itself, as `flock` does. They
///   are in no order then, and overlapping readers can starve a writer. The turnstile is used as
///   soon as another program has created it.
///
/// # Caveats
///
/// * The [caveats of `Lock`](crate::Lock#caveats) apply.
/// * A `try_` call can fail, very rarely, although the lock is available: when another process is
///   just passing the turnstile, or makes a `try_` call at the same moment.
/// * A stopped process that holds the turnstile costs other waiters a second or more for each
///   acquisition.
/// * A waiter that queues for longer than a moment wakes once per second. On Linux it has two or
///   three descriptors open; elsewhere it acquires the turnstile through a helper thread.
/// * Removing the turnstile costs the waiters their order. It never costs the exclusion.
///
/// # Errors
///
/// Opening and locking return an [`Error`] of one of these kinds, and nothing is locked then:
///
/// * [`NotRegularFile`](crate::ErrorKind::NotRegularFile) if the path or its turnstile names
///   something other than a regular file. It is left unchanged.
/// * [`Corrupt`](crate::ErrorKind::Corrupt) if the turnstile is the same file as the path, by a
///   hard link.
/// * [`Unsupported`](crate::ErrorKind::Unsupported) if the platform or the file system has no
///   locks.
/// * [`Io`](crate::ErrorKind::Io) if the system refuses the operation, for example because the file
///   cannot be created, the turnstile exists but cannot be opened, or the process has too many open
///   files.
///
/// # Platform-specific behavior
///
/// See [`Lock`](crate::Lock#platform-specific-behavior). On Windows the file cannot be read or
/// written while it is locked. Use a separate file for the lock, or a
/// [`SharedFile`](crate::SharedFile), which does so.
#[derive(Clone)]
pub struct RwLock {
    inner: Arc<Inner>,
}

struct Inner {
    read: Arc<LockRequest>,
    write: Arc<LockRequest>,
    /// `P.gate`.
    gate_path: Arc<Path>,
    /// The lock behind its gate, to read and to write. Empty while the gate does not exist.
    gated_locks: OnceBox<[Arc<GatedLock>; 2]>,
    creation: Creation,
    check_interval: Option<Duration>,
    label: Option<Arc<str>>,
    guard_options: GuardOptions,
    hooks: Option<WaitHooks>,
    host_line: HostLine,
    server: Option<Server>,
}

impl RwLock {
    /// Opens the lock at `path`, creating the file, its turnstile and missing parent directories.
    ///
    /// Files and directories that are missing at a later acquisition are created again. If the file
    /// exists and the turnstile cannot be created, the lock works without one: see
    /// [Fairness](Self#fairness). How paths are resolved is described in [Paths](crate#paths).
    ///
    /// # Errors
    ///
    /// See [the errors of `RwLock`](Self#errors).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_rwlock(path)
    }

    // ---------------------------------------------------------------------------------- reading

    /// Acquires the lock for reading, blocking the current thread until it is available.
    ///
    /// It is available when no writer holds it or queues ahead of this call.
    ///
    /// # Errors
    ///
    /// See [the errors of `RwLock`](Self#errors).
    pub fn read(&self) -> Result<RwLockReadGuard> {
        self.reading(Limit::Never)
    }

    /// Attempts to acquire the lock for reading without waiting.
    ///
    /// The call fails if a writer holds the lock or waits for it. If another process is just
    /// passing the turnstile, the call waits for it, for less than a millisecond.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let writer = lock.write()?;
    /// assert!(lock.try_read().unwrap_err().is_would_block());
    /// drop(writer);
    /// let (_first, _second) = (lock.try_read()?, lock.try_read()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if the lock is not available, also because of
    /// another thread of this process; otherwise see [the errors of `RwLock`](Self#errors).
    pub fn try_read(&self) -> Result<RwLockReadGuard> {
        self.attempt(|inner| inner.read_guard(inner.try_lock(&inner.read)?))
    }

    /// Attempts to acquire the lock for reading, waiting at most `timeout`.
    ///
    /// A zero timeout tries once. A timeout too large for [`Instant`] waits forever.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if the lock was not available before the timeout;
    /// otherwise see [the errors of `RwLock`](Self#errors).
    pub fn read_timeout(&self, timeout: Duration) -> Result<RwLockReadGuard> {
        self.reading(Limit::After(timeout))
    }

    /// Attempts to acquire the lock for reading, waiting until `deadline`.
    ///
    /// A deadline that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if the lock was not available before the deadline;
    /// otherwise see [the errors of `RwLock`](Self#errors).
    pub fn read_deadline(&self, deadline: Instant) -> Result<RwLockReadGuard> {
        self.reading(Limit::At(deadline))
    }

    /// Acquires the lock for reading asynchronously.
    ///
    /// The future follows the [rules of all futures](crate#futures). It can be granted the
    /// turnstile, as well as the lock, while no task polls it.
    ///
    /// # Errors
    ///
    /// See [the errors of `RwLock`](Self#errors).
    pub fn read_async(&self) -> impl Future<Output = Result<RwLockReadGuard>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            match inner.future(Inner::reading) {
                Some(waiting) => waiting.await,
                None => inner.read_guard(inner.lock_async(&inner.read).await?),
            }
        }
    }

    // ---------------------------------------------------------------------------------- writing

    /// Acquires the lock for writing, blocking the current thread until it is available.
    ///
    /// It is available when no other reader or writer holds it or queues ahead of this call.
    ///
    /// # Errors
    ///
    /// See [the errors of `RwLock`](Self#errors).
    pub fn write(&self) -> Result<RwLockWriteGuard> {
        self.writing(Limit::Never)
    }

    /// Attempts to acquire the lock for writing without waiting.
    ///
    /// If another process is just passing the turnstile, the call waits for it, for less than a
    /// millisecond.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if the lock is not available, also because of
    /// another thread of this process; otherwise see [the errors of `RwLock`](Self#errors).
    pub fn try_write(&self) -> Result<RwLockWriteGuard> {
        self.attempt(|inner| inner.write_guard(inner.try_lock(&inner.write)?))
    }

    /// Attempts to acquire the lock for writing, waiting at most `timeout`.
    ///
    /// A zero timeout tries once. A timeout too large for [`Instant`] waits forever.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// use std::time::Duration;
    ///
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let reader = lock.read()?;
    /// let error = lock.write_timeout(Duration::from_millis(10)).unwrap_err();
    /// assert!(error.is_timed_out());
    /// # drop(reader);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if the lock was not available before the timeout;
    /// otherwise see [the errors of `RwLock`](Self#errors).
    pub fn write_timeout(&self, timeout: Duration) -> Result<RwLockWriteGuard> {
        self.writing(Limit::After(timeout))
    }

    /// Attempts to acquire the lock for writing, waiting until `deadline`.
    ///
    /// A deadline that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if the lock was not available before the deadline;
    /// otherwise see [the errors of `RwLock`](Self#errors).
    pub fn write_deadline(&self, deadline: Instant) -> Result<RwLockWriteGuard> {
        self.writing(Limit::At(deadline))
    }

    /// Acquires the lock for writing asynchronously.
    ///
    /// The future follows the [rules of all futures](crate#futures). It can be granted the
    /// turnstile, as well as the lock, while no task polls it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// # futures_lite::future::block_on(async {
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let writer = lock.write_async().await?;
    /// # drop(writer);
    /// # Ok::<(), flockwork::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `RwLock`](Self#errors).
    pub fn write_async(&self) -> impl Future<Output = Result<RwLockWriteGuard>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            match inner.future(Inner::writing) {
                Some(waiting) => waiting.await,
                None => inner.write_guard(inner.lock_async(&inner.write).await?),
            }
        }
    }

    // ------------------------------------------------------------------------- path and holders

    /// Returns the absolute path of the lock.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.read.file.path()
    }

    /// Returns the readers, or the writer, at this moment, as far as they are known.
    ///
    /// The call acquires nothing and delays no process. The result is a snapshot and may be out of
    /// date when the call returns.
    ///
    /// A holder that was opened with [`Options::label`] or [`Options::record_holder`] leaves a
    /// record: a writer in the file `data.lock.holder`, each reader in a file in the directory
    /// `data.lock.holders`. Of holders without a record, Linux shows each process once, as it does
    /// for [`Lock::holders`](crate::Lock::holders).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Options::new().label("report").open_rwlock(&path)?;
    /// let _readers = (lock.read()?, lock.read()?);
    /// let holders = lock.holders()?;
    /// assert_eq!(holders.len(), 2);
    /// assert_eq!(holders[0].label(), Some("report"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if a record cannot be read or the system refuses to list
    /// holders.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::asking(self.inner.server.as_ref(), self.inner.read.file.path())
    }

    pub(crate) fn reading(&self, limit: Limit) -> Result<RwLockReadGuard> {
        self.wait(limit, Inner::reading)
    }

    pub(crate) fn writing(&self, limit: Limit) -> Result<RwLockWriteGuard> {
        self.wait(limit, Inner::writing)
    }

    fn wait<G: Send + Sync + 'static>(&self, limit: Limit, wait: WaitFn<G>) -> Result<G> {
        let (server, hooks) = (self.inner.server.as_ref(), self.inner.hooks.as_ref());
        let wait = move |inner: &Arc<Inner>, limit, hooks: Option<&_>| wait(inner, limit, hooks);
        Server::wait_about(server, &self.inner, limit, hooks, wait)
    }

    fn attempt<G: Send + Sync + 'static>(&self, attempt: fn(&Inner) -> Result<G>) -> Result<G> {
        let server = self.inner.server.as_ref();
        Server::ask_about(server, &self.inner, move |inner| attempt(inner))
    }
}

/// A wait in the calling thread.
type WaitFn<G> = fn(&Inner, Limit, Option<&WaitHooks>) -> Result<G>;

/// A waiter for the lock in the mode of `request`.
fn waiter(request: &Arc<LockRequest>, gated: Option<&Arc<GatedLock>>) -> Locking {
    match gated {
        Some(gated) => {
            Locking::TurnstileWait(TurnstileWait::new(&QUEUES, Arc::clone(gated)).into())
        }
        None => Locking::Alone(QueuedWaiter::new(&QUEUES, Arc::clone(request))),
    }
}

fn try_now(request: &Arc<LockRequest>, gated: Option<&Arc<GatedLock>>) -> TryNow<FileLock> {
    let (request, gated) = (Arc::clone(request), gated.cloned());
    Box::new(move || match &gated {
        Some(gated) => try_pass(&QUEUES, &**gated),
        None => request.attempt(),
    })
}

impl Inner {
    fn reading(&self, limit: Limit, hooks: Option<&WaitHooks>) -> Result<RwLockReadGuard> {
        self.wait(&self.read, limit, hooks).and_then(|locked| self.read_guard(locked))
    }

    fn writing(&self, limit: Limit, hooks: Option<&WaitHooks>) -> Result<RwLockWriteGuard> {
        self.wait(&self.write, limit, hooks).and_then(|locked| self.write_guard(locked))
    }

    /// A wait on a network file system as a future, which a helper makes.
    fn future<G: Send + Sync + 'static>(
        self: &Arc<Self>,
        wait: WaitFn<G>,
    ) -> Option<RemoteFuture<G>> {
        let wait = move |inner: &Arc<Self>, limit, hooks: Option<&_>| wait(inner, limit, hooks);
        Server::future_about(self.server.as_ref(), self, self.hooks.as_ref(), wait)
    }

    fn wait(
        &self,
        request: &Arc<LockRequest>,
        limit: Limit,
        hooks: Option<&WaitHooks>,
    ) -> Result<FileLock> {
        let gated = self.gated(request)?;
        let waited = match (self.host_line.of(request), gated) {
            (Some(line), _) => {
                let try_now = || try_now(request, gated);
                let wait = HostWait::new(line, try_now(), waiter(request, gated));
                wait_on_host(wait, try_now(), limit, hooks)
            }
            (None, Some(gated)) => pass(&QUEUES, gated, limit, hooks),
            (None, None) => acquire(&QUEUES, request, limit, hooks),
        };
        match waited? {
            Outcome::Held(locked) => Ok(locked),
            Outcome::TimedOut(waited) => {
                let behind = gated.and_then(|gated| gated.readers_turnstile());
                Err(Error::timed_out_behind(request.file.path(), waited, behind))
            }
        }
    }

    /// Waits for the lock in the mode of `request`.
    async fn lock_async(&self, request: &Arc<LockRequest>) -> Result<FileLock> {
        let (gated, hooks) = (self.gated(request)?, self.hooks.clone());
        let (line, waiter) = (self.host_line.of(request), waiter(request, gated));
        acquire_on_host(line, || try_now(request, gated), waiter, hooks).await
    }

    /// Returns the lock behind its gate, or `None` if the gate does not exist and this user cannot
    /// create it. Each acquisition checks again, since another user may create it (rule R5).
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
        let file = match LockFile::open(&self.gate_path, self.creation) {
            Ok(file) => file,
            Err(error) if error.is_creation_refused() => return Ok(None),
            Err(error) => return Err(error),
        };
        if sys::FILES_HAVE_NUMBERS && self.read.file.latest() == file.latest() {
            let problem =
                format!("it is a hard link to the lock file `{}`", self.read.file.path().display());
            return Err(Error::corrupt(&self.gate_path, problem, "remove the hard link"));
        }
        let (mode, poll_every) = (Mode::Exclusive, self.read.poll_every);
        let line = (poll_every.is_none() && sys::FIFOS && !file.is_network()).then(|| {
            let directory = sys::beside(self.read.file.path(), QUEUE).into();
            let creation = Creation { files: true, ..self.creation };
            let tickets = Arc::new(TicketQueue::new(directory, creation));
            Arc::new(Line { tickets, label: self.label.clone() })
        });
        let gate = Arc::new(LockRequest { file, mode, poll_every, coordinator: None });
        Ok(Some([&self.read, &self.write].map(|lock| {
            let (gate, lock) = (Arc::clone(&gate), Arc::clone(lock));
            Arc::new(GatedLock {
                gate,
                lock,
                check_interval: self.check_interval,
                line: line.clone(),
            })
        })))
    }

    fn try_lock(&self, request: &Arc<LockRequest>) -> Result<FileLock> {
        if let Some(gated) = self.gated(request)? {
            return gated.try_lock();
        }
        let taken = request.file.try_lock(request.mode)?;
        taken.ok_or_else(|| Error::would_block(request.file.path()))
    }

    fn read_guard(&self, locked: FileLock) -> Result<RwLockReadGuard> {
        let file = &self.read.file;
        let raw = RawGuard::new(file, Mode::Shared, locked, &self.guard_options)?;
        Ok(RwLockReadGuard { raw: Kept::new(raw, self.server.as_ref()) })
    }

    fn write_guard(&self, locked: FileLock) -> Result<RwLockWriteGuard> {
        let file = &self.write.file;
        let raw = RawGuard::new(file, Mode::Exclusive, locked, &self.guard_options)?;
        let raw = Kept::new(raw, self.server.as_ref());
        Ok(RwLockWriteGuard { raw, options: self.guard_options.clone() })
    }
}

impl AsRef<Path> for RwLock {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// All shared state is in files and in the kernel, so a panic in a callback leaves it consistent.
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
    /// See [the errors of `RwLock`](RwLock#errors).
    pub fn open_rwlock(&self, path: impl AsRef<Path>) -> Result<RwLock> {
        open(self, path.as_ref(), Self::open_rwlock_here)
    }

    fn open_rwlock_here(&self, path: &Path) -> Result<RwLock> {
        let path = resolved(path, self.follows_links)?;
        let file = LockFile::open(&path, self.creation())?;
        let server = Server::of(self, file.path(), file.is_network());
        let hooks = lock_request::hooks(self, file.path(), server.as_ref());
        let (gate_path, poll_every) = (sys::beside(file.path(), GATE).into(), self.poll_every);
        let request = |mode| {
            Arc::new(LockRequest { file: Arc::clone(&file), mode, poll_every, coordinator: None })
        };
        let inner = Inner {
            read: request(Mode::Shared),
            write: request(Mode::Exclusive),
            gate_path,
            gated_locks: OnceBox::new(),
            creation: self.creation(),
            check_interval: self.backstop,
            label: self.label.clone(),
            guard_options: GuardOptions::of(self),
            hooks,
            host_line: HostLine::new(self.label.clone()),
            server,
        };
        inner.gated(&inner.read)?;
        Ok(RwLock { inner: Arc::new(inner) })
    }
}
