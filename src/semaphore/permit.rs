//! [`Permit`]: slots of a semaphore that are held, and the records beside them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::batch::Batch;
use crate::access::Access;
use crate::error::{Error, Operation, Result};
use crate::options::Options;
use crate::record::{Record, RecordLocation};
use crate::trace;

/// The options that concern permits.
pub(super) struct PermitOptions {
    label: Option<Arc<str>>,
    is_recorded: bool,
    is_inherited: bool,
    access: Access,
}

impl PermitOptions {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            label: options.label.clone(),
            is_recorded: options.record,
            is_inherited: options.inherit,
            access: options.access,
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
    /// Dropped before the batch: once a slot is free, its record belongs to the next holder.
    records: Vec<Record>,
    batch: Batch,
    slots: Numbers,
    was_abandoned: bool,
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
    pub(super) fn new(mut batch: Batch, options: &PermitOptions) -> Result<Self> {
        if options.is_inherited {
            batch.make_inheritable()?;
        }
        let mut records = Vec::new();
        let mut was_abandoned = false;
        if options.is_recorded {
            let label = options.label.as_deref();
            for (slot, locked) in batch.taken() {
                let location = RecordLocation::of_slot(batch.directory(), *slot);
                if location.remove_abandoned(locked.id()) {
                    was_abandoned = true;
                    trace::dead_holder(batch.directory());
                }
                // A permit without a record is just as valid.
                records.extend(Record::publish(location, locked.id(), label, options.access).ok());
            }
        }
        let slots = Numbers::of(&batch);
        Ok(Self { records, batch, slots, was_abandoned })
    }

    /// Returns the numbers of the slots that this permit holds, in ascending order.
    ///
    /// They are between 0 and the capacity minus 1, and no other holder has one of them, so they
    /// can select a port, a device or a directory. (After the capacity has been reduced, permits
    /// that are still out can have higher numbers.)
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        self.slots.as_slice()
    }

    /// Returns the lowest of the [`slots`](Self::slots), the only one of a permit acquired alone.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slots()[0]
    }

    /// Releases the permits and reports errors, which dropping the guard cannot do.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the system fails to unlock a file. The descriptor is closed
    /// then, which also releases the permit unless a forked child has it open.
    ///
    /// A forked copy of the permit releases nothing and also returns [`Io`](crate::ErrorKind::Io).
    pub fn release(mut self) -> Result<()> {
        if self.batch.taken().any(|(_, locked)| !locked.is_here()) {
            return Err(Error::forked_copy(Operation::Release, self.batch.directory()));
        }
        self.records.clear();
        self.batch.give_back()
    }

    /// Returns whether an earlier holder of one of these slots died without releasing it.
    ///
    /// Its work may then be half-done. Only permits of a semaphore that writes records
    /// ([`Options::label`], [`Options::record_holder`]) report it, only for holders that left a
    /// record, and only once. So `false` means "no evidence". A process that ends while the permit
    /// is alive counts as one that died.
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.was_abandoned
    }

    /// Returns `true` while this permit counts for all processes that acquire from the path now.
    ///
    /// Returns `false` if the path no longer names the directory that contains the locked slots,
    /// since a program has removed or replaced it, and in a copy of the permit that `fork` created.
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
    /// [`Io`](crate::ErrorKind::Io) if the path cannot be looked up.
    ///
    /// # Platform-specific behavior
    ///
    /// * Windows: the files cannot be removed or replaced, so the answer is `true`.
    /// * File systems without hard links (FAT): a removed slot file is not restored, so the answer
    ///   is `false`.
    /// * Network file systems: a lock that the server has dropped is not detected.
    pub fn still_held(&self) -> Result<bool> {
        for (_, locked) in self.batch.taken() {
            if !locked.is_current()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the absolute path of the semaphore.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.batch.directory()
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
