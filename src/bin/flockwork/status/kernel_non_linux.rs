//! Other systems show neither the locks of processes nor their users.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::process::Process;

#[derive(Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) is_own: bool,
}

pub(super) fn user_of(_pid: u32) -> Option<User> {
    None
}

pub(super) fn start_of(_pid: u32) -> Option<SystemTime> {
    None
}

/// There is none.
pub(super) struct LockList;

impl LockList {
    pub(super) fn read() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "same signature as on Linux")]
    pub(super) fn fcntl(&self, _path: &Path, _is_held: bool) -> FcntlLocks {
        FcntlLocks::default()
    }

    #[expect(clippy::unused_self, reason = "same signature as on Linux")]
    pub(super) fn removed(&self, _path: &Path) -> Vec<Process> {
        Vec::new()
    }

    #[expect(clippy::unused_self, reason = "same signature as on Linux")]
    pub(super) fn paths_of_user(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

#[derive(Default)]
pub(super) struct FcntlLocks {
    pub(super) holders: Vec<Process>,
    pub(super) waiters: Vec<Process>,
}
