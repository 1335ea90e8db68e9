//! What no compiler holds: the layers of `docs/INTERNALS.md`, the shape of the files, the texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
                found.push(path);
            }
        }
    }
    found
}

/// Where Rust files are. The published package has no `benches`, which are a package of their own.
fn rust_directories() -> Vec<&'static str> {
    let is_published = root().join("Cargo.toml.orig").exists();
    ["src", "tests", "examples"].into_iter().chain((!is_published).then_some("benches")).collect()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().replace("\r\n", "\n")
}

/// Which modules of the crate each file may name, from the bottom up: those below it, and none beside or
/// above it. The files of `src/file` are modules of their own here, since some are built on others.
const LAYERS: &[(&str, &[&str])] = &[
    ("sync.rs", &[]),
    ("sys/mod.rs", &[]),
    ("sys/flock.rs", &[]),
    ("sys/atomic_write.rs", &[]),
    ("sys/random.rs", &[]),
    ("sys/explained.rs", &[]),
    ("sys/unix/mod.rs", &[]),
    ("sys/unix/directories.rs", &[]),
    ("sys/unix/attributes.rs", &[]),
    ("sys/unix/processes.rs", &[]),
    ("sys/unix/linux_proc.rs", &[]),
    ("sys/no_proc.rs", &[]),
    ("sys/unix/file_system.rs", &[]),
    ("sys/windows/mod.rs", &[]),
    ("sys/windows/names.rs", &[]),
    ("sys/unsupported.rs", &[]),
    ("fork_safe.rs", &["sync", "sys"]),
    ("access.rs", &["sys"]),
    ("printable.rs", &[]),
    ("process.rs", &["fork_safe", "printable", "sys"]),
    ("holder.rs", &["printable", "process", "sys"]),
    ("record/mod.rs", &["access", "holder", "sys"]),
    ("record/find.rs", &["holder", "sys"]),
    ("record/format.rs", &["holder", "printable", "process", "sys"]),
    ("record/location.rs", &["holder", "sys"]),
    ("record/sharers.rs", &["holder", "sys"]),
    ("record/slot_files.rs", &["sys"]),
    ("options.rs", &["access", "holder", "record"]),
    ("error/mod.rs", &["holder", "sys"]),
    ("error/contention.rs", &["holder", "record"]),
    ("error/hint.rs", &["sys"]),
    ("error/operation.rs", &[]),
    ("holders.rs", &["error", "holder", "record"]),
    ("paths.rs", &["access", "error", "sys"]),
    ("file/mod.rs", &[]),
    ("file/durability.rs", &[]),
    ("file/regular.rs", &["error", "sys"]),
    ("file/open.rs", &["access", "error", "paths", "sys"]),
    ("file/lock_file.rs", &["access", "error", "file::open", "fork_safe", "paths", "sys"]),
    ("file/guard.rs", &["error", "file::lock_file", "options", "record", "sys"]),
    ("file/data_file.rs", &["error", "options", "paths", "sys"]),
    ("file/marker/mod.rs", &["access", "error", "file::lock_file", "paths", "sys"]),
    ("file/marker/change.rs", &["error", "paths", "sys"]),
    ("file/marker/consume.rs", &["error", "sys"]),
    ("wait/mod.rs", &[]),
    ("wait/deadline.rs", &[]),
    ("wait/check_sampler.rs", &["sys"]),
    ("wait/backoff.rs", &["sys"]),
    ("wait/timer.rs", &["fork_safe", "sys"]),
    ("wait/target.rs", &["error"]),
    ("wait/waiter.rs", &["error"]),
    ("wait/callback.rs", &["error"]),
    ("wait/thread.rs", &["error"]),
    ("wait/future.rs", &["error"]),
    ("wait/queue.rs", &["error", "fork_safe", "sync", "sys"]),
    ("wait/queued_waiter.rs", &["error"]),
    ("wait/take_over.rs", &["error"]),
    ("wait/turnstile.rs", &["error"]),
    ("wait/watch/mod.rs", &[]),
    ("wait/watch/registry.rs", &["fork_safe", "sys"]),
    ("wait/watch/watcher.rs", &["sys"]),
    ("wait/watch/listener.rs", &["sys", "wait"]),
    ("wait/event_loop.rs", &["error", "sys"]),
    ("wait/condition.rs", &["error"]),
    ("wait/memory.rs", &["error", "sync"]),
    ("wait/tests.rs", &["error"]),
    ("wait/schedules.rs", &["sync"]),
    ("lock_request.rs", &["error", "file::lock_file", "options", "sys", "wait"]),
    ("lock.rs", PRIMITIVE),
    ("rwlock/mod.rs", PRIMITIVE),
    ("rwlock/gate.rs", &["error", "file::lock_file", "lock_request", "sys", "wait"]),
    ("rwlock/guards.rs", &["error", "file::guard"]),
    ("semaphore/mod.rs", PRIMITIVE),
    ("semaphore/permit.rs", &["access", "error", "options", "record"]),
    ("semaphore/acquire.rs", &["error", "file::lock_file", "lock_request", "sys", "wait"]),
    ("semaphore/capacity.rs", &["access", "error", "file::lock_file", "sys"]),
    ("semaphore/notifications.rs", &["fork_safe", "sys"]),
    ("semaphore/shared_flags.rs", &["access", "error", "file::open", "sys"]),
    ("semaphore/waiters.rs", &["fork_safe", "file::lock_file", "sys"]),
    ("semaphore/table.rs", &["access", "error", "file::lock_file", "record", "sys"]),
    ("semaphore/batch.rs", &["error", "file::lock_file"]),
    (
        "semaphore/slots.rs",
        &["access", "error", "file::lock_file", "fork_safe", "paths", "record", "sys"],
    ),
    ("event/mod.rs", &["error", "file::marker", "options", "wait"]),
    ("event/wait.rs", &["error", "file::marker", "options", "wait"]),
    (
        "shared_file/mod.rs",
        &["error", "file::data_file", "holder", "holders", "options", "paths", "rwlock", "sys"],
    ),
    ("shared_file/guards.rs", &["error", "file::data_file", "rwlock"]),
    (
        "once.rs",
        &[
            "error",
            "event",
            "file::durability",
            "holder",
            "holders",
            "lock",
            "options",
            "paths",
            "sys",
            "wait",
        ],
    ),
    (
        "inspect.rs",
        &[
            "error",
            "file::open",
            "fork_safe",
            "holder",
            "holders",
            "paths",
            "record",
            "semaphore",
            "sys",
        ],
    ),
    ("lib.rs", &[]),
];

