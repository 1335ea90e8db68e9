//! The records that all processes write to one FIFO, which the monitor reads.
//!
//! A write of at most `PIPE_BUF` bytes is atomic, even if its writer is killed, and the kernel
//! orders all writes under the pipe's lock. If one process records that it leaves before it
//! releases a lock, and another records that it has entered after acquiring it, then the first
//! record precedes the second on any processors.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// The worker numbers of the other processes.
pub(crate) const COORDINATOR: u32 = 1000;
pub(crate) const CHAOS: u32 = 1001;
pub(crate) const EVENT_DRIVER: u32 = 1002;

/// The reason of a call that found its barrier broken. The other reasons are those of
/// `GiveUpReason`, and 3 for a closure that failed.
pub(crate) const BROKEN: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A worker has started. `a`: its pid.
    Started,
    /// A worker that has started could not open a damaged primitive yet, and tries again.
    Opening,
    /// An operation begins. `a`: how it waits, `b`: which operation, if there are several.
    Waiting,
    /// The operation has acquired. `a`: exclusive, shared, or the set of slots.
    Entered,
    /// Written before a downgrade to shared.
    Downgrading,
    /// Written before a release. `b`: the new contents of a shared file, or zero if they stay.
    Leaving,
    /// An operation that holds nothing or has changed nothing has succeeded.
    Finished,
    /// A change of a shared file has succeeded. `b`: as in `Leaving`.
    Changed,
    /// An operation has not acquired. `a`: the reason.
    GaveUp,
    /// An expected error. `a`: its `errno`.
    Failed,
    /// A worker has detected a violation and described it on the standard error.
    Violation,
    /// A shared file was read under the lock. `b`: its contents.
    Observed,
    /// A payload is about to be sent to the mailbox, was sent, was consumed. `b`: its number.
    Setting,
    WasSet,
    Consumed,
    /// A `Once` is about to be reset, was reset. `a`: whether it was done before.
    Resetting,
    WasReset,
    /// The writer does nothing and holds nothing. `a`: the number of the phase.
    Paused,
    /// The process may end at any moment from now on. `a`: how.
    Ending,
    /// The process and all its threads have ended.
    Exited,
    Stopped,
    Continued,
    /// Files were tampered with (0), or all descriptors (1) or inotify instances (2) were used up.
    Tampered,
    /// The capacity of a semaphore is about to become `a`, or has become it.
    Resizing,
    WasResized,
    /// Permits or locks are lost. `a`: the number of those that no process holds and none can
    /// acquire.
    LostPermits,
    /// The run is over. `a`: whether it was aborted.
    End,
}

const KINDS: [Kind; 27] = [
    Kind::Started,
    Kind::Opening,
    Kind::Waiting,
    Kind::Entered,
    Kind::Downgrading,
    Kind::Leaving,
    Kind::Finished,
    Kind::Changed,
    Kind::GaveUp,
    Kind::Failed,
    Kind::Violation,
    Kind::Observed,
    Kind::Setting,
    Kind::WasSet,
    Kind::Consumed,
    Kind::Resetting,
    Kind::WasReset,
    Kind::Paused,
    Kind::Ending,
    Kind::Exited,
    Kind::Stopped,
    Kind::Continued,
    Kind::Tampered,
    Kind::Resizing,
    Kind::WasResized,
    Kind::LostPermits,
    Kind::End,
];

#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) worker: u32,
    pub(crate) generation: u32,
    pub(crate) thread: u32,
    /// The index in `PRIMITIVES`.
    pub(crate) primitive: usize,
    pub(crate) a: u64,
    pub(crate) b: u64,
}

const SIZE: usize = 48;

impl Record {
    pub(crate) fn of(kind: Kind, worker: u32, generation: u32) -> Self {
        Self { kind, worker, generation, thread: 0, primitive: 0, a: 0, b: 0 }
    }

    fn to_bytes(self) -> [u8; SIZE] {
        let kind = KINDS.iter().position(|kind| *kind == self.kind).unwrap_or(0) as u64;
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&kind.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.worker.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.thread.to_le_bytes());
        bytes[24..32].copy_from_slice(&(self.primitive as u64).to_le_bytes());
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
            primitive: usize::try_from(long(24)).ok()?,
            a: long(32),
            b: long(40),
        })
    }
}

/// The writing end of the FIFO.
#[derive(Debug)]
pub(crate) struct Log(File);

impl Log {
    fn path(directory: &Path) -> std::path::PathBuf {
        directory.join("log")
    }

    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let path = Self::path(directory);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // Opened for reading as well, so that the open does not wait for the monitor.
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }

    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().write(true).open(Self::path(directory))?))
    }

    /// Writes a record. A process that cannot write one ends, because the monitor would misjudge
    /// its next actions.
    pub(crate) fn write(&self, record: Record) {
        if let Err(error) = (&self.0).write_all(&record.to_bytes()) {
            eprintln!("could not write a record: {error}");
            std::process::exit(70);
        }
    }
}

/// The reading end of the FIFO.
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
