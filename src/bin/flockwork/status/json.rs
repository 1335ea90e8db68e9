//! The status as JSON. docs/CLI.md describes it.

use std::fmt::Write as _;

use flockwork::StatusKind;
use serde_json::{Value, json};

use super::PathStatus;
use super::process::Process;
use crate::exit::is_printable;

/// The version of the format.
const VERSION: u32 = 1;

/// An array on one line, with all characters escaped that could control a terminal.
pub(super) fn of_all(all: &[PathStatus]) -> String {
    let value: Value = all.iter().map(of).collect();
    format!("{}\n", escaped(&value.to_string()))
}

/// The same JSON. serde_json escapes only the control characters up to U+001F.
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

fn of(seen: &PathStatus) -> Value {
    let status = &seen.status;
    let kind = match status.kind() {
        StatusKind::Missing => "missing",
        StatusKind::Semaphore => "semaphore",
        StatusKind::Barrier => "barrier",
        _ => "file",
    };
    let processes = |all: &[Process]| all.iter().map(Process::json).collect::<Value>();
    let mut value = json!({
        "version": VERSION,
        "path": seen.path.to_string_lossy(),
        "kind": kind,
        "held": seen.is_held(),
        "holders": processes(&seen.holders),
        "waiters": processes(&seen.waiters),
        "removed": processes(&seen.removed),
        "lost": processes(&seen.lost),
    });
    let held = status.held_slots();
    match status.kind() {
        StatusKind::Semaphore => {
            let permits = status.capacity().unwrap_or_default();
            value["permits"] = permits.into();
            value["available"] = u64::from(permits).saturating_sub(held.len() as u64).into();
            value["slots"] = held.into();
        }
        StatusKind::Barrier => {
            value["participants"] = status.capacity().into();
            value["arrived"] = held.len().into();
            value["broken"] = status.is_broken().into();
        }
        kind => {
            value["set"] = status.is_set().into();
            value["done"] = status.is_done().into();
            if kind != StatusKind::Missing {
                value["bytes"] = status.payload_len().into();
                // Whether an unknown holder shares the lock is unknown.
                let is_unknown = seen.is_held() && seen.holders.is_empty();
                let is_shared = seen.holders.iter().any(|holder| holder.is_shared);
                value["shared"] = if is_unknown { Value::Null } else { is_shared.into() };
            }
        }
    }
    value
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
            prop_assert!(shown.chars().all(is_printable));
            let read: Value = serde_json::from_str(&shown).unwrap();
            prop_assert_eq!(read["path"].as_str(), Some(&*text));
        }
    }
}
