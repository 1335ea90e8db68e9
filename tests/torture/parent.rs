//! The connection of a child process to the coordinator: the child dies with the coordinator, and
//! receives the phases from it.

use std::io;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::phase::{self, Phase};

/// Makes the kernel kill this process when the thread that started it ends, even if this process is
/// stopped. Must be called first.
pub(crate) fn die_with_parent() -> io::Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // If the coordinator ended before the call, this process already has another parent.
    if getppid() == parent { Ok(()) } else { Err(io::Error::other("the coordinator has ended")) }
}

/// Returns the phases with their numbers, until the coordinator ends and closes the standard input.
pub(crate) fn phases() -> impl Iterator<Item = (u64, Phase)> {
    io::stdin().lines().map_while(Result::ok).filter_map(|line| phase::parse(&line))
}
