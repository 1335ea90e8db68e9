//! Unix: distinguishes a process from its forked copies; a coarse clock; the host's name.

use std::sync::atomic::{AtomicU32, Ordering};

use forkguard::atfork::Guard;

/// Identifies the process that created a value. `fork` copies handles and guards, and both copies
/// then share the open file descriptions and so the locks: the forked copy must neither release nor
/// use them (rule 4).
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// Counts forks by `pthread_atfork(3)`, so a check costs one load. A bare clone(2) is not
    /// counted.
    Counted(Guard),
    /// Asks the kernel each time, while no handler is registered or if none can be (out of memory).
    Asked(u32),
}

/// The process that registers the handler, or [`REGISTERED`].
static REGISTERING: AtomicU32 = AtomicU32::new(0);
/// No process has this number.
const REGISTERED: u32 = u32::MAX;

/// A value that counts forks; the first call registers the handler. `None` while another thread
/// registers it. forkguard would wait for that thread, which may exist only in the process that
/// this one was forked from, since `pthread_atfork(3)` waits for a `fork` that is under way
/// (rule 4).
fn counted() -> Option<Guard> {
    if REGISTERING.load(Ordering::Acquire) == REGISTERED {
        return Guard::try_new().ok();
    }
    let (this, order) = (std::process::id(), Ordering::AcqRel);
    REGISTERING.compare_exchange(0, this, order, Ordering::Acquire).ok()?;
    let guard = Guard::try_new();
    REGISTERING.store(REGISTERED, Ordering::Release);
    guard.ok()
}

impl Origin {
    pub(crate) fn here() -> Self {
        counted().map_or_else(|| Self::Asked(std::process::id()), Self::Counted)
    }

    pub(crate) fn is_here(&self) -> bool {
        match self {
            Self::Counted(guard) => !guard.clone().detected_fork(),
            Self::Asked(id) => *id == std::process::id(),
        }
    }
}

/// Linux reads `CLOCK_MONOTONIC_COARSE` in a quarter of the time that the exact clock takes
/// (`clock_gettime(2)`).
pub(crate) fn coarse_milliseconds() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        #[allow(
            clippy::cast_sign_loss,
            clippy::cast_lossless,
            reason = "time since boot, a c_long"
        )]
        {
            now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    super::super::milliseconds()
}

pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
