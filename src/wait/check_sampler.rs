//! Decides when to repeat a check that costs more than the operation that it guards.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys;

/// Decides when to repeat such a check: each time for occasional callers, and now and then for a
/// caller in a tight loop.
#[derive(Debug)]
pub(crate) struct CheckSampler {
    millisecond: AtomicU64,
    count: AtomicU32,
}

impl CheckSampler {
    /// The first checks in one tick of the coarse clock (1 to 10 ms) are all due: no caller that
    /// does any work between two calls returns this often within a tick.
    const ALL: u32 = 8;
    /// Of the further checks in the tick, one in this many is due.
    const ONE_IN: u32 = 64;

    pub(crate) const fn new() -> Self {
        Self { millisecond: AtomicU64::new(u64::MAX), count: AtomicU32::new(0) }
    }

    /// Whether the check is due. Threads that call this at the same time may miscount, which makes
    /// little difference.
    pub(crate) fn is_due(&self) -> bool {
        let millisecond = sys::coarse_milliseconds();
        let mut count = self.count.load(Ordering::Relaxed);
        if self.millisecond.load(Ordering::Relaxed) != millisecond {
            self.millisecond.store(millisecond, Ordering::Relaxed);
            count = 0;
        }
        self.count.store(count.wrapping_add(1), Ordering::Relaxed);
        count < Self::ALL || count % Self::ONE_IN == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::deadline::now;
    use super::*;

    #[test]
    fn the_first_checks_in_a_tick_are_due_and_few_of_the_rest() {
        limit!();
        let sampler = CheckSampler::new();
        assert!((0..CheckSampler::ALL).all(|_| sampler.is_due()));
        let start = now();
        let due = (0..100_000).filter(|_| sampler.is_due()).count();
        // In each tick (at least one, at most one a millisecond) the first eight checks are due.
        let ticks = usize::try_from(start.elapsed().as_millis()).unwrap() + 2;
        assert!(due >= 100_000 / 64, "{due}");
        assert!(due <= 100_000 / 64 + 9 * ticks, "{due} in {ticks} ticks");
    }
}
