//! Invalid command lines and environments, each of which ends with an exit code and an error; and
//! the consistency of the help texts, the manual and the completions.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::process::{Command, Stdio};

use crate::cli::command::{Ran, flockwork, run};

#[test]
fn an_invalid_command_line_is_one_error() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("directory")).unwrap();
    std::fs::write(dir.path().join("directory/theirs"), "").unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap().success());
    std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
    let long = "x".repeat(300);
    for (words, code, expected) in [
        (&[][..], 64, "no verb"),
        (&["bogus"], 64, "bogus"),
        (&["lokc", "f", "true"], 64, "lock"),
        (&["--bogus"], 64, "--bogus"),
        (&[""], 64, ""),
        (&["lock"], 64, "PATH and COMMAND are missing"),
        (&["lock", "f"], 64, "COMMAND is missing"),
        (&["lock", "", "true"], 64, "empty"),
        (&["lock", "f", ""], 69, "empty"),
        (&["lock", "--bogus", "f", "true"], 64, "--bogus"),
        (&["lock", "-c"], 64, "-c"),
        (&["lock", "f", "-c"], 64, "-c"),
        (&["lock", "f", "-c", "a", "b"], 64, "-c"),
        (&["lock", "-c", "a", "f", "b"], 64, "-c"),
        (&["lock", "-s", "-x", "f", "true"], 64, "--exclusive"),
        (&["lock", "-w", "-1", "f", "true"], 64, "negative"),
        (&["lock", "-w", "x", "f", "true"], 64, "seconds"),
        (&["lock", "-w", "", "f", "true"], 64, ""),
        (&["lock", "-w", "1e300", "f", "true"], 64, "seconds"),
        (&["lock", "-w", "99999999999999", "f", "true"], 64, "hundred years"),
        (&["lock", "-n", "-w", "1", "f", "true"], 64, "--timeout"),
        (&["lock", "-E", "256", "f", "true"], 64, "256"),
        (&["lock", "-E", "-1", "f", "true"], 64, "-1"),
        (&["lock", "directory", "true"], 66, "is a directory"),
        (&["lock", "fifo", "true"], 66, "is a FIFO"),
        (&["lock", "link", "true"], 66, "is a symbolic link"),
        (&["lock", "/dev/null", "true"], 66, "is a device"),
        (&["lock", "file/f", "true"], 66, "file"),
        (&["lock", &long, "true"], 66, "shorter"),
        (&["lock", "f", "./nothing"], 69, "no such file"),
        (&["lock", "f", "nothing-of-this-name"], 69, "PATH"),
        (&["lock", "f", "./file"], 69, "not executable"),
        (&["lock", "f", "./directory"], 69, "it is a directory"),
        (&["sem"], 64, "PATH or --id NAME is missing"),
        (&["sem", "s"], 64, "COMMAND is missing"),
        (&["sem", "--id", ""], 64, "empty"),
        (&["sem", "--id", "x"], 64, "COMMAND is missing"),
        (&["sem", "-j", "0", "s", "true"], 64, "at least 1"),
        (&["sem", "-j", "-", "s", "true"], 64, "expected a number"),
        (&["sem", "-j", "99999", "s", "true"], 64, "4096"),
        (&["sem", "-j", "999999999999", "s", "true"], 64, "maximum number of permits"),
        (&["sem", "-k", "0", "s", "true"], 64, "0"),
        (&["sem", "-k", "-1", "s", "true"], 64, "-1"),
        (&["sem", "-j", "2", "-k", "3", "s", "true"], 64, "(must be 1 to 2)"),
        (&["sem", "--resize", "s"], 64, "--jobs"),
        (&["sem", "make", "--id", "x"], 64, "`make` was taken as PATH before --id"),
        (&["lock", "f", "-n", "-w", "1", "true"], 64, "--timeout"),
        (&["once", "o", "--bogus"], 64, "--bogus"),
        (&["lock", "9"], 64, "COMMAND is missing; to lock descriptor 9 for a shell, use `flock 9`"),
        (&["lock", "sh"], 64, "`sh` was taken as PATH; give a path first"),
        (&["lock", "-F", "-o", "f", "true"], 64, "--close"),
        (&["sem", "-c", "a", "s", "b"], 64, "-c STRING cannot be used with COMMAND"),
        (&["lock", "f", "--", "-n"], 69, "PATH"),
        (&["sem", "--wait", "s", "true"], 64, "cannot be used with COMMAND"),
        (&["sem", "--wait", "--bg", "s"], 64, "--bg"),
        (&["sem", "file", "true"], 66, "directory"),
        (&["sem", "directory", "true"], 66, "other files"),
        (&["lock", "f", "--", "-c", "exit 3"], 69, "PATH"),
        (&["event"], 64, ""),
        (&["event", "bogus"], 64, "bogus"),
        (&["event", "set"], 64, ""),
        (&["event", "set", ""], 64, "PATH"),
        (&["event", "wait"], 64, ""),
        (&["event", "set", "directory"], 66, "is a directory"),
        (&["event", "wait", "fifo"], 66, "is a FIFO"),
        (&["event", "wait", "--consume", "a", "b"], 64, "one PATH"),
        (&["event", "wait", "--consume", "--cleared", "a"], 64, "--cleared"),
        (&["event", "wait", "--any", "--all", "a"], 64, "--all"),
        (&["once"], 64, "PATH and COMMAND are missing"),
        (&["once", "o"], 64, "COMMAND is missing"),
        (&["once", "directory", "true"], 66, "is a directory"),
        (&["status", "-q", "--json", "f"], 64, "--json"),
        (&["status", ""], 64, "PATH"),
        (
            &["status", "directory"],
            66,
            "is a directory, not a lock file, an event, a semaphore or a barrier",
        ),
        (&["status", "fifo"], 66, "is a FIFO"),
        (&["completions"], 64, ""),
        (&["completions", "nosuchshell"], 64, "nosuchshell"),
        (&["man", "x"], 64, "there is no verb `x`; use one of lock, sem, event, event set"),
    ] {
        let ran = run(dir.path(), words);
        assert_eq!((ran.code, &*ran.out), (Some(code), ""), "{words:?}: {ran:?}");
        ran.assert_error(expected);
    }
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    // Neither an invalid command line nor a command that does not exist creates a file. A semaphore
    // is created before the number of its permits is known to be too small.
    assert_eq!(left, ["directory", "fifo", "file", "link", "s"].map(OsString::from));
}

