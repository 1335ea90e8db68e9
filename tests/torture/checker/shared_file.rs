//! Checks that each reader of the shared file finds what the last writer left.

use super::Checker;
use crate::primitives::{PRIMITIVES, PrimitiveKind};
use crate::record::Record;

/// The last recorded change, until a reader has found it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) by: (u32, u32, u32),
    pub(super) to: u64,
    pub(super) has_returned: bool,
}

#[derive(Debug, Default)]
pub(super) struct Contents {
    current: u64,
    pub(super) change: Option<Change>,
    /// Changes that the next reader did not find: they must not be reported as successful.
    lost: Vec<u64>,
}

impl Checker {
    /// Checks the contents that were read under the lock.
    pub(super) fn check_contents(&mut self, record: Record) {
        if PRIMITIVES[record.primitive].is_tampered_with {
            return;
        }
        let found = record.b;
        let contents = &mut self.contents;
        let Some(change) = contents.change.take() else {
            if found != contents.current {
                let words = format!("found {found:x}, which no change has written: {contents:x?}");
                self.violation(&words);
                self.contents.current = found;
            }
            return;
        };
        if found == change.to {
            contents.current = found;
            return;
        }
        let words = format!("found {found:x}, neither {:x} nor {change:x?}", contents.current);
        let is_lost = found != contents.current || change.has_returned;
        contents.lost.push(change.to);
        contents.current = found;
        if is_lost {
            self.violation(&words);
        }
    }

    pub(super) fn changed(&mut self, record: Record) {
        if PRIMITIVES[record.primitive].is_tampered_with {
            return;
        }
        let contents = &mut self.contents;
        if contents.lost.contains(&record.b) {
            self.violation(&format!("a change was lost: {record:?}"));
        } else if let Some(change) = contents.change.as_mut().filter(|change| change.to == record.b)
        {
            change.has_returned = true;
        }
    }

    /// A failed change leaves the old contents.
    pub(super) fn failed(&mut self, record: Record) {
        let by = (record.worker, record.thread, record.generation);
        if PRIMITIVES[record.primitive].kind == PrimitiveKind::SharedFile
            && !PRIMITIVES[record.primitive].is_tampered_with
        {
            self.contents.change.take_if(|change| change.by == by && !change.has_returned);
        }
    }
}
