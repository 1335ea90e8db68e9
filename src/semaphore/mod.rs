//! [`Semaphore`]: N slot files, each of which one holder locks, and a queue of waiters.

mod acquire;
mod batch;
mod capacity;
mod notifications;
mod permit;
mod shared_flags;
mod signals;
mod slots;
mod table;
mod waiters;

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::acquire::{Gate, PermitRequest, QueuedAcquire};
use self::batch::Batch;
use self::capacity::check_requested;
pub(crate) use self::capacity::read_in as read_capacity;
use self::permit::PermitOptions;
pub use self::permit::{MergeError, Permit};
pub(crate) use self::signals::QUEUE;
use self::slots::{Gathering, Slots};
use crate::error::{Error, Obstacle, Result};
use crate::file::lock_file::LockFile;
use crate::holder::Holder;
use crate::holders;
use crate::line::{HostLine, Line};
use crate::lock_request::{self, LockRequest, QUEUES};
use crate::options::Options;
use crate::paths::resolved;
use crate::sys::Mode;
use crate::wait::{
    CheckSampler, HostWait, Limit, Order as _, Outcome, Server, TryNow, WaitHooks, WakeStrategy,
    WatchTarget, acquire_on_host, check_cancelled, is_left, is_watchable, open, take_over,
    wait_here, wait_on_host,
};

