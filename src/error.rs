//! What can go wrong, always with the path.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use once_cell::race::OnceBox;

use crate::holder::Holder;
use crate::record;
use crate::sys;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and on which path.
///
/// Not getting a lock at once or in time is an error value as well, so that `let _guard =
/// lock.try_lock()?;` cannot walk on without the lock: see [`is_would_block`](Self::is_would_block)
/// and [`is_timed_out`](Self::is_timed_out).
///
/// The text of an error is one clause, with what failed, the path and the reason, and after a semicolon a hint what to
/// do about it, if there is one: [`hint`](Self::hint) returns that part alone. `source()` returns the system's own error.
/// Converts into [`std::io::Error`] with its [`kind`](Self::kind) kept.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("build.lock");
/// let lock = flockwork::Lock::open(&path)?;
/// let _held = lock.lock()?;
///
/// let error = lock.try_lock().unwrap_err();
/// assert!(error.is_would_block());
/// assert_eq!(error.path(), path);
/// assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::WouldBlock);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process or thread holds it, or the event is not set, and the call was one that never waits.
    #[non_exhaustive]
    WouldBlock {
        /// What was asked for.
        path: Arc<Path>,
        /// Who has it: see [`Error::holder`].
        holder: HeldBy,
    },

    /// Another process or thread held it, or the event was not set, for as long as the caller was ready to wait.
    #[non_exhaustive]
    TimedOut {
        /// What was asked for.
        path: Arc<Path>,
        /// How long the call waited.
        waited: Duration,
        /// Who has it: see [`Error::holder`].
        holder: HeldBy,
    },

    /// There is something at the path that must not be opened or locked: a directory, a symbolic link,
    /// a FIFO, a socket, a device (in the place of a semaphore's directory: anything that is none). It was
    /// left as it was.
    #[non_exhaustive]
    NotRegularFile {
        /// What was asked for.
        path: Arc<Path>,
        /// What is there: "a directory", "a symbolic link" ...
        found: &'static str,
        /// What should be there: "a regular file", and for a semaphore "a directory".
        wanted: &'static str,
    },

    /// The semaphore exists with another number of permits.
    #[non_exhaustive]
    CapacityMismatch {
        /// The semaphore.
        path: Arc<Path>,
        /// How many permits it has.
        stored: u32,
        /// How many it was to be opened with.
        requested: u32,
    },

    /// The number of permits is invalid: zero, more than the semaphore has, or more than any semaphore can have.
    #[non_exhaustive]
    InvalidPermits {
        /// The semaphore.
        path: Arc<Path>,
        /// How many were asked for.
        requested: u32,
        /// How many can be asked for.
        most: u32,
    },

    /// A file that flockwork keeps does not hold what it should: somebody else wrote to it, or a disk lost
    /// it. Nothing was changed.
    #[non_exhaustive]
    Corrupt {
        /// The damaged file.
        path: Arc<Path>,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// The file system or the platform has no locks. Nothing was locked.
    #[non_exhaustive]
    Unsupported {
        /// What was asked for.
        path: Arc<Path>,
        /// What the system said.
        source: io::Error,
    },

    /// The system refused an operation.
    #[non_exhaustive]
    Io {
        /// What was asked for.
        path: Arc<Path>,
        /// What was tried: "open", "lock" ...
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &Arc<Path>, source: io::Error) -> Self {
        Self::Io { path: Arc::clone(path), operation, source }
    }

    pub(crate) fn would_block(path: &Arc<Path>) -> Self {
        Self::WouldBlock { path: Arc::clone(path), holder: HeldBy::default() }
    }

    pub(crate) fn timed_out(path: &Arc<Path>, waited: Duration) -> Self {
        let holder = HeldBy::default();
        // Now: by the time that somebody reads the error another one may have it.
        let _looked = holder.all(path);
        Self::TimedOut { path: Arc::clone(path), waited, holder }
    }

    /// A guard was used in a process that got it by `fork`.
    pub(crate) fn forked_copy(operation: &'static str, path: &Arc<Path>) -> Self {
        let source = io::Error::other(
            "this guard is a copy made by `fork`, and the lock belongs to the process that acquired it",
        );
        Self::io(operation, path, source)
    }

    pub(crate) fn lacking(path: &Arc<Path>, lack: Lack) -> Self {
        Self::WouldBlock { path: Arc::clone(path), holder: HeldBy::nobody(lack, 0) }
    }

    /// `others`: how many more events were waited for in vain.
    pub(crate) fn timed_out_lacking(
        path: &Arc<Path>,
        waited: Duration,
        lack: Lack,
        others: usize,
    ) -> Self {
        let holder = HeldBy::nobody(lack, others);
        Self::TimedOut { path: Arc::clone(path), waited, holder }
    }

    pub(crate) fn not_regular(path: &Arc<Path>, found: &'static str) -> Self {
        Self::NotRegularFile { path: Arc::clone(path), found, wanted: "a regular file" }
    }

    /// The same error of the lock beside `path`, for what `path` is: who has the lock is in the way of that.
    pub(crate) fn about(mut self, path: &Arc<Path>) -> Self {
        if let Self::WouldBlock { path: asked, holder }
        | Self::TimedOut { path: asked, holder, .. } = &mut self
        {
            let locked = std::mem::replace(asked, Arc::clone(path));
            holder.more().locked.get_or_insert(locked);
        }
        self
    }

    /// The same error of what is nobody's, but comes about by those who have the lock `locked`.
    pub(crate) fn up_to(mut self, locked: &Arc<Path>) -> Self {
        if let Self::TimedOut { path, holder, .. } = &mut self {
            holder.more().locked = Some(Arc::clone(locked));
            let _looked = holder.all(path); // now
        }
        self
    }

    /// The same error of a lock to which one comes through a gate: who waits there is in the way as well.
    pub(crate) fn behind(mut self, gate: &Arc<Path>) -> Self {
        if let Self::WouldBlock { holder, .. } | Self::TimedOut { holder, .. } = &mut self {
            holder.more().gate = Some(Arc::clone(gate));
        }
        if let Self::TimedOut { path, holder, .. } = &self {
            let _looked = holder.in_words(path); // now
        }
        self
    }

    /// The path that the operation was about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::WouldBlock { path, .. }
            | Self::TimedOut { path, .. }
            | Self::NotRegularFile { path, .. }
            | Self::CapacityMismatch { path, .. }
            | Self::InvalidPermits { path, .. }
            | Self::Corrupt { path, .. }
            | Self::Unsupported { path, .. }
            | Self::Io { path, .. } => path,
        }
    }

    /// Whether it was somebody else's at that moment ([`Error::WouldBlock`]).
    #[must_use]
    pub fn is_would_block(&self) -> bool {
        matches!(self, Self::WouldBlock { .. })
    }

    /// Whether the time ran out ([`Error::TimedOut`]).
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// Who was in the way (of a semaphore the first of its holders); `None` where that is not known: it has let go since, or it left no record and
    /// the system does not tell (see [`Lock::holder`](crate::Lock::holder)).
    ///
    /// A refused `try_` call costs half a microsecond, and finding out who is in the way twenty: so
    /// [`Error::WouldBlock`] looks when it is first asked (or printed) and remembers the answer.
    /// [`Error::TimedOut`] has looked when it was made.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::WouldBlock { path, holder } | Self::TimedOut { path, holder, .. } => {
                holder.all(path).first()
            }
            _ => None,
        }
    }

    /// What to do about it, if there is a hint: the end of the error's text, after the semicolon.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let error = flockwork::Lock::open(dir.path()).unwrap_err();
    /// let hint = error.hint().expect("there is something to do about it");
    /// assert!(error.to_string().ends_with(&format!("; {hint}")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::WouldBlock { path, holder } => Some(holder.advice_at_once(path)),
            Self::TimedOut { path, waited, holder } if waited.is_zero() => {
                Some(holder.advice_at_once(path))
            }
            Self::TimedOut { path, holder, .. } => Some(holder.advice_in_time(path)),
            Self::NotRegularFile { found, .. } if *found == "a symbolic link" => Some(
                "give the path that the link leads to (links in parent directories are followed)",
            ),
            Self::NotRegularFile { wanted, .. } if *wanted == "a directory" => {
                Some("give the path of a directory, or one where nothing exists yet")
            }
            Self::NotRegularFile { .. } => {
                Some("give the path of a regular file, or one where nothing exists yet")
            }
            Self::CapacityMismatch { .. } => Some(
                "open it with that number, open it as it is (`open_existing`), or change it for all (`resize`)",
            ),
            Self::Unsupported { .. } if sys::SUPPORTED => {
                Some("put it on another file system, a local one if possible")
            }
            Self::InvalidPermits { .. } | Self::Corrupt { .. } | Self::Unsupported { .. } => None,
            Self::Io { operation, source, .. } => advice(operation, source),
        }
    }

    /// Without the hint.
    fn clause(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path().display();
        match self {
            Self::WouldBlock { path: asked, holder } => {
                write!(f, "`{path}` {}", holder.state(asked))
            }
            Self::TimedOut { path: asked, waited, holder } if waited.is_zero() => {
                match holder.lack() {
                    Some((lack, others @ 1..)) => {
                        let are = lack.now().replacen("is ", "are ", 1);
                        write!(f, "`{path}` and {} {are}", count(others, "other"))
                    }
                    _ => write!(f, "`{path}` {}", holder.state(asked)),
                }
            }
            Self::TimedOut { path: asked, waited, holder } => {
                let (waited, why) = (seconds(*waited), holder.time_out(asked));
                write!(f, "gave up after {waited} s of waiting for `{path}`: {why}")
            }
            Self::NotRegularFile { found, wanted, .. } => {
                write!(f, "`{path}` is {found}, not {wanted}")
            }
            Self::CapacityMismatch { stored, requested, .. } => {
                write!(
                    f,
                    "the semaphore `{path}` has {}, not {requested}",
                    count(*stored, "permit")
                )
            }
            Self::InvalidPermits { requested, most, .. } => {
                let to_most = if *most > 1 { format!(" to {most}") } else { String::new() };
                write!(f, "invalid number of permits of `{path}`: {requested} (must be 1{to_most})")
            }
            Self::Corrupt { problem, .. } => write!(f, "`{path}` is damaged: {problem}"),
            Self::Unsupported { source, .. } if sys::SUPPORTED => write!(
                f,
                "could not lock `{path}`: its file system has no advisory locks ({source})"
            ),
            Self::Unsupported { .. } => {
                write!(f, "could not lock `{path}`: flockwork has no file locks on this platform")
            }
            Self::Io { operation, source, path } if path.as_os_str().is_empty() => {
                let empty = if *operation == "resolve" { " an empty path" } else { "" };
                write!(f, "could not {operation}{empty}: {source}")
            }
            Self::Io { operation, source, .. } => {
                write!(f, "could not {operation} `{path}`: {source}")
            }
        }
    }

    /// The number of the system's own error, for [`Error::Io`] and [`Error::Unsupported`].
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Unsupported { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// The nearest kind that [`std::io::Error`] has: the system's own for [`Error::Io`].
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::WouldBlock { .. } => io::ErrorKind::WouldBlock,
            Self::TimedOut { .. } => io::ErrorKind::TimedOut,
            Self::NotRegularFile { .. }
            | Self::CapacityMismatch { .. }
            | Self::InvalidPermits { .. } => io::ErrorKind::InvalidInput,
            Self::Corrupt { .. } => io::ErrorKind::InvalidData,
            Self::Unsupported { .. } => io::ErrorKind::Unsupported,
            Self::Io { source, .. } => source.kind(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clause(f)?;
        match self.hint() {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    /// With the holder looked up: `fn main() -> Result<(), ...>` prints errors in this form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock { path, holder } => {
                holder.finish(path, f.debug_struct("WouldBlock").field("path", path))
            }
            Self::TimedOut { path, waited, holder } => {
                let mut debug = f.debug_struct("TimedOut");
                holder.finish(path, debug.field("path", path).field("waited", waited))
            }
            Self::NotRegularFile { path, found, wanted } => f
                .debug_struct("NotRegularFile")
                .field("path", path)
                .field("found", found)
                .field("wanted", wanted)
                .finish(),
            Self::CapacityMismatch { path, stored, requested } => f
                .debug_struct("CapacityMismatch")
                .field("path", path)
                .field("stored", stored)
                .field("requested", requested)
                .finish(),
            Self::InvalidPermits { path, requested, most } => f
                .debug_struct("InvalidPermits")
                .field("path", path)
                .field("requested", requested)
                .field("most", most)
                .finish(),
            Self::Corrupt { path, problem } => {
                f.debug_struct("Corrupt").field("path", path).field("problem", problem).finish()
            }
            Self::Unsupported { path, source } => {
                f.debug_struct("Unsupported").field("path", path).field("source", source).finish()
            }
            Self::Io { path, operation, source } => f
                .debug_struct("Io")
                .field("path", path)
                .field("operation", operation)
                .field("source", source)
                .finish(),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Who is in the way, looked up once: the part of an [`Error`] behind [`Error::holder`].
#[derive(Debug, Default)]
pub struct HeldBy {
    found: OnceBox<Vec<Holder>>,
    /// What there is to be said besides, kept apart: a refused try should be small.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// What they hold, if it is not the path that was asked for.
    locked: Option<Arc<Path>>,
    /// Where others may wait in front, and who is the first of them.
    gate: Option<Arc<Path>>,
    in_front: OnceBox<Option<Holder>>,
    /// What is missing, and at how many other paths, of an event, which is nobody's.
    lack: Option<(Lack, usize)>,
}

/// What an event has not come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    NotSet,
    StillSet,
    NotConsumed,
    /// Of something that is to be done once.
    NotDone,
    /// It is set, and somebody else has the lock of those who consume.
    BeingConsumed,
}

impl Lack {
    /// After a wait.
    fn in_words(self) -> &'static str {
        match self {
            Self::NotSet => "it was not set",
            Self::StillSet => "it was still set",
            Self::NotDone => "it was not done",
            Self::NotConsumed => "it was not set, or others consumed it first",
            Self::BeingConsumed => "it is set, but another process is consuming it",
        }
    }

    /// At this moment.
    fn now(self) -> &'static str {
        match self {
            Self::NotSet | Self::NotConsumed => "is not set",
            Self::StillSet => "is still set",
            Self::NotDone => "is not done",
            Self::BeingConsumed => "is being consumed by another process",
        }
    }
}

