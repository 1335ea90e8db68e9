//! The holders of a path: the record that a holder leaves beside it, and what the system shows where
//! there is none. Never acquires the lock of which it looks for the holder.
//!
//! The record is `P.holder` (for a slot of a semaphore `P/holders/slot.N`, for each reader a file in `P.holders/`), a
//! small text. It counts only while its publisher lives, which the kernel tells ([`sys::LivenessLock`]): so a record that a
//! killed process left is never believed, whatever its process number has become (rules 10 to 12 of
//! `docs/PROTOCOL.md`). A file in the record's place that is no record belongs to another program and is left as it is.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::holder::{FIRST_LINE, Holder, is_for};
use crate::options::Access;
use crate::sys::{self, Directory, FileId, LivenessLock, Origin, Owner};

const SUFFIX: &str = ".holder";
/// What is added to a record's name while it is written.
const ASIDE: &str = ".new";
/// Those who share a lock leave their records in the directory of this name beside it, each under a name of its own.
const SHARERS: &str = ".holders";
/// So many entries of that directory are looked at.
const MAX_SHARERS: usize = 1024;
/// The records of a semaphore's slots lie in this directory of it, under the slots' own names.
const RECORDS: &str = "holders";
const SLOT: &str = "slot.";
/// A record is a few hundred bytes. What is longer was not written by us and is not read to its end.
pub(crate) const MAX_BYTES: u64 = 8192;

/// What is in a record's place.
enum Found {
    Free,
    /// A record or the beginning of one, its publisher alive or not; and which file it is.
    Record {
        text: String,
        is_alive: bool,
        id: FileId,
    },
    /// Something that we did not write, or may not read.
    Foreign,
}

/// Where the record of a lockable file lies.
#[derive(Debug, Clone)]
pub(crate) struct RecordLocation<'a> {
    /// The file that its holder has locked.
    locked: std::borrow::Cow<'a, Path>,
    record: PathBuf,
    /// Whether others may leave theirs there at the same time.
    is_shared: bool,
    /// Whether records have a directory to themselves there.
    has_directory: bool,
}

impl<'a> RecordLocation<'a> {
    /// Of a lock: beside it.
    pub(crate) fn beside(locked: &'a Path) -> Self {
        let record = sys::beside(locked, SUFFIX);
        Self { locked: locked.into(), record, is_shared: false, has_directory: false }
    }

    /// Of one of those who share a lock: under a name that nobody else has.
    pub(crate) fn among_sharers(locked: &'a Path) -> Self {
        let record = sys::unique_beside(&sys::beside(locked, SHARERS).join(SLOT));
        Self { locked: locked.into(), record, is_shared: true, has_directory: true }
    }

    /// Of one slot of the semaphore in `directory`.
    pub(crate) fn of_slot(directory: &Path, slot: u32) -> Self {
        let name = slot_name(slot);
        let record = directory.join(RECORDS).join(&name);
        let locked = directory.join(name).into();
        Self { locked, record, is_shared: false, has_directory: true }
    }

    /// What the record of a living holder says, and which file the record is.
    fn recorded(&self) -> io::Result<Option<(Holder, FileId)>> {
        let Found::Record { text, is_alive: true, id } = self.look()? else { return Ok(None) };
        // The holder of a file that the path no longer names does not hold the path.
        let Some(locked) = identity_of(&self.locked)?.filter(|locked| is_for(&text, *locked))
        else {
            return Ok(None);
        };
        let Some(holder) = Holder::from_record(&text) else { return Ok(None) };
        if !holder.has_ended() {
            return Ok(Some((holder, id)));
        }
        // Rule 11. A child made by `fork` has inherited the lock and the record, which is locked as well. A process
        // that has locked the record alone holds nothing.
        let (locks, records): (Vec<_>, Vec<_>) =
            sys::inheritors(&[locked, id]).into_iter().partition(|owner| owner.file == locked);
        let is_heir = |of_record: &Owner| locks.iter().any(|lock| lock.listed == of_record.listed);
        let heir = records.into_iter().find(is_heir);
        Ok(heir.map(|heir| (holder.passed_to(&heir), id)))
    }

    /// Whether a holder of the file `locked` died without taking its record away; the record goes then (and
    /// where it cannot be removed, the next one is told as well). Only for the one who holds the file now: a
    /// holder takes its record away before it unlocks, so what is found there for this very file is a dead
    /// one's. (Its pin says nothing: a process that dies drops its locks one after the other.)
    pub(crate) fn take_over(&self, locked: FileId) -> bool {
        let died = self.is_left(locked);
        if died {
            let _ = self.stay().and_then(|(_held, record)| std::fs::remove_file(record));
        }
        died
    }

    /// The same, but the record stays. For one who shares the file, too: no living holder can have it exclusively.
    pub(crate) fn is_left(&self, locked: FileId) -> bool {
        matches!(self.look(), Ok(Found::Record { text, .. }) if is_for(&text, locked))
    }

