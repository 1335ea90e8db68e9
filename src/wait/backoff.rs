//! When to try again where nobody tells: 1 to 50 ms, growing, with jitter so that those who were refused
//! together do not come back together.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use super::deadline::now;

const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);
const QUICK: Duration = Duration::from_micros(100);
/// Longer than any interval that makes sense, and short enough that any clock can show it.
const ABSURD: Duration = Duration::from_secs(24 * 3600);

/// The rhythm of one waiter that polls.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
    longest: Duration,
    has_jitter: bool,
    next: Instant,
    random: u64,
}

impl Backoff {
    /// With `every`, always that long and without jitter: the user has said what they want.
    pub(super) fn new(every: Option<Duration>) -> Self {
        let random = RandomState::new().build_hasher().finish() | 1;
        let (pause, longest) = match every {
            Some(every) => (every.min(ABSURD), every.min(ABSURD)),
            None => (FIRST, LONGEST),
        };
        let mut backoff = Self { pause, longest, has_jitter: every.is_none(), next: now(), random };
        backoff.missed();
        backoff
    }

    /// For a wait that has just begun: 0.1 to 1 ms.
    pub(super) fn quick() -> Self {
        let mut backoff = Self::new(None);
        (backoff.pause, backoff.longest) = (QUICK, FIRST);
        backoff.missed();
        backoff
    }

    /// From the shortest pause again, the next time that it is needed.
    pub(super) fn begin(&mut self) {
        if self.has_jitter {
            self.pause = FIRST;
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// A try at `next` was in vain: sets the next one.
    pub(super) fn missed(&mut self) {
        let mut pause = self.pause;
        if self.has_jitter {
            // xorshift; 75 to 125 %
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            pause = pause * 3 / 4 + pause / 256 * u32::from(self.random.to_be_bytes()[0] / 2);
        }
        self.next = now().checked_add(pause).unwrap_or_else(now);
        self.pause = self.pause.saturating_mul(2).min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_fifty_milliseconds_within_a_quarter() {
        limit!();
        let mut backoff = Backoff::new(None);
        for round in 0..100 {
            let planned = backoff.pause;
            let before = now();
            backoff.missed();
            let pause = backoff.next - before;
            assert!(pause >= planned * 74 / 100, "{round}: {pause:?} of {planned:?}");
            assert!(backoff.pause <= LONGEST);
        }
        assert_eq!(backoff.pause, LONGEST);
    }

    #[test]
    fn keeps_the_interval_that_was_asked_for() {
        limit!();
        let mut backoff = Backoff::new(Some(Duration::from_secs(7)));
        let before = now();
        backoff.missed();
        assert!(backoff.next - before >= Duration::from_secs(7));
        assert_eq!(backoff.pause, Duration::from_secs(7));
        let absurd = Backoff::new(Some(Duration::MAX));
        assert!(absurd.next - before >= ABSURD);
    }
}
