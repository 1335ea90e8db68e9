//! The command under the name `flock`, compared with flock(1) of util-linux: each shell line runs
//! with both, in separate directories. Deliberate differences and newer options are tested
//! alone.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::running::Start as _;
use crate::support::{assert_sleep, blocked, eventually, has, until_blocked};

/// How this process holds the lock while a line runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    Exclusively,
    Shared,
}

/// A directory in which lines run, with the file `l` (if it is held), the directory `d`, and other
/// files to lock or run.
struct Workspace {
    dir: TempDir,
    path: String,
    held: Vec<File>,
}

/// The result of a line.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    left: Vec<String>,
}

impl Workspace {
    /// A workspace with flockwork as the first `flock` in PATH.
    fn ours() -> Self {
        Self::new(true)
    }

    fn new(is_ours: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for directory in ["bin", "w", "w/d"] {
            std::fs::create_dir(at(directory)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_flockwork"), at("bin/flock")).unwrap();
        symlink("l", at("w/link")).unwrap();
        symlink("made", at("w/dangling")).unwrap();
        std::fs::write(at("w/plain"), "true\n").unwrap();
        crate::support::write_script(&at("w/script"), "echo script $*\n");
        let path = std::env::var("PATH").unwrap();
        let path = if is_ours { format!("{}:{path}", at("bin").display()) } else { path };
        Self { dir, path, held: Vec::new() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("w").join(name)
    }

    fn hold(&mut self, held: Held) {
        let operation = match held {
            Held::Nothing => return,
            Held::Exclusively => FlockOperation::NonBlockingLockExclusive,
            Held::Shared => FlockOperation::NonBlockingLockShared,
        };
        for name in ["l", "d"] {
            let path = self.at(name);
            let file = if path.is_dir() { File::open(path) } else { File::create(path) }.unwrap();
            flock(&file, operation).unwrap();
            self.held.push(file);
        }
    }

    fn shell(&self, line: &str) -> Command {
        // Tests that run in the background of a script begin with some signals ignored.
        let mut command = Command::new("/usr/bin/env");
        command
            .args(["--default-signal", "/bin/sh", "-c", line])
            .current_dir(self.at(""))
            .stdin(Stdio::null());
        command.env("PATH", &self.path).env("LC_ALL", "C").env("SHELL", "/bin/sh");
        command
    }

    fn run(&self, line: &str) -> Output {
        self.shell(line).output().unwrap()
    }

    /// The standard output of a line, followed by its exit code.
    fn printed(&self, line: &str) -> String {
        let output = self.run(line);
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(err.is_empty(), "{line}: {err}");
        format!("{out}{}", output.status.code().unwrap())
    }

    fn outcome(&self, line: &str) -> Outcome {
        let output = self.run(line);
        let mut left: Vec<_> = std::fs::read_dir(self.at(""))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().permissions().mode();
                format!("{} {mode:o}", entry.file_name().to_string_lossy())
            })
            .collect();
        left.sort();
        Outcome {
            code: output.status.code(),
            stdout: normalized(&output.stdout),
            stderr: normalized(&output.stderr),
            left,
        }
    }
}

/// The text without parts that differ between two runs, or deliberately between the two programs.
fn normalized(text: &[u8]) -> String {
    let text = String::from_utf8(text.to_vec()).unwrap();
    let line = |line: &str| {
        if ["Try '", "flock: try '", "hint: "].iter().any(|start| line.starts_with(start)) {
            return None;
        }
        if line.starts_with("flock: failed to execute ")
            || line.starts_with("flock: could not run ")
        {
            return Some("flock: could not run".to_string());
        }
        let took = "flock: getting lock took ";
        match line.strip_prefix(took).and_then(|rest| rest.strip_suffix(" seconds")) {
            Some(number) => {
                let (whole, micros) = number.split_once('.').unwrap();
                whole.parse::<u64>().unwrap();
                assert_eq!(micros.len(), 6, "{number}");
                Some(format!("{took}N seconds"))
            }
            None => Some(line.to_string()),
        }
    };
    text.lines().filter_map(line).map(|line| line + "\n").collect()
}

/// The number of lines that are not hints.
fn errors(stderr: &str) -> usize {
    stderr.lines().filter(|line| !line.starts_with("hint: ")).count()
}

fn is_util_linux() -> bool {
    has("flock", &["--version"])
        && Command::new("flock")
            .arg("--version")
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("util-linux"))
}

