//! Locks, semaphores and events between unrelated programs, keyed by a path in the file system.
//!
//! * [`Lock`]: one holder at a time, over all processes and threads that open the path.
//! * [`RwLock`]: many read, or one writes, and nobody starves.
//! * [`Semaphore`]: so many holders at a time, first come, first served.
//! * [`Event`]: a flag that wakes everyone who waits for it, and can carry a payload.
//! * [`Once`]: something that one of all processes does once.
//! * [`SharedFile`]: a data file that many programs read and change as a whole.
//! * [`Options`]: a label for those who wait, access bits, a callback while waiting, polling, fsync.
//! * [`Error`]: what went wrong, on which path, and who is in the way.
//!
//! There is no daemon, no shared memory and nothing to clean up after a crash: the locks are the kernel's
//! advisory file locks, and it frees what a dead process held.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("deploy.lock");
//! let lock = flockwork::Lock::open(&path)?;
//! let held = lock.lock()?; // every other process waits here
//! held.unlock()?;
//!
//! # let path = dir.path().join("compilers");
//! let compilers = flockwork::Semaphore::open(&path, 4)?;
//! let permit = compilers.acquire()?; // at most four of them anywhere
//! println!("on slot {}", permit.slot());
//!
//! # let path = dir.path().join("server.ready");
//! let ready = flockwork::Event::open(&path)?;
//! # ready.set()?;
//! ready.wait()?; // until any program makes that file
//!
//! # let path = dir.path().join("builds");
//! let builds = flockwork::SharedFile::open(&path)?;
//! builds.update(|lines| {
//!     lines.extend(b"one more\n");
//!     Ok::<_, std::io::Error>(()) // read, changed and written under one lock
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Names
//!
//! `lock` waits without limit, `try_lock` never waits, `lock_timeout` and `lock_deadline` give up,
//! and `lock_async` returns a future. The other primary verbs have the same five forms: `read`,
//! `write`, `acquire`, `acquire_many`, `wait`, `wait_cleared`, `consume`, `call_once`, `lock_shared`
//! and `lock_exclusive`. A lock that was not acquired is an error. Every other method exists once,
//! and with `_async` where it waits.
//!
//! # Futures
//!
//! All futures follow one rule. They are `Send + 'static` and belong to no runtime. Nothing happens
//! before the first poll. Dropping a future cancels it: what it was granted and did not take goes to
//! the next waiter. A future that was polled must be polled on or dropped, since it may be granted
//! the lock while no task polls it. It must not be polled after it has completed.
//!
//! # What the process gets
//!
//! The library installs no signal handlers and changes neither the umask, the environment nor the current
//! directory. Waits with a deadline, and futures, are served by at most one helper thread for each lock
//! that is waited for, which sleeps in the kernel. A helper ends when it has been granted the lock and no wait needs it; one whose
//! waits have all given up stays until then. At most 8 such helpers are kept by waits of less than 50 milliseconds, and at
//! most 256 helpers exist, 64 of them for waits that go on; beyond that waits poll. A future that
//! polls, waits for a semaphore or an event, or has an [`on_wait`](Options::on_wait) callback needs a timer's thread
//! as well, one for all. While a thread or future waits for an event (as [`Once::wait`] does), or is first in a semaphore's queue, there are two more
//! threads for the process, and one instance of the system's file watcher (the crate `notify`). On Unix it registers one handler with `pthread_atfork(3)`, which counts forks.
//!
//! # Not promised
//!
//! Each type says what it does not promise; [`_protocol`] states what lies on disk and why no wake-up is
//! lost, and [`_platforms`] what holds on which system.

#![deny(missing_docs)]
// The layers of docs/PROTOCOL.md, with the methods that clippy.toml lists.
#![deny(clippy::disallowed_methods)]

// First, for its macro.
#[cfg(test)]
#[macro_use]
#[allow(
    clippy::disallowed_methods,
    dead_code,
    reason = "the watchdog has its own clock and thread, and unit tests use only a part of it"
)]
#[path = "../tests/it/limit.rs"]
mod limit;

mod sync;
mod sys;

mod access;
mod fork_safe;
mod holder;
mod printable;
mod process;
mod record;

mod file;
mod wait;

mod error;
mod holders;
mod options;
mod paths;

mod lock_request;

mod event;
mod inspect;
mod lock;
mod once;
mod rwlock;
mod semaphore;
mod shared_file;

pub use access::Access;
pub use error::{Error, ErrorKind, Operation, Result};
pub use event::{Event, EventFuture};
pub use holder::Holder;
pub use inspect::{Status, StatusKind, inspect};
pub use lock::{Lock, LockGuard};
pub use once::Once;
pub use options::{Options, Waiting};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Permit, Semaphore};
pub use shared_file::{FileReadGuard, FileWriteGuard, SharedFile};

#[doc = include_str!("../docs/PROTOCOL.md")]
pub mod _protocol {}

#[doc = include_str!("../docs/PLATFORMS.md")]
pub mod _platforms {}

#[doc = include_str!("../docs/RECIPES.md")]
pub mod _recipes {}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
