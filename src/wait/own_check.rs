//! When a queued waiter checks on its own what it waits for, since the waiter ahead may have been
//! stopped by SIGSTOP (rules R3 and S8).

use std::time::{Duration, Instant};

use super::deadline::now;

const INTERVAL: Duration = Duration::from_secs(1);
/// A waiter at the front that runs has acquired what is free after this.
const CONFIRMATION: Duration = Duration::from_millis(3);

/// The checks of one waiter: each second; and if what it waits for is free then, it must be free a
/// few milliseconds later as well.
pub(crate) struct OwnCheck {
    at: Instant,
    /// For tests: another interval.
    interval: Option<Duration>,
    /// Whether the last check found it free.
    was_free: bool,
}

impl OwnCheck {
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        Self { at: after(interval), interval, was_free: false }
    }

    /// The time of the next check.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn is_due(&self) -> bool {
        self.at <= now()
    }

    /// Whether the waiter may keep what this check has found free. Sets the time of the next check.
    pub(crate) fn confirms(&mut self, is_free: bool) -> bool {
        let is_confirmed = is_free && self.was_free;
        self.was_free = is_free && !is_confirmed;
        self.at = if self.was_free { now() + CONFIRMATION } else { after(self.interval) };
        is_confirmed
    }
}

fn after(interval: Option<Duration>) -> Instant {
    let now = now();
    now.checked_add(interval.unwrap_or(INTERVAL)).unwrap_or(now + INTERVAL)
}
