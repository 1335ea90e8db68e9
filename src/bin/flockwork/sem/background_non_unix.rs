//! Jobs in the background on systems other than Unix: a usage error.

use std::ffi::OsString;
use std::fs::File;

use crate::exit::{Failure, Outcome};
use crate::job::Job;

pub(crate) struct CommandLine<'a> {
    pub(crate) program: &'a str,
    pub(crate) words: Vec<OsString>,
    pub(crate) passes_input: bool,
}

impl CommandLine<'_> {
    pub(super) fn own() -> Self {
        Self { program: "flockwork", words: Vec::new(), passes_input: false }
    }
}

pub(crate) fn is_started() -> bool {
    false
}

pub(crate) fn start(_job: &Job, line: CommandLine<'_>, _warns: bool) -> Outcome {
    let _ = (&line.words, line.passes_input);
    let (problem, hint) = match line.program {
        "sem" => ("jobs in the background are not supported on this system", "use --fg"),
        _ => (
            "sem: --bg is not supported on this system",
            "start it in the background with `start /b flockwork sem ...`",
        ),
    };
    Err(Failure::usage(problem).hint(hint))
}

pub(super) const STARTER: &str = "FLOCKWORK_STARTER";

pub(super) struct Starter {
    pub(super) input: Option<File>,
}

impl Starter {
    pub(super) fn watch(_passes_input: bool) -> Result<Option<Self>, Failure> {
        Ok(None)
    }

    pub(super) fn notify(self) {}
}
