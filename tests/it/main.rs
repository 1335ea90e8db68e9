//! The integration tests, in one binary. They check what users see of several processes; `limit`,
//! `peer` and `support` are the tools.

// These modules come first because they define macros.
#[macro_use]
mod limit;

#[macro_use]
mod peer;
mod support;

mod api;
mod barrier;
mod cancel;
mod event;
mod examples;
mod hanging_tests;
mod holder;
mod lock;
mod once;
mod options;
mod protocol;
mod rwlock;
mod semaphore;
mod serialized;
mod shared_file;
mod tracing;
mod wait;

// Linux only: the hosts run on one machine in network namespaces or in guests.
#[cfg(target_os = "linux")]
mod between_hosts;
#[cfg(feature = "cli")]
mod cli;
// Linux only: strace injects the errors.
#[cfg(target_os = "linux")]
mod faults;
// Linux only: a server in user space is mounted.
#[cfg(target_os = "linux")]
mod fuse;
// Linux only: a server in user space is mounted.
#[cfg(target_os = "linux")]
mod hanging_mounts;
// Unix only: symbolic links, FIFOs, sockets and hard links planted by another process.
#[cfg(unix)]
mod hostile;
// Unix only: programs do not inherit locks on Windows.
#[cfg(unix)]
mod inherit;
// Linux only: other systems show no waiters.
#[cfg(target_os = "linux")]
mod inspect;
// Linux only: a server in user space is mounted.
#[cfg(target_os = "linux")]
mod host_queue;
// Linux only: flock(1) and Python lock the same file.
#[cfg(target_os = "linux")]
mod interop;
// Linux only: counts resources through `/proc`.
#[cfg(target_os = "linux")]
mod leaks;
// Linux only: a server in user space is mounted.
#[cfg(target_os = "linux")]
mod lost;
// Linux only: other systems have no pid namespaces.
#[cfg(target_os = "linux")]
mod namespaces;
// Unix only: mode bits, other users, limits and injected errors. `windows` tests Windows errors.
#[cfg(unix)]
mod os_errors;
// Linux only: the torture test reads process states from `/proc`.
#[cfg(target_os = "linux")]
mod torture;
// Windows only: share modes, names, attributes.
#[cfg(windows)]
mod windows;

mod tidy;
