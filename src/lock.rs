//! `Lock`: one file, locked exclusively.

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::file::guard::{GuardOptions, RawGuard};
use crate::file::lock_file::{FileLock, LockFile};
use crate::holder::Holder;
use crate::holders;
use crate::lock_request::{self, LockRequest, QUEUES};
use crate::options::Options;
use crate::sys::Mode;
use crate::wait::{
    Acquire, CheckSampler, Deadline, Outcome, QueuedWaiter, WaitCallback, take_over,
};

/// An exclusive lock on a path, between processes and threads alike.
///
/// Any number of programs open the same path; at most one guard exists at any moment, over all of their
/// processes and threads. When a holder dies, however it dies, the kernel lets the next one in: there
/// is nothing to clean up and no lock file to remove. The file's content is never touched.
///
/// A `Lock` is a cheap handle: clone it, share it between threads (they exclude each other through one
/// handle as well), keep it. It keeps one descriptor open. It does not remember who locked: a thread that
/// locks again while it holds the guard waits for itself.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("deploy.lock");
/// use std::time::Duration;
/// use flockwork::Lock;
///
/// let lock = Lock::open(&path)?;
/// {
///     let _held = lock.lock()?; // waits for its turn
///     // ... one process at a time is here ...
/// } // released
///
/// match lock.lock_timeout(Duration::from_secs(5)) {
///     Ok(held) => held.unlock()?, // drop would do; this one reports errors
///     Err(error) if error.is_timed_out() => eprintln!("{error}"), // says who holds it
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is not promised
///
/// * The lock is advisory: it holds off those who ask for it, with flockwork or with another tool that
///   uses `flock(2)` (`LockFileEx` on Windows) on the same path. It keeps nobody from the data.
/// * If somebody removes or replaces the file while it is locked, the old holder is not told, and the
///   next one locks the new file. Do not remove lock files.
/// * Between processes the order is the kernel's. On Linux those who wait are served first come, first
///   served, but who asks at the moment of a release may pass them.
/// * A process that gave up waiting may still acquire the lock for some microseconds. A
///   [`try_lock`](Self::try_lock) of another process would block in that moment; a `try_lock` of
///   the same process takes the lock over (not on Windows and macOS).
/// * On Linux a signal handler sends a thread that waits in [`lock`](Self::lock) to the end of the
///   queue, and SIGSTOP with SIGCONT sends each waiter of the process there: `flock(2)` queues
///   again after each. With a signal every 10 ms it is hardly ever served. Let another thread
///   handle signals, or wait with a deadline: that waits in a separate thread, while Linux runs
///   handlers in the main thread if it can.
/// * On a network file system, a holder that is cut off is not told that it lost the lock.
///
/// # Platform-specific behaviour
///
/// * Unix: `flock(2)`, so it interoperates with the command flock(1) and Python's `fcntl.flock`, and not
///   with `fcntl(2)` record locks (`lockf`). A child made by a bare `fork` shares the lock: its copies of
///   guards free nothing, but the lock stays held until it has closed them (or ended, or called exec).
/// * Windows: `LockFileEx` on the whole file, so nobody else can read or write the locked file itself.
///   Give the lock a file of its own. While a `Lock` is open, its file cannot be removed or renamed.
/// * Network file systems (NFS, SMB, FUSE ...) are polled: 1 to 50 milliseconds.
#[derive(Clone)]
pub struct Lock {
    inner: Arc<Inner>,
}

struct Inner {
    request: Arc<LockRequest>,
    guard_options: GuardOptions,
    notice: Option<WaitCallback>,
    /// Looking whether a refusal came from the file that the path names costs twice what the refused
    /// system call does.
    refusals: CheckSampler,
}

