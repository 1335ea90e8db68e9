//! The completions in real shells on a terminal.

use std::path::Path;

use crate::cli::command::run;
use crate::cli::terminal::on_a_terminal;

/// The beginning of a line, and the line that the shell completes it to.
const LINES: &[(&str, &str)] = &[
    ("flockwork loc", "flockwork lock"),
    ("flockwork lock --lab", "flockwork lock --label"),
    ("flockwork lock back", "flockwork lock backup.lock"),
    ("flockwork lock backup.lock mkdi", "flockwork lock backup.lock mkdir"),
    ("flockwork lock -w 3 backup.lock -- mkdi", "flockwork lock -w 3 backup.lock -- mkdir"),
    ("flockwork lock backup.lock cat back", "flockwork lock backup.lock cat backup.lock"),
    ("flockwork sem --id dem", "flockwork sem --id demo-1"),
    ("flockwork sem --id demo-1 mkdi", "flockwork sem --id demo-1 mkdir"),
    ("flockwork status back", "flockwork status backup.lock"),
    ("flockwork event wai", "flockwork event wait"),
];

/// Starts `shell` on a terminal, runs `setup`, and completes each line.
fn complete_in(shell: &[&str], script: &str, setup: &str) {
    if !crate::support::has(shell[0], &["-c", "true"])
        || !crate::support::has("python3", &["-c", "import pty"])
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir: &Path = dir.path();
    std::fs::write(dir.join("backup.lock"), "").unwrap();
    run(dir, ["sem", "--id", "demo-1", "true"]).expect(0, "");
    let completions = run(dir, ["completions", shell[0]]);
    std::fs::write(dir.join(script), completions.out).unwrap();
    let words = serde_json::to_string(shell).unwrap();
    let lines = serde_json::to_string(LINES).unwrap();
    let python = format!(
        r#"
os.environ["PATH"] = os.path.dirname(sys.argv[1]) + ":" + os.environ["PATH"]
os.environ.update(FLOCKWORK_ID_DIR=os.getcwd() + "/flockwork", HOME=os.getcwd(), PS1="", TERM="dumb")
for line, completed in {lines}:
    pid, fd = pty.fork()
    if pid == 0:
        words = {words}
        os.execvp(words[0], words)
    os.write(fd, {setup:?}.encode() + b"; echo rea''dy\n")
    read(fd, b"ready")
    # The shell prints the rest of the line when it completes it.
    os.write(fd, line.encode() + b"\x09")
    end, text = time.time() + 60, b""
    while completed.encode() not in re.sub(rb"\x1b[^a-zA-Z]*[a-zA-Z]|[\r\n\b]", b"", text):
        if time.time() > end or not select.select([fd], [], [], 60)[0]:
            raise SystemExit(f"{{line!r}} was completed to {{text!r}}")
        text += os.read(fd, 4096)
    os.kill(pid, signal.SIGKILL)
    os.close(fd)
    os.waitpid(pid, 0)
print("ok")
"#
    );
    let ran = on_a_terminal(dir, &python);
    assert_eq!((ran.code, &*ran.out), (Some(0), "ok\n"), "{ran:?}");
}

#[test]
fn bash_completes_commands_options_and_ids() {
    limit!();
    complete_in(&["bash", "--norc", "--noprofile", "-i"], "script", ". ./script");
}

#[test]
fn zsh_completes_commands_options_and_ids() {
    limit!();
    let setup = "fpath=($PWD $fpath); autoload -U compinit; compinit -u -D";
    complete_in(&["zsh", "-f", "-i"], "_flockwork", setup);
}

#[test]
fn fish_completes_commands_options_and_ids() {
    limit!();
    complete_in(&["fish", "--no-config", "-i"], "script", "source script");
}
