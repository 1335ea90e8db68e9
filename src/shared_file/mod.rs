//! `SharedFile`: a data file that many programs read and change. Built on `rwlock` (who may) and
//! `data_file` (the file).

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
/// [`write`](Self::write) and [`update`](Self::update) wait for the lock without limit. A caller
/// that wants a limit acquires the lock with one ([`lock_exclusive_timeout`](Self::lock_exclusive_timeout),
/// [`try_lock_exclusive`](Self::try_lock_exclusive)) and works through the guard.
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
///     let old = std::str::from_utf8(text)?; // an error changes nothing
///     let number = if old.is_empty() { 0 } else { old.parse::<u64>()? };
///     *text = (number + 1).to_string().into_bytes();
///     Ok(())
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
/// * That it is fast for large files: each write writes all of it, also if little was changed.
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
    /// * [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if there is something else at the path; it is left as it was.
    /// * [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the platform has no locks.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io) if the path cannot be looked up.
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
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io), of the [`kind`](crate::Error::kind) `NotFound` if there is no file; and for what
    ///   else the system refuses.
    /// * [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if something else has taken the path.
    pub fn read(&self) -> Result<Vec<u8>> {
        self.inner.contents.read()
    }

    /// Reads the file as text: see [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) of the kind `InvalidData` if it is not UTF-8; otherwise as [`read`](Self::read).
    pub fn read_to_string(&self) -> Result<String> {
        text(self.inner.contents.path(), self.read()?)
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
    /// assert_eq!(settings.read().unwrap_err().kind(), flockwork::ErrorKind::NotFound);
    /// settings.write("colour = true")?;
    /// assert_eq!(settings.read()?, b"colour = true");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io) if the system refuses: `PermissionDenied` if this user may not write to the file or
    ///   its directory, `StorageFull` ...
    /// * [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if something else has taken the path.
    /// * [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the file system has no locks.
    ///
    /// The file is as it was then; only after an error of bringing it to the disk ([`Options::fsync`]) it may be the new
    /// one.
    pub fn write(&self, contents: impl AsRef<[u8]>) -> Result<()> {
        self.lock_exclusive()?.replace(contents)
    }

    /// Like [`write`](Self::write), as a future that follows the [rule of all
    /// futures](crate#futures). It writes in the poll that finds the lock acquired.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_async<C: AsRef<[u8]> + Send + 'static>(
        &self,
        contents: C,
    ) -> impl Future<Output = Result<()>> + Send + use<C> {
        let locking = self.lock_exclusive_async();
        async move { locking.await?.replace(contents) }
    }

    // ---------------------------------------------------------------------------------- update

    /// Changes the file: `change` edits the contents in memory, which are empty if there is no file,
    /// and the result replaces the file. Returns what `change` returned.
    ///
    /// The lock is held exclusively meanwhile, so no other holder of the lock changes the file, or
    /// keeps it from changing by [`lock_shared`](Self::lock_shared). [`read`](Self::read) returns
    /// the old contents until the new ones are there. Contents that `change` leaves as they were
    /// are not written again.
    ///
    /// If `change` fails or panics, nothing is changed. It must not use the same file by another
    /// handle: it would wait for itself. Its error type is its own, and
    /// [`Error`] must convert into it, as into [`std::io::Error`] and
    /// `Box<dyn std::error::Error>`. To give up after a time, use
    /// [`lock_exclusive_timeout`](Self::lock_exclusive_timeout) and [`FileWriteGuard::update`].
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
    /// * The error that `change` returned.
    /// * Those of [`write`](Self::write) and [`read`](Self::read), except that there is no file.
    pub fn update<R, E: From<Error>>(
        &self,
        change: impl FnOnce(&mut Vec<u8>) -> Result<R, E>,
    ) -> Result<R, E> {
        self.lock_exclusive()?.update(change)
    }

    /// Like [`update`](Self::update), as a future that follows the [rule of all
    /// futures](crate#futures). It reads, changes and writes in the poll that finds the lock
    /// acquired.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
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
    pub fn lock_shared_async(&self) -> impl Future<Output = Result<FileReadGuard>> + Send + use<> {
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
    ) -> impl Future<Output = Result<FileWriteGuard>> + Send + use<> {
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

    /// The processes that hold its lock (a [`RwLock`] at the path with `.flock` added), as far as
    /// they are known: see [`Lock::holders`](crate::Lock::holders). Creates nothing.
    ///
    /// # Errors
    ///
    /// An error of kind [`Io`](crate::ErrorKind::Io) if a record cannot be read, or the system
    /// refuses to tell.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::of(&self.inner.lock_path)
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

    fn reading(&self, locked: Result<RwLockReadGuard>) -> Result<FileReadGuard> {
        let contents = Arc::clone(&self.inner.contents);
        let guard = locked.map_err(|error| error.about(contents.path()))?;
        Ok(FileReadGuard { guard, contents })
    }

    fn writing(&self, locked: Result<RwLockWriteGuard>) -> Result<FileWriteGuard> {
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

// A panic in a callback leaves nothing half-changed: what is shared lies in files and in the kernel.
impl UnwindSafe for SharedFile {}
impl RefUnwindSafe for SharedFile {}

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
