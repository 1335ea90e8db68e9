//! [`Permit`]: slots of a semaphore that are held, and the records beside them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::batch::Batch;
use crate::access::Access;
use crate::error::{Error, Operation, Result};
use crate::options::Options;
use crate::record::{Record, RecordLocation};

/// What the options say of permits.
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

/// One or more permits of a semaphore. Given back when dropped.
///
/// It owns what it holds: it can be sent to another thread, kept in a struct, and outlive the [`Semaphore`](crate::Semaphore).
/// A copy that `fork` makes of it releases nothing.
#[must_use = "if unused, the permit is given back at once"]
#[clippy::has_significant_drop]
pub struct Permit {
    /// Before the batch: once a slot is free, the record beside it is another's.
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
                was_abandoned |= location.remove_abandoned(locked.id());
                // Without its record the permit is worth as much.
                records.extend(Record::publish(location, locked.id(), label, options.access).ok());
            }
        }
        let slots = Numbers::of(&batch);
        Ok(Self { records, batch, slots, was_abandoned })
    }

    /// Which slots they are, in ascending order, from 0 to the capacity less one: nobody else has one of these numbers now, so
    /// they can choose a port, a device or a directory. (After the semaphore has shrunk, the numbers of
    /// permits that are still out are higher.)
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        self.slots.as_slice()
    }

    /// The lowest of [`slots`](Self::slots): the slot of a permit that was acquired alone.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slots()[0]
    }

    /// Gives the permits back, and says if that failed, which dropping cannot.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the system refuses to unlock. The descriptor is closed then, which releases the permit
    /// too unless a forked child also has it open. [`ErrorKind::Io`](crate::ErrorKind::Io) also in a copy of the permit that `fork` made:
    /// the copy releases nothing.
    pub fn release(mut self) -> Result<()> {
        if self.batch.taken().any(|(_, locked)| !locked.is_here()) {
            return Err(Error::forked_copy(Operation::Release, self.batch.directory()));
        }
        self.records.clear();
        self.batch.give_back()
    }

    /// Whether a holder before this one died while it had one of these slots: what it did there may be
    /// half-done.
    ///
    /// Known only to a permit of a semaphore that leaves records ([`Options::label`],
    /// [`Options::record_holder`]), of a holder that left one; told once. Ending the process with the permit
    /// alive counts as dying.
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.was_abandoned
    }

    /// The path of the semaphore, absolute.
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
