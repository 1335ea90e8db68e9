//! The events of directories: which waiter wants to be woken by which of them, and the thread that talks to notify.

mod listener;
mod registry;
mod watcher;

pub(super) use self::listener::DirListener;
pub(crate) use self::registry::WatchTarget;
pub(crate) use self::watcher::is_watchable;
