//! The files of a semaphore: its slots, how many there are, who of this process has which, and the signs by
//! which its processes see that somebody waits or that it was resized. Knows files and knows no time.
//! Rules S1 to S7 of `docs/PROTOCOL.md`. Names `error`, `holder` (the slots' names), `options`, `slot` and
//! `sys`.

mod capacity;
mod signs;
mod waiters;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use self::capacity::check_permits;
use self::capacity::{MOST_PERMITS, Stamp, establish, stamp};
use self::signs::Signs;
use self::waiters::Waiters;
use crate::error::{Error, Result};
use crate::holder::{SPARES, slot_name, slots_in};
use crate::options::Access;
use crate::slot::{Locked, Slot, absolute};
use crate::sys::{self, FileId, Mode, Origin};

/// How often in a row the semaphore may turn out to have been resized while a slot was taken.
const MOST_CHANGES: u32 = 1000;

/// A semaphore's directory.
pub(crate) struct Slots {
    directory: Arc<Path>,
    access: Access,
    network: bool,
    waiters: Waiters,
    /// Whether somebody waited when that was last looked at.
    wanted: AtomicBool,
    table: Mutex<Table>,
}

/// What this process knows of the semaphore.
struct Table {
    /// The process in which `is_out` was marked.
    origin: Origin,
    /// Which directory the slots are in.
    directory: FileId,
    signs: Arc<Signs>,
    capacity: u32,
    /// The length of `resized` before the capacity was read.
    generation: u64,
    stamp: Stamp,
    /// Slots beyond the capacity that were not seen free since it shrank (S3).
    excess: Vec<u32>,
    seats: Vec<Seat>,
    /// Where to begin looking: the slot that was had last is likely to be free, and is open.
    start: u32,
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
    pub(crate) is_head: bool,
}

impl Gathering {
    pub(crate) const CAREFUL: Self =
        Self { check_taken: true, check_refused: true, is_head: false };
}

#[derive(Default, Clone)]
struct Seat {
    slot: Option<Arc<Slot>>,
    /// This handle has it: to try would only open another descriptor.
    is_out: bool,
}

impl Slots {
    /// With `permits` the semaphore is made if it is not there, and must have that many if it is.
    pub(crate) fn open(path: &Path, permits: Option<u32>, access: Access) -> Result<Arc<Self>> {
        // Without a slash at its end, which would follow a symbolic link.
        let directory: Arc<Path> = absolute(path)?.components().collect::<PathBuf>().into();
        if let Some(permits) = permits {
            check_permits(&directory, permits, MOST_PERMITS)?;
        }
        let capacity = establish(&directory, permits, access)?;
        if let Some(requested) = permits.filter(|permits| *permits != capacity) {
            return Err(Error::CapacityMismatch { path: directory, stored: capacity, requested });
        }
        let waiters = Slot::open(&directory.join("waiters"), access)?;
        let mut table = Table {
            origin: Origin::here(),
            directory: identity(&directory)?,
            signs: Arc::new(Signs::open(&directory, access)?),
            capacity,
            generation: 0,
            stamp: None,
            excess: Vec::new(),
            seats: Vec::new(),
            start: 0,
        };
        table.read(&directory, access)?;
        Ok(Arc::new(Self {
            network: waiters.is_network(),
            directory,
            access,
            waiters: Waiters::new(waiters),
            wanted: AtomicBool::new(true),
            table: Mutex::new(table),
        }))
    }

    pub(crate) fn directory(&self) -> &Arc<Path> {
        &self.directory
    }

    pub(crate) fn is_network(&self) -> bool {
        self.network
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.origin.is_here() {
            // A forked copy: what is out is its parent's.
            table.origin = Origin::here();
            table.seats.iter_mut().for_each(|seat| seat.is_out = false);
        }
        table
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
        if is_current { Ok(()) } else { table.read(&self.directory, self.access) }
    }

