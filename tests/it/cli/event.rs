//! `flockwork event`.

use std::process::Stdio;

use crate::cli::command::{Holding, Ran, flockwork, run};
use crate::support::running::Start as _;

#[test]
fn an_event_is_set_and_cleared() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir, ["event", "status", "e"]).expect(1, "cleared\n");
    run(dir, ["event", "wait", "-n", "e"]).expect(75, "").assert_error("`");
    // On a busy machine the time may be over before the first check, which has another error.
    let has_waited = ["0.1", "3", "20"].into_iter().any(|limit| {
        let ran = run(dir, ["event", "wait", "-w", limit, "e"]).expect(75, "");
        ran.err.contains("was not set")
    });
    assert!(has_waited);
    run(dir, ["event", "set", "e"]).expect(0, "");
    run(dir, ["event", "status", "e"]).expect(0, "set\n");
    run(dir, ["event", "wait", "e"]).expect(0, "");
    run(dir, ["event", "wait", "--cleared", "-n", "e"]).expect(75, "");
    run(dir, ["event", "clear", "e"]).expect(0, "");
    run(dir, ["event", "clear", "e"]).expect(0, "");
    run(dir, ["event", "wait", "--cleared", "e"]).expect(0, "");
    assert!(!dir.join("e").exists());
}

#[test]
fn only_setting_an_event_creates_its_directory() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (words, code) in [
        (&["wait", "-n"][..], 75),
        (&["wait", "-w", "0.05"], 75),
        (&["wait", "--consume", "-w", "0.05"], 75),
        (&["wait", "--cleared"], 0),
        (&["status"], 1),
        (&["clear"], 0),
    ] {
        let ran = run(dir, ["event"].iter().chain(words).chain(&["out/er/ready"]));
        assert_eq!(ran.code, Some(code), "{words:?}: {ran:?}");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "{words:?}");
    }
    run(dir, ["event", "set", "out/er/ready"]).expect(0, "");
    assert!(dir.join("out/er/ready").exists());
}

#[test]
fn payloads_are_stored_and_printed_unchanged() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for data in ["hello", "", "a\nb\n", "-x", "--data", "ä"] {
        run(dir, ["event", "set", "e", "--data", data]).expect(0, "");
        assert_eq!(std::fs::read_to_string(dir.join("e")).unwrap(), data);
        run(dir, ["event", "wait", "--consume", "e"]).expect(0, data);
        run(dir, ["event", "wait", "--consume", "-n", "e"]).expect(75, "");
    }
    // A payload that cannot be written is not lost.
    run(dir, ["event", "set", "e", "--data", "kept"]).expect(0, "");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut consume = flockwork(dir);
    let consume =
        consume.args(["event", "wait", "--consume", "e"]).stdout(full).stderr(Stdio::piped());
    let output = consume.start().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(71), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("it was set again"));
    run(dir, ["event", "wait", "--consume", "e"]).expect(0, "kept");
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    std::fs::write(dir.join("input"), &bytes).unwrap();
    let mut set = flockwork(dir);
    set.args(["event", "set", "e", "--data", "-"]);
    set.stdin(std::fs::File::open(dir.join("input")).unwrap());
    Ran::of(&mut set).expect(0, "");
    let output = flockwork(dir).args(["event", "wait", "--consume", "e"]).output().unwrap();
    assert!(output.stdout == bytes);
}

#[test]
fn setting_an_event_wakes_a_waiting_command() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for (wait, act) in [
        (&["wait", "e"][..], &["set", "e", "--data", "x"][..]),
        (&["wait", "--cleared", "e"], &["clear", "e"]),
        (&["wait", "--consume", "e"], &["set", "e", "--data", "x"]),
        (&["wait", "--any", "d", "e"], &["set", "e"]),
        (&["wait", "--cleared", "--any", "f", "e"], &["clear", "e"]),
        (&["wait", "--all", "f", "e"], &["set", "e"]),
        (&["wait", "--cleared", "--all", "d", "e"], &["clear", "e"]),
    ] {
        std::fs::write(dir.path().join("f"), "").unwrap();
        let mut waiter = flockwork(dir.path());
        let waiter = waiter.arg("event").args(wait).stdout(Stdio::piped()).start();
        crate::support::until_watching(waiter.id(), dir.path());
        run(dir.path(), ["event"].iter().chain(act)).expect(0, "");
        let output = waiter.wait_with_output().unwrap();
        assert!(output.status.success(), "{wait:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        let wanted = match wait[1] {
            "--consume" => "x",
            "--any" => "e\n",
            "--cleared" if wait[2] == "--any" => "e\n",
            _ => "",
        };
        assert_eq!(printed, wanted, "{wait:?}");
    }
}

