//! The mutexes, condition variables and threads of the hand-over: those of std or, in
//! `ci/shuttle.sh`, those of a library that chooses which thread runs next.

#[cfg(not(all(test, flockwork_shuttle)))]
mod chosen {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread::sleep;

    /// Starts a detached thread with a stack of `stack` bytes.
    pub(crate) fn start(
        name: &str,
        stack: usize,
        run: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        super::start_thread(name, Some(stack), run)
    }
}

#[cfg(all(test, flockwork_shuttle))]
mod chosen {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread::sleep;

    /// One in this number of threads does not start. 0: all threads start.
    pub(crate) static REFUSED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

    pub(crate) fn start(
        name: &str,
        _stack: usize,
        run: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        use shuttle::rand::Rng as _;
        let one_in = REFUSED.load(std::sync::atomic::Ordering::SeqCst);
        if one_in > 0 && shuttle::rand::thread_rng().gen_range(0..one_in) == 0 {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        shuttle::thread::Builder::new().name(name.into()).spawn(run).map(drop)
    }
}

pub(crate) use chosen::*;

/// Starts a detached thread, also in `ci/shuttle.sh`. The closure is boxed, so that the code which
/// starts a thread is compiled once.
#[expect(clippy::disallowed_methods, reason = "called by src/wait alone")]
pub(crate) fn start_thread(
    name: &str,
    stack: Option<usize>,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(name.into());
    let thread = match stack {
        Some(stack) => thread.stack_size(stack),
        None => thread,
    };
    thread.spawn(Box::new(run) as Box<dyn FnOnce() + Send>).map(drop)
}
