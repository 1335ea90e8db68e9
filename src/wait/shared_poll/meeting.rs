//! The files through which the processes of one host and user agree on which of them polls a
//! directory, and learn what it found (rule E9). They are on a local file system.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::listing::Listing;
use crate::host_directory::host_directory;
use crate::process::{is_stopped, this_process};
use crate::sys::{self, FileId, FileKind, Mode, Numbering, Process};

/// The directories for the files, in the directory of the host, which may also contain semaphores
/// of the command, whose names begin with no period. The number is the version of the format.
const STATES: &str = ".events.1";
const BEATS: &str = ".events.1.lock";
const WANTED: &str = ".wanted";

/// The file of new waiters grows, and begins again at this length.
const MAX_WANTED: u64 = 1000;
/// A poller that shows no life for this time has stopped.
const LIFELESS: Duration = Duration::from_secs(1);
/// The same while it lists the directory, which takes long if the server is slow.
const LIFELESS_LISTING: Duration = Duration::from_secs(5);
/// How often a process tries to open a file that others create and remove.
const ATTEMPTS: u32 = 4;
/// Files of directories that no process polls are removed, this many at most.
const MAX_REMOVED: usize = 64;
/// A temporary file remains from a killed process if it is this old.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The numbers that a poller writes to the file that it has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Beat {
    /// How many listings it has begun, and how many of these have ended.
    begun: u64,
    ended: u64,
    /// Counts up while it lives.
    count: u64,
    pid: u64,
    namespace: u64,
    started: u64,
}

const BEAT_LENGTH: usize = 6 * 8;

impl Beat {
    fn of_this_process() -> Self {
        let process = this_process();
        let namespace = match process.numbering {
            Numbering::Namespace(inode) => inode,
            Numbering::Other | Numbering::Unknown => 0,
        };
        let started = process.started.unwrap_or(0);
        Self { pid: process.pid.into(), namespace, started, ..Self::default() }
    }

    fn process(&self) -> Option<Process> {
        Some(Process {
            pid: self.pid.try_into().ok()?,
            numbering: match self.namespace {
                0 => Numbering::Unknown,
                inode => Numbering::Namespace(inode),
            },
            started: Some(self.started).filter(|started| *started != 0),
            boot: None,
        })
    }

    fn read(mut file: &File) -> io::Result<Self> {
        let mut bytes = [0; BEAT_LENGTH];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut bytes)?;
        let mut numbers = [0; 6];
        for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            *number = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        let [begun, ended, count, pid, namespace, started] = numbers;
        Ok(Self { begun, ended, count, pid, namespace, started })
    }

    fn write(self, mut file: &File) -> io::Result<()> {
        let Self { begun, ended, count, pid, namespace, started } = self;
        let numbers = [begun, ended, count, pid, namespace, started];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)
    }
}

/// The files for one directory.
#[derive(Debug)]
pub(super) struct Meeting {
    /// Where `state` and `wanted` are.
    pub(super) directory: Arc<Path>,
    name: OsString,
    /// The latest listing, which is replaced as a whole.
    state: PathBuf,
    /// Changed by a process that has a new waiter.
    wanted: PathBuf,
    /// Locked by the poller. It is in another directory, which no process watches.
    beat: PathBuf,
}

fn open_or_create(path: &Path) -> io::Result<File> {
    let is = |result: &io::Result<File>, kind| result.as_ref().is_err_and(|it| it.kind() == kind);
    let mut opened = sys::open_existing(path);
    // Another process may create or remove the file between the two calls.
    for _ in 0..ATTEMPTS {
        if is(&opened, io::ErrorKind::NotFound) {
            opened = sys::create_new(path, None);
        }
        if is(&opened, io::ErrorKind::AlreadyExists) {
            opened = sys::open_existing(path);
        }
    }
    opened
}

impl Meeting {
    /// The files for the directory with this key. `None` if this user has no place for them.
    pub(super) fn of(key: &str) -> Option<Self> {
        let host = host_directory()?;
        let [states, beats] = [STATES, BEATS].map(|name| host.join(name));
        for directory in [&states, &beats] {
            let _ = sys::create_private_directory(directory);
            if !sys::is_private_directory(directory) {
                return None;
            }
        }
        Some(Self {
            state: states.join(key),
            wanted: states.join(format!("{key}{WANTED}")),
            beat: beats.join(key),
            name: key.into(),
            directory: states.into(),
        })
    }

