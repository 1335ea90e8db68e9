//! `Semaphore`: N slot files, acquired in turn.

mod acquire;
mod batch;
mod capacity;
mod notifications;
mod permit;
mod shared_flags;
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
use self::capacity::check_permits;
pub(crate) use self::capacity::read_in as read_capacity;
pub use self::permit::Permit;
use self::permit::PermitOptions;
use self::slots::{Gathering, Slots};
use crate::error::{Error, Result};
use crate::file::lock_file::LockFile;
use crate::holder::Holder;
use crate::holders;
use crate::lock_request::{self, LockRequest, QUEUES};
use crate::options::Options;
use crate::sys::Mode;
use crate::wait::{
    Acquire, CheckSampler, Deadline, Outcome, WaitCallback, WakeStrategy, WatchTarget, is_left,
    is_watchable, take_over, wait_here,
};

/// So many permits for a path, between processes and threads alike.
///
/// Any number of programs open the same path with the same number; at most that many permits are out at any
/// moment, over all of their processes and threads. When a holder dies, however it dies, the kernel gives its
/// permit back: there is nothing to count up again and nothing to clean up. Those who wait are served first
/// come, first served, also between processes, and sleep in the kernel until it is their turn.
///
/// The path is a directory, which holds a lock file for each permit and the number of permits; that is a part
/// of the semaphore and not of the program that opens it.
///
/// A `Semaphore` is a cheap handle: clone it, share it between threads, keep it. It does not remember who
/// acquired: a thread that acquires again while it holds permits may wait for itself.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("compilers");
/// use std::time::Duration;
/// use flockwork::Semaphore;
///
/// let compilers = Semaphore::open(&path, 4)?; // at most four at a time, on this machine
/// {
///     let permit = compilers.acquire()?; // waits for its turn
///     println!("on slot {}", permit.slots()[0]); // 0 to 3, nobody else's now
/// } // given back
///
/// let linker = compilers.acquire_many(2)?; // counts double
/// match compilers.acquire_timeout(Duration::from_secs(5)) {
///     Ok(permit) => permit.release()?, // drop would do; this one reports errors
///     Err(error) if error.is_timed_out() => eprintln!("{error}"), // says who holds them
///     Err(error) => return Err(error.into()),
/// }
/// # drop(linker);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is not promised
///
/// * It is advisory: it holds off those who ask for it.
/// * [`try_acquire`](Self::try_acquire) does not stand in the queue, so it may pass those who do.
/// * The order is that in which they joined the queue, but for two cases: who has waited for a second looks
///   for itself, once a second, so that a stopped process (SIGSTOP) at the head of the queue does not hold up
///   all others; and who joins in the microseconds in which the head is passed on may come first.
///   (What such a process holds or has gathered it keeps.)
/// * Whoever holds permits and waits for more can wait for another who does the same. Ask for all at once
///   with [`acquire_many`](Self::acquire_many), which cannot deadlock.
/// * A slot file that is removed is put back, with the lock on it. Removing the whole directory makes the next
///   acquisition create it anew, and those who hold permits of the old one are not counted any more.
/// * On a network file system the order is chance, and a holder that is cut off is not told.
///
/// # Platform-specific behaviour
///
/// * Linux: a released permit, and that of a holder that died, is passed on within some hundred
///   microseconds. Elsewhere a death is noticed by looking, every 20 to 100 milliseconds.
/// * Windows: while a `Semaphore` is open, its files cannot be removed.
/// * Where there are no hard links (FAT), a slot file that is removed is made anew, while its holder may still
///   hold the old one. Do not remove slot files.
/// * A process that may not write to the directory (it is another user's) can take permits, but cannot
///   notify waiters when it releases: they check once a second. It uses the slot files that exist; the first
///   64 are created with the semaphore. See [`Options::access`].
/// * Network file systems (NFS, SMB, FUSE ...) are polled: 1 to 50 milliseconds.
/// * Each handle keeps a descriptor open for each slot that it has tried: who waits for one of N has N open.
#[derive(Clone)]
pub struct Semaphore {
    inner: Arc<Inner>,
}

struct Inner {
    slots: Arc<Slots>,
    gate: Arc<LockRequest>,
    wake_strategy: WakeStrategy,
    permit_options: PermitOptions,
    notice: Option<WaitCallback>,
    /// Looking whether somebody waits, and whether the files are still the same, each time would cost as much
    /// as the permit.
    looks: CheckSampler,
}

