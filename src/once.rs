//! [`Once`]: work that is done once, over all processes.
//!
//! A [`Lock`] decides which process does it, and an [`Event`] records that it is done.

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

use crate::error::{Error, Operation, Result};
use crate::event::Event;
use crate::file::durability::Durability;
use crate::holder::Holder;
use crate::holders;
use crate::lock::{Lock, LockGuard};
use crate::options::Options;
use crate::paths::{absolute_file, resolved, sidecar_lock};
use crate::sys;
use crate::wait::{Limit, open};

/// A one-time action for all processes and threads that need it, such as unpacking a toolchain.
///
/// Of any number of callers, one runs the closure and the others wait until it has finished. If the
/// closure fails or panics, or its process is killed, the action is not done, and the next caller
/// or waiter runs its own closure. The action stays done until a process [resets](Self::reset) it.
///
/// The action is done when a file exists at the path. A script can check it with `test -e`, and
/// removing the file makes it undone. While a process runs the closure it holds a [`Lock`] on the
/// path with `.flock` appended. That lock file stays.
///
/// The closure may create the file itself, as its last step. So the file can be the result of the
/// work, such as a download that is renamed to the path when it is complete: see
/// [`recipes`](crate::_documentation::recipes).
///
/// A `Once` is a cheap handle: clone it, share it between threads, and keep it for later use. A
/// call from within its own closure deadlocks.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let cache = dir.path().to_path_buf();
/// use flockwork::Once;
///
/// let toolchain = cache.join("toolchain-1.85");
/// let unpacked = Once::open(cache.join("toolchain-1.85.unpacked"))?;
/// let unpack = || {
///     // Remove what a failed attempt may have left.
///     if toolchain.exists() {
///         std::fs::remove_dir_all(&toolchain)?;
///     }
///     std::fs::create_dir(&toolchain)?;
///     std::fs::write(toolchain.join("rustc"), "...")
/// };
/// assert!(unpacked.call_once(unpack)?); // this call ran the closure
/// assert!(!unpacked.call_once(unpack)?); // it is done already
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// For work that is done once in each run of a pipeline, put the run's id into the path. Then no
/// process has to [reset](Self::reset) it in time, and a late job of an earlier run does not count
/// for this one:
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// use flockwork::Once;
///
/// let mut loaded = 0;
/// for run in ["41", "42", "42"] {
///     let fixtures = Once::open(dir.join(format!("fixtures-{run}")))?;
///     fixtures.call_once(|| -> std::io::Result<()> {
///         loaded += 1;
///         Ok(())
///     })?;
/// }
/// assert_eq!(loaded, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Fairness
///
/// Callers queue as for a [`Lock`](Lock#fairness). If a closure succeeds, all waiting callers
/// return without running theirs.
///
/// # Caveats
///
/// * The closure must cope with whatever a failed attempt left, and is not told whether there was
///   one. Readers that do not check whether the action is done see it half-done. For them, do the
///   work under another name and rename the result at the end.
/// * Programs that the closure started (`tar`, `git`) outlive a killed process, and may still write
///   while the next attempt runs. Let each attempt work in a separate temporary
///   directory, and rename the result at the end.
/// * After a loss of power, the action may be recorded as done although its results are lost, or
///   the other way round, unless [`Options::fsync`] is set.
/// * The [caveats of `Lock`](Lock#caveats) apply: do not remove the lock file while the closure
///   runs.
///
/// # Errors
///
/// Methods return an [`Error`] of one of these kinds:
///
/// * [`NotRegularFile`](crate::ErrorKind::NotRegularFile) if the path names something other than a
///   regular file. It is left unchanged.
/// * [`Unsupported`](crate::ErrorKind::Unsupported) if the platform or the file system has no
///   locks.
/// * [`Io`](crate::ErrorKind::Io) if the system refuses the operation, for example because the lock
///   file or the file that records "done" cannot be created or removed, or because a parent
///   directory is not a directory.
///
/// # Platform-specific behavior
///
/// See [`Lock`](Lock#platform-specific-behavior) and [`Event`](Event#platform-specific-behavior).
#[derive(Clone)]
pub struct Once {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    done: Event,
    path: Arc<Path>,
    lock_path: Arc<Path>,
    /// Opened by the first call that needs it.
    lock: OnceBox<Lock>,
    durability: Durability,
}

/// How long a call waits for the lock.
#[derive(Debug, Clone, Copy)]
enum Patience {
    Try,
    Until(Limit),
}

