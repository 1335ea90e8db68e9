//! The integration tests, one binary: what users of several processes see. `limit`, `running`,
//! `peer`, `permits`, `markers`, `readers`, `calls`, `planted` and `support` are its tools.

// First, for its macro.
#[macro_use]
mod limit;

mod calls;
mod markers;
mod peer;
mod permits;
// Unix only: of `hostile`.
#[cfg(unix)]
mod planted;
mod readers;
mod running;
mod support;

mod engine;
mod event;
mod event_consume;
mod event_kinds;
mod event_new;
mod event_watch;
mod examples;
mod futures;
mod given_up;
mod hangs;
mod holder;
mod lock;
mod once;
mod rules;
mod rwlock;
mod semaphore;
mod semaphore_files;
mod semaphore_order;
mod semaphore_resize;
mod shared_file;

// Linux only: compares with flock(1), and uses sh.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod as_flock;
// Linux only: the jobs are scripts of sh. `cli_everywhere` has what matters elsewhere, as for those below.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli;
#[cfg(feature = "cli")]
mod cli_everywhere;
// Linux only: runs sh.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_fuzz;
// Linux only: namespaces of processes.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_container;
// Linux only: sh, mount options, strace, other users.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_errors;
// Linux only: sh, FIFOs, mode bits, other users, names that are no Unicode.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_input;
// Linux only: sh, /dev/full.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_output;
// Linux only: runs the README's scripts of sh.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_readme;
// Linux only: signals and terminals.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_signals;
// Linux only: sh, strace, namespaces.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_status;
// Linux only: uses what `cli` does.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod cli_waiting;
// Linux only: errors are injected by strace.
#[cfg(target_os = "linux")]
mod faults;
// Unix only: symbolic links, FIFOs, sockets and hard links that somebody planted.
#[cfg(unix)]
mod hostile;
// Unix only: as `hostile`.
#[cfg(unix)]
mod hostile_contents;
// Linux only: mounts, other users, races.
#[cfg(target_os = "linux")]
mod hostile_system;
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
mod refusals;
// Linux only: who is killed or stopped is looked up in /proc.
#[cfg(target_os = "linux")]
mod torture;
// Windows only: share modes, names, attributes.
#[cfg(windows)]
mod windows;

mod tidy;
