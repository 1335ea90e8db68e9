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
    let missing = json!({
        "version": 1, "path": "f", "kind": "missing", "held": false, "set": false, "done": false,
        "holders": [], "waiters": [], "removed": [], "lost": [],
    });
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
    assert!(text.contains(" (sh -c 'echo runs; exec cat'), \"import\", since "), "{text}");
    holding.end();
    let free = json!({
        "version": 1, "path": "f", "kind": "file", "held": false, "shared": false, "set": true,
        "done": true, "bytes": 0, "holders": [], "waiters": [], "removed": [], "lost": [],
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
            let holder = &status(dir, path)[0]["holders"][0];
            holder["pid"] != pid && holder["command"] == "cat"
        });
        check(); // a zombie
        holding.0.wait().unwrap();
        check(); // gone
        drop(input);
        crate::support::eventually("the job has ended", || status(dir, path)[0]["held"] == false);
        assert_eq!(status(dir, path)[0]["holders"], json!([]));
    }
}

#[test]
fn waiters_are_shown_in_their_order() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let wait = |words: &[&str]| {
        let mut waiting = flockwork(dir);
        waiting.arg("lock").args(words).args(["-q", "-c", "exit 3"]);
        waiting.start()
    };
    for (path, kind, queue) in [("f", &[][..], "f"), ("g", &["-x"], "g.gate")] {
        let holding = Holding::start(dir, &[&["lock"], kind, &[path]].concat());
        let mut waiting = Vec::new();
        for (index, label) in ["first", "second", "third"].into_iter().enumerate() {
            waiting.push(wait(&[kind, &["--label", label, path]].concat()));
            // The first waiter of a turnstile has passed it.
            let (queue, ahead) = if index == 0 { (path, 1) } else { (queue, index) };
            let count = if queue == path { index + 1 } else { ahead };
            crate::support::until_blocked(&dir.join(queue), count);
        }
        let seen = &status(dir, path)[0];
        let shown = seen["waiters"].as_array().unwrap();
        let pids: Vec<_> = shown.iter().map(|waiter| waiter["pid"].as_u64().unwrap()).collect();
        let expected: Vec<_> = waiting.iter().map(|waiter| u64::from(waiter.id())).collect();
        assert_eq!(pids, expected, "{seen}");
        for (waiter, label) in shown.iter().zip(["first", "second", "third"]) {
            assert_eq!((&waiter["label"], &waiter["user"].is_string()), (&json!(label), &true));
            assert!(waiter["command"].as_str().unwrap().contains("lock "), "{waiter}");
            assert!(waiter["since"].as_str().unwrap().ends_with('Z'), "{waiter}");
        }
        let text = run(dir, ["status", path]).out;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        let pid = waiting[1].id();
        let start = format!("  waiting 2: process {pid} (exit 3), \"second\", since ");
        assert!(lines[2].starts_with(&start), "{text}");
        holding.end();
        for mut waiting in waiting {
            assert_eq!(waiting.wait().unwrap().code(), Some(3));
        }
    }
}

