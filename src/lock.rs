//! [`Lock`], an exclusive lock on one file, and its guard.

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
use crate::line::HostLine;
use crate::lock_request::{self, LockRequest, QUEUES};
use crate::options::Options;
use crate::paths::resolved;
use crate::sys::Mode;
use crate::wait::{
    CheckSampler, HostWait, Kept, Limit, Outcome, QueuedWaiter, Server, Target as _, TryNow,
    WaitHooks, acquire, acquire_on_host, open, take_over, wait_on_host,
};

/// An exclusive lock on a path, between unrelated processes and between threads.
///
/// Any number of programs can open the same path. At most one [`LockGuard`] exists at any moment,
/// across all of their processes and threads. The contents of the file are never touched.
///
/// When a holder dies, even by SIGKILL, the kernel releases the lock and the next waiter acquires
/// it. There is no stale lock file to remove. A holder that is stopped (SIGSTOP) keeps the lock.
///
/// A `Lock` is a cheap handle that keeps one descriptor open. Clone it, share it between threads
/// and keep it: threads exclude each other through one handle just as they do through several. The
/// lock is not reentrant. A thread that locks again while it holds the guard deadlocks.
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
///     let _guard = lock.lock()?; // blocks until the lock is available
///     // ... only one process at a time is here ...
/// } // released
///
/// match lock.lock_timeout(Duration::from_secs(5)) {
///     Ok(guard) => guard.unlock()?, // like dropping it, but reports errors
///     Err(error) if error.is_timed_out() => eprintln!("{error}"), // names the holder
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Fairness
///
/// The kernel decides the order. Linux serves blocked waiters first come, first served, with two
/// exceptions:
///
/// * A new caller can barge in at the moment of release, before the waiter that the kernel has
///   woken runs. That waiter then queues again, so waiters can change places too. This is frequent
///   where many processes hold the lock for less than a millisecond each, and rare where they hold
///   it for longer.
/// * A thread that is blocked in [`lock`](Self::lock) goes to the end of the queue when it runs a
///   signal handler, and all waiters of a process do so when it is stopped and continued (SIGSTOP,
///   SIGCONT). With a signal every 10 milliseconds, such a thread hardly ever acquires a contended
///   lock. Handle signals in another thread, or wait with a timeout, which blocks a helper thread
///   instead of the caller.
///
/// Within a process, waits with a timeout, waits with a deadline and futures are served in the
/// order of their arrival. An exclusive lock whose waiters keep their order across processes is
/// [`RwLock::write`](crate::RwLock#fairness).
///
/// # Caveats
///
/// * The lock is advisory. It excludes only programs that lock the same path, through flockwork or
///   through any other tool that uses `flock(2)` (`LockFileEx` on Windows).
/// * Do not remove or replace the lock file. Its holder is not notified, and later callers lock the
///   new file while the old one is still held.
/// * After a wait has timed out or a future has been dropped, its process may still hold the lock
///   for a few microseconds. A [`try_lock`](Self::try_lock) in another process fails at that
///   moment. In the same process, it takes the lock over (not on Windows or macOS).
/// * On a network file system, a holder that is cut off from the server loses the lock and is not
///   notified.
///
/// # Errors
///
/// Opening and locking return an [`Error`] of one of these kinds, and nothing is locked then:
///
/// * [`NotRegularFile`](crate::ErrorKind::NotRegularFile) if the path names something other than a
///   regular file, such as a directory or a symbolic link. It is left unchanged.
/// * [`Unsupported`](crate::ErrorKind::Unsupported) if the platform or the file system has no
///   locks.
/// * [`Io`](crate::ErrorKind::Io) if the system refuses the operation, for example because the file
///   cannot be created or the process has too many open files.
///
/// # Platform-specific behavior
///
/// * Unix: the lock is a `flock(2)` lock, so it interoperates with flock(1) and Python's
///   `fcntl.flock`, but not with `fcntl(2)` record locks (`lockf`). A child created by `fork`
///   without exec shares the lock. Its copies of guards release nothing, and the lock stays held
///   until the child has closed them, called exec or ended.
/// * Windows: `LockFileEx` locks the whole file, so no other process can read or write the lock
///   file while it is locked. Use a separate file for the lock. While a `Lock` is open, its file
///   cannot be removed or renamed.
/// * Network file systems (NFS, SMB, FUSE and others): the waiters of one user and host queue on
///   their host, and the first of them waits for the server. How soon it acquires a released lock
///   is listed in [`distributed`](crate::_documentation::distributed). If the server does not
///   respond, calls end as [`Options::server_timeout`] describes.
#[derive(Clone)]
pub struct Lock {
    inner: Arc<Inner>,
}

