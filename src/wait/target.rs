//! A lock, as the waiting engine sees it.

use std::time::Duration;

use crate::error::Result;

/// A lock that can be waited for.
pub(crate) trait Target: Send + Sync + Sized + 'static {
    /// Waiters with the same key wait for the same lock, and can share a helper.
    type Key: Ord + Clone + Send + 'static;
    /// The held lock. Dropping it releases it.
    type Held: Send + 'static;
    /// The request that a helper blocks for.
    type Request: Send + Sync + 'static;

    fn key(&self) -> Self::Key;
    /// Whether `key` is still the current key: the file may have been replaced.
    fn is_current(&self, key: &Self::Key) -> Result<bool>;
    /// Acquires the lock if it is available, without blocking.
    fn attempt(&self) -> Result<Option<Self::Held>>;
    /// Blocks the calling thread in the kernel until the lock is acquired, for a caller without a
    /// deadline.
    fn block_here(&self) -> Result<Self::Held>;
    /// The request that a helper blocks for; `None` if `key` is no longer the current key.
    fn prepare(&self, key: &Self::Key) -> Result<Option<Self::Request>>;
    /// Blocks the calling helper in the kernel until the request is granted. It does not check
    /// whether the granted lock is still valid: the waiter that receives it does (W5).
    fn block(&self, request: &Self::Request) -> Result<()>;
    /// Whether the request has been granted, even if the helper has not run since. If the lock is
    /// free, this call acquires it for the request. Never blocks. `false` where the platform cannot
    /// answer.
    fn is_granted(&self, request: &Self::Request) -> bool;
    /// The lock of a granted request.
    fn granted(&self, request: Self::Request) -> Self::Held;
    /// The key in the other mode, if there is one: a lock in that mode excludes this one.
    fn rival(&self, key: &Self::Key) -> Option<Self::Key>;
    /// Unlocks the lock with one system call; `give_back` is called afterwards.
    fn release(&self, held: &mut Self::Held);
    /// Releases a lock that no waiter needs.
    fn give_back(&self, held: Self::Held) {
        drop(held);
    }
    /// Whether the path still names the locked file.
    fn is_valid(&self, held: &Self::Held) -> Result<bool>;
    /// Whether there are other waiters that should acquire the lock first (S4).
    fn should_yield(&self) -> bool {
        false
    }
    /// Whether the lock is free at this moment. Called only if other waiters should acquire it
    /// first.
    fn is_free(&self) -> Result<bool> {
        Ok(false)
    }
    /// Whether the kernel's queue cannot be relied on here.
    fn must_poll(&self) -> bool;
    /// Whether a helper may block in the kernel now; if not, it polls.
    fn may_block(&self) -> bool {
        !self.must_poll()
    }
    /// The user's own interval for polling.
    fn poll_every(&self) -> Option<Duration>;
    /// How often a waiter also tries while a thread is blocked in the kernel for it, where the
    /// kernel may fail to wake a waiter that could acquire the lock.
    fn backstop(&self) -> Option<Duration> {
        None
    }
    /// Whether a caller without a deadline can simply block in the kernel.
    fn can_block_here(&self) -> bool {
        !self.must_poll() && self.poll_every().is_none() && self.backstop().is_none()
    }
}
