//! `flockwork status`, and the progress of a wait.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cli::command::{Holding, Ran, flockwork, run};
use crate::support::running::Start as _;

fn status(dir: &Path, path: &str) -> Vec<Value> {
    let ran = run(dir, ["status", "--json", path]);
    assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{ran:?}");
    assert_eq!(ran.out.lines().count(), 1);
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn a_lock_is_shown_with_its_holder() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let missing = json!({"version": 1, "path": "f", "kind": "missing", "held": false, "set": false, "holders": []});
    assert_eq!(status(dir, "f"), [missing]);
    assert!(!dir.join("f").exists(), "status created it");
    let holding = Holding::start(dir, &["lock", "--label", "import", "f"]);
    let seen = &status(dir, "f")[0];
    assert_eq!(seen["held"], true);
    assert_eq!(seen["kind"], "file");
    let holder = &seen["holders"][0];
    assert_eq!(holder["pid"], holding.0.id());
    assert_eq!(holder["label"], "import");
    assert_eq!(holder["shared"], false);
    assert_eq!(holder["slot"], Value::Null);
    assert!(holder["command"].as_str().unwrap().contains("lock --label import f sh -c"));
    let since = holder["since"].as_str().unwrap();
    assert!(since.len() == 24 && since.ends_with('Z') && since.starts_with("20"), "{since}");
    let text = run(dir, ["status", "f"]).out;
    assert!(text.starts_with("f: held by process ") && text.contains("\"import\""), "{text}");
    assert!(text.contains(" (sh -c 'echo runs; exec cat'), \"import\", for "), "{text}");
    holding.end();
    let free = json!({
        "version": 1, "path": "f", "kind": "file", "held": false, "shared": false, "set": true, "bytes": 0, "holders": []
    });
    assert_eq!(status(dir, "f"), [free]);
}

#[test]
fn each_shared_holder_is_listed() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let readers = [(); 3].map(|()| Holding::start(dir, &["lock", "-s", "--label", "report", "f"]));
    let seen = &status(dir, "f")[0];
    assert_eq!((&seen["held"], &seen["shared"]), (&json!(true), &json!(true)));
    let mut pids: Vec<_> = readers.iter().map(|reader| reader.0.id()).collect();
    let holders = seen["holders"].as_array().unwrap();
    let pid = |holder: &Value| u32::try_from(holder["pid"].as_u64().unwrap()).unwrap();
    let mut shown: Vec<_> = holders.iter().map(pid).collect();
    pids.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, pids);
    assert!(run(dir, ["status", "f"]).out.starts_with("f: shared by 3 processes\n"));
    readers.into_iter().for_each(Holding::end);
}

#[test]
fn a_semaphore_is_shown_as_a_row() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let holding = Holding::start(dir, &["sem", "-j", "5", "-k", "2", "--label", "link", "s"]);
    let other = Holding::start(dir, &["sem", "s"]);
    let seen = &status(dir, "s")[0];
    assert_eq!(seen["kind"], "semaphore");
    assert_eq!((&seen["permits"], &seen["available"]), (&json!(5), &json!(2)));
    assert_eq!(seen["slots"].as_array().unwrap().len(), 3);
    let labels: Vec<_> = seen["holders"].as_array().unwrap().iter().map(|h| &h["label"]).collect();
    assert_eq!(labels.iter().filter(|label| ***label == "link").count(), 2);
    let text = run(dir, ["status", "s"]).out;
    assert!(text.starts_with("s: 3 of 5 permits held ["), "{text}");
    assert_eq!(text.matches('#').count(), 3);
    // A semaphore can be named by --id as well.
    let named = Holding::start(dir, &["sem", "--id", "n"]);
    assert!(run(dir, ["status", "--id", "n"]).out.contains("1 of 1 permits held [#]"));
    named.end();
    holding.end();
    other.end();
    assert_eq!(status(dir, "s")[0]["available"], 5);
    // A path that cannot be inspected does not hide the others.
    std::fs::create_dir(dir.join("directory")).unwrap();
    let ran = run(dir, ["status", "directory", "s"]).expect(66, "s: 0 of 5 permits held [.....]\n");
    ran.assert_error("is a directory, not a lock file, an event, a semaphore or a barrier");
    std::fs::write(dir.join("s/capacity"), "many\n").unwrap();
    run(dir, ["status", "s"]).expect(65, "").assert_error("is damaged");
}

