//! `Event`: one marker file, and its waiters.

mod wait;

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::wait::EventFuture;
use self::wait::{CheckFn, EventWait, all_set, cleared, consumed};
use crate::error::{Error, Obstacle, Result};
use crate::file::marker::{Consumed, Marker};
use crate::options::{Callback, Options};
use crate::wait::{Deadline, is_watchable};

/// A flag on a path that any program can set, and that wakes all who wait for it, in all processes and threads.
///
/// A file at the path: it is there, and the event is set; it is gone, and the event is clear. What the file holds is
/// the event's payload: a port, a version, a result. So a shell sets it with `touch`, clears it with `rm` and
/// looks with `test -e`, and a waiter sees that at once: it is woken by the file system's events and does not poll.
///
/// As `threading.Event` and `multiprocessing.Event` in Python, or a manual-reset event on Windows, it stays set
/// until somebody clears it, and lets everybody through meanwhile. With [`consume`](Self::consume) it is an
/// auto-reset event: of all who wait that way exactly one gets each setting, with its payload.
///
/// An `Event` is a cheap handle: clone it, share it between threads, keep it. It keeps no descriptor open (but one
/// for those who consume). Nothing has to be cleaned up when a process dies.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("server.ready");
/// use std::time::Duration;
/// use flockwork::Event;
///
/// // The server, when it can be reached:
/// Event::open(&path)?.set_with(b"40123")?;
///
/// // Any number of clients, before or after that:
/// let ready = Event::open(&path)?;
/// match ready.wait_timeout(Duration::from_secs(30)) {
///     Ok(()) => println!("listens on port {:?}", ready.payload()?),
///     Err(error) if error.is_timed_out() => eprintln!("{error}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Recipes
///
/// A ready file outlives a server that is killed. The server holds a [`Lock`](crate::Lock) beside it for as long as it
/// lives, and a client checks that:
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// use flockwork::{Event, Lock, inspect};
///
/// let (ready, alive) = (dir.join("server.ready"), dir.join("server.alive"));
///
/// // The server. It removes what the server before it left.
/// let running = Lock::open(&alive)?.try_lock()?;
/// let event = Event::open(&ready)?;
/// event.clear()?;
/// event.set_with(b"40123")?;
///
/// // A client.
/// let event = Event::open(&ready)?;
/// event.wait()?;
/// assert!(inspect(&alive)?.is_held()); // `holders` returns the process
///
/// drop(running); // the server dies
/// assert!(event.is_set()? && !inspect(&alive)?.is_held());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A reader of a value that changes gets the old payload or the new one, and never a part of one.
/// Waiters are not woken when the payload of an event that is set is replaced. Where each payload
/// must reach a consumer, the producers use [`set_new`](Self::set_new):
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
/// More, for the shell as well, is in [`recipes`](crate::_documentation::recipes).
///
/// # Names that belong to it
///
/// The path is the event's own: a program that creates a file there sets it, also by opening a
/// [`Lock`](crate::Lock) at the same path. A consumer ([`consume`](Self::consume)) creates
/// `ready.flock` beside `ready`, which stays, and `ready.taken` comes and goes: open no lock and no
/// other event there.
///
/// # What is not promised
///
/// * A pulse. Who waits looks at the file when it hears of a change: what is set and cleared again at once may be
///   missed by some of them. For "one of you do this, once" there is [`consume`](Self::consume).
/// * That it is still set when [`wait`](Self::wait) returns: it was at some moment during the call.
/// * Order: all are woken at once, and of those who consume anyone may be first.
/// * That it survives a loss of power, or that it does not. A file is there until somebody removes it; an event that
///   means "the server of this boot runs" belongs into a directory that a boot clears.
/// * That others write the payload in one step: `echo 40123 > server.ready` makes the file first and writes then. Write
///   to another name in the same directory and `mv` it.
///
/// # Platform-specific behaviour
///
/// * Linux: woken by inotify. Where the user's instances are used up (128 by default, over all processes), or the
///   directory may not be read, it looks every 1 to 50 milliseconds instead, and asks again every 10 seconds.
/// * macOS, BSD, Windows: woken by the system's events, and besides it looks every 20 to 100 milliseconds, since
///   these are known to get lost.
/// * Network file systems (NFS, SMB, FUSE ...) tell nobody what another host did: polled every 1 to 50
///   milliseconds by reading the directory, so give events there a directory of their own.
/// * Windows: a program that has the file open without sharing deletion is in the way of `clear` and `consume`; they try
///   for about a second.
#[derive(Clone)]
pub struct Event {
    inner: Arc<Inner>,
}

struct Inner {
    marker: Marker,
    poll_every: Option<Duration>,
    backstop: Option<Duration>,
    notice: Option<(Duration, Callback)>,
}

