//! `flockwork status`: shows the state and the holders of locks, semaphores, events and barriers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use flockwork::{Holder, Status, StatusKind};
use serde_json::{Value, json};

use crate::command_line;
use crate::exit::{Exit, Failure, Outcome, is_printable, printable};
use crate::{holder_text, output};

const EXAMPLES: &str = "\
Examples:
  flockwork status /tmp/backup.lock
  flockwork status --json --id cc
  flockwork status --watch deploy.lock

--json prints an array with an object for each path, and for PATH.flock if it exists (the lock
of `once`, SharedFile and consumed events). Each object has path, kind (missing, file,
semaphore or barrier), held and holders. A file also has shared, and as an event, set and bytes.
A missing path has set. A semaphore has permits, available and slots (those that are held).
A barrier has participants, arrived (those that wait) and broken; its holders wait at it.
A holder has pid, pid_namespace, same_pid_namespace, host, command, label, since (RFC 3339),
slot and shared, which are null if unknown. Use its pid, for example with kill, only if
same_pid_namespace is true: other containers and hosts number their processes separately.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    /// Print JSON: an array with an object for each path
    #[arg(long)]
    json: bool,

    /// Print nothing; exit with 0 if a lock or permit is held, 1 if all are free, and 2 if no PATH
    /// exists
    #[arg(short = 'q', long, conflicts_with_all = ["json", "watch"])]
    quiet: bool,

    /// Print the status until interrupted: redraw it on a terminal, or else print it when it
    /// changes
    #[arg(long)]
    watch: bool,

    /// Lock files, semaphores, events or barriers. Without PATH and --id, all semaphores of --id
    /// are shown
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The semaphore NAME in the user's runtime directory
    #[arg(long, value_name = "NAME")]
    id: Vec<std::ffi::OsString>,
}

/// The status of a path, which is printed as given.
struct PathStatus {
    path: PathBuf,
    status: Status,
}

/// The interval of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &StatusArgs) -> Outcome {
    let mut paths = arguments.paths.clone();
    for name in &arguments.id {
        paths.push(crate::id::path(name)?);
    }
    if paths.is_empty() {
        for name in crate::id::names() {
            paths.push(crate::id::path(name.as_ref())?);
        }
    }
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(command_line::usage("status", "PATH is empty"));
    }
    crate::signals::end_on_signals()?;
    if arguments.quiet {
        let (seen, failed) = inspect_all(&paths);
        return failed.map_or_else(|| Ok(summary(&seen)), Err);
    }
    let redraws =
        arguments.watch && !arguments.json && std::io::IsTerminal::is_terminal(&std::io::stdout());
    let mut last = Vec::new();
    loop {
        let (seen, failed) = inspect_all(&paths);
        let statuses: Vec<_> = seen.iter().map(|seen| seen.status.clone()).collect();
        if arguments.watch && !redraws && !last.is_empty() && last == statuses {
            if output::is_reader_gone() {
                return Ok(Exit::Other(128 + 13));
            }
            std::thread::sleep(WATCH_INTERVAL);
            continue;
        }
        last = statuses;
        let mut text = String::new();
        if redraws {
            text.push_str("\x1b[H"); // without erasing the screen, which would flicker
            for line in as_text(&seen).lines() {
                let _ = writeln!(text, "{line}\x1b[K");
            }
            text.push_str("\x1b[J");
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
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// The exit code of `-q`.
fn summary(all: &[PathStatus]) -> Exit {
    let mut statuses = all.iter().map(|seen| &seen.status);
    if statuses.clone().any(Status::is_held) {
        Exit::Success
    } else if statuses.any(|status| status.kind() != StatusKind::Missing) {
        Exit::No
    } else {
        Exit::Other(2)
    }
}

/// The status of each path that can be inspected, and the first failure. Further failures are
/// printed.
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
        // `Once`, `SharedFile` and `Event::consume` lock a file beside the path.
        let mut sidecar = path.as_os_str().to_os_string();
        sidecar.push(".flock");
        if Path::new(&sidecar).is_file() {
            add(Path::new(&sidecar));
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
                writeln!(text, "{path}: does not exist")
            }
            (StatusKind::Semaphore, _) => write_semaphore(&mut text, &path, status),
            (StatusKind::Barrier, _) => write_barrier(&mut text, &path, status),
            _ if status.is_held() => write_held(&mut text, &path, status),
            _ if !status.is_set() => {
                writeln!(text, "{path}: free (the process that announced the event has ended)")
            }
            (_, 0) => writeln!(text, "{path}: free"),
            (_, 1) => writeln!(text, "{path}: free, 1 byte"),
            (_, bytes) => writeln!(text, "{path}: free, {bytes} bytes"),
        };
    }
    text
}

