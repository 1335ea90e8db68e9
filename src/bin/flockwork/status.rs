//! `flockwork status`: prints what is at a path and which processes hold it, without changing anything.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use flockwork::Holder;
use serde_json::{Value, json};

use crate::command_line;
use crate::exit::{Exit, Failure, Outcome, is_printable, printable};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  flockwork status /tmp/backup.lock
  flockwork status --json --id cc
  flockwork status --watch deploy.lock

With --json there is an object for each path, and for PATH.flock beside it where that exists (Once,
SharedFile, consumed events). Each has: path; kind (missing, file or semaphore); held; holders.
A holder has pid, pid_namespace, same_pid_namespace, host, command, label, since (RFC 3339), slot
and shared, null where unknown. Its pid can be used here, for example with kill, only if
same_pid_namespace is true: other containers and hosts have numbers of their own. A file also has
shared, set and bytes (as an event); what is missing has set; a semaphore has permits, available
and slots (those that are held).";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    /// Write it as JSON: an array with an object for each path
    #[arg(long)]
    json: bool,

    /// Look again and again, each second, until it is interrupted
    #[arg(long)]
    watch: bool,

    /// What to look at: lock files, semaphores, events
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The semaphore of this name, in the user's runtime directory
    #[arg(long, value_name = "NAME")]
    id: Vec<std::ffi::OsString>,
}

/// What lies at a path.
struct Seen {
    path: PathBuf,
    kind: Kind,
    holders: Vec<Holder>,
}

enum Kind {
    Missing,
    /// A lock, an event that is set, or something else that is locked.
    File {
        is_held: bool,
        bytes: u64,
    },
    Semaphore {
        permits: u32,
        held: Vec<u32>,
    },
}

/// What the library makes at most.
const MAX_PERMITS: u32 = 4096;
/// The longest text of a capacity that the library reads.
const MAX_BYTES: u64 = 32;
/// Between two looks of `--watch`.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &StatusArgs) -> Outcome {
    let mut paths = arguments.paths.clone();
    for name in &arguments.id {
        paths.push(crate::id::path_unchecked(name)?);
    }
    if paths.is_empty() {
        return Err(command_line::usage("status", "name what to look at"));
    }
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(command_line::usage("status", "a path is empty"));
    }
    crate::signals::end_on_signals()?;
    loop {
        let (seen, failed) = look_at_all(&paths);
        let mut text = String::new();
        if arguments.watch
            && !arguments.json
            && std::io::IsTerminal::is_terminal(&std::io::stdout())
        {
            text.push_str("\x1b[H\x1b[2J"); // from the top, on an empty screen
            text.push_str(&as_text(&seen));
        } else if arguments.json {
            let json = seen.iter().map(as_json).collect::<Value>().to_string();
            let _ = writeln!(text, "{}", escaped(&json));
        } else {
            text.push_str(&as_text(&seen));
        }
        let written = output::write(text.as_bytes())?;
        if !arguments.watch || written != Exit::Success {
            return match failed {
                Some(failure) if written == Exit::Success => Err(failure),
                _ => Ok(written),
            };
        }
        std::thread::sleep(AGAIN);
    }
}

/// What there is, and the first that could not be looked at; of others that could not it is said at
/// once.
fn look_at_all(paths: &[PathBuf]) -> (Vec<Seen>, Option<Failure>) {
    let (mut all, mut failed) = (Vec::new(), None);
    let mut add = |path: &Path| match look(path) {
        Ok(seen) => all.push(seen),
        Err(failure) if failed.is_none() => failed = Some(failure),
        Err(failure) => {
            failure.report();
        }
    };
    for path in paths {
        add(path);
        // What `Once`, `SharedFile` and `Event::consume` lock lies beside it.
        let mut beside = path.as_os_str().to_os_string();
        beside.push(".flock");
        if Path::new(&beside).is_file() {
            add(Path::new(&beside));
        }
    }
    (all, failed)
}

