//! Locks, semaphores, events and barriers between unrelated programs, identified by a path.
//!
//! Programs that open the same path exclude each other, limit each other or notify each other.
//! There is no daemon and no shared memory. The locks are the kernel's advisory file locks
//! (`flock(2)`, and `LockFileEx` on Windows), which the kernel releases when a process dies.
//!
//! # Which one do I need?
//!
//! | To | use |
//! |---|---|
//! | let one process at a time do something | [`Lock`] |
//! | let many processes read, or one write | [`RwLock`] |
//! | limit how many processes do something at the same time | [`Semaphore`] |
//! | let one of several processes lead, until it dies | [`Lock`]: see [`recipes`] |
//! | wait until another program is ready, and receive a message from it | [`Event`] |
//! | do something once, however many processes need it | [`Once`] |
//! | read and change a small file that several programs share | [`SharedFile`] |
//! | let N processes wait for each other at a point | [`Barrier`] |
//! | see who holds a path, without opening or creating anything | [`inspect()`] |
//!
//! [`Options`] opens each of these primitives with settings: a label that waiters see, permissions,
//! a callback during long waits, and more.
//!
//! # Examples
//!
//! A [`Lock`] has one holder at a time, and the threads of one process exclude each other as well:
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("deploy.lock");
//! use std::time::Duration;
//! use flockwork::Lock;
//!
//! let lock = Lock::open(&path)?;
//! let guard = lock.lock()?; // every other program that locks the path waits
//!
//! let error = lock.lock_timeout(Duration::from_millis(20)).unwrap_err();
//! assert!(error.is_timed_out());
//!
//! guard.unlock()?; // dropping the guard also releases the lock
//! assert!(lock.try_lock().is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An [`RwLock`] has many readers or one writer:
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("index.lock");
//! let index = flockwork::RwLock::open(&path)?;
//! let readers = (index.read()?, index.read()?);
//! drop(readers);
//! let writing = index.write()?;
//! let reading = writing.downgrade()?; // no other writer gets in between
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Semaphore`] has N permits, and each permit has a slot that no other holder has:
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("gpus");
//! let gpus = flockwork::Semaphore::open(&path, 2)?;
//! let permit = gpus.acquire()?;
//! assert!(permit.slot() < 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An [`Event`] is set for all waiters, with a payload if needed. This one is set until the server
//! withdraws it or dies:
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("server.ready");
//! let ready = flockwork::Event::open(&path)?;
//! let announcement = ready.set_while_alive("40123")?;
//! assert_eq!(ready.wait_payload()?, b"40123"); // in any other program
//! announcement.withdraw()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Once`] runs its closure in one of all processes, and the others wait until it is done:
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("tools.unpacked");
//! # let tools = dir.path().join("tools");
//! let unpacked = flockwork::Once::open(&path)?;
//! let by_us = unpacked.call_once(|| std::fs::create_dir(&tools))?;
//! assert!(by_us && !unpacked.call_once(|| std::fs::create_dir(&tools))?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`SharedFile`] is read, changed and replaced under one lock:
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("builds");
//! let log = flockwork::SharedFile::open(&path)?;
//! log.update(|contents| {
//!     contents.extend(b"one more build\n");
//!     std::io::Result::Ok(())
//! })?;
//! assert_eq!(log.read_to_string()?, "one more build\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Barrier`] lets N participants pass together, and exactly one of them is the leader:
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("step");
//! let step = flockwork::Barrier::open(&path, 2)?;
//! let other = std::thread::spawn({
//!     let step = step.clone();
//!     move || step.wait()
//! });
//! let passed = step.wait()?; // returns when both have arrived
//! assert_ne!(passed.is_leader(), other.join().unwrap()?.is_leader());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Paths
//!
//! A path is made absolute when it is opened, so a later change of the current directory has no
//! effect. Symbolic links in parent directories are followed. A symbolic link as the last component
//! is an error, unless [`Options::follow_symlinks`] permits it.
//!
//! Opening a [`Lock`], [`RwLock`], [`Semaphore`] or [`Barrier`] creates missing files and parent
//! directories. Opening, reading or waiting for an [`Event`], [`Once`] or [`SharedFile`] creates
//! nothing, since the program that sets or writes it may want to create its directory itself. With
//! [`Options::create(false)`](Options::create), a missing file is an error. The library never
//! deletes a lock file: see the caveats of [`Lock`](Lock#caveats).
//!
//! # Waiting
//!
//! The main operations come in five forms, which are named after the plain one:
//!
//! | Form | Waits |
//! |---|---|
//! | `lock()` | until the lock is available |
//! | `try_lock()` | never |
//! | `lock_timeout(timeout)` | at most `timeout`; zero tries once |
//! | `lock_deadline(deadline)` | until `deadline`; a deadline in the past tries once |
//! | `lock_async()` | asynchronously, until the lock is available |
//!
//! The other main operations are `read`, `write`, `acquire`, `acquire_many`, `wait`,
//! `wait_payload`, `wait_cleared`, `consume`, `call_once`, `lock_shared` and `lock_exclusive`.
//! Other methods that wait have a plain and an `_async` form, and a few also have a `_timeout`
//! form.
//!
//! On a local file system, waits for a lock sleep in the kernel, and waits for an event sleep until
//! the file system reports a change. On a network file system the waiters of one host take turns,
//! and many poll. [`platforms`] lists what each system reports, and how often waiters check on
//! their own.
//!
//! A program that must be able to give up, for example on Ctrl-C, passes a [`Cancel`] token with
//! [`Options::cancel`].
//!
//! # Futures
//!
//! All futures follow the same rules:
//!
//! * They are `Send + 'static` and run on any executor.
//! * They do nothing before they are polled for the first time.
//! * Dropping a future cancels the wait. If it has been granted the lock but has not returned it,
//!   the lock passes to the next waiter.
//! * Dropping a future that waits at a [`Barrier`] breaks the barrier.
//! * A future that has been polled must be polled to completion or dropped. It can be granted the
//!   lock while no task polls it, and other waiters are blocked until it is polled again. So in a
//!   `select!` with `&mut future`, the other branches must not wait for the same lock.
//! * A future keeps its place in the queue until it is dropped. A loop that creates a new future in
//!   each round queues again each time: see [`recipes`].
//! * A future must not be polled after it has completed.
//!
//! For a timeout, use the runtime's own, such as `tokio::time::timeout`.
//!
//! # Errors
//!
//! Every failure is an [`Error`], including a failure to acquire the lock, so
//! `let _guard = lock.try_lock()?;` never continues without the lock. [`Error::kind`]
//! distinguishes the cases, [`Error::holders`] returns the processes that blocked the call, and
//! [`Error::hint`] suggests what to do. An [`Error`] converts into [`std::io::Error`].
//!
//! # Crash safety
//!
//! When a process dies, even by SIGKILL, the kernel releases its locks and permits, and the next
//! waiter acquires them. Shared files and payloads are replaced in one step, so no reader sees one
//! half-written. The rest is left to the program:
//!
//! * A holder that dies may leave the data it was changing in any state.
//!   [`LockGuard::was_abandoned`] reports such a death if the holder left a record.
//! * An [`Event`] stays set when the process that set it dies, except one that was set with
//!   [`Event::set_while_alive`].
//! * Changes survive the death of any process. They survive a loss of power only with
//!   [`Options::fsync`].
//! * A child that is created by `fork` without exec shares the locks of its parent until it closes
//!   them, calls exec or ends.
//!
//! # Threads and other effects on the process
//!
//! The library installs no signal handlers. It does not change the umask, the environment or the
//! current directory. On Unix it registers one `pthread_atfork(3)` handler, which counts forks.
//!
//! It starts threads only for these waits:
//!
//! * [`Lock::lock`] without a callback blocks in the calling thread. Any other wait for a lock or a
//!   permit is served by a helper thread, which sleeps in the kernel. There is one helper for each
//!   lock with such waits. It ends once it has been granted the lock and no wait needs it any more.
//!   A process has at most 64 helpers that a wait needs, and 256 in all; further waits poll.
//! * One timer thread serves all futures that poll, that wait for a semaphore, an event or a
//!   barrier, or that have an [`on_wait`](Options::on_wait) callback.
//! * While a thread or future waits for an event or at a barrier, or is first in a semaphore's
//!   queue, the process has two more threads and one instance of the system's file watcher (through
//!   the crate `notify`).
//!
//! # Cargo features
//!
//! Only `watch` is on by default.
//!
//! * `watch` notifies waiters for an event, at a barrier and (in some cases) for a permit through
//!   the crate [`notify`](https://docs.rs/notify). Without it everything works, but those waits
//!   poll: at most 10 milliseconds apart for 5 seconds, and 50 milliseconds apart from then on. A
//!   program with only a [`Lock`] or an [`RwLock`] does not need it, and compiles 8 crates fewer
//!   with `default-features = false`.
//! * `tracing` reports through the crate [`tracing`](https://docs.rs/tracing), with the target
//!   `flockwork`. Each wait that blocks is a span `wait` of level `DEBUG` with the fields `path`
//!   and `outcome` (`succeeded`, `timed out`, `failed`, or `given up` by a dropped future). A wait
//!   that polls instead of being notified is an event of level `DEBUG` with the field `reason`. A
//!   holder that is found to have died is an event of level `WARN` with the field `path`. For a
//!   lock or a permit it is found under the conditions of [`LockGuard::was_abandoned`].
//! * `serde` implements `Serialize` and `Deserialize` for [`Access`], [`Holder`], [`Status`] and
//!   [`StatusKind`].
//! * `cli` builds the command `flockwork`, and adds nothing to the library. It enables `watch`.
//!
//! # Platforms
//!
//! Linux is tested on each change, and Windows under Wine. macOS, the BSDs (except Dragonfly) and
//! illumos are type-checked. Elsewhere (Solaris, WebAssembly) the crate compiles, and every
//! operation that would lock returns an error of kind [`Unsupported`](ErrorKind::Unsupported).
//! [`platforms`] lists what holds on which system.
//!
//! # Minimum supported Rust version
//!
//! 1.85. It is raised only in a minor version, and the [`changelog`] says so.
//!
//! Newer versions of the crate `notify` and of its dependency `notify-types` need Rust 1.88 and
//! 1.91. Cargo selects versions that fit the compiler if the package that it builds has the edition
//! 2024 or `resolver = "3"`. With an older edition, run this once (with Cargo 1.84 or newer), or do
//! without the feature `watch`:
//!
//! ```sh
//! CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback cargo update notify notify-types
//! ```
//!
//! # More documentation
//!
//! * [`recipes`]: solutions to common tasks, in Rust and for the shell.
//! * [`platforms`]: what each operating system and file system provides.
//! * [`distributed`]: locks between hosts, on each network file system.
//! * [`reliability`]: how the crate is tested, and what the tests found.
//! * [`protocol`]: the files on disk, and what other programs can rely on.
//! * [`changelog`]: what changed in each version.
//!
//! [`changelog`]: _documentation::changelog
//! [`distributed`]: _documentation::distributed
//! [`platforms`]: _documentation::platforms
//! [`protocol`]: _documentation::protocol
//! [`recipes`]: _documentation::recipes
//! [`reliability`]: _documentation::reliability

