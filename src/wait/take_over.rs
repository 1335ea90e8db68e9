//! Takes over a lock that a helper of this process has been granted although no waiter needs it any
//! more: an abandoned wait must not make its own process's tries fail (rule Q7).

#![expect(
    clippy::disallowed_methods,
    reason = "a try waits until a thread of its own process has run"
)]

use std::sync::Arc;
use std::task::Waker;

use super::queue::{TicketState, WaitQueues};
use super::{Target, this_thread};
use crate::error::Result;

/// How many helpers one try takes over. There is at most one for each mode, so more than two come
/// only from other threads that give up waiting at the same time.
const MAX_TAKE_OVERS: u32 = 8;

/// Acquires the lock if no other process or thread has it. Never waits for a release by another
/// process.
pub(crate) fn try_now<T: Target>(
    queues: &'static WaitQueues<T>,
    target: &Arc<T>,
) -> Result<Option<T::Held>> {
    let unwanted = queues.unwanted();
    match target.attempt()? {
        None => take_over(queues, target, unwanted),
        taken => Ok(taken),
    }
}

/// Takes over, after a failed try, the lock that an unneeded helper has been granted, in the mode
/// of `target` or in one that excludes it. `unwanted` is [`WaitQueues::unwanted`] before that try.
pub(crate) fn take_over<T: Target>(
    queues: &'static WaitQueues<T>,
    target: &Arc<T>,
    unwanted: u64,
) -> Result<Option<T::Held>> {
    if queues.is_empty() && queues.unwanted() == unwanted {
        return Ok(None);
    }
    take_over_by(queues, target, unwanted, &this_thread(), std::thread::park)
}

/// Does the same in a thread that `waker` wakes from `park`.
pub(super) fn take_over_by<T: Target>(
    queues: &'static WaitQueues<T>,
    target: &Arc<T>,
    unwanted: u64,
    waker: &Waker,
    park: impl Fn(),
) -> Result<Option<T::Held>> {
    let key = target.key();
    let mut unwanted = unwanted;
    for _ in 0..MAX_TAKE_OVERS {
        let left = match hand_over(queues, &**target, &key, waker, &park) {
            // Any amount of time may have passed since the helper was started (W5).
            Leftover::Held(held) if target.is_valid(&held)? => return Ok(Some(held)),
            Leftover::Nothing => match target.rival(&key) {
                Some(rival) => hand_over(queues, &**target, &rival, waker, &park),
                None => Leftover::Nothing,
            },
            other => other,
        };
        let latest = queues.unwanted();
        match left {
            Leftover::Held(held) => target.give_back(held),
            Leftover::Freed => {}
            Leftover::Nothing if latest != unwanted => {} // it has been free since the try
            Leftover::Nothing => return Ok(None),
        }
        unwanted = latest;
        // A helper in the other mode may be granted the lock before this try.
        if let Some(held) = target.attempt()? {
            return Ok(Some(held));
        }
    }
    Ok(None)
}

/// Whether only an unneeded helper of this process makes an attempt fail.
pub(crate) fn is_left<T: Target>(queues: &WaitQueues<T>, target: &T) -> bool {
    !queues.is_empty() && queues.has_leftover(target, &target.key())
}

/// The outcome of asking a helper without waiters for its lock.
enum Leftover<H> {
    /// There is no such helper, or it has not been granted the lock.
    Nothing,
    Held(H),
    /// The helper failed, and has released the lock.
    Freed,
}

/// Waits until the helper, if it has been granted the lock, runs and hands the lock over.
fn hand_over<T: Target>(
    queues: &WaitQueues<T>,
    target: &T,
    key: &T::Key,
    waker: &Waker,
    park: &impl Fn(),
) -> Leftover<T::Held> {
    let Some(ticket) = queues.join_leftover(target, key, waker) else { return Leftover::Nothing };
    loop {
        // The waker is registered, and a wake-up before the park makes the park return immediately
        // (W1).
        match queues.check(ticket, waker) {
            TicketState::Waiting => park(),
            TicketState::Granted(held) => return Leftover::Held(held),
            TicketState::Dissolved(_) => return Leftover::Freed,
        }
    }
}
