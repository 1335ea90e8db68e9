//! The `Event`: a marker file, and the waits for it to appear or disappear.

mod announcement;
mod seen;
mod wait;

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::announcement::Announcement;
use self::seen::Seen;
pub use self::wait::EventFuture;
use self::wait::{CheckFn, EventWait, all_set, cleared, consumed, with_payload};
use crate::cancel::Cancels;
use crate::error::{Error, Obstacle, Result};
use crate::file::marker::{Consumed, Marker};
use crate::options::{OnWait, Options};
use crate::paths::resolved;
use crate::wait::{Kept, Limit, Server, WaitHooks, is_watchable, open};

/// A flag at a path that any program can set to wake all waiters, in all processes and threads.
///
/// The event is set while a regular file exists at the path, and clear while none does. The file's
/// contents are the event's payload: a port, a version, a result. A shell script sets the event
/// with `touch`, clears it with `rm` and checks it with `test -e`. Waiters sleep until the file
/// system reports the change, and poll only where it does not report changes.
///
/// An event stays set until it is cleared, and all waiters proceed while it is set, as with
/// `threading.Event` in Python or a manual-reset event on Windows. With [`consume`](Self::consume)
/// it works as an auto-reset event: of all callers that consume, exactly one receives each setting
/// and its payload.
///
/// An `Event` is a cheap handle: clone it, share it between threads, and keep it for later use. It
/// keeps no file descriptor open until it first consumes a setting. A process that dies while it
/// waits leaves nothing behind.
///
/// # Waiting
///
/// [`wait`](Self::wait), [`wait_payload`](Self::wait_payload), [`wait_cleared`](Self::wait_cleared)
/// and [`consume`](Self::consume) each have five forms. The plain form blocks without limit, `try_`
/// never blocks, `_timeout` and `_deadline` give up, and `_async` returns a future. All futures
/// follow [the same rules](crate#futures).
///
/// A zero timeout, or a deadline that has passed, checks once. A timeout too large for [`Instant`]
/// waits forever. A wait follows the path, even if a parent directory is missing, removed or
/// replaced in the meantime.
///
/// # Examples
///
/// A server announces its port, and any number of clients wait for it. When the server ends, even
/// by SIGKILL, the event is clear again:
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("server.ready");
/// use std::time::Duration;
/// use flockwork::Event;
///
/// // The server, once it accepts connections:
/// let announcement = Event::open(&path)?.set_while_alive("40123")?;
///
/// // A client, started earlier or later:
/// let ready = Event::open(&path)?;
/// match ready.wait_payload_timeout(Duration::from_secs(30)) {
///     Ok(port) => println!("listens on port {}", String::from_utf8_lossy(&port)),
///     Err(error) if error.is_timed_out() => eprintln!("{error}"),
///     Err(error) => return Err(error.into()),
/// }
///
/// drop(announcement); // the server ends
/// assert!(!ready.is_set()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An event that is set with [`set`](Self::set) or [`set_with`](Self::set_with) outlives the
/// process that set it:
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("built");
/// use flockwork::Event;
///
/// Event::open(&path)?.set_with("version 17")?;
/// // ... in another process, later ...
/// assert_eq!(Event::open(&path)?.wait_payload()?, b"version 17");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Setting an event that is already set replaces its payload, and a reader gets either the old
/// payload or the new one. Waiters are not notified of a replacement. Producers whose payloads must
/// each reach a consumer use [`set_new`](Self::set_new):
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// use flockwork::Event;
///
/// let progress = Event::open(dir.join("progress"))?;
/// progress.set_with(b"10 %")?;
/// progress.set_with(b"20 %")?; // replaces it
/// assert_eq!(progress.payload()?.as_deref(), Some(&b"20 %"[..]));
///
/// let job = Event::open(dir.join("job"))?;
/// assert!(job.set_new("build 1")?);
/// assert!(!job.set_new("build 2")?); // wait until it is cleared, and try again
/// assert_eq!(job.consume()?, b"build 1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`recipes`](crate::_documentation::recipes) has more examples, including shell scripts.
///
/// # Fairness
///
/// All waiters are notified at once and return in no particular order. Callers that consume compete
/// for each setting: any of them may receive it, including one that has only just started to wait.
///
/// # Caveats
///
/// * A pulse may be missed. A waiter checks the file after it is notified, so it may not notice an
///   event that is set and cleared again immediately. Use [`consume`](Self::consume) if one waiter
///   must act on each setting.
/// * The event may be clear again by the time [`wait`](Self::wait) returns. It was set at some
///   moment during the call.
/// * A setting made by [`set`](Self::set), [`set_with`](Self::set_with) or `touch` stays until a
///   program clears it, even after the process that made it has died, and usually even after a
///   reboot. Use [`set_while_alive`](Self::set_while_alive) for an event that describes a running
///   process.
/// * Only flockwork sets a payload in one step. `echo 40123 > server.ready` creates the file first
///   and writes to it afterwards. Write to another name in the same directory, then `mv` the file.
/// * The event owns the names `P`, `P.flock` and `P.taken` for its path `P`. A program that creates
///   a file at `P` sets the event, even by opening a [`Lock`](crate::Lock) there.
///   [`consume`](Self::consume), and calls that remove what a dead process announced, create
///   `P.flock`, which stays. `P.taken` exists for a moment. Do not open another lock or event at
///   these names.
///
/// # Errors
///
/// Every method that fails returns an [`Error`] of one of these kinds, except where it names
/// another:
///
/// * [`NotRegularFile`](crate::ErrorKind::NotRegularFile) if the path names something other than a
///   regular file, such as a directory or a symbolic link. It is left unchanged.
///   [`Options::any_file_type`] permits any type.
/// * [`Io`](crate::ErrorKind::Io) if the system refuses the operation, for example because the file
///   cannot be created or read, or a parent of the path is not a directory.
///
/// # Platform-specific behavior
///
/// * Linux: waiters are notified through inotify. If the user has no inotify instance left (the
///   limit is 128 by default, for all processes together), or the process may not read the
///   directory, waiters poll every 1 to 10 milliseconds for 5 seconds and up to every 50
///   milliseconds later, and try inotify again every 10 seconds.
/// * macOS, BSD, Windows: waiters are notified by the system, and also check every 20 to 100
///   milliseconds, since these systems can lose notifications.
/// * illumos and network file systems (NFS, SMB, FUSE ...): waiters poll every 1 to 50
///   milliseconds. On a network file system each check reads the directory, so use a separate
///   directory for events there. After 5 seconds without a change, pauses grow to a twentieth of
///   that time, and to a second at most. One process of a host polls for all others of the same
///   user. With [`Options::poll_interval`] each waiter polls at that interval instead.
/// * Without the feature `watch`, waiters poll on every system.
/// * Windows: [`clear`](Self::clear) and [`consume`](Self::consume) retry for about a second, and
///   then fail, while another program has the file open without sharing deletion.
#[derive(Clone)]
pub struct Event {
    inner: Arc<Inner>,
}

