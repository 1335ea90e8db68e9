//! What can go wrong, always with the path.

mod contention;
mod hint;
mod operation;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::contention::Contention;
pub(crate) use self::contention::Obstacle;
pub use self::operation::Operation;
use crate::holder::Holder;
use crate::sys;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and on which path.
///
/// A lock that was not acquired at once or in time is an error as well, so that `let _guard =
/// lock.try_lock()?;` cannot go on without the lock: see [`is_would_block`](Self::is_would_block)
/// and [`is_timed_out`](Self::is_timed_out).
///
/// The text of an error is one clause with what failed, the path and the reason, which includes the
/// system's own words. It is made without any system call. What to do about it is in
/// [`hint`](Self::hint). [`source()`](std::error::Error::source) returns nothing, since the text
/// would repeat it: the system's error is [`io_error`](Self::io_error).
///
/// It converts into [`std::io::Error`], which keeps the kind.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("build.lock");
/// use flockwork::{ErrorKind, Lock};
///
/// let lock = Lock::open(&path)?;
/// let _held = lock.lock()?;
///
/// let error = lock.try_lock().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::WouldBlock);
/// assert_eq!(error.path(), path);
/// assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::WouldBlock);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(thiserror::Error)]
#[error("{0}")]
pub struct Error(Box<Repr>);

/// What kind of thing went wrong: see [`Error::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another process or thread holds it, or the event is not set, and the call was one that never
    /// waits.
    WouldBlock,
    /// Another process or thread held it, or the event was not set, until the deadline.
    TimedOut,
    /// The semaphore exists with another capacity: see [`Error::capacity`].
    CapacityMismatch,
    /// The number of permits is 0, or more than the semaphore or any semaphore has: see
    /// [`Error::capacity`].
    InvalidPermits,
    /// Something at the path must not be opened or locked: a directory, a symbolic link, a FIFO, a
    /// socket, a device. In the place of a semaphore's directory it is anything else than a
    /// directory. It was left as it was.
    NotRegularFile,
    /// Nothing exists at the path, or a directory of the path is missing, and the call does not
    /// create it.
    NotFound,
    /// The file system or the platform has no locks. Nothing was locked.
    Unsupported,
    /// A file that flockwork keeps does not contain what it should: another program wrote to it, or
    /// a disk lost it. Nothing was changed.
    Corrupt,
    /// The system refused an operation: see [`Error::io_error`].
    Io,
}

#[derive(Debug)]
enum Repr {
    WouldBlock { path: Arc<Path>, contention: Contention },
    TimedOut { path: Arc<Path>, waited: Duration, contention: Contention },
    NotRegularFile { path: Arc<Path>, found: &'static str, expected: Expected },
    CapacityMismatch { path: Arc<Path>, capacity: u32, requested: u32 },
    InvalidPermits { path: Arc<Path>, capacity: u32, requested: u32 },
    Corrupt { path: Arc<Path>, problem: String },
    Unsupported { path: Arc<Path>, source: io::Error },
    Io { path: Arc<Path>, operation: Operation, source: io::Error },
}

/// What should lie at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    File,
    Directory,
    Inspectable,
}

impl From<Repr> for Error {
    fn from(repr: Repr) -> Self {
        Self(Box::new(repr))
    }
}

// ------------------------------------------------------------------------------------ construction

impl Error {
    pub(crate) fn io(operation: Operation, path: &Arc<Path>, source: io::Error) -> Self {
        Repr::Io { path: Arc::clone(path), operation, source }.into()
    }

    /// The platform or the file system has no locks.
    pub(crate) fn unsupported(path: &Arc<Path>, source: io::Error) -> Self {
        Repr::Unsupported { path: Arc::clone(path), source }.into()
    }

    pub(crate) fn would_block(path: &Arc<Path>) -> Self {
        Self::would_block_behind(path, None)
    }

    /// A process that waits in `turnstile` may be the reason.
    pub(crate) fn would_block_behind(path: &Arc<Path>, turnstile: Option<&Arc<Path>>) -> Self {
        let contention = Contention::new(Obstacle::Held, 0).behind(turnstile);
        Repr::WouldBlock { path: Arc::clone(path), contention }.into()
    }

