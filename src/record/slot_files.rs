//! The names of the numbered lock files: a semaphore's slots and a barrier's participants.

use std::io;
use std::path::Path;

use super::{is_directory, is_gone};
use crate::sys::{self, FileKind};

pub(super) const SLOT_PREFIX: &str = "slot.";
const PARTICIPANT_PREFIX: &str = "participant.";

/// The directory in which each slot has a second name, its number.
pub(crate) const SPARES: &str = ".slots";

/// The name of a semaphore's slot within its directory.
pub(crate) fn slot_name(slot: u32) -> String {
    format!("{SLOT_PREFIX}{slot}")
}

/// The name of the lock file of a barrier's participant within the barrier's directory.
pub(crate) fn participant_name(number: u32) -> String {
    format!("{PARTICIPANT_PREFIX}{number}")
}

/// Whether the directory has participants' files, as only a barrier's directory does.
pub(crate) fn has_participants(directory: &Path) -> io::Result<bool> {
    Ok(sys::file_kind(&directory.join(participant_name(0)))? != FileKind::Nothing)
}

/// The numbers of the slots in a semaphore's directory, in order, from their names and their second
/// names. Other files are ignored.
pub(crate) fn slots_in(directory: &Path) -> io::Result<Vec<u32>> {
    let mut slots = Vec::new();
    let mut list = |directory: &Path, prefix: &str| -> io::Result<()> {
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
    list(directory, SLOT_PREFIX)?;
    let spares = directory.join(SPARES);
    if is_directory(&spares).unwrap_or(false) {
        match list(&spares, "") {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    slots.sort_unstable();
    slots.dedup();
    Ok(slots)
}