#[track_caller]
fn compare(held: Held, lines: &[&str]) {
    if !is_util_linux() {
        return;
    }
    let differ = Mutex::new(Vec::new());
    // Most of the time is spent waiting for processes to start.
    crate::support::running::share(6, lines, |line| {
        let [theirs, ours] = [false, true].map(|is_ours| {
            let mut workspace = Workspace::new(is_ours);
            workspace.hold(held);
            workspace.outcome(line)
        });
        if theirs != ours {
            let differs = format!("{line}\n  flock(1): {theirs:?}\n  ours:     {ours:?}");
            differ.lock().unwrap().push(format!("{held:?}: {differs}"));
        }
    });
    let differ = differ.into_inner().unwrap();
    assert!(differ.is_empty(), "{} of {}:\n{}", differ.len(), lines.len(), differ.join("\n"));
}

#[test]
fn commands_run_and_end_as_under_flock_1() {
    limit!();
    compare(
        Held::Nothing,
        &[
            "flock l true",
            "flock l false",
            "flock l sh -c 'exit 37'",
            "flock l sh -c 'exit 255'",
            "flock l sh -c 'kill -TERM $$'",
            "flock l sh -c 'kill -KILL $$'",
            "flock l -c 'exit 5'",
            "flock l -c 'echo a  b; echo e >&2'",
            "flock l --command 'kill -9 $$'",
            "SHELL= flock l -c 'echo by $0'",
            "SHELL=/bin/echo flock l -c 'one  word'",
            "flock l echo -n -s --verbose",
            "flock -- l echo --",
            "flock l -- true",
            "flock l --comm true",
            "flock l ./script a 'b c'",
            "flock -F l ./script a 'b c'",
            "flock l ./plain",
            "flock -F l ./plain",
            "flock l nonesuch-program",
            "flock -F l nonesuch-program",
            "flock l ./nonesuch",
            "flock l d",
            "flock l ''",
            "flock l -c ''",
            "flock l -c nonesuch-program 2>&-",
            "SHELL=./plain flock l -c true",
            "echo in | flock l cat",
            "echo in | flock -F l cat",
            "flock -F l sh -c 'exit 9'",
            "flock -F l sh -c 'kill -TERM $$'",
            "flock -F l -c 'echo x'",
            "X=1 flock l sh -c 'echo $X'",
            "flock l sh -c 'echo $0 $# $*' a 'b c' -n",
            "flock l flock -n m echo nested",
            "flock l flock -n l echo nested",
            "flock l flock -w 0.01 l echo nested",
            "flock -o l flock -E 9 -n l echo nested",
        ],
    );
}

#[test]
fn files_are_opened_as_flock_1_opens_them() {
    limit!();
    compare(
        Held::Nothing,
        &[
            "umask 027; flock l true",
            "umask 0; flock l true",
            "echo text > l; flock l cat l",
            "flock d true",
            "flock d -c 'echo x'",
            "flock d/ true",
            "flock . true",
            "flock / true",
            "flock d/new true",
            "flock link true",
            "flock dangling true",
            "flock missing/l true",
            "flock l/l true",
            "flock plain true; flock plain/l true",
            "flock '' true",
            "ln -s loop loop; flock loop true",
            "flock new/ true",
            "flock /dev/null true",
            "flock -u l true",
            "flock -s l true",
            "flock /proc/new true",
            "flock \"$(printf '%0300d' 1)\" true",
            "ulimit -n 3; flock l true 2>&1 | grep -o 'flock: cannot open lock file l'",
        ],
    );
}