    pub(crate) fn would_block_for(path: &Arc<Path>, obstacle: Obstacle) -> Self {
        let contention = Contention::new(obstacle, 0);
        Repr::WouldBlock { path: Arc::clone(path), contention }.into()
    }

    /// Looks the holders up now: when the error is read, another process may hold it.
    pub(crate) fn timed_out(path: &Arc<Path>, waited: Duration) -> Self {
        Self::timed_out_behind(path, waited, None)
    }

    /// A process that waits in `turnstile` may be the reason.
    pub(crate) fn timed_out_behind(
        path: &Arc<Path>,
        waited: Duration,
        turnstile: Option<&Arc<Path>>,
    ) -> Self {
        let contention = Contention::new(Obstacle::Held, 0).behind(turnstile);
        contention.holders(path);
        Repr::TimedOut { path: Arc::clone(path), waited, contention }.into()
    }

    /// `others` says how many more events were waited for and are missing.
    pub(crate) fn timed_out_for(
        path: &Arc<Path>,
        waited: Duration,
        obstacle: Obstacle,
        others: usize,
    ) -> Self {
        let contention = Contention::new(obstacle, others);
        Repr::TimedOut { path: Arc::clone(path), waited, contention }.into()
    }

    /// A guard was used in a process that got it by `fork`.
    pub(crate) fn forked_copy(operation: Operation, path: &Arc<Path>) -> Self {
        let source = io::Error::other(
            "this guard is a copy made by `fork`, and the lock belongs to the process that acquired it",
        );
        Self::io(operation, path, source)
    }

    pub(crate) fn not_regular(path: &Arc<Path>, found: &'static str) -> Self {
        let expected = Expected::File;
        Repr::NotRegularFile { path: Arc::clone(path), found, expected }.into()
    }

    pub(crate) fn not_a_directory(path: &Arc<Path>, found: &'static str) -> Self {
        let expected = Expected::Directory;
        Repr::NotRegularFile { path: Arc::clone(path), found, expected }.into()
    }

    /// There is a directory that is not a semaphore's.
    pub(crate) fn not_inspectable(path: &Arc<Path>) -> Self {
        let (found, expected) = ("a directory", Expected::Inspectable);
        Repr::NotRegularFile { path: Arc::clone(path), found, expected }.into()
    }

    pub(crate) fn capacity_mismatch(path: &Arc<Path>, capacity: u32, requested: u32) -> Self {
        Repr::CapacityMismatch { path: Arc::clone(path), capacity, requested }.into()
    }

    pub(crate) fn invalid_permits(path: &Arc<Path>, capacity: u32, requested: u32) -> Self {
        Repr::InvalidPermits { path: Arc::clone(path), capacity, requested }.into()
    }

    pub(crate) fn corrupt(path: &Arc<Path>, problem: impl Into<String>) -> Self {
        Repr::Corrupt { path: Arc::clone(path), problem: problem.into() }.into()
    }

    /// The same error of the lock beside `path`, said of `path` itself.
    pub(crate) fn about(mut self, path: &Arc<Path>) -> Self {
        if let Repr::WouldBlock { path: named, contention }
        | Repr::TimedOut { path: named, contention, .. } = &mut *self.0
        {
            contention.set_locked(std::mem::replace(named, Arc::clone(path)));
        }
        self
    }

    /// The same error of a wait for what the holders of the lock `locked` bring about.
    pub(crate) fn depending_on(mut self, locked: &Arc<Path>) -> Self {
        if let Repr::TimedOut { path, contention, .. } = &mut *self.0 {
            contention.set_locked(Arc::clone(locked));
            contention.holders(path);
        }
        self
    }
}

// ---------------------------------------------------------------------------------------- questions

