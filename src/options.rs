//! [`Options`], with which a primitive is opened, and [`Waiting`], which a callback receives.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::access::{Access, Creation};
use crate::cancel::{Cancel, Cancels};
use crate::error::FindHolders;
use crate::holder::Holder;
use crate::printable::tenths;
use crate::record;

/// Settings for opening a primitive.
///
/// This is a builder. It can open any number of primitives.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use std::time::Duration;
///
/// let options = flockwork::Options::new()
///     .label("cargo build")
///     .on_wait(Duration::from_secs(1), Duration::from_secs(10), |waiting| eprintln!("{waiting}"));
/// let target = options.open_lock(dir.path().join("target.lock"))?;
/// let cache = options.open_lock(dir.path().join("cache.lock"))?;
/// let _guards = (target.lock()?, cache.lock()?);
///
/// let holders = target.holders()?;
/// assert_eq!(holders[0].label(), Some("cargo build"));
/// assert_eq!(holders[0].pid(), std::process::id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a separate setting")]
pub struct Options {
    pub(crate) label: Option<Arc<str>>,
    pub(crate) record: bool,
    pub(crate) access: Access,
    pub(crate) on_wait: Option<OnWait>,
    pub(crate) cancels: Cancels,
    pub(crate) poll_every: Option<Duration>,
    pub(crate) fsync: bool,
    pub(crate) inherit: bool,
    pub(crate) backstop: Option<Duration>,
    pub(crate) any_file_type: bool,
    pub(crate) creates_nothing: bool,
    pub(crate) follows_links: bool,
    pub(crate) writes_in_place: bool,
    pub(crate) server_timeout: Duration,
    /// The path of the primitive that the one to be opened is a part of.
    pub(crate) whole: Option<Arc<Path>>,
}

/// The default of [`Options::server_timeout`].
pub(crate) const SERVER_TIMEOUT: Duration = Duration::from_secs(1);

impl Default for Options {
    fn default() -> Self {
        Self {
            label: None,
            record: false,
            access: Access::default(),
            on_wait: None,
            cancels: Cancels::default(),
            poll_every: None,
            fsync: false,
            inherit: false,
            backstop: None,
            any_file_type: false,
            creates_nothing: false,
            follows_links: false,
            writes_in_place: false,
            server_timeout: SERVER_TIMEOUT,
            whole: None,
        }
    }
}

pub(crate) type Callback = Arc<dyn Fn(&Waiting) + Send + Sync>;

/// The callback of [`Options::on_wait`] and when it is called.
#[derive(Clone)]
pub(crate) struct OnWait {
    pub(crate) after: Duration,
    pub(crate) every: Duration,
    pub(crate) callback: Callback,
}

impl Options {
    /// Creates options with all settings at their defaults.
    ///
    /// There is no label, no record, no callback and no polling. The umask decides the permissions
    /// of files that are created.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a short text that shows waiters what the holder is doing.
    ///
    /// It is shown by [`Lock::holders`](crate::Lock::holders) and the other `holders` methods, in
    /// errors, and in [`on_wait`](Self::on_wait) callbacks. It implies
    /// [`record_holder(true)`](Self::record_holder).
    ///
    /// The label is kept on one line and cut after 512 characters. An empty label counts as none.
    #[must_use]
    pub fn label(mut self, text: impl AsRef<str>) -> Self {
        self.label = Some(text.as_ref().into()).filter(|label: &Arc<str>| !label.is_empty());
        self.record = true;
        self
    }