#[test]
fn options_are_spelt_as_those_of_flock_1() {
    limit!();
    compare(
        Held::Nothing,
        &[
            "flock -xn l true",
            "flock -sxeun l true",
            "flock -e l true",
            "flock --exclusive --nonblocking l true",
            "flock --excl --nonb l true",
            "flock --nonblock l true",
            "flock --nb l true",
            "flock --shared l true",
            "flock --unlock l true",
            "flock --u l true",
            "flock --un l true",
            "flock -w5 l true",
            "flock -nw5 l true",
            "flock -w 5 l true",
            "flock --wait=5 l true",
            "flock --wait 5 l true",
            "flock --w 5 l true",
            "flock --timeout 5 l true",
            "flock --t=.5 l true",
            "flock -w 5. l true",
            "flock -w +5 l true",
            "flock -w ' 5' l true",
            "flock -w 1e2 l true",
            "flock -w 0 l true",
            "flock -w 9000000000 l true",
            "flock -E 7 l true",
            "flock -E7 l true",
            "flock -E ' +7' l true",
            "flock --conflict-exit-code=7 l true",
            "flock --conf 7 l true",
            "flock -o l true",
            "flock --close l true",
            "flock --clo l true",
            "flock --no-f l true",
            "flock --no-fork l true",
            "flock --verbose l true",
            "flock --verb l true",
            "flock --verbose l nonesuch-program",
            "flock --verbose l -c true",
            "flock --verbose 9 9>l",
            "flock --verbose -u 9 9>l",
            // These are invalid.
            "flock",
            "flock -x",
            "flock --",
            "flock -z",
            "flock -xz l true",
            "flock -5 l true",
            "flock -c true",
            "flock -xc true",
            "flock '-?'",
            "flock --bogus",
            "flock --bogus=1 l true",
            "flock --n l true",
            "flock --no l true",
            "flock --no=5 l true",
            "flock --c l true",
            "flock --ver l true",
            "flock --exclusive=1 l true",
            "flock --excl= l true",
            "flock --wait",
            "flock --wai",
            "flock -w",
            "flock -xw",
            "flock -E",
            "flock -w=5 l true",
            "flock -w abc l true",
            "flock -w '' l true",
            "flock -w '5 ' l true",
            "flock -w 5s l true",
            "flock -w 1,5 l true",
            "flock -w -1 l true",
            "flock -w -0.5 l true",
            "flock -w -1 missing/l true",
            "flock -nw -1 l true",
            "flock -w inf l true",
            "flock -E 300 l true",
            "flock -E -1 l true",
            "flock -E x l true",
            "flock -E 0x10 l true",
            "flock -E '' l true",
            "flock -oF l true",
            "flock -F --close 9 9>l",
            "flock l -c",
            "flock l -c a b",
            "flock l --command",
            "flock l --command a b",
            "flock l",
            "flock -",
            "flock 9x",
            "flock ''",
            "flock -- -n",
            "flock 99999999999",
        ],
    );
}

#[test]
fn descriptors_are_locked_as_flock_1_locks_them() {
    limit!();
    compare(
        Held::Nothing,
        &[
            "flock 9 9>l",
            "flock ' 9' 9>l",
            "flock 9 9<d",
            "flock 0 <d",
            "flock 1 >l",
            "flock -xn 9",
            "flock 3",
            "flock -w 1 4",
            "flock -u 9",
            "flock -- -1",
            // The lock belongs to the shell, not only to flock.
            "(flock 9; flock -n l true; echo $?) 9>l",
            "(flock 9; flock -n 9; echo $?) 9>l",
            "(flock -s 9; flock -sn l true; echo $?; flock -xn l true; echo $?) 9>l",
            "(flock 9; flock -u 9; flock -n l true; echo $?) 9>l",
            "(flock 9; flock -s 9; flock -sn l true; echo $?) 9>l",
            "(flock 9) 9>l; flock -n l true; echo $?",
            "exec 9>l; flock 9; exec 9>&-; flock -n l true; echo $?",
            "exec 8>l 9>>l; flock 9; flock -n 8; echo $?; flock -n -E 4 8; echo $?",
            "exec 8>l 9>>l; flock 9; flock -w 0 8; echo $?; flock --verbose -w 0 8; echo $?",
            // A lock is not acquired after its timeout.
            "exec 8>l 9>>l; flock 9; flock -w 0.05 8; echo $?; flock -u 9; flock -n l true; echo $?",
            "exec 8>l 9>>l; flock 9; flock --verbose -s -w 0.05 -E 6 8; echo $?; flock -u 9; flock -n l true; echo $?",
            "exec 8>l 9>>l; flock -s 8; flock -s 9; flock -w 0.05 9; echo $?; flock -n l true; echo $?",
            "exec 9>l; flock 9; flock -w 0.05 0 <l; echo $?; flock -w 0.05 1 >>l; echo $?",
            "exec 8>l; flock -w 5 8; echo $?; flock -n l true; echo $?",
            // Processes that keep running keep the inherited lock.
            "flock l sh -c 'sleep 1000 >&- 2>&- & echo $! > pid'; flock -n l true; echo $?; kill $(cat pid); rm pid",
            "flock -F l sh -c 'sleep 1000 >&- 2>&- & echo $! > pid'; flock -n l true; echo $?; kill $(cat pid); rm pid",
            "flock d sh -c 'sleep 1000 >&- 2>&- & echo $! > pid'; flock -n d true; echo $?; kill $(cat pid); rm pid",
            "flock -o l sh -c 'sleep 1000 >&- 2>&- & echo $! > pid'; flock -n l true; echo $?; kill $(cat pid); rm pid",
            "flock l flock -u 3",
            "flock l sh -c 'flock -u 9 9<l; flock -n l true; echo $?'",
        ],
    );
}