#[test]
fn a_lock_of_fcntl_is_shown_as_held() {
    limit!();
    if !crate::support::has("python3", &["-c", "import fcntl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // As apt and dpkg lock.
    let mut python = Command::new("python3");
    let script = "import fcntl, sys; f = open('p', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('runs'); sys.stdin.read()";
    python.args(["-uc", script]).current_dir(dir);
    let python = Holding::of(&mut python);
    let ours = Holding::start(dir, &["lock", "--fcntl", "o"]);
    let readers = [(); 2].map(|()| Holding::start(dir, &["lock", "--fcntl", "-s", "r"]));
    for (path, pid) in [("p", python.0.id()), ("o", ours.0.id())] {
        let seen = &status(dir, path)[0];
        assert_eq!((&seen["held"], &seen["shared"]), (&json!(true), &json!(false)), "{seen}");
        let holder = &seen["holders"][0];
        assert_eq!((&holder["pid"], &holder["fcntl"]), (&json!(pid), &json!(true)), "{seen}");
        let text = run(dir, ["status", path]).out;
        assert!(text.starts_with(&format!("{path}: held by process {pid} (")), "{text}");
        assert!(text.contains(", by fcntl(2)"), "{text}");
        run(dir, ["status", "-q", path]).expect(0, "");
    }
    let seen = &status(dir, "r")[0];
    assert_eq!((&seen["held"], &seen["shared"]), (&json!(true), &json!(true)), "{seen}");
    python.end();
    ours.end();
    readers.into_iter().for_each(Holding::end);
    run(dir, ["status", "p", "o", "r"]).expect(0, "p: free\no: free\nr: free\n");
}

#[test]
fn a_holder_of_a_removed_file_is_shown() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let holding = Holding::start(dir, &["lock", "f"]);
    let pool = Holding::start(dir, &["sem", "s"]);
    std::fs::remove_file(dir.join("f")).unwrap();
    std::fs::rename(dir.join("s"), dir.join("t")).unwrap();
    std::fs::remove_dir_all(dir.join("t")).unwrap();
    let pid = holding.0.id();
    let seen = &status(dir, "f")[0];
    assert_eq!((&seen["kind"], &seen["held"]), (&json!("missing"), &json!(false)), "{seen}");
    assert_eq!(seen["removed"][0]["pid"], pid, "{seen}");
    let text = run(dir, ["status", "f"]).out;
    let start =
        format!("f: does not exist\n  a removed file of that name is held by process {pid} (");
    assert!(text.starts_with(&start), "{text}");
    // The removed slot is shown under the name that the directory had last.
    assert_eq!(status(dir, "t")[0]["removed"][0]["pid"], pool.0.id());
    // Another process locks a new file.
    let other = Holding::start(dir, &["lock", "--no-record", "f"]);
    let seen = &status(dir, "f")[0];
    assert_eq!(seen["holders"][0]["pid"], other.0.id(), "{seen}");
    assert_eq!(seen["removed"][0]["pid"], pid, "{seen}");
    run(dir, ["status", "-q", "f"]).expect(0, "");
    other.end();
    holding.end();
    pool.end();
    assert_eq!(status(dir, "f")[0]["removed"], json!([]));
}

#[test]
fn a_once_is_shown_as_done_or_not() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir, ["status", "o"]).expect(0, "o: does not exist\n");
    run(dir, ["once", "o", "false"]).expect(1, "");
    run(dir, ["status", "o"]).expect(0, "o: not done (as an event: cleared)\n");
    run(dir, ["status", "-q", "o"]).expect(1, "");
    let running = Holding::start(dir, &["once", "--label", "unpack", "o"]);
    let text = run(dir, ["status", "o"]).out;
    let start = format!("o: not done, run by process {} (", running.0.id());
    assert!(text.starts_with(&start) && text.contains("\"unpack\""), "{text}");
    assert_eq!(status(dir, "o")[0]["done"], false);
    running.end();
    run(dir, ["status", "o"]).expect(0, "o: done (as an event: set)\n");
    assert_eq!(status(dir, "o")[0]["done"], true);
    assert_eq!(status(dir, "o")[1]["path"], "o.flock");
}

/// Runs programs as a user of no other test. Only root can do that.
struct OtherUser {
    id: &'static str,
    dir: tempfile::TempDir,
}

impl OtherUser {
    fn new(id: &'static str) -> Option<Self> {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root || !crate::support::has("setpriv", &["--version"]) {
            crate::support::left_out("only root can run a program as another user");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), open).unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        let program = dir.path().join("bin/flockwork");
        crate::support::copy_program(env!("CARGO_BIN_EXE_flockwork"), &program);
        Some(Self { id, dir })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", self.id, "--clear-groups", program]);
        command.current_dir(&self.dir).env("FLOCKWORK_ID_DIR", self.dir.path().join("flockwork"));
        command.stdin(Stdio::null());
        command
    }

    fn flockwork(&self) -> Command {
        self.command(self.dir.path().join("bin/flockwork").to_str().unwrap())
    }

    fn hold(&self, words: &[&str]) -> Holding {
        Holding::of(self.flockwork().args(words).args(["sh", "-c", "echo runs; exec cat"]))
    }
}

#[test]
fn without_a_path_everything_of_the_user_is_shown() {
    limit!();
    let Some(user) = OtherUser::new("54321") else { return };
    // The path as the kernel shows it.
    let dir = &user.dir.path().canonicalize().unwrap();
    let status = |words: &[&str]| Ran::of(user.flockwork().arg("status").args(words));
    status(&[]).expect(0, "nothing is held or waited for\n");
    status(&["--json"]).expect(0, "[]\n");
    status(&["-q"]).expect(2, "");
    let holdings = [
        user.hold(&["lock", "plain"]),
        user.hold(&["lock", "--no-record", "silent"]),
        user.hold(&["lock", "-x", "queued"]),
        user.hold(&["sem", "-j", "2", "pool"]),
        user.hold(&["once", "work"]),
    ];
    let mut killed = user.hold(&["lock", "inherited"]);
    let input = killed.0.stdin.take();
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    let mut waiting = user.flockwork().args(["lock", "-q", "-x", "queued", "true"]).start();
    crate::support::until_blocked(&dir.join("queued"), 1);
    Ran::of(user.flockwork().args(["sem", "--id", "idle", "true"])).expect(0, "");
    // A path that cannot be inspected was only found.
    let foreign = user.hold(&["lock", "d.flock"]);
    std::fs::create_dir(dir.join("d")).unwrap();
    let mut unrelated = user.command("flock");
    let unrelated = Holding::of(unrelated.args(["unrelated", "sh", "-c", "echo runs; exec cat"]));
    let lines = || {
        let ran = status(&[]).out;
        let lines = ran.lines().filter_map(|line| line.strip_prefix(dir.to_str()?));
        lines.map(|line| line.split(" (").next().unwrap().to_string()).collect::<Vec<_>>()
    };
    let pid = |index: usize| holdings[index].0.id();
    let shown = lines();
    for line in [
        "/flockwork/idle: 0 of 1 permits held [.]".to_string(),
        format!("/plain: held by process {}", pid(0)),
        "/pool: 1 of 2 permits held [#.]".to_string(),
        format!("/queued: held by process {}", pid(2)),
        format!("/silent: held by process {}", pid(1)),
        format!("/work: not done, run by process {}", pid(4)),
    ] {
        assert!(shown.contains(&line), "{line}: {shown:?}");
    }
    assert!(shown.iter().any(|line| line.starts_with("/inherited: held by ")), "{shown:?}");
    assert!(shown.iter().any(|line| line.starts_with("/d.flock: held by ")), "{shown:?}");
    assert_eq!(shown.len(), 8, "{shown:?}");
    status(&["-q"]).expect(0, "");
    unrelated.end();
    foreign.end();
    holdings.into_iter().for_each(Holding::end);
    waiting.wait().unwrap();
    drop(input);
    crate::support::eventually("only the idle semaphore is left", || lines().len() == 1);
    status(&["-q"]).expect(1, "");
}

