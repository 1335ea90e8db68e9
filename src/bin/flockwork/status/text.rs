//! The status as text.

use std::fmt::Write as _;

use flockwork::StatusKind;

use super::process::Process;
use super::{PathStatus, Sidecar};
use crate::exit::printable;
use crate::wait_text::elided;

pub(super) fn of_all(all: &[PathStatus]) -> String {
    all.iter().map(|seen| of(seen, usize::MAX)).collect()
}

/// The text for a terminal with this many columns, of which a path takes at most a third.
pub(super) fn for_columns(all: &[PathStatus], columns: usize) -> String {
    all.iter().map(|seen| of(seen, columns / 3)).collect()
}

fn of(seen: &PathStatus, path_columns: usize) -> String {
    let path = elided(&printable(&seen.path.display().to_string()), path_columns);
    let mut text = format!("{path}: ");
    // Writing to a string cannot fail.
    let _ = write_state(&mut text, seen);
    for holder in seen.all_lost() {
        let slot = holder.slot.map(|slot| format!("slot {slot}, ")).unwrap_or_default();
        let _ = writeln!(text, "  {slot}lost by {}", holder.text_of_lost());
    }
    for (place, waiter) in seen.all_waiters().enumerate() {
        let _ = writeln!(text, "  waiting {}: {}", place + 1, waiter.text());
    }
    for holder in &seen.removed {
        let _ = writeln!(text, "  a removed file of that name is held by {}", holder.text());
    }
    text
}

fn write_state(text: &mut String, seen: &PathStatus) -> std::fmt::Result {
    let status = &seen.status;
    match (status.kind(), &seen.sidecar) {
        (StatusKind::Semaphore, _) => write_semaphore(text, seen),
        (StatusKind::Barrier, _) => write_barrier(text, seen),
        _ if seen.is_held() => write_held(text, "held by", &seen.holders, "shared by"),
        (_, Some(sidecar)) if sidecar.is_data_file => write_data_file(text, seen, sidecar),
        (_, Some(sidecar)) => write_once(text, seen, sidecar),
        (StatusKind::Missing, None) => writeln!(text, "does not exist"),
        _ if !status.is_set() => {
            writeln!(text, "free (the process that announced the event has ended)")
        }
        _ => writeln!(text, "free{}", length(", ", seen)),
    }
}

/// The length of a file that is not empty, after `separator`.
fn length(separator: &str, seen: &PathStatus) -> String {
    match seen.status.payload_len().unwrap_or_default() {
        0 => String::new(),
        1 => format!("{separator}1 byte"),
        bytes => format!("{separator}{bytes} bytes"),
    }
}

fn write_held(
    text: &mut String,
    held_by: &str,
    holders: &[Process],
    shared_by: &str,
) -> std::fmt::Result {
    match holders {
        [] => writeln!(text, "{held_by} an unknown process"),
        [holder] if !holder.is_shared => writeln!(text, "{held_by} {}", holder.text()),
        [holder] => writeln!(text, "{shared_by} 1 process\n  {}", holder.text()),
        holders => {
            writeln!(text, "{shared_by} {} processes", holders.len())?;
            holders.iter().try_for_each(|holder| writeln!(text, "  {}", holder.text()))
        }
    }
}

/// The marker of `once`, or an event that is consumed: both have the same files.
fn write_once(text: &mut String, seen: &PathStatus, sidecar: &Sidecar) -> std::fmt::Result {
    if sidecar.is_held {
        return write_held(text, "not done, run by", &sidecar.holders, "not done, run by");
    }
    if seen.status.is_done() {
        writeln!(text, "done (as an event: set{})", length(", ", seen))
    } else {
        writeln!(text, "not done (as an event: cleared)")
    }
}

fn write_data_file(text: &mut String, seen: &PathStatus, sidecar: &Sidecar) -> std::fmt::Result {
    if sidecar.is_held {
        return write_held(text, "updated by", &sidecar.holders, "read by");
    }
    match seen.status.kind() {
        StatusKind::Missing => writeln!(text, "does not exist"),
        _ => writeln!(text, "free{}", length(", ", seen)),
    }
}

fn write_semaphore(text: &mut String, seen: &PathStatus) -> std::fmt::Result {
    let (permits, held) = (seen.status.capacity().unwrap_or_default(), seen.status.held_slots());
    if permits == 0 {
        let plural = if held.len() == 1 { "" } else { "s" };
        writeln!(text, "paused, {} permit{plural} held", held.len())?;
    } else {
        let row: String =
            (0..permits).map(|slot| if held.contains(&slot) { '#' } else { '.' }).collect();
        writeln!(text, "{} of {permits} permits held [{row}]", held.len())?;
    }
    write_slots(text, "slot", seen)
}

fn write_barrier(text: &mut String, seen: &PathStatus) -> std::fmt::Result {
    let status = &seen.status;
    let (count, arrived) = (status.capacity().unwrap_or_default(), status.held_slots().len());
    if status.is_broken() {
        return writeln!(text, "broken, a barrier for {count} participants");
    }
    writeln!(text, "{arrived} of {count} participants have arrived")?;
    write_slots(text, "participant", seen)
}

/// Writes a line for each process that holds slots, or for each participant that has arrived.
fn write_slots(text: &mut String, name: &str, seen: &PathStatus) -> std::fmt::Result {
    let mut groups: Vec<(Vec<u32>, Option<&Process>)> = Vec::new();
    for slot in seen.status.held_slots() {
        let holder = seen.holders.iter().find(|holder| holder.slot == Some(*slot));
        let is_same = |other: Option<&Process>| {
            holder.zip(other).is_some_and(|(one, other)| one.is_same_holder(other))
        };
        match groups.iter_mut().find(|(_, other)| is_same(*other)) {
            Some((slots, _)) => slots.push(*slot),
            None => groups.push((vec![*slot], holder)),
        }
    }
    groups.iter().try_for_each(|(slots, holder)| {
        let plural = if slots.len() == 1 { "" } else { "s" };
        let slots: Vec<_> = slots.iter().map(ToString::to_string).collect();
        let who = holder.map_or("unknown process".to_string(), Process::text);
        writeln!(text, "  {name}{plural} {}: {who}", slots.join(", "))
    })
}