#[test]
fn held_locks_are_refused_as_by_flock_1() {
    limit!();
    let lines: Vec<String> = [
        "flock -n TARGET echo ran",
        "flock -xn TARGET echo ran",
        "flock -sn TARGET echo ran",
        "flock -s --nb TARGET -c 'echo ran'",
        "flock -un TARGET echo ran",
        "flock -u TARGET echo ran",
        "flock -n -E 42 TARGET echo ran",
        "flock -n -E 0 TARGET echo ran",
        "flock -n -E 255 TARGET echo ran",
        "flock -nF TARGET echo ran",
        "flock -sno TARGET echo ran",
        "flock -w 0 TARGET echo ran",
        "flock -w 0.0 -E 3 TARGET echo ran",
        "flock -w 0.05 TARGET echo ran",
        "flock -w.05 -F TARGET echo ran",
        "flock -w 0.05 -E 42 TARGET echo ran",
        "flock -s -w 0.05 TARGET echo ran",
        "flock -n -w 100 TARGET echo ran",
        "flock -w 100 -w 0.01 TARGET echo ran",
        "flock --verbose -n TARGET true",
        "flock --verbose -w 0 TARGET true",
        "flock --verbose -w 0.05 TARGET true",
        "flock --verbose -s -w 0.05 TARGET true",
        "flock -n TARGET nonesuch-program",
        "flock -w -1 TARGET true",
        "flock -n 9 9<TARGET",
        "flock -sn 9 9<TARGET",
        "flock -w 0.05 9 9<TARGET",
        "flock -s -w 0.05 -E 42 9 9<TARGET",
        "flock --verbose -n 9 9<TARGET",
        "flock --verbose -w 0.05 9 9<TARGET",
        "flock -u 9 9<TARGET",
        "flock -w -1 9 9<TARGET",
    ]
    .iter()
    .flat_map(|line| ["l", "d", "link"].map(|target| line.replace("TARGET", target)))
    .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    for held in [Held::Exclusively, Held::Shared, Held::Nothing] {
        if held == Held::Nothing {
            // `9<l` requires the file to exist.
            let created: Vec<String> = lines.iter().map(|line| format!("> l; {line}")).collect();
            compare(held, &created.iter().map(String::as_str).collect::<Vec<_>>());
        } else {
            compare(held, &lines);
        }
    }
}

#[test]
fn a_failed_start_names_the_program_and_the_reason() {
    limit!();
    let workspace = Workspace::ours();
    for (line, say) in
        [("flock l ./plain", "`./plain`"), ("flock -F l nonesuch-program", "`nonesuch-program`")]
    {
        let output = workspace.run(line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with("flock: could not run ") && stderr.contains(say), "{stderr}");
        assert_eq!(errors(&stderr), 1, "{stderr}");
        assert_eq!(output.status.code(), Some(69));
    }
}

#[test]
fn help_and_version_go_to_the_standard_output() {
    limit!();
    let workspace = Workspace::ours();
    for line in ["flock -h", "flock --help", "flock --hel", "flock -xh l -z"] {
        let printed = workspace.printed(line);
        assert!(
            printed.contains("\nUsage:\n flock [options]") && printed.ends_with('0'),
            "{printed}"
        );
    }
    for line in ["flock -V", "flock --version", "flock --vers", "flock -nV"] {
        let printed = workspace.printed(line);
        assert!(printed.starts_with("flock from ") && printed.ends_with("\n0"), "{printed}");
        assert!(printed.contains("util-linux"), "{printed}");
    }
}