#[test]
fn several_paths_are_distinguished_from_a_command() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for (words, expected) in [
        (&["a", "b", "-n", "--", "true"][..], "unexpected option `-n` among several paths"),
        (&["a", "", "--", "true"], "PATH is empty"),
        (&["f", "cat", "--", "g"], "use `flockwork lock f -- cat -- g`"),
        (&["f", "/bin/cat", "--", "g"], "use `flockwork lock f -- /bin/cat -- g`"),
        (&["a", "b", "--"], "COMMAND is missing"),
    ] {
        run(dir.path(), ["lock"].iter().chain(words)).expect(64, "").assert_error(expected);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn arguments_that_are_not_unicode_are_accepted() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let odd = |text: &[u8]| OsString::from_vec(text.to_vec());
    let name = odd(b"a\xff\xfe b");
    let bytes = |words: Vec<OsString>| {
        let output = flockwork(dir.path()).args(&words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        output.stdout
    };
    let argument = odd(b"\x80\xc3");
    for verb in ["lock", "sem", "once"] {
        let words =
            [OsStr::new(verb), OsStr::new("--label"), &argument, &name, OsStr::new("printf")];
        let words = words.into_iter().chain([OsStr::new("%s"), &argument]).map(OsString::from);
        assert_eq!(bytes(words.collect()), argument.as_bytes());
        let (path, is_there) = (dir.path().join(&name), dir.path().join(&name).exists());
        assert!(is_there, "{verb}");
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    bytes(vec!["sem".into(), "--id".into(), name.clone(), "true".into()]);
    assert!(dir.path().join("flockwork/a%FF%FE%20b").is_dir());
    bytes(vec!["event".into(), "set".into(), name.clone(), "--data".into(), argument.clone()]);
    assert_eq!(
        bytes(vec!["event".into(), "wait".into(), "--consume".into(), name.clone()]),
        argument.as_bytes()
    );
    bytes(vec!["event".into(), "set".into(), name.clone()]);
    let mut shown = name.as_bytes().to_vec();
    shown.push(b'\n');
    assert_eq!(
        bytes(vec!["event".into(), "wait".into(), "--any".into(), name.clone(), "x".into()]),
        shown
    );
    bytes(vec!["status".into(), name.clone()]);
    bytes(vec!["status".into(), "--json".into(), name.clone()]);
    bytes(vec!["lock".into(), "-c".into(), odd(b"printf '\xff' > /dev/null"), name]);
    let ran = run(dir.path(), [odd(b"\xff"), odd(b"\xfe")]);
    assert_eq!(ran.code, Some(64));
    ran.assert_error("");
}

#[test]
fn names_are_printed_without_control_characters() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let is_printable = |line: &str| !line.chars().any(char::is_control);
    let name = "a\u{1b}[2J\nb\u{7}";
    std::fs::create_dir(dir.path().join(name)).unwrap();
    for words in [
        &["lock", name, "true"][..],
        &["status", name],
        &["lock", "f", name],
        &[name],
        &["lock", "-w", name],
    ] {
        let ran = run(dir.path(), words);
        assert!(ran.err.lines().all(is_printable), "{ran:?}");
        ran.assert_error("");
    }
    std::fs::remove_dir(dir.path().join(name)).unwrap();
    let holding = crate::cli::command::Holding::start(dir.path(), &["lock", "--label", name, name]);
    let ran = run(dir.path(), ["lock", "-n", name, "true"]);
    assert!(ran.code == Some(75) && ran.err.lines().all(is_printable), "{ran:?}");
    let shown = run(dir.path(), ["status", name]).expect_shown();
    assert!(shown.lines().all(is_printable), "{shown:?}");
    holding.end();
}

impl Ran {
    fn expect_shown(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

#[test]
fn environment_problems_are_reported() {
    limit!();
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(dir.path(), 0o755);
    std::fs::write(dir.path().join("closed"), "").unwrap();
    mode(&dir.path().join("closed"), 0o000);
    // Permissions do not restrict the superuser, so another user runs the command.
    let other = |words: &[&str], set: &dyn Fn(&mut Command)| {
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            // A copy that this user may run, even if the original is in a private directory.
            let copy = dir.path().join("flockwork-copy");
            if !copy.exists() {
                crate::support::copy_program(env!("CARGO_BIN_EXE_flockwork"), &copy);
            }
            command.arg(copy);
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_flockwork"))
        };
        command.current_dir(dir.path()).stdin(Stdio::null()).args(words);
        command.env("FLOCKWORK_ID_DIR", dir.path().join("flockwork"));
        set(&mut command);
        Ran::of(&mut command)
    };
    mode(dir.path(), 0o555);
    let plain = |_: &mut Command| ();
    other(&["lock", "closed", "true"], &plain).expect(66, "").assert_error("ermission");
    other(&["lock", "new", "true"], &plain).expect(73, "").assert_error("ermission");
    other(&["lock", "new/deeper", "true"], &plain).expect(73, "").assert_error("ermission");
    other(&["sem", "new", "true"], &plain).expect(73, "").assert_error("ermission");
    other(&["event", "set", "new"], &plain).expect(73, "").assert_error("ermission");
    other(&["once", "new", "true"], &plain).expect(73, "").assert_error("ermission");
    other(&["sem", "--id", "x", "true"], &plain).expect(73, "").assert_error("FLOCKWORK_ID_DIR");
    mode(dir.path(), 0o755);
    // The directory for --id is a symbolic link, or other users may write to it.
    let temp = tempfile::tempdir().unwrap();
    mode(temp.path(), 0o777);
    let own = temp.path().join("own");
    let in_temp = |command: &mut Command| {
        command.env("FLOCKWORK_ID_DIR", &own);
    };
    std::os::unix::fs::symlink(dir.path(), &own).unwrap();
    other(&["sem", "--id", "x", "true"], &in_temp).expect(73, "").assert_error("not a directory");
    std::fs::remove_file(&own).unwrap();
    other(&["sem", "--id", "x", "true"], &in_temp).expect(0, "");
    assert_eq!(std::fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
    mode(&own, 0o777);
    other(&["sem", "--id", "x", "true"], &in_temp)
        .expect(73, "")
        .assert_error("other users may write");
    let full = |command: &mut Command| {
        command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    };
    for words in [
        &["status", "f"][..],
        &["--help"],
        &["man"],
        &["completions", "bash"],
        &["event", "status", "e"],
    ] {
        let mut command = flockwork(dir.path());
        full(&mut command);
        let output = command.args(words).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(71), "{words:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"));
    }
}

#[test]
fn closed_standard_streams_do_no_harm() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for (closed, words, code) in [
        ("0<&-", "lock f true", 0),
        ("0<&- 1>&- 2>&-", "lock f sh -c 'exit 4'", 4),
        ("1>&- 2>&-", "lock", 64),
        ("2>&-", "lock f ./nothing", 69),
        ("0<&-", "event set e --data -", 0),
        ("0<&- 1>&- 2>&-", "sem s true", 0),
        ("0<&- 1>&- 2>&-", "sem --bg s true", 0),
        ("1>&- 2>&-", "status f", 0),
    ] {
        let mut sh = Command::new("sh");
        sh.args(["-c", &format!("\"$0\" {words} {closed}"), env!("CARGO_BIN_EXE_flockwork")]);
        assert_eq!(Ran::of(sh.current_dir(dir.path())).code, Some(code), "{words} {closed}");
    }
}