impl Inner {
    /// Looks, where it is due, whether the files are still those that we know.
    fn look_now_and_then(&self) -> Result<bool> {
        let look = self.looks.is_due();
        if look {
            self.slots.refresh()?;
        }
        Ok(look)
    }

    fn take_if_unwanted(&self, permits: u32) -> Result<Option<Batch>> {
        let look = self.look_now_and_then()?;
        if self.slots.is_wanted(look) { Ok(None) } else { self.take(permits, look) }
    }

    fn take(&self, permits: u32, look: bool) -> Result<Option<Batch>> {
        let unwanted = QUEUES.unwanted();
        let mut batch = self.slots.nothing();
        let how = Gathering { check_taken: look, ..Gathering::default() };
        if self.slots.gather(&mut batch, permits, how)? {
            return Ok(Some(batch));
        }
        // A wait of this process that gave up may have left a helper that has it (Q7).
        let has_left = !QUEUES.is_empty() || QUEUES.unwanted() != unwanted;
        let one = if has_left { self.only_slot() } else { None };
        match one.map_or(Ok(None), |one| take_over(&QUEUES, &one, unwanted))? {
            Some(locked) => self.slots.adopt(0, locked),
            None => Ok(None),
        }
    }
}

impl Semaphore {
    /// Opens the semaphore at `path`, or makes it with so many permits, together with the missing parent
    /// directories.
    ///
    /// However many processes do so at once, one makes it. The path is made absolute, so that a later change of
    /// the current directory changes nothing. Symbolic links in parent directories are followed, at the last
    /// component refused.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::CapacityMismatch`](crate::ErrorKind::CapacityMismatch) if it is there with another number of permits.
    /// * [`ErrorKind::InvalidPermits`](crate::ErrorKind::InvalidPermits) for 0 permits, or more than 4096.
    /// * [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if what is stored is no number of permits.
    /// * [`ErrorKind::NotRegularFile`](crate::ErrorKind::NotRegularFile) if there is something else than a directory at the path, or something else
    ///   than a file within it; it is left as it was.
    /// * [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the platform has no locks.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io) if a file can neither be opened nor made.
    pub fn open(path: impl AsRef<Path>, permits: u32) -> Result<Self> {
        Options::new().open_semaphore(path, permits)
    }

