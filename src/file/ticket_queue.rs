//! A queue of processes and threads in exact order: each waiter has a place with a ticket, and
//! keeps a FIFO open that the waiter behind it watches. The clock numbers the tickets, and nothing
//! here waits (rules T1 to T6).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::access::Creation;
use crate::error::Result;
use crate::file::open::{open_plain, own_directory};
use crate::fork_safe::ForkSafe;
use crate::printable::printable;
use crate::process::{has_ended, this_process};
use crate::sys::{
    self, Directory, FileId, FileKind, HeldFifo, Mode, Numbering, Origin, Process, WatchedFifo,
};

/// A waiter that finds as many places taken waits in another way.
const MAX_PLACES: usize = 1024;
/// The length of the beginning of the file `tickets`: the mark, the number of the latest ticket,
/// and the number of the latest one that has left. An entry for each place follows.
const HEADER: usize = 24;
/// A file that begins with anything else is another program's, and is left as it is.
const MARK: &[u8; 8] = b"tickets\n";
const LATEST: u64 = 8;
const LEFT: u64 = 16;
/// The length of an entry: the number of the ticket, 0 or [`CHOOSING`]; the ID of its process, the
/// pid namespace and the start of the process; and the length of the label.
const ENTRY: usize = 40;
/// How much of the file one read takes.
const READ: usize = HEADER + 50 * ENTRY;
/// The waiter is about to take a number.
const CHOOSING: u64 = u64::MAX;
/// The bytes of each place in the file `labels`.
const MAX_LABEL: usize = 512;
/// How many places with something unexpected are passed over, and how many places are probed for a
/// dead waiter.
const MAX_PROBLEMS: usize = 8;
const MAX_PROBES: usize = 4;
/// One in this many waiters of a handle compares the files with their names.
const COMPARED: u32 = 16;

/// A queue in a directory, which is created by the first waiter.
pub(crate) struct TicketQueue {
    directory: Arc<Path>,
    /// The file `tickets`.
    path: Arc<Path>,
    creation: Creation,
    opened: ForkSafe<Opened>,
}

struct Opened {
    files: Option<(Arc<Files>, FileId)>,
    /// The place that this handle had last.
    place: usize,
    /// The lock of a place, unless a thread is claiming that place.
    lock: Option<(usize, File)>,
    /// How often a waiter of this handle has joined.
    joined: u32,
}

impl Opened {
    const NONE: Self = Self { files: None, place: 0, lock: None, joined: 0 };
}

/// The directory, and the file `tickets`.
struct Files {
    /// Held, since through a symbolic link at its path FIFOs would be created elsewhere.
    directory: Directory,
    tickets: File,
}

impl Files {
    fn fifo(&self, place: usize) -> PathBuf {
        self.directory.path().join(place.to_string())
    }

    /// The number at a place.
    fn number(&self, place: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        let read = sys::read_at(&self.tickets, &mut bytes, entry_at(place))?;
        Ok(number_at(&bytes[..read], 0))
    }

    /// Whether the place has that ticket.
    fn has(&self, place: usize, number: u64) -> bool {
        self.number(place).is_ok_and(|found| found == number)
    }

    fn open_claim_lock(&self, place: usize, creation: Creation) -> io::Result<File> {
        let path = self.directory.path().join(format!("{place}.lock")).into();
        let opened = open_plain(&path, creation);
        Ok(opened.map_err(|_| io::Error::from(io::ErrorKind::PermissionDenied))?.0)
    }

    /// Clears the number of a waiter that has died. Another process may have claimed the place
    /// meanwhile, and may be choosing a number as the dead one was (rule T4).
    fn clear(&self, place: usize, number: u64, fifo: &WatchedFifo, creation: Creation) {
        if !self.has(place, number) {
            return;
        }
        let Ok(lock) = self.open_claim_lock(place, creation) else { return };
        if sys::try_lock(&lock, Mode::Exclusive).unwrap_or(false) {
            let is_dead = !fifo.has_writer() || self.has_ended(place, number);
            if is_dead && self.has(place, number) {
                let _ = self.set_number(place, 0);
            }
            let _ = sys::unlock(&lock);
        }
    }

