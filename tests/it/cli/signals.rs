//! Signals to the command are forwarded to its job. The job receives a signal from the terminal
//! only once.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::cli::command::{Ran, flockwork, run};
use crate::cli::terminal::on_a_terminal;
use crate::support::eventually;
use crate::support::running::{Running, Start as _};

/// A command whose job prints the signals that it receives, and exits with 9 after a TERM.
fn counting(dir: &std::path::Path, verb: &[&str]) -> (Running, impl Iterator<Item = String>) {
    let script = "for s in INT HUP QUIT USR1 USR2 CONT; do trap \"echo $s\" $s; done; trap 'echo TERM; exit 9' TERM; echo runs; while :; do sleep 0.01; done";
    let mut child = flockwork(dir);
    child.args(verb).args(["sh", "-c", script]).stdout(Stdio::piped());
    let mut child = child.start();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("runs"));
    (child, lines)
}

#[test]
fn each_signal_reaches_the_job_once() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for verb in [&["lock", "f"][..], &["sem", "s"], &["once", "o"], &["lock", "-o", "f"]] {
        let (mut child, mut lines) = counting(dir.path(), verb);
        for (signal, name) in [
            (Signal::INT, "INT"),
            (Signal::HUP, "HUP"),
            (Signal::QUIT, "QUIT"),
            (Signal::USR1, "USR1"),
            (Signal::USR2, "USR2"),
            (Signal::CONT, "CONT"),
            (Signal::INT, "INT"),
        ] {
            child.signal(signal);
            assert_eq!(lines.next().as_deref(), Some(name), "{verb:?}");
        }
        child.signal(Signal::TERM);
        assert_eq!(lines.collect::<Vec<_>>(), ["TERM"]);
        assert_eq!(child.wait().unwrap().code(), Some(9));
    }
}

#[test]
fn a_stop_signal_stops_flockwork_and_its_job() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut child = flockwork(dir.path());
    let job = "echo $$; exec cat";
    child.args(["lock", "f", "sh", "-c", job]).stdin(Stdio::piped()).stdout(Stdio::piped());
    // The kernel does not stop an orphaned process group, and the tests may run in one.
    std::os::unix::process::CommandExt::process_group(&mut child, 0);
    let mut child = child.start();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let job: u32 = line.trim().parse().unwrap();
    let state = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    };
    for _ in 0..3 {
        child.signal(Signal::TSTP);
        eventually("both are stopped", || state(job) == 'T' && state(child.id()) == 'T');
        child.signal(Signal::CONT);
        eventually("both continue", || state(job) != 'T' && state(child.id()) != 'T');
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// A signal at any moment of the start either ends flockwork before it runs the job, or reaches the
/// job.
#[test]
fn an_early_signal_leaves_no_job_behind() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for round in crate::support::rounds(150, std::time::Duration::from_secs(20)) {
        let mut child = flockwork(dir.path());
        child.args(["lock", "f", "sleep", "1000"]).stdout(Stdio::null());
        let mut child = child.start();
        std::thread::sleep(std::time::Duration::from_micros(u64::from(round) * 40));
        child.signal(Signal::TERM);
        let status = child.wait().unwrap();
        let by = std::os::unix::process::ExitStatusExt::signal(&status);
        assert!(status.code() == Some(143) || by == Some(15), "{status}");
        run(dir.path(), ["lock", "-n", "f", "true"]).expect(0, "");
    }
}

#[test]
fn a_signal_kills_a_command_that_waits() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let holding = crate::cli::command::Holding::start(dir.path(), &["lock", "f"]);
    for (signal, number) in
        [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1), (Signal::USR1, 10)]
    {
        let mut child = flockwork(dir.path()).args(["lock", "f", "true"]).start();
        crate::support::until_blocked(&dir.path().join("f"), 1);
        child.signal(signal);
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(number));
    }
    holding.end();
}

/// A process that a signal kills at once leaves the record of the lock that it had acquired.
#[test]
fn a_signal_during_a_wait_abandons_no_earlier_lock() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let holding = crate::cli::command::Holding::start(dir.path(), &["lock", "b"]);
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::QUIT, 3)] {
        let mut child = flockwork(dir.path()).args(["lock", "a", "b", "--", "true"]).start();
        crate::support::until_blocked(&dir.path().join("b"), 1);
        let start = std::time::Instant::now();
        child.signal(signal);
        let status = child.wait().unwrap();
        // On a busy machine it may not have released the lock after a second, when it is killed.
        let was_killed = start.elapsed() >= std::time::Duration::from_secs(1);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(number));
        let ran = run(dir.path(), ["lock", "-v", "a", "true"]).expect(0, "");
        assert!(was_killed || !ran.err.contains("died"), "{ran:?}");
    }
    holding.end();
}

