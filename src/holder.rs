//! Who holds a path: the record that a holder leaves beside it, and what the system tells where there
//! is none. Names `sys` and std; never takes the lock it tells about.
//!
//! The record is `P.holder` (for a slot of a semaphore `P/holders/slot.N`, for one of those who share a lock a file
//! in `P.holders/`), a small text. It counts only while
//! its publisher lives, which the kernel tells ([`sys::Pin`]): so a record that a killed process left is never
//! believed, whatever its process number has become (rules 10 to 12 of `docs/PROTOCOL.md`). A file in the
//! record's place that is no record is somebody's, and is left as it is.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::options::Access;
use crate::sys::{self, Directory, FileId, Origin, Pin};

const SUFFIX: &str = ".holder";
/// What is added to a record's name while it is written.
const ASIDE: &str = ".new";
/// Those who share a lock leave their records in the directory of this name beside it, each under a name of its own.
const SHARERS: &str = ".holders";
/// So many entries of that directory are looked at.
const MOST_SHARERS: usize = 1024;
/// The records of a semaphore's slots lie in this directory of it, under the slots' own names.
const RECORDS: &str = "holders";
const SLOT: &str = "slot.";
const FIRST_LINE: &str = "flockwork holder 1";
/// Where it is written in place (Windows), a reader must see that it is whole.
const LAST_LINE: &str = "end";
/// A record is a few hundred bytes. What is longer was not written by us and is not read to its end.
const MOST_BYTES: u64 = 8192;
/// A label or command is cut to this many characters.
const MOST_CHARACTERS: usize = 512;

/// A process that holds something.
///
/// Which of this is known depends on what the holder left. One that was opened with a
/// [`label`](crate::Options::label) or [`record_holder`](crate::Options::record_holder) wrote
/// all of it; of others Linux tells the process and its command.
///
/// What others wrote is untrusted text: control characters come out escaped, so that it can be shown
/// on a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pid: u32,
    host: String,
    command: Option<String>,
    label: Option<String>,
    since: Option<SystemTime>,
    slot: Option<u32>,
    is_shared: bool,
}

impl Holder {
    /// Its process number, in the holder's own process namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The host it runs on; empty where the system has no name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// The [`label`](crate::Options::label) it gave.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// When it got the lock, by its own host's clock.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Which slot of a semaphore it holds, from 0 on; `None` for what has no slots.
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// Whether it shares what it holds: a reader's lock.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether it is the calling process, on this host.
    #[must_use]
    pub fn is_this_process(&self) -> bool {
        self.pid == std::process::id() && self.is_here()
    }

    fn is_here(&self) -> bool {
        self.host == printable(&sys::host_name())
    }

    fn of_this_process(label: Option<&str>) -> Self {
        let command: Vec<_> =
            std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        Self {
            pid: std::process::id(),
            host: printable(&sys::host_name()),
            command: Some(printable(&command.join(" "))).filter(|text| !text.is_empty()),
            label: label.map(printable),
            since: Some(SystemTime::now()),
            slot: None,
            is_shared: false,
        }
    }

    /// What the system tells of a process that left no record.
    fn of_process(pid: u32, is_shared: bool) -> Self {
        Self {
            pid,
            host: sys::host_name(),
            command: sys::command_of(pid).as_deref().map(printable),
            label: None,
            since: None,
            slot: None,
            is_shared,
        }
    }

    fn to_record(&self, locked: FileId) -> String {
        use fmt::Write as _;
        let mut text = format!("{FIRST_LINE}\npid {}\nhost {}\n", self.pid, self.host);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "file {locked}");
        let since = self.since.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(since) = since {
            let _ = writeln!(text, "since {}.{:09}", since.as_secs(), since.subsec_nanos());
        }
        if let Some(command) = &self.command {
            let _ = writeln!(text, "command {command}");
        }
        if let Some(label) = &self.label {
            let _ = writeln!(text, "label {label}");
        }
        text.push_str(LAST_LINE);
        text.push('\n');
        text
    }

    /// `None` for anything that is not a whole record.
    fn from_record(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.lines();
        if lines.next() != Some(FIRST_LINE) || lines.next_back() != Some(LAST_LINE) {
            return None;
        }
        let mut pid = None;
        let mut holder = Self {
            pid: 0,
            host: String::new(),
            command: None,
            label: None,
            since: None,
            slot: None,
            is_shared: false,
        };
        for line in lines {
            match line.split_once(' ') {
                Some(("pid", value)) => pid = value.parse().ok(),
                Some(("host", value)) => holder.host = printable(value),
                Some(("since", value)) => holder.since = time(value),
                Some(("command", value)) => holder.command = Some(printable(value)),
                Some(("label", value)) => holder.label = Some(printable(value)),
                _ => {} // a later version's
            }
        }
        Some(Self { pid: pid?, ..holder })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = &self.label {
            write!(f, "\"{label}\", ")?;
        }
        if self.is_this_process() {
            f.write_str("this very process, ")?;
        }
        write!(f, "process {}", self.pid)?;
        if let Some(command) = &self.command {
            write!(f, " ({command})")?;
        }
        if !self.host.is_empty() && !self.is_here() {
            write!(f, " on {}", self.host)?;
        }
        if self.is_shared {
            f.write_str(", to read")?;
        }
        match self.since.and_then(|at| SystemTime::now().duration_since(at).ok()) {
            Some(held) => write!(f, ", for {:.1} s", held.as_secs_f64()),
            None => Ok(()),
        }
    }
}