    /// Whether somebody waits, as far as the sign says: it may be what somebody left who died.
    pub(crate) fn is_wanted(&self, look: bool) -> bool {
        if look {
            let is_raised = self.table().signs.is_raised();
            self.wanted.store(is_raised, Ordering::Relaxed);
        }
        self.wanted.load(Ordering::Relaxed)
    }

    /// Adds free slots to `batch` until it has `count`: whether it has. Never blocks. What was gathered stays
    /// gathered.
    pub(crate) fn gather(&self, batch: &mut Batch, count: u32, how: Gathering) -> Result<bool> {
        for _ in 0..MOST_CHANGES {
            let mut table = self.table();
            let (start, capacity, has_excess) =
                (table.start, table.capacity, !table.excess.is_empty());
            if count > capacity {
                drop(table);
                self.refresh()?;
                let capacity = self.table().capacity;
                check_permits(&self.directory, count, capacity)?;
                continue;
            }
            let mut problem = None;
            for step in 0..capacity {
                // With slots in excess only all that are free tell how many permits are out (S3).
                if batch.len() >= count && !has_excess {
                    break;
                }
                let number = (start % capacity + step) % capacity;
                let taken = self.try_slot(table, number, how);
                table = self.table();
                match taken {
                    Ok(Some(locked)) => batch.add(number, locked),
                    Ok(None) => {}
                    // It may be that one slot's alone, or that another descriptor is not to be had.
                    Err(error) => problem = Some(error),
                }
            }
            // S3. After locking, so that what was taken under an old capacity is not kept under a new one.
            let is_current = table.is_current(capacity, has_excess);
            drop(table);
            if is_current {
                if has_excess {
                    self.leave_room(batch, count, how.is_head)?;
                }
                return match problem {
                    Some(error) if batch.len() < count => Err(error),
                    _ => Ok(batch.len() >= count),
                };
            }
            batch.give_back()?;
            self.refresh()?;
        }
        let source = io::Error::other("it was resized again and again");
        Err(Error::io("take a permit of", &self.directory, source))
    }

