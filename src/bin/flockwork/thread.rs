//! Threads of the command.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread. The closure is boxed, so that the code which starts a thread is compiled once.
pub(crate) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let run: Box<dyn FnOnce() + Send> = Box::new(run);
    Builder::new().name(name.into()).spawn(run)
}
