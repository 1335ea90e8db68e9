//! The error type. Every error names the path that the call was about.

mod contention;
mod hint;
mod operation;

use std::cmp::Ordering::{Equal, Greater, Less};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::contention::Contention;
pub(crate) use self::contention::{FindHolders, Obstacle};
pub use self::operation::Operation;
use crate::holder::Holder;
use crate::printable::tenths;
use crate::sys;

/// A result with flockwork's [`Error`] by default.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate: what failed, on which path, and why.
///
/// Failing to acquire a lock is an error too, so that `let _guard = lock.try_lock()?;` cannot
/// continue without the lock: see [`is_would_block`](Self::is_would_block) and
/// [`is_timed_out`](Self::is_timed_out).
///
/// The `Display` text is one clause with the operation, the path and the reason, which includes the
/// system's own message. Formatting makes no system calls. Advice is in [`hint`](Self::hint).
/// [`source()`](std::error::Error::source) returns `None`, since the text already contains the
/// system's error: use [`io_error`](Self::io_error).
///
/// An error converts into a [`std::io::Error`] of the nearest kind. A `main` that returns an error
/// prints its `Debug` form, without the advice.
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
pub struct Error(Box<Repr>);

/// The kind of an error: see [`Error::kind`].
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use flockwork::{ErrorKind, Semaphore};
///
/// let path = dir.path().join("gpus");
/// let error = Semaphore::open_existing(&path).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
///
/// Semaphore::open(&path, 2)?;
/// let error = Semaphore::open(&path, 3).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::CapacityMismatch);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call does not wait, and another process or thread holds the lock or permits, or the
    /// event is not in the state that was asked for.
    WouldBlock,
    /// The deadline passed before the lock or permits were available, or before the event was in
    /// the state that was asked for. Or the server of a network file system did not respond in time
    /// ([`Options::server_timeout`](crate::Options::server_timeout)), to any call.
    TimedOut,
    /// A [`Cancel`](crate::Cancel) ended the wait. Nothing is held.
    Cancelled,
    /// The semaphore exists with a different capacity, or the barrier with a different number of
    /// participants: see [`Error::capacity`].
    CapacityMismatch,
    /// The number of permits is 0, exceeds the semaphore's capacity, or exceeds the maximum of any
    /// semaphore; or that number cannot be split off a permit; or the number of a barrier's
    /// participants is invalid: see [`Error::capacity`].
    InvalidPermits,
    /// The path names something that flockwork does not open: a directory, a symbolic link, a FIFO,
    /// a socket or a device, or for a semaphore, anything other than a directory. Nothing was
    /// changed.
    NotRegularFile,
    /// The file or a directory of its path does not exist, and the call does not create it.
    NotFound,
    /// The file system or the platform does not support file locks, or the mount keeps locks to
    /// this host, so that they would exclude no other one. Nothing was locked.
    Unsupported,
    /// One of flockwork's own files is invalid, because another program changed it or the disk lost
    /// data. Nothing was changed.
    Corrupt,
    /// A participant of the barrier died, timed out or was cancelled, or the barrier was reset or
    /// aborted: see [`Barrier`](crate::Barrier).
    Broken,
    /// The guard or permit no longer held its lock: the server of a network file system had dropped
    /// it, since this host was cut off. Another host may have held the lock meanwhile, and worked
    /// at the same time.
    Lost,
    /// A system call failed: see [`Error::io_error`].
    Io,
}

#[derive(Debug)]
enum Repr {
    WouldBlock { path: Arc<Path>, contention: Contention },
    TimedOut { path: Arc<Path>, waited: Duration, contention: Contention },
    Cancelled { path: Arc<Path>, waited: Duration },
    NotRegularFile { path: Arc<Path>, found: &'static str, expected: Expected },
    CapacityMismatch { path: Arc<Path>, counted: Counted, capacity: u32, requested: u32 },
    InvalidPermits { path: Arc<Path>, counted: Counted, range: (u32, u32), requested: i64 },
    Broken { path: Arc<Path> },
    Lost { path: Arc<Path> },
    Corrupt { path: Arc<Path>, problem: String, hint: &'static str },
    Unsupported { path: Arc<Path>, source: io::Error },
    Io { path: Arc<Path>, operation: Operation, source: io::Error },
}

/// The type of file that a call expects at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    File,
    Directory,
    Semaphore,
    Barrier,
    Inspectable,
}

/// What a number that does not match counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Permits,
    Participants,
}