#[test]
fn max_run_ends_the_job_and_its_children() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for verb in [&["lock", "f"][..], &["sem", "s"], &["once", "o"]] {
        let words = [verb, &["--max-run", "0.3"]].concat();
        // On a busy machine the time may be over before the shell has set its trap.
        let has_ended = [300, 1000, 3000, 30_000].iter().any(|limit| {
            let (span, script) =
                (format!("{limit}ms"), "trap 'echo ended' TERM; sleep 1000; exit 3");
            let words = [verb, &["--max-run", &span, "sh", "-c", script]].concat();
            let ran = run(dir.path(), words);
            assert_eq!(ran.code, Some(124), "{ran:?}");
            assert!(ran.err.starts_with("flockwork: the command has run for "), "{ran:?}");
            // A killed child of the job keeps the lock until it has ended.
            run(dir.path(), [verb, &["-w", "100", "true"]].concat()).expect(0, "");
            let _ = std::fs::remove_file(dir.path().join("o"));
            ran.out == "ended\n"
        });
        assert!(has_ended, "the job got no SIGTERM");
        let _ = std::fs::remove_file(dir.path().join("o"));
        run(dir.path(), words.iter().chain(&["sleep", "1000"])).expect(124, "");
    }
    run(dir.path(), ["lock", "--max-run", "1000", "f", "sh", "-c", "exit 3"]).expect(3, "");
    // A stopped job is ended too, and one that ignores TERM is killed.
    run(dir.path(), ["lock", "--max-run=1", "f", "sh", "-c", "kill -STOP $$"]).expect(124, "");
    let is_killed_later = [200_u64, 1000, 3000, 30_000].into_iter().any(|limit| {
        let start = std::time::Instant::now();
        let (span, script) = (format!("{limit}ms"), "trap '' TERM; while :; do sleep 1000; done");
        run(dir.path(), ["lock", "--max-run", &span, "f", "sh", "-c", script]).expect(124, "");
        start.elapsed() >= std::time::Duration::from_millis(10_000 + limit)
    });
    assert!(is_killed_later, "the job was not killed 10 s after it had ignored SIGTERM");
}

/// A replaced lock file is a lost lock on any file system.
#[test]
fn a_job_whose_lock_is_lost_is_ended_on_request() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let script =
        "trap 'echo ended; exit 3' TERM; echo removes; rm $0; while :; do sleep 0.01; done";
    for verb in [&["lock", "--end-on-loss", "f"][..], &["lock", "--end-on-loss", "-s", "f"]] {
        let words = [verb, &["--", "sh", "-c", script, "f"]].concat();
        let ran = run(dir.path(), words).expect(76, "removes\nended\n");
        // The shell may add that its child was terminated.
        let reported = "flockwork: the lock was lost; ending the command\n";
        assert!(ran.err.starts_with(reported), "{ran:?}");
    }
    let script = "rm $0; sleep 1.5; exit 3";
    run(dir.path(), ["lock", "f", "sh", "-c", script, "f"]).expect(3, "");
    run(dir.path(), ["lock", "--end-on-loss", "f", "sh", "-c", "sleep 1.5; exit 3"]).expect(3, "");
}

#[test]
fn a_job_inherits_only_ignored_signals() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let shown = |before: &str| {
        let script =
            format!("{before} exec \"$0\" lock f grep -E 'Sig(Blk|Ign)' /proc/self/status");
        let mut sh = Command::new("env");
        sh.args(["--default-signal", "sh", "-c", &script, env!("CARGO_BIN_EXE_flockwork")]);
        Ran::of(sh.current_dir(dir.path()))
    };
    let grep = ["--default-signal", "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"];
    let bare = Command::new("env").args(grep).output().unwrap();
    assert_eq!(shown("").out, String::from_utf8(bare.stdout).unwrap());
    let ignored = shown("trap '' HUP INT;");
    let mask = ignored.out.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(mask, 16).unwrap() & 0b1111, 0b11, "{ignored:?}");
    // If SIGCHLD is ignored, the exit codes of children are lost unless flockwork handles it.
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' CHLD; exec \"$0\" lock f sh -c 'exit 7'"]);
    ignoring.arg(env!("CARGO_BIN_EXE_flockwork")).current_dir(dir.path());
    Ran::of(&mut ignoring).expect(7, "");
}