    fn look(&self) -> io::Result<Found> {
        match self.stay() {
            Ok((_held, record)) => look(&record),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Free),
            Err(error) if gone(&error) => Ok(Found::Foreign), // no directory, or a symbolic link to one
            Err(error) => Err(error),
        }
    }

    fn stay(&self) -> io::Result<(Option<Directory>, PathBuf)> {
        stay(&self.record, self.has_directory)
    }
}

/// The path of a record for as long as the other is held: by its own directory, which nobody can lead elsewhere then.
fn stay(record: &Path, has_directory: bool) -> io::Result<(Option<Directory>, PathBuf)> {
    match (record.parent(), record.file_name()) {
        (Some(directory), Some(name)) if has_directory => {
            let directory = Directory::open(directory)?;
            let record = directory.path().join(name);
            Ok((Some(directory), record))
        }
        _ => Ok((None, record.into())),
    }
}

/// The name of a semaphore's slot within its directory.
pub(crate) fn slot_name(slot: u32) -> String {
    format!("{SLOT}{slot}")
}

/// Where each slot has a second name, its number.
pub(crate) const SPARES: &str = ".slots";

/// The slots that a semaphore's directory has, in order, by their names and by their second names. What merely
/// looks like one is passed over.
pub(crate) fn slots_in(directory: &Path) -> io::Result<Vec<u32>> {
    let mut slots = Vec::new();
    let mut look = |directory: &Path, prefix: &str| -> io::Result<()> {
        for entry in sys::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type().is_ok_and(|kind| !kind.is_file()) {
                continue;
            }
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            slots.extend(number.filter(|slot: &u32| name == *format!("{prefix}{slot}")));
        }
        Ok(())
    };
    look(directory, SLOT)?;
    let spares = directory.join(SPARES);
    if is_directory(&spares).unwrap_or(false) {
        match look(&spares, "") {
            Err(error) if !gone(&error) => return Err(error),
            _ => {}
        }
    }
    slots.sort_unstable();
    slots.dedup();
    Ok(slots)
}

/// Who holds `path`, as far as that is known: of a lock the one who holds it, or all who share it; of a semaphore (a
/// directory) each slot's, in order. With `thorough` also who has only inherited it, which may take some milliseconds.
pub(crate) fn find(path: &Path, thorough: bool) -> io::Result<Vec<Holder>> {
    if !is_directory(path)? {
        if let Some((holder, _)) = RecordLocation::beside(path).recorded()? {
            return Ok(vec![holder]);
        }
        let recorded = sharers_of(path)?;
        let locked = identity_of(path)?;
        // The records are locked as well, so the list tells whose they are by the numbers that count here.
        let mut ids: Vec<_> = recorded.iter().map(|(_, record)| *record).collect();
        ids.extend(locked);
        let owners = sys::lock_owners(&ids, thorough && recorded.is_empty())?;
        let (holding, recording): (Vec<_>, Vec<_>) =
            owners.into_iter().partition(|owner| Some(owner.file) == locked);
        // Each process once: while others lock and unlock, a line of the system's list may be read twice.
        let mut named: Vec<_> = recording.iter().map(|owner| owner.listed).collect();
        let mut found: Vec<_> = recorded.into_iter().map(|(holder, _)| holder).collect();
        for owner in holding {
            if !named.contains(&owner.listed) {
                named.push(owner.listed);
                found.push(Holder::of_owner(&owner));
            }
        }
        return Ok(found);
    }
    let mut found = Vec::new();
    let mut unrecorded = Vec::new();
    for slot in slots_in(path)? {
        let desk = RecordLocation::of_slot(path, slot);
        match desk.recorded()? {
            Some((holder, _)) => found.push(holder.in_slot(slot)),
            None => unrecorded.extend(identity_of(&desk.locked)?.map(|id| (slot, id))),
        }
    }
    let ids: Vec<_> = unrecorded.iter().map(|(_, id)| *id).collect();
    for owner in sys::lock_owners(&ids, thorough)? {
        let Some((slot, _)) = unrecorded.iter().find(|(_, id)| *id == owner.file) else { continue };
        if !found.iter().any(|holder| holder.slot() == Some(*slot)) {
            found.push(Holder::of_owner(&owner).in_slot(*slot));
        }
    }
    found.sort_by_key(Holder::slot);
    Ok(found)
}

/// `None`: the path names nothing.
fn identity_of(path: &Path) -> io::Result<Option<FileId>> {
    match sys::path_identity(path) {
        Err(error) if gone(&error) => Ok(None),
        found => found.map(Some),
    }
}

/// And no symbolic link to one, which would be somebody else's.
fn is_directory(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Err(error) if gone(&error) => Ok(false),
        found => found.map(|found| found.is_dir()),
    }
}

/// Those of the ones who share the lock on `path` that left a record, each with the file that it is.
fn sharers_of(path: &Path) -> io::Result<Vec<(Holder, FileId)>> {
    let mut found = Vec::new();
    let Some(directory) = own_directory(&sys::beside(path, SHARERS))? else { return Ok(found) };
    for record in entries(&directory)?.into_iter().filter(|r| !is_aside(r)) {
        // By the directory that is held here.
        let desk =
            RecordLocation { locked: path.into(), record, is_shared: true, has_directory: false };
        let recorded = desk.recorded()?;
        found.extend(recorded.map(|(holder, id)| (holder.among_readers(), id)));
    }
    found.sort_by_key(|(holder, _)| holder.since());
    Ok(found)
}

