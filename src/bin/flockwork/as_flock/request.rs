//! A valid command line of flock(1): what to lock, how long to wait, and what to run.

use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Exclusive,
    Unlock,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum LockTarget {
    Path(OsString),
    Descriptor(i32),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum JobSource {
    Words(Vec<OsString>),
    Shell(OsString),
}

/// The bytes to lock with fcntl(2). Without a range, flock(2) locks the whole file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: i64,
    /// Zero locks up to the end of the file, however long it grows.
    pub(super) length: i64,
}

/// The contents of a valid command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) mode: Mode,
    pub(super) wait: Wait,
    pub(super) conflict: i32,
    pub(super) close: bool,
    pub(super) no_fork: bool,
    pub(super) verbose: bool,
    pub(super) range: Option<Range>,
    pub(super) target: LockTarget,
    pub(super) job: Option<JobSource>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Forever,
    Never,
    Until(Duration),
    /// A time that no timer can be set to, which flock(1) reports after it has opened the file.
    Impossible,
}
