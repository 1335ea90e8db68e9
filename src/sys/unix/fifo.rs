//! FIFOs as a signal from a holder to a waiter (Linux): the kernel reports to a process that polls
//! the reading end that the last writer has gone, also if it was killed.
//!
//! Relies on `fs/pipe.c`: `fifo_open` (opening for reading and writing never blocks and counts as
//! both), `pipe_poll` (POLLHUP while there is no writer, for a reader that was there for the last
//! one), `pipe_release` (wakes the pollers).

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use super::super::{Bits, retry_eintr};
use super::{FileId, Origin, identity, names, set_access};

/// Whether a FIFO reports that its last writer has gone.
pub(crate) const FIFOS: bool = true;

/// Creates a FIFO. One that exists is left as it is.
pub(crate) fn create_fifo(path: &Path, bits: Option<Bits>) -> io::Result<()> {
    // All users less the umask, as for files; or only this user until it has its mode.
    let mode = Mode::from_raw_mode(if bits.is_some() { 0o600 } else { 0o666 });
    match rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, mode, 0) {
        Err(Errno::EXIST) => return Ok(()),
        created => created?,
    }
    match bits {
        Some(bits) => set_access(Open::new(path, true, true)?.file(), bits.file),
        None => Ok(()),
    }
}

/// An open FIFO. Closed by a forked copy only if the number is that file's there (rule 4).
#[derive(Debug)]
struct Open {
    /// Taken out when it is closed.
    file: Option<File>,
    id: FileId,
    origin: Origin,
}

impl Open {
    /// For reading, for writing, or for both. Never blocks, and never creates anything (rule 1).
    fn new(path: &Path, reads: bool, writes: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        #[allow(clippy::cast_possible_wrap, reason = "open(2) takes an int, and all flags fit")]
        let file = options
            .read(reads)
            .write(writes)
            .custom_flags(super::FLAGS.bits() as i32)
            .open(path)?;
        let stat = rustix::fs::fstat(&file)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Fifo {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a FIFO"));
        }
        Ok(Self { file: Some(file), id: FileId::of(&stat), origin: Origin::here() })
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("only closing takes the file, and drops `self`")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.origin.is_here() {
            return;
        }
        if let Some(file) = self.file.take() {
            if !identity(&file).is_ok_and(|id| id == self.id) {
                std::mem::forget(file);
            }
        }
    }
}

/// Whether it is a lack of something that may be available later.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// A clock that all processes of this kernel read alike.
pub(crate) fn nanoseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    #[allow(clippy::cast_sign_loss, clippy::cast_lossless, reason = "time since boot, a c_long")]
    {
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}

/// Returns how many bytes were read, fewer than asked for at the end of the file.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    retry_eintr(|| file.read_at(bytes, offset))
}

pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// For writing. `None`: no process has it open for reading.
fn open_to_write(path: &Path) -> io::Result<Option<Open>> {
    match Open::new(path, false, true) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Whether any process has the FIFO open for reading, which includes its holder.
pub(crate) fn is_fifo_open(path: &Path) -> io::Result<bool> {
    open_to_write(path).map(|open| open.is_some())
}

/// Whether a forked copy of this process may be alive: a child, which may be a copy or a program
/// that was started. (A copy whose parent has ended is not noticed.)
pub(crate) fn may_have_forked() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(rustix::process::waitid(WaitId::All, options), Err(Errno::CHILD))
}

/// Sends a signal to the processes that watch the FIFO if any process has it open for writing,
/// since they have not been notified of a close then.
pub(crate) fn signal_unless_closed(path: &Path) -> io::Result<()> {
    if WatchedFifo::open_unprimed(path)?.has_writer() { signal_fifo(path) } else { Ok(()) }
}

/// Sends a signal to the process that has the FIFO open, if there is one.
pub(crate) fn signal_fifo(path: &Path) -> io::Result<()> {
    match open_to_write(path)? {
        Some(open) => signal(open.file()),
        None => Ok(()),
    }
}

fn signal(mut file: &File) -> io::Result<()> {
    match file.write(&[0]) {
        // It is full of signals.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        written => written.map(drop),
    }
}

