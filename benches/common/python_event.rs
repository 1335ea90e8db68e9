//! Python's `multiprocessing.Event`, set while so many processes wait for it.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::peer::Peer;

pub(crate) const PYTHON: &str = "multiprocessing.Event (Python)";

/// Forks its waiters itself, and measures itself. A child says zero when it is about to wait, and then the time.
const PYTHON_PROGRAM: &str = "
import multiprocessing, os, signal, struct, sys, time
def clock():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
number = int(sys.argv[1])
event = multiprocessing.get_context('fork').Event()
said, say = os.pipe()
orders = []
for _ in range(number):
    hear_order, order = os.pipe()
    if os.fork() == 0:
        signal.alarm(600)
        for other in orders + [order, said]:
            os.close(other)
        while os.read(hear_order, 1):
            os.write(say, struct.pack('q', 0))
            event.wait()
            os.write(say, struct.pack('q', clock()))
        os._exit(0)
    os.close(hear_order)
    orders.append(order)
def hear():
    return [struct.unpack('q', os.read(said, 8))[0] for _ in range(number)]
print('ready', flush=True)
for _ in sys.stdin:
    event.clear()
    for order in orders:
        os.write(order, b' ')
    assert not any(hear())
    time.sleep(0.003 + 0.0001 * number)
    start = clock()
    event.set()
    print(*(time - start for time in hear()), flush=True)
";

/// `None` where it is not to be had.
pub(crate) fn start_python(waiters: usize) -> Option<Peer> {
    let has_it = Command::new("python3")
        .args(["-c", "import multiprocessing.synchronize, os; os.fork"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_it {
        return None;
    }
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON_PROGRAM, &waiters.to_string()]);
    let mut python = Peer::start(&mut command);
    assert_eq!(python.hear().trim(), "ready");
    Some(python)
}

/// One round: how long until each was awake.
pub(crate) fn wake_in_python(python: &mut Peer) -> Vec<Duration> {
    python.tell("");
    let time = |word: &str| Duration::from_nanos(word.parse().expect("a time"));
    python.hear().split_whitespace().map(time).collect()
}
