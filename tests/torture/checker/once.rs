//! Checks the results of calls on the `Once`.

use std::collections::HashMap;

use super::{Checker, State};
use crate::primitives::PRIMITIVES;
use crate::record::Record;

#[derive(Debug, Default)]
pub(super) struct OnceState {
    /// The record of the last certain reset, and whether it may have been done since.
    reset_at: u64,
    pub(super) may_be_done: bool,
    pub(super) last_effect: u64,
    /// Whether it was reset since the last effect.
    pub(super) was_reset: bool,
    pub(super) resetting: HashMap<(u32, u32), u64>,
}

impl Checker {
    /// Checks a call that returned that it was already done.
    pub(super) fn check_done(&mut self, record: Record, requested_at: u64, before: State) {
        if PRIMITIVES[record.primitive].is_tampered_with || record.a == 1 {
            return;
        }
        let was_waiting = matches!(before, State::Waits { .. });
        let once = &self.once;
        if was_waiting && !once.may_be_done && once.reset_at < requested_at {
            self.violation(&format!(
                "returned that it is done, but it was not: {record:?} {once:?}"
            ));
        }
    }

    pub(super) fn check_reset(&mut self, record: Record) {
        if PRIMITIVES[record.primitive].is_tampered_with {
            return;
        }
        let start = self.once.resetting.remove(&(record.worker, record.thread));
        if start.is_some_and(|start| start > self.once.last_effect) {
            self.once.may_be_done = false;
            self.once.reset_at = self.record_count;
            if record.a == 1 && std::mem::replace(&mut self.once.was_reset, true) {
                self.violation(&format!("reset twice: {record:?}"));
            }
        }
    }
}
