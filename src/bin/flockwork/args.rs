//! The command line's top level, for clap: the program's help text, its exit codes and its verbs.
//! The verbs define their own options and examples.

use clap::{Parser, Subcommand};

use crate::completions::CompletionsArgs;
use crate::event::EventArgs;
use crate::lock::LockArgs;
use crate::once::OnceArgs;
use crate::sem::SemArgs;
use crate::status::StatusArgs;

/// Locks, semaphores and events between programs, keyed by a path
///
/// A lock, a semaphore or an event is a path in the file system; whoever names the same path means
/// the same one. The kernel frees what a dead process held, so there is nothing to clean up. Locks
/// are flock(2) locks (LockFileEx on Windows), and hold off flock(1), Python's fcntl.flock and
/// other programs that use them.
#[derive(Debug, Parser)]
#[command(
    name = "flockwork",
    version,
    after_long_help = EXIT_CODES,
    after_help = "Exit codes: the command's own; 128 + the signal's number; 75 timed out; 64 usage, 65 damaged,\n66 cannot open, 69 cannot run, 71 system, 73 cannot create; event status: 1 cleared.\nFor more, see `flockwork help VERB`.",
    disable_help_subcommand = false,
    subcommand_required = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a command while holding a lock, alone or shared
    ///
    /// Waits for its turn, runs the command, and exits as it does. What the command starts holds
    /// the lock too, until the last of it has ended, also when `flockwork` itself is killed (Unix;
    /// on Windows they end with it). TERM, INT, HUP, QUIT, USR1, USR2, CONT and TSTP are passed on
    /// to the command.
    Lock(LockArgs),
    /// Run a command while holding a permit of a semaphore: at most N at a time
    ///
    /// First come, first served, over all programs of the machine. The command finds the number of
    /// its slot, from 0 to N-1, in FLOCKWORK_SLOT (several, with -k, with commas between them). Its
    /// arguments are passed as they are, and by no shell.
    Sem(SemArgs),
    /// Set, clear, look at and wait for events
    ///
    /// An event is a file: it is set while the file is there, and the file's contents are its
    /// payload.
    Event(EventArgs),
    /// Run a command once, for all who ask
    ///
    /// Whoever comes first runs it; who comes meanwhile waits until it is done, and who comes later
    /// returns at once. If it fails or is killed it is not done, and the next one runs it.
    Once(OnceArgs),
    /// Say who holds what lies at a path
    ///
    /// Takes nothing, makes nothing and delays nobody.
    Status(StatusArgs),
    /// Write the completions for a shell to the standard output
    Completions(CompletionsArgs),
    /// Write the manual page to the standard output
    #[command(after_help = crate::man::EXAMPLES)]
    Man,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done; the command's own code is passed on, and 128 + the signal's number if one ended it
  1    event status: the event is not set; event set --new: it was set
  64   invalid command line
  65   what lies at the path is damaged
  66   something cannot be opened
  69   the command cannot be run
  71   the system has no more of something, or the output cannot be written
  73   something cannot be created
  75   timed out, or not available at once with -n (-E chooses another)

Started under the name `flock` it is flock(1), with its options and exit codes.";

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
