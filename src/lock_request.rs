//! A request for a lock on one file in one mode, as the waiting engine sees it.
//!
//! The file is a lock, a gate, or the only slot of a semaphore.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::file::lock_file::{BlockingLock, FileLock, LockFile};
use crate::options::{OnWait, Options, Waiting};
use crate::sys::{self, FileId, Mode};
use crate::wait::{Server, Target, WaitCallback, WaitHooks, WaitQueues};

/// The queues of this process: waiters for the same file in the same mode share a helper.
pub(crate) static QUEUES: WaitQueues<LockRequest> = WaitQueues::new();

/// How often a waiter tries while a thread is blocked in the kernel for it on a network file
/// system: the server may not have the request any more, for example since it was restarted.
const NETWORK_BACKSTOP: Duration = Duration::from_secs(1);

/// Returns the callback of [`Options::on_wait`] as the engine calls it during a wait for `path`,
/// and the token that ends the wait.
pub(crate) fn hooks(
    options: &Options,
    path: &Arc<Path>,
    server: Option<&Server>,
) -> Option<WaitHooks> {
    let callback = options.on_wait.clone().map(|OnWait { after, every, callback }| {
        let (path, find) = (Arc::clone(path), server.map(Server::finder));
        let call = move |elapsed, is_first| {
            callback(&Waiting::new(&path, elapsed, is_first).finding(find.clone()));
        };
        WaitCallback { after, every, call: Arc::new(call) }
    });
    let cancels = options.cancels.clone();
    let path = Arc::clone(options.whole.as_ref().unwrap_or(path));
    WaitHooks::new(path, callback, cancels)
}

/// A lock on a file in one mode, which any number of waiters want.
pub(crate) struct LockRequest {
    pub(crate) file: Arc<LockFile>,
    pub(crate) mode: Mode,
    pub(crate) poll_every: Option<Duration>,
    /// The lock that this file is a part of, if it is a part of one.
    pub(crate) coordinator: Option<Box<dyn Coordinator>>,
}

/// A lock that consists of several files. Waiters wait for only one of them.
pub(crate) trait Coordinator: Send + Sync {
    /// Whether other processes have waiters that should acquire the lock first.
    fn others_wait(&self) -> bool;
    /// Called after a helper has acquired and released the lock because no waiter needed it any
    /// more.
    fn was_given_back(&self);
}

impl LockRequest {
    /// For the file alone, exclusively.
    pub(crate) fn alone(file: Arc<LockFile>) -> Self {
        Self { file, mode: Mode::Exclusive, poll_every: None, coordinator: None }
    }
}

impl Target for LockRequest {
    type Key = (Arc<Path>, FileId, Mode);
    type Held = FileLock;
    type Request = BlockingLock;

    fn key(&self) -> Self::Key {
        (Arc::clone(self.file.common_name()), self.file.latest(), self.mode)
    }

    fn is_current(&self, (_, id, _): &Self::Key) -> Result<bool> {
        self.file.still_names(*id)
    }

    fn attempt(&self) -> Result<Option<FileLock>> {
        self.file.try_lock(self.mode)
    }

    fn block_here(&self) -> Result<FileLock> {
        self.file.lock(self.mode)
    }

    fn prepare(&self, (_, id, mode): &Self::Key) -> Result<Option<BlockingLock>> {
        self.file.request(*id, *mode)
    }

    fn block(&self, request: &BlockingLock) -> Result<()> {
        request.block()
    }

    /// Not on a network file system, where the call could wait for the server under the mutex.
    fn is_granted(&self, request: &BlockingLock) -> bool {
        !self.file.is_network() && request.is_granted()
    }

    fn granted(&self, request: BlockingLock) -> FileLock {
        request.granted()
    }

    fn rival(&self, (name, id, mode): &Self::Key) -> Option<Self::Key> {
        let other = match mode {
            Mode::Exclusive => Mode::Shared,
            Mode::Shared => Mode::Exclusive,
        };
        Some((Arc::clone(name), *id, other))
    }

    fn release(&self, held: &mut FileLock) {
        held.unlock_in_place();
    }

    fn is_valid(&self, held: &FileLock) -> Result<bool> {
        self.file.check_forwarded(held)?;
        self.file.is_valid(held)
    }

    fn should_yield(&self) -> bool {
        self.coordinator.as_ref().is_some_and(|coordinator| coordinator.others_wait())
    }

    fn give_back(&self, held: FileLock) {
        drop(held);
        if let Some(coordinator) = &self.coordinator {
            coordinator.was_given_back();
        }
    }

    fn is_free(&self) -> Result<bool> {
        self.file.is_free(self.mode)
    }

    fn must_poll(&self) -> bool {
        !self.file.are_grants_prompt()
    }

    fn may_block(&self) -> bool {
        self.file.may_block()
    }

    fn poll_every(&self) -> Option<Duration> {
        self.poll_every
    }

    fn backstop(&self) -> Option<Duration> {
        if self.file.is_network() {
            return self.file.are_grants_prompt().then_some(NETWORK_BACKSTOP);
        }
        if self.mode == Mode::Shared { sys::SHARED_BACKSTOP } else { None }
    }
}

// Windows only: elsewhere inodes identify files, and names differ by case.
#[cfg(all(test, windows))]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_file_have_one_queue() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let key = |path: &Path| {
            let file = LockFile::open(path, crate::access::Access::Umask).unwrap();
            LockRequest { file, mode: Mode::Exclusive, poll_every: None, coordinator: None }.key()
        };
        let literal = format!(r"\\?\{}", path.display());
        assert_eq!(key(&path), key(&dir.path().join("A.LOCK")));
        assert_eq!(key(&path), key(Path::new(&literal)));
        assert_ne!(key(&path), key(&dir.path().join("b.lock")));
    }
}
