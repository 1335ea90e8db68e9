//! A clock that all processes share.

use std::time::Duration;

#[cfg(unix)]
pub(crate) fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.try_into().expect("time since boot")
}

#[cfg(not(unix))]
pub(crate) fn now() -> Duration {
    std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970")
}
