//! Trying to take a lock that a helper of this process has been granted although no waiter needs it
//! any more: a wait that gave up must not refuse its own process (rule Q7).

#![expect(
    clippy::disallowed_methods,
    reason = "a try waits until a thread of its own process has run"
)]

use std::sync::Arc;
use std::task::Waker;

use super::queue::{Lines, Look};
use super::{Target, this_thread};
use crate::error::Result;

/// Acquires it if no other process or thread has it. Never waits for a release by another process.
pub(crate) fn try_now<T: Target>(
    lines: &'static Lines<T>,
    target: &Arc<T>,
) -> Result<Option<T::Held>> {
    let unwanted = lines.unwanted();
    match target.attempt()? {
        None => take_over(lines, target, unwanted),
        taken => Ok(taken),
    }
}

/// For a target that was just refused: takes what an unneeded helper has been granted, in the mode of
/// `target` or in another one that keeps it busy. `unwanted` is what [`Lines::unwanted`] was before.
pub(crate) fn take_over<T: Target>(
    lines: &'static Lines<T>,
    target: &Arc<T>,
    unwanted: u64,
) -> Result<Option<T::Held>> {
    if lines.is_empty() && lines.unwanted() == unwanted {
        return Ok(None);
    }
    take_over_by(lines, target, unwanted, &this_thread(), std::thread::park)
}

/// The same in a thread that `waker` wakes from `park`.
pub(super) fn take_over_by<T: Target>(
    lines: &'static Lines<T>,
    target: &Arc<T>,
    unwanted: u64,
    waker: &Waker,
    park: impl Fn(),
) -> Result<Option<T::Held>> {
    let key = target.key();
    let left = match hand_over(lines, &**target, &key, waker, &park) {
        // Any time may have passed since the helper was started (W5).
        Left::Held(held) if target.is_valid(&held)? => return Ok(Some(held)),
        Left::Nothing => match target.rival(&key) {
            Some(rival) => hand_over(lines, &**target, &rival, waker, &park),
            None => Left::Nothing,
        },
        other => other,
    };
    match left {
        Left::Held(held) => target.give_back(held),
        Left::Freed => {}
        Left::Nothing if lines.unwanted() != unwanted => {} // it was free since
        Left::Nothing => return Ok(None),
    }
    target.attempt()
}

/// Whether an attempt is refused by nothing but an unneeded helper of this process.
pub(crate) fn is_left<T: Target>(lines: &Lines<T>, target: &T) -> bool {
    !lines.is_empty() && lines.is_left(target, &target.key())
}

/// What became of a helper without waiters.
enum Left<H> {
    /// There is none, or it has not been granted the lock.
    Nothing,
    Held(H),
    /// It failed, and has released the lock.
    Freed,
}

/// The helper has been granted the lock, and hands it over when it runs.
fn hand_over<T: Target>(
    lines: &Lines<T>,
    target: &T,
    key: &T::Key,
    waker: &Waker,
    park: &impl Fn(),
) -> Left<T::Held> {
    let Some(place) = lines.join_left(target, key, waker) else { return Left::Nothing };
    loop {
        // The waker is registered, and a wake-up that comes before the park ends that at once (W1).
        match lines.look(place, waker) {
            Look::Waiting => park(),
            Look::Granted(held) => return Left::Held(held),
            Look::Dissolved(_) => return Left::Freed,
        }
    }
}
