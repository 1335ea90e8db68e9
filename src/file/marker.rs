//! One marker file: whether it is there, what it carries, how it comes, goes, and is taken by one
//! of many. Knows files and knows no time.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use once_cell::race::OnceBox;

use super::regular::{self, something_else};
use crate::access::Access;
use crate::error::{Error, Result};
use crate::file::lock_file::LockFile;
use crate::paths::{absolute_file, create_parents, sidecar_lock};
use crate::sys::{self, FileKind, Mode, Retries};

const TAKEN: &str = ".taken";
const READ: &str = "read the payload of";

/// A file that is there or not.
#[derive(Debug)]
pub(crate) struct Marker {
    path: Arc<Path>,
    /// Where it lies.
    directory: Arc<Path>,
    /// Its name in there, and that of one that was taken (rule E4).
    names: Arc<[OsString]>,
    access: Access,
    /// Whether a file of any kind counts, which is then looked at and never changed.
    any_kind: bool,
    /// Whether `stat` and events must not be trusted there (rule E7).
    is_network: AtomicBool,
    /// Opened by the first who finds something to consume.
    lock: OnceBox<Arc<LockFile>>,
    /// When this handle last looked for what killed setters left, by the coarse clock. Zero: never.
    swept: AtomicU64,
}

/// What an attempt to consume came to.
pub(crate) enum Consumed {
    Payload(Vec<u8>),
    /// It is not set.
    Nothing,
    /// Somebody else consumes at this moment.
    Busy,
}

impl Marker {
    /// Looks at what is there, and creates nothing.
    pub(crate) fn open(path: &Path, access: Access, any_kind: bool) -> Result<Self> {
        // A directory is often given with a slash at its end.
        let path = if any_kind { path.components().as_path() } else { path };
        let path = absolute_file(path)?;
        let directory = path.parent().unwrap_or(&path);
        let name = path.file_name().unwrap_or_default();
        let marker = Self {
            directory: directory.into(),
            names: [name.to_os_string(), sys::beside(Path::new(name), TAKEN).into()].into(),
            access,
            any_kind,
            is_network: AtomicBool::new(false),
            lock: OnceBox::new(),
            swept: AtomicU64::new(0),
            path: Arc::clone(&path),
        };
        // A caller that only looks or waits needs no directory yet.
        let refused = match fs::metadata(directory) {
            Ok(found) => !found.is_dir(),
            Err(error) => error.kind() == io::ErrorKind::NotADirectory,
        };
        if refused {
            return Err(marker.not_looked_up(io::ErrorKind::NotADirectory.into()));
        }
        marker.refresh_is_network();
        marker.is_set()?;
        Ok(marker)
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    pub(crate) fn directory(&self) -> &Arc<Path> {
        &self.directory
    }

    /// The names in it of which those who wait want to hear.
    pub(crate) fn names(&self) -> &Arc<[OsString]> {
        &self.names
    }

    /// Whether it lies on a network file system, which reports no events of other hosts. Checked again
    /// each time, since a directory may have been mounted since the event was opened.
    pub(crate) fn refresh_is_network(&self) -> bool {
        let nearest = sys::nearest_directory(&self.directory);
        let is_network = nearest.is_some_and(sys::is_network_directory);
        self.is_network.store(is_network, Ordering::Relaxed);
        is_network
    }

    // -------------------------------------------------------------------------------- looking

    pub(crate) fn is_set(&self) -> Result<bool> {
        match self.presence()? {
            FileKind::Nothing => Ok(false),
            FileKind::File => Ok(true),
            FileKind::Other if self.any_kind => self.leads_to_a_file(),
            FileKind::Other => Err(something_else(&self.path)),
        }
    }

    /// A symbolic link is there, or something else that is no regular file.
    fn leads_to_a_file(&self) -> Result<bool> {
        match fs::metadata(&self.path) {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.not_looked_up(error)),
        }
    }