impl Counted {
    /// The primitive, and what it counts.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Permits => ("semaphore", "permit"),
            Self::Participants => ("barrier", "participant"),
        }
    }
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

    /// The platform or the file system does not support locks.
    pub(crate) fn unsupported(path: &Arc<Path>, source: io::Error) -> Self {
        Repr::Unsupported { path: Arc::clone(path), source }.into()
    }

    pub(crate) fn would_block(path: &Arc<Path>) -> Self {
        Self::would_block_behind(path, None)
    }

    /// The same for a reader, which a process that waits in `turnstile` may block.
    pub(crate) fn would_block_behind(path: &Arc<Path>, turnstile: Option<&Arc<Path>>) -> Self {
        let contention = Contention::new(Obstacle::Held, 0).behind(turnstile);
        Repr::WouldBlock { path: Arc::clone(path), contention }.into()
    }

    pub(crate) fn would_block_for(path: &Arc<Path>, obstacle: Obstacle) -> Self {
        let contention = Contention::new(obstacle, 0);
        Repr::WouldBlock { path: Arc::clone(path), contention }.into()
    }

    /// Looks up the holders now: another process may hold the lock when the error is read.
    pub(crate) fn timed_out(path: &Arc<Path>, waited: Duration) -> Self {
        Self::timed_out_behind(path, waited, None)
    }

    /// The same for a reader, which a process that waits in `turnstile` may block.
    pub(crate) fn timed_out_behind(
        path: &Arc<Path>,
        waited: Duration,
        turnstile: Option<&Arc<Path>>,
    ) -> Self {
        let contention = Contention::new(Obstacle::Held, 0).behind(turnstile);
        contention.holders(path);
        Repr::TimedOut { path: Arc::clone(path), waited, contention }.into()
    }

    pub(crate) fn cancelled(path: &Arc<Path>, waited: Duration) -> Self {
        Repr::Cancelled { path: Arc::clone(path), waited }.into()
    }

    /// `others` is the number of other events that are not in the state that the wait is for.
    pub(crate) fn timed_out_for(
        path: &Arc<Path>,
        waited: Duration,
        obstacle: Obstacle,
        others: usize,
    ) -> Self {
        let contention = Contention::new(obstacle, others);
        Repr::TimedOut { path: Arc::clone(path), waited, contention }.into()
    }

    /// A guard was used in a forked child of the process that acquired it.
    pub(crate) fn forked_copy(operation: Operation, path: &Arc<Path>) -> Self {
        let source = sys::explained(
            io::ErrorKind::Other,
            "this guard is a copy made by `fork`",
            "use the guard in the process that acquired the lock",
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

    /// The path is a directory of neither a semaphore nor a barrier.
    pub(crate) fn not_inspectable(path: &Arc<Path>) -> Self {
        let (found, expected) = ("a directory", Expected::Inspectable);
        Repr::NotRegularFile { path: Arc::clone(path), found, expected }.into()
    }

    pub(crate) fn capacity_mismatch(path: &Arc<Path>, capacity: u32, requested: u32) -> Self {
        let (path, counted) = (Arc::clone(path), Counted::Permits);
        Repr::CapacityMismatch { path, counted, capacity, requested }.into()
    }

    pub(crate) fn invalid_permits(path: &Arc<Path>, capacity: u32, requested: u32) -> Self {
        Self::invalid_number(path, Counted::Permits, (1, capacity), requested.into())
    }

    /// At most `most` permits can be split off.
    pub(crate) fn invalid_split(path: &Arc<Path>, most: u32, requested: u32) -> Self {
        Self::invalid_number(path, Counted::Permits, (1, most), requested.into())
    }

    /// A semaphore can have at most `most` permits, and none while it is paused.
    pub(crate) fn invalid_capacity(path: &Arc<Path>, most: u32, requested: i64) -> Self {
        Self::invalid_number(path, Counted::Permits, (0, most), requested)
    }

    fn invalid_number(
        path: &Arc<Path>,
        counted: Counted,
        range: (u32, u32),
        requested: i64,
    ) -> Self {
        Repr::InvalidPermits { path: Arc::clone(path), counted, range, requested }.into()
    }

    /// The barrier has `capacity` participants.
    pub(crate) fn parties_mismatch(path: &Arc<Path>, capacity: u32, requested: u32) -> Self {
        let (path, counted) = (Arc::clone(path), Counted::Participants);
        Repr::CapacityMismatch { path, counted, capacity, requested }.into()
    }

    /// A barrier has 1 to `capacity` participants.
    pub(crate) fn invalid_parties(path: &Arc<Path>, capacity: u32, requested: u32) -> Self {
        Self::invalid_number(path, Counted::Participants, (1, capacity), requested.into())
    }

    pub(crate) fn not_a_semaphore(path: &Arc<Path>, found: &'static str) -> Self {
        let expected = Expected::Semaphore;
        Repr::NotRegularFile { path: Arc::clone(path), found, expected }.into()
    }

    pub(crate) fn not_a_barrier(path: &Arc<Path>, found: &'static str) -> Self {
        let expected = Expected::Barrier;
        Repr::NotRegularFile { path: Arc::clone(path), found, expected }.into()
    }

    pub(crate) fn broken(path: &Arc<Path>) -> Self {
        Repr::Broken { path: Arc::clone(path) }.into()
    }

    /// The server of a network file system has dropped a lock that a guard held.
    pub(crate) fn lost(path: &Arc<Path>) -> Self {
        Repr::Lost { path: Arc::clone(path) }.into()
    }

    pub(crate) fn corrupt(
        path: &Arc<Path>,
        problem: impl Into<String>,
        hint: &'static str,
    ) -> Self {
        Repr::Corrupt { path: Arc::clone(path), problem: problem.into(), hint }.into()
    }

    /// Turns an error about the sidecar lock of `path` into one about `path`.
    pub(crate) fn about(mut self, path: &Arc<Path>) -> Self {
        if let Repr::WouldBlock { path: named, contention }
        | Repr::TimedOut { path: named, contention, .. } = &mut *self.0
        {
            contention.set_locked(std::mem::replace(named, Arc::clone(path)));
        }
        if let Repr::Cancelled { path: named, .. } = &mut *self.0 {
            *named = Arc::clone(path);
        }
        self
    }

    /// Makes the first call of [`holders`](Self::holders) find them in this way.
    pub(crate) fn finding(mut self, find: FindHolders) -> Self {
        if let Repr::WouldBlock { contention, .. } = &mut *self.0 {
            contention.find_with(find);
        }
        self
    }

    /// Adds the holders of `locked` to a timeout: the wait is for something that they do.
    pub(crate) fn depending_on(mut self, locked: &Arc<Path>) -> Self {
        if let Repr::TimedOut { path, contention, .. } = &mut *self.0 {
            contention.set_locked(Arc::clone(locked));
            contention.holders(path);
        }
        self
    }
}

// --------------------------------------------------------------------------------------- questions

impl Error {
    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Repr::WouldBlock { .. } => ErrorKind::WouldBlock,
            Repr::TimedOut { .. } => ErrorKind::TimedOut,
            Repr::Cancelled { .. } => ErrorKind::Cancelled,
            Repr::NotRegularFile { .. } => ErrorKind::NotRegularFile,
            Repr::CapacityMismatch { .. } => ErrorKind::CapacityMismatch,
            Repr::InvalidPermits { .. } => ErrorKind::InvalidPermits,
            Repr::Corrupt { .. } => ErrorKind::Corrupt,
            Repr::Broken { .. } => ErrorKind::Broken,
            Repr::Lost { .. } => ErrorKind::Lost,
            Repr::Unsupported { .. } => ErrorKind::Unsupported,
            Repr::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Repr::Io { .. } => ErrorKind::Io,
        }
    }

    /// Returns the path that the call was about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &*self.0 {
            Repr::WouldBlock { path, .. }
            | Repr::TimedOut { path, .. }
            | Repr::Cancelled { path, .. }
            | Repr::NotRegularFile { path, .. }
            | Repr::CapacityMismatch { path, .. }
            | Repr::InvalidPermits { path, .. }
            | Repr::Corrupt { path, .. }
            | Repr::Broken { path }
            | Repr::Lost { path }
            | Repr::Unsupported { path, .. }
            | Repr::Io { path, .. } => path,
        }
    }

    /// Returns whether the call would have had to wait ([`ErrorKind::WouldBlock`]).
    #[must_use]
    pub fn is_would_block(&self) -> bool {
        matches!(*self.0, Repr::WouldBlock { .. })
    }

    /// Returns whether the deadline passed ([`ErrorKind::TimedOut`]).
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(*self.0, Repr::TimedOut { .. })
    }

    /// Returns whether a [`Cancel`](crate::Cancel) ended the wait ([`ErrorKind::Cancelled`]).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.0, Repr::Cancelled { .. })
    }

    /// Returns the processes that held the lock or permits.
    ///
    /// The slice is empty if they are unknown: they have released the lock since, or they left no
    /// record and the system does not list the locks of processes (see
    /// [`Lock::holders`](crate::Lock::holders)).
    ///
    /// The holders of a [`TimedOut`](ErrorKind::TimedOut) error are looked up when the error is
    /// made, and its text names the first. Those of a [`WouldBlock`](ErrorKind::WouldBlock) error
    /// are looked up by the first call of this method, which stores them: a failed `try_` call
    /// takes half a microsecond, and looking up the holders takes twenty. After that
    /// call, the alternate text (`{:#}`) names the first, too.
    #[must_use]
    pub fn holders(&self) -> &[Holder] {
        match &*self.0 {
            Repr::WouldBlock { path, contention } | Repr::TimedOut { path, contention, .. } => {
                contention.holders(path)
            }
            _ => &[],
        }
    }

    /// Returns how long the call waited before it timed out or was cancelled.
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        match *self.0 {
            Repr::TimedOut { waited, .. } | Repr::Cancelled { waited, .. } => Some(waited),
            _ => None,
        }
    }

    /// Returns the capacity of the semaphore, or the largest valid number of permits.
    ///
    /// For a barrier, it counts participants.
    ///
    /// The first is that of [`ErrorKind::CapacityMismatch`], the second that of
    /// [`ErrorKind::InvalidPermits`].
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        match *self.0 {
            Repr::CapacityMismatch { capacity, .. } => Some(capacity),
            Repr::InvalidPermits { range: (_, most), .. } => Some(most),
            _ => None,
        }
    }

    /// Returns the operation that failed ([`ErrorKind::Io`] and [`ErrorKind::NotFound`]).
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match *self.0 {
            Repr::Io { operation, .. } => Some(operation),
            _ => None,
        }
    }

    /// Returns the system's error, if a system call failed.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match &*self.0 {
            Repr::Io { source, .. } | Repr::Unsupported { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Returns advice on how to resolve the error, in one clause.
    ///
    /// For an error of kind [`WouldBlock`](ErrorKind::WouldBlock) this looks up the
    /// [holders](Self::holders), since the advice differs if this process is one of them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let error = flockwork::Lock::open(dir.path()).unwrap_err();
    /// if let Some(hint) = error.hint() {
    ///     eprintln!("error: {error}\nhint: {hint}");
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
                "give the path of the link's target, or open it with `Options::follow_symlinks`",
            ),
            Repr::NotRegularFile {
                expected: Expected::Directory | Expected::Semaphore, ..
            } => {
                Some("give the path of a semaphore's directory, or a path that does not exist yet")
            }
            Repr::NotRegularFile { expected: Expected::Barrier, .. } => {
                Some("give the path of a barrier's directory, or a path that does not exist yet")
            }
            Repr::NotRegularFile { expected: Expected::File, .. } => {
                Some("give the path of a regular file, or a path that does not exist yet")
            }
            Repr::NotRegularFile { expected: Expected::Inspectable, .. } => {
                Some("give the path of a lock file, an event, a semaphore or a barrier")
            }
            Repr::CapacityMismatch { counted: Counted::Participants, .. } => {
                Some("open it with this number, or remove its directory while it is not in use")
            }
            Repr::CapacityMismatch { .. } => Some(
                "open it with this capacity or with `open_existing`, or change the capacity with `set_capacity`",
            ),
            Repr::Unsupported { source, .. } if sys::SUPPORTED => {
                let otherwise = "choose a path on another file system, preferably a local one";
                Some(sys::hint_of(source).unwrap_or(otherwise))
            }
            Repr::Corrupt { hint, .. } => Some(hint),
            Repr::Broken { .. } => Some(
                "check whether a participant died or timed out, and call `reset` when none waits any more",
            ),
            Repr::Lost { .. } => Some(
                "check the work that was done under the lock, and use `fencing_token` to reject such work",
            ),
            Repr::Cancelled { .. } | Repr::InvalidPermits { .. } | Repr::Unsupported { .. } => None,
            Repr::Io { operation, source, .. } => hint::of(*operation, source),
        }
    }

    /// Whether the user lacks permission, or the file system is read-only.
    fn is_refused(&self) -> bool {
        let kind = self.io_kind();
        matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }

    /// Whether the system does not permit this user to create a file that was missing. Another
    /// process may have created it since, so whether it exists now does not matter.
    pub(crate) fn is_creation_refused(&self) -> bool {
        self.operation() == Some(Operation::Create) && self.is_refused()
    }

    /// The nearest kind of [`std::io::Error`].
    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match &*self.0 {
            Repr::WouldBlock { .. } => io::ErrorKind::WouldBlock,
            Repr::TimedOut { .. } => io::ErrorKind::TimedOut,
            Repr::NotRegularFile { .. }
            | Repr::CapacityMismatch { .. }
            | Repr::InvalidPermits { .. } => io::ErrorKind::InvalidInput,
            Repr::Corrupt { .. } => io::ErrorKind::InvalidData,
            // Not `Interrupted`, after which callers try again.
            Repr::Cancelled { .. } | Repr::Broken { .. } | Repr::Lost { .. } => {
                io::ErrorKind::Other
            }
            Repr::Unsupported { .. } => io::ErrorKind::Unsupported,
            Repr::Io { source, .. } => source.kind(),
        }
    }
}