impl HeldBy {
    fn nobody(lack: Lack, others: usize) -> Self {
        let more = More { lack: Some((lack, others)), ..More::default() };
        Self { found: OnceBox::new(), more: Some(Box::new(more)) }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    fn lack(&self) -> Option<(Lack, usize)> {
        self.more.as_ref()?.lack
    }

    fn all(&self, path: &Path) -> &[Holder] {
        let locked = match self.more.as_deref() {
            Some(More { locked: Some(locked), .. }) => locked,
            Some(More { lack: Some(_), .. }) => return &[], // an event is nobody's
            _ => path,
        };
        self.found.get_or_init(|| Box::new(record::find(locked, true).unwrap_or_default()))
    }

    /// The end of an error's `Debug` form.
    fn finish(&self, path: &Path, debug: &mut fmt::DebugStruct<'_, '_>) -> fmt::Result {
        if let Some((lack, _)) = self.lack() {
            debug.field("state", &lack.in_words());
            if lack != Lack::NotDone {
                return debug.finish();
            }
        }
        debug.field("holder", &self.all(path).first()).finish()
    }

    fn in_words(&self, path: &Path) -> String {
        let holders = self.all(path);
        let held = match holders {
            [] => "held by an unknown process".into(),
            [holder] => format!("held by {holder}"),
            [first, others @ ..] => format!("held by {first}, and {} more", others.len()),
        };
        // Readers keep no reader out: it is somebody who waits for them.
        let Some(More { gate: Some(gate), in_front, .. }) = self.more.as_deref() else {
            return held;
        };
        if !holders.iter().all(Holder::is_shared) {
            return held;
        }
        let look = || Box::new(record::find(gate, false).unwrap_or_default().into_iter().next());
        match in_front.get_or_init(look) {
            Some(first) => format!("{held}, and waited for by {first}"),
            None => held,
        }
    }

    fn is_own(&self, path: &Path) -> bool {
        self.all(path).iter().any(Holder::is_this_process)
    }

    /// What it is at this moment.
    fn state(&self, path: &Path) -> String {
        match self.lack() {
            None => format!("is busy: {}", self.in_words(path)),
            Some((lack, _)) => match self.all(path) {
                [holder, ..] if lack == Lack::NotDone => {
                    format!("is being done by {holder}")
                }
                _ => lack.now().into(),
            },
        }
    }

    /// What to do after a call that did not wait.
    fn advice_at_once(&self, path: &Path) -> &'static str {
        if self.is_own(path) {
            return "release this process's own guard first, or use a call that waits if another thread holds it";
        }
        "try again later, or use a call that waits"
    }

