//! How a primitive is opened, and what a callback is told of a wait.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::holder::Holder;
use crate::record;

/// Settings with which a primitive is opened. A builder that can be used again and again.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use std::time::Duration;
///
/// let options = flockwork::Options::new()
///     .label("cargo build")
///     .on_wait(Duration::from_secs(1), |waiting| eprintln!("{waiting}"));
/// let target = options.open_lock(dir.path().join("target.lock"))?;
/// let cache = options.open_lock(dir.path().join("cache.lock"))?;
/// let _both = (target.lock()?, cache.lock()?);
///
/// let holders = target.holders()?;
/// assert_eq!(holders[0].label(), Some("cargo build"));
/// assert_eq!(holders[0].pid(), std::process::id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Options {
    pub(crate) label: Option<Arc<str>>,
    pub(crate) record: bool,
    pub(crate) access: Access,
    pub(crate) notice: Option<(Duration, Callback)>,
    pub(crate) poll_every: Option<Duration>,
    pub(crate) fsync: bool,
    pub(crate) inherit: bool,
    pub(crate) backstop: Option<Duration>,
    pub(crate) any_file_type: bool,
}

pub(crate) type Callback = Arc<dyn Fn(&Waiting) + Send + Sync>;

impl Options {
    /// The defaults: no label, no record, access as the umask decides, no callback, no polling.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says in a few words what the holder is doing, for those who wait: they see it in
    /// [`Lock::holders`](crate::Lock::holders), in errors and in [`on_wait`](Self::on_wait). Implies
    /// [`record_holder(true)`](Self::record_holder).
    ///
    /// Kept on one line and cut after 512 characters. An empty one is none.
    #[must_use]
    pub fn label(mut self, text: impl AsRef<str>) -> Self {
        self.label = Some(text.as_ref().into()).filter(|label: &Arc<str>| !label.is_empty());
        self.record = true;
        self
    }

    /// Whether a holder leaves a record beside the path for as long as it holds. Off by default, on with a
    /// [`label`](Self::label); the last call counts.
    ///
    /// The record is `P.holder` for a lock file `P`, `P/holders/slot.N` for a semaphore, and a file in `P.holders` for each
    /// reader of an [`RwLock`](crate::RwLock). It names the process, its pid namespace, host and boot, its command, when it
    /// acquired the lock, and the label.
    ///
    /// The record holds the whole command line, and whoever may read the directory can read it unless
    /// [`access`](Self::access) says otherwise. The names `P.holder` and `P.holder.new` are flockwork's:
    /// what is found there that is no record is left alone, and there is no record then.
    ///
    /// Costs some 50 microseconds at each acquisition and release. It is a courtesy and not a part of
    /// the lock: where the record cannot be written (a read-only directory, a full disk) the lock is
    /// held without one. A record counts only while its writer lives and holds.
    #[must_use]
    pub fn record_holder(mut self, yes: bool) -> Self {
        self.record = yes;
        self
    }

    /// Who may use the files and parent directories that are created. What exists already stays as it is.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Calls `f` when a wait has lasted `after`, and every `after` from then on: to tell a person what
    /// is going on. A shorter span than a millisecond counts as one.
    ///
    /// It runs in the thread that waits, or where the future is polled, and the wait goes on when it
    /// returns. With it, for a lock, also a wait without limit goes through the process's waiting helper instead of
    /// blocking in the kernel itself, which costs some 20 microseconds when it ends. A panic in `f`
    /// ends the wait and goes through to the caller; nothing is held then.
    #[must_use]
    pub fn on_wait(
        mut self,
        after: Duration,
        f: impl Fn(&Waiting) + Send + Sync + 'static,
    ) -> Self {
        self.notice = Some((after.max(Duration::from_millis(1)), Arc::new(f)));
        self
    }