fn look(path: &Path) -> Result<Seen, Failure> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Seen { path: path.into(), kind: Kind::Missing, holders: Vec::new() });
        }
        Err(error) => {
            let path = path.display();
            return Err(Failure::new(
                Exit::CannotOpen,
                format!("could not look up `{path}`: {error}"),
            ));
        }
    };
    let kind = if found.is_dir() {
        semaphore(path)?
    } else {
        Kind::File { is_held: flockwork::is_held(path)?, bytes: found.len() }
    };
    let holders = match &kind {
        Kind::File { is_held: false, .. } => Vec::new(),
        _ => flockwork::holders(path)?,
    };
    // Between the two looks somebody may have taken it.
    let kind = match kind {
        Kind::File { bytes, .. } if !holders.is_empty() => Kind::File { is_held: true, bytes },
        Kind::Semaphore { permits, mut held } => {
            held.extend(holders.iter().filter_map(Holder::slot));
            held.sort_unstable();
            held.dedup();
            Kind::Semaphore { permits, held }
        }
        kind => kind,
    };
    Ok(Seen { path: path.into(), kind, holders })
}

/// Rule S1 of the protocol: the number lies in a file. Opening the semaphore could make what is
/// missing.
fn semaphore(path: &Path) -> Result<Kind, Failure> {
    let capacity = path.join("capacity");
    let failed = |exit, why: String| Failure::new(exit, format!("`{}` {why}", path.display()));
    match std::fs::symlink_metadata(&capacity) {
        Ok(found) if found.is_file() => {}
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(Exit::CannotOpen, format!("cannot be looked into: {error}")));
        }
        _ => {
            let why = "is a directory and no semaphore; name a semaphore, a lock file or an event";
            return Err(failed(Exit::CannotOpen, why.into()));
        }
    }
    let mut text = Vec::new();
    let read = open(&capacity).and_then(|file| {
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_BYTES + 1), &mut text)
    });
    read.map_err(|error| failed(Exit::CannotOpen, format!("cannot be looked at: {error}")))?;
    let permits = permits(&text).ok_or_else(|| {
        failed(Exit::Data, "is damaged: its file `capacity` holds no number of permits".into())
    })?;
    Ok(Kind::Semaphore { permits, held: flockwork::held_slots(path)? })
}

/// As the library reads it.
fn permits(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() as u64 <= MAX_BYTES)?;
    let digits = text.trim_end_matches(['\n', '\r']);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let permits: u32 = digits.parse().ok().filter(|_| is_number)?;
    (1..=MAX_PERMITS).contains(&permits).then_some(permits)
}

/// A FIFO may have taken its place, and a link.
#[cfg(unix)]
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

#[cfg(not(unix))]
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::open(path)
}

// -------------------------------------------------------------------------------------------- text

fn as_text(all: &[Seen]) -> String {
    let mut text = String::new();
    for seen in all {
        let path = printable(&seen.path.display().to_string());
        let _ = match &seen.kind {
            Kind::Missing => {
                writeln!(text, "{path}: not there (nobody holds it; as an event, cleared)")
            }
            Kind::File { is_held: false, bytes } => {
                let plural = if *bytes == 1 { "" } else { "s" };
                writeln!(text, "{path}: free (as an event, set, {bytes} byte{plural})")
            }
            Kind::File { .. } => match &*seen.holders {
                [] => writeln!(text, "{path}: held (it is not known by whom)"),
                [holder] if !holder.is_shared() => writeln!(text, "{path}: held by {}", of(holder)),
                holders => {
                    let _ = writeln!(text, "{path}: shared by {}", holders.len());
                    for holder in holders {
                        let _ = writeln!(text, "  {}", of(holder));
                    }
                    Ok(())
                }
            },
            Kind::Semaphore { permits, held } => {
                let row: String = (0..*permits)
                    .map(|slot| if held.contains(&slot) { '#' } else { '.' })
                    .collect();
                let _ = writeln!(text, "{path}: {} of {permits} permits held [{row}]", held.len());
                for slot in held {
                    let holder = seen.holders.iter().find(|holder| holder.slot() == Some(*slot));
                    let who = holder.map_or("(it is not known by whom)".to_string(), of);
                    let _ = writeln!(text, "  slot {slot}: {who}");
                }
                Ok(())
            }
        };
    }
    text
}