struct Inner {
    request: Arc<LockRequest>,
    guard_options: GuardOptions,
    hooks: Option<WaitHooks>,
    host_line: HostLine,
    server: Option<Server>,
    /// Decides which failed tries check that the path still names the file that was tried. Such a
    /// check costs twice what the failed system call does (rule 2).
    refusals: CheckSampler,
}

impl Lock {
    /// Opens the lock at `path`, creating the file and its missing parent directories.
    ///
    /// Files and directories that are missing at a later acquisition are created again. How paths
    /// are resolved is described in [Paths](crate#paths).
    ///
    /// # Errors
    ///
    /// See [the errors of `Lock`](Self#errors).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_lock(path)
    }

    /// Acquires the lock, blocking the current thread until it is available.
    ///
    /// The thread sleeps in the kernel. A signal handler that runs in it does not end the wait, but
    /// on Linux it costs the thread its [place in the queue](Self#fairness).
    ///
    /// # Errors
    ///
    /// See [the errors of `Lock`](Self#errors).
    pub fn lock(&self) -> Result<LockGuard> {
        self.wait(Limit::Never)
    }

    /// Attempts to acquire the lock without waiting.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Lock::open(&path)?;
    /// match lock.try_lock() {
    ///     Ok(_guard) => println!("this is the only instance"),
    ///     Err(error) if error.is_would_block() => println!("already running: {error}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if another process or thread holds the lock;
    /// otherwise see [the errors of `Lock`](Self#errors).
    pub fn try_lock(&self) -> Result<LockGuard> {
        Server::ask_about(self.inner.server.as_ref(), self, Self::try_here)
    }

    fn try_here(&self) -> Result<LockGuard> {
        let request = &self.inner.request;
        let check_refusal = || self.inner.refusals.is_due();
        let unwanted = QUEUES.unwanted();
        let taken = match request.file.try_lock_checking(request.mode, check_refusal, true)? {
            None => take_over(&QUEUES, request, unwanted)?,
            taken => taken,
        };
        taken.map_or_else(|| Err(Error::would_block(request.file.path())), |held| self.guard(held))
    }

    /// Attempts to acquire the lock, waiting at most `timeout`.
    ///
    /// A zero timeout tries once. A timeout too large for [`Instant`] waits forever.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// use std::time::Duration;
    ///
    /// let lock = flockwork::Lock::open(&path)?;
    /// let guard = lock.lock_timeout(Duration::from_secs(5))?;
    /// assert!(lock.lock_timeout(Duration::ZERO).unwrap_err().is_timed_out());
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if another process or thread held the lock until
    /// the timeout; otherwise see [the errors of `Lock`](Self#errors).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard> {
        self.wait(Limit::After(timeout))
    }

    /// Attempts to acquire the lock, waiting until `deadline`.
    ///
    /// A deadline that has passed tries once.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let (source, target) = (dir.path().join("a.lock"), dir.path().join("b.lock"));
    /// use std::time::{Duration, Instant};
    /// use flockwork::Lock;
    ///
    /// // Acquires both within five seconds.
    /// let deadline = Instant::now() + Duration::from_secs(5);
    /// let source = Lock::open(&source)?.lock_deadline(deadline)?;
    /// let target = Lock::open(&target)?.lock_deadline(deadline)?;
    /// # drop((source, target));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if another process or thread held the lock until
    /// the deadline; otherwise see [the errors of `Lock`](Self#errors).
    pub fn lock_deadline(&self, deadline: Instant) -> Result<LockGuard> {
        self.wait(Limit::At(deadline))
    }

    /// Acquires the lock asynchronously.
    ///
    /// The future follows the [rules of all futures](crate#futures). It blocks no executor thread:
    /// one helper thread of the process blocks in the kernel for all futures and timed waits for
    /// this lock.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// # futures_lite::future::block_on(async {
    /// let lock = flockwork::Lock::open(&path)?;
    /// let guard = lock.lock_async().await?;
    /// # drop(guard);
    /// # Ok::<(), flockwork::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Lock`](Self#errors).
    pub fn lock_async(&self) -> impl Future<Output = Result<LockGuard>> + Send + use<> {
        let lock = self.clone();
        async move {
            let inner = &lock.inner;
            let (server, hooks) = (inner.server.as_ref(), inner.hooks.as_ref());
            if let Some(waiting) = Server::future_about(server, &lock, hooks, Self::wait_here) {
                return waiting.await;
            }
            let line = inner.host_line.of(&inner.request);
            let (waiter, hooks) = (inner.waiter(), inner.hooks.clone());
            lock.guard(acquire_on_host(line, || inner.try_now(), waiter, hooks).await?)
        }
    }

    /// Returns the absolute path of the lock.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.request.file.path()
    }

    /// Returns the processes that hold the lock at this moment, as far as they are known.
    ///
    /// There is more than one only if the path is also used as an [`RwLock`](crate::RwLock), whose
    /// readers share it. The call acquires nothing and delays no process. The result is a snapshot
    /// and may be out of date when the call returns.
    ///
    /// A holder that was opened with [`Options::label`] or [`Options::record_holder`] is known by
    /// the record it leaves. Linux also shows the process of a holder without a record (in
    /// `/proc/locks`). Elsewhere the result is empty although the lock is held;
    /// [`inspect`](crate::inspect()) shows that it is.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Options::new().label("backup").open_lock(&path)?;
    /// assert!(lock.holders()?.is_empty());
    /// let guard = lock.lock()?;
    /// assert_eq!(lock.holders()?[0].label(), Some("backup"));
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if a record cannot be read or the system refuses to list
    /// holders.
    ///
    /// # Platform-specific behavior
    ///
    /// Linux does not show the process of a holder without a record
    ///
    /// * if the caller runs in a container and the holder runs outside it, since `/proc/locks`
    ///   leaves out other pid namespaces;
    /// * on file systems whose device number in `/proc/locks` differs from the one in `stat` (btrfs
    ///   subvolumes, some overlays);
    /// * if the process that acquired the lock has died and a process of another user has inherited
    ///   it, unless the caller is the superuser.
    ///
    /// A holder in another pid namespace that left a record is shown with its process number in
    /// that namespace: see [`Holder::same_pid_namespace`].
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::asking(self.inner.server.as_ref(), self.inner.request.file.path())
    }

    pub(crate) fn wait(&self, limit: Limit) -> Result<LockGuard> {
        let (server, hooks) = (self.inner.server.as_ref(), self.inner.hooks.as_ref());
        Server::wait_about(server, self, limit, hooks, Self::wait_here)
    }

    fn wait_here(&self, limit: Limit, hooks: Option<&WaitHooks>) -> Result<LockGuard> {
        let inner = &self.inner;
        let waited = match inner.host_line.of(&inner.request) {
            Some(line) => {
                let wait = HostWait::new(line, inner.try_now(), inner.waiter());
                wait_on_host(wait, || inner.request.attempt(), limit, hooks)
            }
            None => acquire(&QUEUES, &inner.request, limit, hooks),
        };
        match waited? {
            Outcome::Held(locked) => self.guard(locked),
            Outcome::TimedOut(waited) => Err(Error::timed_out(inner.request.file.path(), waited)),
        }
    }

    fn guard(&self, locked: FileLock) -> Result<LockGuard> {
        let Inner { request, guard_options, server, .. } = &*self.inner;
        let raw = RawGuard::new(&request.file, request.mode, locked, guard_options)?;
        Ok(LockGuard { raw: Kept::new(raw, server.as_ref()) })
    }
}

