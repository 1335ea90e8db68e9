//! The files of a semaphore: its slots, how many there are, who of this process has which, and the signs by
//! which its processes see that somebody waits or that it was resized. Knows files and knows no time.
//! Rules S1 to S7 of `docs/PROTOCOL.md`. Names `error`, `holder` (the slots' names), `options`, `slot` and
//! `sys`.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::holder::{slot_name, slots_in};
use crate::options::Access;
use crate::slot::{Locked, Slot, open_plain};
use crate::sys::{self, Directory, FileId, Mode, Origin};

/// Each slot is a file, and a process that waits has all of them open.
pub(crate) const MOST_PERMITS: u32 = 4096;
/// The longest text of a capacity that is read.
const MOST_BYTES: u64 = 32;
/// How often in a row the semaphore may turn out to have been resized while a slot was taken.
const MOST_CHANGES: u32 = 1000;

/// A semaphore's directory.
pub(crate) struct Slots {
    directory: Arc<Path>,
    access: Access,
    network: bool,
    /// Held shared by who waits, for as long as they do.
    waiters: Arc<Slot>,
    presence: Mutex<Presence>,
    /// Whether somebody waited when that was last looked at.
    wanted: AtomicBool,
    table: Mutex<Table>,
}

/// One lock for all who wait in this process.
struct Presence {
    waiting: usize,
    locked: Option<Locked>,
}

/// What this process knows of the semaphore.
struct Table {
    /// The process in which `is_out` was marked.
    origin: Origin,
    /// The directory of the slots, kept open, and which one it is.
    within: (Arc<Directory>, FileId),
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

#[derive(Default, Clone)]
struct Seat {
    slot: Option<Arc<Slot>>,
    /// This process has it, or is trying to: to try would only open another descriptor.
    is_out: bool,
}

/// Which `capacity` file was read.
type Stamp = Option<(FileId, Option<SystemTime>)>;

/// Two files that are never locked, and whose length is what they say: to ask costs a fifth of a lock and
/// unlock, and rule 7 does not forbid it on Windows.
struct Signs {
    /// Empty if nobody waits (S5).
    queued: File,
    /// One byte longer with each time that the semaphore was resized (S3).
    resized: File,
    ids: [FileId; 2],
}

fn length(mut file: &File) -> Option<u64> {
    file.seek(SeekFrom::End(0)).ok()
}

impl Signs {
    fn names(directory: &Path) -> [Arc<Path>; 2] {
        ["queued", "resized"].map(|name| directory.join(name).into())
    }

    fn open(directory: &Path, access: Access) -> Result<Self> {
        let [queued, resized] = Self::names(directory);
        let (queued, first) = open_plain(&queued, access)?;
        let (resized, second) = open_plain(&resized, access)?;
        Ok(Self { queued, resized, ids: [first, second] })
    }

    fn are_current(&self, directory: &Path) -> bool {
        let mut names = Self::names(directory).into_iter().zip(self.ids);
        names.all(|(path, id)| sys::names(&path, id).unwrap_or(false))
    }

    /// A length that cannot be had is taken for a changed one.
    fn generation(&self) -> u64 {
        length(&self.resized).unwrap_or(u64::MAX)
    }
}

impl Slots {
    /// With `permits` the semaphore is made if it is not there, and must have that many if it is.
    pub(crate) fn open(path: &Path, permits: Option<u32>, access: Access) -> Result<Arc<Self>> {
        if !sys::SUPPORTED {
            let source = io::Error::from(io::ErrorKind::Unsupported);
            return Err(Error::Unsupported { path: path.into(), source });
        }
        let directory: Arc<Path> = match std::path::absolute(path) {
            // Without a slash at its end, which would follow a symbolic link.
            Ok(absolute) => absolute.components().collect::<PathBuf>().into(),
            Err(source) => return Err(Error::io("resolve", &path.into(), source)),
        };
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
            within: open_directory(&directory)?,
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
            waiters,
            presence: Mutex::new(Presence { waiting: 0, locked: None }),
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
            let signs = Arc::clone(&self.table().signs);
            self.wanted.store(length(&signs.queued) != Some(0), Ordering::Relaxed);
        }
        self.wanted.load(Ordering::Relaxed)
    }