impl Error {
    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Repr::WouldBlock { .. } => ErrorKind::WouldBlock,
            Repr::TimedOut { .. } => ErrorKind::TimedOut,
            Repr::NotRegularFile { .. } => ErrorKind::NotRegularFile,
            Repr::CapacityMismatch { .. } => ErrorKind::CapacityMismatch,
            Repr::InvalidPermits { .. } => ErrorKind::InvalidPermits,
            Repr::Corrupt { .. } => ErrorKind::Corrupt,
            Repr::Unsupported { .. } => ErrorKind::Unsupported,
            Repr::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Repr::Io { .. } => ErrorKind::Io,
        }
    }

    /// The path that the call was about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &*self.0 {
            Repr::WouldBlock { path, .. }
            | Repr::TimedOut { path, .. }
            | Repr::NotRegularFile { path, .. }
            | Repr::CapacityMismatch { path, .. }
            | Repr::InvalidPermits { path, .. }
            | Repr::Corrupt { path, .. }
            | Repr::Unsupported { path, .. }
            | Repr::Io { path, .. } => path,
        }
    }

    /// Whether the call never waits, and another process or thread held it, or the event was not set
    /// ([`ErrorKind::WouldBlock`]).
    #[must_use]
    pub fn is_would_block(&self) -> bool {
        matches!(*self.0, Repr::WouldBlock { .. })
    }

    /// Whether the deadline passed ([`ErrorKind::TimedOut`]).
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(*self.0, Repr::TimedOut { .. })
    }

    /// The processes that were in the way.
    ///
    /// It is empty where they are not known: they have released it since, or they left no record and
    /// the system does not tell (see [`Lock::holders`](crate::Lock::holders)).
    ///
    /// An error of kind [`TimedOut`](ErrorKind::TimedOut) has looked them up when it was made, and
    /// its text names the first. One of kind [`WouldBlock`](ErrorKind::WouldBlock) looks them up by
    /// the first call of this method and remembers the answer: a refused `try_` call takes half a
    /// microsecond, and to look the holders up takes twenty.
    #[must_use]
    pub fn holders(&self) -> &[Holder] {
        match &*self.0 {
            Repr::WouldBlock { path, contention } | Repr::TimedOut { path, contention, .. } => {
                contention.holders(path)
            }
            _ => &[],
        }
    }

    /// How long the call waited before it timed out.
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        match *self.0 {
            Repr::TimedOut { waited, .. } => Some(waited),
            _ => None,
        }
    }

    /// How many permits the semaphore has, or how many the call could have asked for
    /// ([`ErrorKind::CapacityMismatch`] and [`ErrorKind::InvalidPermits`]).
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        match *self.0 {
            Repr::CapacityMismatch { capacity, .. } | Repr::InvalidPermits { capacity, .. } => {
                Some(capacity)
            }
            _ => None,
        }
    }

    /// What was tried when the system refused it ([`ErrorKind::Io`] and [`ErrorKind::NotFound`]).
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match *self.0 {
            Repr::Io { operation, .. } => Some(operation),
            _ => None,
        }
    }

    /// What the system answered, if it is the system that refused.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match &*self.0 {
            Repr::Io { source, .. } | Repr::Unsupported { source, .. } => Some(source),
            _ => None,
        }
    }

    /// What to do about it, where there is something to say.
    ///
    /// For an error of kind [`WouldBlock`](ErrorKind::WouldBlock) it looks the
    /// [holders](Self::holders) up, since the advice is another if this process is one of them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let error = flockwork::Lock::open(dir.path()).unwrap_err();
    /// if let Some(hint) = error.hint() {
    ///     eprintln!("{error}; {hint}");
    /// }
    /// # assert!(error.hint().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match &*self.0 {
            Repr::WouldBlock { path, contention } => Some(contention.hint_at_once(path)),
            Repr::TimedOut { path, waited, contention } if waited.is_zero() => {
                Some(contention.hint_at_once(path))
            }
            Repr::TimedOut { path, contention, .. } => Some(contention.hint_in_time(path)),
            Repr::NotRegularFile { found: "a symbolic link", .. } => Some(
                "give the path that the link leads to (links in parent directories are followed)",
            ),
            Repr::NotRegularFile { expected: Expected::Directory, .. } => {
                Some("give the path of a directory, or one where nothing exists yet")
            }
            Repr::NotRegularFile { expected: Expected::File, .. } => {
                Some("give the path of a regular file, or one where nothing exists yet")
            }
            Repr::NotRegularFile { expected: Expected::Inspectable, .. } => {
                Some("give the path of a semaphore, a lock file or an event")
            }
            Repr::CapacityMismatch { .. } => Some(
                "open it with that number, open it as it is (`open_existing`), or change it for all (`set_capacity`)",
            ),
            Repr::Unsupported { .. } if sys::SUPPORTED => {
                Some("put it on another file system, a local one if possible")
            }
            Repr::InvalidPermits { .. } | Repr::Corrupt { .. } | Repr::Unsupported { .. } => None,
            Repr::Io { operation, source, .. } => hint::of(*operation, source),
        }
    }

    /// Whether the system does not permit this user to do it.
    pub(crate) fn is_refused(&self) -> bool {
        let kind = self.io_kind();
        matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }

    /// The nearest kind that [`std::io::Error`] has.
    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match &*self.0 {
            Repr::WouldBlock { .. } => io::ErrorKind::WouldBlock,
            Repr::TimedOut { .. } => io::ErrorKind::TimedOut,
            Repr::NotRegularFile { .. }
            | Repr::CapacityMismatch { .. }
            | Repr::InvalidPermits { .. } => io::ErrorKind::InvalidInput,
            Repr::Corrupt { .. } => io::ErrorKind::InvalidData,
            Repr::Unsupported { .. } => io::ErrorKind::Unsupported,
            Repr::Io { source, .. } => source.kind(),
        }
    }
}

