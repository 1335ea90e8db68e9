//! `RwLock`: one file, locked shared or exclusively, behind a gate that keeps the order.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

use crate::access::Access;
use crate::error::{Error, Result};
use crate::file::guard::{GuardOptions, RawGuard};
use crate::file::lock_file::{FileLock, LockFile};
use crate::holder::Holder;
use crate::lock_request::{self, LockRequest, QUEUES};
use crate::options::Options;
use crate::record;
use crate::sys::{self, FileKind, Mode};
use crate::wait::{
    Acquire, Begun, Deadline, Outcome, QueuedWaiter, Then, Turnstile, TurnstileWait, WaitCallback,
    Waiter, acquire, pass, try_pass,
};

/// A lock on a path that many may share for reading, or one has for writing, between processes and threads alike.
///
/// Any number of programs open the same path. At any moment there are, over all of their processes and threads, any
/// number of [`ReadGuard`]s or one [`WriteGuard`]. When a holder dies, however it dies, the kernel lets the next one
/// in. The file's content is never touched.
///
/// **Nobody starves.** Who wants it, to read or to write, queues in the order of arrival. A writer waits for the
/// readers that came before it, and readers that come later wait for the writer; so readers that overlap without end
/// keep no writer out, as they do with plain `flock`, and writers keep no readers out. The queue is a second
/// file, the *gate*, beside the path (`data.lock.gate` for `data.lock`).
///
/// An `RwLock` is a cheap handle: clone it, share it between threads, keep it. It keeps two descriptors open, and one
/// more for each guard. It does not remember who locked: a thread that asks for it to write while it has it to read waits for itself, and one that asks
/// for it to read a second time can wait for a writer that waits for the first.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("index.lock");
/// use flockwork::RwLock;
///
/// let index = RwLock::open(&path)?;
/// {
///     let _one = index.read()?;
///     let _another = index.read()?; // as many as like to, in any process
///     assert!(index.try_write().unwrap_err().is_would_block());
/// } // both released
///
/// let writing = index.write()?; // nobody else is here
/// // ... bring it up to date ...
/// let reading = writing.downgrade()?; // and look at it, with other readers, before anybody changes it again
/// reading.unlock()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Together with others
///
/// At the same path it excludes whoever uses `flock(2)`: `flock -s` shares with readers, `flock -x` (and a
/// [`Lock`](crate::Lock)) is a writer. These do not pass the gate, so they do not queue: they get it whenever it
/// is free for them, and among them a writer may starve. A shell script that queues as well:
///
/// ```sh
/// exec 8>>data.lock.gate 9>>data.lock
/// flock 8; flock -s 9; flock -u 8   # to read; `flock -x 9` to write
/// ```
///
/// # What is not promised
///
/// * What [`Lock`](crate::Lock) does not promise either: the lock is advisory; do not remove its files; at the
///   moment of a release who asks may pass those who wait for the gate.
/// * A `try_` call is refused while a writer waits, also if only readers have the lock: it does not pass those who
///   wait. It can be refused, very rarely, by somebody who is on the way through the gate and does not get on.
///   That look can itself be in the way of another `try_` call at the same moment; and programs that try again and
///   again without a pause come before those who queue more often than is their turn.
/// * A program that is stopped (SIGSTOP, Ctrl-Z) in front of the queue costs the others a second or more for each
///   acquisition: they look past it when they have waited that long, and get the lock when nobody has it, and on Linux, where
///   the system tells that it is stopped, readers also from other readers (rule R3 of the [protocol](crate::_protocol)).
/// * Those who queue for longer than a moment are woken each second, and by a helper thread when their turn comes.
/// * Removing the gate costs the order for those who wait then, and never the exclusion.
/// * Where the gate is missing and this user cannot create it (a read-only file system, a directory that belongs to another
///   user), readers and writers lock the file itself, as `flock` does, and there is no order: readers that overlap can keep a
///   writer out. The gate is used as soon as another program has created it.
///
/// # Platform-specific behaviour
///
/// As for [`Lock`](crate::Lock). On Windows the file cannot be read or written while it is locked, so give the
/// lock a file of its own; or use [`SharedFile`](crate::SharedFile), which does that.
#[derive(Clone)]
pub struct RwLock {
    inner: Arc<Inner>,
}