/// A counting semaphore on a path, between unrelated processes and between threads.
///
/// Any number of programs can open the same path. At most N permits are out at any moment, across
/// all of their processes and threads. When a holder dies, even by SIGKILL, the kernel releases its
/// permits. There is no count to repair.
///
/// The path is a directory that contains one lock file, a *slot*, for each permit. The capacity N
/// is stored there too. Opening the semaphore with a different one is an error.
///
/// A `Semaphore` is a cheap handle: clone it, share it between threads, and keep it for later use.
/// It keeps a descriptor open for each slot that it has tried, so a handle that waits for one of N
/// permits has N open. It does not record which thread acquired a permit: a thread that acquires
/// again while it holds permits can deadlock.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("compilers");
/// use std::time::Duration;
/// use flockwork::Semaphore;
///
/// let compilers = Semaphore::open(&path, 4)?; // at most four at a time on this machine
/// {
///     let permit = compilers.acquire()?; // blocks until a permit is available
///     println!("slot {}", permit.slot()); // 0 to 3; no other holder has the same slot
/// } // released
///
/// let linker = compilers.acquire_many(2)?; // counts as two
/// match compilers.acquire_timeout(Duration::from_secs(5)) {
///     Ok(permit) => permit.release()?, // like dropping it, but reports errors
///     Err(error) if error.is_timed_out() => eprintln!("{error}"), // names the first holder
///     Err(error) => return Err(error.into()),
/// }
/// # drop(linker);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Fairness
///
/// Waiters of all processes and threads form one queue. On Linux they are served in the order of
/// their arrival: no new caller goes before a waiter, a waiter that is interrupted or stopped keeps
/// its place, and [`try_acquire`](Self::try_acquire) fails while a waiter that runs is ahead.
/// Elsewhere they are served first come, first served, except that a `try_` call or a new caller
/// can take a permit ahead of waiters, that waiters that arrive close together can overtake each
/// other, and that a process that is stopped and continued loses its place. There is one more
/// exception:
///
/// * A waiter that has queued for a second checks the slots itself, once per second, so that a
///   stopped process (SIGSTOP, Ctrl-Z) at the front does not block the others for good. Each
///   acquisition can take a second longer then. The stopped process keeps the permits that it has
///   gathered.
///
/// The waiter at the front gathers the permits it asked for, and those behind it wait until it has
/// them all. So queued small requests do not starve a large one. On a network file system the order
/// is random.
///
/// # Caveats
///
/// * The semaphore is advisory. It limits only programs that acquire permits from it.
/// * Two callers that each hold permits and wait for more can deadlock. Acquire all permits in one
///   call of [`acquire_many`](Self::acquire_many).
/// * Do not remove the files. A slot file that is removed is restored, still locked by its holder.
///   If the whole directory is removed, the next acquisition creates a new one, which does not
///   count permits of the old one.
/// * A process that may not write to the directory can acquire permits, but cannot notify waiters
///   when it releases them; the waiters notice at their next check, once per second. Such a process
///   can use only the slot files that exist. All are created with the semaphore, on a network file
///   system the first 64. See [`Options::access`].
/// * On a network file system, a holder that is cut off from the server loses its permits and is
///   not notified.
///
/// # Errors
///
/// Opening and acquiring return an [`Error`] of one of these kinds, and nothing is acquired then:
///
/// * [`InvalidPermits`](crate::ErrorKind::InvalidPermits) if the number of permits is 0 or exceeds
///   the capacity, even if the capacity was reduced only during the wait. A capacity is 1 to 4096,
///   or 0 while the semaphore is [paused](Self::set_capacity).
/// * [`CapacityMismatch`](crate::ErrorKind::CapacityMismatch) if [`open`](Self::open) finds a
///   semaphore with a different capacity that is not paused. A program whose semaphore may be
///   resized then opens it with [`open_existing`](Self::open_existing).
/// * [`Corrupt`](crate::ErrorKind::Corrupt) if the stored capacity is not a valid number.
/// * [`NotRegularFile`](crate::ErrorKind::NotRegularFile) if the path names something other than a
///   directory, or a [`Barrier`](crate::Barrier), or if one of its files is not a regular file.
///   That file is left unchanged.
/// * [`Unsupported`](crate::ErrorKind::Unsupported) if the platform or the file system has no
///   locks.
/// * [`Io`](crate::ErrorKind::Io) if the system refuses the operation, for example because a file
///   cannot be created or the process has too many open files.
///
/// # Platform-specific behavior
///
/// * Linux: with up to 64 permits, a release or the death of a holder is reported to the waiter at
///   the front through a FIFO within some ten microseconds, and with more permits through events of
///   the directory. A waiter has two or three descriptors open, and the waiter at the front one
///   more for each permit. If no descriptor is left, it waits as on other systems.
/// * Elsewhere the waiter at the front checks for deaths every 20 to 100
///   milliseconds.
/// * Windows: while a `Semaphore` is open, its files cannot be removed.
/// * File systems without hard links (FAT): a slot file that is removed is created again, even
///   though its holder may still hold the old one.
/// * Network file systems (NFS, SMB, FUSE and others): the waiters of one user and host queue on
///   their host. The first of them waits for the server, and polls if the semaphore has more than
///   one permit. Its pauses are an eighth of the time that it has waited, up to 50 milliseconds,
///   and longer when it has waited for 5 seconds (at most a twentieth of that time, and a quarter
///   of a second for each permit). See [`distributed`](crate::_documentation::distributed).
#[derive(Clone)]
pub struct Semaphore {
    inner: Arc<Inner>,
}

struct Inner {
    slots: Arc<Slots>,
    gate: Arc<LockRequest>,
    line: Arc<Line>,
    wake_strategy: WakeStrategy,
    permit_options: PermitOptions,
    hooks: Option<WaitHooks>,
    host_line: HostLine,
    server: Option<Server>,
    /// Limits how often an acquisition checks for waiters and replaced files, since each check
    /// costs as much as acquiring the permit.
    checks: CheckSampler,
}

impl Inner {
    /// Checks whether the path still names the files of this handle, if a check is due, and returns
    /// whether it was.
    fn refresh_if_due(&self) -> Result<bool> {
        let is_due = self.checks.is_due();
        if is_due {
            self.slots.refresh()?;
        }
        Ok(is_due)
    }

