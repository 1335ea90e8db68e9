//! The texts and hints of the command's errors.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::cli::command::{Ran, flockwork, run};
use crate::support::running::Start as _;
use crate::support::{copy_program, has, write_script};

#[track_caller]
fn assert_error(ran: Ran, code: i32, expected: &str, unexpected: &str) {
    let ran = ran.expect(code, "");
    ran.assert_error(expected);
    assert!(unexpected.is_empty() || !ran.err.contains(unexpected), "{}", ran.err);
}

#[test]
fn the_reason_is_shown_when_a_command_cannot_be_run() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("directory")).unwrap();
    std::fs::write(at("plain"), "x").unwrap();
    write_script(&at("no-interpreter"), "#!/no/such/interpreter -x\n");
    write_script(&at("other-ends"), "#!/bin/sh\r\n");
    write_script(&at("bad-interpreter"), "#!/tmp\n");
    std::os::unix::fs::symlink("gone", at("dangling")).unwrap();
    for verb in [&["lock", "f"][..], &["sem", "s"], &["once", "o"]] {
        for (program, why, unexpected) in [
            ("./directory", "it is a directory", "chmod"),
            ("/", "it is a directory", "chmod"),
            ("./plain", "it is not executable for this user; make it executable with chmod +x", ""),
            ("./no-interpreter", "its interpreter `/no/such/interpreter` (first line)", "no such"),
            ("./other-ends", "its interpreter `/bin/sh\\r` (first line) was not found", "no such"),
            ("./bad-interpreter", "its interpreter `/tmp` (first line) is not exec", "chmod"),
            ("./dangling", "it is a symbolic link to a file that does not exist", "no such file"),
            ("./missing", "no such file", "interpreter"),
            ("./plain/x", "part of its path is not a directory", ""),
            ("no-such-program", "there is no program of that name in PATH", "sh -c"),
            ("echo hi; true", "in PATH; use -c for a shell string", ""),
        ] {
            let ran = run(dir.path(), verb.iter().copied().chain([program]));
            assert_error(ran, 69, &format!("could not run `{program}`: "), unexpected);
            assert_error(
                run(dir.path(), verb.iter().copied().chain([program])),
                69,
                why,
                unexpected,
            );
        }
    }
    // The same programs by a name in PATH.
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    for (program, why) in [("no-interpreter", "its interpreter `"), ("plain", "not executable")] {
        let ran = Ran::of(flockwork(dir.path()).args(["lock", "f", program]).env("PATH", &path));
        assert_error(ran, 69, why, "in PATH");
    }
    if has("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"]) {
        let script = "mount -t tmpfs -o noexec none directory && cp /bin/true directory/ && \
                      exec \"$0\" lock f directory/true";
        let mut unshare = Command::new("unshare");
        unshare.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_flockwork")]);
        assert_error(Ran::of(unshare.current_dir(dir.path())), 69, "(noexec)", "chmod");
    }
}

#[test]
fn a_file_in_place_of_a_semaphore_is_described() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("make"), "").unwrap();
    std::os::unix::fs::symlink("make", dir.path().join("link")).unwrap();
    let name_first = "not a directory; give the semaphore before the command, as PATH or with --id";
    for (path, found) in [("make", "is a regular file"), ("link", "is a symbolic link")] {
        let sem = || run(dir.path(), ["sem", "-j4", path, "all"]);
        assert_error(sem(), 66, found, "not a regular file");
        assert_error(sem(), 66, name_first, "");
        let error = flockwork::Semaphore::open(dir.path().join(path), 4).unwrap_err();
        assert!(error.to_string().contains(found), "{error}");
    }
}

#[test]
fn numbers_agree_with_their_nouns() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir, ["sem", "-j", "1", "s", "true"]).expect(0, "");
    let other = || run(dir, ["sem", "-j", "3", "s", "true"]);
    assert_error(other(), 64, "has 1 permit, not 3; use -j 1, omit -j,", "permits");
    assert_error(run(dir, ["sem", "-k", "2", "s", "true"]), 64, "2 (must be 1)", "1 to 1");
    let error = flockwork::Semaphore::open(dir.join("s"), 2).unwrap_err();
    assert!(error.to_string().ends_with("has 1 permit, not 2"), "{error}");
    std::fs::write(dir.join("e"), "x").unwrap();
    run(dir, ["status", "e"]).expect(0, "e: free, 1 byte\n");
}