// -------------------------------------------------------------------------------------------- text

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock { path, contention } if f.alternate() => {
                contention.write_now_if_known(f, path)
            }
            Self::WouldBlock { path, contention } => contention.write_now(f, path),
            Self::TimedOut { path, waited, contention } if waited.is_zero() => {
                contention.write_now_with_holders(f, path)
            }
            Self::TimedOut { path, waited, contention } => {
                let (path, waited) = (path.display(), seconds(*waited));
                write!(f, "timed out after {waited} s waiting for `{path}`: ")?;
                contention.write_reason(f)
            }
            Self::Cancelled { path, waited } => {
                let (path, waited) = (path.display(), seconds(*waited));
                write!(f, "the wait for `{path}` was cancelled after {waited} s")
            }
            Self::NotRegularFile { path, found, expected } => {
                let expected = match expected {
                    Expected::File => "a regular file",
                    Expected::Directory => "a directory",
                    Expected::Semaphore => "a semaphore's directory",
                    Expected::Barrier => "a barrier's directory",
                    Expected::Inspectable => "a lock file, an event, a semaphore or a barrier",
                };
                write!(f, "`{}` is {found}, not {expected}", path.display())
            }
            Self::CapacityMismatch { path, counted, capacity, requested } => {
                let plural = if *capacity == 1 { "" } else { "s" };
                let path = path.display();
                let (primitive, unit) = counted.names();
                write!(f, "the {primitive} `{path}` has {capacity} {unit}{plural}, not {requested}")
            }
            Self::InvalidPermits { path, counted, range: (least, most), requested } => {
                let (path, (_, unit)) = (path.display(), counted.names());
                write!(f, "invalid number of {unit}s for `{path}`: {requested} ")?;
                match least.cmp(most) {
                    Less => write!(f, "(must be {least} to {most})"),
                    Equal => write!(f, "(must be {least})"),
                    Greater => f.write_str("(a single permit cannot be split)"),
                }
            }
            Self::Corrupt { path, problem, .. } => {
                write!(f, "`{}` is damaged: {problem}", path.display())
            }
            Self::Broken { path } => write!(f, "the barrier `{}` is broken", path.display()),
            Self::Lost { path } => {
                let path = path.display();
                write!(f, "the lock of `{path}` was lost: the file server had dropped it")
            }
            Self::Unsupported { path, source } if sys::hint_of(source).is_some() => {
                write!(f, "could not lock `{}`: {source}", path.display())
            }
            Self::Unsupported { path, source } if sys::SUPPORTED => {
                let path = path.display();
                write!(
                    f,
                    "could not lock `{path}`: its file system does not support locks ({source})"
                )
            }
            Self::Unsupported { path, .. } => {
                let path = path.display();
                write!(f, "could not lock `{path}`: flockwork does not support this platform")
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

/// Seconds with three decimals below one second, and one above.
fn seconds(span: Duration) -> String {
    if span >= Duration::from_secs(1) {
        return tenths(span);
    }
    let milliseconds = (span.as_micros() + 500) / 1000;
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
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
