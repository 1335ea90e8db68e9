//! Directories to which other users may write, files that another process wrote, and file systems that refuse.

mod contents;
// Linux only: mounts.
#[cfg(target_os = "linux")]
mod file_systems;
pub(crate) mod fixtures;
// Linux only: setpriv, and what `file_systems` uses.
#[cfg(target_os = "linux")]
mod other_users;
mod planted;
// Linux only: a fast exchange of files.
#[cfg(target_os = "linux")]
mod swapped;
