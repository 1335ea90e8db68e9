//! The events of directories: which waiter each of them wakes, and the thread that calls notify.

mod listener;
mod registry;
mod watcher;

pub(super) use self::listener::DirListener;
pub(crate) use self::registry::WatchTarget;
pub(crate) use self::watcher::is_watchable;