    /// Adds free slots to `batch` until it has `count`: whether it has. Never blocks. What was gathered stays
    /// gathered.
    ///
    /// `check_refusal`: a slot that is refused is looked up again, whether it is still the one at its path.
    pub(crate) fn gather(
        &self,
        batch: &mut Batch,
        count: u32,
        check_refusal: bool,
    ) -> Result<bool> {
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
            for step in 0..capacity {
                // With slots in excess only all that are free tell how many permits are out (S3).
                if batch.len() >= count && !has_excess {
                    break;
                }
                let number = (start % capacity + step) % capacity;
                let taken;
                (taken, table) = self.try_slot(table, number, check_refusal)?;
                if let Some(locked) = taken {
                    batch.add(number, locked);
                }
            }
            // S3. After locking, so that what was taken under an old capacity is not kept under a new one.
            let is_current = table.is_current(capacity, has_excess);
            drop(table);
            if is_current {
                if has_excess {
                    self.leave_room(batch, count)?;
                }
                return Ok(batch.len() >= count);
            }
            batch.give_back()?;
            self.refresh()?;
        }
        let source = io::Error::other("it was resized again and again");
        Err(Error::io("take a permit of", &self.directory, source))
    }

    /// Takes that slot if it is free; it is marked as ours then. The table is let go for the system calls.
    fn try_slot<'a>(
        &'a self,
        mut table: MutexGuard<'a, Table>,
        number: u32,
        check_refusal: bool,
    ) -> Result<(Option<Locked>, MutexGuard<'a, Table>)> {
        loop {
            let seat = table.seat(number);
            if seat.is_out {
                return Ok((None, table));
            }
            let Some(slot) = &seat.slot else {
                drop(table);
                self.slot(number)?;
                table = self.table();
                continue;
            };
            let slot = Arc::clone(slot);
            seat.is_out = true;
            drop(table);
            let taken = slot.try_take_checking(Mode::Exclusive, || check_refusal);
            let mut table = self.table();
            if !matches!(taken, Ok(Some(_))) {
                table.seat(number).is_out = false;
            }
            return taken.map(|taken| (taken, table));
        }
    }

    /// The slot, opened where it is not yet.
    pub(crate) fn slot(&self, number: u32) -> Result<Arc<Slot>> {
        if let Some(slot) = &self.table().seat(number).slot {
            return Ok(Arc::clone(slot));
        }
        // S2. With a second name in a directory that `rm slot.*` does not reach.
        let spare = self.directory.join(".slots").join(number.to_string());
        let path = self.directory.join(slot_name(number));
        let within = Arc::clone(&self.table().within.0);
        let opened = Slot::open_kept(&path, Some(spare.into()), self.access, Some(within))?;
        Ok(Arc::clone(self.table().seat(number).slot.get_or_insert(opened)))
    }

    /// S3. The semaphore has shrunk, and slots beyond its capacity are still out: with `free` slots in our hands
    /// at most `capacity - free` of the others are out, so we may keep so many that with those in excess
    /// it is the capacity at most.
    fn leave_room(&self, batch: &mut Batch, count: u32) -> Result<()> {
        let excess = self.table().excess.clone();
        let mut drained = Vec::new();
        for number in &excess {
            let (taken, table) = self.try_slot(self.table(), *number, true)?;
            drop(table);
            if let Some(locked) = taken {
                self.give_back([(*number, locked)]).1?;
                drained.push(*number);
            }
        }
        self.table().excess.retain(|number| !drained.contains(number));
        let room = batch.len() as usize - (excess.len() - drained.len()).min(batch.len() as usize);
        batch.cut(if room >= count as usize { count } else { 0 })
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
        let mut free = 0;
        let is_free = |number: u32| -> Result<bool> {
            let slot = self.slot(number)?;
            let mut table = self.table();
            if std::mem::replace(&mut table.seat(number).is_out, true) {
                return Ok(false);
            }
            drop(table);
            let asked = slot.try_take_checking(Mode::Shared, || true);
            let is_free = asked.map(|asked| asked.is_some());
            self.table().seat(number).is_out = false;
            is_free
        };
        for number in 0..capacity {
            free += u32::from(is_free(number)?);
        }
        for number in excess {
            free = free.saturating_sub(u32::from(!is_free(number)?));
        }
        self.tell(self.table());
        Ok(free)
    }

    // --------------------------------------------------------------------------------------- waiting

    /// S5. Says that somebody waits.
    pub(crate) fn announce(self: &Arc<Self>) -> Announcement {
        self.presence().waiting += 1;
        let announcement = Announcement { slots: Arc::clone(self) };
        // Who holds it exclusively does so for some microseconds, unless it was stopped; the head asks again.
        for _ in 0..10 {
            if announcement.renew(false) {
                break;
            }
            std::thread::yield_now();
        }
        announcement
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
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
        let nobody = length(&table.signs.queued) == Some(0);
        self.wanted.store(!nobody, Ordering::Relaxed);
        if nobody {
            return;
        }
        let signs = Arc::clone(&table.signs);
        drop(table);
        match self.waiters.try_take_checking(Mode::Exclusive, || false) {
            // Nobody waits, and nobody begins to while we hold this.
            Ok(Some(alone)) => {
                let lowered = signs.queued.set_len(0).is_ok();
                self.wanted.store(!lowered, Ordering::Relaxed);
                drop(alone);
            }
            // S9. The only one is waited for in the kernel.
            _ if self.table().is_only_one() => {}
            _ => self.poke(),
        }
    }

    /// S7. Changes the directory, so that its watchers look: by a name that comes or goes. If it can neither
    /// be made (it is there) nor be removed (it is not), somebody else has just removed it, and that is an
    /// event after our release as well. A second name of a file needs no opening and closing, which would
    /// be more events.
    pub(crate) fn poke(&self) {
        let poke = self.directory.join("poke");
        let made = match std::fs::hard_link(self.directory.join("queued"), &poke) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                sys::create_new(&poke, self.access.bits()).map(drop) // no hard links here
            }
            linked => linked,
        };
        if made.is_err() {
            let _ = std::fs::remove_file(&poke);
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
        if read_capacity(&path)? == permits {
            return Ok(());
        }
        let failed = |operation| move |source| Error::io(operation, &self.directory, source);
        sys::replace(&path, text(permits).as_bytes(), self.access.bits())
            .map_err(failed("resize"))?;
        let signs = Arc::clone(&self.table().signs);
        // Any change will do, should it be as long as a file can be.
        let longer = length(&signs.resized).map_or(0, |length| length.saturating_add(1));
        let changed = signs.resized.set_len(longer).or_else(|_| signs.resized.set_len(0));
        changed.map_err(failed("announce a resize of"))?;
        drop(turn);
        self.poke();
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
        if !sys::names(directory, self.within.1).unwrap_or(false) {
            // Another one has its path: what we know of slots is of the old one.
            self.within = open_directory(&directory.into())?;
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
        self.excess = there.into_iter().filter(|slot| *slot >= self.capacity).collect();
        Ok(())
    }
}

