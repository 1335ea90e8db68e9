//! The examples, run as a user runs them.

use std::path::PathBuf;
use std::process::{Command, Output};

/// Cargo builds the examples with the tests, beside them.
fn run(example: &str, arguments: &[&str]) -> Output {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    Command::new(&path).args(arguments).output().unwrap_or_else(|error| {
        panic!(
            "{}: {error}; `cargo test` builds it, `cargo test --test it` alone does not",
            path.display()
        )
    })
}

fn text(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn with_the_lock_no_line_is_torn_and_one_sees_who_holds_and_who_waits() {
    let output = run("lock", &[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("24 lines, 0 of them torn."), "{text}");
    for words in ["scoped (", "explicit (", "holds the lock, turn 3", "lets go"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn without_the_lock_the_mess_is_shown() {
    let output = run("lock", &["--without-lock"]);
    assert!(output.status.success());
    assert!(text(&output).contains("<- torn"), "{}", text(&output));
}

#[test]
fn never_more_than_two_of_the_five_workers_work_at_once() {
    let output = run("semaphore", &[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("All 5 worked, and never more than 2 at once"), "{text}");
    for worker in 1..=5 {
        for word in ["waits", "begins on slot", "ends"] {
            let words = format!("worker {worker} {word}");
            assert!(text.contains(&words), "{words}: {text}");
        }
        let timeline = format!("\nworker {worker} |");
        assert!(text.contains(&timeline), "{timeline}: {text}");
    }
    for slot in ["slot 0 was had by workers", "slot 1 was had by workers"] {
        assert!(text.contains(slot), "{slot}: {text}");
    }

    let refused = run("semaphore", &["three"]);
    assert_eq!(refused.status.code(), Some(64));
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "usage: semaphore\n");
}
