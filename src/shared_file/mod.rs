//! The `SharedFile`: a data file that many programs read and change, and the `RwLock` beside it.

mod guards;

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

pub use self::guards::{FileReadGuard, FileWriteGuard};
use crate::error::{Error, Result};
use crate::file::data_file::{DataFile, text};
use crate::holder::Holder;
use crate::holders;
use crate::options::Options;
use crate::paths::sidecar_lock;
use crate::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::sys;
use crate::wait::{Limit, Server, open};

/// A file that many programs read and change as a whole, without lost updates or partial reads.
///
/// It is meant for small files that several programs update: a configuration, an index, a counter,
/// a list of jobs. A write goes to a temporary file, which then replaces the old file in one step.
/// So a reader never sees a part of a write, even if the writer is killed. [`update`](Self::update)
/// reads, changes and writes the contents under one lock. The data file is a plain file that any
/// program can read.
///
/// The lock is an [`RwLock`] at the path with `.flock` added. [`write`](Self::write),
/// [`update`](Self::update) and [`lock_exclusive`](Self::lock_exclusive) lock it exclusively, and
/// [`lock_shared`](Self::lock_shared) shares it. **[`read`](Self::read) takes no lock** and never
/// waits: it returns the contents before or after a write, and works where the caller may not
/// create or lock any file.
///
/// [`write`](Self::write) and [`update`](Self::update) wait for the lock without limit. To limit
/// the wait, acquire a guard with [`try_lock_exclusive`](Self::try_lock_exclusive) or
/// [`lock_exclusive_timeout`](Self::lock_exclusive_timeout) and change the file through it. A zero
/// timeout, or a deadline that has passed, tries once. A timeout too large for [`Instant`] waits
/// forever. All futures follow [the same rules](crate#futures).
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("builds");
/// use flockwork::SharedFile;
///
/// let builds = SharedFile::open(&path)?;
/// builds.update(|text| -> Result<(), Box<dyn std::error::Error>> {
///     let old = std::str::from_utf8(text)?; // an error leaves the file unchanged
///     let number = if old.is_empty() { 0 } else { old.parse::<u64>()? };
///     *text = (number + 1).to_string().into_bytes();
///     Ok(())
/// })?;
/// assert_eq!(builds.read_to_string()?, "1");
///
/// // While this guard exists, other programs can read the file, but none can write it.
/// let reading = builds.lock_shared()?;
/// let (once, again) = (reading.read()?, reading.read()?);
/// assert_eq!(once, again);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Programs in other languages
///
/// A program that only reads needs no lock. A program that changes `builds` locks `builds.flock`
/// exclusively with `flock(2)`, and renames a new file over `builds`. (A shared lock on
/// `builds.flock` keeps the contents from changing.) In Python:
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
/// This script raises `FileNotFoundError` if `builds` does not exist. It does not join flockwork's
/// queue, so it acquires the lock when it finds the lock free.
///
/// # Programs with their own lock convention
///
/// `git` and `kubectl` create `config.lock` exclusively, write to it and rename it over `config`.
/// Kernel locks do not exclude such a program, so do not use a `SharedFile` for a file that it
/// changes. Follow its convention instead, and also hold a [`Lock`](crate::Lock) at another path,
/// so that your own programs queue without polling. (A `SharedFile` names its lock `.flock`,
/// because a `config.lock` that stays would block these programs for good.)
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
/// # Fairness
///
/// The same as for an [`RwLock`](RwLock#fairness): neither readers nor writers starve, and on Linux
/// they are served in the order of their arrival.
///
/// # Caveats
///
/// * The lock is advisory. A program that writes the file in place without locking is neither
///   stopped nor noticed.
/// * Without [`Options::fsync`], a power failure leaves the old contents, the new contents, or on
///   some file systems an empty file.
/// * A write breaks hard links: the path names the new file, and other links keep naming the old
///   one.
/// * Every write writes the whole file, so a small change to a large file is slow.
/// * The names beside the file `P` belong to flockwork. `P.flock` and `P.flock.gate` are the lock
///   and must not be removed. `P.flock.new` is the file being written: a file that is found there
///   is removed. With [`Options::label`] or [`Options::record_holder`], `P.flock.holder` and the
///   directory `P.flock.holders` record the holders.
///
/// # Errors
///
/// Every method that fails returns an [`Error`] of one of these kinds. Methods that acquire the
/// lock also return the errors of the [`RwLock`] method that they name.
///
/// * [`NotFound`](crate::ErrorKind::NotFound) if a method that reads finds no file.
/// * [`NotRegularFile`](crate::ErrorKind::NotRegularFile) if the path names something other than a
///   regular file, such as a directory or a symbolic link. It is left unchanged.
/// * [`Unsupported`](crate::ErrorKind::Unsupported) if the platform or the file system has no
///   locks.
/// * [`Io`](crate::ErrorKind::Io) if the system refuses the operation, for example because the user
///   may not write to the file or its directory, or because the disk is full.
///
/// # Platform-specific behavior
///
/// * Unix: a write keeps the file's mode and, where the system permits it, its owner and group.
///   Otherwise the file belongs to the user who wrote it, its set-user-ID and set-group-ID bits are
///   cleared, and the new group gets no more rights than all other users. A file that the user may
///   not write to is not replaced, even if the directory permits it.
/// * Linux: a write also keeps the POSIX access control list, and those `user.*` and `security.*`
///   attributes that the user may set. File capabilities and signatures are dropped, since they
///   belong to the contents. If the list cannot be copied, the owning group keeps the rights that
///   the list gave it, limited by the mask. Other systems do not keep lists and attributes.
/// * Unix: in a directory with the sticky bit (`/tmp`), only the owner of the file or of the
///   directory can write the file. A file that is a mount point, such as a container's volume for a
///   single file, cannot be replaced, and so cannot be written.
/// * Windows: a new file inherits the access control list of its directory. A write retries for
///   about a second, and then fails, while another program has the file open without sharing
///   deletion.
/// * Network file systems: waits poll as for a [`Lock`](crate::Lock). A read first lists the
///   directory, so that it finds a file written on another host.
#[derive(Clone)]
pub struct SharedFile {
    inner: Arc<Inner>,
}

