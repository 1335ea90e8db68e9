//! Runs the examples and checks what they print.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs an example. Cargo builds the examples together with the tests, in a directory next to
/// theirs.
pub(crate) fn run(example: &str, arguments: &[&str]) -> Output {
    run_in(Path::new("."), example, arguments)
}

fn path_of(example: &str) -> PathBuf {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    path
}

fn run_in(directory: &Path, example: &str, arguments: &[&str]) -> Output {
    let path = path_of(example);
    let mut command = Command::new(&path);
    command.args(arguments).current_dir(directory);
    command.output().unwrap_or_else(|error| {
        panic!(
            "{}: {error}; `cargo test` and `cargo build --examples` build it, but neither \
             `cargo test --test it` nor `cargo test NAME` does",
            path.display()
        )
    })
}

pub(crate) fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{text}");
    text
}

#[test]
fn each_basic_example_works_the_first_and_the_second_time() {
    limit!();
    let semaphore = ["acquired slot 0", "1 of 2 permits left", "2 of 2 permits left"];
    let lock = ["lock_basic.lock", "try_lock: ", "lock_basic.lock", "released"];
    // The output of the first run, and of the second.
    let expected: [(&str, [&[&str]; 2]); 7] = [
        ("barrier_basic", [&["passed 0", "passed 1"], &["passed 2", "passed 3"]]),
        ("cancel_basic", [&["press Ctrl-C to give up", "timed out"]; 2]),
        ("event_basic", [&["the server is ready: port 4242"]; 2]),
        ("lock_basic", [&lock; 2]),
        (
            "once_basic",
            [
                &["prepared by this run", "found a prepared file"],
                &["prepared by an earlier run", "found a prepared file"],
            ],
        ),
        ("semaphore_basic", [&semaphore; 2]),
        ("shared_file_basic", [&["this is run 1"], &["this is run 2"]]),
    ];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    let mut names: Vec<_> = files.map(|path| path.file_stem().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, expected.map(|(name, _)| name));

    let dir = tempfile::tempdir().unwrap();
    for (name, runs) in expected {
        let source = std::fs::read_to_string(directory.join(format!("{name}.rs"))).unwrap();
        let lines = source.lines().count();
        assert!((10..=20).contains(&lines), "{name} has {lines} lines");
        for pieces in runs {
            let output = run_in(dir.path(), name, &[]);
            let text = text(&output);
            assert!(output.status.success(), "{name}: {text}");
            assert_in_this_order(pieces, &text);
        }
    }
}

// Unix only: only a console sends Ctrl-C on Windows.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_wait_of_an_example_that_then_goes_on() {
    limit!();
    use std::io::Read as _;

    use crate::support::running::Start as _;

    let dir = tempfile::tempdir().unwrap();
    // On a busy machine the example's wait may time out before the signal ends it.
    let is_cancelled = (0..10).any(|_| {
        let mut command = Command::new(path_of("cancel_basic"));
        let mut waiting = command.current_dir(&dir).stdout(std::process::Stdio::piped()).start();
        let mut out = waiting.stdout.take().unwrap();
        let mut text = String::new();
        while !text.contains('\n') {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            text.push(byte[0].into());
        }
        waiting.signal(rustix::process::Signal::INT);
        out.read_to_string(&mut text).unwrap();
        assert!(waiting.wait().unwrap().success());
        if text.contains("timed out") {
            return false;
        }
        assert_in_this_order(&["press Ctrl-C", "gave up: ", "cancelled"], &text);
        true
    });
    assert!(is_cancelled, "each wait timed out");
}

