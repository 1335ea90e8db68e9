//! The place of `sem --id`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::command::{Holding, Ran, flockwork, run};
use crate::support::{copy_program, has, left_out, names_in};

/// A semaphore in the home directory of this user, which is removed at the end.
struct InHome {
    name: String,
    path: PathBuf,
}

impl InHome {
    fn new() -> Self {
        let name = format!("test of flockwork {}", std::process::id());
        let mut status = plain();
        let ran = Ran::of(status.args(["status", "--json", "--id", &name]));
        let status: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let path = PathBuf::from(status[0]["path"].as_str().unwrap());
        assert!(path.is_absolute(), "{}", path.display());
        Self { name, path }
    }
}

impl Drop for InHome {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The command without any variable of this test.
fn plain() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", "-i"]).arg(env!("CARGO_BIN_EXE_flockwork"));
    command.current_dir("/").stdin(Stdio::null());
    command
}

#[test]
fn an_id_is_one_semaphore_in_every_environment() {
    limit!();
    let id = InHome::new();
    let dir = tempfile::tempdir().unwrap();
    let mut command = flockwork(dir.path());
    command.env_remove("FLOCKWORK_ID_DIR").args(["sem", "--id", &id.name]);
    let held = Holding::of(command.args(["sh", "-c", "echo runs; exec cat"]));
    let environments: [&[&str]; 5] = [
        &[],
        &["HOME=/nonexistent"],
        &["XDG_RUNTIME_DIR=/tmp", "XDG_STATE_HOME=/tmp"],
        &["TMPDIR=/tmp", "USER=other", "LOGNAME=other"],
        &["FLOCKWORK_ID_DIR=relative"],
    ];
    let sem = |variables: &[&str]| {
        let mut env = Command::new("env");
        env.arg("-i").args(variables).arg(env!("CARGO_BIN_EXE_flockwork"));
        env.current_dir(dir.path()).stdin(Stdio::null());
        Ran::of(env.args(["sem", "-n", "--id", &id.name, "/bin/true"]))
    };
    for variables in environments {
        sem(variables).expect(75, "");
    }
    held.end();
    for variables in environments {
        sem(variables).expect(0, "");
    }
    assert!(names_in(dir.path()).is_empty(), "{:?}", names_in(dir.path()));
}

#[test]
fn a_user_without_a_home_directory_has_a_private_one() {
    limit!();
    if !rustix::process::geteuid().is_root() || !has("setpriv", &["--version"]) {
        return left_out("a user without a home directory (needs root and setpriv)");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let copy = dir.path().join("copy");
    copy_program(env!("CARGO_BIN_EXE_flockwork"), &copy);
    // No entry of the password database has this number.
    let user = 1_999_000_000 + std::process::id();
    let own = Path::new("/var/tmp").join(format!("flockwork-{user}"));
    for variables in [&[][..], &["HOME=/tmp", "TMPDIR=/"]] {
        let mut command = Command::new("env");
        let group = format!("--regid={user}");
        command.arg("-i").args(variables).args(["setpriv", "--clear-groups", &group]);
        command.arg(format!("--reuid={user}")).arg(&copy).current_dir("/");
        Ran::of(command.args(["sem", "--id", "x", "/bin/true"])).expect(0, "");
        assert!(own.join("x/capacity").exists());
    }
    std::fs::remove_dir_all(own).unwrap();
}

#[test]
fn old_files_of_an_id_are_not_cleaned() {
    limit!();
    if !has("systemd-tmpfiles", &["--version"]) {
        return left_out("cleaning (needs systemd-tmpfiles)");
    }
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), ["sem", "--id", "x", "-j", "2", "true"]).expect(0, "");
    let other = dir.path().join("flockwork/other");
    std::fs::write(&other, "").unwrap();
    let rules = dir.path().join("rules.conf");
    let rule = format!("e {} - - - 1us\n", dir.path().join("flockwork").display());
    std::fs::write(&rules, rule).unwrap();
    let before = names_in(&dir.path().join("flockwork/x"));
    let mut clean = Command::new("systemd-tmpfiles");
    Ran::of(clean.arg("--clean").arg(rules)).expect(0, "");
    assert!(!other.exists(), "nothing was cleaned");
    let is_directory = |name: &str| dir.path().join("flockwork/x").join(name).is_dir();
    let after = names_in(&dir.path().join("flockwork/x"));
    let missing: Vec<_> = before.iter().filter(|name| !after.contains(name)).collect();
    assert!(missing.iter().all(|name| ["jobs", "holders"].contains(&name.as_str())), "{missing:?}");
    assert!(is_directory(".slots"));
    run(dir.path(), ["sem", "--id", "x", "-j", "2", "-k", "2", "echo", "ok"]).expect(0, "ok\n");
}