    fn take_if_unwanted(&self, permits: u32) -> Result<Option<Batch>> {
        if self.slots.tickets.may_have_waiters() {
            return Ok(None); // The leader compares the files.
        }
        let check = self.refresh_if_due()?;
        if self.slots.is_wanted(check) { Ok(None) } else { self.take(permits, check) }
    }

    /// Does not pass a waiter that has a ticket, unless the first of them is stopped.
    fn try_take(&self, permits: u32, check: bool) -> Result<Option<Batch>> {
        if self.line.refuses_a_try() { Ok(None) } else { self.take(permits, check) }
    }

    fn take(&self, permits: u32, check: bool) -> Result<Option<Batch>> {
        let unwanted = QUEUES.unwanted();
        let mut batch = self.slots.nothing();
        let how = Gathering { check_taken: check, ..Gathering::default() };
        if self.slots.gather(&mut batch, permits, how)? {
            return Ok(Some(batch));
        }
        // A wait of this process that gave up may have left a helper that holds the slot (Q7).
        let has_left = !QUEUES.is_empty() || QUEUES.unwanted() != unwanted;
        let one = if has_left { self.only_slot() } else { None };
        match one.map_or(Ok(None), |one| take_over(&QUEUES, &one, unwanted))? {
            Some(locked) => self.slots.adopt(0, locked),
            None => Ok(None),
        }
    }
}

impl Semaphore {
    /// Opens the semaphore at `path`, or creates it with the given number of permits.
    ///
    /// Creating a semaphore creates a file with two names for each permit, which takes up to a
    /// second for 4096 permits.
    ///
    /// Missing parent directories are created too. If several processes create the semaphore at the
    /// same time, one of them does and the others open it. How paths are resolved is described in
    /// [Paths](crate#paths).
    ///
    /// # Errors
    ///
    /// See [the errors of `Semaphore`](Self#errors).
    pub fn open(path: impl AsRef<Path>, permits: u32) -> Result<Self> {
        Options::new().open_semaphore(path, permits)
    }