// --------------------------------------------------------------------------------------------- text

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock { path, contention } => contention.write_now(f, path),
            Self::TimedOut { path, waited, contention } if waited.is_zero() => {
                contention.write_now_with_holders(f, path)
            }
            Self::TimedOut { path, waited, contention } => {
                let (path, waited) = (path.display(), seconds(*waited));
                write!(f, "gave up after {waited} s of waiting for `{path}`: ")?;
                contention.write_reason(f)
            }
            Self::NotRegularFile { path, found, expected } => {
                let expected = match expected {
                    Expected::File => "a regular file",
                    Expected::Directory => "a directory",
                    Expected::Inspectable => "a lock file, an event or a semaphore",
                };
                write!(f, "`{}` is {found}, not {expected}", path.display())
            }
            Self::CapacityMismatch { path, capacity, requested } => {
                let plural = if *capacity == 1 { "" } else { "s" };
                let path = path.display();
                write!(f, "the semaphore `{path}` has {capacity} permit{plural}, not {requested}")
            }
            Self::InvalidPermits { path, capacity, requested } => {
                let path = path.display();
                write!(f, "invalid number of permits of `{path}`: {requested} (must be 1")?;
                if *capacity > 1 { write!(f, " to {capacity})") } else { f.write_str(")") }
            }
            Self::Corrupt { path, problem } => {
                write!(f, "`{}` is damaged: {problem}", path.display())
            }
            Self::Unsupported { path, source } if sys::SUPPORTED => {
                let path = path.display();
                write!(
                    f,
                    "could not lock `{path}`: its file system has no advisory locks ({source})"
                )
            }
            Self::Unsupported { path, .. } => {
                let path = path.display();
                write!(f, "could not lock `{path}`: flockwork has no file locks on this platform")
            }
            Self::Io { path, operation, source } if path.as_os_str().is_empty() => {
                let empty = if *operation == Operation::Resolve { " an empty path" } else { "" };
                write!(f, "could not {operation}{empty}: {source}")
            }
            Self::Io { path, operation, source } => {
                write!(f, "could not {operation} `{}`: {source}", path.display())
            }
        }
    }
}

/// No more digits than a reader wants.
fn seconds(span: Duration) -> String {
    let digits = if span < Duration::from_secs(1) { 3 } else { 1 };
    format!("{:.digits$}", span.as_secs_f64())
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.kind()).field("path", &self.path());
        debug.field("text", &format_args!("{self}")).finish()
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.io_kind(), error)
    }
}
