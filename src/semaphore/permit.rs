//! [`Permit`]: slots of a semaphore that are held, and the records beside them.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::batch::Batch;
use crate::access::Creation;
use crate::error::{Error, Operation, Result};
use crate::file::fence::{self, Token};
use crate::options::Options;
use crate::record::{Record, RecordLocation};
use crate::sys::Mode;
use crate::trace;
use crate::wait::{Kept, Server, note_progress};

/// The options that concern permits.
pub(super) struct PermitOptions {
    label: Option<Arc<str>>,
    is_recorded: bool,
    is_inherited: bool,
    creation: Creation,
}

impl PermitOptions {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            label: options.label.clone(),
            is_recorded: options.record,
            is_inherited: options.inherit,
            creation: options.creation(),
        }
    }
}

/// A guard that holds one or more permits of a [`Semaphore`](crate::Semaphore).
///
/// Dropping it releases them. It owns what it holds: it can be sent to another thread, kept in a
/// struct, and outlive the [`Semaphore`](crate::Semaphore). A copy of a permit in a child created
/// by `fork` releases nothing.
///
/// [`Semaphore::acquire`](crate::Semaphore::acquire),
/// [`Semaphore::acquire_many`](crate::Semaphore::acquire_many) and their other forms return it.
#[must_use = "if unused, the permit is released immediately"]
#[clippy::has_significant_drop]
pub struct Permit {
    held: Kept<HeldSlots>,
}

/// The slots of a permit.
struct HeldSlots {
    /// The records of slots. Dropped before the batch: once a slot is free, its record belongs to
    /// the next holder.
    records: Vec<(u32, Record)>,
    batch: Batch,
    slots: Numbers,
    /// The slots whose earlier holder died.
    abandoned: Vec<u32>,
    token: Token,
    creation: Creation,
}

/// The numbers of the slots, in ascending order. Most permits have one, which needs no allocation.
#[derive(Debug)]
enum Numbers {
    One([u32; 1]),
    Many(Vec<u32>),
}

impl Numbers {
    fn of(batch: &Batch) -> Self {
        let mut numbers = batch.taken().map(|(slot, _)| *slot);
        let first = numbers.next().unwrap_or_default(); // no batch is empty
        let mut all: Vec<u32> = numbers.collect();
        if all.is_empty() {
            return Self::One([first]);
        }
        all.push(first);
        all.sort_unstable();
        Self::Many(all)
    }

    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl Permit {
    /// A permit for the slots of `batch`, with the records that `options` ask for.
    pub(super) fn new(
        mut batch: Batch,
        options: &PermitOptions,
        server: Option<&Server>,
    ) -> Result<Self> {
        if options.is_inherited {
            batch.make_inheritable()?;
        }
        let (mut records, mut abandoned) = (Vec::new(), Vec::new());
        if options.is_recorded {
            let label = options.label.as_deref();
            for (slot, locked) in batch.taken() {
                let location = RecordLocation::of_slot(batch.directory(), *slot);
                if location.remove_abandoned(locked.id()) {
                    abandoned.push(*slot);
                    trace::dead_holder(batch.directory());
                }
                // A permit without a record is just as valid.
                let record = Record::publish(location, locked.id(), label, options.creation.access);
                records.extend(record.ok().map(|record| (*slot, record)));
            }
        }
        let slots = Numbers::of(&batch);
        let (token, creation) = (Token::default(), options.creation);
        let held = HeldSlots { records, batch, slots, abandoned, token, creation };
        Ok(Self { held: Kept::new(held, server) })
    }

    /// Returns the numbers of the slots that this permit holds, in ascending order.
    ///
    /// They are between 0 and the capacity minus 1, and no other holder has one of them, so they
    /// can select a port, a device or a directory. (After the capacity has been reduced, permits
    /// that are still out can have higher numbers.)
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        self.held.get().slots.as_slice()
    }