#[test]
fn suggestions_match_the_misspelt_word() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for (words, why, unexpected) in [
        (&["sem", "--semaphoretimeout", "3", "s", "true"][..], "use -w SECS", "--semaphorename"),
        (&["sem", "--st=3", "s", "true"], "use -w SECS", "did you mean"),
        (&["sem", "--line-buffer", "s", "true"], "omit it", "--nb"),
        (&["lock", "--fd", "3", "true"], "under the name `flock`", "did you mean"),
        (&["lock", "--nonblok", "f", "true"], "did you mean --nonblock?", ""),
        (&["lokc", "f", "true"], "did you mean lock?", ""),
        (&["event", "set", "e", "x"], "--data; see `flockwork event set --help`", ""),
        (&["event", "wait", "--clear", "e"], "see `flockwork event wait --help`", ""),
        (&["event", "wiat", "e"], "did you mean wait? Otherwise, see `flockwork event --help`", ""),
    ] {
        assert_error(run(dir.path(), words), 64, why, unexpected);
    }
}

#[test]
fn a_program_in_place_of_the_path_is_pointed_out() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for (words, verb) in [
        (&["lock", "sh", "no-such-program"][..], "lock"),
        (&["sem", "sh", "-j4", "no-such-program"], "sem"),
        (&["once", "sh", "no-such-program"], "once"),
    ] {
        let hint = format!(
            "`sh` was taken as PATH and `no-such-program` as COMMAND; give a path first, as in \
             `flockwork {verb} PATH sh no-such-program`"
        );
        assert_error(run(dir.path(), words), 69, &hint, "");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // The command may be missing until the holder of the lock has created it.
    let script = "printf '#!/bin/sh\\necho built\\n' > tool; chmod +x tool; echo runs; exec cat";
    let holding = crate::cli::command::Holding::of(
        flockwork(dir.path()).args(["lock", "f", "sh", "-c", script]),
    );
    let waiting = flockwork(dir.path()).args(["lock", "f", "./tool"]).start();
    crate::support::until_blocked(&dir.path().join("f"), 1);
    holding.end();
    assert!(waiting.wait_with_output().unwrap().status.success());
}

/// The superuser creates the files, and another user opens them.
#[test]
fn errors_about_another_users_files_explain_how_to_share() {
    limit!();
    if !rustix::process::geteuid().is_root() {
        crate::support::left_out("another user is needed, so this must run as root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let copy = dir.join("flockwork-copy");
    copy_program(env!("CARGO_BIN_EXE_flockwork"), &copy);
    let other = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).args(words);
        Ran::of(command.current_dir(dir))
    };
    let private = |words: &[&str]| run(dir, words).expect(0, "");
    private(&["lock", "--access", "private", "f", "true"]);
    private(&["sem", "--access", "private", "s", "true"]);
    private(&["event", "set", "--access", "private", "e", "--data", "x"]);
    private(&["lock", "--access", "private", "closed/f", "true"]);
    for words in [
        &["lock", "f", "true"][..],
        &["lock", "-s", "f", "true"],
        &["event", "wait", "--consume", "e"],
    ] {
        let ran = other(words);
        assert_eq!(ran.code, Some(66), "{ran:?}");
        ran.assert_error("able to read the file (its creator can permit it with --access)");
    }
    // The lock is in a directory that was created with the same option.
    other(&["lock", "closed/f", "true"]).expect(66, "").assert_error("can permit it with --access");
    // Files that were created with `--access everyone` can be used.
    private(&["lock", "--access", "everyone", "shared", "true"]);
    private(&["sem", "--access", "everyone", "shared.s", "true"]);
    private(&["event", "set", "--access", "everyone", "shared.e", "--data", "x"]);
    other(&["lock", "shared", "true"]).expect(0, "");
    other(&["sem", "shared.s", "true"]).expect(0, "");
    let payload = std::fs::metadata(dir.join("shared.e")).unwrap().permissions().mode();
    assert_eq!(payload & 0o777, 0o666);
}

/// Every lookup on a mount whose server is gone fails, although its directory exists.
#[test]
fn a_mount_without_a_server_is_reported() {
    limit!();
    if !has("strace", &["-V"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let calls = "stat,lstat,newfstatat,statx,openat,open";
    for words in [
        &["event", "wait", "-n", "mount/e"][..],
        &["event", "set", "mount/e"],
        &["lock", "-n", "mount/f", "true"],
        &["once", "-n", "mount/o", "true"],
        &["sem", "-n", "mount/s", "true"],
    ] {
        let path = dir.path().join(words.iter().find(|word| word.contains('/')).unwrap());
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(&mount).arg("-P").arg(&path);
        strace.args(["-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:error=ENOTCONN")]);
        strace.arg(env!("CARGO_BIN_EXE_flockwork")).args(words).current_dir(dir.path());
        let ran = Ran::of(&mut strace);
        assert_eq!(ran.code, Some(66), "{words:?}: {ran:?}");
        ran.assert_error("could not look up `");
        ran.assert_error("or mount the file system again");
        assert!(!ran.err.contains("File exists"), "{ran:?}");
    }
}
