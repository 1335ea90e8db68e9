//! Directories that other users may write to, files that another process wrote, and file systems
//! that return errors.

mod contents;
// Linux only: mounts.
#[cfg(target_os = "linux")]
mod file_systems;
pub(crate) mod fixtures;
// Linux only: setpriv, and the tools of `file_systems`.
#[cfg(target_os = "linux")]
mod other_users;
mod planted;
// Linux only: a fast exchange of files.
#[cfg(target_os = "linux")]
mod swapped;
