//! Consumes a marker: one of many processes takes it.

use std::{fs, io};

use super::{Marker, Setting, something_else};
use crate::error::{Error, Operation, Result};
use crate::sys::{self, FileKind, Mode};

/// The outcome of an attempt to consume.
pub(crate) enum Consumed {
    Payload(Vec<u8>),
    /// The marker is not set.
    Nothing,
    /// Another process consumes at this moment.
    Busy,
}

impl Marker {
    /// Takes the payload, which no other call then returns (rules E3 to E5).
    pub(crate) fn consume(&self) -> Result<Consumed> {
        self.may_change(Operation::Consume)?;
        match self.setting_and_taken()? {
            (Setting::Other, _) => return Err(something_else(&self.path)),
            (_, FileKind::Other) => return Err(something_else(&self.taken())),
            (Setting::Nothing, FileKind::Nothing) => return Ok(Consumed::Nothing),
            (Setting::Stale(file), FileKind::Nothing) => {
                // It does not count, even if this user may not remove it.
                let _ = self.remove_stale(Operation::Consume, &file);
                return Ok(Consumed::Nothing);
            }
            _ => {}
        }
        let Some(locked) = self.lock()?.try_lock(Mode::Exclusive)? else {
            return Ok(Consumed::Busy);
        };
        let taken = self.take()?;
        drop(locked); // an error is ignored, since returning it would lose the payload
        Ok(taken.map_or(Consumed::Nothing, Consumed::Payload))
    }

    /// Takes the marker while this process holds the lock.
    fn take(&self) -> Result<Option<Vec<u8>>> {
        let failed = |source| Error::io(Operation::Consume, &self.path, source);
        let taken = self.taken();
        let (setting, mut undelivered) = self.setting_and_taken()?;
        if undelivered == FileKind::File {
            // The process that announced it has died as well.
            if let Setting::Stale(_) = self.setting_at(&taken)? {
                sys::through_readers(|| fs::remove_file(&taken)).map_err(failed)?;
                undelivered = FileKind::Nothing;
            }
        }
        if undelivered == FileKind::Nothing {
            match setting {
                Setting::Nothing => return Ok(None),
                Setting::Stale(file) => {
                    let _ = self.remove_stale_locked(Operation::Consume, &file);
                    return Ok(None);
                }
                Setting::Plain | Setting::Announced | Setting::Other => {}
            }
            // A process that cannot read the payload must not take it.
            if Self::open_file(&self.path)?.is_none() {
                return Ok(None);
            }
            // The rename takes the marker in one step: one that is set later is a different one,
            // and stays.
            match sys::rename_new(&self.path, &taken) {
                Ok(()) => {}
                // Another process consumes, although this one holds the lock: its file was removed
                // or replaced.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
            if self.kind_at(&taken)? == FileKind::Other {
                // The file was replaced after it was opened. It is renamed back if that does no
                // harm.
                let error = something_else(&taken);
                let is_free = self.kind_at(&self.path)? == FileKind::Nothing;
                return match is_free.then(|| fs::rename(&taken, &self.path)) {
                    Some(Ok(())) => Err(something_else(&self.path)),
                    _ => Err(error),
                };
            }
        }
        let Some(mut file) = Self::open_file(&taken)? else { return Ok(None) };
        let payload = self.read(&mut file)?;
        let id = sys::identity(&file).map_err(failed)?;
        let own = sys::unique_beside(&taken);
        match sys::through_readers(|| fs::rename(&taken, &own)) {
            // From now on it is this consumer's; until now the next consumer would have found it.
            Ok(()) => {}
            // A network file system may send a request twice: the first renamed the file, and the
            // second did not find it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.kind_at(&own)? != FileKind::File {
                    return Ok(None); // another process took it, as above
                }
            }
            Err(error) => return Err(failed(error)),
        }
        let delivered = match sys::names(&own, id).map_err(failed) {
            Ok(true) => Ok(Some(payload)),
            // Another process took the marker that was read. This is a different one, which this
            // process has taken.
            Ok(false) => self.read_at(&own),
            Err(error) => Err(error),
        };
        drop(file);
        if delivered.is_err() {
            let _ = sys::rename_new(&own, &taken); // for the next consumer
        } else {
            let _ = sys::through_readers(|| fs::remove_file(&own));
        }
        delivered
    }
}
