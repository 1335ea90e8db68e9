//! What is told to the witness: records of one size in a FIFO that all write to.
//!
//! A write of at most `PIPE_BUF` bytes is done as a whole or not at all, whatever kills the writer, and the pipe
//! keeps all of them in the order in which they were done. That order is the kernel's, under the pipe's lock: if
//! one writes "I leave" before letting a lock go, and another "I am in" after taking it, then the one stands before
//! the other, on whatever processors they run.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Who is no worker writes under these numbers.
pub(crate) const CONDUCTOR: u32 = 1000;
pub(crate) const VANDAL: u32 = 1001;
pub(crate) const FLAGGER: u32 = 1002;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A process begins. `a`: its number for the system.
    Begins,
    /// `a`: the way of waiting, `b`: what for, where there are several.
    Wants,
    /// It was had. `a`: exclusively, shared, or which slots.
    Entered,
    /// Written before it is done: from now on shared.
    Downgrades,
    /// Written before it is given back. `b`: what a shared file is to be from now on.
    Left,
    /// What was wanted was had, without being inside anything.
    Had,
    /// A change was made, as it was said when leaving. `b` as there.
    Changed,
    /// `a`: why.
    GaveUp,
    /// An error that is to be expected. `a`: the system's number.
    Failed,
    /// Something was seen that must not be. What it was stands on the error output.
    Wrong,
    /// `b`: the shared file's contents, seen while nobody may change it.
    Observed,
    /// A setting of the mailbox is about to be made, was made, was consumed. `b`: which.
    Setting,
    HasSet,
    Consumed,
    /// It is about to be undone; it was. `a`: whether it was done before.
    Resetting,
    HasReset,
    /// Does nothing, and holds nothing. `a`: since which order.
    Rests,
    /// From now on the process may end at any moment. `a`: how.
    Condemned,
    /// It has ended, and all its threads.
    Dead,
    Stopped,
    Continued,
    /// Somebody meddled with files (0), or took all descriptors (1) or inotify instances (2).
    Mischief,
    /// The capacity of a semaphore is about to be changed to `a`; it was.
    Resizes,
    HasResized,
    /// `a`: so many permits, or locks, that nobody has and nobody gets.
    LostPermits,
    /// All is over: judge.
    End,
}

const KINDS: [Kind; 26] = [
    Kind::Begins,
    Kind::Wants,
    Kind::Entered,
    Kind::Downgrades,
    Kind::Left,
    Kind::Had,
    Kind::Changed,
    Kind::GaveUp,
    Kind::Failed,
    Kind::Wrong,
    Kind::Observed,
    Kind::Setting,
    Kind::HasSet,
    Kind::Consumed,
    Kind::Resetting,
    Kind::HasReset,
    Kind::Rests,
    Kind::Condemned,
    Kind::Dead,
    Kind::Stopped,
    Kind::Continued,
    Kind::Mischief,
    Kind::Resizes,
    Kind::HasResized,
    Kind::LostPermits,
    Kind::End,
];

#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) worker: u32,
    pub(crate) generation: u32,
    pub(crate) thread: u32,
    /// Its place in `THINGS`.
    pub(crate) thing: usize,
    pub(crate) a: u64,
    pub(crate) b: u64,
}

const SIZE: usize = 48;

impl Record {
    pub(crate) fn of(kind: Kind, worker: u32, generation: u32) -> Self {
        Self { kind, worker, generation, thread: 0, thing: 0, a: 0, b: 0 }
    }

    fn to_bytes(self) -> [u8; SIZE] {
        let kind = KINDS.iter().position(|kind| *kind == self.kind).unwrap_or(0) as u64;
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&kind.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.worker.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.thread.to_le_bytes());
        bytes[24..32].copy_from_slice(&(self.thing as u64).to_le_bytes());
        bytes[32..40].copy_from_slice(&self.a.to_le_bytes());
        bytes[40..].copy_from_slice(&self.b.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; SIZE]) -> Option<Self> {
        let long = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 8]));
        let short = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 4]));
        Some(Self {
            kind: *KINDS.get(usize::try_from(long(0)).ok()?)?,
            worker: short(8),
            generation: short(12),
            thread: short(16),
            thing: usize::try_from(long(24)).ok()?,
            a: long(32),
            b: long(40),
        })
    }
}

/// Where the records are written to.
#[derive(Debug)]
pub(crate) struct Log(File);

impl Log {
    fn path(directory: &Path) -> std::path::PathBuf {
        directory.join("log")
    }

    pub(crate) fn make(directory: &Path) -> io::Result<Self> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let path = Self::path(directory);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // Also for reading: so it can be opened before there is a witness.
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }

    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().write(true).open(Self::path(directory))?))
    }

    /// Who cannot tell the witness must not go on: it would look as if they had kept quiet.
    pub(crate) fn write(&self, record: Record) {
        if let Err(error) = (&self.0).write_all(&record.to_bytes()) {
            eprintln!("the witness cannot be told: {error}");
            std::process::exit(70);
        }
    }
}

/// Where the witness reads them.
pub(crate) struct Reader(io::BufReader<File>);

impl Reader {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).open(Log::path(directory))?;
        Ok(Self(io::BufReader::with_capacity(SIZE * 256, file)))
    }

    pub(crate) fn next(&mut self) -> io::Result<Record> {
        let mut bytes = [0; SIZE];
        self.0.read_exact(&mut bytes)?;
        Record::from_bytes(bytes).ok_or_else(|| io::Error::other("not a record"))
    }
}
