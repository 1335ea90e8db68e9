//! What the files of a barrier show to a process that does not take part and opens nothing for
//! writing.

use std::path::Path;
use std::sync::Arc;

use super::MAX_CHANGES;
use super::participants::{Mark, marks_in};
use super::state::{self, Phase, State};
use crate::error::Result;

/// The state of a barrier at one moment.
pub(crate) struct BarrierStatus {
    pub(crate) parties: u32,
    pub(crate) is_broken: bool,
    /// The numbers of the participants that have arrived and wait, in order.
    pub(crate) waiting: Vec<u32>,
}

/// The status of the barrier in `directory`. `None`: there is no barrier. `held` returns which of
/// the participants' files are locked.
pub(crate) fn read_status(
    directory: &Arc<Path>,
    mut held: impl FnMut(&[u32]) -> Result<Vec<u32>>,
) -> Result<Option<BarrierStatus>> {
    let mut changes = 0;
    loop {
        let Some(State { phase, parties, generation }) = state::read(directory)? else {
            return Ok(None);
        };
        let mut status =
            BarrierStatus { parties, is_broken: phase == Phase::Broken, waiting: Vec::new() };
        if status.is_broken {
            return Ok(Some(status));
        }
        let arrived = arrived(&marks_in(directory, parties)?, generation);
        status.waiting = held(&arrived)?;
        if status.waiting.len() == arrived.len() {
            return Ok(Some(status));
        }
        // A participant that no longer holds its file has died, unless the generation has ended in
        // the meantime (rule B4).
        let is_current = state::read(directory)?.is_some_and(|now| now.generation == generation);
        changes += 1;
        if is_current || changes == MAX_CHANGES {
            status.is_broken = is_current;
            status.waiting.clear();
            return Ok(Some(status));
        }
    }
}

/// The numbers of the files whose holders have arrived in the generation, in order.
pub(super) fn arrived(marks: &[Mark], generation: u64) -> Vec<u32> {
    let arrived = marks.iter().filter(|mark| mark.generation == generation);
    let mut numbers: Vec<_> = arrived.map(|mark| mark.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