fn open_directory(path: &Arc<Path>) -> Result<(Arc<Directory>, FileId)> {
    let opened = Directory::open(path).and_then(|opened| Ok((opened.identity()?, opened)));
    let (id, opened) = opened.map_err(|source| Error::io("open", path, source))?;
    Ok((Arc::new(opened), id))
}

fn stamp(directory: &Path) -> Stamp {
    let path = directory.join("capacity");
    let changed = std::fs::symlink_metadata(&path).ok()?.modified().ok();
    Some((sys::path_identity(&path).ok()?, changed))
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

    /// Gives back all but the first so many.
    fn cut(&mut self, kept: u32) -> Result<()> {
        let surplus = self.more.split_off((kept.max(1) as usize - 1).min(self.more.len()));
        let first = if kept == 0 { self.first.take() } else { None };
        // What a fork copied is not given back (rule 4).
        let ours = |taken: &(u32, Locked)| taken.1.is_here();
        let mut taken = first.into_iter().chain(surplus).filter(ours).peekable();
        if taken.peek().is_none() {
            return Ok(());
        }
        let (table, result) = self.slots.give_back(taken);
        self.slots.tell(table);
        result
    }

    pub(crate) fn give_back(&mut self) -> Result<()> {
        self.cut(0)
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
}

impl Announcement {
    /// S5. Whether everybody who releases a slot from now on sees that somebody waits. It may be refused for the
    /// moment in which somebody else looks whether anybody does (S6).
    pub(crate) fn renew(&self, thorough: bool) -> bool {
        let slots = &self.slots;
        let signs = Arc::clone(&slots.table().signs);
        let mut presence = slots.presence();
        let is_stale = |locked: &Locked| {
            !locked.is_here() || thorough && !slots.waiters.is_valid(locked).unwrap_or(false)
        };
        if presence.locked.as_ref().is_none_or(is_stale) {
            presence.locked = None;
            presence.locked =
                slots.waiters.try_take_checking(Mode::Shared, || thorough).ok().flatten();
        }
        let is_raised = presence.locked.is_some()
            // It is lowered only by who holds exclusively what we hold.
            && (length(&signs.queued).is_some_and(|length| length > 0)
                || signs.queued.set_len(1).is_ok());
        fence(Ordering::SeqCst); // before any look at the slots: see `tell`
        is_raised
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let mut presence = self.slots.presence();
        presence.waiting = presence.waiting.saturating_sub(1);
        if presence.waiting == 0 {
            presence.locked = None;
        }
    }
}

// ---------------------------------------------------------------------------------------- the capacity

pub(crate) fn check_permits(directory: &Arc<Path>, requested: u32, most: u32) -> Result<()> {
    if (1..=most).contains(&requested) {
        return Ok(());
    }
    Err(Error::InvalidPermits { path: Arc::clone(directory), requested, most })
}

fn text(permits: u32) -> String {
    format!("{permits}\n")
}

/// S1. The capacity of the semaphore, which is made with `permits` if it is not there.
fn establish(directory: &Arc<Path>, permits: Option<u32>, access: Access) -> Result<u32> {
    let path: Arc<Path> = directory.join("capacity").into();
    for _ in 0..MOST_CHANGES {
        match std::fs::symlink_metadata(directory) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::NotRegularFile {
                    path: Arc::clone(directory),
                    found: sys::describe(found.file_type()),
                    wanted: "a directory",
                });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("look up", directory, error));
            }
            _ => {}
        }
        match (read_capacity(&path), permits) {
            (Err(Error::Io { source, .. }), Some(permits))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                sys::create_directories(directory, access.bits())
                    .map_err(|source| Error::io("create", directory, source))?;
                match sys::write_new(&path, text(permits).as_bytes(), access.bits()) {
                    Ok(()) => return Ok(permits),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound && !directory.exists() => {}
                    Err(source) => return Err(Error::io("create", &path, source)),
                }
            }
            (Err(Error::Io { source, .. }), None) if source.kind() == io::ErrorKind::NotFound => {
                let text = "there is no semaphore; open it with a number of permits to make it";
                let source = io::Error::new(io::ErrorKind::NotFound, text);
                return Err(Error::io("open", directory, source));
            }
            (other, _) => return other,
        }
    }
    let source = io::Error::other("it was removed each time between making and reading it");
    Err(Error::io("open", &path, source))
}