    /// Whether the process that has this ticket is known to have ended. A forked copy of it may
    /// have the FIFO open.
    fn has_ended(&self, place: usize, number: u64) -> bool {
        if !self.has(place, number) {
            return false; // read before the process, which is written before it
        }
        let mut bytes = [0; ENTRY];
        let read = sys::read_at(&self.tickets, &mut bytes, entry_at(place));
        let entry = read.is_ok_and(|read| read == ENTRY).then(|| Entry::parse(&bytes));
        let process = entry.filter(|entry| entry.number == number).and_then(Entry::process);
        process.is_some_and(|process| has_ended(&process))
    }

    fn set_number(&self, place: usize, number: u64) -> io::Result<()> {
        sys::write_at(&self.tickets, &number.to_le_bytes(), entry_at(place))
    }

    /// The waiters in their order, at most that many.
    fn waiters(&self, most: usize) -> io::Result<Vec<QueuedProcess>> {
        let table = Table::read(&self.tickets)?;
        let now = sys::nanoseconds();
        let describe = |(number, place): (u64, usize)| {
            let path = self.fifo(place);
            let fifo = WatchedFifo::open_unprimed(&path).ok()?;
            if number == CHOOSING || !fifo.has_writer_at(&path) || !self.has(place, number) {
                return None;
            }
            let entry = Entry::parse(table.entry(place));
            let process = entry.process().filter(|process| !has_ended(process))?;
            let label = Some(entry.label).filter(|length| *length > 0);
            let label = label.and_then(|length| self.label(place, length));
            Some(QueuedProcess { process, waited: now.saturating_sub(number), label })
        };
        let places: Vec<_> = table.ahead_of(CHOOSING, MAX_PLACES).collect();
        Ok(places.into_iter().rev().filter_map(describe).take(most).collect())
    }
}

/// The processes that wait in the queue in `directory`, for a process that does not use the queue.
/// It opens the files only to read them. A queue that is missing, or that this user may not read,
/// has no known waiters.
pub(crate) fn waiters_in(directory: &Path) -> Vec<QueuedProcess> {
    let opened = Directory::open(directory).and_then(|directory| {
        let path = directory.path().join("tickets");
        if !sys::FIFOS || sys::file_kind(&path)? != FileKind::File {
            return Err(io::ErrorKind::NotFound.into()); // opening a FIFO could block (rule 1)
        }
        let tickets = sys::open_to_read(&path)?;
        Ok(Files { directory, tickets })
    });
    opened.and_then(|files| files.waiters(MAX_PLACES)).unwrap_or_default()
}

/// A place in the queue. Dropping it leaves the queue, in the process that joined it.
pub(crate) struct Ticket {
    number: u64,
    place: usize,
    creation: Creation,
    files: Arc<Files>,
    /// Taken out when the ticket leaves.
    fifo: Option<HeldFifo>,
    origin: Origin,
    ahead: Option<Ahead>,
}

/// The next waiter ahead of a ticket.
struct Ahead {
    number: u64,
    place: usize,
    fifo: Arc<WatchedFifo>,
}

/// A waiter as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuedProcess {
    pub(crate) process: Process,
    /// How many nanoseconds it has waited.
    pub(crate) waited: u64,
    pub(crate) label: Option<String>,
}

/// The file `tickets` at one moment.
struct Table(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    number: u64,
    pid: u64,
    namespace: u64,
    started: u64,
    label: u64,
}

fn number_at(bytes: &[u8], offset: usize) -> u64 {
    let number = bytes.get(offset..offset + 8).and_then(|bytes| bytes.try_into().ok());
    number.map_or(0, u64::from_le_bytes)
}

fn entry_at(place: usize) -> u64 {
    (HEADER + place * ENTRY) as u64
}

impl Entry {
    fn parse(bytes: &[u8]) -> Self {
        let [number, pid, namespace, started, label] =
            [0, 8, 16, 24, 32].map(|at| number_at(bytes, at));
        Self { number, pid, namespace, started, label }
    }

