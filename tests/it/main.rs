//! The integration tests, one binary: what users of several processes see. `limit`, `peer` and
//! `support` are its tools.

// These come first, for their macros.
#[macro_use]
mod limit;

#[macro_use]
mod peer;
mod support;

mod api;
mod event;
mod examples;
mod hanging_tests;
mod holder;
mod lock;
mod once;
mod protocol;
mod rwlock;
mod semaphore;
mod shared_file;
mod wait;

#[cfg(feature = "cli")]
mod cli;
// Linux only: errors are injected by strace.
#[cfg(target_os = "linux")]
mod faults;
// Unix only: symbolic links, FIFOs, sockets and hard links that another process planted.
#[cfg(unix)]
mod hostile;
// Unix only: Windows hands no lock on to programs that are started.
#[cfg(unix)]
mod inherit;
// Linux only: excludes and is excluded by flock(1) and Python.
#[cfg(target_os = "linux")]
mod interop;
// Linux only: counts by /proc.
#[cfg(target_os = "linux")]
mod leaks;
// Linux only: no other system has pid namespaces.
#[cfg(target_os = "linux")]
mod namespaces;
// Unix only: mode bits, other users, limits; injected errors. `windows` has what Windows refuses.
#[cfg(unix)]
mod os_errors;
// Linux only: who is killed or stopped is looked up in /proc.
#[cfg(target_os = "linux")]
mod torture;
// Windows only: share modes, names, attributes.
#[cfg(windows)]
mod windows;

mod tidy;