#![deny(missing_docs)]
// clippy.toml lists the methods that only certain layers may call.
#![deny(clippy::disallowed_methods)]

// This module comes first because the others use its macro.
#[cfg(test)]
#[macro_use]
#[allow(
    clippy::disallowed_methods,
    dead_code,
    reason = "the watchdog has its own clock and thread, and unit tests use only a part of it"
)]
#[path = "../tests/it/limit.rs"]
mod limit;

mod sorted_map;
mod sync;
mod sys;
mod trace;

mod access;
mod cancel;
mod fork_safe;
mod holder;
mod host_directory;
mod printable;
mod process;
mod record;

mod file;
mod wait;

mod error;
mod holders;
mod options;
mod paths;

mod line;
mod lock_request;
mod waiter_list;

mod barrier;
mod event;
mod inspect;
mod lock;
mod once;
mod rwlock;
mod semaphore;
mod shared_file;

#[cfg(feature = "serde")]
mod serialized;

pub use access::Access;
pub use barrier::{Barrier, BarrierWaitResult};
pub use cancel::Cancel;
pub use error::{Error, ErrorKind, Operation, Result};
pub use event::{Announcement, Event, EventFuture};
pub use holder::Holder;
pub use inspect::{Status, StatusKind, inspect};
pub use lock::{Lock, LockGuard};
pub use once::Once;
pub use options::{Options, Waiting};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{MergeError, Permit, Semaphore};
pub use shared_file::{FileReadGuard, FileWriteGuard, SharedFile};