/// If the output is not a terminal, flock(1) writes these lines after those of the command, or
/// never with `-F`.
#[test]
fn verbose_output_precedes_the_commands_output() {
    limit!();
    let workspace = Workspace::ours();
    for line in ["flock --verbose l echo hi", "flock --verbose -F l echo hi"] {
        let printed = normalized(workspace.printed(line).as_bytes());
        assert_eq!(
            printed, "flock: getting lock took N seconds\nflock: executing echo\nhi\n0\n",
            "{line}"
        );
    }
    assert_eq!(workspace.printed("flock --verbose l true >/dev/full"), "0");
    compare(
        Held::Nothing,
        &["flock -V >/dev/full", "flock -h >/dev/full", "flock -V >&-", "flock --help 1<&0"],
    );
}

/// An installed flock(1) may be too old for this option.
#[test]
fn a_descriptor_is_locked_while_a_command_runs() {
    limit!();
    let mut workspace = Workspace::ours();
    for (line, expected) in [
        ("flock --fd 9 flock -n l true 9>l", "1"),
        ("flock --fd 9 -c 'echo x; exit 3' 9>l", "x\n3"),
        ("flock -n --fd=9 --command 'echo x' 9>l", "x\n0"),
        ("flock -F --fd 9 sh -c 'exit 4' 9>l", "4"),
        ("(flock --fd 9 true; flock -n l true; echo $?) 9>l", "1\n0"),
        ("flock --fd 9 sh -c 'echo y >&9; cat l' 9>l", "y\n0"),
        // The command does not inherit the descriptor, but the lock is held while it runs.
        ("exec flock -o --fd 9 sh -c '[ -e /proc/$$/fd/9 ]; echo $?; flock -n l true' 9>l", "1\n1"),
        ("(flock -o --fd 9 true; flock -n l true; echo $?) 9>l", "1\n0"),
        ("exec 9>l; flock -o --fd 0 sh -c 'cat; flock -n l true' <l 2>/dev/null", "1"),
    ] {
        assert_eq!(workspace.printed(line), expected, "{line}");
    }
    workspace.hold(Held::Exclusively);
    for (line, code) in [
        ("flock -n --fd 9 echo ran 9>>l", 1),
        ("flock -w 0.05 -E 8 --fd 9 echo ran 9>>l", 8),
        ("flock -w 0.05 -o --fd 9 -c 'echo ran' 9>>l", 1),
    ] {
        assert_eq!(workspace.printed(line), code.to_string(), "{line}");
    }
    for (line, code) in [
        ("flock --fd 9 true", 65),
        ("flock -w 0.05 --fd 9 true", 65),
        // The descriptor is closed, since flock(1) may run these tests with its own descriptor 3
        // open.
        ("flock --fd 3 true 3>&-", 65),
        ("flock --fd x true", 64),
        ("flock --fd 9 -c a b", 64),
        ("flock --fd", 64),
        ("flock -n --fd 9 9>>l", 64),
        ("flock --fd -1 true", 64),
        ("flock --fd=-1 -c true", 64),
    ] {
        let output = workspace.run(line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors(&stderr), 1, "{line}: {stderr}");
        assert!(stderr.starts_with("flock: "), "{line}: {stderr}");
    }
}

