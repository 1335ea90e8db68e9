//! The standard output, which may be closed.

use std::io::{ErrorKind, Write as _};

use crate::exit::{Exit, Failure, Outcome};

/// Writes it all. Who does not want to read on (`| head`) ends us as SIGPIPE ends other programs.
pub(crate) fn write(bytes: &[u8]) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Other(128 + 13)),
        Err(error) => {
            Err(Failure::new(Exit::System, format!("cannot write to the standard output: {error}")))
        }
    }
}