    /// Returns the lowest of the [`slots`](Self::slots), the only one of a permit acquired alone.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slots()[0]
    }

    /// Returns how many permits this guard holds: one for each of its [`slots`](Self::slots).
    #[must_use]
    pub fn count(&self) -> u32 {
        self.held.get().batch.len()
    }

    /// Splits off `n` permits, which are then released on their own.
    ///
    /// The returned permit has the `n` highest [`slots`](Self::slots), and this one keeps the rest.
    /// No permit is released and none is acquired, so no waiter can take one in between.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("cores");
    /// let cores = flockwork::Semaphore::open(&path, 8)?;
    /// let mut build = cores.acquire_many(4)?;
    /// let link = build.split(3)?; // compiling needs one core from now on
    /// assert_eq!((build.count(), link.count()), (1, 3));
    /// std::thread::spawn(move || drop(link)).join().unwrap();
    /// assert_eq!(cores.available_permits()?, 7);
    /// # drop(build);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidPermits`](crate::ErrorKind::InvalidPermits) if `n` is 0 or not less than the
    /// [`count`](Self::count); [`Io`](crate::ErrorKind::Io) for a copy of the permit that `fork`
    /// created. This permit is unchanged then.
    pub fn split(&mut self, n: u32) -> Result<Self> {
        let server = self.held.server().cloned();
        let split = match self.held.change() {
            Some(held) => held.split(n)?,
            None => return Err(still_asking(Operation::Split, self.held.get())),
        };
        Ok(Self { held: Kept::new(split, server.as_ref()) })
    }

    /// Adds the permits of `other` to this one, so that they are released together.
    ///
    /// Both must be permits of the same semaphore, but different handles may have acquired them.
    /// No permit is released and none is acquired.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("cores");
    /// let cores = flockwork::Semaphore::open(&path, 8)?;
    /// let mut permit = cores.acquire_many(3)?;
    /// permit.merge(cores.acquire()?)?;
    /// assert_eq!(permit.slots(), [0, 1, 2, 3]);
    ///
    /// let disks = flockwork::Semaphore::open(dir.path().join("disks"), 1)?;
    /// let failed = permit.merge(disks.acquire()?).unwrap_err();
    /// let disk = failed.into_permit(); // still held
    /// # assert_eq!(disk.path(), disks.path());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A [`MergeError`], which returns `other`, if it is a permit of another semaphore, or if one
    /// of them is a copy that `fork` created. This permit is unchanged then.
    pub fn merge(&mut self, other: Self) -> std::result::Result<(), MergeError> {
        let failed = |error, held| Err(MergeError { error, permit: Box::new(Self { held }) });
        let Some(held) = self.held.change() else {
            let error = still_asking(Operation::Merge, self.held.get());
            return failed(error, other.held);
        };
        if let Some(problem) = held.merge_problem(other.held.get()) {
            return failed(problem, other.held);
        }
        match other.held.take_now() {
            Ok(other) => held.merge(other),
            Err(other) => return failed(still_asking(Operation::Merge, held), other),
        }
        Ok(())
    }

    /// Releases the permits and reports errors, which dropping the guard cannot do.
    ///
    /// # Errors
    ///
    /// * [`Lost`](crate::ErrorKind::Lost) if the server of a network file system had dropped the
    ///   lock of a slot before: see [`LockGuard::unlock`](crate::LockGuard::unlock).
    /// * [`Io`](crate::ErrorKind::Io) if the system fails to unlock a file. The descriptor is
    ///   closed then, which also releases the permit unless a forked child has it open.
    ///
    /// A forked copy of the permit releases nothing and also returns [`Io`](crate::ErrorKind::Io).
    pub fn release(self) -> Result<()> {
        self.held.finish(HeldSlots::release)
    }

    /// Returns whether an earlier holder of one of these slots died without releasing it.
    ///
    /// Its work may then be half-done. Only permits of a semaphore that writes records
    /// ([`Options::label`], [`Options::record_holder`]) report it, only for holders that left a
    /// record, and only once. So `false` means "no evidence". A process that ends while the permit
    /// is alive counts as one that died.
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        !self.held.get().abandoned.is_empty()
    }

    /// Returns `true` while this permit counts for all processes that acquire from the path now.
    ///
    /// Returns `false` if the path no longer names the directory that contains the locked slots,
    /// since a program has removed or replaced it, and in a copy of the permit that `fork` created.
    /// Returns `false` also if the server of a network file system has dropped the lock of a slot.
    /// A slot file that was removed alone is restored by the next process that opens it, still
    /// locked, so the permit counts. See [`LockGuard::still_held`](crate::LockGuard::still_held).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("gpus");
    /// let permit = flockwork::Semaphore::open(&path, 2)?.acquire()?;
    /// assert!(permit.still_held()?);
    /// # #[cfg(unix)] {
    /// std::fs::remove_dir_all(&path)?; // a mistake of another program
    /// assert!(!permit.still_held()?);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the path cannot be looked up, or the server cannot be asked.
    ///
    /// # Platform-specific behavior
    ///
    /// * Windows: the files cannot be removed or replaced, so the answer is `true`.
    /// * File systems without hard links (FAT): a removed slot file is not restored, so the answer
    ///   is `false`.
    /// * Network file systems: a lost permit is detected where a lost lock is, and the call returns
    ///   an error of kind [`TimedOut`](crate::ErrorKind::TimedOut) if the server does not respond.
    ///   See [`LockGuard::still_held`](crate::LockGuard::still_held).
    pub fn still_held(&self) -> Result<bool> {
        self.held.ask(HeldSlots::still_held)
    }

    /// Returns the fencing token of this acquisition.
    ///
    /// The token is a number that grows with each acquisition of the semaphore that asks for one.
    /// It works as [`LockGuard::fencing_token`](crate::LockGuard::fencing_token) does. Several
    /// permits are held at the same time, so a service that checks the tokens compares them for
    /// each [slot](Self::slot) separately. The latest token is in the directory `fence` of the
    /// semaphore.
    ///
    /// # Errors
    ///
    /// See [`LockGuard::fencing_token`](crate::LockGuard::fencing_token).
    pub fn fencing_token(&self) -> Result<u64> {
        self.held.ask(HeldSlots::fencing_token)
    }

    /// Returns the absolute path of the semaphore.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.held.get().batch.directory()
    }
}