#[test]
fn ctrl_c_reaches_the_job_once() {
    limit!();
    if !crate::support::has("python3", &["-c", "import pty"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ran = on_a_terminal(
        dir.path(),
        r#"
job = "trap 'echo INT' INT; trap 'echo QUIT' QUIT; trap 'exit 5' TERM; echo runs; while :; do sleep 0.01; done"
pid, fd = start("lock", "f", "sh", "-c", job)
text = read(fd, b"runs")
settled(pid)
for key, name in [(b"\x03", b"INT"), (b"\x1c", b"QUIT"), (b"\x03", b"INT")]:
    os.write(fd, key)
    read(fd, name)
    time.sleep(0.2)
# A signal from a program reaches the job on a terminal too.
os.kill(pid, signal.SIGINT)
text = read(fd, b"INT")
os.kill(pid, signal.SIGTERM)
more = rest(fd)
assert b"INT" not in more and b"QUIT" not in more, more
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5

# The signal ends a job that does not handle it. It then ends flockwork too, after which a
# shell ends its loops.
for verb in ["lock", "sem", "once"]:
    pid, fd = start(verb, verb + " path", "sh", "-c", "echo runs; exec sleep 1000")
    read(fd, b"runs")
    settled(pid)
    os.write(fd, b"\x03")
    rest(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -2
pid, fd = start("lock", "f", "sh", "-c", "echo runs; kill -INT $$")
rest(fd)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130

# Ctrl-Z stops both. If the job ignores it, flockwork continues. Both run under a shell, since the
# terminal cannot stop an orphaned process group.
shell, pid, fd = start_under_a_shell("lock", "f", "sh", "-c", "echo job $$ runs; exec sleep 1000")
job = int(read(fd, b"runs").split(b"job ")[1].split()[0])
for _ in range(100):
    os.write(fd, b"\x1a")
    until("stopped", lambda: is_stopped(pid) and is_stopped(job))
    os.killpg(pid, signal.SIGCONT)
    until("continued", lambda: not is_stopped(pid) and not is_stopped(job))
os.kill(pid, signal.SIGTERM)
rest(fd)
assert os.waitstatus_to_exitcode(os.waitpid(shell, 0)[1]) == 143
shell, pid, fd = start_under_a_shell("lock", "f", "sh", "-c", "trap '' TSTP; echo runs; read line; echo $line")
read(fd, b"runs")
os.write(fd, b"\x1a")
os.write(fd, b"went on\n")
rest(fd)
assert os.waitstatus_to_exitcode(os.waitpid(shell, 0)[1]) == 0
print("ok")
"#,
    );
    assert_eq!((ran.code, &*ran.out), (Some(0), "ok\n"), "{ran:?}");
}

/// A job may receive two equal signals as one, so the test traces the signals that flockwork sends.
#[test]
fn a_signal_from_the_terminal_is_not_forwarded_again() {
    limit!();
    if !crate::support::has("python3", &["-c", "import pty"])
        || !crate::support::has("strace", &["-V"])
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ran = on_a_terminal(
        dir.path(),
        r#"
wrapper = sys.argv[1]
def sent():
    # strace writes a call in two lines if another thread makes a call meanwhile.
    return [name for line in open("log") for name in re.findall(r"kill\(\d+, SIG(\w+)", line)]
pid, fd = pty.fork()
if pid == 0:
    job = "trap 'echo INT' INT; trap 'echo USR1' USR1; trap 'exit 5' TERM; echo runs; while :; do sleep 0.01; done"
    os.execvp("strace", ["strace", "-f", "-e", "trace=kill", "-o", "log", wrapper, "lock", "f", "sh", "-c", job])
read(fd, b"runs")
ours = int(open(f"/proc/{pid}/task/{pid}/children").read().split()[0])
settled(ours)
for _ in range(5):
    os.write(fd, b"\x03")
    read(fd, b"INT")
os.kill(ours, signal.SIGUSR1)
read(fd, b"USR1")
os.kill(ours, signal.SIGTERM)
rest(fd)
os.waitpid(pid, 0)
assert sent() == ["USR1", "TERM"], open("log").read()
print("ok")
"#,
    );
    assert_eq!((ran.code, &*ran.out), (Some(0), "ok\n"), "{ran:?}");
}

#[test]
fn flockwork_prints_nothing_on_the_jobs_standard_output() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut child = flockwork(dir.path());
    child.args(["lock", "-v", "f", "sh", "-c", "echo out; echo err >&2"]);
    child.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.start();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "out\n");
    child.wait().unwrap();
}