/// What the primitives that lock a file are made of.
const PRIMITIVE: &[&str] = &[
    "access",
    "error",
    "file::guard",
    "file::lock_file",
    "holder",
    "holders",
    "lock_request",
    "options",
    "sys",
    "wait",
];

/// The command line's files name each other by need; of the library they see what every user does.
const COMMAND: &str = "bin/";

/// What only some files may name at all.
const RESERVED: &[(&str, &[&str])] = &[
    ("fs4", &["sys/flock.rs"]),
    (
        "rustix",
        &[
            "sys/unix/mod.rs",
            "sys/unix/directories.rs",
            "sys/unix/attributes.rs",
            "sys/unix/processes.rs",
            "sys/unix/file_system.rs",
            "sys/unix/linux_proc.rs",
        ],
    ),
    ("forkguard", &["sys/unix/processes.rs"]),
    // A fork while another thread fills one leaves the copy to wait for ever (rule 4). A guard's copy does not fill one.
    ("OnceLock", &["file/guard.rs"]),
    ("LazyLock", &[]),
    (
        "tempfile",
        &["sys/unix/mod.rs", "sys/windows/mod.rs", "sys/unsupported.rs", "sys/atomic_write.rs"],
    ),
    (
        "std::os",
        &[
            "sys/unix/mod.rs",
            "sys/unix/directories.rs",
            "sys/unix/attributes.rs",
            "sys/unix/linux_proc.rs",
            "sys/windows/mod.rs",
        ],
    ),
    (
        "cfg(",
        &[
            "lib.rs",
            // The feature `testing`.
            "options.rs",
            "sync.rs",
            "sys/mod.rs",
            "sys/unix/mod.rs",
            "sys/unix/directories.rs",
            "sys/unix/attributes.rs",
            "sys/unix/processes.rs",
            "sys/unix/file_system.rs",
        ],
    ),
    ("fastrand", &["sys/random.rs", "wait/backoff.rs"]),
    ("notify::", &["wait/watch/watcher.rs"]),
    ("shuttle::", &["sync.rs", "wait/schedules.rs"]),
];

