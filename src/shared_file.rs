//! `SharedFile`: a data file that many programs read and change. Built on `rwlock` (who may) and
//! `data_file` (the file).

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

use crate::call_error::UpdateError;
use crate::error::Result;
use crate::file::data_file::{DataFile, text};
use crate::options::Options;
use crate::paths::sidecar_lock;
use crate::rwlock::{ReadGuard, RwLock, WriteGuard};
use crate::sys;

/// A file that many programs read and change, as a whole, without ever seeing half of a change or losing one.
///
/// A configuration, an index, a counter, a list of jobs: small files that several programs write "by hand", and by that
/// tear or overwrite each other's work. Here what is written goes to a file beside it, which then takes its
/// place in one step, whatever dies when; and [`update`](Self::update) reads, changes and writes under one lock.
///
/// The lock is an [`RwLock`] on the path with `.flock` added. [`write`](Self::write), [`update`](Self::update) and
/// [`lock_exclusive`](Self::lock_exclusive) take it exclusively, [`lock_shared`](Self::lock_shared) shares it, and neither
/// readers nor writers starve. **[`read`](Self::read) takes no lock**: since a write replaces the file in one step, a reader finds
/// the old contents or the new, at any time, also where it may not create or lock anything. The data file itself is a plain file
/// that any program can read.
///
/// Each verb that writes or locks comes in five ways, as everywhere: `update` waits for its turn without limit, `try_update` never
/// waits, `update_timeout` and `update_deadline` give up, `update_async` is a future.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("builds");
/// use flockwork::SharedFile;
///
/// let builds = SharedFile::open(&path)?;
/// builds.update(|old| -> Result<_, std::num::ParseIntError> {
///     let old = String::from_utf8_lossy(&old);
///     let number = if old.is_empty() { 0 } else { old.parse::<u64>()? };
///     Ok((number + 1).to_string().into_bytes()) // an error changes nothing
/// })?;
/// assert_eq!(builds.read_to_string()?, "1");
///
/// // Longer work: other programs may read meanwhile, and none may write.
/// let reading = builds.lock_shared()?;
/// let (once, again) = (reading.read()?, reading.read()?);
/// assert_eq!(once, again);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Together with others
///
/// A program in another language takes part by locking `builds.flock` with `flock(2)` (exclusively to change `builds`, shared
/// to keep it as it is) and by renaming a file of its own over `builds`, so that no reader ever sees half of it. In Python:
///
/// ```python
/// import fcntl, os, shutil
///
/// with open("builds.flock", "a") as lock:
///     fcntl.flock(lock, fcntl.LOCK_EX)
///     with open("builds") as old:
///         number = int(old.read() or 0)
///     with open("builds.mine", "w") as new:
///         new.write(str(number + 1))
///     shutil.copymode("builds", "builds.mine")
///     os.replace("builds.mine", "builds")
/// ```
///
/// (If `builds` may be missing, that is a `FileNotFoundError`. Such a program does not queue, so it is served when it finds the
/// lock free.)
///
/// Files beside `builds`: `builds.flock` and `builds.flock.gate`, which stay and must not be removed; `builds.flock.new`
/// while it is written, or left by a writer that was killed and removed by the next; and with [`Options::label`]
/// `builds.flock.holder` and the directory `builds.flock.holders`. These names are flockwork's: what you keep at
/// `builds.flock.new` is removed.
///
/// A program that only reads needs no lock: it sees the old contents or the new.
///
/// # Programs that have their own lock convention
///
/// `git` and `kubectl` create `config.lock` exclusively, write to it and rename it over `config`.
/// (The lock of a shared file has another name: a `config.lock` that stays would stop them for
/// good.) They know nothing of kernel locks, so no lock of flockwork excludes them, and a file that
/// they change is not to be shared this way. Follow their convention, and also hold a
/// [`Lock`](crate::Lock) of another name, so that programs of your own queue:
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// use std::fs::{self, File};
/// use std::io::{ErrorKind, Write};
/// use std::time::Duration;
///
/// # fs::write(dir.join("config"), "port 8080")?;
/// let (config, theirs) = (dir.join("config"), dir.join("config.lock"));
/// let held = flockwork::Lock::open(dir.join("config.guard"))?.lock()?;
/// let mut new = loop {
///     match File::create_new(&theirs) {
///         Err(error) if error.kind() == ErrorKind::AlreadyExists => {
///             std::thread::sleep(Duration::from_millis(10)); // git holds it
///         }
///         created => break created?,
///     }
/// };
/// let changed = fs::read_to_string(&config)?.replace("8080", "8081");
/// new.write_all(changed.as_bytes())?;
/// fs::rename(&theirs, &config)?;
/// held.unlock()?;
/// # assert_eq!(fs::read_to_string(&config)?, "port 8081");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is not promised
///
/// * That a program that changes the file in place, without the lock, is kept from it or noticed.
/// * Anything about a loss of power: after one there are the old contents, the new, or on some file systems none. See
///   [`Options::fsync`].
/// * Hard links: after a write the path names a new file, and other names of the old one keep that.
/// * That it is fast for large files: each write writes all of it, also if nothing was changed.
/// * An order: no waiter starves, but a caller that asks at the moment of a release may pass those that wait, as with an
///   [`RwLock`].
///
/// # Platform-specific behaviour
///
/// * Unix: a write keeps the mode, and where that is permitted the owner and the group. Where it is not, the user who writes owns the
///   file from then on, set-ID bits go, and the new group's members may do no more than others. A file that this user may not write
///   to is not replaced, even where the directory would permit it.
/// * Linux: a write also keeps the POSIX access list, and the attributes `user.*` and `security.*` as far as this user may
///   set them; not file capabilities and signatures, which belong to the contents. Where an access list cannot be copied, the group gets
///   the rights that the list gave to it, and not the mask. On other systems access lists and attributes are not kept.
/// * Unix: in a directory with the sticky bit (`/tmp`) only the owner of the file or of the directory can write it; a file that
///   is a mount point (a container's volume for one file) cannot be written, since it cannot be replaced.
/// * Windows: a new file takes its access list from the directory. A program that has the file open without sharing
///   deletion is in the way of a write, which tries for about a second.
/// * Network file systems: as for [`Lock`](crate::Lock). To read, the directory is listed first, so that a write on another host
///   is found.
#[derive(Clone)]
pub struct SharedFile {
    inner: Arc<Inner>,
}

