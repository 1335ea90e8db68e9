//! `Once`: something that is to be done once, over all processes. Built on `lock` (who does it) and
//! `event` (whether it is done).

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
use crate::paths::{absolute_file, sidecar_lock};
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
    /// * [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if there is something else than a regular file at the path; it is left as it was.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io) if the path cannot be looked up, or something else is in the place of a parent directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_once(path)
    }

    /// Runs `f` if it is not done yet, and returns whether it did. If another process or thread is
    /// doing it, waits without limit until that one has done it or has failed; in the second case
    /// `f` runs.
    ///
    /// When it returns `Ok`, it is done, by this call or by another.
    ///
    /// If `f` fails or panics, it is not done, and the error or the panic goes on to the caller.
    /// The error type is the closure's own, and [`Error`] must convert into it, as into
    /// [`std::io::Error`] and `Box<dyn std::error::Error>`. Where the compiler cannot tell which
    /// type that is, the closure says it (`|| -> std::io::Result<()> { ... }`).
    ///
    /// # Errors
    ///
    /// * The error that `f` returned. It is not done then.
    /// * An [`Error`] of kind [`Unsupported`](crate::ErrorKind::Unsupported) if the file system has
    ///   no locks, [`Io`](crate::ErrorKind::Io) if the lock file or the file that records "done"
    ///   cannot be created, [`NotRegularFile`](crate::ErrorKind::NotRegularFile) if something else
    ///   lies at the path. It is not done then, but `f` may have run. (With [`Options::fsync`], if
    ///   only the directory could not be synced, it may be done and not survive a loss of power.)
    pub fn call_once<E: From<Error>>(&self, f: impl FnOnce() -> Result<(), E>) -> Result<bool, E> {
        self.call(f, Lock::lock)
    }

    /// Runs `f` if it is not done yet and no other process or thread is doing it, and returns
    /// whether it did. Never waits.
    ///
    /// # Errors
    ///
    /// An [`Error`] of kind [`WouldBlock`](crate::ErrorKind::WouldBlock) if another process or
    /// thread is doing it; otherwise as [`call_once`](Self::call_once).
    pub fn try_call_once<E: From<Error>>(
        &self,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        self.call(f, Lock::try_lock)
    }

    /// Like [`call_once`](Self::call_once), but waits for others for at most `timeout`. (`f` itself
    /// may take longer.)
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let migrated = flockwork::Once::open(dir.path().join("migrated"))?;
    /// use std::time::Duration;
    ///
    /// let migrate = || -> Result<(), flockwork::Error> { Ok(()) };
    /// match migrated.call_once_timeout(Duration::from_secs(60), migrate) {
    ///     Ok(_) => println!("migrated"),
    ///     Err(late) if late.is_timed_out() => println!("another process is still at it: {late}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// An [`Error`] of kind [`TimedOut`](crate::ErrorKind::TimedOut) if another process or thread
    /// did not finish in time; otherwise as [`call_once`](Self::call_once).
    pub fn call_once_timeout<E: From<Error>>(
        &self,
        timeout: Duration,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        self.call(f, |lock| lock.lock_timeout(timeout))
    }

    /// Like [`call_once`](Self::call_once), but waits for others until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`call_once_timeout`](Self::call_once_timeout).
    pub fn call_once_deadline<E: From<Error>>(
        &self,
        deadline: Instant,
        f: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        self.call(f, |lock| lock.lock_deadline(deadline))
    }

    /// Like [`call_once`](Self::call_once), as a future that follows the [rule of all
    /// futures](crate#futures); `f` returns the future that does the work. Dropping it gives up; if
    /// that happens while the future of `f` runs, it is not done.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let fetched = flockwork::Once::open(dir.path().join("fetched"))?;
    /// # futures_lite::future::block_on(async {
    /// let was_me = fetched.call_once_async(|| async { Ok::<(), std::io::Error>(()) }).await?;
    /// assert!(was_me);
    /// # Ok::<(), std::io::Error>(())
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
            let locking = once.lock()?.lock_async();
            let Some(locked) = once.unless_done(locking.await)? else { return Ok(false) };
            f().await?;
            once.finish(locked)?;
            Ok(true)
        }
    }

    // ----------------------------------------------------------------------------------- state

    /// Whether it is done at this moment: one look at the path.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if something else has taken the path; [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be looked up.
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
    /// [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if something else has taken the path (it is left as it was); [`ErrorKind::Io`](crate::ErrorKind::Io) if the file
    /// cannot be removed, or the lock file not made; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the file system has no locks.
    pub fn reset(&self) -> Result<bool> {
        self.undo(self.lock()?.lock())
    }

    /// As [`reset`](Self::reset), but waits for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if somebody was at it all the time; otherwise as [`reset`](Self::reset).
    pub fn reset_timeout(&self, timeout: Duration) -> Result<bool> {
        self.undo(self.lock()?.lock_timeout(timeout))
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
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if it was not done in time; otherwise as [`is_done`](Self::is_done).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.until_done(|| Deadline::after(timeout))
    }

    /// Like [`wait`](Self::wait), as a future that follows the [rule of all
    /// futures](crate#futures).
    ///
    /// # Errors
    ///
    /// As [`is_done`](Self::is_done).
    pub fn wait_async(&self) -> impl Future<Output = Result<()>> + Send + use<> {
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

    /// The process that is doing it, as far as it is known: see [`Lock::holders`].
    ///
    /// # Errors
    ///
    /// An error of kind [`Io`](crate::ErrorKind::Io) if a record cannot be read, or the system
    /// refuses to tell.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::of(&self.inner.lock_path)
    }

    fn until_done(&self, deadline: impl FnOnce() -> Deadline) -> Result<()> {
        self.inner
            .done
            .until_done(deadline)
            .map_err(|error| error.depending_on(&self.inner.lock_path))
    }

    fn lock(&self) -> Result<&Lock> {
        let Inner { lock, options, lock_path, .. } = &*self.inner;
        lock.get_or_try_init(|| options.open_lock(lock_path).map(Box::new))
    }

    fn call<E: From<Error>>(
        &self,
        f: impl FnOnce() -> Result<(), E>,
        lock: impl FnOnce(&Lock) -> Result<LockGuard>,
    ) -> Result<bool, E> {
        if self.is_done()? {
            return Ok(false);
        }
        let Some(locked) = self.unless_done(lock(self.lock()?))? else { return Ok(false) };
        f()?;
        self.finish(locked)?;
        Ok(true)
    }

    /// Rule O1. Whoever had the lock before may have done it, also if the lock was not acquired.
    /// Returns `None` if it is done.
    fn unless_done(&self, locked: Result<LockGuard>) -> Result<Option<LockGuard>> {
        if self.is_done()? {
            return Ok(None);
        }
        self.about_path(locked).map(Some)
    }

    /// Errors are about the path, and not about the lock beside it.
    fn about_path(&self, locked: Result<LockGuard>) -> Result<LockGuard> {
        locked.map_err(|error| error.about(&self.inner.path))
    }

    /// Rule O2. What was done is synced before any process sees that it is done, and that is before
    /// another may do it.
    fn finish(&self, locked: LockGuard) -> Result<()> {
        if !locked.is_here() {
            // A forked copy that comes back from the closure: the other process is still at it (rule 4).
            return Err(Error::forked_copy(Operation::MarkDone, &self.inner.path));
        }
        self.sync(sys::sync_everything)?;
        self.inner.done.set()?;
        self.sync(sys::sync_directory)?;
        drop(locked); // an error would mean that it is not done
        Ok(())
    }

    fn undo(&self, locked: Result<LockGuard>) -> Result<bool> {
        let locked = self.about_path(locked)?;
        let was_done = self.inner.done.clear()?;
        self.sync(sys::sync_directory)?;
        drop(locked);
        Ok(was_done)
    }

    /// If that is wanted.
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

// A panic in a callback leaves nothing half-changed: what is shared lies in files and in the kernel.
impl UnwindSafe for Once {}
impl RefUnwindSafe for Once {}

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