/// An installed flock(1) may be too old for these options too. Locks on bytes are independent of
/// those of flock(2).
#[test]
fn ranges_of_bytes_are_locked() {
    limit!();
    let workspace = Workspace::ours();
    let under = |held: &str, line: &str| workspace.printed(&format!("flock {held} l {line}"));
    for (held, line, expected) in [
        ("--fcntl", "flock --fcntl -n l echo ran", "1"),
        ("--fcntl", "flock --fcntl -s -n -E 5 l echo ran", "5"),
        ("--fcntl", "flock --fcntl -w 0.05 -E 5 l echo ran", "5"),
        ("--fcntl", "flock -n l echo ran", "ran\n0"),
        ("", "flock -n --fcntl l echo ran", "ran\n0"),
        ("--fcntl -s", "flock --fcntl -s -n l echo ran", "ran\n0"),
        ("--fcntl -s", "flock --fcntl -n l echo ran", "1"),
        ("--start 0 --length 4", "flock --start 4 -n l echo ran", "ran\n0"),
        ("--start 0 --length 4", "flock --start 3 -n l echo ran", "1"),
        ("--start 1K --length 1K", "flock --length 1024 -n l echo ran", "ran\n0"),
        ("--start 1K --length 1K", "flock --length 1025 -n l echo ran", "1"),
        ("-o --fcntl", "flock --fcntl -n l echo ran", "1"),
        ("-F --fcntl", "flock --fcntl -n l echo ran", "1"),
        ("--fcntl", "flock -u --fcntl -n l echo ran", "ran\n0"),
    ] {
        assert_eq!(under(held, line), expected, "{held}: {line}");
    }
    for (line, code, expected) in [
        ("flock --start x l true", 64, "--start: 'x'"),
        ("flock --length -1 l true", 64, "--length: '-1'"),
        ("flock --start 16E l true", 64, "--start: '16E'"),
        ("flock --start 8E l true", 65, "l: Invalid argument"),
        ("flock --fcntl 9", 65, "9: Bad file descriptor"),
        ("flock --fcntl 3", 65, "3: Bad file descriptor"),
        ("flock --fcntl -w 1 4", 65, "4: Bad file descriptor"),
        ("flock --fcntl -n 9 9<l", 65, "9: Bad file descriptor"),
        ("flock --fcntl -n d true", 65, "d: Is a directory"),
        ("flock --fcntl -w 0.05 0 <d", 65, "0: Bad file descriptor"),
    ] {
        let output = workspace.run(line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
        assert!(stderr.starts_with("flock: ") && stderr.contains(expected), "{line}: {stderr}");
        assert_eq!(errors(&stderr), 1, "{line}: {stderr}");
    }
}

/// Commands with descriptors and directories, and the exit codes of util-linux 2.42, which has the
/// option.
const RANGES: &[(&str, &str)] = &[
    ("flock --fcntl -n 9 9>l", "0"),
    ("flock --fcntl -s -n 9 9<l", "0"),
    ("flock --fcntl -u 9 9<l", "0"),
    ("flock --fcntl 0 <l", "65"),
    ("flock --fcntl 1 >l", "0"),
    ("flock --start 4K --length 1KiB -n 9 9>l", "0"),
    ("flock --start 0x10 l echo ran", "ran\n0"),
    ("flock --start +7 l echo ran", "ran\n0"),
    ("flock --fcntl -s -n d echo ran", "ran\n0"),
    ("flock --fcntl -s d -c 'echo ran'", "ran\n0"),
    ("flock --fcntl -u d echo ran", "ran\n0"),
    ("flock --fcntl -n d echo ran", "65"),
    (
        "flock --fcntl -s d sh -c 'flock --fcntl -sn d echo shared; flock -n d echo free'",
        "shared\nfree\n0",
    ),
    // The lock belongs to the shell, which keeps it until it unlocks.
    (
        "(flock --fcntl 9; flock --fcntl -n l echo ran; echo $?; flock --fcntl -u 9; flock --fcntl -n l echo ran) 9>l",
        "1\nran\n0",
    ),
    ("(flock --fcntl 9; flock -n l echo ran) 9>l", "ran\n0"),
    ("(flock --fcntl -o 9 true; echo $?) 9>l", "0\n0"),
    (
        "exec 9>l; flock --start 1 --length 2 9; flock --start 0 --length 1 -n l echo a; flock --start 2 -n l echo b; echo $?; flock --start 3 -n l echo c",
        "a\n1\nc\n0",
    ),
    (
        "exec 9<>l; flock --fcntl 9; flock --fcntl -s 9; flock --fcntl -s -n l echo shared",
        "shared\n0",
    ),
    // A lock is not acquired after its timeout.
    (
        "exec 8>l 9>>l; flock --fcntl 9; flock --fcntl -w 0.05 8; echo $?; flock --fcntl -u 9; flock --fcntl -n l true; echo $?",
        "1\n0\n0",
    ),
    (
        "exec 8<l 9<>l; flock --fcntl -s 8; flock --fcntl -w 0.05 -E 6 9; echo $?; flock --fcntl -s -w 0.05 9; echo $?",
        "6\n0\n0",
    ),
    (
        "mkfifo in; exec 8>>l; flock --fcntl l sh -c 'echo > in; sleep 0.3' 8>&- & read up < in; flock --fcntl -w 100 8; echo $?; flock --fcntl -n l true; echo $?",
        "0\n1\n0",
    ),
];

#[test]
fn descriptors_and_directories_are_locked_by_range() {
    limit!();
    let is_known = String::from_utf8(Command::new("flock").arg("--help").output().unwrap().stdout);
    let is_known = is_util_linux() && is_known.unwrap().contains("--fcntl");
    for (line, expected) in RANGES {
        for is_ours in [true, false] {
            if !is_ours && !is_known {
                continue; // the installed flock(1) is too old
            }
            let workspace = Workspace::new(is_ours);
            File::create(workspace.at("l")).unwrap();
            let output = workspace.run(line);
            let out = String::from_utf8(output.stdout).unwrap();
            let came = format!("{out}{}", output.status.code().unwrap());
            assert_eq!(came, *expected, "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    // With a command, which older versions of flock(1) do not support.
    let workspace = Workspace::ours();
    for (line, expected) in [
        ("flock --fcntl -n --fd 9 echo ran 9>l", "ran\n0"),
        ("flock --fcntl --fd 9 flock --fcntl -n l echo ran 9>l", "1"),
        ("(flock --start 1 --fd 9 true; flock --fcntl -n l true; echo $?) 9>l", "1\n0"),
        (
            "exec flock -o --fcntl --fd 9 sh -c '[ -e /proc/$$/fd/9 ]; echo $?; flock --fcntl -n l true' 9>l",
            "1\n1",
        ),
    ] {
        assert_eq!(workspace.printed(line), expected, "{line}");
    }
}

#[test]
fn a_wait_ends_at_its_timeout_or_at_the_release() {
    limit!();
    let mut workspace = Workspace::ours();
    workspace.hold(Held::Exclusively);
    for line in ["exec flock -w 0.3 l true", "exec flock -w 0.3 9 9>>l"] {
        let start = Instant::now();
        assert_eq!(workspace.printed(line), "1", "{line}");
        assert!(start.elapsed() >= Duration::from_millis(300), "{line}: {:?}", start.elapsed());
    }
    // The lock is released before the timeout. With a descriptor, the shell then holds it.
    for line in ["flock -w 1000 l echo ran", "flock -w 1000 -F l echo ran", "flock l echo ran"] {
        let waiting = workspace.shell(line).stdout(Stdio::piped()).start();
        until_blocked(&workspace.at("l"), 1);
        workspace.held.clear();
        let output = waiting.wait_with_output().unwrap();
        assert_eq!((output.stdout, output.status.code()), (b"ran\n".to_vec(), Some(0)), "{line}");
        workspace.hold(Held::Exclusively);
    }
    for wait in ["-w 1000", ""] {
        let line = format!("exec 9>>l; flock {wait} 9; echo $?; exec flock -n l true");
        let waiting = workspace.shell(&line).stdout(Stdio::piped()).start();
        until_blocked(&workspace.at("l"), 1);
        workspace.held.clear();
        let output = waiting.wait_with_output().unwrap();
        assert_eq!((output.stdout, output.status.code()), (b"0\n".to_vec(), Some(1)), "{wait}");
        workspace.hold(Held::Exclusively);
    }
}

/// The exit code is right whenever the holder releases the lock.
#[test]
fn a_descriptor_is_locked_exactly_if_the_code_is_zero() {
    limit!();
    let workspace = Workspace::ours();
    for round in 0..12 {
        let hold = 40 + 2 * round;
        let line = format!(
            "exec 8>>l; flock l sh -c 'echo > in; sleep 0.0{hold}' & read up < in; flock -w 0.05 8; code=$?; wait; flock -n l true; echo $code$?"
        );
        let _ = std::fs::remove_file(workspace.at("in"));
        assert!(Command::new("mkfifo").arg(workspace.at("in")).status().unwrap().success());
        let printed = workspace.printed(&line);
        assert!(["01\n0", "10\n0"].contains(&printed.as_str()), "{hold}: {printed}");
    }
}

/// A signal ends each form of a wait, and no helper stays that could lock the file.
#[test]
fn a_signal_ends_a_waiting_command() {
    limit!();
    let mut workspace = Workspace::ours();
    workspace.hold(Held::Exclusively);
    let path = workspace.at("l");
    for line in [
        "exec flock l true",
        "exec flock -w 1000 l true",
        "exec flock -F -w 1000 l true",
        "exec flock 9 9>>l",
        "exec flock -w 1000 9 9>>l",
        "exec flock -w 1000 0 <l",
        "exec flock -w 1000 --fd 9 true 9>>l",
        "exec flock -o -w 1000 --fd 9 true 9>>l",
    ] {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::KILL] {
            let mut waiting = workspace.shell(line).start();
            until_blocked(&path, 1);
            waiting.signal(signal);
            let status = waiting.wait().unwrap();
            assert_eq!(status.signal(), Some(signal.as_raw()), "{line}: {status}");
            // One read may miss a waiter, since /proc/locks is read in pieces while it changes.
            let is_gone = || (0..20).all(|_| blocked(&path) == 0);
            eventually(&format!("{line}: no waiter is left"), is_gone);
        }
    }
}

/// Unlike flock(1), which leaves the command running.
#[test]
fn a_signal_is_forwarded_to_the_command() {
    limit!();
    let workspace = Workspace::ours();
    let line = "exec flock l sh -c 'trap \"echo term; exit 7\" TERM; echo up; while :; do sleep 0.01; done'";
    let mut running = workspace.shell(line).stdout(Stdio::piped()).start();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    running.signal(Signal::TERM);
    assert_eq!(lines.next().unwrap().unwrap(), "term");
    assert_eq!(running.wait().unwrap().code(), Some(7));
}

#[test]
fn waiting_commands_use_no_cpu_time() {
    limit!();
    let mut workspace = Workspace::ours();
    workspace.hold(Held::Exclusively);
    let lines = ["exec flock -w 1000 l true", "exec flock -w 1000 9 9>>l"];
    let mut waiting = lines.map(|line| workspace.shell(line).start());
    until_blocked(&workspace.at("l"), 2);
    assert_sleep(&waiting.each_ref().map(|child| (child.id(), 1.0)));
    for child in &mut waiting {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A child of a program that ignores SIGCHLD ignores it too.
#[test]
fn the_exit_code_is_known_although_sigchld_is_ignored() {
    limit!();
    if !has("python3", &["--version"]) {
        return;
    }
    let mut workspace = Workspace::ours();
    workspace.hold(Held::Shared);
    let ignoring = |words: &str| {
        format!(
            "exec python3 -c 'import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(\"flock\", sys.argv[1:])' flock {words}"
        )
    };
    for (words, expected) in [
        ("-s l sh -c 'exit 5'", "5"),
        ("-w 0.05 -E 6 9 9>>l", "6"),
        (
            "-F -s l python3 -c 'import signal; print(signal.getsignal(signal.SIGCHLD).name)'",
            "SIG_DFL\n0",
        ),
    ] {
        assert_eq!(workspace.printed(&ignoring(words)), expected, "{words}");
    }
}

/// The programs that lock a file, each with its exit code for a held lock: flockwork as flock,
/// flockwork lock, and flock(1).
fn programs() -> Vec<(Vec<String>, i32)> {
    let mut programs = vec![
        (vec!["flock".to_string()], 1),
        (vec![env!("CARGO_BIN_EXE_flockwork").to_string(), "lock".to_string()], 75),
    ];
    if is_util_linux() {
        let path = std::env::var("PATH").unwrap();
        let real = path.split(':').map(|dir| Path::new(dir).join("flock")).find(|at| at.exists());
        programs.push((vec![real.unwrap().display().to_string()], 1));
    }
    programs
}

#[test]
fn flock_1_and_flockwork_lock_exclude_each_other() {
    limit!();
    let workspace = Workspace::ours();
    let path = workspace.at("l");
    for (holder, _) in programs() {
        for (other, refused) in programs() {
            let (holder, other) = (holder.join(" "), other.join(" "));
            let what = format!("{holder} and then {other}");
            let line = format!("exec {holder} l sh -c 'echo held; cat >&2'");
            let mut command = workspace.shell(&line);
            let mut holding = command.stdin(Stdio::piped()).stdout(Stdio::piped()).start();
            let mut held = String::new();
            BufReader::new(holding.stdout.take().unwrap()).read_line(&mut held).unwrap();
            assert_eq!(held, "held\n", "{what}");

            let tried = workspace.run(&format!("exec {other} -n l true"));
            assert_eq!(tried.status.code(), Some(refused), "{what}");
            let mut waiting = workspace.shell(&format!("exec {other} -w 1000 l true")).start();
            until_blocked(&path, 1);
            drop(holding.stdin.take());
            assert_eq!(holding.wait().unwrap().code(), Some(0), "{what}");
            assert_eq!(waiting.wait().unwrap().code(), Some(0), "{what}");
        }
    }
}
