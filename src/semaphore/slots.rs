//! The files of a semaphore: how slots are acquired and released, and how its processes learn that
//! one of them waits or that the capacity was changed. Knows files and knows no time. Rules S1 to
//! S7 of `docs/PROTOCOL.md`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use super::batch::Batch;
pub(crate) use super::capacity::check_permits;
use super::capacity::{self, MAX_PERMITS, establish, stamp};
use super::shared_flags::SharedFlags;
use super::table::{
    MAX_CREATED_AT_ONCE, Opened, Snapshot, Table, create_slots, identity, open_slot,
};
use super::waiters::Waiters;
use crate::access::Access;
use crate::error::{Error, Result};
use crate::file::lock_file::{FileLock, LockFile};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::paths::absolute;
use crate::record::slot_name;
use crate::sys::{self, Mode, Origin, Retries};

/// A semaphore's directory.
pub(crate) struct Slots {
    directory: Arc<Path>,
    access: Access,
    network: bool,
    waiters: Waiters,
    /// Whether a waiter was seen when that was last checked.
    wanted: AtomicBool,
    table: ForkSafe<Table, Arc<Opened>>,
}

/// How somebody gathers slots.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gathering {
    /// A slot that is taken is looked up again, whether it is still the one at its path. It may be left out now
    /// and then, because of S2; a file without a second name is looked up always.
    pub(crate) check_taken: bool,
    /// As is one that is refused.
    pub(crate) check_refused: bool,
    /// There is nobody to be told of what is given back.
    pub(crate) is_leader: bool,
}

impl Gathering {
    pub(crate) const CAREFUL: Self =
        Self { check_taken: true, check_refused: true, is_leader: false };
}

impl Slots {
    /// With `permits` the semaphore is made if it is not there, and must have that many if it is.
    pub(crate) fn open(path: &Path, permits: Option<u32>, access: Access) -> Result<Arc<Self>> {
        // Without a slash at its end, which would follow a symbolic link.
        let directory: Arc<Path> = absolute(path)?.components().collect::<PathBuf>().into();
        if let Some(permits) = permits {
            check_permits(&directory, permits, MAX_PERMITS)?;
        }
        let capacity = establish(&directory, permits, access)?;
        if let Some(requested) = permits.filter(|permits| *permits != capacity) {
            return Err(Error::CapacityMismatch { path: directory, stored: capacity, requested });
        }
        let waiters = LockFile::open(&directory.join("waiters"), access)?;
        let signs = Arc::new(SharedFlags::open(&directory, access)?);
        let opened = Arc::new(Opened { directory: identity(&directory)?, signs, capacity });
        let mut table = opened.table();
        let there = table.read(&directory, access)?;
        let slots = Self {
            network: waiters.is_network(),
            directory,
            access,
            waiters: Waiters::new(waiters),
            wanted: AtomicBool::new(true),
            // In a forked copy the parent's permits are the parent's.
            table: ForkSafe::with_context(table, opened, |opened| opened.table()),
        };
        // The process that created the semaphore may have been killed before it had created these.
        let is_missing = |slot: &u32| there.binary_search(slot).is_err();
        let missing = (0..capacity.min(MAX_CREATED_AT_ONCE)).filter(is_missing);
        let _ = create_slots(&slots.directory, access, missing);
        Ok(Arc::new(slots))
    }

    pub(crate) fn directory(&self) -> &Arc<Path> {
        &self.directory
    }