impl Event {
    /// Opens the event at `path`, and creates nothing: a missing parent directory may be created by the program that sets
    /// the event, before or after this call. [`set`](Self::set) and [`set_with`](Self::set_with) create it.
    ///
    /// The path is made absolute, so that a later change of the current directory changes nothing.
    /// Symbolic links in parent directories are followed, at the last component refused. A link in a parent directory that
    /// leads to nothing is a directory that is not there yet.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if there is something else than a regular file at the path; it is left as it was.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io) if the path cannot be looked up, or something else is in the place of a parent directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_event(path)
    }

    /// Sets the event, and wakes all who wait for it. Returns whether it was not set before: of any number who
    /// set it at once exactly one is told so.
    ///
    /// If it was set, nothing is changed: the payload that it carries stays. Missing parent directories are created.
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
    /// [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if something else has taken the path; [`ErrorKind::Io`](crate::ErrorKind::Io) if the file cannot be made.
    pub fn set(&self) -> Result<bool> {
        self.inner.marker.set()
    }

    /// Sets the event with a payload, which takes the place of one that it carries already. Returns whether it was
    /// not set before; if it is consumed or cleared at this very moment, that may be the answer of a moment ago.
    ///
    /// The payload may be of any length. It is written to a file beside the path (`.flockwork.`, 16
    /// digits and a number), synced, and renamed: no process ever reads half of it, whatever is
    /// killed when. A process that is killed while it writes leaves that file behind, and the next
    /// one that sets the event removes it. (Not on a network file system, where a killed writer
    /// cannot be distinguished from one on another host.)
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
    /// As [`set`](Self::set). Then the event is as it was.
    pub fn set_with(&self, payload: impl AsRef<[u8]>) -> Result<bool> {
        self.inner.marker.set_with(payload.as_ref())
    }

    /// Sets the event with a payload if it is not set, in one step. Returns whether it did: of any number of callers
    /// that set it at the same time, exactly one returns `true`, and the event carries that caller's payload.
    ///
    /// If the event is set nothing changes. So several producers that share one event lose nothing: each waits until
    /// the event is [cleared](Self::wait_cleared), and does so again when another producer was first.
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
    /// As [`set`](Self::set). Then the event is as it was.
    ///
    /// # Platform-specific behavior
    ///
    /// A file system that can neither rename without replacing nor link (exFAT, some FUSE file systems) has no such step:
    /// there a setting that another process makes between the look and the rename is replaced.
    pub fn set_new(&self, payload: impl AsRef<[u8]>) -> Result<bool> {
        self.inner.marker.set_new(payload.as_ref())
    }

    /// Clears the event, and wakes all who wait for that. Returns whether it was set.
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
    /// [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if something else has taken the path (it is left as it was); [`ErrorKind::Io`](crate::ErrorKind::Io) if the
    /// file cannot be removed.
    pub fn clear(&self) -> Result<bool> {
        self.inner.marker.clear()
    }

    /// Whether the event is set at this moment: one look at the path.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if something else has taken the path; [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be looked up.
    pub fn is_set(&self) -> Result<bool> {
        self.inner.marker.is_set()
    }

    /// What the event carries, or `None` if it is not set. One that was set without a payload, or by `touch`,
    /// carries no bytes.
    ///
    /// The bytes are those of one setting, however often it is set anew meanwhile.
    ///
    /// # Errors
    ///
    /// As [`is_set`](Self::is_set), and [`ErrorKind::Io`](crate::ErrorKind::Io) if the file cannot be read.
    pub fn payload(&self) -> Result<Option<Vec<u8>>> {
        self.inner.marker.payload()
    }

    // ------------------------------------------------------------------------------------ wait

    /// Waits until the event is set, without limit. Returns at once if it is.
    ///
    /// If the directory is removed or replaced meanwhile, the wait goes on for the same path in whatever comes there.
    ///
    /// # Errors
    ///
    /// As [`is_set`](Self::is_set).
    pub fn wait(&self) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotSet).wait(|| Deadline::NEVER)
    }

    /// Returns if the event is set, and never waits. ([`is_set`](Self::is_set) says the same as a
    /// `bool`.)
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) if it is not set; otherwise as [`is_set`](Self::is_set).
    pub fn try_wait(&self) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotSet).try_now()
    }

    /// Waits until the event is set, for at most `timeout`. Zero looks once; what no clock can show waits forever.
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
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if it was not set in time; otherwise as [`is_set`](Self::is_set).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotSet).wait(|| Deadline::after(timeout))
    }

    /// Waits until the event is set, until `deadline`. One that has passed looks once.
    ///
    /// # Errors
    ///
    /// As [`wait_timeout`](Self::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotSet).wait(|| Deadline::at(deadline))
    }

    /// Waits until the event is set, as a future, under any runtime. Dropping the future gives up, and leaves
    /// nothing behind.
    ///
    /// The wait begins when it is first polled. A future that is polled after it has ended stays pending.
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
    /// As [`is_set`](Self::is_set).
    pub fn wait_async(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.event_wait(all_set, Obstacle::NotSet).future()
    }

    // ---------------------------------------------------------------------------- wait_cleared

    /// Waits until the event is not set, without limit. Returns at once if it is not.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let busy = flockwork::Event::open(dir.path().join("busy"))?;
    /// busy.set()?;
    /// # std::thread::spawn({ let busy = busy.clone(); move || busy.clear().unwrap() });
    /// busy.wait_cleared()?; // until somebody removes the file
    /// assert!(!busy.is_set()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`is_set`](Self::is_set).
    pub fn wait_cleared(&self) -> Result<()> {
        self.event_wait(cleared, Obstacle::StillSet).wait(|| Deadline::NEVER)
    }

    /// Returns if the event is not set, and never waits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) if it is set; otherwise as [`is_set`](Self::is_set).
    pub fn try_wait_cleared(&self) -> Result<()> {
        self.event_wait(cleared, Obstacle::StillSet).try_now()
    }

    /// Waits until the event is not set, for at most `timeout`. Zero looks once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if it was not cleared in time; otherwise as [`is_set`](Self::is_set).
    pub fn wait_cleared_timeout(&self, timeout: Duration) -> Result<()> {
        self.event_wait(cleared, Obstacle::StillSet).wait(|| Deadline::after(timeout))
    }

    /// Waits until the event is not set, until `deadline`. One that has passed looks once.
    ///
    /// # Errors
    ///
    /// As [`wait_cleared_timeout`](Self::wait_cleared_timeout).
    pub fn wait_cleared_deadline(&self, deadline: Instant) -> Result<()> {
        self.event_wait(cleared, Obstacle::StillSet).wait(|| Deadline::at(deadline))
    }

    /// Waits until the event is not set, as a future: see [`wait_async`](Self::wait_async).
    ///
    /// # Errors
    ///
    /// As [`is_set`](Self::is_set).
    pub fn wait_cleared_async(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.event_wait(cleared, Obstacle::StillSet).future()
    }

    // --------------------------------------------------------------------------------- consume

    /// Waits until the event is set, clears it, and returns its payload: of all who wait this way, in all
    /// processes and threads, exactly one gets each setting. It is no queue: what is set with another payload
    /// before it is consumed is one setting, with the last one. Several producers that want each setting to be
    /// consumed use [`set_new`](Self::set_new).
    ///
    /// Who [waits](Self::wait) for the same event without consuming may miss a setting that is consumed at once.
    ///
    /// A setting is taken at most once. A consumer that is killed before it has taken it, at whatever step, leaves it
    /// to the next one. It has taken it a moment before this returns: a consumer that is killed later than that, also
    /// before it has done anything with the payload, takes it with it. Where work must survive that, hold a
    /// [`Lock`](crate::Lock) of another name and [`clear`](Self::clear) the event when the work is done.
    ///
    /// Consumers take turns by a lock file beside the path (`ready.flock`, which stays), and for a moment there is a file
    /// `ready.taken`. A shell script takes part with `mv ready mine.$$`.
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
    /// As [`payload`](Self::payload), and [`ErrorKind::Io`](crate::ErrorKind::Io) if the file cannot be renamed or the lock
    /// file cannot be made; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the file system has no locks. Nothing is
    /// taken then. If the directory is not writable, or the path is too long for
    /// `.flock`, the error comes only when there is something to consume.
    pub fn consume(&self) -> Result<Vec<u8>> {
        self.event_wait(consumed, Obstacle::NotConsumed).wait(|| Deadline::NEVER)
    }

    /// Clears the event and returns its payload, if it is set; never waits.
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
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) if it is not set, or somebody else consumes it at this moment; otherwise as
    /// [`consume`](Self::consume).
    pub fn try_consume(&self) -> Result<Vec<u8>> {
        let marker = &self.inner.marker;
        match marker.consume()? {
            Consumed::Payload(payload) => Ok(payload),
            Consumed::Nothing => Err(Error::would_block_for(marker.path(), Obstacle::NotConsumed)),
            Consumed::Busy => Err(Error::would_block_for(marker.path(), Obstacle::BeingConsumed)),
        }
    }

    /// Waits for a setting to consume, for at most `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if there was none in time, or others had them; otherwise as [`consume`](Self::consume).
    pub fn consume_timeout(&self, timeout: Duration) -> Result<Vec<u8>> {
        self.event_wait(consumed, Obstacle::NotConsumed).wait(|| Deadline::after(timeout))
    }

    /// Waits for a setting to consume, until `deadline`. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// As [`consume_timeout`](Self::consume_timeout).
    pub fn consume_deadline(&self, deadline: Instant) -> Result<Vec<u8>> {
        self.event_wait(consumed, Obstacle::NotConsumed).wait(|| Deadline::at(deadline))
    }

    /// Waits for a setting to consume, as a future: see [`wait_async`](Self::wait_async). It takes nothing but in the
    /// poll that returns it, so a dropped future has taken nothing.
    ///
    /// # Errors
    ///
    /// As [`consume`](Self::consume).
    pub fn consume_async(&self) -> impl Future<Output = Result<Vec<u8>>> + Send + use<> {
        self.event_wait(consumed, Obstacle::NotConsumed).future()
    }

    // --------------------------------------------------------------------------------- several

    /// Waits until one of several events is set, without limit, and returns its place among them; of more than one the
    /// first.
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
    /// As [`is_set`](Self::is_set), of any of them; [`ErrorKind::Io`](crate::ErrorKind::Io) if there are none.
    pub fn wait_any<I>(events: I) -> Result<usize>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventWait::any(events)?.wait(|| Deadline::NEVER)
    }

    /// Waits until one of several events is set, for at most `timeout`. Zero looks once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if none was set in time; otherwise as [`wait_any`](Self::wait_any).
    pub fn wait_any_timeout<I>(events: I, timeout: Duration) -> Result<usize>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventWait::any(events)?.wait(|| Deadline::after(timeout))
    }

    /// Waits until one of several events is set, as a future: see [`wait_async`](Self::wait_async).
    ///
    /// # Errors
    ///
    /// As [`wait_any`](Self::wait_any).
    pub fn wait_any_async<I>(events: I) -> EventFuture<usize>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventFuture::new(EventWait::any(events))
    }

    /// Waits until all of several events are set, without limit: until one look at each, one after the other, finds
    /// all of them set. Of none, all are.
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
    /// As [`is_set`](Self::is_set), of any of them.
    pub fn wait_all<I>(events: I) -> Result<()>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventWait::all(events).wait(|| Deadline::NEVER)
    }

    /// Waits until all of several events are set, for at most `timeout`. Zero looks once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if one was not set in time (its path is the error's); otherwise as
    /// [`wait_all`](Self::wait_all).
    pub fn wait_all_timeout<I>(events: I, timeout: Duration) -> Result<()>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventWait::all(events).wait(|| Deadline::after(timeout))
    }

    /// Waits until all of several events are set, as a future: see [`wait_async`](Self::wait_async).
    ///
    /// # Errors
    ///
    /// As [`wait_all`](Self::wait_all).
    pub fn wait_all_async<I>(events: I) -> EventFuture<()>
    where
        I: IntoIterator,
        I::Item: AsRef<Self>,
    {
        EventFuture::new(Ok(EventWait::all(events)))
    }

    // ----------------------------------------------------------------------------------- about

    /// Whether those who wait in this process are woken by the system's events. Where they cannot be had (all
    /// inotify instances of the user are taken, no thread can be had, a network file system,
    /// [`Options::poll_interval`]) they look every 1 to 50 milliseconds instead, and ask for events again every 10
    /// seconds.
    ///
    /// Asks the system, which takes some hundred microseconds.
    #[must_use]
    pub fn is_event_driven(&self) -> bool {
        let inner = &self.inner;
        inner.poll_every.is_none()
            && !inner.marker.refresh_is_network()
            && is_watchable(inner.marker.directory())
    }

    /// The path of the event, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.marker.path()
    }

    /// For what is built on an event: waits until it is set, which means that something is done.
    pub(crate) fn until_done(&self, deadline: impl FnOnce() -> Deadline) -> Result<()> {
        self.event_wait(all_set, Obstacle::NotDone).wait(deadline)
    }

    fn event_wait<T>(&self, check: CheckFn<T>, obstacle: Obstacle) -> EventWait<T> {
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

// A panic in a callback leaves nothing half-changed: what is shared lies in files and in the kernel.
impl UnwindSafe for Event {}
impl RefUnwindSafe for Event {}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens an [`Event`] at `path` with these settings: see [`Event::open`].
    ///
    /// Nobody holds an event, so [`label`](Self::label) and [`record_holder`](Self::record_holder) mean nothing here.
    ///
    /// # Errors
    ///
    /// As [`Event::open`].
    pub fn open_event(&self, path: impl AsRef<Path>) -> Result<Event> {
        let marker = Marker::open(path.as_ref(), self.access, self.any_file_type)?;
        let (poll_every, backstop) = (self.poll_every, self.backstop);
        let notice = self.notice.clone();
        Ok(Event { inner: Arc::new(Inner { marker, poll_every, backstop, notice }) })
    }
}