#[test]
fn a_killed_holder_is_not_shown_as_alive() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for hold in [&["lock", "--label", "dead", "f"][..], &["sem", "--label", "dead", "s"]] {
        let path = hold[hold.len() - 1];
        let mut holding = Holding::start(dir, hold);
        holding.0.kill().unwrap();
        let input = holding.0.stdin.take();
        let pid = holding.0.id();
        let check = || {
            // The job keeps the lock, and is shown as its holder.
            let seen = &status(dir, path)[0];
            assert_eq!(seen["held"], true, "{seen}");
            let holder = &seen["holders"][0];
            assert_eq!(
                (&holder["label"], &holder["command"]),
                (&Value::Null, &json!("cat")),
                "{seen}"
            );
            assert_ne!(holder["pid"], pid);
        };
        crate::support::eventually("the killed process is not shown", || {
            status(dir, path)[0]["holders"][0]["pid"] != pid
        });
        check(); // a zombie
        holding.0.wait().unwrap();
        check(); // gone
        drop(input);
        crate::support::eventually("the job has ended", || status(dir, path)[0]["held"] == false);
        assert_eq!(status(dir, path)[0]["holders"], json!([]));
    }
}

/// In a container, the kernel's list omits locks that dead processes acquired.
#[test]
fn status_shows_a_lock_that_a_child_inherited_in_a_namespace() {
    limit!();
    const UNSHARE: [&str; 3] = ["--fork", "--pid", "--mount-proc"];
    if !crate::support::has("unshare", &[UNSHARE[0], UNSHARE[1], UNSHARE[2], "true"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
        mkfifo go
        "$0" lock f sh -c 'echo > go; exec sleep 1000' &
        wrapper=$!
        read line < go
        kill -9 $wrapper
        wait $wrapper 2> /dev/null
        "$0" status f
        "$0" lock -n f true
        echo $?
    "#;
    let mut unshare = Command::new("unshare");
    // All processes of the namespace end with its first.
    unshare.args(UNSHARE).args(["sh", "-c", script, env!("CARGO_BIN_EXE_flockwork")]);
    let ran = Ran::of(unshare.current_dir(dir.path()));
    assert!(ran.out.starts_with("f: held by process ") && ran.out.ends_with("\n75\n"), "{ran:?}");
    assert!(ran.out.contains("(sleep 1000)") && ran.err.contains("(sleep 1000)"), "{ran:?}");
}

#[test]
fn status_acquires_nothing_and_delays_no_waiter() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir, ["lock", "f", "true"]).expect(0, "");
    run(dir, ["sem", "-j", "2", "s", "true"]).expect(0, "");
    std::fs::write(dir.join("e"), "").unwrap();
    if !crate::support::has("strace", &["-V"]) {
        return;
    }
    let holding = Holding::start(dir, &["sem", "s"]);
    let before = files(dir);
    let log = dir.join("log");
    let mut traced = Command::new("strace");
    traced.args([
        "-f",
        "-y",
        "-e",
        "trace=flock,fcntl,rename,unlink,unlinkat,link,mkdir,openat,read",
        "-o",
    ]);
    traced.arg(&log).arg(env!("CARGO_BIN_EXE_flockwork")).current_dir(dir);
    traced.args(["status", "f", "s", "e", "missing"]);
    assert_eq!(Ran::of(&mut traced).code, Some(0));
    let calls = crate::support::strace::whole_calls(&std::fs::read_to_string(&log).unwrap());
    std::fs::remove_file(&log).unwrap();
    // A holder keeps its record locked, which status checks by a try. It tries the locks themselves
    // only if the system's list does not show them.
    let taken = calls.lines().find(|call| call.contains("flock(") && !call.contains("holder"));
    // A list that is longer than half a page or that was read in several pieces may be incomplete,
    // so status does not trust it.
    let reads =
        calls.lines().filter(|call| call.contains("read(") && call.contains("/proc/locks>"));
    let lengths: Vec<usize> = reads
        .filter_map(|read| read.rsplit(" = ").next().and_then(|length| length.parse().ok()))
        .collect();
    let is_long = lengths.iter().any(|length| *length > 2048)
        || lengths.windows(2).any(|two| two[0] > 0 && two[1] > 0);
    assert!(taken.is_none() || is_long || !lists(dir), "{calls}");
    for word in ["O_CREAT", "rename(", "unlink(", "unlinkat(", "link(", "mkdir("] {
        assert!(!calls.contains(word), "{word}:\n{calls}");
    }
    assert_eq!(files(dir), before);
    for words in [&["event", "status", "no/such/place"][..], &["event", "clear", "no/such/place"]] {
        assert!(run(dir, words).err.is_empty());
    }
    run(dir, ["status", "--id", "never"]).expect_missing();
    assert_eq!(files(dir), before);
    holding.end();
}

#[test]
fn quiet_status_answers_by_its_exit_code() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let quiet = |code: i32, paths: &[&str]| {
        let ran = run(dir, ["status", "-q"].iter().chain(paths)).expect(code, "");
        assert_eq!(ran.err, "");
    };
    quiet(2, &["f"]);
    quiet(2, &["f", "g"]);
    let holding = Holding::start(dir, &["lock", "f"]);
    quiet(0, &["f"]);
    quiet(0, &["g", "f"]);
    holding.end();
    quiet(1, &["f"]);
    quiet(1, &["g", "f"]);
    let holding = Holding::start(dir, &["sem", "-j", "2", "--id", "n"]);
    quiet(0, &["--id", "n"]);
    // Without a path, all semaphores of --id are shown.
    let all = run(dir, ["status"]);
    assert!(all.out.contains("/flockwork/n: 1 of 2 permits held [#.]\n"), "{all:?}");
    quiet(0, &[]);
    holding.end();
    quiet(1, &[]);
    run(dir, ["status", "f", "g"]).expect(0, "f: free\ng: does not exist\n");
}