    /// Opens the semaphore at `path` with its stored capacity, without creating anything.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no semaphore; otherwise see [the errors
    /// of `Semaphore`](Self#errors).
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_existing_semaphore(path)
    }

    /// Acquires a permit, blocking the current thread until one is available.
    ///
    /// # Errors
    ///
    /// See [the errors of `Semaphore`](Self#errors).
    pub fn acquire(&self) -> Result<Permit> {
        self.acquire_many(1)
    }

    /// Attempts to acquire a permit without waiting.
    ///
    /// The call does not queue. On Linux it fails while a waiter is ahead; elsewhere it can take a
    /// permit ahead of waiters.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("uploads");
    /// let uploads = flockwork::Semaphore::open(&path, 2)?;
    /// match uploads.try_acquire() {
    ///     Ok(_permit) => println!("uploading"),
    ///     Err(error) if error.is_would_block() => println!("try again later: {error}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if no permit is available; otherwise see [the
    /// errors of `Semaphore`](Self#errors).
    pub fn try_acquire(&self) -> Result<Permit> {
        self.try_acquire_many(1)
    }

    /// Attempts to acquire a permit, waiting at most `timeout`.
    ///
    /// A zero timeout tries once. A timeout too large for [`Instant`] waits forever.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if no permit was available before the timeout;
    /// otherwise see [the errors of `Semaphore`](Self#errors).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit> {
        self.acquire_many_timeout(1, timeout)
    }

    /// Attempts to acquire a permit, waiting until `deadline`.
    ///
    /// A deadline that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if no permit was available before the deadline;
    /// otherwise see [the errors of `Semaphore`](Self#errors).
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<Permit> {
        self.acquire_many_deadline(1, deadline)
    }

    /// Acquires a permit asynchronously.
    ///
    /// The future follows the [rules of all futures](crate#futures). A future that has reached the
    /// front of the queue and is neither polled nor dropped delays every other waiter by up to a
    /// second, and keeps the permits that it has gathered.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("downloads");
    /// # futures_lite::future::block_on(async {
    /// let downloads = flockwork::Semaphore::open(&path, 8)?;
    /// let permit = downloads.acquire_async().await?;
    /// # drop(permit);
    /// # Ok::<(), flockwork::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [the errors of `Semaphore`](Self#errors).
    pub fn acquire_async(&self) -> impl Future<Output = Result<Permit>> + Send + use<> {
        self.acquire_many_async(1)
    }

    /// Acquires several permits together, blocking the current thread until all are available.
    ///
    /// They are released together, when the returned [`Permit`] is dropped. The caller queues like
    /// any other. At the front of the queue it gathers permits as they become available, and
    /// releases them if it gives up. So two callers of this method never deadlock with each other.
    ///
    /// # Errors
    ///
    /// [`InvalidPermits`](crate::ErrorKind::InvalidPermits) immediately if `permits` is 0 or
    /// exceeds the capacity; otherwise see [the errors of `Semaphore`](Self#errors).
    pub fn acquire_many(&self, permits: u32) -> Result<Permit> {
        self.wait(permits, Limit::Never)
    }

    /// Attempts to acquire several permits together without waiting, all of them or none.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if fewer are available; otherwise as for
    /// [`acquire_many`](Self::acquire_many).
    pub fn try_acquire_many(&self, permits: u32) -> Result<Permit> {
        self.ask(move |semaphore| semaphore.try_here(permits))
    }

    fn try_here(&self, permits: u32) -> Result<Permit> {
        self.check(permits)?;
        let check = self.inner.refresh_if_due()?;
        match self.inner.try_take(permits, check)? {
            Some(batch) => self.permit(batch),
            None => Err(Error::would_block_for(
                self.inner.slots.directory(),
                self.inner.slots.obstacle(),
            )),
        }
    }

    /// Attempts to acquire several permits together, waiting at most `timeout`.
    ///
    /// A zero timeout tries once. A timeout too large for [`Instant`] waits forever.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if they were not available before the timeout;
    /// otherwise as for [`acquire_many`](Self::acquire_many).
    pub fn acquire_many_timeout(&self, permits: u32, timeout: Duration) -> Result<Permit> {
        self.wait(permits, Limit::After(timeout))
    }

    /// Attempts to acquire several permits together, waiting until `deadline`.
    ///
    /// A deadline that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if they were not available before the deadline;
    /// otherwise as for [`acquire_many`](Self::acquire_many).
    pub fn acquire_many_deadline(&self, permits: u32, deadline: Instant) -> Result<Permit> {
        self.wait(permits, Limit::At(deadline))
    }

    /// Acquires several permits together asynchronously.
    ///
    /// The future behaves like that of [`acquire_async`](Self::acquire_async). It returns all
    /// errors when it is polled.
    ///
    /// # Errors
    ///
    /// As for [`acquire_many`](Self::acquire_many).
    pub fn acquire_many_async(
        &self,
        permits: u32,
    ) -> impl Future<Output = Result<Permit>> + Send + use<> {
        let semaphore = self.clone();
        async move {
            let (server, hooks) = (semaphore.inner.server.as_ref(), semaphore.inner.hooks.as_ref());
            let wait = move |semaphore: &Self, limit, hooks: Option<&_>| {
                semaphore.wait_here(permits, limit, hooks)
            };
            if let Some(waiting) = Server::future_about(server, &semaphore, hooks, wait) {
                return waiting.await;
            }
            semaphore.check(permits)?;
            let queued = QueuedAcquire::new(semaphore.request(permits)).future();
            let hooks = semaphore.inner.hooks.clone();
            let line = semaphore.inner.host_line.of(&semaphore.inner.gate);
            let try_now = || semaphore.try_now(permits);
            semaphore.permit(acquire_on_host(line, try_now, queued, hooks).await?)
        }
    }

    /// Returns the capacity: how many permits the semaphore has, held or available.
    ///
    /// It is 0 while the semaphore is [paused](Self::set_capacity).
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) or [`Io`](crate::ErrorKind::Io) if the stored
    /// capacity cannot be read.
    pub fn capacity(&self) -> Result<u32> {
        self.ask(|semaphore| semaphore.inner.slots.capacity())
    }

    /// Returns how many permits are available at this moment.
    ///
    /// The result is a snapshot and may be out of date when the call returns. The call acquires
    /// nothing, but touches each slot for a microsecond, during which a
    /// [`try_acquire`](Self::try_acquire) can fail. Waiters are not affected.
    ///
    /// # Errors
    ///
    /// As for [`capacity`](Self::capacity), and [`Io`](crate::ErrorKind::Io) if a slot cannot be
    /// opened.
    pub fn available_permits(&self) -> Result<u32> {
        self.ask(Self::available_here)
    }

    fn available_here(&self) -> Result<u32> {
        loop {
            let unwanted = QUEUES.unwanted();
            let available = self.inner.slots.available()?;
            if available > 0 {
                return Ok(available);
            }
            // A slot that only the helper of an abandoned wait holds is available (Q7).
            if self.inner.only_slot().is_some_and(|one| is_left(&QUEUES, &*one)) {
                return Ok(1);
            }
            if QUEUES.unwanted() == unwanted {
                return Ok(0);
            }
        }
    }

    /// Changes the capacity, for all programs that use the semaphore.
    ///
    /// Added permits are available immediately, to waiters as well. If the capacity is reduced,
    /// holders keep their permits, and no new ones are granted until fewer than `permits` are out.
    /// A waiter that asked for more permits than the new capacity fails with
    /// [`InvalidPermits`](crate::ErrorKind::InvalidPermits), and can ask again for
    /// [`Error::capacity`](crate::Error::capacity) permits.
    ///
    /// A capacity of 0 *pauses* the semaphore: holders keep their permits, and none is granted.
    /// `try_` calls would block. Waiters keep their places in the queue, and continue when any
    /// process sets another capacity. Until then the semaphore stays paused, also if this process
    /// ends. [`open`](Self::open) opens a paused semaphore with any number of permits, since the
    /// number that it had is not stored.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("jobs");
    /// let jobs = flockwork::Semaphore::open(&path, 4)?;
    /// let two = jobs.acquire_many(2)?;
    /// jobs.set_capacity(1)?;
    /// assert_eq!(jobs.capacity()?, 1);
    /// assert!(jobs.try_acquire().is_err()); // two permits are still out
    /// drop(two);
    /// let one = jobs.try_acquire()?;
    /// assert!(jobs.try_acquire().is_err());
    ///
    /// jobs.set_capacity(0)?; // no new jobs, until the capacity is raised
    /// drop(one);
    /// assert_eq!(jobs.available_permits()?, 0);
    /// assert!(jobs.try_acquire().unwrap_err().is_would_block());
    /// jobs.set_capacity(4)?;
    /// assert_eq!(jobs.available_permits()?, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidPermits`](crate::ErrorKind::InvalidPermits) if `permits` is more than 4096;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the stored capacity is not a valid number;
    /// [`Io`](crate::ErrorKind::Io) if it cannot be written.
    pub fn set_capacity(&self, permits: u32) -> Result<()> {
        let change = move |_| permits.into();
        self.ask(move |semaphore| semaphore.inner.slots.change_capacity(change).map(drop))
    }

    /// Adds `delta` to the capacity, for all programs that use the semaphore, and returns the new
    /// capacity.
    ///
    /// Any number of callers can do this at the same time, in any processes, and no change is lost.
    /// Otherwise it is like [`set_capacity`](Self::set_capacity). The capacity of a paused
    /// semaphore is 0, so adding to it resumes the semaphore.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("jobs");
    /// let jobs = flockwork::Semaphore::open(&path, 4)?;
    /// assert_eq!(jobs.adjust_capacity(1)?, 5); // a machine joins
    /// assert_eq!(jobs.adjust_capacity(-2)?, 3);
    /// assert!(jobs.adjust_capacity(-4).is_err()); // unchanged
    /// assert_eq!(jobs.capacity()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidPermits`](crate::ErrorKind::InvalidPermits) if the new capacity would be less than
    /// 0 or more than 4096, and the capacity is unchanged then; otherwise as for
    /// [`set_capacity`](Self::set_capacity).
    pub fn adjust_capacity(&self, delta: i32) -> Result<u32> {
        let change = move |capacity| i64::from(capacity) + i64::from(delta);
        self.ask(move |semaphore| semaphore.inner.slots.change_capacity(change))
    }

    /// Returns the holders of permits at this moment, as far as they are known.
    ///
    /// There is one entry for each held slot, in the order of the slots' [numbers](Holder::slot).
    /// The call acquires nothing and delays no process. See [`Lock::holders`](crate::Lock::holders)
    /// for which holders are known.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if a record cannot be read or the system refuses to list
    /// holders.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::asking(self.inner.server.as_ref(), self.inner.slots.directory())
    }

    /// Returns whether waiters of this process are notified by FIFOs or by file system events.
    ///
    /// Without events they poll every 1 to 50 milliseconds, and try to subscribe again every 10
    /// seconds. This happens on a network file system, with [`Options::poll_interval`], if the
    /// user's inotify instances are used up, or if no thread can be started.
    ///
    /// The call asks the system, which takes a few hundred microseconds.
    #[must_use]
    pub fn is_event_driven(&self) -> bool {
        let wake_strategy = &self.inner.wake_strategy;
        let has_events = || {
            let place = wake_strategy.places.first();
            place.is_some_and(|place| is_watchable(&place.directory))
        };
        wake_strategy.poll_every.is_none() && (self.inner.slots.watch().is_some() || has_events())
    }

    /// Returns the absolute path of the semaphore.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.slots.directory()
    }

    fn ask<T: Send + Sync + 'static>(
        &self,
        call: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Server::ask_about(self.inner.server.as_ref(), self, call)
    }

    fn wait(&self, permits: u32, limit: Limit) -> Result<Permit> {
        let (server, hooks) = (self.inner.server.as_ref(), self.inner.hooks.as_ref());
        Server::wait_about(server, self, limit, hooks, move |semaphore, limit, hooks| {
            semaphore.wait_here(permits, limit, hooks)
        })
    }

    fn wait_here(&self, permits: u32, limit: Limit, hooks: Option<&WaitHooks>) -> Result<Permit> {
        self.check(permits)?;
        let outcome = match self.inner.host_line.of(&self.inner.gate) {
            Some(line) => {
                let waiter = QueuedAcquire::after_a_try(self.request(permits));
                let wait = HostWait::new(line, self.try_now(permits), waiter);
                let arrive = || self.inner.take_if_unwanted(permits);
                wait_on_host(wait, arrive, limit, hooks)
            }
            None => self.wait_locally(permits, limit, hooks),
        };
        match outcome? {
            Outcome::Held(batch) => self.permit(batch),
            Outcome::TimedOut(waited) => {
                let slots = &self.inner.slots;
                Err(match slots.obstacle() {
                    Obstacle::Held => Error::timed_out(slots.directory(), waited),
                    other => Error::timed_out_for(slots.directory(), waited, other, 0),
                })
            }
        }
    }

    fn wait_locally(
        &self,
        permits: u32,
        limit: Limit,
        hooks: Option<&WaitHooks>,
    ) -> Result<Outcome<Batch>> {
        check_cancelled(hooks)?;
        if let Some(batch) = self.inner.take_if_unwanted(permits)? {
            return Ok(Outcome::Held(batch));
        }
        let deadline = limit.deadline();
        if let Some(waited) = deadline.waited_if_over() {
            // The deadline has passed: try once.
            let taken = self.inner.try_take(permits, true)?;
            return Ok(taken.map_or(Outcome::TimedOut(waited), Outcome::Held));
        }
        let turn = QueuedAcquire::after_a_try(self.request(permits));
        wait_here(turn, deadline, hooks)
    }

    fn try_now(&self, permits: u32) -> TryNow<Batch> {
        let inner = Arc::clone(&self.inner);
        Box::new(move || inner.try_take(permits, true))
    }

    fn check(&self, permits: u32) -> Result<()> {
        // The capacity is compared with the number of permits when the slots are examined.
        if permits > 0 {
            return Ok(());
        }
        let capacity = self.inner.slots.capacity()?;
        check_requested(self.inner.slots.directory(), permits, capacity).map(drop)
    }

    fn request(&self, permits: u32) -> PermitRequest {
        PermitRequest { semaphore: Arc::clone(&self.inner), permits }
    }

    fn permit(&self, batch: Batch) -> Result<Permit> {
        Permit::new(batch, &self.inner.permit_options, self.inner.server.as_ref())
    }
}