impl Lock {
    /// Opens the lock at `path`, making the file and its missing parent directories. They are made again
    /// should they be gone at a later acquisition.
    ///
    /// The path is made absolute, so that a later change of the current directory changes nothing.
    /// Symbolic links in parent directories are followed, at the last component refused.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if there is something else at the path; it is left as it was.
    /// * [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the platform has no locks.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io) if the file can neither be opened nor made.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_lock(path)
    }

    /// Waits for the lock, without limit.
    ///
    /// The calling thread sleeps in the kernel until it has acquired the lock. A signal handler that runs in it does
    /// not end the wait, but costs it its place in the queue on Linux, also with `SA_RESTART`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the file system has no locks; [`ErrorKind::Io`](crate::ErrorKind::Io) for what else the system
    /// refuses, such as another descriptor. Then nothing is held.
    pub fn lock(&self) -> Result<LockGuard> {
        self.wait(|| Deadline::NEVER)
    }

    /// Takes the lock if nobody holds it, and never waits.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Lock::open(&path)?;
    /// match lock.try_lock() {
    ///     Ok(_held) => println!("the only instance"),
    ///     Err(error) if error.is_would_block() => println!("runs already: {error}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) if somebody holds it, also another thread of this process; otherwise as
    /// [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<LockGuard> {
        let request = &self.inner.request;
        let check_refusal = || self.inner.refusals.is_due();
        let unwanted = QUEUES.unwanted();
        let taken = match request.file.try_lock_checking(request.mode, check_refusal, true)? {
            None => take_over(&QUEUES, request, unwanted)?,
            taken => taken,
        };
        taken.map_or_else(|| Err(Error::would_block(request.file.path())), |held| self.guard(held))
    }

    /// Waits for the lock for at most `timeout`. Zero tries once; what no clock can show waits forever.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Lock::open(&path)?;
    /// let held = lock.lock_timeout(std::time::Duration::from_secs(5))?;
    /// assert!(lock.lock_timeout(std::time::Duration::ZERO).unwrap_err().is_timed_out());
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if it could not be had in time; otherwise as [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard> {
        self.wait(|| Deadline::after(timeout))
    }

    /// Waits for the lock until `deadline`. One that has passed tries once.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// use std::time::{Duration, Instant};
    ///
    /// // Both within five seconds, however long the first one takes.
    /// let deadline = Instant::now() + Duration::from_secs(5);
    /// let first = flockwork::Lock::open(&path)?.lock_deadline(deadline)?;
    /// let second = flockwork::Lock::open(dir.path().join("b.lock"))?.lock_deadline(deadline)?;
    /// # drop((first, second));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if it could not be had in time; otherwise as [`lock`](Self::lock).
    pub fn lock_deadline(&self, deadline: Instant) -> Result<LockGuard> {
        self.wait(|| Deadline::at(deadline))
    }

    /// Waits for the lock as a future, under any runtime. Dropping the future gives up.
    ///
    /// The wait begins when it is first polled. It holds up no executor thread: a helper of the process
    /// blocks in the kernel, one for all futures and timed waits for this lock. Give it a time limit with
    /// the runtime's own, such as `tokio::time::timeout`; what a dropped future had been granted goes to
    /// the next waiter.
    ///
    /// A future that was polled must be polled on or dropped: when its turn comes it holds the lock, also
    /// while nobody polls it. So in a `select!` with `&mut future`, no other branch may wait for the same
    /// lock. A future that is polled after it has ended stays pending.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// # futures_lite::future::block_on(async {
    /// let lock = flockwork::Lock::open(&path)?;
    /// let held = lock.lock_async().await?;
    /// # drop(held);
    /// # Ok::<(), flockwork::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    pub fn lock_async(&self) -> impl Future<Output = Result<LockGuard>> + Send + use<> {
        let lock = self.clone();
        async move {
            let waiter = QueuedWaiter::new(&QUEUES, Arc::clone(&lock.inner.request));
            let locked = Acquire::new(waiter, lock.inner.notice.clone()).await?;
            lock.guard(locked)
        }
    }

    /// The path of the lock, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.request.file.path()
    }

    /// The process that holds the lock at this moment, as far as it is known. (A [`Lock`] at the path
    /// of an [`RwLock`](crate::RwLock) can have several holders, which share it.) Takes nothing and
    /// delays no process.
    ///
    /// A holder that was opened with [`Options::label`] or [`Options::record_holder`] left a record. The process of another
    /// holder is known on Linux (from `/proc/locks`); elsewhere the answer is then empty although the lock is held
    /// ([`inspect`](crate::inspect()) tells that it is held). A snapshot: it may be out of date when it is returned.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Options::new().label("backup").open_lock(&path)?;
    /// assert!(lock.holders()?.is_empty());
    /// let held = lock.lock()?;
    /// assert_eq!(lock.holders()?[0].label(), Some("backup"));
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Platform-specific behaviour
    ///
    /// Linux does not show the process of a holder without a record
    ///
    /// * in a container, of a process outside it (`/proc/locks` leaves out other pid namespaces),
    /// * on file systems that show another device number in `/proc/locks` than in `stat` (btrfs subvolumes, some
    ///   overlays),
    /// * where the process that took the lock has died, of another user's process that inherited it
    ///   (the superuser sees it).
    ///
    /// A holder in another pid namespace that left a record is known by that, with a process number that counts there:
    /// see [`Holder::same_pid_namespace`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if there is a record that cannot be read, or the system refuses to tell.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::of(self.inner.request.file.path())
    }

    fn wait(&self, deadline: impl FnOnce() -> Deadline) -> Result<LockGuard> {
        let inner = &self.inner;
        match crate::wait::acquire(&QUEUES, &inner.request, deadline, inner.notice.as_ref())? {
            Outcome::Held(locked) => self.guard(locked),
            Outcome::TimedOut(waited) => Err(Error::timed_out(inner.request.file.path(), waited)),
        }
    }

    fn guard(&self, locked: FileLock) -> Result<LockGuard> {
        let Inner { request, guard_options, .. } = &*self.inner;
        Ok(LockGuard { raw: RawGuard::new(&request.file, request.mode, locked, guard_options)? })
    }
}

