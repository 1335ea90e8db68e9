//! Who holds a path: the record that a holder leaves beside it, and what the system tells where there
//! is none. Names `sys` and std; never takes the lock it tells about.
//!
//! The record is `P.holder`, a small text. It counts only while its publisher lives, which the kernel
//! tells ([`sys::Pin`]): so a record that a killed process left is never believed, whatever its
//! process number has become (rules 10 to 12 of `docs/PROTOCOL.md`). A file in the record's place that is no
//! record is somebody's, and is left as it is.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::options::Access;
use crate::sys::{self, FileId, Origin, Pin};

const SUFFIX: &str = ".holder";
/// Where a record is written before it gets its name.
const ASIDE: &str = ".holder.new";
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

    fn of_this_process(label: Option<&str>) -> Self {
        let command: Vec<_> =
            std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        Self {
            pid: std::process::id(),
            host: printable(&sys::host_name()),
            command: Some(printable(&command.join(" "))).filter(|text| !text.is_empty()),
            label: label.map(printable),
            since: Some(SystemTime::now()),
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
        let mut holder =
            Self { pid: 0, host: String::new(), command: None, label: None, since: None };
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
        let is_here = self.host == printable(&sys::host_name());
        if is_here && self.pid == std::process::id() {
            f.write_str("this very process, ")?;
        }
        write!(f, "process {}", self.pid)?;
        if let Some(command) = &self.command {
            write!(f, " ({command})")?;
        }
        if !self.host.is_empty() && !is_here {
            write!(f, " on {}", self.host)?;
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
/// not endless.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().take(MOST_CHARACTERS) {
        let hidden = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || hidden {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    if text.chars().nth(MOST_CHARACTERS).is_some() {
        out.push_str("...");
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

/// Who holds `path`: the record of a living holder, or else what the system tells.
pub(crate) fn find(path: &Path) -> io::Result<Option<Holder>> {
    if let Place::Record { text, is_alive: true } = look(&sys::beside(path, SUFFIX))? {
        // Who holds a file that the path names no more does not hold the path.
        if let Some(holder) = Holder::from_record(&text).filter(|_| names_locked(path, &text)) {
            return Ok(Some(holder));
        }
    }
    Ok(sys::lock_owners(path).first().map(|&pid| Holder {
        pid,
        host: sys::host_name(),
        command: sys::command_of(pid).as_deref().map(printable),
        label: None,
        since: None,
    }))
}

/// Whether the path still names the file that the record was left for.
fn names_locked(path: &Path, text: &str) -> bool {
    sys::path_identity(path).is_ok_and(|id| text.lines().any(|line| is_for(line, id)))
}

fn is_for(line: &str, id: FileId) -> bool {
    line.strip_prefix("file ").is_some_and(|file| file == id.to_string())
}

/// Whether a holder of the file `locked` died without taking its record away. Only for the one who holds
/// it now: a holder takes its record away before it unlocks, so what is found there for this very file
/// is a dead one's. (Its pin says nothing: a process that dies drops its locks one after the other.)
pub(crate) fn died_holding(path: &Path, locked: FileId) -> io::Result<bool> {
    let found = look(&sys::beside(path, SUFFIX))?;
    Ok(matches!(found, Place::Record { text, .. }
        if text.lines().any(|line| is_for(line, locked))))
}

/// Takes a dead holder's record away. Only for the one who holds `path` now.
pub(crate) fn forget_dead(path: &Path) -> io::Result<()> {
    std::fs::remove_file(sys::beside(path, SUFFIX))
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
    origin: Origin,
}

impl Record {
    /// Only for the one who holds the file `locked` now. What is not ours in the record's place stays
    /// there.
    pub(crate) fn publish(
        path: &Path,
        locked: FileId,
        label: Option<&str>,
        access: Access,
    ) -> io::Result<Self> {
        let (record, aside) = (sys::beside(path, SUFFIX), sys::beside(path, ASIDE));
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
        Ok(Self { pin: Some(pin), path: record, origin: Origin::here() })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A forked copy must leave the record to the process that holds the lock.
        if let Some(pin) = self.pin.take().filter(|_| self.origin.is_here()) {
            // Down to the first line: should the file not go, it says that nobody holds.
            let _ = pin.withdraw(&self.path, FIRST_LINE.len() as u64 + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder {
            pid: 42,
            host: "box".into(),
            command: Some("cargo build".into()),
            label: Some("nightly".into()),
            since: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
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
}