struct Inner {
    contents: Arc<DataFile>,
    /// The settings of the lock.
    options: Options,
    lock_path: Arc<Path>,
    /// Opened by the first call that needs it, because reading takes no lock.
    lock: OnceBox<RwLock>,
    server: Option<Server>,
}

impl SharedFile {
    /// Opens the shared file at `path` without creating anything.
    ///
    /// If the file does not exist, the first write creates it. The first call that writes or locks
    /// creates the lock files and missing parent directories.
    ///
    /// How paths are resolved is described in [Paths](crate#paths). To open a symbolic link, pass
    /// the path that it leads to.
    ///
    /// # Errors
    ///
    /// See [the errors of `SharedFile`](Self#errors).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_shared_file(path)
    }

    // ------------------------------------------------------------------------------------ read

    /// Reads the whole file, which is always the result of one complete write.
    ///
    /// This takes no lock, creates nothing and never waits. To read several times without a change
    /// in between, use [`lock_shared`](Self::lock_shared).
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) if the file does not exist; otherwise see [the
    /// errors of `SharedFile`](Self#errors).
    pub fn read(&self) -> Result<Vec<u8>> {
        self.inner.contents.read()
    }

    /// Reads the whole file as text. See [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io), with the [`InvalidData`](std::io::ErrorKind::InvalidData) of
    /// `std`, if the contents are not UTF-8; otherwise the errors of [`read`](Self::read).
    pub fn read_to_string(&self) -> Result<String> {
        text(self.inner.contents.path(), self.read()?)
    }

    // ----------------------------------------------------------------------------------- write

    /// Replaces the contents, waiting until no other holder has the lock.
    ///
    /// This overwrites what another process wrote since the caller last read the file. To change
    /// the existing contents, use [`update`](Self::update).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let settings = flockwork::SharedFile::open(dir.path().join("settings"))?;
    /// assert_eq!(settings.read().unwrap_err().kind(), flockwork::ErrorKind::NotFound);
    /// settings.write("colour = true")?;
    /// assert_eq!(settings.read()?, b"colour = true");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `SharedFile`](Self#errors).
    ///
    /// The file is unchanged after an error, except that it may hold the new contents if syncing
    /// them failed ([`Options::fsync`]).
    pub fn write(&self, contents: impl AsRef<[u8]>) -> Result<()> {
        self.lock_exclusive()?.replace(contents)
    }

    /// Replaces the contents asynchronously. See [`write`](Self::write).
    ///
    /// The future writes in the poll that acquires the lock. A large file, or [`Options::fsync`],
    /// blocks the executor's thread for that time: call [`write`](Self::write) in a thread that may
    /// block instead, such as that of `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    ///
    /// See [`write`](Self::write).
    pub fn write_async<C: AsRef<[u8]> + Send + 'static>(
        &self,
        contents: C,
    ) -> impl Future<Output = Result<()>> + Send + use<C> {
        let locking = self.lock_exclusive_async();
        async move { locking.await?.replace(contents) }
    }

    // ---------------------------------------------------------------------------------- update

    /// Changes the contents under one exclusive lock, and returns what `change` returns.
    ///
    /// `change` edits the contents in memory, which are empty if the file does not exist. The
    /// result then replaces the file, unless `change` left it as it was. No other process or thread
    /// holds the lock during the call, and [`read`](Self::read) returns the old contents until the
    /// new ones replace them.
    ///
    /// If `change` returns an error or panics, the file is unchanged. The error type is the
    /// caller's choice, as long as [`Error`] converts into it; [`std::io::Error`] and
    /// `Box<dyn std::error::Error>` qualify. `change` must not lock the same file again, which
    /// would deadlock.
    ///
    /// To give up after a time, use [`lock_exclusive_timeout`](Self::lock_exclusive_timeout) and
    /// [`FileWriteGuard::update`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let builds = flockwork::SharedFile::open(dir.path().join("builds"))?;
    /// let number = builds.update(|text| {
    ///     let number = String::from_utf8_lossy(text).trim().parse().unwrap_or(0) + 1;
    ///     *text = format!("{number}\n").into_bytes();
    ///     Ok::<u32, std::io::Error>(number)
    /// })?;
    /// assert_eq!(number, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `change`; otherwise see [the errors of `SharedFile`](Self#errors). A missing
    /// file is not an error.
    pub fn update<R, E: From<Error>>(
        &self,
        change: impl FnOnce(&mut Vec<u8>) -> Result<R, E>,
    ) -> Result<R, E> {
        self.lock_exclusive()?.update(change)
    }

    /// Changes the contents asynchronously. See [`update`](Self::update).
    ///
    /// The future reads, calls `change` and writes in the poll that acquires the lock, so it blocks
    /// the executor's thread like [`write_async`](Self::write_async).
    ///
    /// # Errors
    ///
    /// See [`update`](Self::update).
    pub fn update_async<F, R, E>(
        &self,
        change: F,
    ) -> impl Future<Output = Result<R, E>> + Send + use<F, R, E>
    where
        F: FnOnce(&mut Vec<u8>) -> Result<R, E> + Send + 'static,
        E: From<Error>,
    {
        let locking = self.lock_exclusive_async();
        async move { locking.await?.update(change) }
    }

    // ----------------------------------------------------------------------------------- guards

    /// Acquires the lock shared, blocking the current thread until it is available.
    ///
    /// While the guard exists, no other holder of the lock changes the file.
    ///
    /// # Errors
    ///
    /// See [`RwLock::read`].
    pub fn lock_shared(&self) -> Result<FileReadGuard> {
        self.reading(Limit::Never)
    }

    /// Attempts to acquire the lock shared without waiting.
    ///
    /// # Errors
    ///
    /// See [`RwLock::try_read`].
    pub fn try_lock_shared(&self) -> Result<FileReadGuard> {
        self.read_guard(self.lock(None)?.try_read())
    }

    /// Acquires the lock shared, waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// See [`RwLock::read_timeout`].
    pub fn lock_shared_timeout(&self, timeout: Duration) -> Result<FileReadGuard> {
        self.reading(Limit::After(timeout))
    }

    /// Acquires the lock shared, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// See [`RwLock::read_deadline`].
    pub fn lock_shared_deadline(&self, deadline: Instant) -> Result<FileReadGuard> {
        self.reading(Limit::At(deadline))
    }

    /// Acquires the lock shared, asynchronously.
    ///
    /// # Errors
    ///
    /// See [`RwLock::read_async`].
    pub fn lock_shared_async(&self) -> impl Future<Output = Result<FileReadGuard>> + Send + use<> {
        let file = self.clone();
        async move {
            let locking = file.lock(None)?.read_async();
            file.read_guard(locking.await)
        }
    }

    /// Acquires the lock exclusively, blocking the current thread until it is available.
    ///
    /// While the guard exists, no other process or thread holds the lock. [`read`](Self::read) does
    /// not wait for it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let queue = flockwork::SharedFile::open(dir.path().join("queue"))?;
    /// queue.write("one\ntwo\n")?;
    ///
    /// let mut writing = queue.lock_exclusive()?;
    /// let jobs = writing.read_to_string()?;
    /// let (first, rest) = jobs.split_once('\n').expect("a line");
    /// writing.replace(rest)?; // `read` returns the new contents from here on
    /// writing.unlock()?; // the next process can lock the file
    /// # assert_eq!(first, "one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`RwLock::write`].
    pub fn lock_exclusive(&self) -> Result<FileWriteGuard> {
        self.writing(Limit::Never)
    }

    /// Attempts to acquire the lock exclusively without waiting.
    ///
    /// # Errors
    ///
    /// See [`RwLock::try_write`].
    pub fn try_lock_exclusive(&self) -> Result<FileWriteGuard> {
        self.write_guard(self.lock(None)?.try_write())
    }

    /// Acquires the lock exclusively, waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// See [`RwLock::write_timeout`].
    pub fn lock_exclusive_timeout(&self, timeout: Duration) -> Result<FileWriteGuard> {
        self.writing(Limit::After(timeout))
    }

    /// Acquires the lock exclusively, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// See [`RwLock::write_deadline`].
    pub fn lock_exclusive_deadline(&self, deadline: Instant) -> Result<FileWriteGuard> {
        self.writing(Limit::At(deadline))
    }

    /// Acquires the lock exclusively, asynchronously.
    ///
    /// # Errors
    ///
    /// See [`RwLock::write_async`].
    pub fn lock_exclusive_async(
        &self,
    ) -> impl Future<Output = Result<FileWriteGuard>> + Send + use<> {
        let file = self.clone();
        async move {
            let locking = file.lock(None)?.write_async();
            file.write_guard(locking.await)
        }
    }

    // ----------------------------------------------------------------------------------- about

    /// Returns the absolute path of the data file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.contents.path()
    }

    /// Returns `true` if everything written through this handle and its clones has been synced to
    /// disk.
    ///
    /// Returns `false` without [`Options::fsync`], and where the system cannot sync files.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.inner.contents.is_durable()
    }

    /// Returns the known processes that hold the file's lock, without creating anything.
    ///
    /// The lock is the [`RwLock`] at the path with `.flock` added. See
    /// [`Lock::holders`](crate::Lock::holders) for which holders are known.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if a record cannot be read or the system cannot list the
    /// holders.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::asking(self.inner.server.as_ref(), &self.inner.lock_path)
    }

    fn lock(&self, limit: Option<Limit>) -> Result<&RwLock> {
        if let Some(lock) = self.inner.lock.get() {
            return Ok(lock);
        }
        let Inner { contents, options, lock_path, lock, .. } = &*self.inner;
        let mut options = options.clone();
        if let Some(limit) = limit {
            options = options.server_timeout_at_most(limit.remaining());
        }
        let contents = Arc::clone(contents);
        let opened = open(&options, lock_path, move |options, lock_path| {
            let directory = contents.path().parent();
            let above = directory.and_then(sys::nearest_directory).map(Path::to_path_buf);
            let opened = options.open_rwlock(lock_path)?;
            contents.sync_directories(above.as_deref())?;
            Ok(opened)
        })?;
        Ok(lock.get_or_init(|| Box::new(opened)))
    }

    fn reading(&self, limit: Limit) -> Result<FileReadGuard> {
        let limit = self.fixed(limit);
        self.read_guard(self.lock(Some(limit))?.reading(limit))
    }

    fn writing(&self, limit: Limit) -> Result<FileWriteGuard> {
        let limit = self.fixed(limit);
        self.write_guard(self.lock(Some(limit))?.writing(limit))
    }

    /// The same limit for both steps, opening and locking, on a network file system.
    fn fixed(&self, limit: Limit) -> Limit {
        if self.inner.server.is_some() { limit.fixed() } else { limit }
    }

    fn read_guard(&self, locked: Result<RwLockReadGuard>) -> Result<FileReadGuard> {
        let contents = Arc::clone(&self.inner.contents);
        let guard = locked.map_err(|error| error.about(contents.path()))?;
        Ok(FileReadGuard { guard, contents })
    }

    fn write_guard(&self, locked: Result<RwLockWriteGuard>) -> Result<FileWriteGuard> {
        let contents = Arc::clone(&self.inner.contents);
        let guard = locked.map_err(|error| error.about(contents.path()))?;
        Ok(FileWriteGuard { guard, contents })
    }
}

impl AsRef<Path> for SharedFile {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// All shared state is in files and in the kernel, so a panic in a callback leaves it consistent.
impl UnwindSafe for SharedFile {}
impl RefUnwindSafe for SharedFile {}

impl fmt::Debug for SharedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFile").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens a [`SharedFile`] at `path` with these settings. See [`SharedFile::open`].
    ///
    /// # Errors
    ///
    /// See [`SharedFile::open`].
    pub fn open_shared_file(&self, path: impl AsRef<Path>) -> Result<SharedFile> {
        open(self, path.as_ref(), Self::open_shared_file_here)
    }

    fn open_shared_file_here(&self, path: &Path) -> Result<SharedFile> {
        let contents = Arc::new(DataFile::open(path, self)?);
        let lock_path = sidecar_lock(contents.path());
        let options = self.for_parts_of(contents.path(), &lock_path);
        let server = Server::of(self, contents.path(), false);
        let inner = Inner { contents, options, lock_path, lock: OnceBox::new(), server };
        Ok(SharedFile { inner: Arc::new(inner) })
    }
}