struct Inner {
    contents: Arc<DataFile>,
    /// Of the lock.
    options: Options,
    lock_path: Arc<Path>,
    /// Opened by the first call that needs it; reading takes no lock.
    lock: OnceBox<RwLock>,
}

impl SharedFile {
    /// Opens the file at `path`, and creates nothing. The file may be missing: the first write creates it. Lock files and
    /// missing parent directories are created by the first call that writes or locks.
    ///
    /// The path is made absolute, so that a later change of the current directory changes nothing.
    /// Symbolic links in parent directories are followed, at the last component refused: give the path that it leads to.
    ///
    /// # Errors
    ///
    /// * [`Error::NotRegularFile`](crate::Error::NotRegularFile) if there is something else at the path; it is left as it was.
    /// * [`Error::Unsupported`](crate::Error::Unsupported) if the platform has no locks.
    /// * [`Error::Io`](crate::Error::Io) if the path cannot be looked up.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_shared_file(path)
    }

    // ------------------------------------------------------------------------------------ read

    /// Reads the file: the contents of one write, whole. Takes no lock, creates nothing and never waits.
    ///
    /// To read more than once what no write may change in between, use [`lock_shared`](Self::lock_shared).
    ///
    /// # Errors
    ///
    /// * [`Error::Io`](crate::Error::Io), of the [`kind`](crate::Error::kind) `NotFound` if there is no file; and for what
    ///   else the system refuses.
    /// * [`Error::NotRegularFile`](crate::Error::NotRegularFile) if something else has taken the path.
    pub fn read(&self) -> Result<Vec<u8>> {
        self.inner.contents.read()
    }

    /// The same as [`read`](Self::read), which never waits.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn try_read(&self) -> Result<Vec<u8>> {
        self.read()
    }

    /// The same as [`read`](Self::read), which never waits: the timeout is of no account.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_timeout(&self, _timeout: Duration) -> Result<Vec<u8>> {
        self.read()
    }

    /// The same as [`read`](Self::read), which never waits: the deadline is of no account.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_deadline(&self, _deadline: Instant) -> Result<Vec<u8>> {
        self.read()
    }

    /// Reads the file, as a future: when it is first polled, and at once.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_async(&self) -> impl Future<Output = Result<Vec<u8>>> + Send + Sync + use<> {
        let file = self.clone();
        async move { file.read() }
    }

    /// Reads the file as text: see [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) of the kind `InvalidData` if it is not UTF-8; otherwise as [`read`](Self::read).
    pub fn read_to_string(&self) -> Result<String> {
        text(self.inner.contents.path(), self.read()?)
    }

    /// The same as [`read_to_string`](Self::read_to_string), which never waits.
    ///
    /// # Errors
    ///
    /// As [`read_to_string`](Self::read_to_string).
    pub fn try_read_to_string(&self) -> Result<String> {
        self.read_to_string()
    }

    /// The same as [`read_to_string`](Self::read_to_string), which never waits: the timeout is of no account.
    ///
    /// # Errors
    ///
    /// As [`read_to_string`](Self::read_to_string).
    pub fn read_to_string_timeout(&self, _timeout: Duration) -> Result<String> {
        self.read_to_string()
    }

    /// The same as [`read_to_string`](Self::read_to_string), which never waits: the deadline is of no account.
    ///
    /// # Errors
    ///
    /// As [`read_to_string`](Self::read_to_string).
    pub fn read_to_string_deadline(&self, _deadline: Instant) -> Result<String> {
        self.read_to_string()
    }

    /// Reads the file as text, as a future: see [`read_async`](Self::read_async).
    ///
    /// # Errors
    ///
    /// As [`read_to_string`](Self::read_to_string).
    pub fn read_to_string_async(
        &self,
    ) -> impl Future<Output = Result<String>> + Send + Sync + use<> {
        let file = self.clone();
        async move { file.read_to_string() }
    }

    // ----------------------------------------------------------------------------------- write

    /// Replaces the contents, when no other holder of the lock is left.
    ///
    /// What was there is lost, also what somebody wrote since it was read: to change what is there, use
    /// [`update`](Self::update).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let settings = flockwork::SharedFile::open(dir.path().join("settings"))?;
    /// assert_eq!(settings.read().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    /// settings.write("colour = true")?;
    /// assert_eq!(settings.read()?, b"colour = true");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// * [`Error::Io`](crate::Error::Io) if the system refuses: `PermissionDenied` if this user may not write to the file or
    ///   its directory, `StorageFull` ...
    /// * [`Error::NotRegularFile`](crate::Error::NotRegularFile) if something else has taken the path.
    /// * [`Error::Unsupported`](crate::Error::Unsupported) if the file system has no locks.
    ///
    /// The file is as it was then; only after an error of bringing it to the disk ([`Options::fsync`]) it may be the new
    /// one.
    pub fn write(&self, contents: impl AsRef<[u8]>) -> Result<()> {
        self.lock_exclusive()?.replace(contents)
    }

    /// Replaces the contents if the lock is free, and never waits.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`](crate::Error::WouldBlock) if the lock is held; otherwise as [`write`](Self::write).
    pub fn try_write(&self, contents: impl AsRef<[u8]>) -> Result<()> {
        self.try_lock_exclusive()?.replace(contents)
    }

    /// Writes the file anew; waits for its turn for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`](crate::Error::TimedOut) if its turn did not come in time; otherwise as [`write`](Self::write).
    pub fn write_timeout(&self, contents: impl AsRef<[u8]>, timeout: Duration) -> Result<()> {
        self.lock_exclusive_timeout(timeout)?.replace(contents)
    }

    /// Writes the file anew; waits for its turn until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`write_timeout`](Self::write_timeout).
    pub fn write_deadline(&self, contents: impl AsRef<[u8]>, deadline: Instant) -> Result<()> {
        self.lock_exclusive_deadline(deadline)?.replace(contents)
    }

    /// Writes the file anew, as a future: waits for its turn as [`RwLock::write_async`] does, and writes where it is polled.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_async<C: AsRef<[u8]>>(
        &self,
        contents: C,
    ) -> impl Future<Output = Result<()>> + use<C> {
        let locking = self.lock_exclusive_async();
        async move { locking.await?.replace(contents) }
    }

    // ---------------------------------------------------------------------------------- update

    /// Changes the file: `change` is given what is there (nothing, if there is no file), and what it returns takes its
    /// place. No other process or thread holds the lock from the one to the other, so none changes the file or keeps it as it is by
    /// [`lock_shared`](Self::lock_shared). [`read`](Self::read) finds the old contents until then.
    ///
    /// If `change` fails or panics, nothing is changed. It must not use the same file by another handle: it would wait
    /// for itself. What it returns is written, also if it is what was there. Where closures need their error type said, the
    /// last expression can (`Ok::<_, std::io::Error>(new)`); for one error type in the end see
    /// [`CallError::flatten`](crate::CallError::flatten).
    ///
    /// # Errors
    ///
    /// * [`UpdateError::Closure`] with what `change` returned.
    /// * [`UpdateError::Flockwork`] for all that [`write`](Self::write) and [`read`](Self::read) return, but `NotFound`.
    pub fn update<E>(
        &self,
        change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
    ) -> Result<(), UpdateError<E>> {
        updated(self.lock_exclusive(), change)
    }

    /// Changes the file if the lock is free, and never waits.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`](crate::Error::WouldBlock) if the lock is held, and then `change` was not called;
    /// otherwise as [`update`](Self::update).
    pub fn try_update<E>(
        &self,
        change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
    ) -> Result<(), UpdateError<E>> {
        updated(self.try_lock_exclusive(), change)
    }

    /// Changes the file; waits for its turn for at most `timeout`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let log = flockwork::SharedFile::open(dir.path().join("log"))?;
    /// log.update_timeout(std::time::Duration::from_secs(5), |mut lines| {
    ///     lines.extend(b"one more line\n");
    ///     Ok::<_, std::convert::Infallible>(lines)
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`](crate::Error::TimedOut) if its turn did not come in time, and then `change` was not called;
    /// otherwise as [`update`](Self::update).
    pub fn update_timeout<E>(
        &self,
        timeout: Duration,
        change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
    ) -> Result<(), UpdateError<E>> {
        updated(self.lock_exclusive_timeout(timeout), change)
    }

    /// Changes the file; waits for its turn until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`update_timeout`](Self::update_timeout).
    pub fn update_deadline<E>(
        &self,
        deadline: Instant,
        change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
    ) -> Result<(), UpdateError<E>> {
        updated(self.lock_exclusive_deadline(deadline), change)
    }

    /// Changes the file, as a future: waits for its turn as [`RwLock::write_async`] does, and reads, changes and
    /// writes where it is polled. It is `Send` if `change` is.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub fn update_async<F, E>(
        &self,
        change: F,
    ) -> impl Future<Output = Result<(), UpdateError<E>>> + use<F, E>
    where
        F: FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
    {
        let locking = self.lock_exclusive_async();
        async move { updated(locking.await, change) }
    }

    // ----------------------------------------------------------------------------------- guards

    /// Keeps writers out for longer work: waits for its turn, without limit.
    ///
    /// # Errors
    ///
    /// As [`RwLock::read`].
    pub fn lock_shared(&self) -> Result<FileReadGuard> {
        self.reading(self.lock()?.read())
    }

    /// Keeps writers out for longer work, if there are none now; never waits.
    ///
    /// # Errors
    ///
    /// As [`RwLock::try_read`].
    pub fn try_lock_shared(&self) -> Result<FileReadGuard> {
        self.reading(self.lock()?.try_read())
    }

    /// Keeps writers out for longer work: waits for its turn for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`RwLock::read_timeout`].
    pub fn lock_shared_timeout(&self, timeout: Duration) -> Result<FileReadGuard> {
        self.reading(self.lock()?.read_timeout(timeout))
    }

    /// Keeps writers out for longer work: waits for its turn until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`RwLock::read_deadline`].
    pub fn lock_shared_deadline(&self, deadline: Instant) -> Result<FileReadGuard> {
        self.reading(self.lock()?.read_deadline(deadline))
    }

    /// Keeps writers out for longer work, as a future: see [`RwLock::read_async`].
    ///
    /// # Errors
    ///
    /// As [`RwLock::read_async`].
    pub fn lock_shared_async(
        &self,
    ) -> impl Future<Output = Result<FileReadGuard>> + Send + Sync + use<> {
        let file = self.clone();
        async move {
            let locking = file.lock()?.read_async();
            file.reading(locking.await)
        }
    }

    /// Holds the lock exclusively, for longer work: waits for its turn, without limit. [`read`](Self::read) goes on meanwhile.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let queue = flockwork::SharedFile::open(dir.path().join("queue"))?;
    /// queue.write("one\ntwo\n")?;
    ///
    /// let mut writing = queue.lock_exclusive()?;
    /// let jobs = writing.read_to_string()?;
    /// let (first, rest) = jobs.split_once('\n').expect("a line");
    /// writing.replace(rest)?; // whole; those who lock see it when the guard goes
    /// writing.unlock()?;
    /// # assert_eq!(first, "one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`RwLock::write`].
    pub fn lock_exclusive(&self) -> Result<FileWriteGuard> {
        self.writing(self.lock()?.write())
    }

    /// Holds the lock exclusively, for longer work, if it is free; never waits.
    ///
    /// # Errors
    ///
    /// As [`RwLock::try_write`].
    pub fn try_lock_exclusive(&self) -> Result<FileWriteGuard> {
        self.writing(self.lock()?.try_write())
    }

    /// Holds the lock exclusively, for longer work: waits for its turn for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`RwLock::write_timeout`].
    pub fn lock_exclusive_timeout(&self, timeout: Duration) -> Result<FileWriteGuard> {
        self.writing(self.lock()?.write_timeout(timeout))
    }

    /// Holds the lock exclusively, for longer work: waits for its turn until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`RwLock::write_deadline`].
    pub fn lock_exclusive_deadline(&self, deadline: Instant) -> Result<FileWriteGuard> {
        self.writing(self.lock()?.write_deadline(deadline))
    }

    /// Holds the lock exclusively, for longer work, as a future: see [`RwLock::write_async`].
    ///
    /// # Errors
    ///
    /// As [`RwLock::write_async`].
    pub fn lock_exclusive_async(
        &self,
    ) -> impl Future<Output = Result<FileWriteGuard>> + Send + Sync + use<> {
        let file = self.clone();
        async move {
            let locking = file.lock()?.write_async();
            file.writing(locking.await)
        }
    }

    // ----------------------------------------------------------------------------------- about

    /// The path of the data file, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.contents.path()
    }

    /// Whether all that was written by this handle and its clones has reached the disk, as [`Options::fsync`] asks. `false` without
    /// that option, and where files cannot be synced.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.inner.contents.is_durable()
    }

    /// Its lock, at the path with `.flock` added, to find its holders or to hold it for another
    /// reason. Opens it, and so creates the lock files where they are missing, unless an earlier
    /// call has done so.
    ///
    /// # Errors
    ///
    /// As [`RwLock::open`].
    pub fn rwlock(&self) -> Result<&RwLock> {
        self.lock()
    }

    fn lock(&self) -> Result<&RwLock> {
        let Inner { contents, options, lock_path, lock } = &*self.inner;
        lock.get_or_try_init(|| {
            let directory = contents.path().parent();
            let above = directory.and_then(sys::nearest_directory).map(Path::to_path_buf);
            let opened = options.open_rwlock(lock_path)?;
            contents.sync_directories(above.as_deref())?;
            Ok(Box::new(opened))
        })
    }

    fn reading(&self, had: Result<ReadGuard>) -> Result<FileReadGuard> {
        let contents = Arc::clone(&self.inner.contents);
        let guard = had.map_err(|error| error.about(contents.path()))?;
        Ok(FileReadGuard { guard, contents })
    }

    fn writing(&self, had: Result<WriteGuard>) -> Result<FileWriteGuard> {
        let contents = Arc::clone(&self.inner.contents);
        let guard = had.map_err(|error| error.about(contents.path()))?;
        Ok(FileWriteGuard { guard, contents })
    }
}

/// Rule F3. All of it with the lock: it is let go when `writing` goes, also by a panic.
fn updated<E>(
    writing: Result<FileWriteGuard>,
    change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
) -> Result<(), UpdateError<E>> {
    let mut writing = writing.map_err(UpdateError::Flockwork)?;
    let old = writing.contents.read_or_empty().map_err(UpdateError::Flockwork)?;
    let new = change(old).map_err(UpdateError::Closure)?;
    writing.replace(new).map_err(UpdateError::Flockwork)
}

impl fmt::Debug for SharedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFile").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens a [`SharedFile`] at `path` with these settings: see [`SharedFile::open`].
    ///
    /// # Errors
    ///
    /// As [`SharedFile::open`].
    pub fn open_shared_file(&self, path: impl AsRef<Path>) -> Result<SharedFile> {
        let contents = Arc::new(DataFile::open(path.as_ref(), self)?);
        let lock_path = sidecar_lock(contents.path());
        let options = self.for_parts_of(contents.path(), &lock_path);
        let inner = Inner { contents, options, lock_path, lock: OnceBox::new() };
        Ok(SharedFile { inner: Arc::new(inner) })
    }
}

/// No other holder of the lock writes the file while this is there. Released when dropped.
#[must_use = "if unused, the lock is released at once"]
#[clippy::has_significant_drop]
pub struct FileReadGuard {
    guard: ReadGuard,
    contents: Arc<DataFile>,
}

impl FileReadGuard {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::read`].
    pub fn read(&self) -> Result<Vec<u8>> {
        self.contents.read()
    }

    /// Reads the file as text.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::read_to_string`].
    pub fn read_to_string(&self) -> Result<String> {
        text(self.contents.path(), self.read()?)
    }

    /// Releases the lock, and says if that failed, which dropping cannot.
    ///
    /// # Errors
    ///
    /// As [`ReadGuard::unlock`].
    pub fn unlock(self) -> Result<()> {
        self.guard.unlock()
    }

    /// The path of the data file, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.contents.path()
    }
}