/// A source file without its comments and its own tests, which may name what they like.
fn code(path: &Path) -> String {
    // The limit comes first, for its macro.
    let text = text(path).replace("#[cfg(test)]\n#[macro_use]\n", "");
    let code = text.split("#[cfg(test)]").next().unwrap().split("#[cfg(all(test").next().unwrap();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.map(|line| line.split(" // ").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn source_files() -> Vec<(String, PathBuf)> {
    let below = root().join("src");
    files_below("src", &["rs"])
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&below).unwrap().to_str().unwrap().replace('\\', "/");
            (name, path)
        })
        .collect()
}

#[test]
fn each_file_names_only_what_lies_below_it() {
    limit!();
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    for (name, path) in source_files().into_iter().filter(|(name, _)| !name.starts_with(COMMAND)) {
        let allowed = layers.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no layer"));
        for rest in code(&path).split("crate::").skip(1) {
            let mut module: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if module == "file" {
                let rest = rest.strip_prefix("file::").expect("one of its files");
                module.push_str("::");
                module.extend(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_'));
            }
            assert!(
                allowed.contains(&module.as_str()),
                "src/{name} names crate::{module}, which its layer may not"
            );
        }
    }
    let names: Vec<_> = source_files().into_iter().map(|(name, _)| name).collect();
    for (name, _) in LAYERS {
        assert!(names.iter().any(|other| other == name), "src/{name} is gone");
    }
}

/// The module of a file: its directory, or for `src/file` the file within it.
fn module_of(name: &str) -> String {
    let mut parts = name.trim_end_matches(".rs").split('/');
    match (parts.next(), parts.next()) {
        (Some("file"), Some(part)) if part != "mod" => format!("file::{part}"),
        (first, _) => first.unwrap_or_default().to_string(),
    }
}

/// The modules of a circle among the layers, if there is one: each may name the next.
fn circle(layers: &[(&str, &[&str])]) -> Option<Vec<String>> {
    let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, allowed) in layers {
        let module = module_of(name);
        let others = allowed.iter().map(ToString::to_string).filter(|other| *other != module);
        below.entry(module.clone()).or_default().extend(others);
    }
    // Modules that name no other are removed until none is left, or only those above a circle are.
    while let Some(lowest) = below.iter().find(|(_, below)| below.is_empty()) {
        let lowest = lowest.0.clone();
        below.remove(&lowest);
        for below in below.values_mut() {
            below.remove(&lowest);
        }
    }
    let mut path = vec![below.keys().next()?.clone()];
    loop {
        let next =
            below[path.last()?].first().expect("a name of no file is caught elsewhere").clone();
        let start = path.iter().position(|module| *module == next);
        path.push(next);
        if let Some(start) = start {
            return Some(path.split_off(start));
        }
    }
}

