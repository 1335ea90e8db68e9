//! What the feature `tracing` reports: a span for each wait that blocks, and events.

use std::path::Path;

use self::imp::Span;
pub(crate) use self::imp::dead_holder;
#[cfg(feature = "watch")]
pub(crate) use self::imp::unwatched;

/// Whether anything is reported.
pub(crate) const ENABLED: bool = cfg!(feature = "tracing");

/// Why a wait polls instead of being notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PollReason {
    Interval,
    Network,
    Unwatched,
    Unreported,
    NoHelper,
}

impl PollReason {
    fn text(self) -> &'static str {
        match self {
            Self::Interval => "an interval is set with `Options::poll_interval`",
            Self::Network => "a network file system does not report all changes",
            Self::Unwatched => "the directory cannot be watched",
            Self::Unreported => "not every change that it waits for is reported",
            Self::NoHelper => "no helper thread can wait for it",
        }
    }
}

/// The span of one wait. It begins when the first try has failed.
#[derive(Default)]
pub(crate) struct WaitSpan {
    span: Option<Span>,
    /// Why the wait polls, as reported last.
    polls: Option<PollReason>,
}

impl WaitSpan {
    pub(crate) fn begin(&mut self, path: &Path) {
        self.span = Span::begin(path);
    }

    /// Calls `f` within the span, if it has begun.
    pub(crate) fn in_scope<T>(&self, f: impl FnOnce() -> T) -> T {
        match &self.span {
            Some(span) => span.in_scope(f),
            None => f(),
        }
    }

    /// Reports that the wait polls, once for each reason.
    pub(crate) fn polls(&mut self, because: Option<PollReason>) {
        let Some(reason) = because.filter(|_| because != self.polls) else { return };
        self.polls = Some(reason);
        if let Some(span) = &self.span {
            span.polls(reason.text());
        }
    }

    /// Ends the span. A wait that is dropped before has the outcome "given up".
    pub(crate) fn end(&mut self, outcome: &'static str) {
        if let Some(span) = self.span.take() {
            span.end(outcome);
        }
    }
}

impl Drop for WaitSpan {
    fn drop(&mut self) {
        self.end("given up");
    }
}

#[cfg(feature = "tracing")]
mod imp {
    use std::fmt::Display;
    use std::path::Path;

    use tracing::field::Empty;

    pub(super) struct Span(tracing::Span);

    impl Span {
        #[allow(clippy::unnecessary_wraps, reason = "without the feature there is no span")]
        pub(super) fn begin(path: &Path) -> Option<Self> {
            let path = path.display();
            Some(Self(tracing::debug_span!(target: "flockwork", "wait", %path, outcome = Empty)))
        }

        pub(super) fn in_scope<T>(&self, f: impl FnOnce() -> T) -> T {
            self.0.in_scope(f)
        }

        pub(super) fn polls(&self, reason: &'static str) {
            self.in_scope(|| {
                tracing::debug!(target: "flockwork", reason, "polls instead of being notified");
            });
        }

        pub(super) fn end(self, outcome: &'static str) {
            self.0.record("outcome", outcome);
        }
    }

    /// Reports that a holder of `path` died, or was cut off from its file server, without releasing
    /// it.
    pub(crate) fn dead_holder(path: &Path) {
        tracing::warn!(target: "flockwork", path = %path.display(), "found a dead holder");
    }

    /// Reports that waiters for changes of `directory` must poll.
    #[allow(dead_code, reason = "only the feature `watch` needs it")]
    pub(crate) fn unwatched(directory: &Path, error: &dyn Display) {
        let directory = directory.display();
        tracing::debug!(target: "flockwork", %directory, %error, "cannot watch the directory");
    }
}

#[cfg(not(feature = "tracing"))]
mod imp {
    use std::fmt::Display;
    use std::path::Path;

    /// There is no span.
    pub(super) enum Span {}

    impl Span {
        pub(super) fn begin(_path: &Path) -> Option<Self> {
            None
        }

        pub(super) fn in_scope<T>(&self, _f: impl FnOnce() -> T) -> T {
            match *self {}
        }

        pub(super) fn polls(&self, _reason: &'static str) {
            match *self {}
        }

        pub(super) fn end(self, _outcome: &'static str) {
            match self {}
        }
    }

    pub(crate) fn dead_holder(_path: &Path) {}

    #[allow(dead_code, reason = "only the feature `watch` needs it")]
    pub(crate) fn unwatched(_directory: &Path, _error: &dyn Display) {}
}