    fn bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        let Self { number, pid, namespace, started, label } = self;
        for (bytes, number) in bytes.chunks_mut(8).zip([number, pid, namespace, started, label]) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn of_this_process(number: u64, label: &str) -> Self {
        let process = this_process();
        let namespace = match process.numbering {
            Numbering::Namespace(inode) => inode,
            _ => 0,
        };
        let started = process.started.unwrap_or(0);
        Self { number, pid: process.pid.into(), namespace, started, label: label.len() as u64 }
    }

    fn process(self) -> Option<Process> {
        Some(Process {
            pid: u32::try_from(self.pid).ok()?,
            numbering: match self.namespace {
                0 => Numbering::Unknown,
                inode => Numbering::Namespace(inode),
            },
            started: Some(self.started).filter(|started| *started != 0),
            boot: this_process().boot.clone(), // a waiter has a FIFO of this kernel open
        })
    }
}

impl Table {
    /// A file that another program has written to is an error.
    fn read(file: &File) -> io::Result<Self> {
        let mut bytes = vec![0; READ];
        let mut length = 0;
        loop {
            let read = sys::read_at(file, &mut bytes[length..], length as u64)?;
            length += read;
            if length < bytes.len() || length >= HEADER + MAX_PLACES * ENTRY {
                break;
            }
            bytes.resize(length + READ, 0);
        }
        bytes.truncate(length.min(HEADER + MAX_PLACES * ENTRY));
        if length > 0 && !bytes.starts_with(MARK) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self(bytes))
    }

    /// How many places there are.
    fn len(&self) -> usize {
        self.0.len().saturating_sub(HEADER).div_ceil(ENTRY)
    }

    fn entry(&self, place: usize) -> &[u8] {
        self.0.get(HEADER + place * ENTRY..).unwrap_or_default()
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        (0..self.len()).map(|place| number_at(self.entry(place), 0))
    }

    /// The tickets before `number` at `place`, the last one first; and before these the places of
    /// waiters that are choosing a number, which may be before it as well.
    fn ahead_of(&self, number: u64, place: usize) -> impl Iterator<Item = (u64, usize)> {
        let own = (number, place);
        let before = move |bound: (u64, usize)| {
            let tickets = self.numbers().enumerate().map(|(place, number)| (number, place));
            let ahead = tickets.filter(|ticket| {
                let may_be_ahead = ticket.0 == CHOOSING || *ticket < own;
                ticket.0 != 0 && ticket.1 != own.1 && may_be_ahead && *ticket < bound
            });
            ahead.max()
        };
        std::iter::successors(before((CHOOSING, usize::MAX)), move |last| before(*last))
    }
}

impl TicketQueue {
    pub(crate) fn new(directory: Arc<Path>, creation: Creation) -> Self {
        let path = directory.join("tickets").into();
        Self { directory, path, creation, opened: ForkSafe::new(Opened::NONE, |()| Opened::NONE) }
    }

    /// Creates what a user who may not create files needs to join the queue.
    pub(crate) fn create(&self) -> Result<()> {
        self.files(&mut self.opened.lock(), sys::FIFOS).map(drop)
    }

    /// Whether the files are those that are known; if not, the others are used from now on.
    pub(crate) fn refresh(&self) {
        let mut opened = self.opened.lock();
        opened.files.take_if(|(_, id)| !sys::names(&self.path, *id).unwrap_or(true));
    }

    /// Whether a process may be waiting: a waiter that was killed may count until the next one has
    /// come and gone (rule T5).
    pub(crate) fn may_have_waiters(&self) -> bool {
        let mut opened = self.opened.lock();
        let Ok(Some(files)) = self.files(&mut opened, false) else { return false };
        let mut header = [0; HEADER];
        let read = sys::read_at(&files.tickets, &mut header, 0);
        read.is_ok_and(|read| read == header.len())
            && header.starts_with(MARK)
            && number_at(&header, 8) != number_at(&header, 16)
    }

    /// The processes that wait, in their order, at most that many. One that has died is not among
    /// them, although a forked copy of it may have its FIFO open.
    fn waiters(&self, most: usize) -> Vec<QueuedProcess> {
        let files = self.files(&mut self.opened.lock(), false);
        let Ok(Some(files)) = files else { return Vec::new() };
        files.waiters(most).unwrap_or_default()
    }