    /// The reason why the wait timed out.
    fn time_out(&self, path: &Path) -> String {
        let Some((lack, others)) = self.lack() else { return self.in_words(path) };
        let words = lack.in_words();
        if let (Lack::NotDone, [holder, ..]) = (lack, self.all(path)) {
            return format!("{words}, and is being done by {holder}");
        }
        match others {
            0 => words.into(),
            1 => format!("{words}, nor was 1 other"),
            others => format!("{words}, nor were {others} others"),
        }
    }

    fn advice_in_time(&self, path: &Path) -> &'static str {
        match self.lack() {
            None if self.is_own(path) => {
                "release this process's own guard first, or wait longer if another thread holds it"
            }
            None => "wait longer, or see what the holder is doing",
            Some((Lack::StillSet, _)) => {
                "wait longer, or see whether the program that should clear it is running"
            }
            Some((Lack::BeingConsumed, _)) => {
                "wait longer, or see which process holds the lock beside it"
            }
            Some((Lack::NotSet | Lack::NotConsumed, _)) => {
                "wait longer, or see whether the program that should set it is running"
            }
            Some((Lack::NotDone, _)) if self.all(path).is_empty() => {
                "wait longer, or see whether a program that does it is running"
            }
            Some((Lack::NotDone, _)) => "wait longer, or see what that process is doing",
        }
    }
}