fn read_capacity(path: &Arc<Path>) -> Result<u32> {
    let failed = |source| Error::io("read", path, source);
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(Error::not_regular(path, sys::describe(found.file_type())));
    }
    let file = sys::open_to_read(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::not_regular(path, "no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    parse(&bytes).ok_or_else(|| {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(16)]).escape_debug().to_string();
        let problem = format!(
            "it should hold the number of permits, 1 to {MOST_PERMITS}, and begins with \"{shown}\"; \
             write the number into it, or remove the semaphore's directory while nobody uses it"
        );
        Error::Corrupt { path: Arc::clone(path), problem }
    })
}

/// Decimal digits and at most a line's end.
fn parse(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok().filter(|_| bytes.len() as u64 <= MOST_BYTES)?;
    let digits = text.trim_end_matches(['\n', '\r']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|permits| (1..=MOST_PERMITS).contains(permits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_is_digits_and_nothing_else() {
        for (text, permits) in [("1", 1), ("4\n", 4), ("12\r\n", 12), ("4096\n", 4096), ("0004", 4)]
        {
            assert_eq!(parse(text.as_bytes()), Some(permits), "{text:?}");
        }
        for text in [
            "",
            "\n",
            "0\n",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "0x4",
            "4097",
            "99999999999999999999",
            "١",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"\xff\xfe"), None);
        assert_eq!(parse(&[b'0'; 40]), None);
        assert_eq!(parse(&[0; 8]), None);
    }
}