impl Patience {
    fn acquire(self, lock: &Lock) -> Result<LockGuard> {
        match self {
            Self::Try => lock.try_lock(),
            Self::Until(limit) => lock.wait(limit),
        }
    }
}

impl Once {
    /// Opens the action at `path` without creating anything.
    ///
    /// [`call_once`](Self::call_once) and [`reset`](Self::reset) create the lock file and missing
    /// parent directories. How paths are resolved is described in [Paths](crate#paths).
    ///
    /// # Errors
    ///
    /// See [the errors of `Once`](Self#errors).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_once(path)
    }

    /// Runs `f` if the action is not done, blocking while another process or thread runs it.
    ///
    /// Returns whether this call ran `f`. When the call returns `Ok`, the action is done. If the
    /// closure of another caller fails, `f` runs next.
    ///
    /// If `f` fails or panics, the action is not done, and the error or the panic is passed to the
    /// caller. `E` is the error type of the closure, and [`Error`] must convert into it, as it does
    /// into [`std::io::Error`] and `Box<dyn std::error::Error>`. If the compiler cannot infer the
    /// type, annotate the closure: `|| -> std::io::Result<()> { ... }`.
    ///
    /// # Errors
    ///
    /// * The error that `f` returned. The action is not done then.
    /// * An [`Error`] as described for [`Once`](Self#errors). The action is not done then, although
    ///   `f` may have run. With [`Options::fsync`], if only the directory could not be synced, the
    ///   action may be done but not survive a loss of power.
    pub fn call_once<E: From<Error>>(&self, f: impl FnOnce() -> Result<(), E>) -> Result<bool, E> {
        self.call(f, Patience::Until(Limit::Never))
    }

    /// Runs `f` if the action is not done and no other process or thread is running it, without
    /// waiting.
    ///
    /// Returns whether this call ran `f`.
    ///
    /// # Errors
    ///
    /// An [`Error`] of kind [`WouldBlock`](crate::ErrorKind::WouldBlock) if another process or
    /// thread is running it; otherwise as for [`call_once`](Self::call_once).
    pub fn try_call_once<E: From<Error>>(
        &self,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        self.call(f, Patience::Try)
    }

    /// Runs `f` if the action is not done, waiting at most `timeout` for another process or thread.
    ///
    /// The timeout does not limit `f` itself. A zero timeout tries once. A timeout too large for
    /// [`Instant`] waits forever. Otherwise the call works as [`call_once`](Self::call_once) does.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let migrated = flockwork::Once::open(dir.path().join("migrated"))?;
    /// use std::time::Duration;
    ///
    /// let migrate = || -> Result<(), flockwork::Error> { Ok(()) };
    /// match migrated.call_once_timeout(Duration::from_secs(60), migrate) {
    ///     Ok(_) => println!("migrated"),
    ///     Err(error) if error.is_timed_out() => println!("still being migrated: {error}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// An [`Error`] of kind [`TimedOut`](crate::ErrorKind::TimedOut) if another process or thread
    /// did not finish before the timeout; otherwise as for [`call_once`](Self::call_once).
    pub fn call_once_timeout<E: From<Error>>(
        &self,
        timeout: Duration,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        self.call(f, Patience::Until(Limit::After(timeout)))
    }

    /// Runs `f` if the action is not done, waiting until `deadline` for another process or thread.
    ///
    /// The deadline does not limit `f` itself. A deadline that has passed tries once. Otherwise the
    /// call works as [`call_once`](Self::call_once) does.
    ///
    /// # Errors
    ///
    /// An [`Error`] of kind [`TimedOut`](crate::ErrorKind::TimedOut) if another process or thread
    /// did not finish before the deadline; otherwise as for [`call_once`](Self::call_once).
    pub fn call_once_deadline<E: From<Error>>(
        &self,
        deadline: Instant,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        self.call(f, Patience::Until(Limit::At(deadline)))
    }

    /// Runs the future that `f` returns if the action is not done, asynchronously.
    ///
    /// The future follows the [rules of all futures](crate#futures). If it is dropped while the
    /// future of `f` runs, that future is dropped too, and the action is not done. Otherwise it
    /// works as [`call_once`](Self::call_once) does.
    ///
    /// To let the work go on when its caller gives up, spawn the whole call as a task. Do not spawn
    /// the work within `f`: if the call is then dropped, the next caller runs its closure beside
    /// it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let fetched = flockwork::Once::open(dir.path().join("fetched"))?;
    /// # futures_lite::future::block_on(async {
    /// let fetch = || async { Ok::<(), std::io::Error>(()) };
    /// assert!(fetched.call_once_async(fetch).await?);
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`call_once`](Self::call_once).
    pub fn call_once_async<F, Fut, E>(
        &self,
        f: F,
    ) -> impl Future<Output = Result<bool, E>> + Send + use<F, Fut, E>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let once = self.clone();
        async move {
            if once.is_done()? {
                return Ok(false);
            }
            let locking = once.lock(Patience::Try)?.lock_async().await;
            let Some(locked) = once.unless_done(locking, Patience::Try)? else {
                return Ok(false);
            };
            f().await?;
            once.finish(locked)?;
            Ok(true)
        }
    }

    // ----------------------------------------------------------------------------------- state

    /// Returns whether the action is done at this moment.
    ///
    /// # Errors
    ///
    /// See [the errors of `Once`](Self#errors).
    pub fn is_done(&self) -> Result<bool> {
        self.inner.done.is_set()
    }

    /// Makes the action undone, so that the next call runs its closure, and returns whether it was
    /// done.
    ///
    /// If another process or thread is running its closure, the call blocks until the closure has
    /// finished or failed, and then undoes it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let built = flockwork::Once::open(dir.path().join("built"))?;
    /// assert!(!built.reset()?);
    /// let build = || -> std::io::Result<()> { Ok(()) };
    /// assert!(built.call_once(build)?);
    /// assert!(built.reset()?);
    /// assert!(built.call_once(build)?); // again
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Once`](Self#errors).
    pub fn reset(&self) -> Result<bool> {
        self.undo(Patience::Until(Limit::Never))
    }

    /// Makes the action undone, waiting at most `timeout` for a closure that is running.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if another process or thread was running its
    /// closure until the timeout; otherwise see [the errors of `Once`](Self#errors).
    pub fn reset_timeout(&self, timeout: Duration) -> Result<bool> {
        self.undo(Patience::Until(Limit::After(timeout)))
    }

    /// Makes the action undone asynchronously: see [`reset`](Self::reset).
    ///
    /// The future follows the [rules of all futures](crate#futures).
    ///
    /// # Errors
    ///
    /// See [the errors of `Once`](Self#errors).
    pub fn reset_async(&self) -> impl Future<Output = Result<bool>> + Send + use<> {
        let once = self.clone();
        async move {
            let locking = once.lock(Patience::Try)?.lock_async();
            once.undo_with(locking.await)
        }
    }

    // ------------------------------------------------------------------------------------ wait

    /// Blocks the current thread until the action is done, without doing it.
    ///
    /// If no process ever does it, the call never returns. It is notified as
    /// [`Event::wait`](Event::wait) is.
    ///
    /// # Errors
    ///
    /// See [the errors of `Once`](Self#errors).
    pub fn wait(&self) -> Result<()> {
        self.until_done(Limit::Never)
    }

    /// Waits at most `timeout` until the action is done, without doing it.
    ///
    /// A zero timeout checks once. A timeout too large for [`Instant`] waits forever.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if the action was not done before the timeout;
    /// otherwise see [the errors of `Once`](Self#errors).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.until_done(Limit::After(timeout))
    }

    /// Waits asynchronously until the action is done, without doing it.
    ///
    /// The future follows the [rules of all futures](crate#futures).
    ///
    /// # Errors
    ///
    /// See [the errors of `Once`](Self#errors).
    pub fn wait_async(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.inner.done.wait_async()
    }

    // ------------------------------------------------------------------------- path and holders

    /// Returns the absolute path of the file whose existence records that the action is done.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.done.path()
    }

    /// Returns whether everything that this handle and its clones have done was synced to disk.
    ///
    /// It is `false` without [`Options::fsync`], where files cannot be synced, and on systems other
    /// than Linux, which do not promise to wait until everything is written.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.inner.durability.is_durable()
    }

    /// Returns the process that is running its closure, as far as it is known: see
    /// [`Lock::holders`].
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if a record cannot be read or the system refuses to list
    /// holders.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::asking(self.inner.done.server(), &self.inner.lock_path)
    }

    fn until_done(&self, limit: Limit) -> Result<()> {
        self.inner.done.until_done(limit).map_err(|error| error.depending_on(&self.inner.lock_path))
    }

    fn lock(&self, patience: Patience) -> Result<&Lock> {
        let Inner { lock, options, lock_path, .. } = &*self.inner;
        lock.get_or_try_init(|| {
            let options = match patience {
                Patience::Until(limit) => options.clone().server_timeout_at_most(limit.remaining()),
                Patience::Try => options.clone(),
            };
            options.open_lock(lock_path).map(Box::new)
        })
    }

    fn call<E: From<Error>>(
        &self,
        f: impl FnOnce() -> Result<(), E>,
        patience: Patience,
    ) -> Result<bool, E> {
        let patience = self.fixed(patience);
        if self.is_done_within(patience)? {
            return Ok(false);
        }
        let locked = self.lock(patience)?;
        let Some(locked) = self.unless_done(patience.acquire(locked), patience)? else {
            return Ok(false);
        };
        f()?;
        self.finish(locked)?;
        Ok(true)
    }

    /// The same limit for all steps, which need more than one on a network file system.
    fn fixed(&self, patience: Patience) -> Patience {
        match patience {
            Patience::Until(limit) if self.inner.done.is_on_network() => {
                Patience::Until(limit.fixed())
            }
            other => other,
        }
    }

    fn is_done_within(&self, patience: Patience) -> Result<bool> {
        match patience {
            Patience::Try => self.is_done(),
            Patience::Until(limit) => self.inner.done.is_set_within(limit),
        }
    }

    /// Checks again whether the action is done, and returns `None` if it is. The previous holder of
    /// the lock may have done it, even if this call failed to acquire the lock (rule O1).
    fn unless_done(
        &self,
        locked: Result<LockGuard>,
        patience: Patience,
    ) -> Result<Option<LockGuard>> {
        if self.is_done_within(patience)? {
            return Ok(None);
        }
        self.about_path(locked).map(Some)
    }

    /// Makes errors name the path instead of the lock file beside it.
    fn about_path(&self, locked: Result<LockGuard>) -> Result<LockGuard> {
        locked.map_err(|error| error.about(&self.inner.path))
    }

    /// Records that the action is done. The work is synced first, so that no process sees "done"
    /// before the work is on disk, and the lock is released last, so that no other process runs its
    /// closure (rule O2).
    fn finish(&self, locked: LockGuard) -> Result<()> {
        if !locked.is_here() {
            // The closure forked, and this is the copy: the other process still runs it (rule 4).
            return Err(Error::forked_copy(Operation::MarkDone, &self.inner.path));
        }
        self.sync(sys::sync_everything)?;
        self.inner.done.set_here()?;
        self.sync(sys::sync_directory)?;
        drop(locked); // returning an error of unlocking would mean that the action is not done
        Ok(())
    }

    fn undo(&self, patience: Patience) -> Result<bool> {
        let patience = self.fixed(patience);
        self.undo_with(patience.acquire(self.lock(patience)?))
    }

    fn undo_with(&self, locked: Result<LockGuard>) -> Result<bool> {
        let locked = self.about_path(locked)?;
        let was_done = self.inner.done.clear()?;
        self.sync(sys::sync_directory)?;
        drop(locked);
        Ok(was_done)
    }

    /// Calls `sync` for the directory of the path if [`Options::fsync`] is set.
    fn sync(&self, sync: fn(&Path) -> std::io::Result<bool>) -> Result<()> {
        let Inner { durability, path, .. } = &*self.inner;
        let directory = path.parent().filter(|_| durability.is_wanted);
        let is_synced = directory.map_or(Ok(true), sync);
        durability.note(is_synced.map_err(|source| Error::io(Operation::Sync, path, source))?);
        Ok(())
    }
}

impl AsRef<Path> for Once {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// All shared state is in files and in the kernel, so a panic in a callback leaves it consistent.
impl UnwindSafe for Once {}
impl RefUnwindSafe for Once {}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens a [`Once`] at `path` with these settings: see [`Once::open`].
    ///
    /// The [`label`](Self::label) is shown while a closure runs.
    ///
    /// # Errors
    ///
    /// See [the errors of `Once`](Once#errors).
    pub fn open_once(&self, path: impl AsRef<Path>) -> Result<Once> {
        open(self, path.as_ref(), Self::open_once_here)
    }

    fn open_once_here(&self, path: &Path) -> Result<Once> {
        let path = absolute_file(&resolved(path, self.follows_links)?)?;
        let lock_path = sidecar_lock(&path);
        let options = self.for_parts_of(&path, &lock_path).any_file_type(false);
        let done = options.open_event(&path)?;
        let (lock, durability) = (OnceBox::new(), Durability::new(options.fsync));
        let inner = Inner { options, done, path, lock_path, lock, durability };
        Ok(Once { inner: Arc::new(inner) })
    }
}