#[test]
fn layers_have_no_circle() {
    limit!();
    let modules: BTreeSet<_> = LAYERS.iter().map(|(name, _)| module_of(name)).collect();
    for (name, allowed) in LAYERS {
        for module in *allowed {
            assert!(
                modules.contains(*module),
                "src/{name} may name crate::{module}, which is gone"
            );
        }
    }
    assert_eq!(circle(LAYERS), None);
    let round: &[(&str, &[&str])] = &[
        ("a.rs", &["b"]),
        ("b/mod.rs", &[]),
        ("b/c.rs", &["b", "file::d"]),
        ("file/d.rs", &["b"]),
    ];
    assert_eq!(circle(round), Some(["b", "file::d", "b"].map(String::from).into()));
}

#[test]
fn reserved_names_appear_only_in_their_files() {
    limit!();
    for (name, path) in source_files().into_iter().filter(|(name, _)| !name.starts_with(COMMAND)) {
        let code = code(&path);
        for (word, files) in RESERVED {
            if !files.contains(&name.as_str()) {
                let line = code.lines().find(|line| {
                    line.contains(word) && !line.contains("crate::") && !line.contains("cfg_attr(")
                });
                assert_eq!(line, None, "src/{name} names {word}");
            }
        }
    }
}

#[test]
fn each_source_file_says_in_its_first_line_what_lives_there() {
    limit!();
    for directory in rust_directories() {
        for path in files_below(directory, &["rs"]) {
            assert!(text(&path).starts_with("//! "), "{}", path.display());
        }
    }
}

/// What does not run everywhere says why, on one line above its `cfg`.
#[test]
fn each_test_that_is_left_out_somewhere_says_why() {
    limit!();
    let mut seen = 0;
    for path in files_below("tests/it", &["rs"]) {
        let text = text(&path);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            let is_of_a_platform =
                ["unix", "windows", "target_"].iter().any(|word| line.contains(word));
            if !line.starts_with("#[cfg(") || !is_of_a_platform {
                continue;
            }
            let rest = &lines[number + 1..];
            let attributes = rest.iter().take_while(|line| line.starts_with("#[")).count();
            if !rest[attributes].starts_with("mod ") && !rest[..attributes].contains(&"#[test]") {
                continue;
            }
            seen += 1;
            let reason = number.checked_sub(1).map_or("", |above| lines[above]);
            let says = ["// Unix only: ", "// Linux only: ", "// Windows only: "]
                .iter()
                .any(|start| reason.strip_prefix(start).is_some_and(|why| why.ends_with('.')));
            let at = format!("{}:{}", path.display(), number + 1);
            assert!(says, "{at}: why not elsewhere? `// Unix only: Windows has no fork.`");
        }
    }
    assert!(seen > 50, "{seen}: this looks past them");
}

/// A test that hangs is then reported and ended (`tests/it/limit.rs`).
#[test]
fn each_test_begins_with_its_time_limit() {
    limit!();
    let mut seen = 0;
    for directory in ["src", "tests/it"] {
        for path in files_below(directory, &["rs"]) {
            let text = text(&path);
            // Text in quotes, as here, has more of them before it.
            for (at, _) in text.match_indices("#[test]\n") {
                let rest = &text[at..];
                let body = rest.split_once(" {\n").unwrap().1.trim_start();
                let number = text[..at].lines().count() + 1;
                let at = format!("{}:{number}", path.display());
                assert!(body.starts_with("limit!("), "{at}: begin the test with `limit!();`");
                seen += 1;
            }
        }
    }
    assert!(seen > 450, "{seen}: this looks past them");
}

/// The names of the tests in a file.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let below = text.split("#[test]\n").skip(1);
    below.filter_map(|rest| rest.split_once("fn ")?.1.split('(').next())
}

#[test]
fn test_names_have_at_most_60_characters() {
    limit!();
    let mut seen = 0;
    for path in files_below("tests/it", &["rs"]) {
        for name in test_names(&text(&path)) {
            assert!(name.len() <= 60, "{}: {name} has {}", path.display(), name.len());
            seen += 1;
        }
    }
    assert!(seen > 450, "{seen}: this looks past them");
}

