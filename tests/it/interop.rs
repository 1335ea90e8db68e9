//! Other tools use the same path and see the same state: flock(1) and Python's `fcntl.flock` for a
//! lock; `touch`, `rm`, `test`, `mv`, Python's `pathlib` and `inotifywait` for an event.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use flockwork::{Event, Lock, Options};

use crate::support::running::{Running, Start as _, on_panic};
use crate::support::{has, until_blocked, until_watching};

/// A program that prints a line when it has acquired the lock, and holds it until its input ends.
struct Foreign(Running);

impl Foreign {
    fn holding(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).start();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

fn flock_1(path: &Path) -> Command {
    flock_1_in("--exclusive", path)
}

fn flock_1_in(mode: &str, path: &Path) -> Command {
    let mut command = Command::new("flock");
    command.arg(mode).arg(path).args(["sh", "-c", "echo held; cat > /dev/null"]);
    command
}

/// The command for Python itself, because `python3` in `PATH` may be a script that starts it.
fn python_command() -> Command {
    static PYTHON: OnceLock<String> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        let script = "import sys; print(sys.executable)";
        let found = Command::new("python3").args(["-c", script]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().trim().to_string()
    });
    let mut command = Command::new(python);
    command.arg("-I");
    command
}

fn python(path: &Path) -> Command {
    let mut command = python_command();
    command
        .args(["-c", "import fcntl, sys\nf = open(sys.argv[1], 'a')\nfcntl.flock(f, fcntl.LOCK_EX)\nprint('held', flush=True)\nsys.stdin.read()"])
        .arg(path);
    command
}

/// Whether flock(1) acquires the lock without waiting.
fn flock_1_acquires(path: &Path) -> bool {
    Command::new("flock").arg("-n").arg(path).arg("true").status().unwrap().success()
}

fn python_acquires(path: &Path) -> bool {
    let script = "import fcntl, sys\nf = open(sys.argv[1])\ntry: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\nexcept BlockingIOError: sys.exit(1)";
    python_command().args(["-c", script]).arg(path).status().unwrap().success()
}

fn excludes_and_is_excluded_by(holding: fn(&Path) -> Command, acquires: fn(&Path) -> bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();

    // While this process holds the lock, the tool fails without waiting, and a waiting tool
    // acquires the lock after the release.
    let guard = lock.lock().unwrap();
    assert!(!acquires(&path));
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || Foreign::holding(holding(&path))
    });
    until_blocked(&path, 1);
    guard.unlock().unwrap();
    let foreign = waiting.join().unwrap();

    // While the tool holds the lock, a try fails and names the tool, and each form of wait acquires
    // the lock after the release.
    let error = lock.try_lock().unwrap_err();
    assert!(error.is_would_block());
    assert!(!error.holders().is_empty(), "{error}");
    let mut foreign = Some(foreign);
    for wait in [
        (|lock| lock.lock()) as fn(&Lock) -> _,
        |lock| lock.lock_timeout(Duration::from_secs(100)),
        |lock| futures_lite::future::block_on(lock.lock_async()),
    ] {
        let holder = foreign.take().unwrap_or_else(|| Foreign::holding(holding(&path)));
        crate::support::running::scope(|scope| {
            let waiter = scope.spawn(|| wait(&lock).unwrap());
            until_blocked(&path, 1);
            holder.release();
            drop(waiter.join().unwrap());
        });
    }
    assert!(acquires(&path));

    let foreign = Foreign::holding(holding(&path));
    assert!(lock.lock_timeout(Duration::from_millis(1)).unwrap_err().is_timed_out());
    foreign.release();
}

#[test]
fn flock_1_and_flockwork_exclude_each_other() {
    limit!();
    if has("flock", &["--version"]) {
        excludes_and_is_excluded_by(flock_1, flock_1_acquires);
    }
}

#[test]
fn pythons_flock_and_flockwork_exclude_each_other() {
    limit!();
    if has("python3", &["-c", "import fcntl"]) {
        excludes_and_is_excluded_by(python, python_acquires);
    }
}

