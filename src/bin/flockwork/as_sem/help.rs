//! The output of `sem --help` and `sem --version`.

pub(super) const TRY_HELP: &str = "see `sem --help`";

pub(super) const HELP: &str = "\
Usage:
 sem [options] command [argument...]
 sem [--id name] --wait

Run a line of shell in the background while holding a permit of a semaphore.

Options:
 -j, --jobs, -P, --max-procs <n>  run up to n jobs: a number, +n, -n or n% of the
                                processors, 0 for as many as possible, or a file that
                                contains one of these (default: 1)
     --id, --semaphorename <name>  the semaphore (default: one for each terminal)
     --fg                       wait for the command, and exit with its code
     --bg                       return when the command has started (default)
     --wait                     wait for all jobs that run or wait now
     --st, --semaphoretimeout -<secs>  give up after secs; a positive number is refused
 -u, --ungroup                  print the output at once, also in the middle of lines
     --lb, --line-buffer        print the output line by line
 -q, --quote                    quote the words for the shell
 -a, --arg-file <file>          let the command read this file, not the standard input
     --pipe                     accepted, since the command reads the standard input anyway

 -h, --help                     display this help
 -V, --version                  display version

This is flockwork under the name sem. See flockwork --help for its own commands.
";

pub(super) fn version() -> String {
    format!("sem from flockwork {} (as sem of GNU parallel 20221122)\n", env!("CARGO_PKG_VERSION"))
}
