//! The documents that show the command: their scripts run, and the help texts are those of the
//! program.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::command::{Ran, flockwork};
use crate::cli::without_progress;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// A directory with the files that the scripts use.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("config"), "port 8080\n").unwrap();
    for source in ["a.c", "b.c", "c.c"] {
        std::fs::write(dir.path().join(source), "").unwrap();
    }
    // A compiler may not be installed.
    let cc = dir.path().join("cc");
    crate::support::write_script(
        &cc,
        "#!/bin/sh\ntest \"$1\" = -c && test -e \"$2\" && : > \"${2%.c}.o\"\n",
    );
    dir
}

/// Runs all blocks of shell in a document as one script.
fn run_scripts(text: &str, dir: &Path) -> Ran {
    let scripts = text.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let script = scripts.fold("set -e\n".to_string(), |script, next| script + next + "\n");
    let bin = Path::new(env!("CARGO_BIN_EXE_flockwork")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let runtime = dir.join("runtime");
    let mut sh = Command::new("sh");
    sh.args(["-c", &script]).current_dir(dir).env("FLOCKWORK_ID_DIR", runtime);
    sh.env("SHELL", "/bin/sh").env("PATH", format!("{}:{}:{path}", dir.display(), bin.display()));
    let mut ran = Ran::of(&mut sh);
    ran.err = without_progress(&ran.err).collect();
    ran
}

#[test]
fn the_scripts_of_the_readme_run() {
    limit!();
    let readme = read("README.md");
    assert!(readme.contains("```sh\n"), "README.md has no script");
    let ran = run_scripts(&readme, workspace().path());
    assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{ran:?}");
}

#[test]
fn the_scripts_of_the_command_page_run() {
    limit!();
    let page = read("docs/CLI.md");
    assert!(page.contains("flockwork sem") && page.contains("./flock -n"));
    let dir = workspace();
    let ran = run_scripts(&page, dir.path());
    assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{ran:?}");
    assert!(ran.out.contains("alone\n") && ran.out.contains("held by descriptor 9\n"), "{ran:?}");
    for shown in ["synced\n", "migrated\n", "served\n"] {
        assert!(ran.out.contains(shown), "{ran:?}");
    }
    if crate::support::has("make", &["--version"]) {
        assert_eq!(ran.out.matches("tested ").count(), 4, "{ran:?}");
    }
    for created in ["backup.tar", "a.o", "b.o", "c.o", "unpacked", "tool/bin", "gpu.log"] {
        assert!(dir.path().join(created).exists(), "{created}");
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("config")).unwrap(), "port 8081\n");
}

#[test]
fn the_scripts_of_the_recipes_run() {
    limit!();
    let mut recipes = read("docs/RECIPES.md");
    assert_eq!(recipes.matches("```sh\n").count(), 8);
    // On a busy machine the client may come later than half a second, so the server waits for it.
    for (shown, run) in [
        ("sleep 0.5 # serve", "flockwork event wait -w 100 client.came"),
        ("PAYLOAD\" = 8080'", "PAYLOAD\" = 8080 && : > client.came'"),
    ] {
        assert_eq!(recipes.matches(shown).count(), 1, "{shown}");
        recipes = recipes.replace(shown, run);
    }
    let dir = tempfile::tempdir().unwrap();
    let ran = run_scripts(&recipes, dir.path());
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), "", ""), "{ran:?}");
}

/// The output of a command that prints help, without trailing white space.
fn help(words: &str) -> String {
    let mut command = flockwork(Path::new("."));
    let ran = Ran::of(command.args(words.split(' ')).env_remove("COLUMNS").env("TERM", "dumb"));
    assert_eq!(ran.code, Some(0), "{words}");
    let lines: Vec<_> = ran.out.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// To update the page, run
/// `FLOCKWORK_WRITE_CLI=1 cargo test --features cli --test it cli::docs`.
#[test]
fn the_help_texts_of_the_command_page_are_current() {
    limit!();
    let page = read("docs/CLI.md");
    let mut current = String::new();
    let mut rest = &*page;
    let mut shown = Vec::new();
    while let Some((before, after)) = rest.split_once("<!-- flockwork ") {
        let (words, after) = after.split_once(" -->\n").unwrap();
        let after = after
            .strip_prefix("\n```text\n")
            .map_or(after, |block| block.split_once("\n```\n").unwrap().1);
        let text = help(words);
        let text = text.trim_end();
        write!(current, "{before}<!-- flockwork {words} -->\n\n```text\n{text}\n```\n").unwrap();
        rest = after;
        shown.push(words);
    }
    current.push_str(rest);
    // Every verb has its help on the page.
    for verb in ["lock", "sem", "event", "once", "status", "completions", "man"] {
        assert!(shown.contains(&&*format!("{verb} --help")), "{verb}");
        assert!(help("--help").contains(&format!("\n  {verb} ")), "{verb}");
    }
    for verb in ["set", "clear", "wait", "status"] {
        assert!(shown.contains(&&*format!("event {verb} --help")), "event {verb}");
    }
    if std::env::var_os("FLOCKWORK_WRITE_CLI").is_some() {
        std::fs::write(path("docs/CLI.md"), &current).unwrap();
        return;
    }
    assert!(current == page, "the help texts in docs/CLI.md are out of date: see this test");
}

/// Every exit code of the help is in the page's table.
#[test]
fn the_exit_codes_of_the_command_page_are_complete() {
    limit!();
    let page = read("docs/CLI.md");
    let help = help("--help");
    let codes = help.split_once("Exit codes:\n").unwrap().1;
    let codes = codes.lines().map_while(|line| line.split_whitespace().next());
    let codes: Vec<_> = codes.filter(|code| code.parse::<u8>().is_ok()).collect();
    assert_eq!(codes, ["0", "1", "2", "64", "65", "66", "69", "71", "73", "75", "76", "124"]);
    for code in codes {
        assert!(page.contains(&format!("\n| {code} |")), "{code}");
    }
}