/// The error for a permit that a call has which was given up, since the server did not respond.
fn still_asking(operation: Operation, held: &HeldSlots) -> Error {
    let source = io::Error::new(io::ErrorKind::TimedOut, "an earlier call waits for its server");
    Error::io(operation, held.batch.directory(), source)
}

impl HeldSlots {
    fn split(&mut self, n: u32) -> Result<Self> {
        let (all, directory) = (self.batch.len(), self.batch.directory());
        let kept = all.saturating_sub(n);
        if n == 0 || kept == 0 {
            return Err(Error::invalid_split(directory, all.saturating_sub(1), n));
        }
        if !self.batch.is_here() {
            return Err(Error::forked_copy(Operation::Split, directory));
        }
        let first = self.slots.as_slice()[kept as usize]; // the lowest number that moves
        let batch = self.batch.split(|slot| slot >= first);
        let (records, kept) =
            std::mem::take(&mut self.records).into_iter().partition(|(slot, _)| *slot >= first);
        self.records = kept;
        let (abandoned, kept) =
            std::mem::take(&mut self.abandoned).into_iter().partition(|slot| *slot >= first);
        self.abandoned = kept;
        self.slots = Numbers::of(&self.batch);
        let (token, creation) = (Token::default(), self.creation);
        Ok(Self { records, slots: Numbers::of(&batch), batch, abandoned, token, creation })
    }

    fn merge_problem(&self, other: &Self) -> Option<Error> {
        let directory = self.batch.directory();
        if !(self.batch.is_here() && other.batch.is_here()) {
            return Some(Error::forked_copy(Operation::Merge, directory));
        }
        (!self.batch.has_directory_of(&other.batch)).then(|| {
            let reason = "the permits are of different semaphores";
            let source = io::Error::new(io::ErrorKind::InvalidInput, reason);
            Error::io(Operation::Merge, directory, source)
        })
    }

    fn merge(&mut self, other: Self) {
        let Self { records, batch, abandoned, .. } = other;
        self.records.extend(records);
        self.batch.merge(batch);
        self.abandoned.extend(abandoned);
        self.slots = Numbers::of(&self.batch);
    }

    fn release(mut self) -> Result<()> {
        self.check_here()?;
        let lost = self.is_lost();
        if let Ok(true) = lost {
            // The records may be those of the next holders.
            self.records.drain(..).for_each(|(_, record)| record.leave());
            let _ = self.batch.give_back();
            return Err(Error::lost(self.batch.directory()));
        }
        self.records.clear();
        self.batch.give_back()?;
        lost.map(drop)
    }

    /// Returns an error in a forked copy, whose slots belong to the parent process (rule 4).
    fn check_here(&self) -> Result<()> {
        if self.batch.taken().any(|(_, locked)| !locked.is_here()) {
            return Err(Error::forked_copy(Operation::Release, self.batch.directory()));
        }
        Ok(())
    }

    /// Whether the server of a network file system has dropped one of the locks (rule 16).
    fn is_lost(&self) -> Result<bool> {
        for (_, locked) in self.batch.taken() {
            if locked.is_lost(Mode::Exclusive)? {
                return Ok(true);
            }
            note_progress();
        }
        Ok(false)
    }

    fn still_held(&self) -> Result<bool> {
        for (_, locked) in self.batch.taken() {
            if !locked.is_current(Mode::Exclusive)? {
                return Ok(false);
            }
            note_progress();
        }
        Ok(true)
    }

    fn fencing_token(&self) -> Result<u64> {
        self.check_here()?;
        if let Some(token) = self.token.get() {
            return Ok(token);
        }
        let directory = self.batch.directory();
        let taken = fence::take(&fence::within(directory), self.creation)?;
        if self.still_held()? { Ok(self.token.keep(taken)) } else { Err(Error::lost(directory)) }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("path", &self.path())
            .field("slots", &self.slots())
            .finish_non_exhaustive()
    }
}

/// Two permits that could not be merged. It holds the one that was passed to [`Permit::merge`].
///
/// Dropping the error releases that permit, as does its conversion to an [`Error`] by `?`.
#[derive(Debug)]
#[must_use = "if unused, the permit is released immediately"]
pub struct MergeError {
    error: Error,
    permit: Box<Permit>,
}

impl MergeError {
    /// Returns the permit that was not merged, which is still held.
    pub fn into_permit(self) -> Permit {
        *self.permit
    }
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for MergeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<MergeError> for Error {
    fn from(failed: MergeError) -> Self {
        failed.error
    }
}
