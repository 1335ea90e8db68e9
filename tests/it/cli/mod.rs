//! The command `flockwork`, run as a process.

mod everywhere;

// Linux only: compares with flock(1), and uses sh.
#[cfg(target_os = "linux")]
mod as_flock;
// Linux only: the jobs are lines of shell.
#[cfg(target_os = "linux")]
mod as_sem;
// Linux only: the jobs are shell scripts. `everywhere` tests the same on other systems.
#[cfg(target_os = "linux")]
pub(crate) mod command;
// Linux only: terminals of Python.
#[cfg(target_os = "linux")]
mod completions;
// Linux only: pid namespaces.
#[cfg(target_os = "linux")]
mod container;
// Linux only: other systems do not show the ancestors of a process.
#[cfg(target_os = "linux")]
mod deadlock;
// Linux only: sh, mount options, strace, other users.
#[cfg(target_os = "linux")]
mod errors;
// Linux only: the jobs are shell scripts.
#[cfg(target_os = "linux")]
mod event;
// Linux only: runs sh.
#[cfg(target_os = "linux")]
mod fuzz;
// Linux only: other users, systemd-tmpfiles.
#[cfg(target_os = "linux")]
mod id;
// Linux only: sh, FIFOs, mode bits, other users, file names that are not Unicode.
#[cfg(target_os = "linux")]
mod input;
// Linux only: the jobs are shell scripts.
#[cfg(target_os = "linux")]
mod lock;
// Linux only: the jobs are shell scripts.
#[cfg(target_os = "linux")]
mod once;
// Linux only: sh, /dev/full.
#[cfg(target_os = "linux")]
mod output;
// Linux only: runs shell scripts.
#[cfg(target_os = "linux")]
mod docs;
// Linux only: the jobs are shell scripts.
#[cfg(target_os = "linux")]
mod sem;
// Linux only: the jobs are shell scripts.
#[cfg(target_os = "linux")]
mod sem_wait;
// Linux only: signals and terminals.
#[cfg(target_os = "linux")]
mod signals;
// Linux only: sh, strace, namespaces.
#[cfg(target_os = "linux")]
mod status;
// Linux only: terminals of Python.
#[cfg(target_os = "linux")]
mod terminal;
// Linux only: the jobs are shell scripts.
#[cfg(target_os = "linux")]
mod waiting;

/// The lines of a standard error without the progress, which a wait shows if it takes longer than a
/// second, as on a busy machine.
pub(crate) fn without_progress(stderr: &str) -> impl Iterator<Item = &str> {
    stderr.split_inclusive('\n').filter(|line| !line.starts_with("flockwork: waiting for "))
}