impl fmt::Debug for FileReadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReadGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// No other process or thread holds the lock while this is there. Released when dropped.
#[must_use = "if unused, the lock is released at once"]
#[clippy::has_significant_drop]
pub struct FileWriteGuard {
    guard: WriteGuard,
    contents: Arc<DataFile>,
}

impl FileWriteGuard {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::read`].
    pub fn read(&self) -> Result<Vec<u8>> {
        self.contents.read()
    }

    /// Reads the file as text.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::read_to_string`].
    pub fn read_to_string(&self) -> Result<String> {
        text(self.contents.path(), self.read()?)
    }

    /// Writes the file anew, as often as one likes. A program that reads without the lock sees it at once.
    ///
    /// # Errors
    ///
    /// As [`SharedFile::write`].
    pub fn replace(&mut self, contents: impl AsRef<[u8]>) -> Result<()> {
        self.guard.check_here("write")?;
        self.contents.replace(contents.as_ref())
    }

    /// Shares the lock from now on, with no writer in between: see [`WriteGuard::downgrade`].
    ///
    /// # Errors
    ///
    /// As [`WriteGuard::downgrade`].
    pub fn downgrade(self) -> Result<FileReadGuard> {
        let Self { guard, contents } = self;
        Ok(FileReadGuard { guard: guard.downgrade()?, contents })
    }

    /// Releases the lock, and says if that failed, which dropping cannot. What was written is written before this.
    ///
    /// # Errors
    ///
    /// As [`ReadGuard::unlock`].
    pub fn unlock(self) -> Result<()> {
        self.guard.unlock()
    }

    /// The path of the data file, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.contents.path()
    }
}

impl fmt::Debug for FileWriteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWriteGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}
