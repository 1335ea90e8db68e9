//! The participants of a barrier: each holds the lock of one file from its arrival until it leaves,
//! and a mark says in which generation it has arrived (rules B3 and B4).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::access::Access;
use crate::error::{Error, Operation, Result};
use crate::file::lock_file::{FileLock, LockFile};
use crate::file::open::own_directory;
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::record;
use crate::sys::{self, Directory, FileKind, Mode};
use crate::wait::note_progress;

/// The directory of the marks. No waiter watches it, so an arrival wakes none.
pub(super) const ARRIVED: &str = "arrived";
/// A file that a caller creates if it finds the files of all participants locked.
const WANTED: &str = "wanted";

/// An arrival in a generation by the holder of the file with that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) generation: u64,
    pub(super) number: u32,
}

impl Mark {
    fn name(self) -> String {
        format!("{}.{}", self.generation, self.number)
    }

    fn parse(name: &str) -> Option<Self> {
        let (generation, number) = name.split_once('.')?;
        let mark = Self { generation: generation.parse().ok()?, number: number.parse().ok()? };
        (mark.name() == name).then_some(mark)
    }
}

pub(super) struct Participants {
    directory: Arc<Path>,
    access: Access,
    parties: u32,
    /// Whether only a listing of a directory is current, and no watch reports that it is opened.
    is_network: bool,
    table: ForkSafe<Table, Parties>,
}

/// The files of the participants, as far as this handle knows them.
#[derive(Debug)]
struct Table {
    entries: Vec<Entry>,
    /// The file to try first: the one that was released last is open already.
    start: u32,
    /// The generation of the last mark that this handle made.
    marked: Option<u64>,
}

#[derive(Debug, Default, Clone)]
struct Entry {
    /// Open for writing, so that its closing is an event (rule S7).
    own: Option<Arc<LockFile>>,
    /// Open for a test, whose closing is no event.
    tested: Option<Arc<LockFile>>,
    /// Whether this handle holds the lock.
    is_held: bool,
    /// The generation of the last mark that this handle made.
    marked: Option<u64>,
}

/// From which the table of a forked copy is made.
#[derive(Debug, Clone)]
struct Parties(u32);

impl Table {
    fn new(parties: &Parties) -> Self {
        Self { entries: vec![Entry::default(); parties.0 as usize], start: 0, marked: None }
    }
}

/// The lock of one participant's file.
pub(super) struct Taken {
    pub(super) number: u32,
    locked: FileLock,
}

impl Taken {
    /// Whether this process locked it, and not the parent of this forked copy.
    pub(super) fn is_here(&self) -> bool {
        self.locked.is_here()
    }
}

pub(super) fn file(directory: &Path, number: u32) -> PathBuf {
    directory.join(record::participant_name(number))
}

impl Participants {
    pub(super) fn new(
        directory: &Arc<Path>,
        parties: u32,
        access: Access,
        is_network: bool,
    ) -> Self {
        let context = Parties(parties);
        let table = ForkSafe::with_context(Table::new(&context), context, Table::new);
        drop(table.lock()); // belongs to this process from now on
        Self { directory: Arc::clone(directory), access, parties, is_network, table }
    }

    pub(super) fn parties(&self) -> u32 {
        self.parties
    }