/// A shared lock held by another tool excludes this process, too.
#[test]
fn a_shared_lock_of_flock_1_excludes_a_lock() {
    limit!();
    if !has("flock", &["--version"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let foreign = Foreign::holding(flock_1_in("--shared", &path));
    assert!(lock.try_lock().unwrap_err().is_would_block());
    foreign.release();
    drop(lock.try_lock().unwrap());
}

/// A job started by flock(1) still holds the lock after flock(1) itself was killed.
#[test]
fn a_lock_that_a_child_inherited_is_still_held() {
    limit!();
    if !has("flock", &["--version"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let mut foreign = Foreign::holding(flock_1(&path));
    let mut input = foreign.0.stdin.take().unwrap();
    foreign.0.kill().unwrap();
    foreign.0.wait().unwrap();
    assert!(lock.try_lock().unwrap_err().is_would_block());
    input.write_all(b"\n").unwrap();
    drop(input); // The job ends.
    drop(lock.lock_timeout(Duration::from_secs(100)).unwrap());
}

/// Runs a line of shell with the path as its `$1`, and returns whether it succeeded.
fn shell(line: &str, path: &Path) -> bool {
    Command::new("sh").args(["-c", line, "sh"]).arg(path).status().unwrap().success()
}

fn pathlib(line: &str, path: &Path) -> bool {
    let script = format!("import pathlib, sys\np = pathlib.Path(sys.argv[1])\n{line}");
    python_command().args(["-c", &script]).arg(path).status().unwrap().success()
}

/// The tool and this process set and clear the same event. Each sees what the other did, and waits
/// end.
fn sets_and_clears(run: fn(&str, &Path) -> bool, set: &[(&str, &str)], clear: &str, check: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ready");
    let event = Options::new().backstop(Duration::from_secs(1000)).open_event(&path).unwrap();
    for (set, payload) in set {
        assert!(!run(check, &path));
        crate::support::running::scope(|scope| {
            let _wake = on_panic(|| drop(event.set()));
            let waiter = scope.spawn(|| event.wait().unwrap());
            until_watching(std::process::id(), dir.path());
            assert!(run(set, &path));
            waiter.join().unwrap();
            assert_eq!(event.payload().unwrap().unwrap(), payload.as_bytes(), "{set}");
            let _wake = on_panic(|| drop(event.clear()));
            let waiter = scope.spawn(|| event.wait_cleared().unwrap());
            assert!(run(clear, &path));
            waiter.join().unwrap();
        });
        assert!(event.set().unwrap());
        assert!(run(check, &path));
        assert!(run(set, &path), "what is set can be set");
        assert_eq!(event.consume().unwrap(), payload.as_bytes(), "{set}");
        assert!(!run(check, &path));
    }
}

#[test]
fn touch_rm_and_test_set_clear_and_check_events() {
    limit!();
    let with_payload = "echo 40123 > \"$1.new\" && mv \"$1.new\" \"$1\"";
    let sets = [("touch \"$1\"", ""), (with_payload, "40123\n"), (": > \"$1\"", "")];
    sets_and_clears(shell, &sets, "rm \"$1\"", "test -e \"$1\"");
}

#[test]
fn pythons_pathlib_sets_clears_and_checks_events() {
    limit!();
    if !has("python3", &["-c", "import pathlib"]) {
        return;
    }
    let with_payload = "n = p.with_name('.new'); n.write_text('hello'); n.replace(p)";
    let sets = [("p.touch()", ""), (with_payload, "hello")];
    sets_and_clears(pathlib, &sets, "p.unlink()", "sys.exit(0 if p.exists() else 1)");
}

#[test]
fn inotifywait_sees_events_of_flockwork() {
    limit!();
    if !has("sh", &["-c", "command -v inotifywait"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ready");
    let event = Event::open(&path).unwrap();
    let heard = |kinds: &str, change: &dyn Fn()| {
        let mut tool = Command::new("inotifywait")
            .args(["--quiet", "--timeout", "100", "--include", "ready$", "--event", kinds])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .start();
        until_watching(tool.id(), dir.path());
        change();
        assert!(tool.wait().unwrap().success());
    };
    heard("create", &|| assert!(event.set().unwrap()));
    heard("delete", &|| assert!(event.clear().unwrap()));
    heard("create,moved_to", &|| assert!(event.set_with(b"x").unwrap()));
    heard("moved_from", &|| assert_eq!(event.consume().unwrap(), b"x"));
}
