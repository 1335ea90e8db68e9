//! Polling of directories on network file systems, which report no changes by other hosts: one
//! thread of a process lists a directory for all its waiters, and one process of a host for all
//! others of the same user.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

mod listener;
mod listing;
mod meeting;
mod poller;
mod registry;

pub(super) use self::listener::PollListener;

/// The names whose presence or absence a waiter waits for.
#[derive(Debug, Clone)]
pub(crate) struct PolledTarget {
    pub(crate) directory: Arc<Path>,
    pub(crate) names: Box<[OsString]>,
    /// Whether it waits until one of the names is absent, instead of present.
    pub(crate) until_absent: bool,
}