#[test]
fn each_verb_has_help_with_an_example_short_and_long() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for verb in ["lock", "sem", "event", "once", "status", "completions", "man"] {
        for flag in ["-h", "--help"] {
            let help = run(dir.path(), [verb, flag]).expect_shown();
            assert!(help.contains("Example"), "{verb} {flag}");
            assert!(help.contains(&format!("flockwork {verb}")), "{verb} {flag}");
            assert!(help.lines().all(|line| line.trim_end() == line || line.trim().is_empty()));
        }
        assert_eq!(
            run(dir.path(), ["help", verb]).expect_shown(),
            run(dir.path(), [verb, "--help"]).out
        );
    }
    let (short, long) =
        (run(dir.path(), ["-h"]).expect_shown(), run(dir.path(), ["--help"]).expect_shown());
    assert!(short.len() < long.len() && long.contains("75") && short.contains("75"));
    let version = run(dir.path(), ["--version"]).expect_shown();
    assert_eq!(version, format!("flockwork {}\n", env!("CARGO_PKG_VERSION")));
    for verb in ["set", "clear", "wait", "status"] {
        let help = run(dir.path(), ["event", verb, "--help"]).expect_shown();
        assert!(help.contains(&format!("\n  flockwork event {verb} ")), "{help}");
    }
}