    /// The process that waits at the front.
    pub(crate) fn first(&self) -> Option<Process> {
        self.waiters(1).into_iter().next().map(|first| first.process)
    }

    /// The directory and its file `tickets`, which are created only if `creates`.
    fn files(&self, opened: &mut Opened, creates: bool) -> Result<Option<Arc<Files>>> {
        if let Some((files, id)) = &opened.files {
            if !creates || sys::names(&self.path, *id).unwrap_or(false) {
                return Ok(Some(Arc::clone(files)));
            }
            opened.files = None;
        }
        let is_there = || sys::file_kind(&self.path).is_ok_and(|found| found == FileKind::File);
        if !sys::FIFOS || !creates && !is_there() {
            return Ok(None);
        }
        let Ok(directory) = own_directory(&self.directory, self.creation) else { return Ok(None) };
        let path = directory.path().join("tickets").into();
        let Some((tickets, id)) = open_own(&path, self.creation)? else { return Ok(None) };
        if !is_marked(&tickets, creates).unwrap_or(false) {
            return Ok(None);
        }
        let files = Arc::new(Files { directory, tickets });
        opened.files = Some((Arc::clone(&files), id));
        Ok(Some(files))
    }

    /// Joins the queue at its end; never blocks. `None`: there can be no such queue here.
    pub(crate) fn join(&self, label: Option<&str>) -> Option<Ticket> {
        let (files, latest) = {
            let mut opened = self.opened.lock();
            opened.joined = opened.joined.wrapping_add(1);
            // Whether the path still names the files is compared now and then.
            let compares = opened.joined % COMPARED == 1;
            let known = opened.files.as_ref().filter(|_| !compares);
            match known.map(|(files, _)| Arc::clone(files)) {
                Some(files) => (files, opened.place),
                None => (self.files(&mut opened, true).ok()??, opened.place),
            }
        };
        let (place, fifo) = self.claim(&files, latest).ok()??;
        let label = label.map(shortened).unwrap_or_default();
        let joined = self.take_number(&files, place, label);
        let Ok(number) = joined else {
            let _ = files.set_number(place, 0);
            return None;
        };
        self.opened.lock().place = place;
        let (fifo, origin) = (Some(fifo), Origin::here());
        Some(Ticket { number, place, creation: self.creation, files, fifo, origin, ahead: None })
    }

    /// Takes a number for a claimed place, as in Lamport's bakery: who reads the entries after it
    /// has its own number finds each lower one there, or being chosen (rule T3).
    fn take_number(&self, files: &Files, place: usize, label: &str) -> io::Result<u64> {
        let file = &files.tickets;
        if !label.is_empty() {
            let labels = open_own(&files.labels(), self.creation).ok().flatten();
            let (labels, _) = labels.ok_or(io::ErrorKind::PermissionDenied)?;
            sys::write_at(&labels, label.as_bytes(), (place * MAX_LABEL) as u64)?;
        }
        // The process is there before the number: a process that reads the number first never takes
        // this one for a dead process that had the place before.
        let (entry, mut known) = (Entry::of_this_process(CHOOSING, label).bytes(), [0; ENTRY]);
        sys::read_at(file, &mut known, entry_at(place))?;
        if known[8..] != entry[8..] {
            sys::write_at(file, &entry[8..], entry_at(place) + 8)?;
            fence(Ordering::SeqCst);
        }
        files.set_number(place, CHOOSING)?;
        fence(Ordering::SeqCst);
        // Another time namespace has another clock, so the numbers that are there count as well.
        let others = Table::read(file)?;
        let highest = others.numbers().filter(|number| *number != CHOOSING).max().unwrap_or(0);
        let number = sys::nanoseconds().max(highest.saturating_add(1)).min(CHOOSING - 1);
        files.set_number(place, number)?;
        fence(Ordering::SeqCst);
        sys::write_at(file, &number.to_le_bytes(), LATEST)?;
        Ok(number)
    }