impl AsRef<Path> for Lock {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// A panic in a callback leaves nothing half-changed: what is shared lies in files and in the kernel.
impl UnwindSafe for Lock {}
impl RefUnwindSafe for Lock {}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens a [`Lock`] at `path` with these settings: see [`Lock::open`].
    ///
    /// # Errors
    ///
    /// As [`Lock::open`].
    pub fn open_lock(&self, path: impl AsRef<Path>) -> Result<Lock> {
        let file = LockFile::open(path.as_ref(), self.access)?;
        let notice = lock_request::notice(self, file.path());
        let (mode, poll_every) = (Mode::Exclusive, self.poll_every);
        let request = LockRequest { file, mode, poll_every, coordinator: None };
        Ok(Lock {
            inner: Arc::new(Inner {
                request: Arc::new(request),
                guard_options: GuardOptions::of(self),
                notice,
                refusals: CheckSampler::new(),
            }),
        })
    }
}

/// The lock, held. Released when dropped.
///
/// It owns what it holds: it can be sent to another thread, kept in a struct, and outlive the [`Lock`].
/// A copy that `fork` makes of it releases nothing.
#[must_use = "if unused, the lock is released at once"]
#[clippy::has_significant_drop]
pub struct LockGuard {
    raw: RawGuard,
}

impl LockGuard {
    /// Releases the lock, and says if that failed, which dropping cannot.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the system refuses to unlock. The descriptor is closed then, which releases the
    /// lock too unless a forked child also has it open. [`ErrorKind::Io`](crate::ErrorKind::Io) also in a copy of the guard that `fork`
    /// made: the copy releases nothing.
    pub fn unlock(self) -> Result<()> {
        self.raw.unlock()
    }

    /// For what must only be done by the one who holds it, and not by a copy of the guard that `fork` made.
    pub(crate) fn is_here(&self) -> bool {
        self.raw.is_here()
    }

    /// The path of the lock, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.raw.path()
    }

    /// Whether a holder before this one died without releasing the lock: what the lock guards may be in
    /// a state that a holder would not have left. As a robust mutex's `EOWNERDEAD`.
    ///
    /// Known only of holders that left a record ([`Options::label`], [`Options::record_holder`]). The
    /// one who asks first is told, and by that the matter is closed for those who come later; a guard
    /// with a record of its own has asked when it was acquired. (Where the record cannot be removed, each
    /// is told.)
    ///
    /// Ending the process with the guard alive counts as dying: `std::process::exit` and an abort run no
    /// destructors.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Options::new().label("importer").open_lock(&path)?;
    /// let held = lock.lock()?;
    /// if held.was_abandoned() {
    ///     println!("an importer died half-way: cleaning up first");
    /// }
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.raw.abandoned()
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}
