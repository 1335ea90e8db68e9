//! One marker file: whether it exists, and its payload.

mod announce;
mod change;
mod consume;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use once_cell::race::OnceBox;

pub(crate) use self::announce::Announced;
pub(crate) use self::consume::Consumed;
use super::regular::{self, something_else};
use crate::access::Creation;
use crate::error::{Error, Operation, Result};
use crate::file::lock_file::LockFile;
use crate::paths::{absolute_file, sidecar_lock};
use crate::sys::{self, FileKind, Retries};

const TAKEN: &str = ".taken";

/// The state of a marker's path.
#[derive(Debug)]
enum Setting {
    Nothing,
    /// A regular file, whichever program created it.
    Plain,
    /// An announcement, whose process lives.
    Announced,
    /// An announcement whose process has ended, and which no longer counts. The file is open.
    Stale(File),
    /// A directory, a symbolic link ...
    Other,
}

/// A marker file, which exists while the marker is set.
#[derive(Debug)]
pub(crate) struct Marker {
    path: Arc<Path>,
    /// The directory that contains it.
    directory: Arc<Path>,
    /// Its name in the directory, and the name of a marker that was taken (rule E4).
    names: Arc<[OsString]>,
    creation: Creation,
    /// Whether a file of any kind counts. Such a marker is never changed.
    any_kind: bool,
    /// Whether `stat` and events cannot be relied on there (rule E7).
    is_network: AtomicBool,
    /// Whether the marker was set at the last check.
    was_set: AtomicBool,
    /// Whether the last check found an announcement (rule E8).
    found_announcement: AtomicBool,
    /// Opened by the first call that finds something to consume.
    lock: OnceBox<Arc<LockFile>>,
    /// When this handle last removed files that killed processes left, by the coarse clock. Zero:
    /// never.
    swept: AtomicU64,
}

impl Marker {
    /// Checks the path, and creates nothing.
    pub(crate) fn open(path: &Path, creation: Creation, any_kind: bool) -> Result<Self> {
        // A directory is often passed with a slash at its end.
        let path = if any_kind { path.components().as_path() } else { path };
        let path = absolute_file(path)?;
        let directory = path.parent().unwrap_or(&path);
        let name = path.file_name().unwrap_or_default();
        let marker = Self {
            directory: directory.into(),
            names: [name.to_os_string(), sys::beside(Path::new(name), TAKEN).into()].into(),
            creation,
            any_kind,
            is_network: AtomicBool::new(false),
            was_set: AtomicBool::new(false),
            found_announcement: AtomicBool::new(false),
            lock: OnceBox::new(),
            swept: AtomicU64::new(0),
            path: Arc::clone(&path),
        };
        // A caller that only checks or waits needs no directory yet.
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

    /// The names in the directory whose events concern a waiter.
    pub(crate) fn names(&self) -> &Arc<[OsString]> {
        &self.names
    }

    /// Whether the marker is on a network file system, which reports no events of other hosts. This
    /// is checked each time, since a directory may have been mounted since the event was opened.
    pub(crate) fn refresh_is_network(&self) -> bool {
        let nearest = sys::nearest_directory(&self.directory);
        let is_network = nearest.is_some_and(sys::is_network_directory);
        self.is_network.store(is_network, Ordering::Relaxed);
        is_network
    }

    pub(crate) fn is_set(&self) -> Result<bool> {
        let is_set = match self.setting()? {
            Setting::Nothing | Setting::Stale(_) => false,
            Setting::Plain | Setting::Announced => true,
            Setting::Other if self.any_kind => self.leads_to_a_file()?,
            Setting::Other => return Err(something_else(&self.path)),
        };
        self.was_set.store(is_set, Ordering::Relaxed);
        Ok(is_set)
    }

    /// Whether the marker is set, for a report: on a network file system at the last check.
    pub(crate) fn seems_set(&self) -> bool {
        if self.is_network.load(Ordering::Relaxed) {
            return self.was_set.load(Ordering::Relaxed);
        }
        self.is_set().unwrap_or(false)
    }

    fn setting(&self) -> Result<Setting> {
        let (kind, is_announcement) = if self.is_network.load(Ordering::Relaxed) {
            let listed = self.listed_kinds()?.0;
            // Reading the directory has made the client drop its cached names.
            if listed == FileKind::File { self.marker_kind(&self.path)? } else { (listed, false) }
        } else {
            self.marker_kind(&self.path)?
        };
        self.setting_of(&self.path, kind, is_announcement)
    }

    /// The setting, and the kind of a marker that was taken and not delivered (rule E4).
    fn setting_and_taken(&self) -> Result<(Setting, FileKind)> {
        Ok(match self.kinds()? {
            (FileKind::Nothing, taken) => {
                (self.setting_of(&self.path, FileKind::Nothing, false)?, taken)
            }
            (FileKind::File, taken) => (self.setting_at(&self.path)?, taken),
            (FileKind::Other, taken) => (Setting::Other, taken),
        })
    }

    /// The setting at `path`: that of the marker, or of one that was taken.
    fn setting_at(&self, path: &Path) -> Result<Setting> {
        let (kind, is_announcement) = self.marker_kind(path)?;
        self.setting_of(path, kind, is_announcement)
    }

    fn setting_of(&self, path: &Path, kind: FileKind, is_announcement: bool) -> Result<Setting> {
        self.found_announcement.store(is_announcement, Ordering::Relaxed);
        match kind {
            FileKind::Nothing => return Ok(Setting::Nothing),
            FileKind::Other => return Ok(Setting::Other),
            FileKind::File if !is_announcement => return Ok(Setting::Plain),
            FileKind::File => {}
        }
        let Some(file) = Self::open_file(path)? else { return Ok(Setting::Nothing) };
        let failed = |source| self.not_looked_up(source);
        // The file may have been replaced since.
        if !sys::is_announcement(&file.metadata().map_err(failed)?) {
            return Ok(Setting::Plain);
        }
        match sys::writer_lives(path, &file) {
            Ok(true) => Ok(Setting::Announced),
            Ok(false) => Ok(Setting::Stale(file)),
            Err(source) => Err(self.lock_error(source)),
        }
    }

    fn marker_kind(&self, path: &Path) -> Result<(FileKind, bool)> {
        sys::marker_kind(path).map_err(|source| self.not_looked_up(source))
    }

    fn lock_error(&self, source: io::Error) -> Error {
        if sys::locks_unsupported(&source) {
            return Error::unsupported(&self.path, source);
        }
        Error::io(Operation::Lock, &self.path, source)
    }

    /// Whether anything exists at the path, following links; the path does not name a regular file.
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

    /// Whether each change of the marker is reported. Changes of what a symbolic link leads to are
    /// not, and on a network file system, where only names are compared, neither are those of an
    /// announcement: its end, and its replacement while no process compares (rule E9).
    pub(crate) fn has_events_of_changes(&self) -> bool {
        let is_announcement = self.found_announcement.load(Ordering::Relaxed);
        if is_announcement && self.is_network.load(Ordering::Relaxed) {
            return false;
        }
        !self.any_kind || !fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_symlink())
    }

