//! The lock by which those who wait are known: each process holds it shared while any of its
//! threads or futures waits. Rules S5 and S6.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::shared_flags::SharedFlags;
use crate::file::lock_file::{FileLock, LockFile};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sys::Mode;

/// Who holds the lock exclusively does so for some microseconds, unless it was stopped; then the head asks
/// again.
const TRIES: u32 = 10;

pub(super) struct Waiters {
    slot: Arc<LockFile>,
    registration: ForkSafe<Registration>,
}

/// One lock for all threads and futures of this process that wait by one handle.
struct Registration {
    waiting: usize,
    /// How many of them are at the head: asleep, once they have looked, until somebody who sees the lock tells.
    leaders: usize,
    locked: Option<FileLock>,
}

impl Registration {
    const NONE: Self = Self { waiting: 0, leaders: 0, locked: None };
}

impl Waiters {
    pub(super) fn new(slot: Arc<LockFile>) -> Self {
        Self { slot, registration: ForkSafe::new(Registration::NONE, |()| Registration::NONE) }
    }

    fn registration(&self) -> MutexGuard<'_, Registration> {
        self.registration.lock()
    }

    /// One more waits from now on.
    pub(super) fn arrive(&self, signs: &SharedFlags) {
        self.registration().waiting += 1;
        for _ in 0..TRIES {
            if self.renew(signs, false) {
                break;
            }
            std::thread::yield_now();
        }
    }

    /// One who waits is the head from now on.
    pub(super) fn lead(&self) {
        self.registration().leaders += 1;
    }

    /// One waits no more.
    pub(super) fn leave(&self, was_leader: bool) {
        let mut registration = self.registration();
        registration.waiting = registration.waiting.saturating_sub(1);
        registration.leaders = registration.leaders.saturating_sub(usize::from(was_leader));
        let left = if registration.waiting == 0 { registration.locked.take() } else { None };
        drop(registration);
        drop(left);
    }

    /// S5. Whether everybody who releases a slot from now on sees that somebody waits. It may be refused for the
    /// moment in which somebody else looks whether anybody does (S6). `thorough`: looks whether the lock is
    /// still the one at its path.
    pub(super) fn renew(&self, signs: &SharedFlags, thorough: bool) -> bool {
        let mut registration = self.registration();
        if registration.waiting == 0 {
            return false; // who asked (`others`) has left, and would not take it back
        }
        let is_stale = |locked: &FileLock| {
            !locked.is_here() || thorough && !self.slot.is_valid(locked).unwrap_or(false)
        };
        if registration.locked.as_ref().is_none_or(is_stale) {
            registration.locked = None;
            let taken = self.slot.try_take_checking(Mode::Shared, || thorough, true);
            registration.locked = taken.ok().flatten();
        }
        // It is lowered only by who holds exclusively what we hold.
        let is_raised = registration.locked.is_some() && signs.raise();
        drop(registration);
        fence(Ordering::SeqCst); // before any look at the slots: see `Slots::tell`
        is_raised
    }

    /// Whether anybody waits but the one who asks. Their own presence is taken back for a moment; as it is
    /// announced again before they look at any slot, nothing is missed (S5). A head has looked already: it is
    /// another, since who asks stands behind it, or has left.
    pub(super) fn others(&self, signs: &SharedFlags) -> bool {
        let mut registration = self.registration();
        if registration.waiting > 1 || registration.leaders > 0 {
            return true;
        }
        registration.locked = None;
        let has_others = self.lock_if_no_waiter().is_none();
        drop(registration);
        self.renew(signs, false);
        has_others
    }

    /// Locked if no process waits, and none begins to wait while it is held.
    pub(super) fn lock_if_no_waiter(&self) -> Option<FileLock> {
        self.slot.try_take_checking(Mode::Exclusive, || false, true).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    #[test]
    fn who_asks_whether_others_wait_when_nobody_does_leaves_nothing_locked() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let open = || LockFile::open(&dir.path().join("waiters"), Access::Umask).unwrap();
        let (waiters, others) = (Waiters::new(open()), Waiters::new(open()));
        let signs = SharedFlags::open(dir.path(), Access::Umask).unwrap();
        assert!(!waiters.others(&signs)); // as the helper of a waiter that has given up
        assert!(others.lock_if_no_waiter().is_some());

        waiters.arrive(&signs);
        assert!(!waiters.others(&signs));
        assert!(others.lock_if_no_waiter().is_none());
        waiters.leave(false);
        assert!(others.lock_if_no_waiter().is_some());
    }
}
