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

    /// How long a wait has lasted whose deadline has passed when it arrives. Without a timeout it
    /// has not waited. A helper thread may arrive late at a wait that its caller has begun.
    pub(crate) fn waited_if_over(self) -> Option<Duration> {
        let now = Instant::now();
        let at = self.at.filter(|at| *at <= now)?;
        Some(self.since.filter(|since| *since < at).map_or(Duration::ZERO, |since| now - since))
    }

    pub(crate) fn instant(self) -> Option<Instant> {
        self.at
    }

    /// The same wait, with a deadline that is later.
    pub(super) fn later(self, by: Duration) -> Self {
        Self { at: self.at.and_then(|at| at.checked_add(by)), ..self }
    }

    /// The deadline of a wait that has begun.
    pub(super) fn begun(self) -> Self {
        Self { since: Some(self.start()), ..self }
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
        assert_eq!(Deadline::after(Duration::MAX).waited_if_over(), None);
        assert_eq!(Deadline::after(Duration::from_secs(3600)).waited_if_over(), None);
    }

    #[test]
    fn a_wait_whose_deadline_has_passed_has_lasted_its_timeout() {
        limit!();
        assert_eq!(Deadline::after(Duration::ZERO).waited_if_over(), Some(Duration::ZERO));
        assert_eq!(Deadline::at(Instant::now()).waited_if_over(), Some(Duration::ZERO));
        let deadline = Deadline::after(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(1));
        assert!(deadline.waited_if_over().unwrap() >= Duration::from_millis(1));
        let begun = Deadline::at(Instant::now() + Duration::from_secs(3600)).begun();
        assert!(begun.since.is_some() && begun.waited_if_over().is_none());
    }
}