#[test]
fn colors_depend_on_the_option_the_environment_and_the_output() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let is_colored = |words: &[&str]| {
        let ran = run(dir.path(), words);
        format!("{}{}", ran.out, ran.err).contains('\u{1b}')
    };
    for words in [&["--help"][..], &["lock", "--help"], &["lock"], &["lock", "--bogus"]] {
        assert!(!is_colored(words), "{words:?}");
        for color in ["--color=always", "--color=never"] {
            let colored = [words, &[color]].concat();
            assert_eq!(is_colored(&colored), color == "--color=always", "{colored:?}");
        }
    }
    assert!(is_colored(&["--color", "always", "event", "wait", "-n", "e"]));
    // The option of a command is not that of flockwork.
    run(dir.path(), ["lock", "f", "echo", "--color=always"]).expect(0, "--color=always\n");
    if !crate::support::has("python3", &["-c", "import pty"]) {
        return;
    }
    let script = r#"
for variables, is_colored in [
    ({"TERM": "xterm"}, True),
    ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ({"TERM": "dumb"}, False),
]:
    os.environ.pop("NO_COLOR", None)
    os.environ.update(variables)
    for words in [("lock", "--help"), ("lock",)]:
        pid, fd = start(*words)
        assert (b"\x1b[" in rest(fd)) == is_colored, (variables, words)
        os.waitpid(pid, 0)