/// Of a time that the calendar has a date for: what humantime has none for it cannot show, and says
/// so by a panic.
fn date(time: SystemTime) -> Option<SystemTime> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_10000).then_some(time)
}

fn of(holder: &Holder) -> String {
    let mut text = format!("{holder:#}");
    if let Some(label) = holder.label() {
        let _ = write!(text, ", \"{label}\"");
    }
    if let Some(since) = holder.since() {
        let held = SystemTime::now().duration_since(since).unwrap_or_default();
        let held = Duration::from_secs(held.as_secs());
        let at = date(since).map(|since| humantime::format_rfc3339_seconds(since).to_string());
        let at = at.unwrap_or_else(|| "the end of time".into());
        let _ = write!(text, ", since {at} ({})", humantime::format_duration(held));
    }
    printable(&text)
}

// -------------------------------------------------------------------------------------------- JSON

/// The same JSON without what a terminal would obey: what it escapes by itself ends at U+001F.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if is_printable(character) {
            out.push(character);
        } else {
            let _ = write!(out, "\\u{:04x}", u32::from(character)); // all of them are below U+FFFF
        }
    }
    out
}

fn as_json(seen: &Seen) -> Value {
    let holders: Value = seen.holders.iter().map(holder_as_json).collect();
    let path = seen.path.to_string_lossy();
    // It is not known of an unknown holder either.
    let is_unknown =
        matches!(seen.kind, Kind::File { is_held: true, .. }) && seen.holders.is_empty();
    let shared =
        if is_unknown { Value::Null } else { seen.holders.iter().any(Holder::is_shared).into() };
    match &seen.kind {
        Kind::Missing => json!({
            "path": path, "kind": "missing", "held": false, "set": false, "holders": holders,
        }),
        Kind::File { is_held, bytes } => json!({
            "path": path, "kind": "file", "held": is_held, "set": true, "bytes": bytes,
            "shared": shared, "holders": holders,
        }),
        Kind::Semaphore { permits, held } => json!({
            "path": path, "kind": "semaphore", "held": !held.is_empty(), "permits": permits,
            "available": u64::from(*permits).saturating_sub(held.len() as u64), "slots": held, "holders": holders,
        }),
    }
}

fn holder_as_json(holder: &Holder) -> Value {
    let since = holder.since().and_then(date);
    let since = since.map(|since| humantime::format_rfc3339_millis(since).to_string());
    json!({
        "pid": holder.pid(),
        "pid_namespace": holder.pid_namespace(),
        "same_pid_namespace": holder.same_pid_namespace(),
        "host": holder.host(),
        "command": holder.command(),
        "label": holder.label(),
        "since": since,
        "slot": holder.slot(),
        "shared": holder.is_shared(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq};

    use super::*;

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

        #[test]
        fn a_capacity_is_read_as_the_library_reads_it(text in "[ +]?[0-9]{0,5}[\r\n]{0,3}") {
            limit!();
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("capacity"), &text).unwrap();
            let theirs = flockwork::Semaphore::open_existing(dir.path()).and_then(|pool| pool.capacity());
            prop_assert_eq!(permits(text.as_bytes()), theirs.ok());
        }

        #[test]
        fn json_means_the_same_without_what_a_terminal_obeys(text in any::<String>()) {
            limit!();
            let text = format!("{text}\u{9b}\u{202e}\u{7f}");
            let shown = escaped(&json!({ "path": text }).to_string());
            prop_assert!(shown.chars().all(crate::exit::is_printable));
            let read: Value = serde_json::from_str(&shown).unwrap();
            prop_assert_eq!(read["path"].as_str(), Some(&*text));
        }

        #[test]
        fn any_time_can_be_shown(seconds in any::<u64>()) {
            limit!();
            let Some(time) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) else { return Ok(()) };
            if let Some(time) = date(time) {
                prop_assert!(!humantime::format_rfc3339_millis(time).to_string().is_empty());
            }
        }
    }
}