    /// A place that no waiter has, and its FIFO.
    fn claim(&self, files: &Files, latest: usize) -> io::Result<Option<(usize, HeldFifo)>> {
        // The place that this handle had last is most probably free.
        if let Some(fifo) = self.claim_place(files, latest).unwrap_or(None) {
            return Ok(Some((latest, fifo)));
        }
        let table = Table::read(&files.tickets)?;
        let known = table.numbers().enumerate();
        let empty = known.filter(|(_, number)| *number == 0).map(|(place, _)| place);
        // Waiters that were killed, of which no other has noticed that.
        let dead = (latest + 1..table.len()).take(MAX_PROBES);
        let mut problems = 0;
        for place in empty.chain(dead).chain(table.len()..MAX_PLACES) {
            match self.claim_place(files, place) {
                Ok(Some(fifo)) => return Ok(Some((place, fifo))),
                Ok(None) => {}
                Err(error) if problems == MAX_PROBLEMS || sys::is_exhausted(&error) => {
                    return Err(error);
                }
                Err(_) => problems += 1,
            }
        }
        Ok(None)
    }

    /// The FIFO of that place, if no process has it open, neither a waiter at the place nor one
    /// behind it.
    fn claim_place(&self, files: &Files, place: usize) -> io::Result<Option<HeldFifo>> {
        let lock = self.take_claim_lock(files, place)?;
        if !sys::try_lock(&lock, Mode::Exclusive)? {
            return Ok(None);
        }
        let claimed = self.claim_locked(files, place);
        sys::unlock(&lock)?;
        self.opened.lock().lock = Some((place, lock));
        claimed
    }

    fn claim_locked(&self, files: &Files, place: usize) -> io::Result<Option<HeldFifo>> {
        let path = files.fifo(place);
        let is_open = match sys::is_fifo_open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sys::create_fifo(&path, self.creation.bits())?;
                sys::is_fifo_open(&path)?
            }
            is_open => is_open?,
        };
        if is_open {
            return Ok(None);
        }
        if files.number(place)? != 0 {
            files.set_number(place, 0)?; // it was a dead waiter's
        }
        HeldFifo::open(&path).map(Some)
    }

    /// The lock under which a place is claimed, and the number of a dead waiter cleared. That of
    /// the last place stays open. It is taken out while it is locked: the threads of a process
    /// would not exclude each other through one open file, and two could claim the same place.
    fn take_claim_lock(&self, files: &Files, place: usize) -> io::Result<File> {
        match self.opened.lock().lock.take_if(|(known, _)| *known == place) {
            Some((_, lock)) => Ok(lock),
            None => files.open_claim_lock(place, self.creation),
        }
    }
}

/// A second name may be another program's file, which is not written to (rule S10).
fn open_own(path: &Arc<Path>, creation: Creation) -> Result<Option<(File, FileId)>> {
    let (file, id) = open_plain(path, creation)?;
    let has_one_name = sys::has_one_name(path, id).is_ok_and(|has_one| has_one == Some(true));
    Ok(has_one_name.then_some((file, id)))
}

impl Files {
    fn labels(&self) -> Arc<Path> {
        self.directory.path().join("labels").into()
    }

    /// What a waiter has written of itself, which is not trusted.
    fn label(&self, place: usize, length: u64) -> Option<String> {
        let length = usize::try_from(length).unwrap_or(MAX_LABEL).min(MAX_LABEL);
        let labels = sys::open_to_read(&self.labels()).ok()?;
        let mut bytes = vec![0; length];
        let read = sys::read_at(&labels, &mut bytes, (place * MAX_LABEL) as u64).ok()?;
        Some(printable(&String::from_utf8_lossy(&bytes[..read])))
    }
}

/// Whether it is such a file, which an empty one becomes if `creates`.
fn is_marked(file: &File, creates: bool) -> io::Result<bool> {
    let mut mark = [0; MARK.len()];
    let read = sys::read_at(file, &mut mark, 0)?;
    if read == 0 && creates {
        sys::write_at(file, MARK, 0)?;
        return Ok(true);
    }
    Ok(mark == *MARK)
}