print("ok")
"#;
    crate::cli::terminal::on_a_terminal(dir.path(), script).expect(0, "ok\n");
}

#[test]
fn the_manual_and_the_completions_know_every_option() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("pages");
    let installed = run(dir.path(), ["man", "--install", "pages"]).expect_shown();
    assert_eq!(installed, "wrote 12 pages to pages\n");
    for verb in [
        "",
        "lock",
        "sem",
        "event",
        "event set",
        "event clear",
        "event wait",
        "event status",
        "once",
        "status",
        "completions",
        "man",
    ] {
        let words: Vec<_> = verb.split_whitespace().collect();
        let page = run(dir.path(), ["man"].iter().chain(&words)).expect_shown();
        // The date, the version and the title of the manual are separate arguments.
        let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
        let version = concat!("\"flockwork ", env!("CARGO_PKG_VERSION"), "\" \"User Commands\"");
        assert!(title.ends_with(&format!(" 1 \" \" {version}")), "{title}");
        let name = [&["flockwork"], &words[..]].concat().join("-");
        let file = pages.join(format!("{name}.1"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), page);
        let plain = page.replace("\\-", "-");
        for section in
            ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO"]
        {
            assert!(plain.contains(&format!("\n.SH {section}\n")), "{name} {section}");
        }
        assert!(verb.is_empty() || plain.contains("\n.SH EXAMPLES\n"), "{name}");
        let help = run(dir.path(), words.iter().chain(&["--help"])).expect_shown();
        let options =
            help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
        for option in options.map(|option| option.trim_end_matches([',', ']', '.', ';', ')'])) {
            let option = option.split(['=', '`']).next().unwrap();
            assert!(plain.contains(option), "{option} is not in {name}");
        }
        if crate::support::has("groff", &["--version"]) {
            let mut groff = Command::new("groff");
            groff.args(["-man", "-ww", "-Tutf8", "-z"]).arg(&file);
            let ran = Ran::of(&mut groff);
            assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{name}");
        }
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(dir.path(), ["completions", shell]).expect_shown();
        assert!(script.contains("resize") && !script.contains("--stay"), "{shell}");
        if shell == "bash" {
            std::fs::write(dir.path().join("script"), script).unwrap();
            let mut bash = Command::new("bash");
            Ran::of(bash.args(["-n", "script"]).current_dir(dir.path())).expect(0, "");
        }
    }
}

/// The environment is empty, or names directories that do not exist.
#[test]
fn the_command_works_without_an_environment() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flockwork"));
        command.current_dir(dir.path()).env_clear().stdin(std::process::Stdio::null()).args(words);
        Ran::of(&mut command)
    };
    for words in [
        &["lock", "f", "/bin/true"][..],
        &["lock", "f", "-c", ":"],
        &["sem", "s", "/bin/true"],
        &["once", "o", "/bin/true"],
        &["event", "set", "e"],
        &["event", "wait", "e"],
    ] {
        run(words).expect(0, "");
    }
    assert_eq!(run(&["status", "f", "s"]).code, Some(0));
}
