//! What a guard holds: a locked file, and the record beside it. Shared by the guards of all locks.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::file::lock_file::{FileLock, LockFile};
use crate::options::Options;
use crate::record::{self, Record, RecordLocation};
use crate::sys::Mode;

/// Whether those who hold make themselves known, and by what name; and whether what they start holds as well.
#[derive(Clone)]
pub(crate) struct GuardOptions {
    label: Option<Arc<str>>,
    is_left: bool,
    is_inherited: bool,
}

impl GuardOptions {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            label: options.label.clone(),
            is_left: options.record,
            is_inherited: options.inherit,
        }
    }
}

/// A lock that is held, in one mode. Released when dropped.
pub(crate) struct RawGuard {
    slot: Arc<LockFile>,
    mode: Mode,
    /// Taken out when released.
    locked: Option<FileLock>,
    record: Option<Record>,
    abandoned: OnceLock<bool>,
}

impl RawGuard {
    /// If it fails, nothing is held.
    pub(crate) fn new(
        slot: &Arc<LockFile>,
        mode: Mode,
        mut locked: FileLock,
        signature: &GuardOptions,
    ) -> Result<Self> {
        if signature.is_inherited {
            locked.make_inheritable()?;
        }
        let mut hold = Self {
            slot: Arc::clone(slot),
            mode,
            locked: Some(locked),
            record: None,
            abandoned: OnceLock::new(),
        };
        hold.sign(signature);
        Ok(hold)
    }

    pub(crate) fn path(&self) -> &Path {
        self.slot.path()
    }

    /// Rule 12. Whether an earlier exclusive holder died. A reader only looks, and leaves the record to the next
    /// writer. A forked copy knows nothing of the file since the fork: its record may be a living holder's.
    pub(crate) fn abandoned(&self) -> bool {
        if !self.is_here() {
            return self.abandoned.get().is_some_and(|abandoned| *abandoned);
        }
        *self.abandoned.get_or_init(|| {
            let location = RecordLocation::beside(self.path());
            self.locked.as_ref().is_some_and(|locked| match self.mode {
                Mode::Exclusive => location.remove_abandoned(locked.id()),
                Mode::Shared => location.is_abandoned(locked.id()),
            })
        })
    }

    /// Rule 4. An error in a forked copy: the lock is the other process's.
    pub(crate) fn check_here(&self, operation: &'static str) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(Error::forked_copy(operation, self.slot.path())) }
    }

    pub(crate) fn is_here(&self) -> bool {
        self.locked.as_ref().is_some_and(FileLock::is_here)
    }

    /// Rule 4. An error in a forked copy, which releases nothing.
    pub(crate) fn unlock(mut self) -> Result<()> {
        self.check_here("unlock")?;
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        // The record first: once the lock is free, the record beside it is another's.
        self.record = None;
        match self.locked.take() {
            Some(locked) => locked.release(),
            None => Ok(()),
        }
    }

    /// Rule R4. Nobody who wants it exclusively has it in between. If it fails, nothing is held.
    pub(crate) fn share(mut self, signature: &GuardOptions) -> Result<Self> {
        self.check_here("downgrade")?;
        self.record = None;
        let shared = self.locked.take().map_or(Ok(None), FileLock::share)?;
        let Some(locked) = shared else { return Err(Error::would_block(self.slot.path())) };
        self.locked = Some(locked);
        self.mode = Mode::Shared;
        self.sign(signature);
        Ok(self)
    }

    /// Leaves a record, if that is wanted. It is a courtesy: where it cannot be written there is none.
    fn sign(&mut self, signature: &GuardOptions) {
        let Some(locked) = self.locked.as_ref().filter(|_| signature.is_left) else { return };
        let id = locked.id();
        let location = match self.mode {
            Mode::Exclusive => {
                let _asked = self.abandoned(); // before our own record takes the place of what was left
                record::remove_dead_sharers(self.slot.path(), true);
                RecordLocation::beside(self.slot.path())
            }
            Mode::Shared => RecordLocation::of_sharer(self.slot.path()),
        };
        let label = signature.label.as_deref();
        self.record = Record::publish(location, id, label, self.slot.access()).ok();
    }
}

impl Drop for RawGuard {
    fn drop(&mut self) {
        let _ = self.release();
    }
}
