//! Waiting on systems without inotify. The baseline polls every millisecond, and the state of a
//! waiting process is unknown.

use std::path::Path;
use std::time::Duration;

use crate::common::bare::Stat;

/// The name of the baseline [`await_file`].
pub(crate) const BARE: &str = "a poll every 1 ms, the baseline here";

/// Has nothing to close.
pub(crate) struct Reader;

pub(crate) fn await_file(stat: &Stat, _directory: &Path) -> Reader {
    while !stat.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Reader
}

/// Always returns false, so the caller waits for a fixed time.
pub(crate) fn watches(_process: u32, _directory: &Path) -> bool {
    false
}

pub(crate) fn is_asleep(_process: u32) -> bool {
    true
}

pub(crate) fn switches(_process: u32) -> usize {
    unreachable!("called on Linux only")
}

pub(crate) fn resident() -> usize {
    unreachable!("called on Linux only")
}
