//! Random choices that a seed repeats. Each purpose has its own generator, so that no choice
//! depends on timing.

use std::time::Duration;

pub(crate) struct Rng(fastrand::Rng);

impl Rng {
    /// Returns the generator for a purpose, such as one round of one thread.
    pub(crate) fn for_purpose(seed: u64, purpose: &[u64]) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        for part in purpose {
            rng = fastrand::Rng::with_seed(rng.u64(..) ^ part);
        }
        Self(rng)
    }

    /// Returns a separate generator for a closure.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    /// Returns a number from zero to `end - 1`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end.max(1))
    }

    /// Returns true with a probability of one in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Returns one element of a slice that is not empty.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.0.usize(..from.len())]
    }

    /// Returns a duration of less than `end` microseconds.
    pub(crate) fn micros(&mut self, end: u64) -> Duration {
        Duration::from_micros(self.below(end))
    }

    /// Returns a duration below 10 us as often as one below 100 us, 1 ms or 10 ms, so that some end
    /// in each system call.
    pub(crate) fn any_scale(&mut self) -> Duration {
        let scale = self.pick(&[10, 100, 1000, 10_000]);
        self.micros(scale)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}