fn write_held(text: &mut String, path: &str, status: &Status) -> std::fmt::Result {
    match status.holders() {
        [] => writeln!(text, "{path}: held by an unknown process"),
        [holder] if !holder.is_shared() => writeln!(text, "{path}: held by {}", describe(holder)),
        holders => {
            let plural = if holders.len() == 1 { "" } else { "es" };
            writeln!(text, "{path}: shared by {} process{plural}", holders.len())?;
            holders.iter().try_for_each(|holder| writeln!(text, "  {}", describe(holder)))
        }
    }
}

fn write_semaphore(text: &mut String, path: &str, status: &Status) -> std::fmt::Result {
    let (permits, held) = (status.capacity().unwrap_or_default(), status.held_slots());
    let row: String =
        (0..permits).map(|slot| if held.contains(&slot) { '#' } else { '.' }).collect();
    writeln!(text, "{path}: {} of {permits} permits held [{row}]", held.len())?;
    write_slots(text, "slot", status)
}

fn write_barrier(text: &mut String, path: &str, status: &Status) -> std::fmt::Result {
    let (count, arrived) = (status.capacity().unwrap_or_default(), status.held_slots().len());
    if status.is_broken() {
        return writeln!(text, "{path}: broken, a barrier for {count} participants");
    }
    writeln!(text, "{path}: {arrived} of {count} participants have arrived")?;
    write_slots(text, "participant", status)
}

/// Writes a line for each slot that is held, or for each participant that has arrived.
fn write_slots(text: &mut String, name: &str, status: &Status) -> std::fmt::Result {
    status.held_slots().iter().try_for_each(|slot| {
        let holder = status.holders().iter().find(|holder| holder.slot() == Some(*slot));
        let who = holder.map_or("unknown process".to_string(), describe);
        writeln!(text, "  {name} {slot}: {who}")
    })
}

/// The time if it has a date: humantime panics for times that it cannot represent.
fn date(time: SystemTime) -> Option<SystemTime> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_10000).then_some(time)
}

fn describe(holder: &Holder) -> String {
    let mut text = holder_text::with_job(format!("{holder:#}"), holder);
    if let Some(label) = holder.label() {
        let _ = write!(text, ", \"{label}\"");
    }
    if let Some(held) = holder_text::held_for(holder) {
        let _ = write!(text, ", for {}", holder_text::coarse(held));
    }
    printable(&text)
}

// -------------------------------------------------------------------------------------------- JSON

/// The same JSON, with all characters escaped that could control a terminal. serde_json escapes
/// only those up to U+001F.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if is_printable(character) {
            out.push(character);
        } else {
            let _ = write!(out, "\\u{:04x}", u32::from(character)); // all are at most U+FFFF
        }
    }
    out
}

fn as_json(PathStatus { path, status }: &PathStatus) -> Value {
    let holders: Value = status.holders().iter().map(holder_as_json).collect();
    let (path, is_held) = (path.to_string_lossy(), status.is_held());
    match (status.kind(), status.capacity()) {
        (StatusKind::Missing, _) => json!({
            "version": 1, "path": path, "kind": "missing", "held": false, "set": false, "holders": holders,
        }),
        (StatusKind::Barrier, participants) => json!({
            "version": 1, "path": path, "kind": "barrier", "held": is_held, "participants": participants,
            "arrived": status.held_slots().len(), "broken": status.is_broken(),
            "holders": holders,
        }),
        (_, Some(permits)) => json!({
            "version": 1, "path": path, "kind": "semaphore", "held": is_held, "permits": permits,
            "available": u64::from(permits).saturating_sub(status.held_slots().len() as u64),
            "slots": status.held_slots(), "holders": holders,
        }),
        _ => {
            // Whether an unknown holder shares the lock is unknown.
            let is_unknown = is_held && status.holders().is_empty();
            let is_shared = status.holders().iter().any(Holder::is_shared);
            json!({
                "version": 1, "path": path, "kind": "file", "held": is_held, "set": status.is_set(),
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
        fn escaped_json_has_the_same_value_and_is_printable(text in any::<String>()) {
            limit!();
            let text = format!("{text}\u{9b}\u{202e}\u{7f}");
            let shown = escaped(&json!({ "path": text }).to_string());
            prop_assert!(shown.chars().all(crate::exit::is_printable));
            let read: Value = serde_json::from_str(&shown).unwrap();
            prop_assert_eq!(read["path"].as_str(), Some(&*text));
        }

        #[test]
        fn any_time_can_be_formatted(seconds in any::<u64>()) {
            limit!();
            let Some(time) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) else { return Ok(()) };
            if let Some(time) = date(time) {
                prop_assert!(!humantime::format_rfc3339_millis(time).to_string().is_empty());
            }
        }
    }
}
