//! The part of [`front`](self) for systems that do not show where network file systems are mounted.

use std::ffi::OsString;
use std::time::Duration;

use crate::args::Cli;
use crate::exit::Outcome;

pub(crate) fn run(_cli: &Cli, _words: &[OsString]) -> Option<Outcome> {
    None
}

pub(crate) fn server_timeout() -> Option<Duration> {
    None
}

pub(crate) fn is_behind() -> bool {
    false
}

pub(crate) fn has_waited() {}

#[allow(dead_code, reason = "Windows forwards no signals")]
pub(crate) fn has_forwarded(_signal: i32) {}

pub(crate) fn exits(_code: i32) {}

#[allow(dead_code, reason = "Windows has no signals")]
pub(crate) fn dies(_signal: i32) {}
