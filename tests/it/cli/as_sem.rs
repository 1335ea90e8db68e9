//! The command under the name `sem`, compared with GNU sem: each shell line runs with both, in
//! separate directories. Deliberate differences are tested alone.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::cli::command::Ran;
use crate::support::{has, left_out};

/// A directory in which lines run.
struct Workspace {
    dir: TempDir,
    path: String,
}

impl Workspace {
    /// A workspace with flockwork as the first `sem` in PATH.
    fn ours() -> Self {
        Self::new(true)
    }

    fn new(is_ours: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["bin", "w", "parallel"] {
            std::fs::create_dir(dir.path().join(directory)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_flockwork"), dir.path().join("bin/sem")).unwrap();
        // GNU parallel asks for a citation otherwise.
        std::fs::write(dir.path().join("parallel/will-cite"), "").unwrap();
        let path = std::env::var("PATH").unwrap();
        let path =
            if is_ours { format!("{}:{path}", dir.path().join("bin").display()) } else { path };
        Self { dir, path }
    }

    fn run(&self, line: &str) -> Ran {
        self.run_in("bash", line)
    }

    fn run_in(&self, shell: &str, line: &str) -> Ran {
        let mut env = Command::new("env");
        env.args(["--default-signal", shell, "-c", line]).current_dir(self.dir.path().join("w"));
        env.env("FLOCKWORK_ID_DIR", self.dir.path().join("ids"));
        env.env("PARALLEL_HOME", self.dir.path().join("parallel")).env("PATH", &self.path);
        env.env_remove("PARALLEL_SHELL").env_remove("PARALLEL").stdin(Stdio::null());
        Ran::of(&mut env)
    }
}

/// Whether `sem` is GNU sem.
fn has_gnu_sem() -> bool {
    has("sem", &["--version"]) || {
        left_out("the comparison with GNU sem (needs the package parallel)");
        false
    }
}

/// Runs each line with both programs. Their outputs and exit codes must be the same.
fn compare(lines: &[&str]) {
    if !has_gnu_sem() {
        return;
    }
    for line in lines {
        let (ours, theirs) = (Workspace::ours().run(line), Workspace::new(false).run(line));
        assert_eq!(ours, theirs, "{line}");
    }
}

#[test]
fn the_command_line_is_run_as_gnu_sem_runs_it() {
    limit!();
    compare(&[
        "sem --fg echo 'a  b' 'c;' echo d",
        "sem --fg 'for i in 1 2; do echo $i; done'",
        "sem -q --fg echo 'a  b' \"it's\" '$x;'",
        "sem --fg echo {} x {#} {%}",
        "sem --fg -j 2 -- echo a -j3",
        "echo 2 > procs; sem -j procs --fg echo a",
        "sem -j+0 --fg echo a; sem -j -1 --fg echo b; sem -P50% --fg echo c",
        "sem --jobs 2 --max-procs=3 -P4 --semaphorename x --semaphoretimeout -5 --fg echo a",
        "sem --fg --wait echo a",
    ]);
}

#[test]
fn exit_codes_are_those_of_gnu_sem() {
    limit!();
    compare(&[
        "for code in 0 1 10 101 222 255; do sem --fg exit $code; echo $?; done",
        "for signal in 1 9 15; do sem --fg \"kill -$signal \"'$$'; echo $?; done",
        "sem 'exit 3'; echo $?; sem --wait; echo $?",
        "sem --fg no-such-program-here 2> /dev/null",
        "sem --bogus x > /dev/null 2>&1; echo $?",
        "sem -j x --fg echo a > /dev/null 2>&1; echo $?",
        "sem -u --lb --fg echo a > /dev/null 2>&1; echo $?",
        "sem -p --bg echo x > /dev/null 2>&1; echo $?",
        "sem --id a 'until [ -e go ]; do sleep 0.1; done'; sem --id a --st -1 echo x 2> /dev/null; echo $?
         touch go; sem --id a --wait",
    ]);
}

#[test]
fn input_and_output_are_those_of_gnu_sem() {
    limit!();
    compare(&[
        "echo hi | sem --fg cat",
        "echo hi | sem cat; sem --wait",
        "echo hi | sem --pipe cat; sem --wait",
        "printf 'a\\nb\\n' > f; (read x; sem cat; sem --wait) < f",
        "seq 3 > f; sem -a f wc -l; sem --wait; sem -a f --fg wc -l",
        "sem -a f -a f --fg wc 2> /dev/null",
        "sem --fg 'echo out; echo err >&2; echo out2'",
        "sem --fg -u 'echo out; echo err >&2; echo out2'",
        "sem --fg --lb 'printf a; sleep 0.1; echo b; echo c'",
        "sem -u -j2 'echo a; touch 1; until [ -e 2 ]; do sleep 0.1; done; echo b; touch 3'
         sem -u -j2 'until [ -e 1 ]; do sleep 0.1; done; echo c; touch 2; until [ -e 3 ]; do sleep 0.1; done; echo d'
         sem --wait",
    ]);
}

#[test]
fn outputs_of_jobs_are_not_mixed() {
    limit!();
    let ours = Workspace::ours();
    let line = "sem -j2 'echo a; touch 1; until [ -e 2 ]; do sleep 0.01; done; echo b; touch 3'
        sem -j2 'until [ -e 1 ]; do sleep 0.01; done; echo c; touch 2; until [ -e 3 ]; do sleep 0.01; done; echo d'
        sem --wait";
    let ran = ours.run(line);
    assert!(["a\nb\nc\nd\n", "c\nd\na\nb\n"].contains(&&*ran.out), "{ran:?}");
}

/// The examples of the manual page. The times at which jobs end decide the order of some lines.
#[test]
fn the_examples_of_the_manual_print_the_same_lines() {
    limit!();
    let numbers = "sem -j 2 'sleep 0.1;echo 1 finished';   echo sem 1 exited
         sem -j 2 'sleep 0.2;echo 2 finished';   echo sem 2 exited
         sem -j 2 'sleep 0.3;echo 3 finished';   echo sem 3 exited
         sem -j 2 'sleep 0.4;echo 4 finished';   echo sem 4 exited
         sem --wait; echo sem --wait done";
    let lines_of = |workspace: &Workspace| {
        let ran = workspace.run(numbers).expect_code(0);
        assert_eq!(ran.err, "");
        ran.out.lines().map(String::from).collect::<Vec<_>>()
    };
    let mut lines = lines_of(&Workspace::ours());
    let place = |text: &str| lines.iter().position(|line| line == text).unwrap();
    let third_exit = place("sem 3 exited");
    // The third job starts when one of the first two has ended, and its output is printed.
    assert!(place("1 finished").min(place("2 finished")) < third_exit, "{lines:?}");
    assert_eq!(lines.last().unwrap(), "sem --wait done");
    if has_gnu_sem() {
        let mut theirs = lines_of(&Workspace::new(false));
        theirs.sort();
        lines.sort();
        assert_eq!(lines, theirs);
    }
    compare(&[
        "for i in 1 2 3; do echo $i > $i.log; done
         for i in *.log ; do sem -j+0 gzip $i \";\" echo done; done
         sem --wait; ls",
        "for n in foo bar; do sem --id pod2html 'mkdir tmp && echo x >' $n.html '&& rmdir tmp'; done
         sem --id pod2html --wait
         ls",
    ]);
}

#[test]
fn sem_without_an_id_belongs_to_the_terminal() {
    limit!();
    let ours = Workspace::ours();
    let hold = "sem 'until [ -e go ]; do sleep 0.01; done'";
    let end = "touch go; sem --wait; rm go";
    let ran = ours.run(&format!("{hold}; sem --id 'not a tty' --st -0.01 true; echo $?; {end}"));
    assert_eq!(ran.out, "1\n", "{ran:?}");
    if !has("python3", &["--version"]) {
        return left_out("a terminal (needs python3)");
    }
    // On a terminal, sem does not wait for the job of another one.
    let terminal =
        "python3 -c 'import pty; pty.spawn([\"sem\", \"--fg\", \"--st\", \"-0.01\", \"tty\"])'";
    let ran = ours.run(&format!("{hold}; {terminal}; {end}"));
    assert!(ran.out.starts_with("/dev/"), "{ran:?}");
}

#[test]
fn sem_refuses_an_option_with_a_reason() {
    limit!();
    let ours = Workspace::ours();
    for (line, message, hint) in [
        (
            "sem --st 5 true",
            "--st 5 would run more jobs than -j allows after 5 s, which flockwork never does",
            "to give up after that time, use --st -5",
        ),
        ("sem --tmux true", "Unknown option: tmux", "see `sem --help`"),
        ("sem -p true", "Jobs running in the background cannot be interactive.", "omit -p"),
        ("sem", "COMMAND is missing", "see `sem --help`"),
    ] {
        let ran = ours.run(line);
        let expected = format!("sem: {message}\nhint: {hint}\n");
        assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(255), "", &*expected), "{line}");
    }
    let line = "sem --id a 'until [ -e go ]; do sleep 0.01; done'; sem --id a --st -0.1 --fg true; touch go; sem --id a --wait";
    let ran = ours.run(line);
    assert_eq!(ran.err, "sem: Warning: Semaphore timed out. Exiting.\n");
    assert!(ours.run("sem --help").expect_code(0).out.contains("Usage:\n sem [options] command"));
    assert!(ours.run("sem --version").out.starts_with("sem from flockwork "));
}