impl Inner {
    fn waiter(&self) -> QueuedWaiter<LockRequest> {
        QueuedWaiter::new(&QUEUES, Arc::clone(&self.request))
    }

    fn try_now(&self) -> TryNow<FileLock> {
        let request = Arc::clone(&self.request);
        Box::new(move || request.attempt())
    }
}

impl AsRef<Path> for Lock {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// All shared state is in files and in the kernel, so a panic in a callback leaves it consistent.
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
    /// See [the errors of `Lock`](Lock#errors).
    pub fn open_lock(&self, path: impl AsRef<Path>) -> Result<Lock> {
        open(self, path.as_ref(), Self::open_lock_here)
    }

    fn open_lock_here(&self, path: &Path) -> Result<Lock> {
        let path = resolved(path, self.follows_links)?;
        let file = LockFile::open(&path, self.creation())?;
        let server = Server::of(self, file.path(), file.is_network());
        let hooks = lock_request::hooks(self, file.path(), server.as_ref());
        let (mode, poll_every) = (Mode::Exclusive, self.poll_every);
        let request = LockRequest { file, mode, poll_every, coordinator: None };
        Ok(Lock {
            inner: Arc::new(Inner {
                request: Arc::new(request),
                guard_options: GuardOptions::of(self),
                hooks,
                host_line: HostLine::new(self.label.clone()),
                server,
                refusals: CheckSampler::new(),
            }),
        })
    }
}

