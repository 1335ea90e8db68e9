//! What the engine waits for: a lock, as it sees one.

use std::time::Duration;

use crate::error::Result;

/// What can be waited for.
pub(crate) trait Target: Send + Sync + Sized + 'static {
    /// Whoever waits for the same key waits for the same thing, and can share a helper.
    type Key: Ord + Clone + Send + 'static;
    /// What is acquired in the end. Dropping it gives it back.
    type Held: Send + 'static;
    /// What a helper blocks for.
    type Request: Send + Sync + 'static;

    fn key(&self) -> Self::Key;
    /// Whether `key` is still the key: what is waited for may have been replaced.
    fn is_current(&self, key: &Self::Key) -> Result<bool>;
    /// Takes it if it can be had; never blocks.
    fn attempt(&self) -> Result<Option<Self::Held>>;
    /// Blocks the calling thread in the kernel until it is had: for a caller without a deadline.
    fn block_here(&self) -> Result<Self::Held>;
    /// What a helper blocks for; `None` if `key` is not the key any more.
    fn prepare(&self, key: &Self::Key) -> Result<Option<Self::Request>>;
    /// Blocks the calling helper in the kernel until the request is granted, and does not check whether
    /// what it is granted is still what is wanted: the receiver does (W5).
    fn block(&self, request: &Self::Request) -> Result<()>;
    /// Whether the request has been granted, also if the helper has not run since; it is granted by
    /// this if nothing is in the way. Never blocks. `false` where the platform cannot answer.
    fn is_granted(&self, request: &Self::Request) -> bool;
    /// The lock of a request that was granted.
    fn granted(&self, request: Self::Request) -> Self::Held;
    /// The key in the other mode, if there is one: a lock in that mode keeps this one busy.
    fn rival(&self, key: &Self::Key) -> Option<Self::Key>;
    /// Unlocks it, by no more than a system call; `give_back` comes after that.
    fn release(&self, held: &mut Self::Held);
    /// Takes back what nobody wants.
    fn give_back(&self, held: Self::Held) {
        drop(held);
    }
    /// Whether what is had is still what is wanted.
    fn is_valid(&self, held: &Self::Held) -> Result<bool>;
    /// Whether others wait for it who should have it first, should it be free (S4).
    fn should_yield(&self) -> bool {
        false
    }
    /// Whether it could be had at this moment. Only asked where others should have it first.
    fn is_free(&self) -> Result<bool> {
        Ok(false)
    }
    /// Whether blocking in the kernel must not be trusted here.
    fn must_poll(&self) -> bool;
    /// The user's own interval for polling.
    fn poll_every(&self) -> Option<Duration>;
    /// How often who waits tries by themselves although the kernel is waiting for them, where it may leave
    /// somebody asleep who could go on.
    fn backstop(&self) -> Option<Duration> {
        None
    }
    /// Whether a caller without a deadline can wait in the kernel and nowhere else.
    fn can_block_here(&self) -> bool {
        !self.must_poll() && self.poll_every().is_none() && self.backstop().is_none()
    }
}
