//! The live line of a wait on a terminal.

use std::process::Command;

use crate::cli::command::{Holding, Ran};
use crate::support::eventually;

/// Runs a Python script on a separate terminal.
pub(crate) fn on_a_terminal(dir: &std::path::Path, script: &str) -> Ran {
    let library = r#"
import os, pty, re, sys, time, signal, select
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
def start(*words):
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(sys.argv[1], ["flockwork", *words])
    return pid, fd
def read(fd, until, text=b""):
    end = time.time() + 60
    while until not in text:
        if not select.select([fd], [], [], max(0, end - time.time()))[0]:
            raise SystemExit(f"no {until!r} in {text!r}")
        try:
            text += os.read(fd, 4096)
        except OSError:
            break
    return text
def until(what, condition):
    end = time.time() + 60
    while not condition():
        if time.time() > end:
            raise SystemExit("never " + what)
        time.sleep(0.01)
def settled(pid):
    # A signal during the start of the job may be forwarded although the terminal has sent it to the
    # job too. The start is over when the main thread has blocked SIGINT again. While it creates the
    # process, the C library blocks all signals, also SIGCHLD.
    mask = lambda: [line for line in open(f"/proc/{pid}/status") if line.startswith("SigBlk")][0].split()[1]
    until("settled", lambda: int(mask(), 16) & 0x10002 == 2)
def start_under_a_shell(*words):
    reader, writer = os.pipe()
    shell, fd = pty.fork()
    if shell == 0:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.execv(sys.argv[1], ["flockwork", *words])
        os.write(writer, str(pid).encode())
        while True:
            status = os.waitpid(pid, os.WUNTRACED)[1]
            if not os.WIFSTOPPED(status):
                os._exit(os.waitstatus_to_exitcode(status))
    os.close(writer)
    return shell, int(os.read(reader, 100)), fd
def is_stopped(pid):
    return open(f"/proc/{pid}/stat").read().rsplit(") ")[1][0] == "T"
def rest(fd, text=b""):
    while True:
        try:
            more = os.read(fd, 4096)
        except OSError:
            return text
        if not more:
            return text
        text += more
"#;
    let mut python = Command::new("timeout");
    python.args(["280", "python3"]).args([
        "-c",
        &format!("{library}{script}"),
        env!("CARGO_BIN_EXE_flockwork"),
    ]);
    python.current_dir(dir).env("TERM", "xterm");
    Ran::of(&mut python)
}