    /// Waits by trying again every `interval`, instead of in the kernel. A shorter one than 100
    /// microseconds counts as that.
    ///
    /// For file systems whose locks wake late and which flockwork does not know as such; it polls by
    /// itself on those it knows (NFS, SMB, FUSE ...). Polling is not fair: whoever tries at the right
    /// moment gets it.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_every = Some(interval.max(Duration::from_micros(100)));
        self
    }

    /// Whether what is done must have reached the disk before anybody is told of it, so that a loss of power cannot undo
    /// it. Off by default: then it survives the death of any process, and after a loss of power there are the old contents,
    /// the new, or on some file systems none.
    ///
    /// * For a [`SharedFile`](crate::SharedFile): a write has reached the disk, with its name,
    ///   before it returns, and so have the directories that were created for its lock. Other
    ///   processes may see it before that.
    /// * For a [`Once`](crate::Once): all that the closure wrote has reached the disk before anybody sees "done", and
    ///   "done" has before the call returns.
    ///
    /// Where a file system or a sandbox has no call for this (it returns `EINVAL`, `ENOSYS`,
    /// `EOPNOTSUPP` or `EPERM`), the calls succeed without it, since the work is done, and
    /// [`SharedFile::is_durable`](crate::SharedFile::is_durable) and
    /// [`Once::is_durable`](crate::Once::is_durable) are `false` from then on. Any other error of
    /// syncing is the call's.
    ///
    /// Costs what the disk costs: some milliseconds for a file; and for a `Once` as long as it takes to write everything
    /// that any program has left to be written, on all file systems, also on a network one that hangs.
    ///
    /// # Platform-specific behaviour
    ///
    /// What a closure wrote anywhere is synced by `syncfs(2)` for the file system of the path,
    /// whose errors are reported, and `sync(2)` for all others, which Linux waits for and does not
    /// report. Other systems do not promise to wait, and Windows has no such call: there the
    /// closure has to bring its files to the disk itself ([`std::fs::File::sync_all`]). Windows
    /// cannot bring a directory to the disk either; its file systems keep a journal of names.
    #[must_use]
    pub fn fsync(mut self, yes: bool) -> Self {
        self.fsync = yes;
        self
    }

    /// Whether the programs that this process starts while it holds something hold it as well: until the last of them has
    /// ended, also when this process was killed meanwhile. So a job that it starts never runs without the lock. Off by
    /// default.
    ///
    /// Every program that any thread starts while the guard lives inherits it, and what those start in turn, if they leave
    /// it open. A guard that is released or dropped is given up by this process alone then: others get it when nobody has
    /// it any more, and who waits for a semaphore's permit hears of that a little later than of a release (a second at most).
    /// For a [`Once`](crate::Once), and the guards of a [`SharedFile`](crate::SharedFile), it is the same.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Options::new().inherit(true).open_lock(&path)?;
    /// let held = lock.lock()?;
    /// let mut job = std::process::Command::new("sleep").arg("0.1").spawn()?;
    /// drop(held);
    /// assert!(lock.try_lock().is_err_and(|error| error.is_would_block())); // the job has it
    /// job.wait()?;
    /// drop(lock.try_lock()?);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Platform-specific behaviour
    ///
    /// Unix: the descriptor stays open through `exec`. Windows has no such locks: with this, acquiring is an
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) of the kind `Unsupported` there; a job object can end the programs with their starter.
    #[must_use]
    pub fn inherit(mut self, yes: bool) -> Self {
        self.inherit = yes;
        self
    }

    /// Whether an [`Event`](crate::Event) counts as set while a file of any type is at its path, and not only a regular
    /// file: a directory, a socket, a FIFO, a device. A symbolic link counts while it leads to a file, so that the keys of
    /// a mounted Kubernetes `ConfigMap` and a `current` that points to a release can be waited for. Off by default.
    ///
    /// Such an event can be looked at and waited for: `is_set`, `wait`, `wait_cleared`, `wait_any`, `wait_all`. Setting,
    /// clearing and consuming it are refused with an [`ErrorKind::Io`](crate::ErrorKind::Io) of the kind `InvalidInput`, since
    /// another program made what is there; and [`payload`](crate::Event::payload) is read from a regular file only.
    /// Opening it creates no directories. Other primitives ignore this setting.
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
    /// The key `ready` of a mounted `ConfigMap` is a link that leads through another one, `..data`:
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let dir = tempfile::tempdir()?;
    /// # let mounted = dir.path().to_path_buf();
    /// use std::os::unix::fs::symlink;
    ///
    /// let ready = flockwork::Options::new().any_file_type(true).open_event(mounted.join("ready"))?;
    /// symlink("..data/ready", mounted.join("ready"))?;
    /// assert!(!ready.is_set()?); // it leads nowhere yet
    ///
    /// std::fs::create_dir(mounted.join("..2026_11_27"))?;
    /// std::fs::write(mounted.join("..2026_11_27/ready"), "yes")?;
    /// symlink("..2026_11_27", mounted.join("..data"))?;
    /// ready.wait()?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The appearance and disappearance of the file that a symbolic link leads to are noticed within 50 milliseconds,
    /// since no event reports them in the link's directory.
    #[must_use]
    pub fn any_file_type(mut self, yes: bool) -> Self {
        self.any_file_type = yes;
        self
    }

    /// The same for the lock file `locked` and what else is a part of what lies at `path`: a callback is told of that.
    pub(crate) fn for_parts_of(&self, path: &Arc<Path>, locked: &Arc<Path>) -> Self {
        let mut options = self.clone();
        if let Some((_, callback)) = &mut options.notice {
            let (inner, path, locked) =
                (Arc::clone(callback), Arc::clone(path), Arc::clone(locked));
            *callback = Arc::new(move |waiting| {
                let locked = Arc::clone(&locked);
                inner(&Waiting { locked, ..Waiting::new(&path, waiting.elapsed) });
            });
        }
        options
    }

    /// How long a waiter waits at most before it checks by itself. With a long span, a notification
    /// that is lost shows as a stall.
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
            .field("on_wait", &self.notice.as_ref().map(|(after, _)| after))
            .field("poll_interval", &self.poll_every)
            .field("fsync", &self.fsync)
            .field("inherit", &self.inherit)
            .field("any_file_type", &self.any_file_type)
            .finish_non_exhaustive()
    }
}