struct Inner {
    read: Arc<LockRequest>,
    write: Arc<LockRequest>,
    /// `P.gate`.
    gate_path: Arc<Path>,
    /// Through the gate, to read and to write. Empty as long as there is no gate.
    ways: OnceBox<[Arc<Way>; 2]>,
    access: Access,
    check_interval: Option<Duration>,
    signature: GuardOptions,
    notice: Option<WaitCallback>,
}

impl RwLock {
    /// Opens the lock at `path`. The file, its gate and missing parent directories are created, and created again
    /// should they be gone at a later acquisition. Where the file exists and the gate cannot be created, the lock works
    /// without a gate: see *What is not promised*.
    ///
    /// The path is made absolute, so that a later change of the current directory changes nothing.
    /// Symbolic links in parent directories are followed, at the last component refused.
    ///
    /// # Errors
    ///
    /// * [`Error::NotRegularFile`] if there is something else at the path, or at that of the gate; it is left as it was.
    /// * [`Error::Unsupported`] if the platform has no locks.
    /// * [`Error::Io`] if the file can neither be opened nor created, or the gate exists and cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_rwlock(path)
    }

    // ------------------------------------------------------------------------------------ read

    /// Waits until it can be had for reading, without limit.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the file system has no locks; [`Error::Io`] for what else the system
    /// refuses, such as another descriptor. Then nothing is held.
    pub fn read(&self) -> Result<ReadGuard> {
        self.reading(|| Deadline::NEVER)
    }

    /// Takes it for reading if nobody writes or waits to write, and never waits (but for somebody who is on the way
    /// through the gate, for less than a millisecond).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let writing = lock.write()?;
    /// assert!(lock.try_read().unwrap_err().is_would_block());
    /// drop(writing);
    /// let (_one, _another) = (lock.try_read()?, lock.try_read()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] if somebody is in the way, also another thread of this process; otherwise as
    /// [`read`](Self::read).
    pub fn try_read(&self) -> Result<ReadGuard> {
        self.inner.take_now(&self.inner.read).and_then(|locked| self.inner.read_guard(locked))
    }

    /// Waits until it can be had for reading, for at most `timeout`. Zero tries once; what no clock can show waits
    /// forever.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if it could not be had in time; otherwise as [`read`](Self::read).
    pub fn read_timeout(&self, timeout: Duration) -> Result<ReadGuard> {
        self.reading(|| Deadline::after(timeout))
    }

    /// Waits until it can be had for reading, until `deadline`. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if it could not be had in time; otherwise as [`read`](Self::read).
    pub fn read_deadline(&self, deadline: Instant) -> Result<ReadGuard> {
        self.reading(|| Deadline::at(deadline))
    }

    /// Waits until it can be had for reading, as a future, under any runtime. Dropping the future gives up.
    ///
    /// The wait begins when it is first polled, and it holds up no executor thread. A future that was polled
    /// must be polled on or dropped: when its turn comes it holds the lock or the gate, also while nobody polls it. One
    /// that is polled after it has ended stays pending.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_async(
        &self,
    ) -> impl Future<Output = Result<ReadGuard>> + Send + Sync + Unpin + use<> {
        let inner = Arc::clone(&self.inner);
        Then::new(self.future(&inner.read), move |locked: Result<FileLock>| {
            locked.and_then(|locked| inner.read_guard(locked))
        })
    }

    // ----------------------------------------------------------------------------------- write

    /// Waits until it can be had for writing, without limit.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn write(&self) -> Result<WriteGuard> {
        self.writing(|| Deadline::NEVER)
    }

    /// Takes it for writing if nobody has it, and never waits (but for somebody who is on the way through the gate,
    /// for less than a millisecond).
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`] if somebody is in the way, also another thread of this process; otherwise as
    /// [`read`](Self::read).
    pub fn try_write(&self) -> Result<WriteGuard> {
        self.inner.take_now(&self.inner.write).and_then(|locked| self.inner.write_guard(locked))
    }

    /// Waits until it can be had for writing, for at most `timeout`. Zero tries once; what no clock can show waits
    /// forever.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let reading = lock.read()?;
    /// let error = lock.write_timeout(std::time::Duration::from_millis(10)).unwrap_err();
    /// assert!(error.is_timed_out());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if it could not be had in time; otherwise as [`read`](Self::read).
    pub fn write_timeout(&self, timeout: Duration) -> Result<WriteGuard> {
        self.writing(|| Deadline::after(timeout))
    }

    /// Waits until it can be had for writing, until `deadline`. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if it could not be had in time; otherwise as [`read`](Self::read).
    pub fn write_deadline(&self, deadline: Instant) -> Result<WriteGuard> {
        self.writing(|| Deadline::at(deadline))
    }

    /// Waits until it can be had for writing, as a future: see [`read_async`](Self::read_async).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// # futures_lite::future::block_on(async {
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let writing = lock.write_async().await?;
    /// # drop(writing);
    /// # Ok::<(), flockwork::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn write_async(
        &self,
    ) -> impl Future<Output = Result<WriteGuard>> + Send + Sync + Unpin + use<> {
        let inner = Arc::clone(&self.inner);
        Then::new(self.future(&inner.write), move |locked: Result<FileLock>| {
            locked.and_then(|locked| inner.write_guard(locked))
        })
    }

    // ----------------------------------------------------------------------------------- about

    /// The path of the lock, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.read.slot.path()
    }

    /// Who has the lock at this moment, to read or to write, as far as that is known. Takes nothing and delays nobody.
    ///
    /// Who was opened with [`Options::label`] or [`Options::record_holder`] left a record: a writer in
    /// `data.lock.holder`, each reader in a file of the directory `data.lock.holders`. For others Linux tells the
    /// process (once, however often it has it), as it does for a [`Lock`](crate::Lock::holder). A snapshot: it may be out of date when it is returned.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::Options::new().label("report").open_rwlock(&path)?;
    /// let _reading = (lock.read()?, lock.read()?);
    /// let holders = lock.holders()?;
    /// assert_eq!(holders.len(), 2);
    /// assert_eq!(holders[0].label(), Some("report"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if there is a record that cannot be read, or the system refuses to tell.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        let path = self.inner.read.slot.path();
        record::find(path, true).map_err(|source| Error::io("find the holders of", path, source))
    }

    fn reading(&self, deadline: impl FnOnce() -> Deadline) -> Result<ReadGuard> {
        self.wait(&self.inner.read, deadline).and_then(|locked| self.inner.read_guard(locked))
    }

    fn writing(&self, deadline: impl FnOnce() -> Deadline) -> Result<WriteGuard> {
        self.wait(&self.inner.write, deadline).and_then(|locked| self.inner.write_guard(locked))
    }

    fn wait(
        &self,
        claim: &Arc<LockRequest>,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<FileLock> {
        let (way, notice) = (self.inner.way(claim)?, self.inner.notice.as_ref());
        let waited = match way {
            Some(way) => pass(&QUEUES, way, deadline, notice),
            None => acquire(&QUEUES, claim, deadline, notice),
        };
        match waited? {
            Outcome::Held(locked) => Ok(locked),
            Outcome::TimedOut(waited) => {
                let error = Error::timed_out(claim.slot.path(), waited);
                Err(match way {
                    Some(way) => way.refused(error),
                    None => error,
                })
            }
        }
    }

    fn future(&self, claim: &Arc<LockRequest>) -> Begun<Locking> {
        let locking = self.inner.way(claim).map(|way| match way {
            Some(way) => Locking::TurnstileWait(TurnstileWait::new(&QUEUES, Arc::clone(way))),
            None => Locking::Alone(QueuedWaiter::new(&QUEUES, Arc::clone(claim))),
        });
        let notice = self.inner.notice.clone();
        Begun::new(locking.map(|locking| Acquire::new(locking, notice)))
    }
}

impl Inner {
    /// The way through the gate. Rule R5: `None` if there is no gate and this user cannot create one. It is looked for
    /// at each acquisition, since another user may create it.
    fn way(&self, claim: &Arc<LockRequest>) -> Result<Option<&Arc<Way>>> {
        let ways = match self.ways.get() {
            Some(ways) => ways,
            None => match self.open_gate()? {
                Some(ways) => self.ways.get_or_init(|| Box::new(ways)),
                None => return Ok(None),
            },
        };
        let [read, write] = ways;
        Ok(Some(if claim.mode == Mode::Shared { read } else { write }))
    }

    fn open_gate(&self) -> Result<Option<[Arc<Way>; 2]>> {
        let slot = match LockFile::open(&self.gate_path, self.access) {
            Ok(slot) => slot,
            Err(error) if self.lacks_gate(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if sys::FILES_HAVE_NUMBERS && self.read.slot.latest() == slot.latest() {
            let problem = format!(
                "it is the same file as `{}`, by a hard link, and would be waited for by those who hold that; remove it",
                self.read.slot.path().display()
            );
            return Err(Error::Corrupt { path: Arc::clone(&self.gate_path), problem });
        }
        let (mode, poll_every) = (Mode::Exclusive, self.read.poll_every);
        let gate = Arc::new(LockRequest { slot, mode, poll_every, coordinator: None });
        Ok(Some([&self.read, &self.write].map(|lock| {
            let (gate, lock) = (Arc::clone(&gate), Arc::clone(lock));
            Arc::new(Way { gate, lock, check_interval: self.check_interval })
        })))
    }

    fn lacks_gate(&self, error: &Error) -> bool {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
            && sys::file_kind(&self.gate_path).is_ok_and(|there| there == FileKind::Nothing)
    }

    fn take_now(&self, claim: &Arc<LockRequest>) -> Result<FileLock> {
        if let Some(way) = self.way(claim)? {
            return way.take_now();
        }
        let taken = claim.slot.try_take(claim.mode)?;
        taken.ok_or_else(|| Error::would_block(claim.slot.path()))
    }

    fn read_guard(self: &Arc<Self>, locked: FileLock) -> Result<ReadGuard> {
        let slot = &self.read.slot;
        Ok(ReadGuard { hold: RawGuard::new(slot, Mode::Shared, locked, &self.signature)? })
    }

    fn write_guard(self: &Arc<Self>, locked: FileLock) -> Result<WriteGuard> {
        let slot = &self.write.slot;
        let hold = RawGuard::new(slot, Mode::Exclusive, locked, &self.signature)?;
        Ok(WriteGuard { hold, signature: self.signature.clone() })
    }
}

/// A waiter, through the gate or without one.
enum Locking {
    TurnstileWait(TurnstileWait<Way>),
    Alone(QueuedWaiter<LockRequest>),
}

impl Waiter for Locking {
    type Held = FileLock;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<FileLock>> {
        match self {
            Self::TurnstileWait(gated) => gated.poll(waker),
            Self::Alone(line) => line.poll(waker),
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        match self {
            Self::TurnstileWait(gated) => gated.next_tick(),
            Self::Alone(line) => line.next_tick(),
        }
    }

    fn last_chance(&mut self) -> Result<Option<FileLock>> {
        match self {
            Self::TurnstileWait(gated) => gated.last_chance(),
            Self::Alone(line) => line.last_chance(),
        }
    }
}

impl fmt::Debug for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens an [`RwLock`] at `path` with these settings: see [`RwLock::open`].
    ///
    /// # Errors
    ///
    /// As [`RwLock::open`].
    pub fn open_rwlock(&self, path: impl AsRef<Path>) -> Result<RwLock> {
        let slot = LockFile::open(path.as_ref(), self.access)?;
        let notice = lock_request::notice(self, slot.path());
        let (gate_path, poll_every) = (sys::beside(slot.path(), GATE).into(), self.poll_every);
        let claim = |mode| {
            Arc::new(LockRequest { slot: Arc::clone(&slot), mode, poll_every, coordinator: None })
        };
        let inner = Inner {
            read: claim(Mode::Shared),
            write: claim(Mode::Exclusive),
            gate_path,
            ways: OnceBox::new(),
            access: self.access,
            check_interval: self.backstop,
            signature: GuardOptions::of(self),
            notice,
        };
        inner.way(&inner.read)?;
        Ok(RwLock { inner: Arc::new(inner) })
    }
}

const GATE: &str = ".gate";

/// The way to the lock in one mode: through the gate.
struct Way {
    gate: Arc<LockRequest>,
    lock: Arc<LockRequest>,
    check_interval: Option<Duration>,
}

impl Way {
    fn path(&self) -> &Arc<Path> {
        self.lock.slot.path()
    }

    fn take_now(&self) -> Result<FileLock> {
        try_pass(&QUEUES, self)?.ok_or_else(|| self.refused(Error::would_block(self.path())))
    }

    /// A writer is refused by who has the lock, and a reader may be by who waits for it.
    fn refused(&self, error: Error) -> Error {
        match self.lock.mode {
            Mode::Shared => error.behind(self.gate.slot.path()),
            Mode::Exclusive => error,
        }
    }
}

impl Turnstile for Way {
    type Lock = LockRequest;

    fn gate(&self) -> &Arc<LockRequest> {
        &self.gate
    }

    fn lock(&self) -> &Arc<LockRequest> {
        &self.lock
    }

    /// Rule R3. Who waits in the gate and runs is woken when the lock gets free, so what is found free by
    /// somebody who comes by once a second is free because that one does not run. Readers must not pass a
    /// writer that waits for other readers, unless it is known not to run.
    fn take_unheld(&self) -> Result<Option<FileLock>> {
        match self.lock.slot.try_take(Mode::Exclusive)? {
            Some(locked) if self.lock.mode == Mode::Shared => locked.share(),
            taken => Ok(taken),
        }
    }

    fn is_gate_stopped(&self) -> bool {
        self.gate.slot.has_stopped_holder()
    }

    fn check_interval(&self) -> Option<Duration> {
        self.check_interval
    }
}

/// The lock, had for reading. Released when dropped.
///
/// It owns what it holds: it can be sent to another thread, kept in a struct, and outlive the [`RwLock`]. Each guard is
/// its own: dropping one frees nothing of another. A copy that `fork` makes of it releases nothing.
#[must_use = "if unused, the lock is released at once"]
#[clippy::has_significant_drop]
pub struct ReadGuard {
    hold: RawGuard,
}

impl ReadGuard {
    /// Releases the lock, and says if that failed, which dropping cannot.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system refuses to unlock. The descriptor is closed then, which releases the
    /// lock too unless a forked child also has it open. [`Error::Io`] also in a copy of the guard that `fork`
    /// made: the copy releases nothing.
    pub fn unlock(self) -> Result<()> {
        self.hold.unlock()
    }

    /// The path of the lock, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.hold.path()
    }

    /// Whether a writer before this died without releasing the lock: see
    /// [`LockGuard::abandoned`](crate::LockGuard::abandoned). A reader only looks: each of them is told, until a writer
    /// was.
    #[must_use]
    pub fn abandoned(&self) -> bool {
        self.hold.abandoned()
    }
}

impl fmt::Debug for ReadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// The lock, had for writing. Released when dropped.
///
/// It owns what it holds: it can be sent to another thread, kept in a struct, and outlive the [`RwLock`].
/// A copy that `fork` makes of it releases nothing.
#[must_use = "if unused, the lock is released at once"]
#[clippy::has_significant_drop]
pub struct WriteGuard {
    hold: RawGuard,
    signature: GuardOptions,
}

impl WriteGuard {
    /// Makes a reader of the writer: others may read from now on, and no writer comes in between, also if one is waiting.
    /// So what was written can be looked at before anybody changes it again.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("a.lock");
    /// let lock = flockwork::RwLock::open(&path)?;
    /// let reading = lock.write()?.downgrade()?;
    /// let _another = lock.try_read()?;
    /// assert!(lock.try_write().unwrap_err().is_would_block());
    /// # drop(reading);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Platform-specific behaviour
    ///
    /// Linux (since 4.0), the BSDs and macOS change the lock in one step; on Windows the handle has both locks for a
    /// moment. A Linux before that lets go of it for a moment, in which a writer that waits already may come: rule R4 of the
    /// [protocol](crate::_protocol).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system refuses; [`Error::WouldBlock`] if it let somebody else in between. Nothing is held
    /// then.
    pub fn downgrade(self) -> Result<ReadGuard> {
        let Self { hold, signature } = self;
        hold.share(&signature).map(|hold| ReadGuard { hold })
    }

    /// For what must only be done by the one who holds it, and not by a copy of the guard that `fork` made.
    pub(crate) fn check_here(&self, operation: &'static str) -> Result<()> {
        self.hold.check_here(operation)
    }

    /// Releases the lock, and says if that failed, which dropping cannot.
    ///
    /// # Errors
    ///
    /// As [`ReadGuard::unlock`].
    pub fn unlock(self) -> Result<()> {
        self.hold.unlock()
    }

    /// The path of the lock, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.hold.path()
    }

    /// Whether a writer before this died without releasing the lock: see
    /// [`LockGuard::abandoned`](crate::LockGuard::abandoned).
    #[must_use]
    pub fn abandoned(&self) -> bool {
        self.hold.abandoned()
    }
}

impl fmt::Debug for WriteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}