#[test]
fn a_terminal_shows_a_live_line_that_is_removed() {
    limit!();
    if !crate::support::has("python3", &["-c", "import pty"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let holding = Holding::start(dir.path(), &["lock", "--label", "nightly", "f"]);
    let waiting = crate::support::running::scope(|scope| {
        let waiting = scope.spawn(|| {
            on_a_terminal(
                dir.path(),
                r#"
pid, fd = start("lock", "f", "echo", "acquired")
text = read(fd, b"waiting for f 0:")
text = read(fd, b", held by \"nightly", text)
def two_seconds():
    global text
    if select.select([fd], [], [], 0)[0]:
        text += os.read(fd, 4096)
    return re.search(rb"f 0:(0[2-9]|[1-9])", text)
until("shown for two seconds", two_seconds)
open("seen", "w").close()
text = rest(fd, text)
assert text.endswith(b"acquired\r\n"), text
assert b"\n" not in text[:-10], text         # one line, which is drawn again
assert b"\r\x1b[2K" in text[-30:], text      # and removed
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print("ok")
"#,
            )
        });
        eventually("the progress is shown", || {
            dir.path().join("seen").exists() || waiting.is_finished()
        });
        holding.end();
        waiting.join().unwrap()
    });
    assert_eq!((waiting.code, &*waiting.out), (Some(0), "ok\n"), "{waiting:?}");
}

/// Runs the script while another process holds the lock `f`, with the name of a terminal.
fn while_held(term: &str, script: &str) {
    if !crate::support::has("python3", &["-c", "import pty"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let holding = Holding::start(dir.path(), &["lock", "--label", "nightly", "f"]);
    let holding_once = Holding::start(dir.path(), &["lock", "f.flock"]);
    let script = format!("os.environ['TERM'] = {term:?}\n{script}print('ok')\n");
    let ran = on_a_terminal(dir.path(), &script);
    assert_eq!((ran.code, &*ran.out), (Some(0), "ok\n"), "{ran:?}");
    holding.end();
    holding_once.end();
}

#[test]
fn the_live_line_is_erased_by_ctrl_c_and_ctrl_z() {
    limit!();
    while_held(
        "xterm",
        r#"
for words in [("lock", "f", "true"), ("once", "--reset", "f"), ("event", "wait", "e")]:
    shell, pid, fd = start_under_a_shell(*words)
    text = read(fd, b"waiting for")
    os.write(fd, b"\x1a")
    until("stopped", lambda: is_stopped(pid))
    text = read(fd, b"\r\x1b[2K", text.split(b"waiting for")[-1])
    os.killpg(pid, signal.SIGCONT)
    text = read(fd, b"waiting for")
    os.write(fd, b"\x03")
    text = rest(fd, text.split(b"waiting for")[-1])
    assert text.endswith(b"\r\x1b[2K"), text
    assert os.waitstatus_to_exitcode(os.waitpid(shell, 0)[1]) in (-2, 254, 130, 2), words
"#,
    );
}

#[test]
fn only_one_process_draws_on_a_terminal() {
    limit!();
    while_held(
        "xterm",
        r#"
# Twenty processes wait on one terminal, and the one that draws is killed.
words = [f'"$0" lock f true & ' for _ in range(20)]
pid, fd = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "".join(words) + "wait", sys.argv[1]])
text = b""
def four_seconds():
    global text
    text += os.read(fd, 4096)
    return re.search(rb"f 0:(0[4-9]|[1-9])", text)
until("shown for four seconds", four_seconds)
seconds = int(re.findall(rb"f 0:(..)", text)[-1])
assert len(re.findall(rb"waiting for", text)) <= 2 * seconds, text
assert b"\n" not in text, text
os.kill(pid, signal.SIGKILL)
os.close(fd)
"#,
    );
}

#[test]
fn a_process_in_the_background_draws_nothing() {
    limit!();
    while_held(
        "xterm",
        r#"
pid, fd = pty.fork()
if pid == 0:
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.execv(sys.argv[1], ["flockwork", "lock", "-w", "2.5", "-E", "7", "f", "true"])
    os._exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
text = rest(fd)
assert b" 0:" not in text, text
# On a busy machine the time may be over before the wait begins, which has another error.
assert b"timed out" in text or b"is busy" in text, text
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"#,
    );
}

#[test]
fn a_terminal_without_a_cursor_gets_plain_lines() {
    limit!();
    for term in ["dumb", ""] {
        while_held(
            term,
            r#"
pid, fd = start("lock", "-w", "1000", "f", "true")
text = read(fd, b"\n")
assert re.match(rb'flockwork: waiting for f 0:\d\d of 16:40, held by "nightly" \(sh, pid ', text), text
os.kill(pid, signal.SIGTERM)
text = rest(fd, text)
assert len(text.splitlines()) == 1 and b"\x1b" not in text, text
os.waitpid(pid, 0)
pid, fd = start("lock", "-w", "0.5", "f", "true")
text = rest(fd)
# On a busy machine the time may be over before the wait begins, which has another error.
assert b"timed out" in text or b"is busy" in text, text
assert b"\x1b" not in text, text
"#,
        );
    }
}

#[test]
fn the_live_line_fits_the_terminal() {
    limit!();
    while_held(
        "xterm",
        r#"
import fcntl, struct, termios
for columns in (40, 80, 200):
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        path = os.getcwd() + "/./././././././././././f"
        os.execv(sys.argv[1], ["flockwork", "lock", "-w", "1000", path, "true"])
    line = read(fd, b" 0:").split(b"\r\x1b[2K", 1)[1]
    line = read(fd, b"\r", line).split(b"\r")[0].decode()
    assert len(line) < columns and line.startswith("waiting for ") and " 0:" in line, line
    assert columns < 80 or '"nightly" (' in line, line
    assert columns < 200 or line.endswith(("s)", "m)")) and "of 16:40" in line, line
    os.kill(pid, signal.SIGTERM)
    rest(fd)
    os.waitpid(pid, 0)
"#,
    );
}

#[test]
fn a_watched_status_is_drawn_in_its_place() {
    limit!();
    while_held(
        "xterm",
        r#"
import fcntl, struct, termios
for columns in (40, 80, 200):
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execv(sys.argv[1], ["flockwork", "status", "--watch", "f", "new"])
    text = read(fd, b"new: does not exist")
    text = read(fd, b"\x1b[2A", text)
    open("new", "w").close()
    text = read(fd, b"new: free", text)
    os.remove("new")
    os.kill(pid, signal.SIGINT)
    text = rest(fd, text)
    assert b"\x1b[H" not in text and b"\x1b[2J" not in text, text
    drawn = text.split(b"\x1b[2A")
    assert len(drawn) >= 3, text
    for lines in drawn[:-1]:
        first, second = re.sub(rb"\x1b\[[A-Z]|\r", b"", lines).decode().splitlines()[:2]
        assert first.startswith("f: held by process ") and second.startswith("new: "), text
        assert len(first) == 40 if columns == 40 else len(first) <= columns, first
        assert columns < 200 or '"nightly", since ' in first, first
    os.waitpid(pid, 0)
"#,
    );
}
