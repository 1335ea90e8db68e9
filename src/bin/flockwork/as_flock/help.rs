//! The output of `flock --help` and `flock --version`.

/// The hint after an error in the options.
pub(super) const TRY_HELP: &str = "try 'flock --help' for more information";

pub(super) fn help() -> String {
    "
Usage:
 flock [options] <file>|<directory> <command> [<argument>...]
 flock [options] <file>|<directory> -c <command>
 flock [options] <file descriptor number>
 flock [options] --fd <number> <command> [<argument>...]
 flock [options] --fd <number> -c <command>

Manage file locks from shell scripts.

Options:
 -s, --shared             get a shared lock
 -x, -e, --exclusive      get an exclusive lock (default)
 -u, --unlock             remove a lock
 -n, --nonblocking, --nb  fail rather than wait
 -w, --timeout, --wait <secs>  wait for a limited amount of time
 -E, --conflict-exit-code <number>  exit code after conflict or timeout
 -o, --close              close file descriptor before running command
 -c, --command <command>  run a single command string through the shell
 -F, --no-fork            execute command without forking
     --fd <number>        lock this open file descriptor, and run a command
     --fcntl              use fcntl(F_OFD_SETLK) rather than flock()
     --start <offset>     starting offset for lock (implies --fcntl)
     --length <number>    number of bytes to lock (implies --fcntl)
     --verbose            increase verbosity

 -h, --help               display this help
 -V, --version            display version

This is flockwork under the name flock. See flockwork --help for its own commands.
"
    .to_string()
}

pub(super) fn version() -> String {
    format!("flock from flockwork {} (as flock of util-linux 2.38)\n", env!("CARGO_PKG_VERSION"))
}