    pub(crate) fn is_network(&self) -> bool {
        self.network
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    fn snapshot(&self) -> Snapshot {
        let table = self.table();
        Snapshot {
            epoch: table.epoch,
            signs: Arc::clone(&table.signs),
            generation: table.generation,
            capacity: table.capacity,
            excess: table.excess.clone(),
            start: table.start,
        }
    }

    /// How many permits there are now.
    pub(crate) fn capacity(&self) -> Result<u32> {
        self.refresh()?;
        Ok(self.table().capacity)
    }

    /// Looks whether the files are those that we know, and reads again what has changed: what no sign tells.
    pub(crate) fn refresh(&self) -> Result<()> {
        let mut table = self.table();
        let is_current = table.stamp.is_some()
            && table.stamp == stamp(&self.directory)
            && table.signs.are_current(&self.directory)
            && table.generation == table.signs.generation()
            && !self.network; // where lengths and times are cached, for up to a minute
        if is_current { Ok(()) } else { table.read(&self.directory, self.access).map(drop) }
    }

    /// Whether somebody waits, as far as the sign says: it may be what somebody left who died.
    pub(crate) fn is_wanted(&self, look: bool) -> bool {
        if look {
            let is_raised = self.table().signs.is_raised();
            self.wanted.store(is_raised, Ordering::Relaxed);
        }
        self.wanted.load(Ordering::Relaxed)
    }

    /// Adds free slots to `batch` until it has `count`; returns whether it has. Never blocks. What
    /// was gathered stays gathered, but for slots beyond a capacity that has shrunk since.
    pub(crate) fn gather(&self, batch: &mut Batch, count: u32, how: Gathering) -> Result<bool> {
        // Each further try follows another process's completed change of the capacity.
        let mut retries = Retries::new();
        while retries.again() {
            let seen = self.snapshot();
            if count > seen.capacity {
                self.refresh()?;
                let capacity = self.table().capacity;
                check_permits(&self.directory, count, capacity)?;
                continue;
            }
            batch.keep_valid(&seen, !how.is_leader)?;
            let problem = self.take_free(batch, count, &seen, how);
            let (held, unknown) = self.count_excess(&seen, how)?;
            // After all slots were taken and counted: what was true under an old capacity must not
            // decide under a new one (S3).
            if !seen.is_current() {
                self.refresh()?;
                continue;
            }
            // With `held` slots in excess out, `count` of the permits are free while `count + held` slots
            // are in our hands (S3).
            let needed = count + held;
            if batch.len() >= needed {
                batch.cut(count, !how.is_leader)?;
                return Ok(true);
            }
            return problem.or(unknown).map_or(Ok(false), Err);
        }
        let source = io::Error::other("its capacity was changed again and again");
        Err(Error::io("take a permit of", &self.directory, source))
    }

    /// Takes free slots until `batch` has `count` and one more for each slot in excess. Returns the
    /// error of a slot that could not be tried.
    fn take_free(
        &self,
        batch: &mut Batch,
        count: u32,
        seen: &Snapshot,
        how: Gathering,
    ) -> Option<Error> {
        let most = count as usize + seen.excess.len();
        let (mut problem, mut refusal, mut has_tried) = (None, None, false);
        for step in 0..seen.capacity {
            if batch.len() as usize >= most {
                break;
            }
            let number = (seen.start % seen.capacity + step) % seen.capacity;
            match self.try_slot(number, how) {
                Ok(taken) => {
                    has_tried = true;
                    if let Some(locked) = taken {
                        batch.add(number, locked);
                    }
                }
                // A process that may not create a slot file takes those that exist (S2).
                Err(error) if self.is_for_others_to_create(number, &error) => {
                    refusal.get_or_insert(error);
                }
                // It may concern that one slot alone, or be a lack of descriptors.
                Err(error) => problem = Some(error),
            }
        }
        problem.or(refusal.filter(|_| !has_tried))
    }

    fn is_for_others_to_create(&self, number: u32, error: &Error) -> bool {
        let is_refused = matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        );
        is_refused
            && sys::file_kind(&self.directory.join(slot_name(number)))
                .is_ok_and(|found| found == sys::FileKind::Nothing)
    }

    /// Takes that slot if it is free, and marks it as this handle's. Whoever releases it removes the
    /// mark, and notifies waiters then. The table is not locked during system calls.
    fn try_slot(&self, number: u32, how: Gathering) -> Result<Option<FileLock>> {
        let mut table = self.table();
        let seat = table.seat(number);
        if seat.is_out {
            return Ok(None);
        }
        let known = seat.slot.clone();
        drop(table);
        let slot = match known {
            Some(slot) => slot,
            None => self.slot(number)?,
        };
        let taken =
            slot.try_take_checking(Mode::Exclusive, || how.check_refused, how.check_taken)?;
        // It is marked when it is taken and not while it is tried: a waiter that met a mark that went
        // away without a notification would have missed a slot.
        if taken.is_some() {
            self.table().seat(number).is_out = true;
        }
        Ok(taken)
    }

    /// The slot, opened where it is not yet.
    pub(crate) fn slot(&self, number: u32) -> Result<Arc<LockFile>> {
        if let Some(slot) = &self.table().seat(number).slot {
            return Ok(Arc::clone(slot));
        }
        let opened = open_slot(&self.directory, number, self.access)?;
        Ok(Arc::clone(self.table().seat(number).slot.get_or_insert(opened)))
    }

