//! How a verb waits: without limit, not at all, or so long; and what it says of itself meanwhile.

use std::time::{Duration, Instant};

use clap::Args;
use flockwork::Options;

use crate::exit::{Exit, Failure};
use crate::progress::Progress;

/// The options that all verbs that wait have.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Do not wait: fail at once if it cannot be had
    #[arg(short = 'n', long = "nonblock", visible_aliases = ["nb", "nonblocking"], conflicts_with = "seconds")]
    pub(crate) now: bool,

    /// Wait at most so long: seconds with fractions, or with a unit (s, m, h, d)
    #[arg(
        short = 'w',
        long = "timeout",
        value_name = "SECS",
        value_parser = crate::seconds::parse,
        allow_negative_numbers = true
    )]
    pub(crate) seconds: Option<Duration>,

    /// Exit with this code if it could not be had in time
    #[arg(
        short = 'E',
        long = "conflict-exit-code",
        value_name = "CODE",
        default_value_t = 75,
        value_parser = clap::value_parser!(u8),
        allow_negative_numbers = true
    )]
    pub(crate) conflict: u8,

    /// Say what is waited for at once, and how long it took
    #[arg(short = 'v', long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Say nothing while waiting, nor that it could not be had in time
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    Never,
    Now,
    At(Instant),
}

impl Wait {
    /// From now on.
    pub(crate) fn limit(&self) -> Limit {
        match self.seconds {
            _ if self.now => Limit::Now,
            None => Limit::Never,
            Some(Duration::ZERO) => Limit::Now,
            // A hundred years at most: every clock can show that.
            Some(span) => Instant::now().checked_add(span).map_or(Limit::Never, Limit::At),
        }
    }

    /// Adds a line for who looks on, when it has waited a second.
    pub(crate) fn tell(&self, options: Options) -> (Options, Progress) {
        let progress = Progress::new(self.quiet, self.verbose);
        (progress.attach(options), progress)
    }

    /// Takes it in the way that these options say.
    pub(crate) fn take<T>(
        &self,
        progress: &Progress,
        at_once: impl FnOnce() -> flockwork::Result<T>,
        without_limit: impl FnOnce() -> flockwork::Result<T>,
        until: impl FnOnce(Instant) -> flockwork::Result<T>,
    ) -> Result<T, Failure> {
        let limit = self.limit();
        let taken = match limit {
            Limit::Now => at_once(),
            _ if self.verbose => match at_once() {
                Err(refused) if refused.is_would_block() => {
                    progress.refused(&refused);
                    limit.wait(without_limit, until)
                }
                taken => taken,
            },
            _ => limit.wait(without_limit, until),
        };
        progress.clear();
        taken.map_err(|error| self.failed(error))
    }

    /// The failure as these options want it: with their code, and silent if that is asked for.
    pub(crate) fn failed(&self, failure: impl Into<Failure>) -> Failure {
        let mut failure = failure.into();
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

impl Limit {
    fn wait<T>(self, without_limit: impl FnOnce() -> T, until: impl FnOnce(Instant) -> T) -> T {
        match self {
            Self::At(deadline) => until(deadline),
            _ => without_limit(),
        }
    }
}
