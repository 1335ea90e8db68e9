//! `flockwork status`: prints what is at a path and which processes hold it, without changing anything.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use flockwork::{Holder, Status, StatusKind};
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

/// What lies at a path, which is printed as it was given.
struct PathStatus {
    path: PathBuf,
    status: Status,
}

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
        let (seen, failed) = inspect_all(&paths);
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
fn inspect_all(paths: &[PathBuf]) -> (Vec<PathStatus>, Option<Failure>) {
    let (mut all, mut failed) = (Vec::new(), None);
    let mut add = |path: &Path| match inspect_path(path) {
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

fn inspect_path(path: &Path) -> Result<PathStatus, Failure> {
    Ok(PathStatus { path: path.into(), status: flockwork::inspect(path)? })
}

// -------------------------------------------------------------------------------------------- text

fn as_text(all: &[PathStatus]) -> String {
    let mut text = String::new();
    for PathStatus { path, status } in all {
        let path = printable(&path.display().to_string());
        // Writing to a string cannot fail.
        let _ = match (status.kind(), status.payload_len().unwrap_or_default()) {
            (StatusKind::Missing, _) => {
                writeln!(text, "{path}: not there (nobody holds it; as an event, cleared)")
            }
            (StatusKind::Semaphore, _) => write_semaphore(&mut text, &path, status),
            _ if status.is_held() => write_held(&mut text, &path, status),
            (_, 1) => writeln!(text, "{path}: free (as an event, set, 1 byte)"),
            (_, bytes) => writeln!(text, "{path}: free (as an event, set, {bytes} bytes)"),
        };
    }
    text
}

fn write_held(text: &mut String, path: &str, status: &Status) -> std::fmt::Result {
    match status.holders() {
        [] => writeln!(text, "{path}: held (it is not known by whom)"),
        [holder] if !holder.is_shared() => writeln!(text, "{path}: held by {}", of(holder)),
        holders => {
            writeln!(text, "{path}: shared by {}", holders.len())?;
            holders.iter().try_for_each(|holder| writeln!(text, "  {}", of(holder)))
        }
    }
}

fn write_semaphore(text: &mut String, path: &str, status: &Status) -> std::fmt::Result {
    let (permits, held) = (status.capacity().unwrap_or_default(), status.held_slots());
    let row: String =
        (0..permits).map(|slot| if held.contains(&slot) { '#' } else { '.' }).collect();
    writeln!(text, "{path}: {} of {permits} permits held [{row}]", held.len())?;
    held.iter().try_for_each(|slot| {
        let holder = status.holders().iter().find(|holder| holder.slot() == Some(*slot));
        let who = holder.map_or("(it is not known by whom)".to_string(), of);
        writeln!(text, "  slot {slot}: {who}")
    })
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

fn as_json(PathStatus { path, status }: &PathStatus) -> Value {
    let holders: Value = status.holders().iter().map(holder_as_json).collect();
    let (path, is_held) = (path.to_string_lossy(), status.is_held());
    match (status.kind(), status.capacity()) {
        (StatusKind::Missing, _) => json!({
            "path": path, "kind": "missing", "held": false, "set": false, "holders": holders,
        }),
        (_, Some(permits)) => json!({
            "path": path, "kind": "semaphore", "held": is_held, "permits": permits,
            "available": u64::from(permits).saturating_sub(status.held_slots().len() as u64),
            "slots": status.held_slots(), "holders": holders,
        }),
        _ => {
            // Whether an unknown holder shares it is not known either.
            let is_unknown = is_held && status.holders().is_empty();
            let is_shared = status.holders().iter().any(Holder::is_shared);
            json!({
                "path": path, "kind": "file", "held": is_held, "set": true,
                "bytes": status.payload_len(),
                "shared": if is_unknown { Value::Null } else { is_shared.into() },
                "holders": holders,
            })
        }
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