#[test]
fn watch_prints_only_changes_on_a_pipe() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut watching = flockwork(dir.path());
    watching.args(["status", "--watch", "f"]).stdout(Stdio::piped());
    let mut watching = watching.start();
    let out = watching.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "f: does not exist");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let holding = Holding::start(dir.path(), &["lock", "f"]);
    assert!(next().starts_with("f: held by process "));
    holding.end();
    assert_eq!(next(), "f: free");
}

impl Ran {
    #[track_caller]
    fn expect_missing(self) {
        assert!(self.code == Some(0) && self.out.contains("does not exist"), "{self:?}");
    }
}

/// Whether the kernel's list has all locks, as in the initial pid namespace, and identifies files
/// here as stat(2) does.
fn lists(dir: &Path) -> bool {
    let namespace = std::fs::metadata("/proc/self/ns/pid").unwrap();
    let is_initial = std::os::unix::fs::MetadataExt::ino(&namespace) == 0xEFFF_FFFC;
    let lock = flockwork::Lock::open(dir.join("probe")).unwrap();
    let held = lock.lock().unwrap();
    let is_listed = !lock.holders().unwrap().is_empty();
    held.unlock().unwrap();
    std::fs::remove_file(dir.join("probe")).unwrap();
    is_initial && is_listed
}

fn files(dir: &Path) -> Vec<(String, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().chain(std::fs::read_dir(dir.join("s")).unwrap()) {
        let entry = entry.unwrap();
        let name = entry.path().to_string_lossy().into_owned();
        found.push((name, entry.metadata().unwrap().modified().unwrap()));
    }
    found.sort();
    found
}

#[test]
fn watch_prints_changes_until_its_reader_is_gone() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut watching = flockwork(dir.path());
    watching.args(["status", "--watch", "--json", "f"]).stdout(Stdio::piped());
    let mut watching = watching.start();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(watching.stdout.take().unwrap()));
    assert!(lines.next().unwrap().unwrap().contains("\"missing\""));
    let holding = Holding::start(dir.path(), &["lock", "f"]);
    let held = lines.find(|line| line.as_ref().unwrap().contains("\"held\":true"));
    assert!(held.unwrap().unwrap().contains(&holding.0.id().to_string()));
    // A closed pipe ends it.
    drop(lines);
    assert_eq!(watching.wait().unwrap().code(), Some(141));
    holding.end();
}

// ----------------------------------------------------------------------------------------- waiting

#[test]
fn a_waiter_prints_one_line_after_a_delay() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let holdings = [
        (
            Holding::start(dir.path(), &["lock", "--label", "the nightly\u{1b}[2J", "f"]),
            &["lock", "f"][..],
        ),
        (Holding::start(dir.path(), &["sem", "--label", "the nightly", "s"]), &["sem", "s"]),
    ];
    for (holding, words) in holdings {
        let mut waiting = flockwork(dir.path());
        waiting.args(words).args(["echo", "x"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut waiting = waiting.start();
        let mut err = std::io::BufReader::new(waiting.stderr.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut err, &mut line).unwrap();
        // Waiting is normal for a job of a semaphore, which therefore prints nothing at first.
        let (path, at) = if words[0] == "sem" { ("s", "0:1") } else { ("f", "0:0") };
        let start = format!("flockwork: waiting for {path} {at}");
        assert!(line.starts_with(&start) && line.contains(", held by \"the nightly"), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
        assert!(line.contains(&format!("(sh, pid {}, ", holding.0.id())), "{line}");
        holding.end();
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut err, &mut rest).unwrap();
        let output = waiting.wait_with_output().unwrap();
        assert_eq!((&*output.stdout, &*rest), (&b"x\n"[..], ""));
    }
}

#[test]
fn verbose_prints_more_and_quiet_prints_nothing() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let ran = run(dir.path(), ["lock", "-v", "f", "echo", "x"]).expect(0, "x\n");
    ran.assert_error("acquired `f` after 0.");
    let holding = Holding::start(dir.path(), &["lock", "f"]);
    let ran = run(dir.path(), ["lock", "-v", "-w", "0.01", "f", "true"]).expect(75, "");
    assert_eq!(ran.lines().len(), 2, "the holder and the timeout: {}", ran.err);
    let ran = run(dir.path(), ["lock", "-q", "-w", "1.2", "f", "true"]).expect(75, "");
    assert_eq!(ran.err, "");
    holding.end();
}