    /// The name whose events concern the processes that do not poll.
    pub(super) fn state_name(&self) -> OsString {
        self.name.clone()
    }

    /// The name whose events concern the poller.
    pub(super) fn wanted_name(&self) -> OsString {
        let mut name = self.name.clone();
        name.push(WANTED);
        name
    }

    /// Makes this process the poller, if there is none. With `replaces`, the one that there is has
    /// shown no life: it keeps its lock, on a file that has no name any more.
    pub(super) fn lead(&self, replaces: bool) -> io::Result<Option<Leadership>> {
        if replaces {
            let _ = std::fs::remove_file(&self.beat);
        }
        for _ in 0..ATTEMPTS {
            let file = open_or_create(&self.beat)?;
            if !sys::try_lock(&file, Mode::Exclusive)? {
                return Ok(None);
            }
            let id = sys::identity(&file)?;
            // A poller that ends removes the file.
            if sys::names(&self.beat, id)? {
                let beat = Beat::of_this_process();
                beat.write(&file)?;
                let wanted = self.wanted();
                self.remove_unused();
                return Ok(Some(Leadership { file, id, beat, published: None, wanted }));
            }
        }
        Ok(None)
    }

    /// Makes the poller list the directory more often for a while, since a wait has begun. The
    /// poller examines the file without opening it, which would be an event for all processes.
    pub(super) fn announce_waiter(&self) -> io::Result<()> {
        let mut file = open_or_create(&self.wanted)?;
        if file.seek(SeekFrom::End(0))? >= MAX_WANTED {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(b".")
    }

    fn wanted(&self) -> Option<(u64, SystemTime)> {
        let found = std::fs::symlink_metadata(&self.wanted).ok()?;
        Some((found.len(), found.modified().ok()?))
    }

    /// Removes files that killed processes have left. A process that uses one of them creates it
    /// again.
    fn remove_unused(&self) {
        let Some(beats) = self.beat.parent() else { return };
        let entries = |path| sys::read_dir(path).into_iter().flatten().flatten().take(MAX_REMOVED);
        for entry in entries(beats).filter(|entry| entry.file_name() != self.name) {
            let path = entry.path();
            let is_unused = sys::open_existing(&path)
                .and_then(|file| sys::try_lock(&file, Mode::Exclusive))
                .unwrap_or(false);
            if is_unused {
                let name = entry.file_name();
                let _ = std::fs::remove_file(path);
                let _ = std::fs::remove_file(self.directory.join(&name));
                let wanted = self.directory.join(sys::beside(Path::new(&name), WANTED));
                let _ = std::fs::remove_file(wanted);
            }
        }
        for entry in entries(&self.directory) {
            let is_temporary = entry.file_name().to_str().is_some_and(sys::is_unique_name);
            let age = entry.metadata().and_then(|found| found.modified()).ok();
            let age = age.and_then(|modified| modified.elapsed().ok()).unwrap_or_default();
            if is_temporary && age > ABANDONED {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// What the poller has.
pub(super) struct Leadership {
    file: File,
    id: FileId,
    beat: Beat,
    /// The listing that this process has written, its file, and that file's identity.
    published: Option<(u64, File, FileId)>,
    wanted: Option<(u64, SystemTime)>,
}

impl Leadership {
    /// Shows life. `false`: another process has replaced this one.
    pub(super) fn show_life(&mut self, meeting: &Meeting) -> io::Result<bool> {
        self.beat.count += 1;
        self.beat.write(&self.file)?;
        sys::names(&meeting.beat, self.id)
    }

    /// The same, before a listing.
    pub(super) fn begin(&mut self, meeting: &Meeting) -> io::Result<bool> {
        self.beat.begun += 1;
        self.show_life(meeting)
    }

    /// Writes the listing, unless the one that the other processes find is the same. After that it
    /// counts as ended.
    pub(super) fn end(
        &mut self,
        meeting: &Meeting,
        listing: &Listing,
        version: u64,
    ) -> io::Result<()> {
        let is_known = match &self.published {
            // Another process may have replaced this one's file with an older listing.
            Some((known, _open, id)) => *known == version && sys::names(&meeting.state, *id)?,
            None => false,
        };
        if !is_known {
            let new = sys::unique_beside(&meeting.state);
            let mut file = sys::create_new(&new, None)?;
            let written = file
                .write_all(&listing.to_bytes())
                .and_then(|()| std::fs::rename(&new, &meeting.state));
            if let Err(error) = written {
                let _ = std::fs::remove_file(&new);
                return Err(error);
            }
            let id = sys::identity(&file)?;
            self.published = Some((version, file, id));
        }
        self.beat.ended = self.beat.begun;
        self.beat.count += 1;
        self.beat.write(&self.file)
    }

    /// Whether another process has a new waiter since the last call.
    pub(super) fn has_new_waiter(&mut self, meeting: &Meeting) -> bool {
        let wanted = meeting.wanted();
        std::mem::replace(&mut self.wanted, wanted) != wanted
    }

    /// Lets another process poll, and notifies it.
    pub(super) fn resign(self, meeting: &Meeting) {
        if !sys::names(&meeting.beat, self.id).unwrap_or(false) {
            return;
        }
        let _ = std::fs::remove_file(&meeting.wanted);
        let _ = std::fs::remove_file(&meeting.beat);
        let _ = sys::unlock(&self.file);
        // The removal is an event for the others.
        if let Some((_, _open, id)) = self.published {
            if sys::names(&meeting.state, id).unwrap_or(false) {
                let _ = std::fs::remove_file(&meeting.state);
            }
        }
    }
}

/// What a process finds that does not poll.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Poller {
    /// A process polls. Whether there is a listing that has not been compared yet.
    Alive { is_new: bool },
    /// No process polls.
    Missing,
    /// The process that polls has shown no life for some time.
    Lifeless,
}

/// A process that does not poll.
#[derive(Default)]
pub(super) struct Following {
    beat: Option<(File, FileId)>,
    seen: Beat,
    /// Since when the poller has shown no life.
    lifeless_since: Option<Instant>,
    state: Option<(File, FileId)>,
    pub(super) listing: Option<Listing>,
}

impl Following {
    /// Examines the poller, and reads its latest listing.
    pub(super) fn observe(&mut self, meeting: &Meeting, now: Instant) -> io::Result<Poller> {
        let is_known = match &self.beat {
            Some((_, id)) => sys::names(&meeting.beat, *id)?,
            None => false,
        };
        if !is_known {
            let file = match sys::open_existing(&meeting.beat) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(Poller::Missing);
                }
                file => file?,
            };
            let id = sys::identity(&file)?;
            (self.beat, self.seen, self.lifeless_since) = (Some((file, id)), Beat::default(), None);
        }
        let Some((file, _)) = &self.beat else { return Ok(Poller::Missing) };
        // A poller writes its first beat right after it has locked the file.
        let beat = Beat::read(file).unwrap_or_default();
        if beat == self.seen || beat == Beat::default() {
            // The kernel drops the lock of a dead process. A forked copy of it may keep the lock.
            if sys::try_lock(file, Mode::Exclusive)? {
                sys::unlock(file)?;
                return Ok(Poller::Missing);
            }
            let since = *self.lifeless_since.get_or_insert(now);
            let limit = if beat.begun == beat.ended { LIFELESS } else { LIFELESS_LISTING };
            let is_lifeless = now.saturating_duration_since(since) >= limit
                || beat.process().is_some_and(|process| is_stopped(&process));
            if is_lifeless {
                return Ok(Poller::Lifeless);
            }
        } else {
            self.lifeless_since = None;
        }
        // The listing is read after the beat, so it is at least as new as the listing that the beat
        // reports as ended.
        let has_changed = self.read_state(meeting)?;
        let has_ended = beat.ended != self.seen.ended;
        self.seen = beat;
        Ok(Poller::Alive { is_new: self.listing.is_some() && (has_changed || has_ended) })
    }

    /// Reads the listing if it was replaced, and returns whether it was.
    fn read_state(&mut self, meeting: &Meeting) -> io::Result<bool> {
        if let Some((_open, id)) = &self.state {
            if sys::names(&meeting.state, *id)? {
                return Ok(false);
            }
        }
        if sys::file_kind(&meeting.state)? != FileKind::File {
            return Ok(false);
        }
        let mut file = match sys::open_to_read(&meeting.state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let id = sys::identity(&file)?;
        self.listing = Some(Listing::from_bytes(&bytes));
        self.state = Some((file, id));
        Ok(true)
    }
}