    /// Opens the semaphore at `path` with the number of permits that it has. Makes nothing where there is
    /// none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) with the kind `NotFound` if there is none; otherwise as [`open`](Self::open).
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_existing_semaphore(path)
    }

    /// Waits for a permit, without limit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the file system has no locks; [`ErrorKind::Io`](crate::ErrorKind::Io) for what else the system refuses,
    /// such as another descriptor; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the number of permits was damaged since. Then nothing
    /// is held.
    pub fn acquire(&self) -> Result<Permit> {
        self.acquire_many(1)
    }

    /// Takes a permit if one is free, and never waits. It does not stand in the queue: a permit that is free
    /// may be on its way to one who does.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("uploads");
    /// let uploads = flockwork::Semaphore::open(&path, 2)?;
    /// match uploads.try_acquire() {
    ///     Ok(_permit) => println!("uploading"),
    ///     Err(error) if error.is_would_block() => println!("later: {error}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) if none is free; otherwise as [`acquire`](Self::acquire).
    pub fn try_acquire(&self) -> Result<Permit> {
        self.try_acquire_many(1)
    }

    /// Waits for a permit for at most `timeout`. Zero tries once; what no clock can show waits forever.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if none could be had in time; otherwise as [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit> {
        self.acquire_many_timeout(1, timeout)
    }

    /// Waits for a permit until `deadline`. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if none could be had in time; otherwise as [`acquire`](Self::acquire).
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<Permit> {
        self.acquire_many_deadline(1, deadline)
    }

    /// Waits for a permit as a future, under any runtime. Dropping the future gives up.
    ///
    /// The wait begins when it is first polled, and holds up no executor thread. A future that was polled should
    /// be polled on or dropped: one that is set aside when it has come to the front of the queue delays each of the
    /// others by up to a second, and one that waits for several permits keeps those it has gathered. A future that is
    /// polled after it has completed stays pending.
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
    /// As [`acquire`](Self::acquire).
    pub fn acquire_async(&self) -> impl Future<Output = Result<Permit>> + Send + use<> {
        self.acquire_many_async(1)
    }

    /// Waits for `permits` permits, which are had and given back together, without limit.
    ///
    /// It is served in its turn: at the head of the queue it gathers what becomes free, and those behind it wait
    /// until it has all. Who gives up gives back what was gathered. So two who wait for many never wait for
    /// each other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPermits`](crate::ErrorKind::InvalidPermits) at once for 0, or more than the semaphore has (also if it has shrunk since);
    /// otherwise as [`acquire`](Self::acquire).
    pub fn acquire_many(&self, permits: u32) -> Result<Permit> {
        self.wait(permits, || Deadline::NEVER)
    }

    /// Takes so many permits if they are free, all or none, and never waits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) if fewer are free; otherwise as [`acquire_many`](Self::acquire_many).
    pub fn try_acquire_many(&self, permits: u32) -> Result<Permit> {
        self.check(permits)?;
        let look = self.inner.look_now_and_then()?;
        match self.inner.take(permits, look)? {
            Some(batch) => self.permit(batch),
            None => Err(Error::would_block(self.inner.slots.directory())),
        }
    }

    /// Waits for so many permits for at most `timeout`. Zero tries once; what no clock can show waits forever.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if they could not be had in time; otherwise as
    /// [`acquire_many`](Self::acquire_many).
    pub fn acquire_many_timeout(&self, permits: u32, timeout: Duration) -> Result<Permit> {
        self.wait(permits, || Deadline::after(timeout))
    }

    /// Waits for so many permits until `deadline`. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if they could not be had in time; otherwise as
    /// [`acquire_many`](Self::acquire_many).
    pub fn acquire_many_deadline(&self, permits: u32, deadline: Instant) -> Result<Permit> {
        self.wait(permits, || Deadline::at(deadline))
    }

    /// Waits for so many permits as a future: see [`acquire_async`](Self::acquire_async).
    ///
    /// # Errors
    ///
    /// As [`acquire_many`](Self::acquire_many), all when polled.
    pub fn acquire_many_async(
        &self,
        permits: u32,
    ) -> impl Future<Output = Result<Permit>> + Send + use<> {
        let semaphore = self.clone();
        async move {
            semaphore.check(permits)?;
            let queued = QueuedAcquire::new(semaphore.request(permits)).future();
            let batch = Acquire::new(queued, semaphore.inner.notice.clone()).await?;
            semaphore.permit(batch)
        }
    }

    /// How many permits the semaphore has, held or not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) or [`ErrorKind::Io`](crate::ErrorKind::Io) if what is stored cannot be read.
    pub fn capacity(&self) -> Result<u32> {
        self.inner.slots.capacity()
    }

    /// How many permits are free at this moment. A snapshot: it may be out of date when it is returned.
    ///
    /// Takes nothing, but touches each slot for a microsecond: who calls [`try_acquire`](Self::try_acquire) in
    /// that moment may be refused. Those who wait lose nothing by it.
    ///
    /// # Errors
    ///
    /// As [`capacity`](Self::capacity), and [`ErrorKind::Io`](crate::ErrorKind::Io) if a slot cannot be opened.
    pub fn available_permits(&self) -> Result<u32> {
        loop {
            let unwanted = QUEUES.unwanted();
            let available = self.inner.slots.available()?;
            if available > 0 {
                return Ok(available);
            }
            // What a wait of this process has left behind holds nothing for anybody (Q7).
            if self.inner.only_slot().is_some_and(|one| is_left(&QUEUES, &*one)) {
                return Ok(1);
            }
            if QUEUES.unwanted() == unwanted {
                return Ok(0);
            }
        }
    }

    /// Changes the number of permits, for all who use the semaphore.
    ///
    /// More permits can be had at once, also by those who wait. Fewer take nothing from anybody: there is no
    /// new permit until so many have been given back that fewer than `permits` are out. Whoever waits for
    /// more than there are then fails with [`ErrorKind::InvalidPermits`](crate::ErrorKind::InvalidPermits).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("jobs");
    /// let jobs = flockwork::Semaphore::open(&path, 4)?;
    /// let two = jobs.acquire_many(2)?;
    /// jobs.set_capacity(1)?;
    /// assert_eq!(jobs.capacity()?, 1);
    /// assert!(jobs.try_acquire().is_err()); // two are out
    /// drop(two);
    /// let one = jobs.try_acquire()?;
    /// assert!(jobs.try_acquire().is_err());
    /// # drop(one);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPermits`](crate::ErrorKind::InvalidPermits) for 0 permits, or more than 4096; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if what is stored is no
    /// number of permits; [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be written.
    pub fn set_capacity(&self, permits: u32) -> Result<()> {
        self.inner.slots.set_capacity(permits)
    }

    /// Who holds permits at this moment, as far as that is known: one entry for each slot that is held, in the
    /// order of their [numbers](Holder::slot). Takes nothing and delays nobody.
    ///
    /// See [`Lock::holders`](crate::Lock::holders) for what is known of whom.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if there is a record that cannot be read, or the system refuses to tell.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        holders::of(self.inner.slots.directory())
    }

    /// Whether those who wait in this process are woken by the system's events. Where they cannot be had (all
    /// inotify instances of the user are taken, no thread can be had, a network file system,
    /// [`Options::poll_interval`]) they look every 1 to 50 milliseconds instead, and ask for events again every 10
    /// seconds.
    ///
    /// Asks the system, which takes some hundred microseconds.
    #[must_use]
    pub fn is_event_driven(&self) -> bool {
        let wake_strategy = &self.inner.wake_strategy;
        wake_strategy.poll_every.is_none()
            && wake_strategy.places.first().is_some_and(|place| is_watchable(&place.directory))
    }

    /// The path of the semaphore, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.slots.directory()
    }

    fn wait(&self, permits: u32, deadline: impl FnOnce() -> Deadline) -> Result<Permit> {
        self.check(permits)?;
        if let Some(batch) = self.inner.take_if_unwanted(permits)? {
            return self.permit(batch);
        }
        let deadline = deadline();
        let outcome = if deadline.is_over() {
            // There is no wait to be had, but one try it is worth.
            self.inner.take(permits, true)?.map_or(Outcome::TimedOut(Duration::ZERO), Outcome::Held)
        } else {
            let turn = QueuedAcquire::new(self.request(permits));
            wait_here(turn, deadline, self.inner.notice.as_ref())?
        };
        match outcome {
            Outcome::Held(batch) => self.permit(batch),
            Outcome::TimedOut(waited) => {
                Err(Error::timed_out(self.inner.slots.directory(), waited))
            }
        }
    }

    fn check(&self, permits: u32) -> Result<()> {
        // Whether there are so many is looked at with the slots.
        if permits == 0 {
            check_permits(self.inner.slots.directory(), permits, self.capacity()?)?;
        }
        Ok(())
    }

    fn request(&self, permits: u32) -> PermitRequest {
        PermitRequest { semaphore: Arc::clone(&self.inner), permits }
    }

    fn permit(&self, batch: Batch) -> Result<Permit> {
        Permit::new(batch, &self.inner.permit_options)
    }
}

