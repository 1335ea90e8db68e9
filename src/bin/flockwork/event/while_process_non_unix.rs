//! `flockwork event set --while PID` is not supported on this system.

use std::path::Path;

use flockwork::Options;

use crate::exit::{Failure, Outcome};

pub(super) fn set(
    _path: &Path,
    _pid: u32,
    _options: &Options,
    _payload: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Outcome {
    Err(Failure::usage("event set: --while is not supported on this system")
        .hint("let flockwork start the process, as in `flockwork event set PATH -- COMMAND`"))
}
