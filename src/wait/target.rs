//! What the engine waits for: a lock, as it sees one.

use std::time::Duration;

use crate::error::Result;

/// A lock that can be waited for.
pub(crate) trait Target: Send + Sync + Sized + 'static {
    /// Waiters with the same key wait for the same lock, and can share a helper.
    type Key: Ord + Clone + Send + 'static;
    /// The held lock. Dropping it releases it.
    type Held: Send + 'static;
    /// What a helper blocks for.
    type Request: Send + Sync + 'static;

    fn key(&self) -> Self::Key;
    /// Whether `key` is still the key: the file may have been replaced.
    fn is_current(&self, key: &Self::Key) -> Result<bool>;
    /// Acquires it if it is available; never blocks.
    fn attempt(&self) -> Result<Option<Self::Held>>;
    /// Blocks the calling thread in the kernel until it is acquired: for a caller without a
    /// deadline.
    fn block_here(&self) -> Result<Self::Held>;
    /// What a helper blocks for; `None` if `key` is not the key any more.
    fn prepare(&self, key: &Self::Key) -> Result<Option<Self::Request>>;
    /// Blocks the calling helper in the kernel until the request is granted. It does not check
    /// whether the granted lock is still valid: the waiter that receives it does (W5).
    fn block(&self, request: &Self::Request) -> Result<()>;
    /// Whether the request has been granted, also if the helper has not run since. This grants it
    /// if the lock is free. Never blocks. `false` where the platform cannot answer.
    fn is_granted(&self, request: &Self::Request) -> bool;
    /// The lock of a granted request.
    fn granted(&self, request: Self::Request) -> Self::Held;
    /// The key in the other mode, if there is one: a lock in that mode excludes this one.
    fn rival(&self, key: &Self::Key) -> Option<Self::Key>;
    /// Unlocks it, by one system call; `give_back` comes after that.
    fn release(&self, held: &mut Self::Held);
    /// Releases a lock that no waiter needs.
    fn give_back(&self, held: Self::Held) {
        drop(held);
    }
    /// Whether the held lock is still the one that the path stands for.
    fn is_valid(&self, held: &Self::Held) -> Result<bool>;
    /// Whether there are waiters that should acquire it first (S4).
    fn should_yield(&self) -> bool {
        false
    }
    /// Whether it is free at this moment. Only called where other waiters should acquire it first.
    fn is_free(&self) -> Result<bool> {
        Ok(false)
    }
    /// Whether blocking in the kernel must not be trusted here.
    fn must_poll(&self) -> bool;
    /// The user's own interval for polling.
    fn poll_every(&self) -> Option<Duration>;
    /// How often a waiter tries although a thread is blocked in the kernel for it, where the kernel
    /// may not wake a waiter that could acquire the lock.
    fn backstop(&self) -> Option<Duration> {
        None
    }
    /// Whether a caller without a deadline can wait in the kernel and nowhere else.
    fn can_block_here(&self) -> bool {
        !self.must_poll() && self.poll_every().is_none() && self.backstop().is_none()
    }
}