impl AsRef<Path> for Semaphore {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// A panic in a callback leaves nothing half-changed: what is shared lies in files and in the kernel.
impl UnwindSafe for Semaphore {}
impl RefUnwindSafe for Semaphore {}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens a [`Semaphore`] at `path` with these settings, or makes it: see [`Semaphore::open`].
    ///
    /// # Errors
    ///
    /// As [`Semaphore::open`].
    pub fn open_semaphore(&self, path: impl AsRef<Path>, permits: u32) -> Result<Semaphore> {
        self.semaphore(path.as_ref(), Some(permits))
    }

    /// Opens a [`Semaphore`] at `path` with these settings: see [`Semaphore::open_existing`].
    ///
    /// # Errors
    ///
    /// As [`Semaphore::open_existing`].
    pub fn open_existing_semaphore(&self, path: impl AsRef<Path>) -> Result<Semaphore> {
        self.semaphore(path.as_ref(), None)
    }

    fn semaphore(&self, path: &Path, permits: Option<u32>) -> Result<Semaphore> {
        let slots = Slots::open(path, permits, self.access)?;
        let directory = slots.directory();
        let gate = LockFile::open(&directory.join("gate"), self.access)?;
        let place = WatchTarget { directory: Arc::clone(directory), names: None };
        let must_poll = slots.is_network();
        let wake_strategy = WakeStrategy {
            places: if must_poll { Vec::new() } else { vec![place] },
            must_poll,
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
                wake_strategy,
                permit_options: PermitOptions::of(self),
                notice: lock_request::notice(self, directory),
                looks: CheckSampler::new(),
                slots,
            }),
        })
    }
}