/// A guard that holds a [`Lock`] and releases it when dropped.
///
/// A guard owns its lock: it can be sent to another thread, kept in a struct, and outlive the
/// [`Lock`]. A copy of a guard in a child created by `fork` releases nothing.
///
/// [`Lock::lock`] and its other forms return it.
///
/// # Caveats
///
/// * `let _ = lock.lock()?;` drops the guard immediately. Bind it to a name, such as `_guard`.
/// * A panic that unwinds drops the guard and releases the lock. Nothing is poisoned.
#[must_use = "if unused, the lock is released immediately"]
#[clippy::has_significant_drop]
pub struct LockGuard {
    raw: Kept<RawGuard>,
}

impl LockGuard {
    /// Releases the lock and reports errors, which dropping the guard cannot do.
    ///
    /// # Errors
    ///
    /// * [`Lost`](crate::ErrorKind::Lost) if the server of a network file system had dropped the
    ///   lock before, so that another host may have held it at the same time: see
    ///   [`still_held`](Self::still_held). On such a file system the call therefore asks the server
    ///   first. Dropping the guard does not.
    /// * [`TimedOut`](crate::ErrorKind::TimedOut) if the server of a network file system did not
    ///   respond in time ([`Options::server_timeout`]). The release is completed later.
    /// * [`Io`](crate::ErrorKind::Io) if the system fails to unlock the file. The descriptor is
    ///   closed then, which also releases the lock unless a forked child has it open.
    ///
    /// A forked copy of the guard releases nothing and also returns [`Io`](crate::ErrorKind::Io).
    pub fn unlock(self) -> Result<()> {
        self.raw.finish(RawGuard::unlock)
    }

    /// Returns whether this process acquired the lock. It did not if `fork` created this copy of
    /// the guard.
    pub(crate) fn is_here(&self) -> bool {
        self.raw.get().is_here()
    }