    pub(crate) fn payload(&self) -> Result<Option<Vec<u8>>> {
        // Another process may clear the marker after the check, and set it again.
        let mut retries = Retries::new();
        loop {
            // Each time the check reads the directory on a network file system, since a client may
            // find an old file by the name until then.
            let payload = regular::through_replacements(|| {
                let is_set = self.is_set()?;
                is_set.then(|| self.read_once(&self.path)).transpose()
            })?;
            match payload {
                Some(None) if retries.again() => {}
                payload => return Ok(payload.flatten()),
            }
        }
    }

    /// The kinds of the marker, and of one that was taken and not delivered (rule E4).
    fn kinds(&self) -> Result<(FileKind, FileKind)> {
        if self.is_network.load(Ordering::Relaxed) {
            return self.listed_kinds();
        }
        self.kinds_by_name()
    }

    fn kinds_by_name(&self) -> Result<(FileKind, FileKind)> {
        let taken = match sys::file_kind(&self.taken()) {
            // The event's own name is so long that no such file can exist.
            Err(error) if sys::is_bad_name(&error) => FileKind::Nothing,
            taken => taken.map_err(|source| self.not_looked_up(source))?,
        };
        Ok((self.kind_at(&self.path)?, taken))
    }

    fn kind_at(&self, path: &Path) -> Result<FileKind> {
        sys::file_kind(path).map_err(|source| self.not_looked_up(source))
    }

    fn not_looked_up(&self, source: io::Error) -> Error {
        Error::io(Operation::LookUp, &self.path, source)
    }

    /// Does the same by reading the directory. An NFS client answers `stat` from its cache for up
    /// to 30 seconds, also with "no such file", and a `GlusterFS` client with files that are gone
    /// (rule E7).
    fn listed_kinds(&self) -> Result<(FileKind, FileKind)> {
        let failed = |source| self.not_looked_up(source);
        let mut found = (FileKind::Nothing, FileKind::Nothing);
        let entries = match sys::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            // This user may search the directory but not list it (0711).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return self.kinds_by_name();
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
            } else if differs_in_case(&name, own) {
                // The file system may not distinguish upper from lower case. Reading the directory
                // has made the client drop its cached names.
                found.0 = self.kind_at(&self.path)?;
                continue;
            } else if differs_in_case(&name, taken) {
                found.1 = self.kind_at(&self.taken())?;
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
        regular::read(file, &self.path, Operation::ReadPayload)
    }

    /// Opens the file for reading; `None` if it is gone.
    fn open_file(path: &Path) -> Result<Option<File>> {
        regular::if_there(regular::open(path, Operation::ReadPayload))
    }

    /// The payload at `path`; `None` if the file is gone.
    fn read_at(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        regular::through_replacements(|| self.read_once(path))
    }

    fn read_once(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        Self::open_file(path)?.map(|mut file| self.read(&mut file)).transpose()
    }

    fn lock(&self) -> Result<&Arc<LockFile>> {
        let open = || LockFile::open(&sidecar_lock(&self.path), self.creation);
        self.lock.get_or_try_init(|| open().map(Box::new))
    }

    fn taken(&self) -> std::path::PathBuf {
        sys::beside(&self.path, TAKEN)
    }
}

fn differs_in_case(name: &OsStr, other: &OsStr) -> bool {
    let lower = |name: &OsStr| name.to_string_lossy().to_lowercase();
    name.eq_ignore_ascii_case(other) || !name.is_ascii() && lower(name) == lower(other)
}
