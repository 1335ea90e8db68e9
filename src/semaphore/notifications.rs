//! Announces the waiters of a semaphore, and notifies the leader of releases (rules S5 to S7).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::shared_flags::SharedFlags;
use super::signals::close;
use super::slots::Slots;
use super::table::Table;
use crate::fork_safe::MutexGuard;
use crate::sys::{self, HeldFifo, Origin};

impl Slots {
    /// Announces a waiter until the returned value is dropped (S5).
    pub(crate) fn announce(self: &Arc<Self>) -> Announcement {
        let flags = Arc::clone(&self.table().flags);
        self.waiters.arrive(&flags);
        Announcement { slots: Arc::clone(self), origin: Origin::here(), is_leader: false }
    }

    /// Whether there is a waiter other than the caller, which has announced itself.
    pub(crate) fn others_wait(&self) -> bool {
        let flags = Arc::clone(&self.table().flags);
        self.waiters.has_others(&flags)
    }

    /// Notifies waiters after slots were unlocked (S6). `signals` are closed in any case.
    /// `are_enough`: whether their closing notifies a leader of each slot.
    pub(super) fn notify_release(
        &self,
        table: MutexGuard<'_, Table>,
        signals: Vec<(u32, HeldFifo)>,
        are_enough: bool,
    ) {
        // The unlocking before this and the check below must not be reordered: a waiter raises the
        // flag and then checks the slots. The system calls do not promise that order; a full
        // barrier does.
        fence(Ordering::SeqCst);
        let is_raised = table.flags.is_raised();
        self.wanted.store(is_raised, Ordering::Relaxed);
        let flags = Arc::clone(&table.flags);
        drop(table);
        let closed = close(signals);
        if is_raised || self.tickets.may_have_waiters() {
            self.signal_copies(&closed);
            // A slot without a FIFO of this process's was released silently: a copy of an earlier
            // holder may have the FIFO open, so that the leader sleeps (S11).
            if !are_enough {
                self.signal_change();
            }
        }
        if !is_raised {
            return;
        }
        match self.waiters.lock_if_no_waiter() {
            Some(_alone) => self.wanted.store(!flags.lower(), Ordering::Relaxed),
            // The leader waits in the kernel for the only slot (S9).
            _ if self.table().is_only_one() => {}
            // A leader that watches the directory gets an event of the closing as well.
            _ if are_enough => {}
            _ => self.poke(&flags),
        }
    }

    /// Notifies a leader that may have found a free slot held, and is not in the kernel's queue for
    /// it.
    pub(crate) fn notify_recheck(&self) {
        fence(Ordering::SeqCst); // as in `notify_release`
        if self.tickets.may_have_waiters() {
            self.signal_change();
        }
        let flags = Arc::clone(&self.table().flags);
        if flags.is_raised() {
            self.poke(&flags);
        }
    }

    /// Changes the directory, so that the leader's watch reports an event: creates the name `poke`,
    /// or removes it. If it can neither be created (it exists) nor removed (it does not), another
    /// process has just removed it, which is also an event after this process's release. A hard
    /// link needs no opening and closing, which would be further events. If the directory cannot be
    /// changed (the disk is full, or another user owns it), the length of a file in it is changed
    /// (S7).
    pub(super) fn poke(&self, flags: &SharedFlags) {
        let poke = self.directory.join("poke");
        let created = match std::fs::hard_link(self.directory.join("waiters"), &poke) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                sys::create_new(&poke, self.access.bits()).map(drop) // no hard links here
            }
            linked => linked,
        };
        let Err(error) = created else { return };
        let was_there = error.kind() == io::ErrorKind::AlreadyExists;
        match std::fs::remove_file(&poke) {
            Ok(()) => {}
            Err(error) if was_there && error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => flags.change_length(),
        }
    }
}

/// Announces a waiter while this value lives.
pub(crate) struct Announcement {
    slots: Arc<Slots>,
    origin: Origin,
    is_leader: bool,
}

impl Announcement {
    /// For the leader: whether every process that releases a slot from now on sees that it waits
    /// (S5).
    pub(crate) fn renew(&mut self, thorough: bool) -> bool {
        if self.origin.is_here() && !std::mem::replace(&mut self.is_leader, true) {
            self.slots.waiters.add_leader();
        }
        let flags = Arc::clone(&self.slots.table().flags);
        self.slots.waiters.renew(&flags, thorough)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if self.origin.is_here() {
            self.slots.waiters.leave(self.is_leader); // a forked copy has announced nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    /// A helper asks as well, for a waiter that has given up.
    #[test]
    fn asking_for_other_waiters_does_not_withdraw_the_leader() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let open = || Slots::open(&dir.path().join("semaphore"), Some(2), Access::default().into());
        let (slots, other) = (open().unwrap(), open().unwrap());
        let mut leader = slots.announce();
        assert!(!slots.others_wait(), "it is the only one");
        assert!(leader.renew(false));
        std::thread::scope(|scope| {
            // As a process that releases: it must find a waiter each time.
            let releases =
                scope.spawn(|| (0..2000).all(|_| other.waiters.lock_if_no_waiter().is_none()));
            let mut are_found = true;
            while !releases.is_finished() {
                are_found &= slots.others_wait();
            }
            assert!(releases.join().unwrap(), "no waiter was found");
            assert!(are_found);
        });
        drop(leader);
        assert!(!slots.others_wait());
    }
}