    /// Sets whether a holder keeps a record beside the path while it holds. Off by default.
    ///
    /// A [`label`](Self::label) turns it on. The last call counts.
    ///
    /// The record is `P.holder` for a lock file `P`, `P/holders/slot.N` for a semaphore, and a file
    /// in `P.holders` for each reader of an [`RwLock`](crate::RwLock). It names the process, its
    /// pid namespace, host and boot, its command, the time of acquisition, and the label. It is
    /// valid only while the process that wrote it lives and holds the lock.
    ///
    /// The record contains the whole command line, which every user who may read the directory can
    /// read unless [`access`](Self::access) restricts it. The names `P.holder` and `P.holder.new`
    /// are reserved for records. If another file has one of these names, it is left unchanged and
    /// no record is written.
    ///
    /// A record costs some 50 microseconds at each acquisition and release. It is informative only:
    /// if it cannot be written (on a read-only directory or a full disk), the lock is held without
    /// one.
    #[must_use]
    pub fn record_holder(mut self, yes: bool) -> Self {
        self.record = yes;
        self
    }

    /// Sets the permissions of files and parent directories that are created.
    ///
    /// Existing files and directories are left unchanged.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Sets whether missing files and directories are created. On by default.
    ///
    /// With `false`, a call that would create one returns an error of kind
    /// [`NotFound`](crate::ErrorKind::NotFound) instead, at opening or later. So a mistyped path,
    /// or a directory that is not mounted, is an error. No setting creates files without their
    /// directories: a program that wants that checks first whether the directory exists.
    ///
    /// * [`Lock`](crate::Lock), [`RwLock`](crate::RwLock): opening and acquiring need the lock
    ///   file, and for an `RwLock` also `P.gate`.
    /// * [`SharedFile`](crate::SharedFile): opening and writing need the file. Calls that lock need
    ///   its lock files `P.flock` and `P.flock.gate`.
    /// * [`Once`](crate::Once): a call that may run the closure needs the lock file `P.flock`. The
    ///   file that marks the work as done is still created.
    /// * [`Event`](crate::Event): setting the event creates its file, but not its directory.
    ///   Consuming a setting needs the lock file `P.flock`.
    /// * [`Semaphore`](crate::Semaphore): opening, acquiring and resizing need the semaphore. Files
    ///   in its directory are still created, such as the slot files that a large capacity needs.
    /// * A [record](Self::record_holder) of a holder is still written.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("app.lock");
    /// let existing = flockwork::Options::new().create(false);
    /// let error = existing.open_lock(&path).unwrap_err();
    /// assert_eq!(error.kind(), flockwork::ErrorKind::NotFound);
    /// flockwork::Lock::open(&path)?;
    /// existing.open_lock(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn create(mut self, yes: bool) -> Self {
        self.creates_nothing = !yes;
        self
    }

    /// Sets whether a symbolic link at the path is followed. Off by default, and then an error.
    ///
    /// The last component of the path is resolved once, when the primitive is opened. From then on
    /// the primitive is the one at the link's target: its [`path`](crate::SharedFile::path) is the
    /// target, and lock files are beside the target. So it is the same primitive for programs that
    /// open it through the link and for programs that open the target. A link that is changed later
    /// has no effect. The target need not exist. Links in parent directories are always followed.
    ///
    /// Do not use it in a directory where other users may create files, such as `/tmp`: they could
    /// make the path lead to a file of yours.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let dir = tempfile::tempdir()?;
    /// # let (link, target) = (dir.path().join("link"), dir.path().join("settings"));
    /// std::os::unix::fs::symlink(&target, &link)?;
    /// let settings = flockwork::Options::new().follow_symlinks(true).open_shared_file(&link)?;
    /// settings.write("port = 8080")?;
    /// assert_eq!(std::fs::read(&target)?, b"port = 8080");
    /// assert!(link.is_symlink()); // it still leads there
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn follow_symlinks(mut self, yes: bool) -> Self {
        self.follows_links = yes;
        self
    }

    /// Sets whether a [`SharedFile`](crate::SharedFile) overwrites an existing file instead of
    /// replacing it. Off by default.
    ///
    /// A file that is a mount point, as with `mount --bind` or a container's volume of one file,
    /// cannot be replaced. Overwriting it keeps the file itself, so its owner, attributes and hard
    /// links stay, and a directory in which this user may not create files is enough. These
    /// guarantees are lost:
    ///
    /// * A reader that holds no lock, and each program that does not use flockwork, may see a
    ///   mixture of the old and the new contents. Read through
    ///   [`lock_shared`](crate::SharedFile::lock_shared).
    /// * A writer that is killed, a full disk or a loss of power may leave such a mixture, and
    ///   nothing reports it to later readers. (After a full disk or another error, the write that
    ///   failed returns the error.) [`fsync`](Self::fsync) makes a write durable that has returned,
    ///   but not whole before that.
    ///
    /// A missing file is created as a whole. Other primitives ignore this setting.
    ///
    /// Do not use it in a directory where other users may create files: a hard link that they make
    /// at the path can lead to another file of yours, which is then overwritten.
    #[must_use]
    pub fn write_in_place(mut self, yes: bool) -> Self {
        self.writes_in_place = yes;
        self
    }

    pub(crate) fn creation(&self) -> Creation {
        let is_allowed = !self.creates_nothing;
        Creation { access: self.access, files: is_allowed, directories: is_allowed }
    }

    /// Calls `f` when a wait has lasted for `after`, and again after each further `every`.
    ///
    /// The callback can tell a person what the program waits for. With an `after` of zero it is
    /// called as soon as the call has to wait, and with an `every` of [`Duration::MAX`] only once.
    /// An `every` of less than a millisecond counts as one millisecond.
    ///
    /// Some calls wait for a moment although no process excludes them: the readers of an
    /// [`RwLock`](crate::RwLock) or a [`SharedFile`](crate::SharedFile) pass its turnstile one
    /// after the other. An `after` of some 100 milliseconds leaves such waits out.
    ///
    /// ```
    /// use std::time::Duration;
    /// use flockwork::Options;
    ///
    /// // Prints once what the program waits for.
    /// let after = Duration::from_millis(100);
    /// let options = Options::new().on_wait(after, Duration::MAX, |waiting| {
    ///     eprintln!("Blocking waiting for file lock on {}", waiting.path().display());
    /// });
    /// # let _ = options;
    /// ```
    ///
    /// The callback runs in the waiting thread, or where the future is polled, and the wait
    /// continues when it returns. If it panics, the wait ends, nothing is held, and the panic is
    /// passed to the caller.
    ///
    /// With a callback, [`Lock::lock`](crate::Lock::lock) also waits through a helper thread
    /// instead of blocking in the kernel itself, which adds some 20 microseconds to the end of the
    /// wait.
    #[must_use]
    pub fn on_wait(
        mut self,
        after: Duration,
        every: Duration,
        f: impl Fn(&Waiting) + Send + Sync + 'static,
    ) -> Self {
        let every = every.max(Duration::from_millis(1));
        self.on_wait = Some(OnWait { after, every, callback: Arc::new(f) });
        self
    }

    /// Makes [`token.cancel()`](Cancel::cancel) end all waits of the handles that are opened with
    /// these settings.
    ///
    /// Each wait returns an error of kind [`Cancelled`](crate::ErrorKind::Cancelled), as does each
    /// later one. A second call adds another token. With a token,
    /// [`Lock::lock`](crate::Lock::lock) also waits through a helper thread instead of blocking in
    /// the kernel itself, as with [`on_wait`](Self::on_wait).
    #[must_use]
    pub fn cancel(mut self, token: &Cancel) -> Self {
        self.cancels.add(token);
        self
    }

    /// Makes waits try again every `interval` instead of sleeping in the kernel.
    ///
    /// An interval of less than 100 microseconds counts as 100 microseconds. Polling is not fair:
    /// the first waiter to try after a release acquires the lock.
    ///
    /// This is for file systems that wake waiters late and are not known to flockwork. On network
    /// file systems that it knows it polls without this setting where that is necessary. With it,
    /// the waiters of one host do not queue on their host, and each sends requests to the server.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_every = Some(interval.max(Duration::from_micros(100)));
        self
    }

    /// Sets how long calls take at most while a file server does not respond. One second by
    /// default.
    ///
    /// This is for calls without a time limit of their own, on a network file system. Such a call
    /// then returns an error of kind [`TimedOut`](crate::ErrorKind::TimedOut), whose text says that
    /// the server did not respond:
    ///
    /// * Opening, and the `try_` forms. Nothing is held; what the server grants later is released.
    /// * Calls that answer a question, such as `still_held`, `is_set` and `holders`.
    /// * Calls that change something, such as `set` and `clear`. They may still take effect later.
    /// * Calls that release something, such as `unlock`. The release is completed once the server
    ///   responds, if this process still runs then. Dropping a guard waits for the same time, and
    ///   never longer than ten seconds.
    ///
    /// A wait with a timeout or a deadline returns at most a quarter of a second late. A wait with
    /// a [token](Self::cancel) ends with its cancellation, within some 50 milliseconds. The future
    /// of a wait does not block its executor. These calls have no limit: a wait without a timeout
    /// and without a token, and reading or writing the contents of a
    /// [`SharedFile`](crate::SharedFile).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// use std::time::Duration;
    ///
    /// let options = flockwork::Options::new().server_timeout(Duration::from_millis(200));
    /// let lock = options.open_lock(&path)?;
    /// # let _ = lock;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// On such a file system a helper thread makes the calls. A process has at most 64 helpers
    /// whose callers have given up; further calls wait for their time and fail. Calls on local file
    /// systems are not affected.
    ///
    /// # Platform-specific behavior
    ///
    /// Linux shows where network file systems are mounted without asking their servers
    /// (`/proc/self/mountinfo`). Elsewhere opening has no limit. A mount is noticed within a
    /// second.
    #[must_use]
    pub fn server_timeout(mut self, timeout: Duration) -> Self {
        self.server_timeout = timeout;
        self
    }

    /// The same for a call that has less time left.
    pub(crate) fn server_timeout_at_most(mut self, left: Duration) -> Self {
        self.server_timeout = self.server_timeout.min(left);
        self
    }

    /// Sets whether changes are synced to disk, so that a loss of power cannot undo them. Off by
    /// default.
    ///
    /// Without it, changes survive the death of any process. After a loss of power, a file has its
    /// old contents, the new ones, or on some file systems none.
    ///
    /// * [`SharedFile`](crate::SharedFile): a write returns once the contents and the name of the
    ///   file, and the directories created for its lock, are on disk. Other processes may see the
    ///   contents before that.
    /// * [`Once`](crate::Once): everything the closure wrote is on disk before any process sees
    ///   "done", and "done" is on disk before the call returns.
    ///
    /// If a file system or a sandbox does not support syncing (it returns `EINVAL`, `ENOSYS`,
    /// `EOPNOTSUPP` or `EPERM`), calls succeed without it, and
    /// [`SharedFile::is_durable`](crate::SharedFile::is_durable) and
    /// [`Once::is_durable`](crate::Once::is_durable) return `false` from then on. Calls return any
    /// other error of syncing.
    ///
    /// Syncing a file takes a few milliseconds. For a `Once` it takes as long as writing everything
    /// that any program has left to be written, on all file systems, including a network file
    /// system that hangs.
    ///
    /// # Platform-specific behavior
    ///
    /// For a `Once`, Linux syncs the file system of the path with `syncfs(2)`, whose errors are
    /// returned, and all other file systems with `sync(2)`, which waits but reports no errors.
    /// Other Unix systems do not promise to wait, and Windows has no such call. There, the closure
    /// must sync its files itself ([`std::fs::File::sync_all`]). Windows cannot sync a directory
    /// either; its file systems keep a journal of names.
    #[must_use]
    pub fn fsync(mut self, yes: bool) -> Self {
        self.fsync = yes;
        self
    }

    /// Sets whether programs that this process starts while it holds a lock hold it too. Off by
    /// default.
    ///
    /// The lock stays held until this process has released it and the last of those programs has
    /// ended, even if this process is killed before. So a job never runs without the lock.
    ///
    /// Every program that any thread starts while the guard is alive inherits the lock, and so does
    /// every program that those start, unless they close it. Releasing or dropping the guard gives
    /// up only this process's share. Waiters notice the end of the last program as they notice the
    /// death of a holder. The programs have no guard and hold the lock until they end. The setting
    /// applies to a [`Once`](crate::Once) and the guards of a [`SharedFile`](crate::SharedFile)
    /// too. An event [announced](crate::Event::set_while_alive) with it stays set if this process
    /// is killed while such a program runs; dropping the announcement clears it all the same.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Options::new().inherit(true).open_lock(&path)?;
    /// let guard = lock.lock()?;
    /// let mut job = std::process::Command::new("sleep").arg("0.1").spawn()?;
    /// drop(guard);
    /// assert!(lock.try_lock().is_err_and(|error| error.is_would_block())); // the job holds it
    /// job.wait()?;
    /// assert!(lock.try_lock().is_ok());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Platform-specific behavior
    ///
    /// On Unix the descriptor stays open through `exec`. Windows cannot pass on a lock, so
    /// acquiring one with this setting returns an error of kind [`Io`](crate::ErrorKind::Io).
    /// There, a job object can end the programs together with the process that started them.
    #[must_use]
    pub fn inherit(mut self, yes: bool) -> Self {
        self.inherit = yes;
        self
    }

    /// Sets whether a file of any type sets an [`Event`](crate::Event), not only a regular file.
    ///
    /// Directories, sockets, FIFOs and devices count then. A symbolic link counts while it leads to
    /// an existing file. So a program can wait for the keys of a mounted Kubernetes `ConfigMap`, or
    /// for a link `current` that points to a release. Off by default.
    ///
    /// Such an event can be checked and waited for (`is_set`, `wait`, `wait_cleared`, `wait_any`,
    /// `wait_all`). Setting, clearing and consuming it are errors of kind
    /// [`Io`](crate::ErrorKind::Io), since another program created the file.
    /// [`payload`](crate::Event::payload) reads only regular files. Opening the event creates no
    /// directories. Other primitives ignore this setting.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("server.socket");
    /// let server = flockwork::Options::new().any_file_type(true).open_event(&path)?;
    /// assert!(!server.is_set()?);
    /// let _listening = std::os::unix::net::UnixListener::bind(&path)?;
    /// server.wait()?;
    /// assert!(server.clear().is_err());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The key `ready` of a mounted `ConfigMap` is a link that leads through another link,
    /// `..data`:
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let dir = tempfile::tempdir()?;
    /// # let mounted = dir.path().to_path_buf();
    /// use std::os::unix::fs::symlink;
    ///
    /// let options = flockwork::Options::new().any_file_type(true);
    /// let ready = options.open_event(mounted.join("ready"))?;
    /// symlink("..data/ready", mounted.join("ready"))?;
    /// assert!(!ready.is_set()?); // the link leads nowhere yet
    ///
    /// std::fs::create_dir(mounted.join("..2026_11_27"))?;
    /// std::fs::write(mounted.join("..2026_11_27/ready"), "yes")?;
    /// symlink("..2026_11_27", mounted.join("..data"))?;
    /// ready.wait()?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Events of the directory do not report changes of the file that a symbolic link leads to, so
    /// waiters check for them at least every 50 milliseconds.
    #[must_use]
    pub fn any_file_type(mut self, yes: bool) -> Self {
        self.any_file_type = yes;
        self
    }

    /// Returns these options for the parts of the primitive at `path`, with a callback that
    /// receives `path` and finds the holders by the lock file `locked`.
    pub(crate) fn for_parts_of(&self, path: &Arc<Path>, locked: &Arc<Path>) -> Self {
        let mut options = self.clone().follow_symlinks(false);
        options.whole = Some(Arc::clone(path));
        if let Some(OnWait { callback, .. }) = &mut options.on_wait {
            let (inner, path, locked) =
                (Arc::clone(callback), Arc::clone(path), Arc::clone(locked));
            *callback = Arc::new(move |waiting| {
                let locked = Arc::clone(&locked);
                let find = waiting.find.clone();
                let waiting = Waiting::new(&path, waiting.elapsed, waiting.is_first);
                inner(&Waiting { locked, find, ..waiting });
            });
        }
        options
    }

    /// Sets how long a waiter waits for a notification before it checks on its own.
    ///
    /// With a long interval, a lost notification shows as a stall.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    #[must_use]
    pub fn backstop(mut self, span: Duration) -> Self {
        self.backstop = Some(span);
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("label", &self.label)
            .field("record_holder", &self.record)
            .field("access", &self.access)
            .field("on_wait", &self.on_wait.as_ref().map(|on_wait| (on_wait.after, on_wait.every)))
            .field("cancel", &self.cancels)
            .field("poll_interval", &self.poll_every)
            .field("fsync", &self.fsync)
            .field("inherit", &self.inherit)
            .field("any_file_type", &self.any_file_type)
            .field("create", &!self.creates_nothing)
            .field("follow_symlinks", &self.follows_links)
            .field("write_in_place", &self.writes_in_place)
            .field("server_timeout", &self.server_timeout)
            .finish_non_exhaustive()
    }
}