impl AsRef<Path> for Semaphore {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// All shared state is in files and in the kernel, so a panic in a callback leaves it consistent.
impl UnwindSafe for Semaphore {}
impl RefUnwindSafe for Semaphore {}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens a [`Semaphore`] at `path` with these settings, or creates it: see [`Semaphore::open`].
    ///
    /// # Errors
    ///
    /// See [the errors of `Semaphore`](Semaphore#errors).
    pub fn open_semaphore(&self, path: impl AsRef<Path>, permits: u32) -> Result<Semaphore> {
        self.semaphore(path.as_ref(), Some(permits))
    }

    /// Opens a [`Semaphore`] at `path` with these settings: see [`Semaphore::open_existing`].
    ///
    /// # Errors
    ///
    /// As for [`Semaphore::open_existing`].
    pub fn open_existing_semaphore(&self, path: impl AsRef<Path>) -> Result<Semaphore> {
        self.semaphore(path.as_ref(), None)
    }

    fn semaphore(&self, path: &Path, permits: Option<u32>) -> Result<Semaphore> {
        open(self, path, move |options, path| options.semaphore_here(path, permits))
    }

    fn semaphore_here(&self, path: &Path, permits: Option<u32>) -> Result<Semaphore> {
        // A slash at the end would hide a link, so it is removed.
        let path = resolved(path.components().as_path(), self.follows_links)?;
        let slots = Slots::open(&path, permits, self.creation())?;
        let directory = slots.directory();
        let gate = LockFile::open(&directory.join("gate"), slots.creation())?;
        let place = WatchTarget { directory: Arc::clone(directory), names: None };
        let must_poll = slots.is_network();
        let server = Server::of(self, directory, must_poll);
        let wake_strategy = WakeStrategy {
            places: if must_poll { Vec::new() } else { vec![place] },
            must_poll,
            polled: Vec::new(),
            requests: 1,
            poll_every: self.poll_every,
            backstop: self.backstop,
            is_unlocking: true,
        };
        Ok(Semaphore {
            inner: Arc::new(Inner {
                gate: Arc::new(LockRequest {
                    file: gate,
                    mode: Mode::Exclusive,
                    poll_every: self.poll_every,
                    coordinator: Some(Box::new(Gate(Arc::clone(&slots)))),
                }),
                line: Arc::new(Line {
                    tickets: Arc::clone(&slots.tickets),
                    label: self.label.clone(),
                }),
                wake_strategy,
                permit_options: PermitOptions::of(self),
                hooks: lock_request::hooks(self, directory, server.as_ref()),
                host_line: HostLine::new(self.label.clone()),
                server,
                checks: CheckSampler::new(),
                slots,
            }),
        })
    }
}