    /// How many of the slots in excess are still held. A free one is not tried again, since no
    /// process takes it any more (S3). One that cannot be tried counts as held, and the error is
    /// returned as well, since no notification would end a wait for it.
    fn count_excess(&self, seen: &Snapshot, how: Gathering) -> Result<(u32, Option<Error>)> {
        if seen.excess.is_empty() {
            return Ok((0, None));
        }
        let (mut free, mut unknown) = (Vec::new(), None);
        for number in &seen.excess {
            match self.try_slot(*number, Gathering::CAREFUL) {
                Ok(taken) => free.extend(taken.map(|locked| (*number, locked))),
                Err(error) => unknown = Some(error),
            }
        }
        // At most MAX_PERMITS.
        let held = u32::try_from(seen.excess.len() - free.len()).unwrap_or(u32::MAX);
        let is_free: Vec<u32> = free.iter().map(|(number, _)| *number).collect();
        let (mut table, result) = self.give_back(free);
        if (table.epoch, table.generation) == (seen.epoch, seen.generation) {
            table.excess.retain(|number| !is_free.contains(number));
        }
        drop(table);
        if !how.is_leader && !is_free.is_empty() {
            self.tell_surely(); // the leader may have met them held
        }
        result.map(|()| (held, unknown))
    }

    /// Makes a slot that was waited for by its own the first of a batch, if the semaphore is what it was.
    pub(crate) fn adopt(self: &Arc<Self>, number: u32, locked: FileLock) -> Result<Option<Batch>> {
        let mut batch = self.nothing();
        let mut table = self.table();
        table.seat(number).is_out = true;
        batch.epoch = Some(table.epoch);
        batch.add(number, locked);
        if table.is_only_one() {
            drop(table);
            return Ok(Some(batch));
        }
        drop(table);
        batch.give_back()?;
        self.refresh()?;
        Ok(None)
    }

    /// Whether one slot is the only one that could be had; looks whether the semaphore was resized.
    pub(crate) fn has_only_one(&self) -> Result<bool> {
        let has_changed = {
            let table = self.table();
            table.generation != table.signs.generation()
        };
        if has_changed {
            self.refresh()?;
        }
        Ok(self.table().is_only_one())
    }

    pub(crate) fn nothing(self: &Arc<Self>) -> Batch {
        Batch { slots: Arc::clone(self), epoch: None, first: None, more: Vec::new() }
    }

    /// How many could be had at this moment.
    ///
    /// Asked slot by slot with shared locks, so that two who ask are not in each other's way. Who tries to
    /// take a slot meanwhile is refused it; so they are told afterwards, as by a release.
    pub(crate) fn available(self: &Arc<Self>) -> Result<u32> {
        self.refresh()?;
        let (capacity, excess) = {
            let table = self.table();
            (table.capacity, table.excess.clone())
        };
        let is_free = |number: u32| -> Result<bool> {
            let slot = match self.slot(number) {
                Err(error) if self.is_for_others_to_create(number, &error) => return Ok(false),
                slot => slot?,
            };
            if self.table().seat(number).is_out {
                return Ok(false);
            }
            let asked = slot.try_take_checking(Mode::Shared, || true, true)?;
            Ok(asked.is_some())
        };
        let count = || -> Result<u32> {
            let mut free = 0;
            for number in 0..capacity {
                free += u32::from(is_free(number)?);
            }
            for number in excess {
                free = free.saturating_sub(u32::from(!is_free(number)?));
            }
            Ok(free)
        };
        let free = count();
        self.tell_surely();
        free
    }

    // --------------------------------------------------------------------------------------- waiting

    /// S5. Says that somebody waits.
    pub(crate) fn announce(self: &Arc<Self>) -> Announcement {
        let signs = Arc::clone(&self.table().signs);
        self.waiters.arrive(&signs);
        Announcement { slots: Arc::clone(self), origin: Origin::here(), is_leader: false }
    }

    /// Whether anybody waits but the one who asks, who has announced that they wait.
    pub(crate) fn others_wait(&self) -> bool {
        let signs = Arc::clone(&self.table().signs);
        self.waiters.others(&signs)
    }

    /// Unlocks these slots; who waits is to be told then. With the table as it is after that.
    pub(super) fn give_back(
        &self,
        taken: impl IntoIterator<Item = (u32, FileLock)>,
    ) -> (MutexGuard<'_, Table>, Result<()>) {
        let mut result = Ok(());
        let mut table = None;
        for (number, locked) in taken {
            drop(table.take());
            let released = locked.release();
            let table = table.insert(self.table());
            table.seat(number).is_out = false;
            table.start = number;
            result = result.and(released);
        }
        (table.unwrap_or_else(|| self.table()), result)
    }

