//! Deadlines, and the only place that reads the clock.

#![expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]

use std::time::{Duration, Instant};

/// How long a caller waits. The deadline is computed after the first try has failed: most succeed,
/// and reading the clock takes time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    Never,
    After(Duration),
    At(Instant),
    /// The limit of a wait that has begun.
    By(Deadline),
}

impl Limit {
    /// The same limit for several steps, from now on.
    pub(crate) fn fixed(self) -> Self {
        Self::By(self.deadline())
    }

    /// The time that is left; the greatest one without a limit.
    pub(crate) fn remaining(self) -> Duration {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        self.deadline().instant().map_or(Duration::MAX, left)
    }

    pub(crate) fn deadline(self) -> Deadline {
        match self {
            Self::Never => Deadline::NEVER,
            Self::After(timeout) => Deadline::after(timeout),
            Self::At(instant) => Deadline::at(instant),
            Self::By(deadline) => deadline,
        }
    }
}

/// When a wait gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    /// When the wait began, if that is known: a wait that times out has then lasted at least its
    /// timeout.
    since: Option<Instant>,
}

impl Deadline {
    pub(crate) const NEVER: Self = Self { at: None, since: None };

    /// A timeout that is too large for `Instant` never ends.
    pub(crate) fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        Self { at: now.checked_add(timeout), since: Some(now) }
    }

    pub(crate) fn at(instant: Instant) -> Self {
        Self { at: Some(instant), since: None }
    }

    pub(crate) fn is_never(self) -> bool {
        self.at.is_none()
    }

    pub(crate) fn is_over(self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now())
    }

    pub(crate) fn instant(self) -> Option<Instant> {
        self.at
    }

    /// The same wait, with a deadline that is later.
    pub(super) fn later(self, by: Duration) -> Self {
        Self { at: self.at.and_then(|at| at.checked_add(by)), ..self }
    }

    /// When the wait began.
    pub(super) fn start(self) -> Instant {
        self.since.unwrap_or_else(Instant::now)
    }
}

pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_too_large_for_instant_never_ends() {
        limit!();
        assert!(Deadline::after(Duration::MAX).is_never());
        assert!(!Deadline::after(Duration::MAX).is_over());
        assert!(Deadline::after(Duration::ZERO).is_over());
        assert!(!Deadline::after(Duration::from_secs(3600)).is_over());
    }
}