#[test]
fn a_command_runs_after_the_wait_with_the_payload() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let show = ["--", "sh", "-c", "echo \"<$FLOCKWORK_PAYLOAD> ${FLOCKWORK_EVENT-none}\"; exit 3"];
    let wait = |words: &[&str]| run(dir, ["event", "wait"].iter().chain(words).chain(&show));
    run(dir, ["event", "set", "e", "--data", "a b"]).expect(0, "");
    wait(&["e"]).expect(3, "<a b> none\n");
    wait(&["-w", "10", "e"]).expect(3, "<a b> none\n");
    wait(&["--any", "unset", "e"]).expect(3, "<a b> e\n");
    wait(&["--exists", "e"]).expect(3, "<> none\n");
    run(dir, ["event", "wait", "e", "-c", "echo $FLOCKWORK_PAYLOAD"]).expect(0, "a b\n");
    run(dir, ["event", "wait", "--print", "e"]).expect(0, "a b");
    wait(&["-n", "unset"]).expect(75, "");
    wait(&["--cleared", "--any", "e", "unset"]).expect(3, "<> unset\n");
    // A payload that the command cannot receive is not lost.
    let consume = |program: &str| run(dir, ["event", "wait", "--consume", "e", "--", program]);
    consume("./nothing").expect(69, "").assert_error("consume the event again");
    wait(&["--consume", "e"]).expect(3, "<a b> none\n");
    assert!(!dir.join("e").exists());
    std::fs::write(dir.join("e"), b"a\0b").unwrap();
    consume("true").expect(65, "").assert_error("it contains a zero byte; consume the event again");
    wait(&["e"]).expect(65, "").assert_error("zero byte");
    run(dir, ["event", "wait", "--print", "e"]).expect(0, "a\0b");
    // The wait ends before the command starts.
    let mut waiting = flockwork(dir);
    waiting.args(["event", "wait", "later"]).args(show).stdout(std::process::Stdio::piped());
    let waiting = waiting.start();
    run(dir, ["event", "set", "later", "--data", "x"]).expect(0, "");
    assert_eq!(waiting.wait_with_output().unwrap().stdout, b"<x> none\n");
    for words in [
        &["--print", "a", "b"][..],
        &["--print", "a", "-c", "true"],
        &["--print", "--any", "a"],
        &["--max-run", "3", "a"],
        &["a", "-c", "true", "--", "true"],
    ] {
        run(dir, ["event", "wait"].iter().chain(words)).expect(64, "");
    }
    // Several events are cleared by one call.
    run(dir, ["event", "clear", "e", "later", "unset"]).expect(0, "");
    assert!(!dir.join("e").exists() && !dir.join("later").exists());
    std::fs::create_dir(dir.join("directory")).unwrap();
    std::fs::write(dir.join("e"), "").unwrap();
    run(dir, ["event", "clear", "directory", "e"]).expect(66, "");
}