/// The beginning of a label that is too long.
fn shortened(label: &str) -> &str {
    let mut end = label.len().min(MAX_LABEL);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    &label[..end]
}

impl Ticket {
    /// The FIFO of the next waiter ahead, or `None` if this one is at the front. An error means
    /// that it must be asked again a little later: another waiter is taking its number.
    pub(crate) fn ahead(&mut self) -> io::Result<Option<Arc<WatchedFifo>>> {
        let files = Arc::clone(&self.files);
        if let Some(ahead) = &self.ahead {
            // A copy of the FIFO in a forked process stays open.
            if ahead.fifo.has_writer() && files.has(ahead.place, ahead.number) {
                return Ok(Some(Arc::clone(&ahead.fifo)));
            }
        }
        let mut gone = self.ahead.take();
        for _ in 0..MAX_PROBLEMS {
            let table = match Table::read(&files.tickets) {
                Ok(table) => table,
                // Another program has written to it: the order is lost, and nothing else.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut has_changed = false;
            for (number, place) in table.ahead_of(self.number, self.place) {
                let watched = match gone.take() {
                    Some(ahead) if ahead.number == number && ahead.place == place => ahead.fifo,
                    _ => match WatchedFifo::open_unprimed(&files.fifo(place)) {
                        Ok(watched) => Arc::new(watched),
                        Err(error) if sys::is_exhausted(&error) => return Err(error),
                        // Its FIFO was removed or replaced, which costs it its turn.
                        Err(_) => continue,
                    },
                };
                if !watched.has_writer() {
                    files.clear(place, number, &watched, self.creation); // it has left, or died
                    continue;
                }
                // Another waiter may have taken the place meanwhile, behind this one (rule T3).
                if !files.has(place, number) {
                    has_changed = true;
                    break;
                }
                if number == CHOOSING {
                    if files.has_ended(place, number) {
                        files.clear(place, number, &watched, self.creation);
                        continue;
                    }
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let fifo = Arc::clone(&watched);
                self.ahead = Some(Ahead { number, place, fifo: watched });
                return Ok(Some(fifo));
            }
            if !has_changed {
                return Ok(None);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Checks what no FIFO reports: that the place of the next waiter ahead has another FIFO by
    /// now, or that the waiter has died and a forked copy of it has the FIFO open.
    pub(crate) fn look_again(&mut self) {
        let Some(ahead) = &self.ahead else { return };
        let files = &self.files;
        if !ahead.fifo.is_at(&files.fifo(ahead.place)) {
            self.ahead = None;
        } else if files.has_ended(ahead.place, ahead.number) {
            files.clear(ahead.place, ahead.number, &ahead.fifo, self.creation);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return; // a forked copy only closes its copy of the FIFO
        }
        let Some(fifo) = self.fifo.take() else { return };
        let _ = self.files.set_number(self.place, 0);
        // Wakes the waiter behind. A forked copy keeps the FIFO open.
        drop(fifo);
        if sys::may_have_forked() {
            let _ = sys::signal_fifo(&self.files.fifo(self.place));
        }
        // Only if no other has come since: it would not be the latest otherwise (T5).
        let (file, mut latest) = (&self.files.tickets, [0; 8]);
        let read = sys::read_at(file, &mut latest, LATEST);
        if read.is_ok() && u64::from_le_bytes(latest) == self.number {
            let is_last = |table: Table| table.numbers().all(|number| number == 0);
            if Table::read(file).is_ok_and(is_last) {
                let _ = sys::write_at(file, &latest, LEFT);
            }
        }
    }
}

// Only Linux has this queue.
#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::Access;

    #[test]
    fn threads_that_share_a_handle_claim_different_places() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let queue = TicketQueue::new(dir.path().join("queue").into(), Access::default().into());
        let start = Barrier::new(4);
        let join = || {
            start.wait();
            queue.join(None).unwrap()
        };
        for _ in 0..1000 {
            let tickets: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(join)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let places: HashSet<_> = tickets.iter().map(|ticket| ticket.place).collect();
            assert_eq!(places.len(), tickets.len());
        }
    }
}
