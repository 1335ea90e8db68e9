//! Where there is no inotify: the baseline looks each millisecond, and nothing tells how a process waits.

use std::path::Path;
use std::time::Duration;

use crate::common::bare::Stat;

/// What [`await_file`] is.
pub(crate) const BARE: &str = "a look each millisecond, the baseline here";

/// There is nothing to close.
pub(crate) struct Reader;

pub(crate) fn await_file(stat: &Stat, _directory: &Path) -> Reader {
    while !stat.is_there() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Reader
}

/// Not known: who asks goes by the time.
pub(crate) fn watches(_process: u32, _directory: &Path) -> bool {
    false
}

pub(crate) fn is_asleep(_process: u32) -> bool {
    true
}

pub(crate) fn switches(_process: u32) -> usize {
    unreachable!("nobody asks")
}

pub(crate) fn resident() -> usize {
    unreachable!("nobody asks")
}