    pub(super) fn is_network(&self) -> bool {
        self.is_network
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Locks a file that is free. `None`: all are locked, and the next process that unlocks one
    /// causes an event (rule B5).
    pub(super) fn take(&self) -> Result<Option<Taken>> {
        if let Some(taken) = self.take_free()? {
            return Ok(Some(taken));
        }
        match sys::create_new(&self.directory.join(WANTED), self.access.bits()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io(Operation::Create, &self.directory, error));
            }
            _ => {}
        }
        // The file exists before the check, and the process that unlocks checks in the opposite
        // order.
        fence(Ordering::SeqCst);
        self.take_free()
    }

    /// The same for a caller that does not wait.
    pub(super) fn take_free(&self) -> Result<Option<Taken>> {
        let start = self.table().start;
        for step in 0..self.parties {
            note_progress();
            let number = (start % self.parties + step) % self.parties;
            let entry = self.table().entries[number as usize].clone();
            if entry.is_held {
                continue;
            }
            let own = if let Some(own) = entry.own {
                own
            } else {
                let path = file(&self.directory, number);
                let opened = LockFile::open_noticed(&path, self.access.into())?;
                Arc::clone(self.table().entries[number as usize].own.get_or_insert(opened))
            };
            if let Some(locked) = own.try_lock(Mode::Exclusive)? {
                let mut table = self.table();
                table.entries[number as usize].is_held = true;
                table.start = number;
                drop(table);
                return Ok(Some(Taken { number, locked }));
            }
        }
        Ok(None)
    }

    /// Whether the path still names the locked file.
    pub(super) fn is_valid(&self, taken: &Taken) -> Result<bool> {
        let own = self.table().entries[taken.number as usize].own.clone();
        own.map_or(Ok(false), |own| own.is_valid(&taken.locked))
    }

    pub(super) fn release(&self, taken: Taken) {
        let Taken { number, locked } = taken;
        if !locked.is_here() {
            return; // a forked copy only closes (rule 4)
        }
        let _ = locked.release(); // an error closes the file, which unlocks it too
        self.table().entries[number as usize].is_held = false;
        self.notify_callers();
    }

    fn notify_callers(&self) {
        notify_callers(&self.directory);
    }

    /// Whether a process holds the lock of that file. The test shares the lock, so that two
    /// processes that test do not mistake each other for the holder.
    pub(super) fn is_held(&self, number: u32) -> Result<bool> {
        note_progress();
        let entry = self.table().entries[number as usize].clone();
        if entry.is_held {
            return Ok(true);
        }
        let tested = if let Some(tested) = entry.tested {
            tested
        } else {
            let opened = LockFile::open(&file(&self.directory, number), self.access)?;
            Arc::clone(self.table().entries[number as usize].tested.get_or_insert(opened))
        };
        let Some(shared) = tested.try_lock(Mode::Shared)? else { return Ok(true) };
        drop(shared);
        // A caller may have found the file locked by this test.
        self.notify_callers();
        Ok(false)
    }

    // ------------------------------------------------------------------------------------- marks

    /// The marks of all participants, also of earlier generations.
    pub(super) fn marks(&self) -> Result<Vec<Mark>> {
        marks_in(&self.directory, self.parties)
    }

    /// Whether there is this mark. The directory is not opened, which the watches of all waiters
    /// would report.
    pub(super) fn has_mark(&self, mark: Mark) -> Result<bool> {
        if self.is_network {
            return Ok(self.marks()?.contains(&mark));
        }
        let path = self.directory.join(ARRIVED).join(mark.name());
        let kind = sys::file_kind(&path)
            .map_err(|source| Error::io(Operation::LookUp, &self.directory, source))?;
        Ok(kind != FileKind::Nothing)
    }

    /// The generation in which this handle has arrived last.
    pub(super) fn last_generation(&self) -> Option<u64> {
        self.table().marked
    }

    /// Marks the arrival of the holder of a file. It takes over the mark of an earlier generation,
    /// so each file has one mark (rule B4).
    pub(super) fn mark(&self, mark: Mark) -> Result<()> {
        let generation = self.table().entries[mark.number as usize].marked;
        let own = generation.map(|generation| Mark { generation, ..mark });
        let known = match own {
            Some(own) if self.has_mark(own)? => vec![own],
            _ => self.marks()?,
        };
        self.replace_mark(mark, &known)?;
        let mut table = self.table();
        table.entries[mark.number as usize].marked = Some(mark.generation);
        table.marked = Some(mark.generation);
        Ok(())
    }

    fn replace_mark(&self, mark: Mark, known: &[Mark]) -> Result<()> {
        let failed = |source| Error::io(Operation::ChangeState, &self.directory, source);
        let directory = self.directory.join(ARRIVED);
        let arrived = own_directory(&directory, self.access.into()).map_err(failed)?;
        let path = |mark: Mark| arrived.path().join(mark.name());
        for old in known.iter().filter(|old| old.number == mark.number) {
            match sys::through_readers(|| std::fs::rename(path(*old), path(mark))) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        match sys::create_new(&path(mark), self.access.bits()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

/// Causes an event if a caller waits for a file to be unlocked (rule B5).
pub(crate) fn notify_callers(directory: &Path) {
    fence(Ordering::SeqCst); // the unlocking comes before the check
    let wanted = directory.join(WANTED);
    if sys::file_kind(&wanted).is_ok_and(|kind| kind == FileKind::File) {
        let _ = sys::remove_at_once(&wanted);
    }
}

pub(super) fn marks_in(directory: &Arc<Path>, parties: u32) -> Result<Vec<Mark>> {
    let failed = |source| Error::io(Operation::List, directory, source);
    let arrived = match Directory::open(&directory.join(ARRIVED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        arrived => arrived.map_err(failed)?,
    };
    let mut marks = Vec::new();
    for entry in sys::read_dir(arrived.path()).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let mark = name.to_str().and_then(Mark::parse);
        marks.extend(mark.filter(|mark| mark.number < parties));
    }
    Ok(marks)
}