/// What [`Options::on_wait`] is told of a wait that lasts.
#[derive(Debug)]
pub struct Waiting {
    path: Arc<Path>,
    /// Where its holders are found.
    locked: Arc<Path>,
    elapsed: Duration,
    /// For several events: how many more are missing, and whether one of them is enough.
    others: usize,
    is_any: bool,
}

impl Waiting {
    pub(crate) fn new(path: &Arc<Path>, elapsed: Duration) -> Self {
        let (path, locked) = (Arc::clone(path), Arc::clone(path));
        Self { path, locked, elapsed, others: 0, is_any: false }
    }

    /// For several events, of which `path` is the first that is missing.
    pub(crate) fn for_events(
        path: &Arc<Path>,
        others: usize,
        is_any: bool,
        elapsed: Duration,
    ) -> Self {
        Self { others, is_any, ..Self::new(path, elapsed) }
    }

    /// The path that the wait is for. Of several events this is the first that is missing.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// All who have it now (a semaphore's several), as far as that is known. Looks each time it is asked.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        record::find(&self.locked, true).unwrap_or_default()
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waited = self.elapsed.as_secs_f64();
        write!(f, "waiting for `{}`", self.path.display())?;
        if self.others > 0 {
            let (joined, plural) =
                (if self.is_any { "or" } else { "and" }, if self.others == 1 { "" } else { "s" });
            write!(f, " {joined} {} other{plural}", self.others)?;
        }
        write!(f, " for {waited:.1} s")?;
        match &*self.holders() {
            [] => Ok(()),
            [holder] => write!(f, ", held by {holder}"),
            [first, others @ ..] => write!(f, ", held by {first}, and {} more", others.len()),
        }
    }
}
