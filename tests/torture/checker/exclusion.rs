//! Checks which threads are inside at the same time, and how many permits are held.

use super::Checker;
use crate::operations::EXCLUSIVE;
use crate::primitives::{ELASTIC_CAPACITY, PRIMITIVES, PrimitiveKind};
use crate::record::Record;

/// A thread that is inside a primitive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) worker: u32,
    pub(super) thread: u32,
    /// Exclusive or shared, or the set of slots.
    access: u64,
}

impl Checker {
    pub(super) fn enter(&mut self, record: Record) {
        let Record { worker, thread, primitive, a: access, .. } = record;
        if PRIMITIVES[primitive].is_tampered_with {
            return;
        }
        let is_beyond = match PRIMITIVES[primitive].kind {
            PrimitiveKind::Semaphore(permits) => access >> permits != 0,
            PrimitiveKind::Elastic => access >> ELASTIC_CAPACITY.end() != 0,
            _ => false,
        };
        if is_beyond
            || (access == 0 && matches!(PRIMITIVES[primitive].kind, PrimitiveKind::Semaphore(_)))
        {
            self.violation(&format!("a slot that does not exist: {record:?}"));
        }
        let is_shared = |access: u64| match PRIMITIVES[primitive].kind {
            PrimitiveKind::Semaphore(_) | PrimitiveKind::Elastic => false,
            _ => access != EXCLUSIVE,
        };
        let conflicts = |holder: &Holder| match PRIMITIVES[primitive].kind {
            PrimitiveKind::Semaphore(_) | PrimitiveKind::Elastic => holder.access & access != 0,
            _ => !(is_shared(holder.access) && is_shared(access)),
        };
        let overlapping: Vec<Holder> =
            self.holders[primitive].iter().copied().filter(conflicts).collect();
        for holder in overlapping {
            let words = format!(
                "{}: {worker}.{thread} entered while {}.{} was inside",
                PRIMITIVES[primitive].path, holder.worker, holder.thread
            );
            let other = &mut self.processes[holder.worker as usize];
            if other.is_ending {
                other.must_have_ended = Some(words);
                let is_that = |c: &Holder| c.worker == holder.worker && c.thread == holder.thread;
                self.holders[primitive].retain(|holder| !is_that(holder));
            } else {
                self.violation(&words);
            }
        }
        self.holders[primitive].push(Holder { worker, thread, access });
        if PRIMITIVES[primitive].kind == PrimitiveKind::Elastic {
            self.check_capacity(record);
        }
    }

    /// Checks that no more permits are held than the largest capacity since the caller requested
    /// its permit. Callers that were granted permits later also requested them later, so this check
    /// applies to them as well.
    fn check_capacity(&mut self, record: Record) {
        let Record { worker, thread, primitive, .. } = record;
        let largest = self.processes[worker as usize].actors[thread as usize].largest_capacity;
        let is_ending = |holder: &&Holder| self.processes[holder.worker as usize].is_ending;
        let count = |holders: &mut dyn Iterator<Item = &Holder>| -> u32 {
            holders.map(|holder| holder.access.count_ones()).sum()
        };
        let holders = &self.holders[primitive];
        let held = count(&mut holders.iter());
        let held_by_running = count(&mut holders.iter().filter(|holder| !is_ending(holder)));
        let words = format!(
            "{}: {worker}.{thread} was granted a permit, and {held} of {largest} were held",
            PRIMITIVES[primitive].path
        );
        if held_by_running > largest {
            self.violation(&words);
        } else if held > largest {
            let mut condemned: Vec<u32> =
                holders.iter().filter(is_ending).map(|holder| holder.worker).collect();
            condemned.dedup();
            // If several processes are ending, it is unknown which of them has ended.
            if let [one] = condemned[..] {
                self.processes[one as usize].must_have_ended = Some(words);
                self.holders[primitive].retain(|holder| holder.worker != one);
            }
        }
    }

    pub(super) fn downgrade(&mut self, record: Record) {
        for holder in &mut self.holders[record.primitive] {
            if holder.worker == record.worker && holder.thread == record.thread {
                holder.access = 0;
            }
        }
    }
}