#[test]
fn lock_example_writes_whole_lines_and_names_the_holder() {
    limit!();
    let output = run("lock", &[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("24 lines, 0 of them torn."), "{text}");
    for words in ["scoped (", "explicit (", "holds the lock, turn 3", "releases the lock"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn lock_example_without_the_lock_shows_torn_lines() {
    limit!();
    // On a busy machine the first worker may finish before the second one starts.
    let is_shown = (0..100).any(|_| {
        let output = run("lock", &["--without-lock"]);
        assert!(output.status.success());
        text(&output).contains("<- torn")
    });
    assert!(is_shown);
}

#[test]
fn at_most_two_of_the_five_workers_work_at_once() {
    limit!();
    let output = run("semaphore", &[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("All 5 workers finished, and at most 2 worked at once"), "{text}");
    for worker in 1..=5 {
        for word in ["waits", "begins on slot", "ends"] {
            let words = format!("worker {worker} {word}");
            assert!(text.contains(&words), "{words}: {text}");
        }
        let timeline = format!("\nworker {worker} |");
        assert!(text.contains(&timeline), "{timeline}: {text}");
    }
    for slot in ["slot 0 was held by workers", "slot 1 was held by workers"] {
        assert!(text.contains(slot), "{slot}: {text}");
    }

    let failed = run("semaphore", &["three"]);
    assert_eq!(failed.status.code(), Some(64));
    assert_eq!(String::from_utf8_lossy(&failed.stderr), "usage: semaphore\n");
}

#[test]
fn event_example_times_out_one_waiter_and_wakes_the_other() {
    limit!();
    let output = run("event", &[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let story = [
        "waiter 2 waits for the event, for at most two seconds",
        "waiter 2 timed out, is_set: false (",
        "main sets the event",
        "waiter 1 continues, is_set: true",
        "Waiter 2 timed out, and waiter 1 continued when the event was set.",
    ];
    assert_in_this_order(&story, &text);
    assert_in_this_order(&["waiter 1 waits for the event, without a limit", story[2]], &text);

    let failed = run("event", &["set"]);
    assert_eq!(failed.status.code(), Some(64));
    assert_eq!(String::from_utf8_lossy(&failed.stderr), "usage: event\n");
}

#[test]
fn ready_port_example_never_passes_a_dead_servers_port() {
    limit!();
    let output = run("ready_port", &[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let before = [
        "server 1 listens on port ",
        "main kills server 1",
        "client waits for the server",
        "main starts server 2",
    ];
    let of_the_server =
        ["server 2 listens on port ", "server 2 receives \"hello, server\"", "server 2 clears"];
    let of_the_client = ["client finds port ", "client receives \"hello, client\""];
    let end = ["The client found the living server, and the event is clear again."];
    // Two processes print, so only the lines of each process have a fixed order.
    for of_one in [&of_the_server[..], &of_the_client] {
        assert_in_this_order(&[&before[..], of_one, &end].concat(), &text);
    }

    let failed = run("ready_port", &["40123"]);
    assert_eq!(failed.status.code(), Some(64));
    assert_eq!(String::from_utf8_lossy(&failed.stderr), "usage: ready_port\n");
}

#[test]
fn toolchain_example_unpacks_once_after_a_kill() {
    limit!();
    let output = run("toolchain", &[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let story = [
        " unpacks it",
        " is halfway",
        "editor is too early (",
        "main finds the holder: \"build ",
        "main kills build ",
        " finds 20 complete files and 1 incomplete, removes them and unpacks it",
        " is halfway",
        " was killed halfway.",
        " unpacked the toolchain, and no other build did.",
        "8 builds and the editor found it unpacked.",
        "Each of these 10 processes found all 40 files.",
    ];
    assert_in_this_order(&story, &text);
    let mut killed = text.lines().filter_map(|line| Some(line.split_once("main kills ")?.1));
    let killed = killed.next().expect("a build was killed");
    assert!(text.contains(&format!("\n{killed} was killed halfway.")), "{text}");
    assert!(!text.contains(&format!("\n{killed} unpacked")), "{text}");

    let failed = run("toolchain", &["half"]);
    assert_eq!(failed.status.code(), Some(64));
    assert_eq!(String::from_utf8_lossy(&failed.stderr), "usage: toolchain\n");
}

#[test]
fn counter_example_loses_no_count_and_tears_no_read() {
    limit!();
    let output = run("counter", &[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let without_python = text.contains("The Python script is left out");
    let programs = ["   alpha   200", "    beta   200", "   gamma   200", "  python   200"];
    let (programs, total) =
        if without_python { (&programs[..3], 600) } else { (&programs[..], 800) };
    let verdict = format!("None of the {total} counts is missing.");
    let end = [&*format!("   total   {total}"), "states, none incomplete.", &verdict];
    assert_in_this_order(&[programs, &end].concat(), &text);

    let failed = run("counter", &["1000"]);
    assert_eq!(failed.status.code(), Some(64));
    assert_eq!(String::from_utf8_lossy(&failed.stderr), "usage: counter\n");
}

fn assert_in_this_order(pieces: &[&str], text: &str) {
    let mut rest = text;
    for piece in pieces {
        let found = rest.find(piece);
        rest =
            &rest[found.unwrap_or_else(|| panic!("{piece:?} is missing: {text}")) + piece.len()..];
    }
}
