//! Output that cannot be written: to a full device, a closed descriptor, or a pipe without a
//! reader.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::command::{Ran, flockwork, run};
use crate::support::running::Start as _;

fn full() -> Stdio {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// A descriptor that is not open for writing.
fn read_only() -> Stdio {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// A socket whose other end is closed. It is also shut down, since a child that another test forks
/// at this moment inherits the other end.
fn broken() -> Stdio {
    let (ours, _) = UnixStream::pair().unwrap();
    ours.shutdown(std::net::Shutdown::Both).unwrap();
    OwnedFd::from(ours).into()
}

fn writing_to(dir: &Path, words: &[&str], output: Stdio) -> Ran {
    let mut command = flockwork(dir);
    let child = command.args(words).stdout(output).stderr(Stdio::piped()).start();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    Ran { code: output.status.code(), out: String::new(), err }
}

/// Runs a line of shell that begins with the command, which may close its standard output.
fn closed(dir: &Path, line: &str) -> Ran {
    let mut sh = Command::new("sh");
    sh.args(["-c", &format!("\"$0\" {line}"), env!("CARGO_BIN_EXE_flockwork")]).current_dir(dir);
    Ran::of(&mut sh)
}

#[test]
fn a_payload_that_cannot_be_written_is_restored() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let consume = ["event", "wait", "--consume", "e"];
    let set = |payload| {
        run(dir, ["event", "set", "e", "--data", payload]).expect(0, "");
    };
    let is_kept = |ran: Ran, code| {
        ran.expect(code, "").assert_error("could not write to the standard output: ");
        run(dir, consume).expect(0, "kept");
    };
    set("kept");
    is_kept(writing_to(dir, &consume, full()), 71);
    set("kept");
    is_kept(writing_to(dir, &consume, read_only()), 71);
    set("kept");
    is_kept(writing_to(dir, &consume, broken()), 141);
    set("kept");
    is_kept(closed(dir, "event wait --consume e >&-"), 71);
    // Only a part of the payload can be written.
    let long = "x".repeat(1 << 20);
    std::fs::write(dir.join("e"), &long).unwrap();
    let line = "event wait --consume e | head -c 10 > part; cat part";
    closed(dir, line).expect(0, "xxxxxxxxxx").assert_error("was set again");
    run(dir, consume).expect(0, &long);
    // An empty payload needs no output, and `/dev/null` discards one.
    set("");
    closed(dir, "event wait --consume e >&-").expect(0, "");
    set("x");
    closed(dir, "event wait --consume e >/dev/null").expect(0, "");
    run(dir, ["event", "wait", "--consume", "-n", "e"]).expect(75, "");
}

#[test]
fn a_payload_that_cannot_be_restored_is_reported_as_lost() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // The reader sets the event again before it closes the pipe.
    std::fs::write(dir.join("e"), "x".repeat(1 << 20)).unwrap();
    let line = "event wait --consume e | { head -c 1 > part; echo > again; mv again e; }";
    closed(dir, line).expect(0, "").assert_error("the payload is lost");
    run(dir, ["event", "wait", "--consume", "e"]).expect(0, "\n");
}

#[test]
fn verbs_that_print_fail_when_the_output_is_full() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("e"), "").unwrap();
    for words in [
        &["event", "status", "e"][..],
        &["event", "status", "unset"],
        &["event", "wait", "--any", "unset", "e"],
        &["event", "wait", "--cleared", "--any", "unset", "e"],
        &["status", "e"],
        &["status", "--json", "e"],
        &["status", "--watch", "e"],
        &["completions", "bash"],
        &["man"],
        &["help"],
        &["--version"],
        &["lock", "--help"],
        &["event", "wait", "-h"],
    ] {
        for output in [full(), read_only()] {
            let ran = writing_to(dir, words, output);
            ran.expect(71, "").assert_error("could not write to the standard output: ");
        }
        // The exit code is that of a program that SIGPIPE ends.
        assert_eq!(writing_to(dir, words, broken()).expect(141, "").err, "", "{words:?}");
        // Rust's runtime opens the null device in place of a closed output, so that it is
        // discarded.
        if !words.contains(&"--watch") {
            let code = i32::from(*words == ["event", "status", "unset"]);
            assert_eq!(closed(dir, &format!("{} >&-", words.join(" "))).expect(code, "").err, "");
        }
    }
}
