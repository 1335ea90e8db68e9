//! The options of all verbs that wait: how long they wait, and what they print while waiting.

use std::time::{Duration, Instant};

use clap::Args;

use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::{deadlock, live_line};

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgs {
    /// Fail immediately instead of waiting
    #[arg(short = 'n', long = "nonblock", visible_aliases = ["nb", "nonblocking"], conflicts_with = "seconds")]
    pub(crate) now: bool,

    /// Wait at most SECS: a number such as 10 or 0.5, or one with units, such as 500ms or 1m30s
    #[arg(
        short = 'w',
        long = "timeout",
        value_name = "SECS",
        value_parser = crate::duration::parse,
        allow_negative_numbers = true
    )]
    pub(crate) seconds: Option<Duration>,

    /// Exit with CODE if the wait times out, or if -n would have to wait
    #[arg(
        short = 'E',
        long = "conflict-exit-code",
        value_name = "CODE",
        default_value_t = 75,
        value_parser = clap::value_parser!(u8),
        allow_negative_numbers = true
    )]
    pub(crate) conflict: u8,

    /// Print the reason for a wait, and then how long it took
    #[arg(short = 'v', long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Print nothing while waiting or on a timeout
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// When a wait ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    Never,
    Now,
    At(Instant),
}

impl Limit {
    /// The remaining time, or `None` without a limit.
    pub(crate) fn timeout(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::Now => Some(Duration::ZERO),
            Self::At(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
        }
    }
}

impl WaitArgs {
    /// The limit of a wait that begins now.
    pub(crate) fn limit(&self) -> Limit {
        match self.seconds {
            _ if self.now => Limit::Now,
            None => Limit::Never,
            Some(Duration::ZERO) => Limit::Now,
            // The parser accepts at most a hundred years, which every clock can represent.
            Some(timeout) => Instant::now().checked_add(timeout).map_or(Limit::Never, Limit::At),
        }
    }

    /// The progress of a wait for `subject`, as the user typed it, which begins now.
    pub(crate) fn progress(&self, subject: &str) -> Progress {
        Progress::new(subject, self.seconds, self.quiet, self.verbose)
    }

    /// Tries once or waits, as these options say. With `-v`, the first attempt does not wait, and
    /// the reason of its failure is printed.
    pub(crate) fn run<T>(
        &self,
        progress: &Progress,
        limit: Limit,
        mut attempt: impl FnMut(Limit) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut result = None;
        if self.verbose && !matches!(limit, Limit::Now) {
            match attempt(Limit::Now) {
                Err(failure) if failure.is_not_in_time() => progress.would_block(&failure),
                other => result = Some(other),
            }
        }
        let result = result.unwrap_or_else(|| attempt(limit));
        self.ended(limit, result)
    }

    /// The same for a lock that an ancestor may hold. The first attempt does not wait.
    pub(crate) fn run_unless_deadlock<T>(
        &self,
        progress: &Progress,
        limit: Limit,
        is_shared: bool,
        mut attempt: impl FnMut(Limit) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let result = match attempt(Limit::Now) {
            Err(failure) if failure.is_not_in_time() => {
                let ancestors = deadlock::ancestors(failure.holders());
                if !ancestors.is_empty() {
                    // A lock that the ancestor shares does not permit a command to change anything.
                    let is_reentrant = is_shared || ancestors.iter().any(|held| !held.is_shared());
                    return Err(deadlock::failure(&ancestors, is_reentrant));
                }
                if matches!(limit, Limit::Now) {
                    Err(failure)
                } else {
                    progress.would_block(&failure);
                    attempt(limit)
                }
            }
            result => result,
        };
        self.ended(limit, result)
    }

    fn ended<T>(&self, limit: Limit, result: Result<T, Failure>) -> Result<T, Failure> {
        drop(live_line::erase());
        result.map_err(|failure| match limit {
            Limit::Now => self.adjust(failure),
            _ => self.adjust(failure.after_a_wait()),
        })
    }

    /// Applies `-E` and `-q` to a failure.
    pub(crate) fn adjust(&self, mut failure: Failure) -> Failure {
        if failure.is_not_in_time() {
            if self.quiet {
                failure = failure.silent();
            }
            failure.exit = match self.conflict {
                75 => Exit::NotInTime,
                code => Exit::Other(code.into()),
            };
        }
        failure
    }
}
