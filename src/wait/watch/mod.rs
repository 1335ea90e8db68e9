//! The events of directories: which waiter each of them wakes, and the thread that calls notify.
//! Without the feature `watch` no directory is watched, and all waiters poll.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "watch")]
mod listener;
#[cfg(feature = "watch")]
mod registry;
#[cfg(not(feature = "watch"))]
mod unwatched;
#[cfg(feature = "watch")]
mod watcher;

#[cfg(feature = "watch")]
pub(super) use self::listener::DirListener;
#[cfg(not(feature = "watch"))]
pub(super) use self::unwatched::DirListener;
#[cfg(not(feature = "watch"))]
pub(crate) use self::unwatched::is_watchable;
#[cfg(feature = "watch")]
pub(crate) use self::watcher::is_watchable;

/// The names within a directory whose events are of interest; `None`: all. Events of the directory
/// itself always are.
pub(crate) type Names = Option<Arc<[OsString]>>;

/// The events that one waiter needs.
#[derive(Debug, Clone)]
pub(crate) struct WatchTarget {
    pub(crate) directory: Arc<Path>,
    #[allow(dead_code, reason = "only the feature `watch` needs it")]
    pub(crate) names: Names,
}
