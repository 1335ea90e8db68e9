//! The rules for files on disk (`docs/PROTOCOL.md`, rules 1 to 9), each with a test that fails when
//! the rule is broken.

mod acquiring;
// Unix only: Windows has no fork.
#[cfg(unix)]
mod forked;
mod opening;
// Unix only: Windows removes and renames no lock file that is open (rule 7).
#[cfg(unix)]
mod replaced;