fn time(text: &str) -> Option<SystemTime> {
    let (seconds, nanos) = text.split_once('.')?;
    let since =
        Duration::new(seconds.parse().ok()?, nanos.parse().ok().filter(|n| *n < 1_000_000_000)?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// On one line, without control characters (nor the marks that turn the direction of text round), and
/// not endless: escapes count as they are shown, so that the longest record is shorter than what is read of one. What has
/// been made printable stays as it is.
fn printable(text: &str) -> String {
    const CUT: &str = "...";
    let (mut out, mut length, mut fits) = (String::new(), 0, 0);
    for character in text.chars() {
        let hidden = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || hidden {
            out.extend(character.escape_default());
            length += character.escape_default().count();
        } else {
            out.push(character);
            length += 1;
        }
        if length + CUT.len() <= MOST_CHARACTERS {
            fits = out.len();
        } else if length > MOST_CHARACTERS {
            out.truncate(fits);
            out.push_str(CUT);
            return out;
        }
    }
    out
}

/// What is in a record's place.
enum Place {
    Free,
    /// A record or the beginning of one, its publisher alive or not.
    Record {
        text: String,
        is_alive: bool,
    },
    /// Something that we did not write, or may not read.
    Foreign,
}

/// Where the record of a lockable file lies.
#[derive(Debug, Clone)]
pub(crate) struct Desk<'a> {
    /// The file that its holder has locked.
    locked: std::borrow::Cow<'a, Path>,
    record: PathBuf,
    /// Whether others may leave theirs there at the same time.
    is_shared: bool,
    /// Whether records have a directory to themselves there.
    has_directory: bool,
}

impl<'a> Desk<'a> {
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

    /// The record of a living holder.
    fn recorded(&self) -> io::Result<Option<Holder>> {
        let Place::Record { text, is_alive: true } = self.look()? else { return Ok(None) };
        // Who holds a file that the path names no more does not hold the path.
        let is_current =
            identity_of(&self.locked)?.is_some_and(|id| text.lines().any(|line| is_for(line, id)));
        Ok(Holder::from_record(&text).filter(|_| is_current))
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
        matches!(self.look(), Ok(Place::Record { text, .. })
            if text.lines().any(|line| is_for(line, locked)))
    }

    fn look(&self) -> io::Result<Place> {
        match self.stay() {
            Ok((_held, record)) => look(&record),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Place::Free),
            Err(error) if gone(&error) => Ok(Place::Foreign), // no directory, or a symbolic link to one
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
        let desk = Desk::beside(path);
        if let Some(holder) = desk.recorded()? {
            return Ok(vec![holder]);
        }
        let mut found = sharers_of(path)?;
        let ids: Vec<_> = identity_of(path)?.into_iter().collect();
        // Each process once: while others lock and unlock, a line of the system's list may be read twice.
        for owner in sys::lock_owners(&ids, thorough && found.is_empty())? {
            if !found.iter().any(|holder| holder.pid == owner.pid) {
                found.push(Holder::of_process(owner.pid, owner.is_shared));
            }
        }
        return Ok(found);
    }
    let mut found = Vec::new();
    let mut unrecorded = Vec::new();
    for slot in slots_in(path)? {
        let desk = Desk::of_slot(path, slot);
        match desk.recorded()? {
            Some(holder) => found.push(Holder { slot: Some(slot), ..holder }),
            None => unrecorded.extend(identity_of(&desk.locked)?.map(|id| (slot, id))),
        }
    }
    let ids: Vec<_> = unrecorded.iter().map(|(_, id)| *id).collect();
    for owner in sys::lock_owners(&ids, thorough)? {
        let slot = unrecorded.iter().find(|(_, id)| *id == owner.file).map(|(slot, _)| *slot);
        if !found.iter().any(|holder| holder.slot == slot) {
            found.push(Holder { slot, ..Holder::of_process(owner.pid, false) });
        }
    }
    found.sort_by_key(|holder| holder.slot);
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

/// Those of the ones who share the lock on `path` that left a record.
fn sharers_of(path: &Path) -> io::Result<Vec<Holder>> {
    let mut found = Vec::new();
    let Some(directory) = own_directory(&sys::beside(path, SHARERS))? else { return Ok(found) };
    for record in entries(&directory)?.into_iter().filter(|r| !is_aside(r)) {
        // By the directory that is held here.
        let desk = Desk { locked: path.into(), record, is_shared: true, has_directory: false };
        found.extend(desk.recorded()?.map(|holder| Holder { is_shared: true, ..holder }));
    }
    found.sort_by_key(|holder| holder.since);
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
    for entry in entries.take(MOST_SHARERS) {
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
            false => matches!(look(&record), Ok(Place::Record { is_alive: false, .. })),
        };
        if is_dead {
            let _ = std::fs::remove_file(&record);
        }
    }
}

fn is_for(line: &str, id: FileId) -> bool {
    line.strip_prefix("file ").is_some_and(|file| file == id.to_string())
}

fn look(record: &Path) -> io::Result<Place> {
    let found = match std::fs::symlink_metadata(record) {
        Ok(found) => found,
        Err(error) if gone(&error) => return Ok(Place::Free),
        Err(error) => return Err(error),
    };
    if !found.is_file() {
        return Ok(Place::Foreign); // and not opened: it may be a FIFO
    }
    let file = match sys::open_to_read(record) {
        Ok(file) => file,
        Err(error) if gone(&error) => return Ok(Place::Free), // withdrawn meanwhile
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Place::Foreign),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    (&file).take(MOST_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let is_begun = text.starts_with(FIRST_LINE) || FIRST_LINE.starts_with(&text);
    if !is_begun || text.is_empty() && !Pin::MAY_BE_EMPTY {
        return Ok(Place::Foreign);
    }
    Ok(Place::Record { is_alive: Pin::is_alive(record, &file), text })
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || sys::is_bad_name(error) // the path fits the system, and the path with the suffix does not
}

/// This process's record beside a path that it holds. Dropping it takes the record away; so it must be
/// dropped before the lock is released, or it could take away the next holder's.
#[derive(Debug)]
pub(crate) struct Record {
    pin: Option<Pin>,
    path: PathBuf,
    has_directory: bool,
    origin: Origin,
}

impl Record {
    /// Only for the one who holds the file `locked` now. What is not ours in the record's place stays
    /// there.
    pub(crate) fn publish(
        desk: Desk<'_>,
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
        if let Place::Foreign = look(&record)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // What a publisher left that was killed before its record had its name; it may have been killed
        // before the first byte.
        if let Ok(left) = std::fs::symlink_metadata(&aside) {
            if left.len() != 0 && !matches!(look(&aside)?, Place::Record { .. }) || !left.is_file()
            {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::remove_file(&aside)?;
        }
        let text = Holder::of_this_process(label).to_record(locked);
        let pin = Pin::publish(&record, &aside, text.as_bytes(), access.bits())?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::{
        ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof,
    };

    use super::*;

    fn holder() -> Holder {
        Holder {
            pid: 42,
            host: "box".into(),
            command: Some("cargo build".into()),
            label: Some("nightly".into()),
            since: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
            slot: None,
            is_shared: false,
        }
    }

    fn record(holder: &Holder) -> String {
        let file = tempfile::tempfile().unwrap();
        holder.to_record(sys::identity(&file).unwrap())
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        assert_eq!(Holder::from_record(&record(&holder())), Some(holder()));
        let bare = Holder { command: None, label: None, since: None, ..holder() };
        assert_eq!(Holder::from_record(&record(&bare)), Some(bare));
    }

    #[test]
    fn what_is_no_record_is_nobody() {
        let whole = record(&holder());
        for cut in 0..whole.len() {
            assert_eq!(Holder::from_record(&whole[..cut]), None, "{:?}", &whole[..cut]);
        }
        for text in [
            "",
            "\n",
            "pid 1",
            "flockwork holder 2\npid 1\nend\n",
            "flockwork holder 1\npid -1\nend\n",
        ] {
            assert_eq!(Holder::from_record(text), None, "{text:?}");
        }
        // A time that does not fit, or makes no sense, is an unknown one.
        for since in ["99999999999999999999.0", "18446744073709551615.0", "1.9999999999", "x", "1"]
        {
            let text = format!("{FIRST_LINE}\npid 1\nsince {since}\nend\n");
            assert_eq!(Holder::from_record(&text).unwrap().since, None, "{since}");
        }
    }

    #[test]
    fn a_hostile_record_cannot_reach_the_terminal() {
        let text = format!(
            "{FIRST_LINE}\npid 1\nhost \u{1b}[2J\nlabel a\u{7}\u{202e}b\rc\ncommand \u{9b}x\nend\n"
        );
        let shown = Holder::from_record(&text).unwrap().to_string();
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
        let own = Holder { label: Some(printable("two\nlines")), ..holder() };
        assert_eq!(Holder::from_record(&record(&own)), Some(own));
        assert!(printable(&"x".repeat(10_000)).len() < 600);
    }

    /// As it comes, with much of what is special.
    fn any_text() -> impl Strategy<Value = String> {
        let special = "[\\x00-\\x20\u{7f}-\u{9f}\u{61c}\u{200e}\u{202e}\u{2066}\u{2028} a-c\\\\\"{}.\u{1F600}]{0,700}";
        prop_oneof![any::<String>(), special, "\u{202e}{500,600}", "[^\\x00]{505,520}"]
    }

    fn any_holder() -> impl Strategy<Value = Holder> {
        let since = proptest::option::of((0..=u64::from(u32::MAX) * 100, 0..1_000_000_000_u32));
        let texts =
            (any_text(), proptest::option::of(any_text()), proptest::option::of(any_text()));
        (any::<u32>(), texts, since).prop_map(|(pid, (host, command, label), since)| Holder {
            pid,
            host: printable(&host),
            command: command.as_deref().map(printable),
            label: label.as_deref().map(printable),
            since: since.map(|(s, n)| SystemTime::UNIX_EPOCH + Duration::new(s, n)),
            slot: None,
            is_shared: false,
        })
    }

    fn is_plain(text: &str) -> bool {
        !text.chars().any(|c| c.is_control() || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        #[test]
        fn any_record_comes_back_as_it_was_written_and_no_part_of_it_does(holder in any_holder()) {
            let text = record(&holder);
            prop_assert!(text.len() < usize::try_from(MOST_BYTES).unwrap(), "{} bytes", text.len());
            prop_assert_eq!(Holder::from_record(&text), Some(holder));
            for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                prop_assert_eq!(Holder::from_record(&text[..cut]), None);
            }
        }

        #[test]
        fn whatever_is_read_is_harmless(
            bytes in any::<Vec<u8>>(),
            keys in proptest::collection::vec(("(pid|host|since|command|label|file|end)?[ \n\r.0-9+-]{0,3}", any_text()), 0..6),
        ) {
            let mut lines = vec![FIRST_LINE.to_string(), "pid 7".into()];
            lines.extend(keys.into_iter().map(|(key, value)| format!("{key}{value}")));
            lines.push("end\n".into());
            for text in [String::from_utf8_lossy(&bytes).into_owned(), lines.join("\n")] {
                let Some(holder) = Holder::from_record(&text) else { continue };
                prop_assert!(is_plain(&holder.to_string()), "{:?}", holder);
                for text in [Some(holder.host()), holder.label(), holder.command()].into_iter().flatten() {
                    prop_assert!(text.chars().count() <= MOST_CHARACTERS);
                }
            }
        }

        #[test]
        fn what_is_printable_is_plain_short_and_stays_as_it_is(text in any_text()) {
            let shown = printable(&text);
            prop_assert!(is_plain(&shown) && shown.chars().count() <= MOST_CHARACTERS, "{:?}", shown);
            prop_assert_eq!(printable(&shown), shown.clone());
            if is_plain(&text) && text.chars().count() <= MOST_CHARACTERS {
                prop_assert_eq!(shown, text);
            }
        }

        #[test]
        fn a_time_is_what_it_says(seconds in any::<u64>(), nanos in any::<u32>(), nonsense in any::<String>()) {
            let read = time(&format!("{seconds}.{nanos:09}"));
            let wanted = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, 0));
            let wanted = wanted.filter(|_| nanos < 1_000_000_000).and_then(|at| at.checked_add(Duration::new(0, nanos)));
            prop_assert_eq!(read, wanted);
            let _ = time(&nonsense);
        }
    }
}
