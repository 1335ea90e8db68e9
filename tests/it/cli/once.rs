//! `flockwork once`.

use std::process::{Command, Stdio};

use crate::cli::command::{Ran, flockwork, run};
use crate::support::running::Start as _;

/// Each call fails each time, as on a file system or in an old container runtime without it.
#[test]
fn a_failed_sync_is_a_warning() {
    limit!();
    if !crate::support::has("strace", &["-V"]) {
        return;
    }
    for errno in ["EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"] {
        let dir = tempfile::tempdir().unwrap();
        let traced = |words: &[&str]| {
            let calls = "renameat2,fsync,fdatasync,syncfs,faccessat2,fchmod";
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
            command.args(["-e", &format!("inject={calls}:error={errno}")]);
            command.arg(env!("CARGO_BIN_EXE_flockwork")).args(words).current_dir(dir.path());
            Ran::of(command.stdin(Stdio::null()))
        };
        let ran = traced(&["once", "--fsync", "o", "true"]).expect(0, "");
        ran.assert_error("was not synced to the disk");
        traced(&["once", "--fsync", "--reset", "o"])
            .expect(0, "")
            .assert_error("was not synced to the disk");
        assert_eq!(traced(&["once", "o", "true"]).expect(0, "").err, "");
        for data in ["one", "two"] {
            assert_eq!(traced(&["event", "set", "e", "--data", data]).expect(0, "").err, "");
        }
        assert_eq!(traced(&["event", "wait", "--consume", "e"]).expect(0, "two").err, "");
    }
}

#[test]
fn only_one_of_many_callers_runs_the_command() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let mut one = flockwork(dir.path());
        one.args(["once", "o", "sh", "-c", "echo ran >> ran"]).start()
    };
    let all: Vec<_> = (0..20).map(|_| start()).collect();
    for mut one in all {
        assert!(one.wait().unwrap().success());
    }
    let ran = || std::fs::read_to_string(dir.path().join("ran")).unwrap().lines().count();
    assert_eq!(ran(), 1);
    run(dir.path(), ["once", "--reset", "o"]).expect(0, "");
    run(dir.path(), ["once", "o", "sh", "-c", "exit 3"]).expect(3, "");
    assert!(!dir.path().join("o").exists());
    run(dir.path(), ["once", "--fsync", "o", "sh", "-c", "echo ran >> ran"]).expect(0, "");
    run(dir.path(), ["once", "o", "false"]).expect(0, "");
    assert_eq!(ran(), 2);
    run(dir.path(), ["once", "--reset", "o", "x"]).expect(64, "");
    run(dir.path(), ["once", "x", "./nothing"]).expect(69, "").assert_error("./nothing");
    assert!(!dir.path().join("x").exists());
}
