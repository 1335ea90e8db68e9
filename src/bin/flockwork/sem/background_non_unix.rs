//! `flockwork sem --bg` on systems other than Unix: a usage error.

use crate::exit::{Failure, Outcome};
use crate::job::Job;

pub(super) fn is_started() -> bool {
    false
}

pub(super) fn start(_job: &Job, _is_quiet: bool) -> Outcome {
    Err(Failure::usage("sem: --bg is not supported on this system")
        .hint("start it in the background with `start /b flockwork sem ...`"))
}

pub(super) const STARTER: &str = "FLOCKWORK_STARTER";

pub(super) struct Starter;

impl Starter {
    pub(super) fn watch() -> Result<Option<Self>, Failure> {
        Ok(None)
    }

    pub(super) fn notify(self) {}
}