    /// Returns the absolute path of the lock.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.raw.get().path()
    }

    /// Returns whether an earlier holder died without releasing the lock.
    ///
    /// The data that the lock protects may then be half-changed. A robust mutex reports the same as
    /// `EOWNERDEAD`. On a network file system the earlier holder may also have been cut off from
    /// the server, and may still run.
    ///
    /// Only the death of a holder that left a record ([`Options::label`],
    /// [`Options::record_holder`]) is known, so `false` means "no evidence". It is reported once,
    /// to the first guard that checks. A guard that writes a record checks when it is acquired, any
    /// other guard when this method is called. (If the record cannot be removed, each guard reports
    /// it.)
    ///
    /// A process that ends while the guard is alive counts as one that died: `std::process::exit`
    /// and an abort run no destructors. A panic that unwinds does not count, since it drops the
    /// guard.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Options::new().label("importer").open_lock(&path)?;
    /// let guard = lock.lock()?;
    /// if guard.was_abandoned() {
    ///     println!("an importer died halfway: cleaning up first");
    /// }
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.raw.ask(|raw| Ok(raw.abandoned())).unwrap_or(false)
    }

    /// Returns `true` while this guard excludes other callers that open the path now.
    ///
    /// Returns `false` if the path no longer names the locked file, since a program has removed or
    /// replaced it, and in a copy of the guard that `fork` created: the lock belongs to the process
    /// that acquired it. Check it before a step that cannot be undone. The file may be removed
    /// right after the check, so this is no substitute for leaving lock files where they are.
    ///
    /// Returns `false` also if the lock was lost: the server of a network file system has dropped
    /// it, since this host was cut off or suspended for too long. This host learns that only from
    /// the server, so the call asks it. Another host may acquire the lock between this answer and
    /// the next step; only a [fencing token](Self::fencing_token) excludes that.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("deploy.lock");
    /// let guard = flockwork::Lock::open(&path)?.lock()?;
    /// assert!(guard.still_held()?);
    /// # #[cfg(unix)] {
    /// std::fs::remove_file(&path)?; // a mistake of another program
    /// assert!(!guard.still_held()?);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the path cannot be looked up, or the server cannot be asked.
    /// It may have dropped the lock then.
    ///
    /// # Platform-specific behavior
    ///
    /// * Windows: a lock file that is open cannot be removed or replaced, so the answer is `true`.
    /// * Network file systems: a lost lock is detected on Linux with `NFSv4`, `GlusterFS`,
    ///   `MooseFS` and `CephFS`; not with SMB and others. If the server does not respond, the call
    ///   returns an error of kind [`TimedOut`](crate::ErrorKind::TimedOut) after
    ///   [`Options::server_timeout`]. See [`distributed`](crate::_documentation::distributed).
    pub fn still_held(&self) -> Result<bool> {
        self.raw.ask(RawGuard::still_held)
    }

    /// Returns the fencing token of this acquisition.
    ///
    /// The token is a number that grows with each acquisition that asks for one.
    /// A holder on a network file system can lose the lock without noticing, for example while its
    /// host is suspended or cut off, and act on what the lock protects after the next holder has
    /// begun. A service that receives the token with each request, and rejects a request whose
    /// token is lower than the highest it has seen, is safe from that.
    ///
    /// The first call takes the token; later calls return the same. Ask before the first request.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Lock::open(&path)?;
    /// let first = lock.lock()?.fencing_token()?;
    /// let guard = lock.lock()?;
    /// assert!(guard.fencing_token()? > first);
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Caveats
    ///
    /// * The latest token is the name of a file in the directory `P.fence` beside the lock. Do not
    ///   remove it: the tokens would start again at 1.
    /// * The call reads the directory, renames the file and syncs the names, which takes about as
    ///   long as syncing a small file. No other call has this cost.
    ///
    /// # Errors
    ///
    /// * [`Lost`](crate::ErrorKind::Lost) if this guard does not hold the lock any more: see
    ///   [`still_held`](Self::still_held).
    /// * [`NotFound`](crate::ErrorKind::NotFound) with [`Options::create(false)`](Options::create)
    ///   if no token was taken before.
    /// * [`Io`](crate::ErrorKind::Io) if the directory cannot be created, read or changed, or in a
    ///   forked copy of the guard.
    pub fn fencing_token(&self) -> Result<u64> {
        self.raw.ask(RawGuard::fencing_token)
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}
