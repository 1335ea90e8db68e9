//! Started as `flock`: flock(1) of util-linux.

use std::ffi::OsString;

use crate::exit::Outcome;

pub(crate) fn name(_words: &[OsString]) -> Option<String> {
    None
}
pub(crate) fn run(_name: &str, _words: Vec<OsString>) -> Outcome {
    unreachable!()
}