/// The records in the directory of those who share a lock, by their names. Those of others may be closed to this user.
fn entries(directory: &Directory) -> io::Result<Vec<PathBuf>> {
    let entries = match sys::read_dir(directory.path()) {
        Ok(entries) => entries,
        Err(error) if gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut records = Vec::new();
    for entry in entries.take(MAX_SHARERS) {
        let entry = entry?;
        if sys::is_unique_name(entry.file_name().to_string_lossy().trim_end_matches(ASIDE)) {
            records.push(entry.path());
        }
    }
    Ok(records)
}

/// `None`: there is none, or something else.
fn own_directory(path: &Path) -> io::Result<Option<Directory>> {
    match Directory::open(path) {
        Err(error) if gone(&error) => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_aside(record: &Path) -> bool {
    record.to_string_lossy().ends_with(ASIDE)
}

/// Takes away what those left who died while they shared the lock on `path`. With `all` also what they had begun to
/// write: only for the one who has the lock exclusively, since nobody writes there then.
pub(crate) fn sweep_sharers(path: &Path, all: bool) {
    let Ok(Some(directory)) = own_directory(&sys::beside(path, SHARERS)) else { return };
    for record in entries(&directory).unwrap_or_default() {
        let is_dead = match is_aside(&record) {
            true if all => std::fs::symlink_metadata(&record).is_ok_and(|found| found.is_file()),
            true => false, // somebody may be about to write it
            false => matches!(look(&record), Ok(Found::Record { is_alive: false, .. })),
        };
        if is_dead {
            let _ = std::fs::remove_file(&record);
        }
    }
}

fn look(record: &Path) -> io::Result<Found> {
    let found = match std::fs::symlink_metadata(record) {
        Ok(found) => found,
        Err(error) if gone(&error) => return Ok(Found::Free),
        Err(error) => return Err(error),
    };
    if !found.is_file() {
        return Ok(Found::Foreign); // and not opened: it may be a FIFO
    }
    let file = match sys::open_to_read(record) {
        Ok(file) => file,
        Err(error) if gone(&error) => return Ok(Found::Free), // withdrawn meanwhile
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Found::Foreign),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    (&file).take(MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let is_begun = text.starts_with(FIRST_LINE) || FIRST_LINE.starts_with(&text);
    if !is_begun || text.is_empty() && !LivenessLock::MAY_BE_EMPTY {
        return Ok(Found::Foreign);
    }
    let id = sys::identity(&file)?;
    Ok(Found::Record { is_alive: LivenessLock::is_alive(record, &file), text, id })
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || sys::is_bad_name(error) // the path fits the system, and the path with the suffix does not
}

/// This process's record beside a path that it holds. Dropping it takes the record away; so it must be
/// dropped before the lock is released, or it could take away the next holder's.
#[derive(Debug)]
pub(crate) struct Record {
    pin: Option<LivenessLock>,
    path: PathBuf,
    has_directory: bool,
    origin: Origin,
}

impl Record {
    /// Only for the one who holds the file `locked` now. What is not ours in the record's place stays
    /// there.
    pub(crate) fn publish(
        desk: RecordLocation<'_>,
        locked: FileId,
        label: Option<&str>,
        access: Access,
    ) -> io::Result<Self> {
        if let Some(directory) = desk.record.parent().filter(|directory| !directory.is_dir()) {
            sys::create_directories(directory, access.bits())?; // of several records
        }
        let (held, record) = desk.stay()?;
        let aside = sys::beside(&record, ASIDE);
        if desk.is_shared {
            // Now and then: there may be many, and each look at one costs some microseconds.
            if record.as_os_str().as_encoded_bytes().last() == Some(&b'0') {
                sweep_sharers(&desk.locked, false);
            }
        }
        if let Found::Foreign = look(&record)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // What a publisher left that was killed before its record had its name; it may have been killed
        // before the first byte.
        if let Ok(left) = std::fs::symlink_metadata(&aside) {
            if left.len() != 0 && !matches!(look(&aside)?, Found::Record { .. }) || !left.is_file()
            {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::remove_file(&aside)?;
        }
        let text = Holder::of_this_process(label).to_record(locked);
        let pin = LivenessLock::publish(&record, &aside, text.as_bytes(), access.bits())?;
        let has_directory = held.is_some();
        Ok(Self { pin: Some(pin), path: desk.record, has_directory, origin: Origin::here() })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A forked copy must leave the record to the process that holds the lock.
        if let Some(pin) = self.pin.take().filter(|_| self.origin.is_here()) {
            // Where there are no descriptors left, it goes by its path: what is there is looked at first.
            let stays = stay(&self.path, self.has_directory);
            let path = stays.as_ref().map_or(&self.path, |(_held, path)| path);
            // Down to the first line: should the file not go, it says that nobody holds.
            let _ = pin.withdraw(path, FIRST_LINE.len() as u64 + 1);
        }
    }
}
