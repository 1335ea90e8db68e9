//! Python's `fasteners.InterProcessReaderWriterLock`, acquired in a loop for reading or writing.

use std::ffi::{OsStr, OsString};
use std::process::{Command, Stdio};

use crate::peer::Peer;

pub(crate) const FASTENERS: &str = "fasteners (Python)";

/// The environment variable with the Python interpreter to use instead of `python3`.
const INTERPRETER: &str = "FLOCKWORK_BENCH_PYTHON";

/// Reads and prints the same lines as [`run_loop`](crate::run_loop).
const PROGRAM: &str = "
import fasteners, os, sys, threading, time
def clock():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
path, part = sys.argv[1], sys.argv[2]
hold, pause = (int(microseconds) / 1e6 for microseconds in sys.argv[3:])
lock = fasteners.InterProcessReaderWriterLock(path)
acquire = {'read': lock.acquire_read_lock, 'write': lock.acquire_write_lock}[part]
release = {'read': lock.release_read_lock, 'write': lock.release_write_lock}[part]
print('ready', flush=True)
start, end = map(int, input().split())
waits, since = [], None
def report():
    time.sleep(max(0, end - clock()) / 1e9)
    waiting, now = since, clock()
    for wait in list(waits):
        print('acquired', wait)
    if waiting is not None:
        print('waits', now - waiting)
    sys.stdout.flush()
    os._exit(0)
threading.Thread(target=report).start()
time.sleep(max(0, start - clock()) / 1e9)
while True:
    since = clock()
    acquire()
    wait, since = clock() - since, None
    waits.append(wait)
    time.sleep(hold)
    release()
    if pause:
        time.sleep(pause)
";

fn interpreter() -> OsString {
    std::env::var_os(INTERPRETER).unwrap_or_else(|| "python3".into())
}

pub(crate) fn has_fasteners() -> bool {
    Command::new(interpreter())
        .args(["-c", "import fasteners, time; time.CLOCK_MONOTONIC"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

pub(crate) fn start_fasteners(arguments: &[&dyn AsRef<OsStr>]) -> Peer {
    Peer::start(Command::new(interpreter()).args(["-c", PROGRAM]).args(arguments))
}
