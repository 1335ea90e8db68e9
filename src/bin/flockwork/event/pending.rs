//! The events that a wait still waits for, as its progress shows them.

use std::path::PathBuf;

use flockwork::{Event, Options};

use super::open;
use crate::exit::Failure;
use crate::holder_text::quoted_path;

pub(super) struct Pending {
    /// Each event with its path as the user typed it.
    events: Vec<(String, Event)>,
    /// Whether one event is enough.
    is_any: bool,
    until_cleared: bool,
}

impl Pending {
    pub(super) fn open(
        paths: &[PathBuf],
        options: &Options,
        is_any: bool,
        until_cleared: bool,
    ) -> Result<Self, Failure> {
        let open = |path: &PathBuf| Ok((quoted_path(path), open(path, options)?));
        let events = paths.iter().map(open).collect::<Result<_, Failure>>()?;
        Ok(Self { events, is_any, until_cleared })
    }

    /// The first event that is not in the desired state, and the number of the others. `None` if
    /// all are.
    pub(super) fn subject(&self) -> Option<String> {
        let is_pending =
            |event: &Event| event.is_set().map_or(true, |set| set == self.until_cleared);
        let mut pending = self.events.iter().filter(|(_, event)| is_pending(event));
        let (first, _) = pending.next()?;
        let joined = if self.is_any { "or" } else { "and" };
        let others = match pending.count() {
            0 => String::new(),
            1 => format!(" {joined} 1 other"),
            others => format!(" {joined} {others} others"),
        };
        let cleared = if self.until_cleared { " to be cleared" } else { "" };
        Some(format!("{first}{others}{cleared}"))
    }
}