#[test]
fn j0_runs_as_many_jobs_as_possible() {
    limit!();
    let ours = Workspace::ours();
    let line = "for i in 1 2 3 4 5 6 7 8; do sem -j0 \"touch $i; while [ ! -e go ]; do sleep 0.01; done\"; done; for i in 1 2 3 4 5 6 7 8; do until [ -e $i ]; do sleep 0.01; done; done; ls; touch go; sem --wait";
    assert_eq!(ours.run(line).out, "1\n2\n3\n4\n5\n6\n7\n8\n");
}

#[test]
fn the_shell_that_calls_sem_runs_the_command() {
    limit!();
    let ours = Workspace::ours();
    for shell in ["bash", "dash", "sh"] {
        if !has(shell, &["-c", ":"]) {
            left_out(shell);
            continue;
        }
        for line in ["sem --fg 'echo $0'; true", "sem 'echo $0'; sem --wait"] {
            let ran = ours.run_in(shell, line);
            assert!(ran.out.trim().ends_with(&format!("/{shell}")), "{ran:?}");
        }
    }
    let ran = ours.run("PARALLEL_SHELL=/bin/sh sem --fg 'echo $0'");
    assert_eq!(ran.out, "/bin/sh\n");
}

#[test]
fn a_job_of_sem_holds_the_permit_until_its_output_is_printed() {
    limit!();
    let ours = Workspace::ours();
    let line = "sem 'head -c 3000000 /dev/zero | tr \"\\0\" x; echo'; sem --wait; echo done";
    let ran = ours.run(line);
    assert!(ran.out.ends_with("x\ndone\n") && ran.out.len() == 3_000_006, "{}", ran.out.len());
}
