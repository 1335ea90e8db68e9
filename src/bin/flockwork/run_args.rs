//! The options of all verbs that run a command: what they run, and for how long.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Run STRING with the shell ($SHELL, or /bin/sh)
    #[arg(short = 'c', long = "command", value_name = "STRING")]
    pub(crate) shell: Option<OsString>,

    /// End the command after SECS with TERM, and 10 s later with KILL; exit with 124
    #[arg(
        long,
        value_name = "SECS",
        value_parser = crate::duration::parse,
        allow_negative_numbers = true
    )]
    pub(crate) max_run: Option<Duration>,
}
