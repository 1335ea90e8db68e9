//! The rules for files on disk (rules 1 to 9). For each rule a test fails when it is broken.

mod acquiring;
// Unix only: Windows has no fork.
#[cfg(unix)]
mod forked;
mod opening;
// Unix only: Windows does not remove or rename a lock file that is open (rule 7).
#[cfg(unix)]
mod replaced;
