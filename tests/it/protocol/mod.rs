//! The rules for files on disk (rules 1 to 9). Each rule has a test that fails when the rule is
//! broken.

mod acquiring;
// Unix only: Windows has no fork.
#[cfg(unix)]
mod forked;
mod opening;
// Unix only: Windows does not remove or rename a lock file that is open (rule 7).
#[cfg(unix)]
mod replaced;