#[test]
fn an_event_is_set_while_a_command_runs() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let is_set = |name: &str| run(dir, ["event", "status", name]).code == Some(0);
    let check = "\"$0\" event status e && cat e && echo; exit 3";
    let words = ["event", "set", "e", "--data", "8080", "--", "sh", "-c", check];
    let program = env!("CARGO_BIN_EXE_flockwork");
    run(dir, words.iter().chain([&program])).expect(3, "set\n8080\n");
    assert!(!dir.join("e").exists());
    run(dir, ["event", "set", "e", "-c", "exit 4"]).expect(4, "");
    let ran = run(dir, ["event", "set", "--max-run", "0.1", "e", "--", "sleep", "1000"]);
    assert_eq!((ran.code, is_set("e")), (Some(124), false), "{ran:?}");
    // A command that cannot run sets nothing.
    run(dir, ["event", "set", "new/e", "--", "./nothing"]).expect(69, "");
    assert!(!dir.join("new").exists());

    // The command keeps the event set if flockwork is killed, and what it left running does not.
    let mut holding = Holding::start(dir, &["event", "set", "e", "--"]);
    let shown = run(dir, ["status", "e"]).out;
    assert!(
        shown.starts_with(&format!("e: held by process {} (sh -c ", holding.0.id())),
        "{shown}"
    );
    let input = holding.0.stdin.take();
    holding.0.kill().unwrap();
    holding.0.wait().unwrap();
    assert!(is_set("e"));
    drop(input);
    run(dir, ["event", "wait", "-w", "100", "--cleared", "e"]).expect(0, "");
    let mut left = flockwork(dir);
    left.args(["event", "set", "e", "-c", "sleep 1000 & echo $!"]).stdout(Stdio::piped());
    let mut left = left.start();
    let mut pid = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(left.stdout.take().unwrap()),
        &mut pid,
    )
    .unwrap();
    assert!(left.wait().unwrap().success() && !is_set("e"));
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    for words in [
        &["--new", "e", "-c", "true"][..],
        &["--max-run", "3", "e"],
        &["e", "-c", "true", "--", "true"],
        &["--while", "1", "e", "--", "true"],
        &["--while", "1", "--new", "e"],
        &["--while", "0", "e"],
        &["--while", "me", "e"],
    ] {
        run(dir, ["event", "set"].iter().chain(words)).expect(64, "");
    }
}

#[test]
fn an_event_is_set_while_another_process_lives() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let is_set = |name: &str| run(dir, ["event", "status", name]).code == Some(0);
    for reaps_at_once in [true, false] {
        let mut process = std::process::Command::new("sleep").arg("1000").start();
        let pid = process.id().to_string();
        // The call returns although the standard output and error are pipes that are read to the
        // end.
        let set = ["event", "set", "--while", &pid, "e", "--data", "8080"];
        run(dir, set).expect(0, "");
        run(dir, ["event", "wait", "--print", "-n", "e"]).expect(0, "8080");
        let shown = run(dir, ["status", "e"]).out;
        assert!(shown.contains(&format!("event set --while {pid} e --data 8080")), "{shown}");
        process.kill().unwrap();
        if reaps_at_once {
            process.wait().unwrap();
        }
        // A process that has ended does not live, even if its parent has not noticed its end.
        run(dir, ["event", "wait", "-w", "100", "--cleared", "e"]).expect(0, "");
        crate::support::eventually("the file is removed", || !dir.join("e").exists());
        let ran = run(dir, set).expect(64, "");
        ran.assert_error(&format!("there is no process {pid}; give the number"));
        assert!(!dir.join("e").exists());
        process.wait().unwrap();
    }
    // The standard input is the payload, and the setting ends when another process replaces it.
    let mut set = flockwork(dir);
    let own = std::process::id().to_string();
    std::fs::write(dir.join("input"), "x".repeat(300_000)).unwrap();
    set.args(["event", "set", "--while", &own, "long", "--data", "-"]);
    set.stdin(std::fs::File::open(dir.join("input")).unwrap());
    Ran::of(&mut set).expect(0, "");
    assert_eq!(run(dir, ["event", "wait", "--print", "long"]).out.len(), 300_000);
    run(dir, ["event", "clear", "long"]).expect(0, "");
    assert!(!is_set("long"));
    // An error of the process in the background is reported.
    std::fs::create_dir(dir.join("directory")).unwrap();
    let ran = run(dir, ["event", "set", "--while", &own, "directory"]);
    assert_eq!((ran.code, ran.lines().len()), (Some(66), 1), "{ran:?}");
}

/// A script that checks an event and then reads it may find it cleared in between.
#[test]
fn a_command_receives_the_payload_that_ended_its_wait() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    crate::support::running::scope(|scope| {
        let event = flockwork::Event::open(dir.join("e")).unwrap();
        let is_over = &is_over;
        let _end = crate::support::running::on_drop(|| {
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        scope.spawn(move || {
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                event.set_with("x").unwrap();
                event.clear().unwrap();
            }
        });
        for _ in 0..20 {
            run(dir, ["event", "wait", "--print", "e"]).expect(0, "x");
            run(dir, ["event", "wait", "e", "-c", "echo $FLOCKWORK_PAYLOAD"]).expect(0, "x\n");
            let any = ["event", "wait", "--any", "d", "e", "-c", "echo $FLOCKWORK_PAYLOAD"];
            run(dir, any).expect(0, "x\n");
        }
    });
}
