//! The README's section on the command: what it shows runs, and its help is the command's own.

use std::fmt::Write as _;
use std::process::Command;

use crate::cli::command::{Ran, flockwork};

fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    std::fs::read_to_string(path).unwrap()
}

/// Runs all blocks of shell in a text, one after the other, in `dir`.
fn run_scripts(text: &str, dir: &std::path::Path) -> Ran {
    let scripts = text.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let script = scripts.fold("set -e\n".to_string(), |script, next| script + next + "\n");
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_flockwork")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut sh = Command::new("sh");
    sh.args(["-c", &script]).current_dir(dir).env("XDG_RUNTIME_DIR", dir);
    sh.env("PATH", format!("{}:{}:{path}", dir.display(), bin.display()));
    Ran::of(&mut sh)
}

#[test]
fn its_scripts_run() {
    limit!();
    let readme = readme();
    assert!(readme.contains("flockwork sem") && readme.contains("./flock -n"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("config"), "port 8080\n").unwrap();
    for source in ["a.c", "b.c", "c.c"] {
        std::fs::write(dir.path().join(source), "").unwrap();
    }
    // A compiler for those who have none.
    let cc = dir.path().join("cc");
    crate::support::write_script(
        &cc,
        "#!/bin/sh\ntest \"$1\" = -c && test -e \"$2\" && : > \"${2%.c}.o\"\n",
    );
    let ran = run_scripts(&readme, dir.path());
    assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{ran:?}");
    assert!(ran.out.contains("alone\n") && ran.out.contains("held by descriptor 9\n"), "{ran:?}");
    for made in ["backup.tar", "a.o", "b.o", "c.o", "unpacked", "tool/bin", "gpu.log"] {
        assert!(dir.path().join(made).exists(), "{made}");
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("config")).unwrap(), "port 8081\n");
}

#[test]
fn the_scripts_of_the_recipes_run() {
    limit!();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/RECIPES.md");
    let recipes = std::fs::read_to_string(path).unwrap();
    assert_eq!(recipes.matches("```sh\n").count(), 5);
    let dir = tempfile::tempdir().unwrap();
    let ran = run_scripts(&recipes, dir.path());
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), "", ""), "{ran:?}");
}

/// To bring the README up to date: `FLOCKWORK_WRITE_README=1 cargo test --features cli --test it cli::readme`.
#[test]
fn its_help_is_the_commands_own() {
    limit!();
    let readme = readme();
    let mut wanted = String::new();
    let mut rest = &*readme;
    let dir = tempfile::tempdir().unwrap();
    let mut shown = 0;
    while let Some((before, after)) = rest.split_once("<!-- flockwork ") {
        let (words, after) = after.split_once(" -->\n").unwrap();
        let after = after
            .strip_prefix("\n```text\n")
            .map_or(after, |block| block.split_once("\n```\n").unwrap().1);
        let mut help = flockwork(dir.path());
        let help = Ran::of(help.args(words.split(' ')).env_remove("COLUMNS").env("TERM", "dumb"));
        assert_eq!(help.code, Some(0), "{words}");
        let text = help.out.trim_end();
        write!(wanted, "{before}<!-- flockwork {words} -->\n\n```text\n{text}\n```\n").unwrap();
        rest = after;
        shown += 1;
    }
    wanted.push_str(rest);
    assert_eq!(shown, 5);
    if std::env::var_os("FLOCKWORK_WRITE_README").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        std::fs::write(path, &wanted).unwrap();
        return;
    }
    assert!(wanted == readme, "the README's help is not the command's: see this test");
}