struct Inner {
    marker: Marker,
    poll_every: Option<Duration>,
    backstop: Option<Duration>,
    on_wait: Option<OnWait>,
    cancels: Cancels,
    /// Whether programs that this process starts keep an announcement.
    inherits: bool,
    server: Option<Server>,
}

impl Event {
    /// Opens the event at `path` without creating anything.
    ///
    /// A missing parent directory may be created later, by the program that sets the event:
    /// [`set`](Self::set), [`set_with`](Self::set_with) and [`set_new`](Self::set_new) create it.
    ///
    /// How paths are resolved is described in [Paths](crate#paths). A link in a parent directory
    /// that leads to nothing counts as a directory that does not exist yet.
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_event(path)
    }

    /// Sets the event and wakes all waiters. Returns `true` if the event was clear.
    ///
    /// If the event is already set, nothing changes and its payload stays. If several callers set a
    /// clear event at the same time, exactly one of the calls returns `true`. Missing parent
    /// directories are created.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("generated");
    /// let generated = flockwork::Event::open(&path)?;
    /// assert!(generated.set()?);
    /// assert!(!generated.set()?); // it was set already
    /// assert!(path.exists()); // `touch generated` would have done the same
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn set(&self) -> Result<bool> {
        self.ask(|inner| inner.marker.set())
    }

    /// Sets the event with a payload, replacing any previous one. Returns `true` if the event was
    /// clear.
    ///
    /// The returned value may be out of date if another process clears or consumes the event during
    /// the call.
    ///
    /// The payload may have any length. No process ever reads a part of it, even if the caller is
    /// killed: the payload is written to a temporary file beside the path (`.flockwork.*`), synced
    /// and renamed. A process that is killed while it writes leaves the temporary file behind, and
    /// the next process that sets the event removes it. On a network file system the file stays,
    /// because a killed writer cannot be distinguished from a writer on another host.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let ready = flockwork::Event::open(dir.path().join("ready"))?;
    /// ready.set_with(b"40123")?;
    /// assert_eq!(ready.payload()?.as_deref(), Some(&b"40123"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors). The event is unchanged after an error.
    pub fn set_with(&self, payload: impl AsRef<[u8]>) -> Result<bool> {
        self.ask_with(payload.as_ref(), |inner, payload| inner.marker.set_with(payload))
    }

    /// Sets the event with a payload only if it is clear, in one step. Returns `true` if it did.
    ///
    /// If the event is already set, nothing changes. If several callers set a clear event at the
    /// same time, exactly one of the calls returns `true`, and the event carries that caller's
    /// payload. Several producers can therefore share one event without losing a payload: a
    /// producer that gets `false` waits until the event is [cleared](Self::wait_cleared) and tries
    /// again.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let job = flockwork::Event::open(dir.path().join("job"))?;
    /// while !job.set_new("build 17")? {
    ///     job.wait_cleared()?;
    /// }
    /// assert!(!job.set_new("build 18")?); // it is set
    /// assert_eq!(job.consume()?, b"build 17");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors). The event is unchanged after an error.
    ///
    /// # Platform-specific behavior
    ///
    /// A file system that supports neither a rename without replacement nor hard links (exFAT, some
    /// FUSE file systems) has no single step for this. There, a setting that another process makes
    /// between the check and the rename is replaced.
    pub fn set_new(&self, payload: impl AsRef<[u8]>) -> Result<bool> {
        self.ask_with(payload.as_ref(), |inner, payload| inner.marker.set_new(payload))
    }

    /// Sets the event with a payload until the returned [`Announcement`] is dropped or this process
    /// ends.
    ///
    /// The event is clear after the process has ended in any way, SIGKILL and a loss of power
    /// included. Callers of [`wait_cleared`](Self::wait_cleared) are woken then. A process that is
    /// only stopped (SIGSTOP) keeps the event set.
    ///
    /// Any other setting of the event is replaced, also one that another living process announced:
    /// the last call counts. A server of which only one may run acquires a [`Lock`](crate::Lock)
    /// first. Other calls change an announced event too:
    ///
    /// * [`set`](Self::set) and [`set_new`](Self::set_new) change nothing while it is set. The
    ///   event is still cleared when the process that announced it ends.
    /// * [`set_with`](Self::set_with) replaces the announcement by a setting that stays.
    /// * [`clear`](Self::clear) and [`consume`](Self::consume) end it.
    ///
    /// [`Announcement::still_set`] returns `false` after the last three. The file of a process that
    /// has died stays until a call sets or clears the event, or tries to consume it. So a shell
    /// script cannot use `test -e` for an announced event. [`inspect`](crate::inspect()) returns
    /// the process that announced it as the holder of the path (not on Windows).
    ///
    /// The modification time of the file, which is in the year 2004, marks an announcement. A
    /// program that touches the file or writes to it makes it a setting that stays.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let ready = flockwork::Event::open(dir.path().join("ready"))?;
    /// {
    ///     let _announcement = ready.set_while_alive("40123")?;
    ///     assert_eq!(ready.payload()?.as_deref(), Some(&b"40123"[..]));
    ///     assert!(!ready.set()?); // it is set already
    /// }
    /// assert!(!ready.is_set()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors), and [`Unsupported`](crate::ErrorKind::Unsupported)
    /// if the file system has no locks or does not store modification times. The event is unchanged
    /// after an error. (Windows: it may be clear.)
    ///
    /// # Platform-specific behavior
    ///
    /// * A process that checks an announced event opens its file and tests its lock, so it must be
    ///   allowed to read the file.
    /// * Linux: waiters are notified of the process's end. Elsewhere, and on network file systems,
    ///   they notice it at their next check (see [above](Self#platform-specific-behavior)).
    /// * Network file systems: other hosts see an announcement if they see locks of this host. When
    ///   the server loses the connection to this host, it may drop the lock, and the event is clear
    ///   then. On SMB, other hosts cannot read the payload while the file is locked.
    /// * Windows: while an announcement is replaced, the event is clear for a moment.
    pub fn set_while_alive(&self, payload: impl AsRef<[u8]>) -> Result<Announcement> {
        let announced = self.ask_with(payload.as_ref(), |inner, payload| {
            let announced = inner.marker.announce(payload)?;
            if inner.inherits {
                announced.make_inheritable()?;
            }
            Ok(announced)
        })?;
        Ok(Announcement { announced: Kept::new(announced, self.inner.server.as_ref()) })
    }

    /// Clears the event and wakes all callers of [`wait_cleared`](Self::wait_cleared). Returns
    /// `true` if the event was set.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let ready = flockwork::Event::open(dir.path().join("ready"))?;
    /// ready.set()?;
    /// assert!(ready.clear()?);
    /// assert!(!ready.clear()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn clear(&self) -> Result<bool> {
        self.ask(|inner| inner.marker.clear())
    }

    /// Returns `true` if the event is set at this moment.
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn is_set(&self) -> Result<bool> {
        self.ask(|inner| inner.marker.is_set())
    }

    /// Returns the event's payload, or `None` if the event is clear.
    ///
    /// The payload is empty if the event was set without one, or by `touch`. All bytes belong to
    /// one setting, even if the event is set again during the call.
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn payload(&self) -> Result<Option<Vec<u8>>> {
        self.ask(|inner| inner.marker.payload())
    }

    // ------------------------------------------------------------------------------------ wait

    /// Blocks the current thread until the event is set.
    ///
    /// Returns immediately if the event is already set. See [Waiting](#waiting) for what all forms
    /// share.
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn wait(&self) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotSet).wait(Limit::Never)
    }

    /// Checks whether the event is set, without waiting.
    ///
    /// [`is_set`](Self::is_set) returns the same as a `bool`.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if the event is clear; otherwise see [the
    /// errors of `Event`](Self#errors).
    pub fn try_wait(&self) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotSet).try_now()
    }

    /// Blocks the current thread until the event is set, waiting at most `timeout`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let ready = flockwork::Event::open(dir.path().join("ready"))?;
    /// let error = ready.wait_timeout(std::time::Duration::from_millis(10)).unwrap_err();
    /// assert!(error.is_timed_out());
    /// ready.set()?;
    /// ready.wait_timeout(std::time::Duration::ZERO)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if the event is not set before the timeout;
    /// otherwise see [the errors of `Event`](Self#errors).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotSet).wait(Limit::After(timeout))
    }

    /// Blocks the current thread until the event is set, or until `deadline`.
    ///
    /// # Errors
    ///
    /// See [`wait_timeout`](Self::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotSet).wait(Limit::At(deadline))
    }

    /// Waits until the event is set, asynchronously.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("ready");
    /// # futures_lite::future::block_on(async {
    /// let ready = flockwork::Event::open(&path)?;
    /// # ready.set()?;
    /// ready.wait_async().await?;
    /// # Ok::<(), flockwork::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn wait_async(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.event_wait(all_set, Obstacle::NotSet).future()
    }

    // ---------------------------------------------------------------------------- wait_payload

    /// Blocks the current thread until the event is set, and returns the payload of that setting.
    ///
    /// [`wait`](Self::wait) followed by [`payload`](Self::payload) may find the event cleared
    /// again. This call reads the payload when it checks the event, and continues to wait if there
    /// is none. See [Waiting](#waiting) for what all forms share.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let ready = flockwork::Event::open(dir.path().join("ready"))?;
    /// # let server = ready.clone();
    /// # std::thread::spawn(move || server.set_with("40123").unwrap());
    /// assert_eq!(ready.wait_payload()?, b"40123");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn wait_payload(&self) -> Result<Vec<u8>> {
        self.event_wait(with_payload, Obstacle::NotSet).wait(Limit::Never)
    }

    /// Returns the payload if the event is set, without waiting.
    ///
    /// [`payload`](Self::payload) returns the same as an `Option`.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if the event is clear; otherwise see [the
    /// errors of `Event`](Self#errors).
    pub fn try_wait_payload(&self) -> Result<Vec<u8>> {
        self.event_wait(with_payload, Obstacle::NotSet).try_now()
    }

    /// Waits for the payload like [`wait_payload`](Self::wait_payload), but at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if the event is not set before the timeout;
    /// otherwise see [the errors of `Event`](Self#errors).
    pub fn wait_payload_timeout(&self, timeout: Duration) -> Result<Vec<u8>> {
        self.event_wait(with_payload, Obstacle::NotSet).wait(Limit::After(timeout))
    }

    /// Waits for the payload like [`wait_payload`](Self::wait_payload), but until `deadline`.
    ///
    /// # Errors
    ///
    /// See [`wait_payload_timeout`](Self::wait_payload_timeout).
    pub fn wait_payload_deadline(&self, deadline: Instant) -> Result<Vec<u8>> {
        self.event_wait(with_payload, Obstacle::NotSet).wait(Limit::At(deadline))
    }

    /// Waits until the event is set and returns the payload, asynchronously.
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn wait_payload_async(&self) -> impl Future<Output = Result<Vec<u8>>> + Send + use<> {
        self.event_wait(with_payload, Obstacle::NotSet).future()
    }

    // ---------------------------------------------------------------------------- wait_cleared

    /// Blocks the current thread until the event is clear.
    ///
    /// Returns immediately if the event is already clear. See [Waiting](#waiting) for what all
    /// forms share.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let busy = flockwork::Event::open(dir.path().join("busy"))?;
    /// busy.set()?;
    /// # std::thread::spawn({ let busy = busy.clone(); move || busy.clear().unwrap() });
    /// busy.wait_cleared()?; // until a program removes the file
    /// assert!(!busy.is_set()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn wait_cleared(&self) -> Result<()> {
        self.event_wait(cleared, Obstacle::StillSet).wait(Limit::Never)
    }

    /// Checks whether the event is clear, without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if the event is set; otherwise see [the errors
    /// of `Event`](Self#errors).
    pub fn try_wait_cleared(&self) -> Result<()> {
        self.event_wait(cleared, Obstacle::StillSet).try_now()
    }

    /// Blocks the current thread until the event is clear, waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if the event is not cleared before the timeout;
    /// otherwise see [the errors of `Event`](Self#errors).
    pub fn wait_cleared_timeout(&self, timeout: Duration) -> Result<()> {
        self.event_wait(cleared, Obstacle::StillSet).wait(Limit::After(timeout))
    }

    /// Blocks the current thread until the event is clear, or until `deadline`.
    ///
    /// # Errors
    ///
    /// See [`wait_cleared_timeout`](Self::wait_cleared_timeout).
    pub fn wait_cleared_deadline(&self, deadline: Instant) -> Result<()> {
        self.event_wait(cleared, Obstacle::StillSet).wait(Limit::At(deadline))
    }

    /// Waits until the event is clear, asynchronously.
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn wait_cleared_async(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.event_wait(cleared, Obstacle::StillSet).future()
    }

    // --------------------------------------------------------------------------------- consume

    /// Blocks the current thread until the event is set, then clears it and returns its payload.
    ///
    /// Of all callers that consume, in all processes and threads, exactly one receives each
    /// setting. A caller that only [waits](Self::wait) for the same event may miss a setting that
    /// is consumed immediately. An event is not a queue: if its payload is replaced before it is
    /// consumed, the caller receives the last one. Producers whose settings must each be consumed
    /// use [`set_new`](Self::set_new).
    ///
    /// A setting is consumed at most once. If a consumer is killed before it has taken the setting,
    /// the next consumer receives it. If it is killed after that, for instance before it has acted
    /// on the payload, the setting is lost. For work that must survive such a death, hold a
    /// [`Lock`](crate::Lock) at another path and [`clear`](Self::clear) the event when the work is
    /// done.
    ///
    /// A shell script consumes with `mv ready mine.$$`. See [Waiting](#waiting) for what all forms
    /// share.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let job = flockwork::Event::open(dir.path().join("job"))?;
    /// job.set_with(b"rebuild")?;
    /// assert_eq!(job.consume()?, b"rebuild");
    /// assert!(!job.is_set()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors), and:
    ///
    /// * [`Io`](crate::ErrorKind::Io) if the file cannot be renamed, or the lock file `P.flock`
    ///   cannot be created. If the directory is not writable, or the path is too long for `.flock`,
    ///   this error is returned only when the event is set.
    /// * [`Unsupported`](crate::ErrorKind::Unsupported) if the file system has no locks.
    ///
    /// After an error nothing has been consumed.
    pub fn consume(&self) -> Result<Vec<u8>> {
        self.event_wait(consumed, Obstacle::NotConsumed).wait(Limit::Never)
    }

    /// Attempts to consume a setting without waiting.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let job = flockwork::Event::open(dir.path().join("job"))?;
    /// assert!(job.try_consume().unwrap_err().is_would_block());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if the event is clear, or another caller is
    /// consuming it at this moment; otherwise see [`consume`](Self::consume).
    pub fn try_consume(&self) -> Result<Vec<u8>> {
        self.ask(|inner| {
            let marker = &inner.marker;
            match marker.consume()? {
                Consumed::Payload(payload) => Ok(Seen::consumed(inner, payload)),
                Consumed::Nothing => {
                    Err(Error::would_block_for(marker.path(), Obstacle::NotConsumed))
                }
                Consumed::Busy => {
                    Err(Error::would_block_for(marker.path(), Obstacle::BeingConsumed))
                }
            }
        })
        .map(Vec::from)
    }

    /// Blocks the current thread until it has consumed a setting, waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if the caller consumes nothing before the timeout;
    /// otherwise see [`consume`](Self::consume).
    pub fn consume_timeout(&self, timeout: Duration) -> Result<Vec<u8>> {
        self.event_wait(consumed, Obstacle::NotConsumed).wait(Limit::After(timeout))
    }

    /// Blocks the current thread until it has consumed a setting, or until `deadline`.
    ///
    /// # Errors
    ///
    /// See [`consume_timeout`](Self::consume_timeout).
    pub fn consume_deadline(&self, deadline: Instant) -> Result<Vec<u8>> {
        self.event_wait(consumed, Obstacle::NotConsumed).wait(Limit::At(deadline))
    }

    /// Waits until it has consumed a setting, asynchronously.
    ///
    /// The future consumes only in the poll that returns the payload, so dropping it loses nothing.
    ///
    /// # Errors
    ///
    /// See [`consume`](Self::consume).
    pub fn consume_async(&self) -> impl Future<Output = Result<Vec<u8>>> + Send + use<> {
        self.event_wait(consumed, Obstacle::NotConsumed).future()
    }

    // --------------------------------------------------------------------------------- several

    /// Blocks the current thread until one of several events is set, and returns its index.
    ///
    /// If several are set, the lowest index is returned.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use flockwork::Event;
    ///
    /// let done = Event::open(dir.path().join("done"))?;
    /// let failed = Event::open(dir.path().join("failed"))?;
    /// failed.set()?;
    /// assert_eq!(Event::wait_any([&done, &failed])?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors), and [`Io`](crate::ErrorKind::Io) if `events` is
    /// empty.
    pub fn wait_any<I>(events: I) -> Result<usize>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventWait::any(events)?.wait(Limit::Never)
    }

    /// Blocks the current thread until one of several events is set, waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if no event is set before the timeout; otherwise
    /// see [`wait_any`](Self::wait_any).
    pub fn wait_any_timeout<I>(events: I, timeout: Duration) -> Result<usize>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventWait::any(events)?.wait(Limit::After(timeout))
    }

    /// Waits until one of several events is set, asynchronously.
    ///
    /// # Errors
    ///
    /// See [`wait_any`](Self::wait_any).
    pub fn wait_any_async<I>(events: I) -> EventFuture<usize>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventFuture::new(EventWait::any(events))
    }

    /// Blocks the current thread until all of several events are set.
    ///
    /// Returns once a single check of each event in turn finds all of them set, and immediately if
    /// `events` is empty.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::time::Duration;
    /// use flockwork::Event;
    ///
    /// let parts = ["parser", "tables"].map(|part| Event::open(dir.path().join(part)).unwrap());
    /// parts[0].set()?;
    /// let limit = Duration::from_millis(10);
    /// assert!(Event::wait_all_timeout(&parts, limit).unwrap_err().is_timed_out());
    /// parts[1].set()?;
    /// Event::wait_all(&parts)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Self#errors).
    pub fn wait_all<I>(events: I) -> Result<()>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventWait::all(events).wait(Limit::Never)
    }

    /// Blocks the current thread until all of several events are set, waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if an event is not set before the timeout, with the
    /// path of that event; otherwise see [the errors of `Event`](Self#errors).
    pub fn wait_all_timeout<I>(events: I, timeout: Duration) -> Result<()>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventWait::all(events).wait(Limit::After(timeout))
    }

    /// Waits until all of several events are set, asynchronously.
    ///
    /// # Errors
    ///
    /// See [`wait_all`](Self::wait_all).
    pub fn wait_all_async<I>(events: I) -> EventFuture<()>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventFuture::new(Ok(EventWait::all(events)))
    }

    // ----------------------------------------------------------------------------------- about

    /// Returns `true` if the system notifies this process's waiters, and `false` if they poll.
    ///
    /// Waiters poll every 1 to 50 milliseconds on a network file system, without the feature
    /// `watch`, or if the system provides no notifications, for instance because the user has no
    /// inotify instance left or no thread can be started. In the latter case they try again every
    /// 10 seconds. With [`Options::poll_interval`] they poll at that interval.
    ///
    /// This method queries the system, which takes a few hundred microseconds.
    #[must_use]
    pub fn is_event_driven(&self) -> bool {
        let inner = &self.inner;
        inner.poll_every.is_none()
            && inner.server.is_none()
            && !inner.marker.refresh_is_network()
            && is_watchable(inner.marker.directory())
    }

    /// Returns the event's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.marker.path()
    }

    /// Waits for an event that marks finished work, as a [`Once`](crate::Once) does.
    pub(crate) fn until_done(&self, limit: Limit) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotDone).wait(limit)
    }

    /// Sets the event, however long that takes.
    pub(crate) fn set_here(&self) -> Result<bool> {
        self.inner.marker.set()
    }

    /// Whether the event is set, found out within the limit of a wait.
    pub(crate) fn is_set_within(&self, limit: Limit) -> Result<bool> {
        let Some(server) = &self.inner.server else { return self.inner.marker.is_set() };
        let (inner, cancels) = (Arc::clone(&self.inner), self.inner.cancels.clone());
        let hooks = WaitHooks::new(Arc::clone(self.inner.marker.path()), None, cancels);
        server.wait(limit, hooks.as_ref(), move |_, _| inner.marker.is_set())
    }

    pub(crate) fn is_on_network(&self) -> bool {
        self.inner.server.is_some()
    }

    pub(crate) fn server(&self) -> Option<&Server> {
        self.inner.server.as_ref()
    }

    fn ask<T: Send + Sync + 'static>(
        &self,
        call: impl FnOnce(&Arc<Inner>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Server::ask_about(self.inner.server.as_ref(), &self.inner, call)
    }

    /// The same for a call with a payload, which is copied only for a helper.
    fn ask_with<T: Send + Sync + 'static>(
        &self,
        payload: &[u8],
        call: fn(&Inner, &[u8]) -> Result<T>,
    ) -> Result<T> {
        if self.inner.server.is_none() {
            return call(&self.inner, payload);
        }
        let payload = payload.to_vec();
        self.ask(move |inner| call(inner, &payload))
    }

    fn event_wait(&self, check: CheckFn, obstacle: Obstacle) -> EventWait {
        EventWait { events: Box::new([Arc::clone(&self.inner)]), check, obstacle, is_any: false }
    }
}