/// What processes of the tests say to each other is typed (`sendable!` of `tests/it/peer/line.rs`).
#[test]
fn only_one_file_writes_lines_with_tabs() {
    limit!();
    let mut seen = 0;
    for path in files_below("tests/it", &["rs"]) {
        if path.ends_with("tidy.rs") {
            continue; // it has what this looks for
        }
        // Files in `/proc` have a tab behind a colon.
        let text = text(&path).replace(":\\t", ":");
        let line = text.lines().position(|line| line.contains("\\t"));
        if path.ends_with("peer/line.rs") {
            seen += usize::from(line.is_some());
        } else {
            let line = line.map(|line| line + 1);
            assert_eq!(line, None, "{}: use `sendable!`", path.display());
        }
    }
    assert_eq!(seen, 1, "this looks past it");
}

/// A test that panics would otherwise wait for ever, or leave a process behind
/// (`tests/it/support/running.rs`).
#[test]
fn tests_start_processes_and_scopes_that_end_when_they_panic() {
    limit!();
    // It kills its child and its tracer itself.
    let exempt = ["running.rs", "attempt.rs", "tidy.rs"];
    for path in files_below("tests/it", &["rs"]) {
        if exempt.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        for (number, line) in text(&path).lines().enumerate() {
            let at = format!("{}:{}", path.display(), number + 1);
            assert!(!line.contains("thread::scope("), "{at}: use `crate::support::running::scope`");
            assert!(
                !line.contains(".spawn()"),
                "{at}: use `start` of `crate::support::running::Start`"
            );
        }
    }
}

#[test]
fn source_files_have_at_most_500_lines_of_code() {
    limit!();
    for (name, path) in source_files() {
        let lines = code(&path).lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 500, "src/{name} has {lines} lines of code: what is it really made of?");
    }
}

#[test]
fn no_text_names_this_machine_or_leaves_white_space_behind() {
    limit!();
    let mut files = Vec::new();
    for directory in rust_directories().into_iter().chain(["docs"]) {
        files.extend(files_below(directory, &["rs", "md", "toml"]));
    }
    files.extend(["README.md", "CHANGELOG.md", "Cargo.toml"].map(|name| root().join(name)));
    for path in files {
        let text = text(&path);
        for (number, line) in text.lines().enumerate() {
            let at = format!("{}:{}", path.display(), number + 1);
            assert!(!line.ends_with([' ', '\t']), "{at} ends in white space");
            for machine in
                [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("artifac", "tory")]
            {
                assert!(!line.contains(machine), "{at} names {machine}");
            }
        }
    }
}

#[test]
fn the_changelog_lists_this_version_or_is_unreleased() {
    limit!();
    let changelog = text(&root().join("CHANGELOG.md"));
    let released = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(changelog.contains("## [Unreleased]") || changelog.contains(&released));
    assert!(changelog.matches(&released).count() <= 1);
}

/// Every rule that a comment cites exists once in the two documents that number them.
#[test]
fn cited_rules_are_in_the_protocol_or_the_internals() {
    limit!();
    let [protocol, internals] =
        ["PROTOCOL", "INTERNALS"].map(|name| text(&root().join(format!("docs/{name}.md"))));
    let rules = protocol + &internals;
    for (name, path) in source_files() {
        let text = text(&path);
        for cited in text.split(|c: char| !(c.is_alphanumeric())).filter(|word| {
            word.len() >= 2
                && matches!(word.as_bytes()[0], b'E' | b'F' | b'O' | b'Q' | b'R' | b'S' | b'W')
                && word[1..].bytes().all(|b| b.is_ascii_digit())
        }) {
            let heading = format!("**{cited}.**");
            assert_eq!(rules.matches(&heading).count(), 1, "src/{name} cites rule {cited}");
        }
        for (_, rest) in text.match_indices("ule ").map(|(at, _)| (at, &text[at + 4..])) {
            let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if !number.is_empty() {
                let heading = format!("**{number}.**");
                assert_eq!(rules.matches(&heading).count(), 1, "src/{name} cites rule {number}");
            }
        }
    }
}
