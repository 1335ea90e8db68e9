//! The top level of the command line: the help text, the exit codes and the verbs. Each verb
//! defines its own options and examples.

use clap::{Parser, Subcommand};

use crate::color::ColorArgs;
use crate::completions::CompletionsArgs;
use crate::event::EventArgs;
use crate::lock::LockArgs;
use crate::man::ManArgs;
use crate::once::OnceArgs;
use crate::sem::SemArgs;
use crate::status::StatusArgs;

/// Locks, semaphores and events between programs, identified by a path
///
/// All programs that name the same path share one lock, semaphore or event. The kernel releases
/// what a dead process held. Locks are flock(2) locks (LockFileEx on Windows), so they also exclude
/// flock(1), Python's fcntl.flock and other programs that use such locks.
#[derive(Debug, Parser)]
#[command(
    name = "flockwork",
    version,
    after_long_help = EXIT_CODES,
    after_help = "Exit codes: the command's own, or 128 + the signal that ended it; 75 timed out, 64 usage,\n65 damaged, 66 cannot open, 69 cannot run, 71 system error, 73 cannot create.\nSee `flockwork help VERB` for more.",
    disable_help_subcommand = false,
    subcommand_required = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) color: ColorArgs,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a command while holding a lock, exclusive or shared
    ///
    /// Waits for the lock, runs the command, and exits with its code. Processes that the command
    /// starts inherit the lock, which is held until the last of them has ended, even if flockwork
    /// is killed (on Windows, they end with flockwork). TERM, INT, HUP, QUIT, USR1, USR2, CONT and
    /// TSTP are forwarded to the command.
    Lock(LockArgs),
    /// Run a command while holding a permit of a semaphore: at most N at a time
    ///
    /// Permits are granted in order of arrival, across all programs on the machine. The
    /// command finds the number of its slot, from 0 to N-1, in FLOCKWORK_SLOT (with -k, several
    /// numbers separated by commas). Its arguments are passed unchanged, without a shell.
    Sem(SemArgs),
    /// Set, clear, query and wait for events
    ///
    /// An event is set while the file PATH exists. The contents of the file are its payload.
    Event(EventArgs),
    /// Run a command once, however many processes ask for it
    ///
    /// The first caller runs the command. Callers that arrive meanwhile wait until it is done, and
    /// later callers return immediately. If the command fails or is killed, the next caller runs it
    /// again.
    Once(OnceArgs),
    /// Show who holds a lock
    ///
    /// Also shows semaphores, events and barriers. Acquires nothing, creates nothing and delays no
    /// process.
    Status(StatusArgs),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
    /// Print or install the manual pages
    Man(ManArgs),
}

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    success; a command that was run passes on its own code, or 128 + the signal that ended it
  1    event status: cleared; event set --new: already set; status -q: free
  2    status -q: no PATH exists
  64   invalid command line
  65   a file is damaged or cannot be locked
  66   a file cannot be opened
  69   the command cannot be run
  71   system error: a resource is exhausted, the output cannot be written, or the wait would deadlock
  73   a file cannot be created
  75   timed out, or would have to wait with -n (-E changes this code)
  76   The lock was lost while the command ran
  124  --max-run ended the command

When started under the name `flock` or `sem`, this program is flock(1) or GNU sem, with its options
and exit codes.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        limit!();
        Cli::command().debug_assert();
    }
}
