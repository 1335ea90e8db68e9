//! A locked file and the record beside it, which the guards of all locks contain.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Operation, Result};
use crate::file::fence::{self, Token};
use crate::file::lock_file::{FileLock, LockFile};
use crate::options::Options;
use crate::record::{self, Record, RecordLocation};
use crate::sys::Mode;
use crate::trace;

/// The options of a guard.
#[derive(Clone)]
pub(crate) struct GuardOptions {
    label: Option<Arc<str>>,
    /// Whether the holder leaves a record.
    has_record: bool,
    /// Whether programs that the holder starts inherit the lock.
    is_inherited: bool,
}

impl GuardOptions {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            label: options.label.clone(),
            has_record: options.record,
            is_inherited: options.inherit,
        }
    }
}

/// A held lock in one mode. Dropping it releases the lock.
pub(crate) struct RawGuard {
    file: Arc<LockFile>,
    mode: Mode,
    /// Taken out when released.
    locked: Option<FileLock>,
    record: Option<Record>,
    abandoned: OnceLock<bool>,
    token: Token,
}

impl RawGuard {
    /// Makes a guard of an acquired lock. After an error nothing is held.
    pub(crate) fn new(
        file: &Arc<LockFile>,
        mode: Mode,
        mut locked: FileLock,
        options: &GuardOptions,
    ) -> Result<Self> {
        if options.is_inherited {
            locked.make_inheritable()?;
        }
        let mut guard = Self {
            file: Arc::clone(file),
            mode,
            locked: Some(locked),
            record: None,
            abandoned: OnceLock::new(),
            token: Token::default(),
        };
        guard.leave_record(options);
        Ok(guard)
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether an earlier exclusive holder died. A reader leaves that holder's record to the next
    /// writer. In a forked copy the record may be a living holder's, so only an answer from before
    /// the fork counts (rule 12).
    pub(crate) fn abandoned(&self) -> bool {
        if !self.is_here() {
            return self.abandoned.get().is_some_and(|abandoned| *abandoned);
        }
        *self.abandoned.get_or_init(|| {
            let location = RecordLocation::beside(self.path());
            let abandoned = self.locked.as_ref().is_some_and(|locked| match self.mode {
                Mode::Exclusive => location.remove_abandoned(locked.id()),
                Mode::Shared => location.is_abandoned(locked.id()),
            });
            if abandoned {
                trace::dead_holder(self.path());
            }
            abandoned
        })
    }

    /// Whether the path still names the locked file, this is not a forked copy, and the server of a
    /// network file system has not dropped the lock.
    pub(crate) fn still_held(&self) -> Result<bool> {
        let Some(locked) = &self.locked else { return Ok(false) };
        Ok(locked.is_current(self.mode)? && !self.is_overtaken(locked))
    }

    /// Whether the server of a network file system has dropped the lock (rule 16).
    fn is_lost(&self) -> Result<bool> {
        let Some(locked) = self.locked.as_ref().filter(|locked| locked.is_here()) else {
            return Ok(false);
        };
        Ok(locked.is_lost(self.mode)? || self.is_overtaken(locked))
    }

    /// Whether a later holder has taken a fencing token, although this guard holds the lock
    /// (rule 16).
    fn is_overtaken(&self, locked: &FileLock) -> bool {
        let own = self.token.get().filter(|_| locked.is_on_network());
        own.is_some_and(|own| fence::latest(&fence::beside(self.path())) > Some(own))
    }

    /// Returns an error if the server of a network file system has dropped the lock, so that
    /// nothing is changed without it.
    pub(crate) fn check_held(&self, operation: Operation) -> Result<()> {
        self.check_here(operation)?;
        if self.is_lost()? { Err(Error::lost(self.file.path())) } else { Ok(()) }
    }

    /// The fencing token of this acquisition, which is taken by the first call (rule 17). The check
    /// comes last: a holder that has lost the lock must not get a token higher than that of the
    /// next one.
    pub(crate) fn fencing_token(&self) -> Result<u64> {
        self.check_here(Operation::CheckLock)?;
        if let Some(token) = self.token.get() {
            return Ok(token);
        }
        let taken = fence::take(&fence::beside(self.path()), self.file.creation())?;
        let is_held = self.locked.as_ref().map_or(Ok(false), |it| it.is_current(self.mode))?;
        if is_held { Ok(self.token.keep(taken)) } else { Err(Error::lost(self.file.path())) }
    }

    /// Returns an error in a forked copy, since the lock belongs to the parent process (rule 4).
    pub(crate) fn check_here(&self, operation: Operation) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(Error::forked_copy(operation, self.file.path())) }
    }

    pub(crate) fn is_here(&self) -> bool {
        self.locked.as_ref().is_some_and(FileLock::is_here)
    }

    /// Unlocks. Returns an error in a forked copy, which releases nothing (rule 4), and if the lock
    /// was lost before.
    pub(crate) fn unlock(mut self) -> Result<()> {
        self.check_here(Operation::Unlock)?;
        let lost = self.is_lost();
        if let Ok(true) = lost {
            // The record at the path may be that of the next holder.
            if let Some(record) = self.record.take() {
                record.leave();
            }
            let _ = self.release();
            return Err(Error::lost(self.file.path()));
        }
        self.release()?;
        lost.map(drop)
    }

    fn release(&mut self) -> Result<()> {
        // Remove the record first: once the lock is free, the record beside it may be another
        // holder's.
        self.record = None;
        match self.locked.take() {
            Some(locked) => locked.release(),
            None => Ok(()),
        }
    }

    /// Downgrades the lock; no other process holds it exclusively in between. After an error
    /// nothing is held (rule R4).
    pub(crate) fn share(mut self, options: &GuardOptions) -> Result<Self> {
        self.check_here(Operation::Downgrade)?;
        self.record = None;
        let shared = self.locked.take().map_or(Ok(None), FileLock::share)?;
        let Some(locked) = shared else { return Err(Error::would_block(self.file.path())) };
        self.locked = Some(locked);
        self.mode = Mode::Shared;
        self.leave_record(options);
        Ok(self)
    }

    /// Leaves a record, if the options ask for one. Where it cannot be written there is none.
    fn leave_record(&mut self, options: &GuardOptions) {
        let Some(locked) = self.locked.as_ref().filter(|_| options.has_record) else { return };
        let id = locked.id();
        let location = match self.mode {
            Mode::Exclusive => {
                // Before this holder's record replaces that of a dead holder.
                let _abandoned = self.abandoned();
                record::remove_dead_sharers(self.file.path(), true);
                RecordLocation::beside(self.file.path())
            }
            Mode::Shared => RecordLocation::of_sharer(self.file.path()),
        };
        let label = options.label.as_deref();
        self.record = Record::publish(location, id, label, self.file.access()).ok();
    }
}

impl Drop for RawGuard {
    fn drop(&mut self) {
        let _ = self.release();
    }
}
