//! How long a waiter that polls pauses between tries: 1 to 50 ms, growing, with jitter so that
//! waiters that failed together do not try again together. Where each try costs the server of a
//! network file system several requests, pauses may grow to a second.

use std::time::{Duration, Instant};

use super::deadline::now;
use crate::sys;

const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(50);
const MIN_QUICK_PAUSE: Duration = Duration::from_micros(100);
/// Without a watch on a local file system, pauses are at most this long for a while (jitter makes
/// them up to 10 ms): a check costs a few microseconds there.
const MAX_LOCAL_PAUSE: Duration = Duration::from_millis(8);
/// For how long pauses are at most [`MAX_PAUSE`] on a network file system, after a wait has begun
/// or something has changed.
const QUICK_NETWORK_POLLING: Duration = Duration::from_secs(5);
/// After that, pauses are at most this part of the time in which nothing has happened.
const NETWORK_PART: u32 = 20;
/// The same part at the start of a wait for what another host may hold only for a short time.
const NEW_WAIT_PART: u32 = 8;
const MAX_NETWORK_PAUSE: Duration = Duration::from_secs(1);
/// The same for each request that a try sends to the server, if there are more.
const MAX_PAUSE_PER_REQUEST: Duration = Duration::from_millis(250);
/// Longer intervals are reduced to this, which every platform's `Instant` can represent.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The pauses of one waiter that polls.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
    longest: Duration,
    has_jitter: bool,
    next: Instant,
    random: fastrand::Rng,
}

impl Backoff {
    /// With `every`, each pause has that length and no jitter, since the user chose it.
    pub(super) fn new(every: Option<Duration>) -> Self {
        let (pause, longest) = match every {
            Some(every) => (every.min(MAX_INTERVAL), every.min(MAX_INTERVAL)),
            None => (MIN_PAUSE, MAX_PAUSE),
        };
        let (has_jitter, random) = (every.is_none(), sys::generator());
        let mut backoff = Self { pause, longest, has_jitter, next: now(), random };
        backoff.advance();
        backoff
    }

    /// Pauses of 0.1 to 1 ms, for a wait that has just begun.
    pub(super) fn quick() -> Self {
        let mut backoff = Self::new(None);
        (backoff.pause, backoff.longest) = (MIN_QUICK_PAUSE, MIN_PAUSE);
        backoff.advance();
        backoff
    }

    /// Makes the next pause the shortest one again.
    pub(super) fn reset(&mut self) {
        if self.has_jitter {
            self.pause = MIN_PAUSE;
        }
    }

    /// From now on the pauses are those on a local file system, short ones while `is_new`, or the
    /// long ones.
    pub(super) fn set_local(&mut self, is_new: bool) {
        if self.has_jitter {
            self.longest = if is_new { MAX_LOCAL_PAUSE } else { MAX_PAUSE };
        }
    }

    /// From now on the pauses are those on a network file system where nothing has happened for
    /// `idle`: up to 50 ms in the first 5 seconds, then up to a twentieth of that time, and at most
    /// a second, or a quarter of a second for each of the `requests` that a try sends.
    pub(super) fn set_network(&mut self, idle: Duration, requests: u32) {
        if self.has_jitter {
            self.longest = if idle < QUICK_NETWORK_POLLING {
                MAX_PAUSE
            } else {
                let longest = MAX_NETWORK_PAUSE.max(MAX_PAUSE_PER_REQUEST * requests);
                (idle / NETWORK_PART).min(longest)
            };
            self.pause = self.pause.min(self.longest);
        }
    }

    /// Limits the pauses of [`set_network`](Self::set_network) to an eighth of the time that this
    /// wait has lasted.
    pub(super) fn set_new_wait(&mut self, waited: Duration) {
        if self.has_jitter {
            self.longest = self.longest.min((waited / NEW_WAIT_PART).max(MIN_PAUSE));
            self.pause = self.pause.min(self.longest);
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// The pause before the try after the next one, without jitter.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// Makes the next try due.
    pub(super) fn check_now(&mut self) {
        self.next = now();
    }

    /// Sets the time of the next try, after one that failed.
    pub(super) fn advance(&mut self) {
        let mut pause = self.pause;
        if self.has_jitter {
            pause = pause * self.random.u32(75..=125) / 100;
        }
        self.next = now().checked_add(pause).unwrap_or_else(now);
        self.pause = self.pause.saturating_mul(2).min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_fifty_milliseconds_with_jitter() {
        limit!();
        let mut backoff = Backoff::new(None);
        for round in 0..100 {
            let planned = backoff.pause;
            let before = now();
            backoff.advance();
            let pause = backoff.next - before;
            assert!(pause >= planned * 74 / 100, "{round}: {pause:?} of {planned:?}");
            assert!(backoff.pause <= MAX_PAUSE);
        }
        assert_eq!(backoff.pause, MAX_PAUSE);
    }

    #[test]
    fn local_pauses_are_short_at_first() {
        limit!();
        let mut backoff = Backoff::new(None);
        for _ in 0..100 {
            backoff.set_local(true);
            backoff.advance();
            assert!(backoff.pause <= MAX_LOCAL_PAUSE);
        }
        for _ in 0..100 {
            backoff.set_local(false);
            backoff.advance();
        }
        assert_eq!(backoff.pause, MAX_PAUSE);
        let mut chosen = Backoff::new(Some(Duration::from_secs(7)));
        chosen.set_local(true);
        chosen.advance();
        assert_eq!(chosen.pause, Duration::from_secs(7));
    }

    #[test]
    fn network_pauses_grow_to_a_second_with_the_idle_time() {
        limit!();
        let mut backoff = Backoff::new(None);
        for (idle, requests, longest) in [
            (0, 1, 50),
            (4_999, 100, 50),
            (5_000, 1, 250),
            (10_000, 1, 500),
            (20_000, 100, 1000),
            (3_600_000, 4, 1000),
            (3_600_000, 10, 2500),
            (40_000, 100, 2000),
        ] {
            backoff.set_network(Duration::from_millis(idle), requests);
            for _ in 0..20 {
                backoff.advance();
            }
            assert_eq!(backoff.pause, Duration::from_millis(longest), "{idle}");
        }
        backoff.set_network(Duration::ZERO, 1);
        assert_eq!(backoff.pause, MAX_PAUSE, "something has changed");
    }

    #[test]
    fn network_pauses_of_a_new_wait_are_an_eighth_of_it() {
        limit!();
        let mut backoff = Backoff::new(None);
        for (waited, longest) in [(0, 1), (80, 10), (240, 30), (400, 50), (6_000, 300)] {
            let waited = Duration::from_millis(waited);
            for _ in 0..20 {
                backoff.set_network(waited, 1);
                backoff.set_new_wait(waited);
                backoff.advance();
            }
            assert_eq!(backoff.pause, Duration::from_millis(longest), "{waited:?}");
        }
    }

    #[test]
    fn a_chosen_interval_is_kept() {
        limit!();
        let mut backoff = Backoff::new(Some(Duration::from_secs(7)));
        let before = now();
        backoff.advance();
        assert!(backoff.next - before >= Duration::from_secs(7));
        assert_eq!(backoff.pause, Duration::from_secs(7));
        backoff.set_network(Duration::from_secs(3600), 1);
        backoff.set_new_wait(Duration::ZERO);
        assert_eq!(backoff.pause, Duration::from_secs(7));
        let absurd = Backoff::new(Some(Duration::MAX));
        assert!(absurd.next - before >= MAX_INTERVAL);
    }
}
