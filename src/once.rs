//! `Once`: something that is to be done once, over all processes. Built on `lock` (who does it) and
//! `event` (whether it is done).

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

use crate::call_error::OnceError;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::file::durability::Durability;
use crate::holder::Holder;
use crate::lock::{Lock, LockGuard};
use crate::options::Options;
use crate::paths::{absolute_file, sidecar_lock};
use crate::record;
use crate::sys;
use crate::wait::Deadline;

/// Something that is done once, by one of all the processes and threads that need it.
///
/// Unpacking a toolchain, migrating a database, building a cache: of any number who come together, one does it, and the
/// others wait until it is done. What fails, panics or is killed half-way is not done: the next one who comes,
/// or who waits already, does it. It stays done until somebody [resets](Self::reset) it.
///
/// It is done when there is a file at the path. So a script looks with `test -e`, and `rm` makes it
/// undone. While a process runs the closure it holds a [`Lock`] on the path with `.flock` added.
/// (That file stays. With a label there is also one with `.flock.holder` added meanwhile.)
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
/// let was_me = unpacked.call_once(|| {
///     // What somebody left who was killed half-way.
///     if toolchain.exists() {
///         std::fs::remove_dir_all(&toolchain)?;
///     }
///     std::fs::create_dir(&toolchain)?;
///     std::fs::write(toolchain.join("rustc"), "...")
/// })?;
/// assert!(was_me);
/// assert!(!unpacked.call_once(|| -> std::io::Result<()> { unreachable!("it is done") })?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Recipe: once in each run
///
/// For work that is done once in each run of a pipeline, put the run's id in the path: then nothing
/// has to be [reset](Self::reset) in time, and a late job of the previous run does not count for
/// this one:
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
/// # What is not promised
///
/// * That what a failed attempt left is gone: the closure has to begin with a state that another one may have left, and
///   is not told whether there was one. (Who looks at the result without asking whether it is done sees it half-done; for
///   them, do it under another name and rename it at the end.)
/// * That one that was killed has stopped working: programs that its closure started (`tar`, `git`) outlive it, and may still
///   write while the next attempt runs. Do it under a name of its own (a temporary directory), and rename at the end.
/// * That "done" survives a loss of power, or does not survive it alone: see [`Options::fsync`].
/// * That a thread can call it from within its own closure: it waits for itself.
/// * What [`Lock`] does not promise: the lock file must not be removed while somebody does it.
///
/// # Platform-specific behaviour
///
/// As for [`Lock`] and [`Event`].
#[derive(Clone)]
pub struct Once {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    done: Event,
    path: Arc<Path>,
    lock_path: Arc<Path>,
    /// Opened by the first who wants to do it.
    lock: OnceBox<Lock>,
    durability: Durability,
}

