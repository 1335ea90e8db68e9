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