/// The open files of another user's process are hidden, but its record is not.
#[test]
fn a_record_shows_the_holder_of_a_removed_file() {
    limit!();
    let Some(user) = OtherUser::new("54322") else { return };
    let holding = Holding::start(user.dir.path(), &["lock", "--access", "everyone", "f"]);
    std::fs::remove_file(user.dir.path().join("f")).unwrap();
    let shown = || Ran::of(user.flockwork().args(["status", "f"])).out;
    let pid = holding.0.id();
    let start =
        format!("f: does not exist\n  a removed file of that name is held by process {pid} (");
    let text = shown();
    assert!(text.starts_with(&start), "{text}");
    holding.end();
    assert_eq!(shown(), "f: does not exist\n");
}

#[test]
fn another_user_and_the_local_time_are_shown() {
    limit!();
    let Some(user) = OtherUser::new("54323") else { return };
    let dir = &user.dir;
    let holding = user.hold(&["lock", "f"]);
    let mut shown = flockwork(dir.path());
    // A time zone that differs from every real one in its minutes.
    let text = Ran::of(shown.args(["status", "f"]).env("TZ", "XXX-01:17")).out;
    let json = &status(dir.path(), "f")[0]["holders"][0];
    let name = json["user"].as_str().unwrap();
    assert!(text.contains(&format!(") of user {name}, since ")), "{text}");
    assert_ne!(name, "root");
    let minutes = |text: &str| text.split(':').nth(1).unwrap().parse::<u32>().unwrap();
    let utc = minutes(json["since"].as_str().unwrap());
    let local = minutes(text.split("since ").nth(1).unwrap());
    assert_eq!((utc + 17) % 60, local, "{text} {json}");
    holding.end();
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
        "$0" lock f sh -c 'echo $$ > go; exec sleep 1000' &
        wrapper=$!
        read job < go
        until [ "$(tr '\0' ' ' < /proc/$job/cmdline)" = "sleep 1000 " ]; do sleep 0.01; done
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
    holding.end();
    quiet(1, &["--id", "n"]);
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
    // The file may be seen while it is not locked, and the lock without its record.
    let mut seen = vec![next()];
    while !seen[seen.len() - 1].starts_with("f: held by process ") {
        seen.push(next());
    }
    holding.end();
    while seen[seen.len() - 1] != "f: free" {
        seen.push(next());
    }
    assert!(seen.windows(2).all(|two| two[0] != two[1]), "{seen:?}");
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
        let (path, least) = if words[0] == "sem" { ("s", 10) } else { ("f", 1) };
        let time = line.strip_prefix(&format!("flockwork: waiting for {path} 0:"));
        let seconds = time.and_then(|time| time.split(',').next()?.parse().ok());
        assert!(seconds.is_some_and(|seconds: u32| seconds >= least), "{line}");
        assert!(line.contains(", held by \"the nightly"), "{line}");
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
    ran.assert_error("acquired `f` after ");
    let holding = Holding::start(dir.path(), &["lock", "f"]);
    let ran = run(dir.path(), ["lock", "-v", "-w", "0.01", "f", "true"]).expect(75, "");
    assert_eq!(ran.lines().len(), 2, "the holder and the timeout: {}", ran.err);
    let ran = run(dir.path(), ["lock", "-q", "-w", "1.2", "f", "true"]).expect(75, "");
    assert_eq!(ran.err, "");
    holding.end();
}
