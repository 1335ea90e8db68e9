//! Prints the output of a command at its end, or line by line, so that the lines of different jobs
//! do not mix. The command writes to files, which have no limit that could block it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::args::Buffering;
use crate::job::Job;
use crate::{output, thread};

/// How often lines are printed while the command runs.
const INTERVAL: Duration = Duration::from_millis(20);

/// The output of a running command.
pub(super) enum Output {
    /// The command inherits it.
    Inherited,
    AtEnd(Printer),
    Lines(Sender<()>, JoinHandle<()>),
}

impl Output {
    /// Gives the job its output. If no file can be created, the job inherits the output.
    pub(super) fn redirect(job: Job, buffering: Buffering) -> (Self, Job) {
        let created = if buffering == Buffering::None { None } else { Printer::new().ok() };
        let Some((mut printer, files)) = created else { return (Self::Inherited, job) };
        let job = job.with_output(files);
        if buffering == Buffering::Group {
            return (Self::AtEnd(printer), job);
        }
        let (sender, receiver) = channel();
        let print = move || {
            while receiver.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                printer.print(true);
            }
            printer.print(false);
        };
        match thread::start("sem-output", print) {
            Ok(thread) => (Self::Lines(sender, thread), job),
            Err(_) => (Self::Inherited, job.with_inherited_output()),
        }
    }

    /// Prints the rest when the command has ended.
    pub(super) fn finish(self) {
        match self {
            Self::Inherited => {}
            Self::AtEnd(mut printer) => printer.print(false),
            Self::Lines(sender, thread) => {
                drop(sender);
                let _ = thread.join();
            }
        }
    }
}

/// The readers of the two files, and the beginnings of lines that were read.
pub(super) struct Printer {
    readers: [File; 2],
    pending: [Vec<u8>; 2],
}

impl Printer {
    /// The printer, and the files for the standard output and the standard error.
    fn new() -> io::Result<(Self, [File; 2])> {
        let create = || -> io::Result<(File, File)> {
            let file = NamedTempFile::new()?;
            // With a position of its own, unlike a duplicate.
            Ok((file.reopen()?, file.into_file()))
        };
        let ((out, out_file), (err, err_file)) = (create()?, create()?);
        Ok((Self { readers: [out, err], pending: Default::default() }, [out_file, err_file]))
    }

    /// Prints what the command has written since; `only_lines` keeps the beginning of a line.
    fn print(&mut self, only_lines: bool) {
        for (index, reader) in self.readers.iter_mut().enumerate() {
            let pending = &mut self.pending[index];
            let mut chunk = vec![0; 1 << 16];
            while let Ok(length @ 1..) = reader.read(&mut chunk) {
                pending.extend(&chunk[..length]);
                write_lines(index, pending, true);
            }
            write_lines(index, pending, only_lines);
        }
    }
}

/// Writes the lines to the standard output or the standard error, and removes them.
fn write_lines(index: usize, pending: &mut Vec<u8>, only_lines: bool) {
    let end = if only_lines {
        pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
    } else {
        pending.len()
    };
    if end > 0 {
        let bytes = &pending[..end];
        // A failure is ignored, as that of a command which inherits the output would be.
        let _ = if index == 0 { output::try_write(bytes) } else { io::stderr().write_all(bytes) };
        pending.drain(..end);
    }
}