impl AsRef<Event> for Event {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsRef<Path> for Event {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// All shared state is in files and in the kernel, so a panic in a callback leaves it consistent.
impl UnwindSafe for Event {}
impl RefUnwindSafe for Event {}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens an [`Event`] at `path` with these settings. See [`Event::open`].
    ///
    /// An event has no holder, so [`label`](Self::label) and [`record_holder`](Self::record_holder)
    /// have no effect.
    ///
    /// # Errors
    ///
    /// See [the errors of `Event`](Event#errors).
    pub fn open_event(&self, path: impl AsRef<Path>) -> Result<Event> {
        open(self, path.as_ref(), Self::open_event_here)
    }

    fn open_event_here(&self, path: &Path) -> Result<Event> {
        let path = resolved(path, self.follows_links)?;
        let marker = Marker::open(&path, self.creation(), self.any_file_type)?;
        let (poll_every, backstop) = (self.poll_every, self.backstop);
        let (on_wait, cancels) = (self.on_wait.clone(), self.cancels.clone());
        let inherits = self.inherit;
        let server = Server::of(self, marker.path(), marker.refresh_is_network());
        let inner = Inner { marker, poll_every, backstop, on_wait, cancels, inherits, server };
        Ok(Event { inner: Arc::new(inner) })
    }
}
