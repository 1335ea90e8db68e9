//! The part of [`super`] about FIFOs, for a system whose FIFOs are not used as signals.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Bits;

/// Whether a FIFO reports that its last writer has gone.
pub(crate) const FIFOS: bool = false;

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn create_fifo(_path: &Path, _bits: Option<Bits>) -> io::Result<()> {
    unsupported()
}

pub(crate) fn may_have_forked() -> bool {
    false
}

pub(crate) fn signal_fifo(_path: &Path) -> io::Result<()> {
    Ok(())
}

pub(crate) fn signal_unless_closed(_path: &Path) -> io::Result<()> {
    Ok(())
}

pub(crate) fn is_fifo_open(_path: &Path) -> io::Result<bool> {
    unsupported()
}

pub(crate) fn is_exhausted(_error: &io::Error) -> bool {
    false
}

pub(crate) fn nanoseconds() -> u64 {
    0
}

pub(crate) fn read_at(_file: &File, _bytes: &mut [u8], _offset: u64) -> io::Result<usize> {
    unsupported()
}

pub(crate) fn write_at(_file: &File, _bytes: &[u8], _offset: u64) -> io::Result<()> {
    unsupported()
}

/// There is none.
#[derive(Debug)]
pub(crate) enum HeldFifo {}

impl HeldFifo {
    pub(crate) fn open(_path: &Path) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn make_inheritable(&self) -> io::Result<()> {
        unsupported()
    }
}

/// There is none.
#[derive(Debug)]
pub(crate) enum WatchedFifo {}

impl WatchedFifo {
    pub(crate) fn open(_path: &Path) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn open_unprimed(_path: &Path) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn open_for_signals(_path: &Path) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn is_at(&self, _path: &Path) -> bool {
        false
    }

    pub(crate) fn has_writer(&self) -> bool {
        false
    }

    pub(crate) fn has_writer_at(&self, _path: &Path) -> bool {
        false
    }

    pub(crate) fn take_signals(&self) {}
}

/// The state of a FIFO as a poll reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FifoState {
    pub(crate) has_signal: bool,
    pub(crate) has_no_writer: bool,
}

pub(crate) fn wait_for_fifos<'a>(
    _fifos: impl IntoIterator<Item = &'a Arc<WatchedFifo>>,
    _wakeup: Option<&Wakeup>,
    _timeout: Option<Duration>,
) -> io::Result<Vec<FifoState>> {
    unsupported()
}

/// Ends a wait for FIFOs from another thread.
#[derive(Debug)]
pub(crate) enum Wakeup {}

impl Wakeup {
    pub(crate) fn new() -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn wake(&self) {}

    pub(crate) fn reset(&self) {}
}