    /// S6. After slots were unlocked: tells who waits.
    pub(super) fn tell(&self, table: MutexGuard<'_, Table>) {
        // The unlocking before and the look below must not change places: who waits sets the sign and looks
        // at the slots then. The system calls alone do not promise it, a full barrier of this processor
        // does.
        fence(Ordering::SeqCst);
        let is_wanted = table.signs.is_raised();
        self.wanted.store(is_wanted, Ordering::Relaxed);
        if !is_wanted {
            return;
        }
        let signs = Arc::clone(&table.signs);
        drop(table);
        match self.waiters.lock_if_no_waiter() {
            Some(_alone) => self.wanted.store(!signs.lower(), Ordering::Relaxed),
            // S9. The only one is waited for in the kernel.
            _ if self.table().is_only_one() => {}
            _ => self.poke(&signs),
        }
    }

    /// The same, but who waits may have met held what is free, and not be in the kernel's queue for it.
    pub(crate) fn tell_surely(&self) {
        fence(Ordering::SeqCst); // as in `tell`
        let signs = Arc::clone(&self.table().signs);
        if signs.is_raised() {
            self.poke(&signs);
        }
    }

    /// S7. Changes the directory, so that its watchers look: by a name that comes or goes. If it can neither
    /// be made (it is there) nor be removed (it is not), somebody else has just removed it, and that is an
    /// event after our release as well. A second name of a file needs no opening and closing, which would
    /// be more events. Where the directory cannot be changed (it is full, or another's), a file in it is.
    fn poke(&self, signs: &SharedFlags) {
        let poke = self.directory.join("poke");
        let made = match std::fs::hard_link(self.directory.join("waiters"), &poke) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                sys::create_new(&poke, self.access.bits()).map(drop) // no hard links here
            }
            linked => linked,
        };
        let Err(error) = made else { return };
        let was_there = error.kind() == io::ErrorKind::AlreadyExists;
        match std::fs::remove_file(&poke) {
            Ok(()) => {}
            Err(error) if was_there && error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => signs.stir(),
        }
    }

    // -------------------------------------------------------------------------------------- resizing

    /// S3. One at a time; the capacity first, then the sign that it has changed, then the poke.
    pub(crate) fn resize(&self, permits: u32) -> Result<()> {
        check_permits(&self.directory, permits, MAX_PERMITS)?;
        let turn = LockFile::open(&self.directory.join("resize"), self.access)?;
        let turn = turn.take(Mode::Exclusive)?;
        self.refresh()?;
        let path: Arc<Path> = self.directory.join("capacity").into();
        let failed = |operation| move |source| Error::io(operation, &self.directory, source);
        let known = capacity::read(&path)?;
        create_slots(&self.directory, self.access, known..permits.min(MAX_CREATED_AT_ONCE))?;
        if known != permits {
            sys::replace(&path, capacity::text(permits).as_bytes(), self.access.bits())
                .map_err(failed("resize"))?;
        }
        // Also if it was that already: who wrote it may have died before saying so.
        let signs = Arc::clone(&self.table().signs);
        signs.next_generation().map_err(failed("announce a resize of"))?;
        drop(turn);
        self.poke(&signs);
        self.refresh()
    }
}

/// Somebody waits, for as long as this lives.
pub(crate) struct Announcement {
    slots: Arc<Slots>,
    origin: Origin,
    is_leader: bool,
}

impl Announcement {
    /// S5. For the head: whether everybody who releases a slot from now on sees that somebody waits.
    pub(crate) fn renew(&mut self, thorough: bool) -> bool {
        if self.origin.is_here() && !std::mem::replace(&mut self.is_leader, true) {
            self.slots.waiters.lead();
        }
        let signs = Arc::clone(&self.slots.table().signs);
        self.slots.waiters.renew(&signs, thorough)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if self.origin.is_here() {
            self.slots.waiters.leave(self.is_leader); // a forked copy never arrived
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A helper that was started for somebody who has left asks as well.
    #[test]
    fn who_asks_whether_others_wait_takes_nothing_from_the_head_of_its_own_handle() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let open = || Slots::open(&dir.path().join("semaphore"), Some(2), Access::default());
        let (slots, other) = (open().unwrap(), open().unwrap());
        let mut head = slots.announce();
        assert!(!slots.others_wait(), "it is the only one");
        assert!(head.renew(false));
        std::thread::scope(|scope| {
            // As who releases: it must find somebody waiting each time.
            let releases =
                scope.spawn(|| (0..2000).all(|_| other.waiters.lock_if_no_waiter().is_none()));
            let mut is_told = true;
            while !releases.is_finished() {
                is_told &= slots.others_wait();
            }
            assert!(releases.join().unwrap(), "nobody seemed to wait");
            assert!(is_told);
        });
        drop(head);
        assert!(!slots.others_wait());
    }
}