/// With the plural of the noun where it is not one.
fn count<N: Copy + fmt::Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// No more digits than a reader wants.
fn seconds(span: Duration) -> String {
    let digits = if span < Duration::from_secs(1) { 3 } else { 1 };
    format!("{:.digits$}", span.as_secs_f64())
}

/// What changes a directory that should be writable.
const CHANGES: &[&str] = &["set", "clear", "consume", "write"];

/// What to do about a refusal, where the system's own words do not say it.
fn advice(operation: &str, source: &io::Error) -> Option<&'static str> {
    let advice = match source.kind() {
        // It says itself what to do.
        io::ErrorKind::PermissionDenied if source.get_ref().is_some() => "",
        io::ErrorKind::PermissionDenied => match operation {
            "open" | "read the payload of" | "read" => {
                "this user must be able to read the file (its creator can permit it by `Options::access`)"
            }
            "write" => {
                "this user must be able to write to the file and to its directory (their creator can permit it by `Options::access`)"
            }
            "look up" => {
                "this user must be able to enter every directory of the path (their creator can permit it by `Options::access`)"
            }
            "lock" => "a sandbox or security policy does not let this process lock the file",
            _ if operation.starts_with("create") => {
                "this user must be able to write to the directory (its creator can permit it by `Options::access`)"
            }
            _ if CHANGES.contains(&operation) => {
                "this user must be able to write to the directory, and own the file if that is \
                 sticky, as `/tmp` is"
            }
            _ => "check the owners and modes of the file and its directory",
        },
        io::ErrorKind::InvalidData => "read it as bytes, or see which program writes it",
        io::ErrorKind::ReadOnlyFilesystem if CHANGES.contains(&operation) => {
            "choose a path on a file system that can be written to"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "a lock file that exists can be locked there, but none can be created"
        }
        io::ErrorKind::StorageFull => "free some space or choose another file system",
        io::ErrorKind::QuotaExceeded => "free some of your quota or choose another file system",
        io::ErrorKind::InvalidInput if operation == "resolve" => "give the path of a file",
        io::ErrorKind::NotFound if operation == "resolve" => "the current directory is gone",
        io::ErrorKind::NotFound if operation == "read" => {
            "no program has written it yet, or it was removed"
        }
        io::ErrorKind::NotADirectory => "a part of the path that should be a directory is a file",
        io::ErrorKind::IsADirectory => "give the path of a file, without a slash at its end",
        _ => sys::advice(source).trim_start_matches("; "),
    };
    Some(advice).filter(|advice| !advice.is_empty())
}