    /// Whether the file system reports each change of it: not of what a symbolic link leads to.
    pub(crate) fn has_events_of_changes(&self) -> bool {
        !self.any_kind || !fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_symlink())
    }

    pub(crate) fn payload(&self) -> Result<Option<Vec<u8>>> {
        if !self.is_set()? {
            return Ok(None);
        }
        self.read_at(&self.path)
    }

    fn presence(&self) -> Result<FileKind> {
        if self.is_network.load(Ordering::Relaxed) {
            return Ok(self.listed()?.0);
        }
        self.at(&self.path)
    }

    /// Of the marker, and of one that was taken and not delivered (rule E4).
    fn both(&self) -> Result<(FileKind, FileKind)> {
        if self.is_network.load(Ordering::Relaxed) {
            return self.listed();
        }
        self.both_by_name()
    }

    fn both_by_name(&self) -> Result<(FileKind, FileKind)> {
        let taken = match sys::file_kind(&self.taken()) {
            // The event's own name is so long that there cannot be one.
            Err(error) if sys::is_bad_name(&error) => FileKind::Nothing,
            taken => taken.map_err(|source| self.not_looked_up(source))?,
        };
        Ok((self.at(&self.path)?, taken))
    }

    fn at(&self, path: &Path) -> Result<FileKind> {
        sys::file_kind(path).map_err(|source| self.not_looked_up(source))
    }

    fn not_looked_up(&self, source: io::Error) -> Error {
        Error::io("look up", &self.path, source)
    }

    /// Rule E7. By reading the directory: an NFS client answers a `stat` from memory for up to 30 seconds, also
    /// with "no such file"; and `GlusterFS` with what is gone.
    fn listed(&self) -> Result<(FileKind, FileKind)> {
        let failed = |source| self.not_looked_up(source);
        let mut found = (FileKind::Nothing, FileKind::Nothing);
        let entries = match sys::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            // It may be entered and not listed (0711).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return self.both_by_name();
            }
            Err(error) => return Err(failed(error)),
        };
        let [own, taken] = &*self.names else { return Ok(found) };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let found = if name == *own {
                &mut found.0
            } else if name == *taken {
                &mut found.1
            } else if is_but_for_case(&name, own) {
                // The file system may not tell upper from lower case. To have read the directory makes the
                // client forget what it remembers of names in it.
                found.0 = self.at(&self.path)?;
                continue;
            } else if is_but_for_case(&name, taken) {
                found.1 = self.at(&self.taken())?;
                continue;
            } else {
                continue;
            };
            *found = match entry.file_type() {
                Ok(kind) => FileKind::of(kind.is_file()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => FileKind::Nothing,
                Err(error) => return Err(failed(error)),
            };
        }
        Ok(found)
    }

    fn read(&self, file: &mut File) -> Result<Vec<u8>> {
        regular::read(file, &self.path, READ)
    }

    /// For reading; `None` if it has gone.
    fn open_file(path: &Path) -> Result<Option<File>> {
        regular::if_there(regular::open(path, READ))
    }

    // ------------------------------------------------------------------------------- changing

    /// Whether it was not set before. What it carries already stays.
    pub(crate) fn set(&self) -> Result<bool> {
        self.may_change("set")?;
        self.tried(|retries| match sys::create_new(&self.path, self.access.bits()) {
            Ok(_) => {
                self.sweep();
                Some(Ok(true))
            }
            // Rule 9: or a file system says so for no reason.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.is_set().map(|is_set| is_set.then_some(false)).transpose()
            }
            Err(error) => self.without_parents(error, retries),
        })
    }

    /// Rule E2. Whether it was not set before. What it carries already stays.
    pub(crate) fn set_new(&self, payload: &[u8]) -> Result<bool> {
        if payload.is_empty() {
            return self.set();
        }
        self.may_change("set")?;
        self.tried(|retries| {
            match self.is_set() {
                Ok(true) => return Some(Ok(false)),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
            match sys::write_new(&self.path, payload, self.access.bits()) {
                Ok(()) => Some(Ok(true)),
                // Another process has set it since it was looked at, and may have cleared it again.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => self.without_parents(error, retries),
            }
        })
    }

    /// Rule E2. Whether it was not set before.
    pub(crate) fn set_with(&self, payload: &[u8]) -> Result<bool> {
        self.may_change("set")?;
        let bits = self.access.bits();
        self.tried(|retries| {
            let put = match self.is_set() {
                Ok(true) => sys::replace(&self.path, payload, bits).map(|()| false),
                Ok(false) => sys::write_new(&self.path, payload, bits).map(|()| true),
                Err(error) => return Some(Err(error)),
            };
            match put {
                Ok(was_unset) => Some(Ok(was_unset)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => self.without_parents(error, retries),
            }
        })
    }

    fn may_change(&self, operation: &'static str) -> Result<()> {
        if self.any_kind {
            let why = "an event that is opened for files of any type can only be waited for";
            let source = io::Error::new(io::ErrorKind::InvalidInput, why);
            return Err(Error::io(operation, &self.path, source));
        }
        Ok(())
    }

    /// Rule 14. Setting takes a few microseconds and this takes several, so once a second is
    /// enough.
    fn sweep(&self) {
        let now = sys::coarse_milliseconds();
        let last = self.swept.load(Ordering::Relaxed);
        if last == 0 || now.saturating_sub(last) > 1000 {
            self.swept.store(now.max(1), Ordering::Relaxed);
            sys::remove_left_by_others(&self.path);
        }
    }

    /// Whether it was set.
    pub(crate) fn clear(&self) -> Result<bool> {
        self.may_change("clear")?;
        let remove = |path: &Path| match sys::remove_at_once(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("clear", &self.path, error)),
        };
        let (marker, taken) = self.both()?;
        let mut was_set = match marker {
            FileKind::Nothing => false,
            FileKind::File => remove(&self.path)?,
            FileKind::Other => return Err(something_else(&self.path)),
        };
        if taken == FileKind::File {
            // Whoever consumes at this moment has done so before this call. Nobody does: it is a dead one's.
            if let Some(_locked) = self.lock()?.try_take(Mode::Exclusive)? {
                was_set |= remove(&self.taken())?;
            }
        }
        Ok(was_set)
    }

    /// Setting it, until a step comes to an end.
    fn tried(&self, mut step: impl FnMut(&Retries) -> Option<Result<bool>>) -> Result<bool> {
        let mut retries = Retries::new();
        while retries.again() {
            if let Some(done) = step(&retries) {
                return done;
            }
        }
        let source = io::Error::other("somebody else set and cleared it each time in between");
        Err(Error::io("set", &self.path, source))
    }

    /// After a file could not be made: `None` if it is worth another try.
    fn without_parents(&self, error: io::Error, retries: &Retries) -> Option<Result<bool>> {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let failed = Error::io("set", &self.path, error);
        if !is_missing {
            return Some(Err(failed));
        }
        create_parents(&self.path, self.access, failed, retries).err().map(Err)
    }

    // ------------------------------------------------------------------------------ consuming

    /// Rules E3 to E5.
    pub(crate) fn consume(&self) -> Result<Consumed> {
        self.may_change("consume")?;
        match self.both()? {
            (FileKind::Other, _) => return Err(something_else(&self.path)),
            (_, FileKind::Other) => return Err(something_else(&self.taken())),
            (FileKind::Nothing, FileKind::Nothing) => return Ok(Consumed::Nothing),
            _ => {}
        }
        let Some(locked) = self.lock()?.try_take(Mode::Exclusive)? else {
            return Ok(Consumed::Busy);
        };
        let taken = self.take()?;
        drop(locked); // an error in here would lose what was taken
        Ok(taken.map_or(Consumed::Nothing, Consumed::Payload))
    }

    /// Holding the lock.
    fn take(&self) -> Result<Option<Vec<u8>>> {
        let failed = |source| Error::io("consume", &self.path, source);
        let taken = self.taken();
        let (marker, undelivered) = self.both()?;
        if undelivered == FileKind::Nothing {
            // Not to be taken by somebody who cannot read it.
            if marker == FileKind::Nothing || Self::open_file(&self.path)?.is_none() {
                return Ok(None);
            }
            // At once: whatever is set after this is another one, and stays.
            match sys::rename_new(&self.path, &taken) {
                Ok(()) => {}
                // Somebody else consumes, though the lock is ours: its file was removed or replaced.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
            if self.at(&taken)? == FileKind::Other {
                // Something else took its place since it was opened. Back with it, where it does no harm.
                let error = something_else(&taken);
                let is_free = self.at(&self.path)? == FileKind::Nothing;
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
            Ok(()) => {} // From here on it is ours. Until here the next one finds it.
            // It was there, and is ours: a request that was sent twice, of which the second found it gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.at(&own)? != FileKind::File {
                    return Ok(None); // somebody else's, as above
                }
            }
            Err(error) => return Err(failed(error)),
        }
        let coordinator = match sys::names(&own, id).map_err(failed) {
            Ok(true) => Ok(Some(payload)),
            // Somebody else has what was read. This is another one, and only ours.
            Ok(false) => self.read_at(&own),
            Err(error) => Err(error),
        };
        drop(file);
        if coordinator.is_err() {
            let _ = sys::rename_new(&own, &taken); // for the next one
        } else {
            let _ = sys::through_readers(|| fs::remove_file(&own));
        }
        coordinator
    }

    /// `None` if it has gone.
    fn read_at(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        Self::open_file(path)?.map(|mut file| self.read(&mut file)).transpose()
    }

    fn lock(&self) -> Result<&Arc<LockFile>> {
        let open = || LockFile::open(&sidecar_lock(&self.path), self.access);
        self.lock.get_or_try_init(|| open().map(Box::new))
    }

    fn taken(&self) -> std::path::PathBuf {
        sys::beside(&self.path, TAKEN)
    }
}

fn is_but_for_case(name: &OsStr, other: &OsStr) -> bool {
    let lower = |name: &OsStr| name.to_string_lossy().to_lowercase();
    name.eq_ignore_ascii_case(other) || !name.is_ascii() && lower(name) == lower(other)
}