impl Once {
    /// Opens it at `path`, and creates nothing. [`call_once`](Self::call_once) and [`reset`](Self::reset) create the lock file and
    /// missing parent directories.
    ///
    /// The path is made absolute, so that a later change of the current directory changes nothing.
    /// Symbolic links in parent directories are followed, at the last component refused.
    ///
    /// # Errors
    ///
    /// * [`Error::NotRegularFile`] if there is something else than a regular file at the path; it is left as it was.
    /// * [`Error::Io`] if the path cannot be looked up, or something else is in the place of a parent directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_once(path)
    }

    /// Runs `f` if it is not done yet, and returns whether it did. If somebody else does it at this moment, waits until
    /// they have done it, without limit, or until they fail; then `f` runs.
    ///
    /// When it returns, it is done, by this call or another.
    ///
    /// If `f` panics it is not done either, and the panic goes on to the caller. A closure needs its error type said
    /// (`|| -> std::io::Result<()> { ... }`); a named function does not. For one error type in the end see
    /// [`CallError::flatten`](crate::CallError::flatten).
    ///
    /// # Errors
    ///
    /// * [`OnceError::Closure`] with what `f` returned. It is not done then.
    /// * [`OnceError::Flockwork`]: [`Error::Unsupported`] if the file system has no locks;
    ///   [`Error::Io`] if the lock file or the file that says "done" cannot be made;
    ///   [`Error::NotRegularFile`] if something else has taken the path. It is not done then, but
    ///   `f` may have run. (With [`Options::fsync`] it may be done, and not survive a loss of
    ///   power, if only the directory could not be synced.)
    pub fn call_once<E>(&self, f: impl FnOnce() -> Result<(), E>) -> Result<bool, OnceError<E>> {
        self.call(f, Lock::lock)
    }

    /// Runs `f` if it is not done yet and nobody does it at this moment, and returns whether it did. Never waits.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] if somebody else does it at this moment; otherwise as [`call_once`](Self::call_once).
    pub fn try_call_once<E>(
        &self,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, OnceError<E>> {
        self.call(f, Lock::try_lock)
    }

    /// As [`call_once`](Self::call_once), but waits for others for at most `timeout`. (`f` itself may take longer.)
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let migrated = flockwork::Once::open(dir.path().join("migrated"))?;
    /// use std::time::Duration;
    ///
    /// let migrate = || -> Result<(), std::io::Error> { Ok(()) };
    /// match migrated.call_once_timeout(Duration::from_secs(60), migrate) {
    ///     Ok(_) => println!("migrated"),
    ///     Err(late) if late.is_timed_out() => println!("somebody is still at it: {late}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if somebody else had not done it in time; otherwise as [`call_once`](Self::call_once).
    pub fn call_once_timeout<E>(
        &self,
        timeout: Duration,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, OnceError<E>> {
        self.call(f, |lock| lock.lock_timeout(timeout))
    }

    /// As [`call_once`](Self::call_once), but waits for others until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`call_once_timeout`](Self::call_once_timeout).
    pub fn call_once_deadline<E>(
        &self,
        deadline: Instant,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, OnceError<E>> {
        self.call(f, |lock| lock.lock_deadline(deadline))
    }

    /// As [`call_once`](Self::call_once), as a future, with what is to be done as another. It is `Send` if `f` and its
    /// future are. Dropping it gives up; if that happens while `f`'s future runs, it is not done.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let fetched = flockwork::Once::open(dir.path().join("fetched"))?;
    /// # futures_lite::future::block_on(async {
    /// let was_me = fetched.call_once_async(|| async { Ok::<(), std::io::Error>(()) }).await?;
    /// assert!(was_me);
    /// # Ok::<(), flockwork::OnceError<std::io::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`call_once`](Self::call_once).
    pub fn call_once_async<F, Fut, E>(
        &self,
        f: F,
    ) -> impl Future<Output = Result<bool, OnceError<E>>> + use<F, Fut, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        let once = self.clone();
        async move {
            if once.is_done().map_err(OnceError::Flockwork)? {
                return Ok(false);
            }
            let locking = once.lock().map_err(OnceError::Flockwork)?.lock_async();
            let Some(turn) = once.turn(locking.await).map_err(OnceError::Flockwork)? else {
                return Ok(false);
            };
            f().await.map_err(OnceError::Closure)?;
            once.finish(turn).map_err(OnceError::Flockwork)?;
            Ok(true)
        }
    }

    // ----------------------------------------------------------------------------------- state

    /// Whether it is done at this moment: one look at the path.
    ///
    /// # Errors
    ///
    /// [`Error::NotRegularFile`] if something else has taken the path; [`Error::Io`] if it cannot be looked up.
    pub fn is_done(&self) -> Result<bool> {
        self.inner.done.is_set()
    }

    /// Makes it undone, so that the next call does it again; returns whether it was done. If somebody does it at this
    /// moment, waits until they have done or failed, without limit, and undoes that: who is called after this does
    /// it with what there is now.
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
    /// [`Error::NotRegularFile`] if something else has taken the path (it is left as it was); [`Error::Io`] if the file
    /// cannot be removed, or the lock file not made; [`Error::Unsupported`] if the file system has no locks.
    pub fn reset(&self) -> Result<bool> {
        self.undo(self.lock()?.lock())
    }

    /// Makes it undone, if nobody does it at this moment. Never waits.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] if somebody does it at this moment; otherwise as [`reset`](Self::reset).
    pub fn try_reset(&self) -> Result<bool> {
        self.undo(self.lock()?.try_lock())
    }

    /// As [`reset`](Self::reset), but waits for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if somebody was at it all the time; otherwise as [`reset`](Self::reset).
    pub fn reset_timeout(&self, timeout: Duration) -> Result<bool> {
        self.undo(self.lock()?.lock_timeout(timeout))
    }

    /// As [`reset`](Self::reset), but waits until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`reset_timeout`](Self::reset_timeout).
    pub fn reset_deadline(&self, deadline: Instant) -> Result<bool> {
        self.undo(self.lock()?.lock_deadline(deadline))
    }

    /// As [`reset`](Self::reset), as a future. Dropping it gives up.
    ///
    /// # Errors
    ///
    /// As [`reset`](Self::reset).
    pub fn reset_async(&self) -> impl Future<Output = Result<bool>> + Send + use<> {
        let once = self.clone();
        async move {
            let locking = once.lock()?.lock_async();
            once.undo(locking.await)
        }
    }

    // ------------------------------------------------------------------------------------ wait

    /// Waits until somebody has done it, without limit, and does not do it. Returns at once if it is done.
    ///
    /// It is woken by the file system's events, as [`Event::wait`] is. If nobody does it, it waits on.
    ///
    /// # Errors
    ///
    /// As [`is_done`](Self::is_done).
    pub fn wait(&self) -> Result<()> {
        self.until_done(|| Deadline::NEVER)
    }

    /// Waits until somebody has done it, for at most `timeout`. Zero looks once; what no clock can show waits forever.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if it was not done in time; otherwise as [`is_done`](Self::is_done).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.until_done(|| Deadline::after(timeout))
    }

    /// Waits until somebody has done it, until `deadline`. One that has passed looks once.
    ///
    /// # Errors
    ///
    /// As [`wait_timeout`](Self::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<()> {
        self.until_done(|| Deadline::at(deadline))
    }

    /// Waits until somebody has done it, as a future, under any runtime. Dropping the future gives up.
    ///
    /// # Errors
    ///
    /// As [`is_done`](Self::is_done).
    pub fn wait_async(&self) -> impl Future<Output = Result<()>> + Send + Sync + Unpin + use<> {
        self.inner.done.wait_async()
    }

    // ----------------------------------------------------------------------------------- about

    /// The path whose file says that it is done, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.done.path()
    }

    /// Whether all that was done by this handle and its clones has reached the disk, as [`Options::fsync`] asks. `false` without
    /// that option, where files cannot be synced, and on other systems than Linux, which do not promise to wait for it.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.inner.durability.is_durable()
    }

    /// Who does it at this moment, as far as that is known: see [`Lock::holder`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if there is a record that cannot be read, or the system refuses to tell.
    pub fn holder(&self) -> Result<Option<Holder>> {
        let path = &self.inner.lock_path;
        let found = record::find(path, true);
        let found = found.map_err(|source| Error::io("find the holder of", path, source))?;
        Ok(found.into_iter().next())
    }

    fn until_done(&self, deadline: impl FnOnce() -> Deadline) -> Result<()> {
        self.inner.done.until_done(deadline).map_err(|error| error.up_to(&self.inner.lock_path))
    }

    fn lock(&self) -> Result<&Lock> {
        let Inner { lock, options, lock_path, .. } = &*self.inner;
        lock.get_or_try_init(|| options.open_lock(lock_path).map(Box::new))
    }

    fn call<E>(
        &self,
        f: impl FnOnce() -> Result<(), E>,
        take: impl FnOnce(&Lock) -> Result<LockGuard>,
    ) -> Result<bool, OnceError<E>> {
        let turn = || {
            if self.is_done()? {
                return Ok(None);
            }
            self.turn(take(self.lock()?))
        };
        let Some(turn) = turn().map_err(OnceError::Flockwork)? else { return Ok(false) };
        f().map_err(OnceError::Closure)?;
        self.finish(turn).map_err(OnceError::Flockwork)?;
        Ok(true)
    }

    /// Rule O1. Whoever had the lock before may have done it, also if it could not be had. `None`: it is done.
    fn turn(&self, locked: Result<LockGuard>) -> Result<Option<LockGuard>> {
        if self.is_done()? {
            return Ok(None);
        }
        self.had(locked).map(Some)
    }

    /// Errors are about the path, and not about the lock beside it.
    fn had(&self, locked: Result<LockGuard>) -> Result<LockGuard> {
        locked.map_err(|error| error.about(&self.inner.path))
    }

    /// Rule O2. What was done is synced before any process sees that it is done, and that is before
    /// another may do it.
    fn finish(&self, turn: LockGuard) -> Result<()> {
        const OPERATION: &str = "sync what was done for";
        if !turn.is_here() {
            // A forked copy that comes back from the closure: the other process is still at it (rule 4).
            return Err(Error::forked_copy("say that it is done for", &self.inner.path));
        }
        self.bring_to_disk(OPERATION, sys::sync_everything)?;
        self.inner.done.set()?;
        self.bring_to_disk(OPERATION, sys::sync_directory)?;
        drop(turn); // to say that this failed would say that it is not done
        Ok(())
    }

    fn undo(&self, locked: Result<LockGuard>) -> Result<bool> {
        let turn = self.had(locked)?;
        let was_done = self.inner.done.clear()?;
        self.bring_to_disk("reset", sys::sync_directory)?;
        drop(turn);
        Ok(was_done)
    }

    /// If that is wanted.
    fn bring_to_disk(
        &self,
        operation: &'static str,
        sync: fn(&Path) -> std::io::Result<bool>,
    ) -> Result<()> {
        let Inner { durability, path, .. } = &*self.inner;
        let directory = path.parent().filter(|_| durability.is_wanted);
        let is_synced = directory.map_or(Ok(true), sync);
        durability.note(is_synced.map_err(|source| Error::io(operation, path, source))?);
        Ok(())
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens a [`Once`] at `path` with these settings: see [`Once::open`]. The [`label`](Self::label) is of the one who
    /// does it.
    ///
    /// # Errors
    ///
    /// As [`Once::open`].
    pub fn open_once(&self, path: impl AsRef<Path>) -> Result<Once> {
        let path = absolute_file(path.as_ref())?;
        let lock_path = sidecar_lock(&path);
        let options = self.for_parts_of(&path, &lock_path).any_file_type(false);
        let done = options.open_event(&path)?;
        let (lock, durability) = (OnceBox::new(), Durability::new(options.fsync));
        let inner = Inner { options, done, path, lock_path, lock, durability };
        Ok(Once { inner: Arc::new(inner) })
    }
}