    /// Takes that slot if it is free; it is marked as ours then. The table is let go for the system calls.
    /// Whoever gives it back unmarks it, and tells then.
    fn try_slot<'a>(
        &'a self,
        mut table: MutexGuard<'a, Table>,
        number: u32,
        how: Gathering,
    ) -> Result<Option<Locked>> {
        loop {
            let seat = table.seat(number);
            if seat.is_out {
                return Ok(None);
            }
            let Some(slot) = &seat.slot else {
                drop(table);
                self.slot(number)?;
                table = self.table();
                continue;
            };
            let slot = Arc::clone(slot);
            drop(table);
            let taken =
                slot.try_take_checking(Mode::Exclusive, || how.check_refused, how.check_taken);
            // Marked when it is had and not while it is tried for: who met a mark that then went away without a
            // word would have missed a slot.
            if matches!(taken, Ok(Some(_))) {
                self.table().seat(number).is_out = true;
            }
            return taken;
        }
    }

    /// The slot, opened where it is not yet.
    pub(crate) fn slot(&self, number: u32) -> Result<Arc<Slot>> {
        if let Some(slot) = &self.table().seat(number).slot {
            return Ok(Arc::clone(slot));
        }
        // S2. With a second name in a directory that `rm slot.*` does not reach.
        let spare = self.directory.join(SPARES).join(number.to_string());
        let path = self.directory.join(slot_name(number));
        let opened = Slot::open_kept(&path, Some(spare.into()), self.access)?;
        Ok(Arc::clone(self.table().seat(number).slot.get_or_insert(opened)))
    }

    /// S3. The semaphore has shrunk, and slots beyond its capacity are still out: with `free` slots in our hands
    /// at most `capacity - free` of the others are out, so we may keep so many that with those in excess
    /// it is the capacity at most.
    fn leave_room(&self, batch: &mut Batch, count: u32, is_head: bool) -> Result<()> {
        let excess = self.table().excess.clone();
        let mut drained = Vec::new();
        for number in &excess {
            // One that cannot be looked at is taken for held.
            let taken = self.try_slot(self.table(), *number, Gathering::CAREFUL);
            drained.extend(taken.ok().flatten().map(|locked| (*number, locked)));
        }
        let held = excess.len() - drained.len();
        let is_free: Vec<u32> = drained.iter().map(|(number, _)| *number).collect();
        let (mut table, result) = self.give_back(drained);
        table.excess.retain(|number| !is_free.contains(number));
        drop(table);
        if !is_head && !is_free.is_empty() {
            self.tell_surely(); // the head may have met them held
        }
        result?;
        let room = (batch.len() as usize).saturating_sub(held);
        // The head need not tell itself; it would hear itself and look again, for ever.
        batch.cut(if room >= count as usize { count } else { 0 }, !is_head)
    }

    /// Makes a slot that was waited for by its own the first of a batch, if the semaphore is what it was.
    pub(crate) fn adopt(self: &Arc<Self>, number: u32, locked: Locked) -> Result<Option<Batch>> {
        let mut batch = self.nothing();
        let mut table = self.table();
        table.seat(number).is_out = true;
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
        Batch { slots: Arc::clone(self), first: None, more: Vec::new() }
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
            let slot = self.slot(number)?;
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
        Announcement { slots: Arc::clone(self), origin: Origin::here(), is_head: false }
    }

    /// Whether anybody waits but the one who asks, who has announced that they wait.
    pub(crate) fn others_wait(&self) -> bool {
        let signs = Arc::clone(&self.table().signs);
        self.waiters.others(&signs)
    }

    /// Unlocks these slots; who waits is to be told then. With the table as it is after that.
    fn give_back(
        &self,
        taken: impl IntoIterator<Item = (u32, Locked)>,
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
    fn tell(&self, table: MutexGuard<'_, Table>) {
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
        match self.waiters.nobody() {
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
    fn poke(&self, signs: &Signs) {
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
        check_permits(&self.directory, permits, MOST_PERMITS)?;
        let turn = Slot::open(&self.directory.join("resize"), self.access)?;
        let turn = turn.take(Mode::Exclusive)?;
        self.refresh()?;
        let path: Arc<Path> = self.directory.join("capacity").into();
        let failed = |operation| move |source| Error::io(operation, &self.directory, source);
        if capacity::read(&path)? != permits {
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

impl Table {
    /// S3. Whether the semaphore was not resized since these were read.
    fn is_current(&self, capacity: u32, had_excess: bool) -> bool {
        self.capacity == capacity
            && self.excess.is_empty() != had_excess
            && self.generation == self.signs.generation()
    }

    fn is_only_one(&self) -> bool {
        self.capacity == 1 && self.excess.is_empty() && self.generation == self.signs.generation()
    }

    fn seat(&mut self, number: u32) -> &mut Seat {
        let index = number as usize;
        if index >= self.seats.len() {
            self.seats.resize(index + 1, Seat::default());
        }
        &mut self.seats[index]
    }

    /// S3. The sign first, the capacity then, what is there last: whoever resizes goes the other way.
    fn read(&mut self, directory: &Path, access: Access) -> Result<()> {
        let known = self.capacity;
        // It may have been removed under us: with the capacity that we know it is made again.
        let stamp = stamp(directory);
        if stamp.is_none() {
            establish(&directory.into(), Some(known), access)?;
        }
        let found = identity(directory)?;
        if found != self.directory {
            // Another one has its path: what we know of slots is of the old one.
            self.directory = found;
            self.seats.clear();
        }
        if !self.signs.are_current(directory) {
            self.signs = Arc::new(Signs::open(directory, access)?);
        }
        self.generation = self.signs.generation();
        self.capacity = establish(&directory.into(), Some(known), access)?;
        self.stamp = stamp;
        let there = slots_in(directory);
        let there = there.map_err(|source| Error::io("list", &directory.into(), source))?;
        // Of what somebody put there with a number that no semaphore ever had, nobody has a permit.
        let had_once = self.capacity..MOST_PERMITS;
        self.excess = there.into_iter().filter(|slot| had_once.contains(slot)).collect();
        Ok(())
    }
}

fn identity(directory: &Path) -> Result<FileId> {
    let found = sys::path_identity(directory);
    found.map_err(|source| Error::io("look up", &directory.into(), source))
}

/// Slots that are held together. Given back when dropped.
pub(crate) struct Batch {
    slots: Arc<Slots>,
    /// Most are of one, and need no memory besides.
    first: Option<(u32, Locked)>,
    more: Vec<(u32, Locked)>,
}

impl Batch {
    pub(crate) fn taken(&self) -> impl Iterator<Item = &(u32, Locked)> {
        self.first.iter().chain(&self.more)
    }

    pub(crate) fn directory(&self) -> &Arc<Path> {
        &self.slots.directory
    }

    fn len(&self) -> u32 {
        // At most MOST_PERMITS.
        u32::from(self.first.is_some()) + u32::try_from(self.more.len()).unwrap_or(u32::MAX)
    }

    fn add(&mut self, number: u32, locked: Locked) {
        if self.first.is_none() {
            self.first = Some((number, locked));
        } else {
            self.more.push((number, locked));
        }
    }

    /// Rule 4. From now on the programs that this process starts hold them as well.
    pub(crate) fn bequeath(&mut self) -> Result<()> {
        let mut taken = self.first.iter_mut().chain(&mut self.more);
        taken.try_for_each(|(_, locked)| locked.bequeath())
    }

    /// Gives back all but the first so many, and tells those who wait.
    fn cut(&mut self, kept: u32, tells: bool) -> Result<()> {
        let surplus = self.more.split_off((kept.max(1) as usize - 1).min(self.more.len()));
        let first = if kept == 0 { self.first.take() } else { None };
        // What a fork copied is not given back (rule 4).
        let ours = |taken: &(u32, Locked)| taken.1.is_here();
        let mut taken = first.into_iter().chain(surplus).filter(ours).peekable();
        if taken.peek().is_none() {
            return Ok(());
        }
        let (table, result) = self.slots.give_back(taken);
        if tells {
            self.slots.tell(table);
        }
        result
    }

    pub(crate) fn give_back(&mut self) -> Result<()> {
        self.cut(0, true)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let _ = self.give_back();
    }
}

/// Somebody waits, for as long as this lives.
pub(crate) struct Announcement {
    slots: Arc<Slots>,
    origin: Origin,
    is_head: bool,
}

impl Announcement {
    /// S5. For the head: whether everybody who releases a slot from now on sees that somebody waits.
    pub(crate) fn renew(&mut self, thorough: bool) -> bool {
        if self.origin.is_here() && !std::mem::replace(&mut self.is_head, true) {
            self.slots.waiters.lead();
        }
        let signs = Arc::clone(&self.slots.table().signs);
        self.slots.waiters.renew(&signs, thorough)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if self.origin.is_here() {
            self.slots.waiters.leave(self.is_head); // a forked copy never arrived
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A helper that was started for somebody who has left asks as well.
    #[test]
    fn who_asks_whether_others_wait_takes_nothing_from_the_head_of_its_own_handle() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Slots::open(&dir.path().join("semaphore"), Some(2), Access::default());
        let (slots, other) = (open().unwrap(), open().unwrap());
        let mut head = slots.announce();
        assert!(!slots.others_wait(), "it is the only one");
        assert!(head.renew(false));
        std::thread::scope(|scope| {
            // As who releases: it must find somebody waiting each time.
            let releases = scope.spawn(|| (0..2000).all(|_| other.waiters.nobody().is_none()));
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
