//! The integration tests, one binary: what users of several processes see. `peer`, `permits`, `markers`,
//! `readers`, `calls`, `planted` and `support` are its tools.

#![allow(
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    clippy::needless_pass_by_value,
    reason = "tests play the other program: they open, lock, sleep and start as they like"
)]

mod calls;
mod markers;
mod peer;
mod permits;
#[cfg(unix)]
mod planted;
mod readers;
mod support;

mod engine;
mod event;
mod event_consume;
mod event_watch;
mod examples;
mod futures;
mod holder;
mod lock;
mod once;
mod rules;
mod rwlock;
mod semaphore;
mod semaphore_files;
mod semaphore_order;
mod shared_file;

#[cfg(all(feature = "cli", target_os = "linux"))]
mod as_flock;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli;
#[cfg(feature = "cli")]
mod cli_everywhere;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_input;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_readme;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_signals;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_status;
#[cfg(unix)]
mod hostile;
#[cfg(unix)]
mod hostile_contents;
#[cfg(unix)]
mod inherit;
#[cfg(target_os = "linux")]
mod interop;
#[cfg(unix)]
mod refusals;

mod tidy;