/// A wait in progress, which [`Options::on_wait`] passes to its callback.
///
/// Its [`Display`](fmt::Display) text names the path, the time so far and the first holder:
///
/// ```text
/// waiting for `a.lock` for 1.0 s (held by "nightly build", process 4242 (make all), for 3.2 s)
/// ```
pub struct Waiting {
    path: Arc<Path>,
    /// The path by which the holders are found.
    locked: Arc<Path>,
    elapsed: Duration,
    is_first: bool,
    /// For several events: how many more are not set, and whether one of them is enough.
    others: usize,
    is_any: bool,
    /// Finds the holders on a network file system.
    find: Option<FindHolders>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("path", &self.path)
            .field("elapsed", &self.elapsed)
            .field("is_first", &self.is_first)
            .finish_non_exhaustive()
    }
}

impl Waiting {
    pub(crate) fn new(path: &Arc<Path>, elapsed: Duration, is_first: bool) -> Self {
        let (path, locked) = (Arc::clone(path), Arc::clone(path));
        Self { path, locked, elapsed, is_first, others: 0, is_any: false, find: None }
    }

    /// The same on a network file system.
    pub(crate) fn finding(self, find: Option<FindHolders>) -> Self {
        Self { find, ..self }
    }

    /// The same for several events. The path is the first of them that is not set.
    pub(crate) fn for_events(self, others: usize, is_any: bool) -> Self {
        Self { others, is_any, ..self }
    }

    /// Returns the path that is waited for. Of several events, it is the first that is not set.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how long the wait has lasted so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns whether this is the first call of the callback for this wait.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Returns the current holders, as far as they are known. A semaphore can have several.
    ///
    /// Each call does a new lookup. On a network file system it takes at most 0.2 seconds; if the
    /// server does not respond by then, the result is empty.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        match &self.find {
            Some(find) => find(&self.locked).unwrap_or_default(),
            None => record::find(&self.locked, true).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for `{}`", self.path.display())?;
        if self.others > 0 {
            let (joined, plural) =
                (if self.is_any { "or" } else { "and" }, if self.others == 1 { "" } else { "s" });
            write!(f, " {joined} {} other{plural}", self.others)?;
        }
        write!(f, " for {} s", tenths(self.elapsed))?;
        match &*self.holders() {
            [] => Ok(()),
            [holder] => write!(f, " (held by {holder})"),
            [first, others @ ..] => write!(f, " (held by {first}, and {} more)", others.len()),
        }
    }
}
