//! The lock that shows whether any process waits: each process holds it shared while one of its
//! threads or futures waits (rules S5 and S6).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::shared_flags::SharedFlags;
use crate::error::Result;
use crate::file::lock_file::{FileLock, LockFile};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sys::Mode;

/// How often a waiter tries the lock. A process holds it exclusively only for some microseconds,
/// unless it was stopped; then the leader tries again later.
const MAX_TRIES: u32 = 10;

pub(super) struct Waiters {
    file: Arc<LockFile>,
    registration: ForkSafe<Registration>,
}

/// One lock for all threads and futures of this process that wait by one handle.
struct Registration {
    waiting: usize,
    /// How many of them are leaders, which sleep until a process that cannot acquire the lock
    /// notifies them.
    leaders: usize,
    locked: Option<FileLock>,
}

impl Registration {
    const NONE: Self = Self { waiting: 0, leaders: 0, locked: None };
}

impl Waiters {
    pub(super) fn new(file: Arc<LockFile>) -> Self {
        Self { file, registration: ForkSafe::new(Registration::NONE, |()| Registration::NONE) }
    }

    fn registration(&self) -> MutexGuard<'_, Registration> {
        self.registration.lock()
    }

    /// Adds a waiter.
    pub(super) fn arrive(&self, flags: &SharedFlags) {
        self.registration().waiting += 1;
        for _ in 0..MAX_TRIES {
            if self.renew(flags, false) {
                break;
            }
            std::thread::yield_now();
        }
    }

    /// Makes a waiter a leader.
    pub(super) fn add_leader(&self) {
        self.registration().leaders += 1;
    }

    /// Removes a waiter.
    pub(super) fn leave(&self, was_leader: bool) {
        let mut registration = self.registration();
        registration.waiting = registration.waiting.saturating_sub(1);
        registration.leaders = registration.leaders.saturating_sub(usize::from(was_leader));
        let left = if registration.waiting == 0 { registration.locked.take() } else { None };
        drop(registration);
        drop(left);
    }

    /// Whether every process that releases a slot from now on sees that there is a waiter (S5).
    /// This fails at the moment at which another process checks for waiters (S6). `thorough`: also
    /// checks whether the path still names the locked file.
    pub(super) fn renew(&self, flags: &SharedFlags, thorough: bool) -> bool {
        let mut registration = self.registration();
        if registration.waiting == 0 {
            return false; // the caller (`has_others`) has left, and would not release it
        }
        let is_stale = |locked: &FileLock| {
            !locked.is_here() || thorough && !self.file.is_valid(locked).unwrap_or(false)
        };
        if registration.locked.as_ref().is_none_or(is_stale) {
            registration.locked = None;
            let taken = self.file.try_lock_checking(Mode::Shared, || thorough, true);
            registration.locked = taken.ok().flatten();
        }
        // Only a process that holds this lock exclusively lowers the flag.
        let is_raised = registration.locked.is_some() && flags.raise();
        drop(registration);
        fence(Ordering::SeqCst); // before any check of the slots: see `Slots::notify_release`
        is_raised
    }

    /// Whether another process or thread waits besides the caller. The caller's own announcement is
    /// withdrawn for a moment. No notification is lost, since it is announced again before it
    /// checks any slot (S5). A leader has checked them already: it is another waiter, since the
    /// caller is queued behind it, or has left.
    pub(super) fn has_others(&self, flags: &SharedFlags) -> bool {
        let mut registration = self.registration();
        if registration.waiting > 1 || registration.leaders > 0 {
            return true;
        }
        registration.locked = None;
        // After an error there may be none. The caller's next try then returns the error: to yield
        // to waiters that do not exist would not end.
        let has_others = matches!(self.try_lock_alone(), Ok(None));
        drop(registration);
        self.renew(flags, false);
        has_others
    }

    /// Acquires the lock if no process waits. None begins to wait while it is held.
    pub(super) fn lock_if_no_waiter(&self) -> Option<FileLock> {
        self.try_lock_alone().ok().flatten()
    }

    fn try_lock_alone(&self) -> Result<Option<FileLock>> {
        self.file.try_lock_checking(Mode::Exclusive, || false, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    #[test]
    fn asking_for_other_waiters_leaves_nothing_locked() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let open = || LockFile::open(&dir.path().join("waiters"), Access::Umask).unwrap();
        let (waiters, others) = (Waiters::new(open()), Waiters::new(open()));
        let flags = SharedFlags::open(dir.path(), Access::Umask).unwrap();
        assert!(!waiters.has_others(&flags)); // a helper of a waiter that gave up asks this too
        assert!(others.lock_if_no_waiter().is_some());

        waiters.arrive(&flags);
        assert!(!waiters.has_others(&flags));
        assert!(others.lock_if_no_waiter().is_none());
        waiters.leave(false);
        assert!(others.lock_if_no_waiter().is_some());
    }
}
