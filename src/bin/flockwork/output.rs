//! Writes to the standard output, which may be closed, full, or a pipe without a reader.

use std::io::{self, ErrorKind, Write as _};

use crate::exit::{Exit, Failure, Outcome};

/// Writes all bytes. If the reader of a pipe is gone (`| head`), the exit code is that of SIGPIPE.
pub(crate) fn write(bytes: &[u8]) -> Outcome {
    match try_write(bytes) {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Other(128 + 13)),
        Err(error) => Err(failed(&error)),
    }
}

/// Writes bytes that exist nowhere else, so a closed standard output is an error.
pub(crate) fn deliver(bytes: &[u8]) -> Result<(), Failure> {
    let written = if bytes.is_empty() || !may_be_closed() {
        try_write(bytes)
    } else {
        Err(io::Error::other("it is closed, or is the null device opened for reading too"))
    };
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => failed(&error).with_exit(Exit::Other(128 + 13)),
        _ => failed(&error),
    })
}

/// Whether the standard output is a pipe that no process reads any more.
#[cfg(unix)]
pub(crate) fn is_reader_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

/// Other systems report it only at the next write.
#[cfg(not(unix))]
pub(crate) fn is_reader_gone() -> bool {
    false
}

fn failed(error: &io::Error) -> Failure {
    Failure::new(Exit::System, format!("could not write to the standard output: {error}"))
}

/// Does not use std's handle, which reports success for a descriptor that is not open for writing.
#[cfg(unix)]
pub(crate) fn try_write(bytes: &[u8]) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    let stdout = io::stdout();
    std::fs::File::from(stdout.as_fd().try_clone_to_owned()?).write_all(bytes)
}

#[cfg(not(unix))]
pub(crate) fn try_write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// Whether the standard output may have been closed when this program started. Before `main`,
/// Rust's runtime opens `/dev/null` in its place for reading and writing (std,
/// `sys/pal/unix/mod.rs`, `sanitize_standard_fds`). A shell's `>/dev/null` is open for writing
/// alone.
#[cfg(unix)]
fn may_be_closed() -> bool {
    use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, stat};
    let stdout = io::stdout();
    let is_null = match (fstat(&stdout), stat("/dev/null")) {
        (Ok(stdout), Ok(null)) => {
            FileType::from_raw_mode(stdout.st_mode) == FileType::CharacterDevice
                && stdout.st_rdev == null.st_rdev
        }
        _ => false,
    };
    is_null && fcntl_getfl(&stdout).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

#[cfg(windows)]
fn may_be_closed() -> bool {
    std::os::windows::io::AsRawHandle::as_raw_handle(&io::stdout()).is_null()
}

#[cfg(not(any(unix, windows)))]
fn may_be_closed() -> bool {
    false
}