/// A FIFO that this process has open as its writer. Closing it is the signal.
#[derive(Debug)]
pub(crate) struct HeldFifo(Open);

impl HeldFifo {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Open::new(path, true, true).map(Self)
    }

    /// Programs that are started from now on have it open as well.
    pub(crate) fn make_inheritable(&self) -> io::Result<()> {
        super::make_inheritable(self.0.file())
    }
}

/// A FIFO whose writers this process watches.
#[derive(Debug)]
pub(crate) struct WatchedFifo(Open);

impl WatchedFifo {
    /// Each later poll reports whether the FIFO has a writer.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let open = Open::new(path, true, false)?;
        // The kernel does not report a missing writer to a reader that was opened without one until
        // a writer has come and gone (`fifo_open`: "can't check for EPOLLHUP accurately"). Where
        // this user may not write, the next holder is that writer.
        drop(open_to_write(path).ok());
        Ok(Self(open))
    }

    /// A poll reports that there is no writer only if there was one after this.
    pub(crate) fn open_unprimed(path: &Path) -> io::Result<Self> {
        Open::new(path, true, false).map(Self)
    }

    /// Is its own writer, so that only signals are reported.
    pub(crate) fn open_for_signals(path: &Path) -> io::Result<Self> {
        Open::new(path, true, true).map(Self)
    }

    /// Whether the path still names this FIFO.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        names(path, self.0.id).unwrap_or(false)
    }

    /// Whether any process has it open for writing. Takes the signals that have come.
    pub(crate) fn has_writer(&self) -> bool {
        self.read_all().0
    }

    /// The same for a process that does not wait. It leaves the signals, which are for a waiter,
    /// and sends those again that arrive during the check.
    pub(crate) fn has_writer_at(&self, path: &Path) -> bool {
        if rustix::io::ioctl_fionread(self.0.file()).is_ok_and(|bytes| bytes > 0) {
            return true;
        }
        let (has_writer, had_signals) = self.read_all();
        if has_writer && had_signals {
            let _ = signal_fifo(path);
        }
        has_writer
    }

    /// Whether there is a writer, and whether there were signals.
    fn read_all(&self) -> (bool, bool) {
        let mut had_signals = false;
        loop {
            match self.0.file().read(&mut [0; 64]) {
                Ok(0) => return (false, had_signals),
                Ok(_) => had_signals = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return (true, had_signals),
            }
        }
    }

    pub(crate) fn take_signals(&self) {
        self.has_writer();
    }
}

/// The state of a FIFO as a poll reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FifoState {
    pub(crate) has_signal: bool,
    pub(crate) has_no_writer: bool,
}

/// Waits until one of them has a signal or no writer, at most `timeout`. An interruption by a
/// signal handler ends it early.
pub(crate) fn wait_for_fifos<'a>(
    fifos: impl IntoIterator<Item = &'a Arc<WatchedFifo>>,
    wakeup: Option<&Wakeup>,
    timeout: Option<Duration>,
) -> io::Result<Vec<FifoState>> {
    let files =
        fifos.into_iter().map(|fifo| fifo.0.file()).chain(wakeup.map(|wakeup| &wakeup.file));
    let mut polled: Vec<_> = files.map(|file| PollFd::new(file, PollFlags::IN)).collect();
    // A timeout that is too long for the system never ends.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if wakeup.is_some() {
        polled.pop();
    }
    let states = polled.iter().map(|polled| FifoState {
        has_signal: polled.revents().contains(PollFlags::IN),
        has_no_writer: polled.revents().intersects(PollFlags::HUP | PollFlags::ERR),
    });
    Ok(states.collect())
}

/// Ends a wait for FIFOs from another thread.
#[derive(Debug)]
pub(crate) struct Wakeup {
    file: File,
}

impl Wakeup {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self { file: rustix::event::eventfd(0, flags)?.into() })
    }

    pub(crate) fn wake(&self) {
        let _ = (&self.file).write(&1_u64.to_ne_bytes());
    }

    pub(crate) fn reset(&self) {
        let _ = (&self.file).read(&mut [0; 8]);
    }
}
