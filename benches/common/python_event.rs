//! Python's `multiprocessing.Event`, set while a number of processes wait for it.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::peer::Peer;

pub(crate) const PYTHON: &str = "multiprocessing.Event (Python)";

/// The script forks its waiters and measures the wake-ups. A child writes zero when it is about to
/// wait, and the time when it has been woken.
const PYTHON_PROGRAM: &str = "
import multiprocessing, os, signal, struct, sys, time
def clock():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
number = int(sys.argv[1])
event = multiprocessing.get_context('fork').Event()
output, child_output = os.pipe()
inputs = []
for _ in range(number):
    child_input, parent_input = os.pipe()
    if os.fork() == 0:
        signal.alarm(600)
        for other in inputs + [parent_input, output]:
            os.close(other)
        while os.read(child_input, 1):
            os.write(child_output, struct.pack('q', 0))
            event.wait()
            os.write(child_output, struct.pack('q', clock()))
        os._exit(0)
    os.close(child_input)
    inputs.append(parent_input)
def receive():
    return [struct.unpack('q', os.read(output, 8))[0] for _ in range(number)]
print('ready', flush=True)
for _ in sys.stdin:
    event.clear()
    for parent_input in inputs:
        os.write(parent_input, b' ')
    assert not any(receive())
    time.sleep(0.003 + 0.0001 * number)
    start = clock()
    event.set()
    print(*(time - start for time in receive()), flush=True)
";

/// Returns `None` if Python is not available.
pub(crate) fn start_python(waiters: usize) -> Option<Peer> {
    let is_available = Command::new("python3")
        .args(["-c", "import multiprocessing.synchronize, os; os.fork"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !is_available {
        return None;
    }
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON_PROGRAM, &waiters.to_string()]);
    let mut python = Peer::start(&mut command);
    assert_eq!(python.receive().trim(), "ready");
    Some(python)
}

/// Measures one round, and returns how long each waiter took to wake up.
pub(crate) fn wake_in_python(python: &mut Peer) -> Vec<Duration> {
    python.send("");
    let time = |word: &str| Duration::from_nanos(word.parse().expect("a time"));
    python.receive().split_whitespace().map(time).collect()
}