/// For the command of this package alone.
#[doc(hidden)]
pub mod _command {
    /// Whether the path is on a network file system, found out without asking its server.
    pub fn leads_to_network(path: &std::path::Path) -> bool {
        super::wait::leads_to_network(path)
    }

    /// Whether any network file system is mounted, as far as the system shows that.
    pub fn has_network_mounts() -> bool {
        super::sys::NetworkMounts::read().is_some()
    }

    /// Makes a call about the path.
    ///
    /// If that is on a network file system whose server does not respond, the call fails after a
    /// second.
    pub fn ask<T: Send + Sync + 'static>(
        path: &std::path::Path,
        call: impl FnOnce(&std::path::Path) -> T + Send + 'static,
    ) -> super::Result<T> {
        super::wait::open(&super::Options::new(), path, |_, path| Ok(call(path)))
    }
}

/// Documentation beyond the API: the files of the project's `docs` directory, and the changelog.
#[allow(clippy::doc_markdown, reason = "the files are for readers outside rustdoc as well")]
pub mod _documentation {
    #[doc = include_str!("../docs/RECIPES.md")]
    pub mod recipes {}

    #[doc = include_str!("../docs/PLATFORMS.md")]
    pub mod platforms {}

    #[doc = include_str!("../docs/DISTRIBUTED.md")]
    pub mod distributed {}

    #[doc = include_str!("../docs/RELIABILITY.md")]
    pub mod reliability {}

    #[doc = include_str!("../docs/PROTOCOL.md")]
    pub mod protocol {}

    // The heading of the next version is in brackets, which rustdoc takes for a link.
    #[doc = "[Unreleased]: #unreleased\n"]
    #[doc = include_str!("../CHANGELOG.md")]
    pub mod changelog {}
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
