//! Files with unexpected contents: endless, meaningless, or harmful to a terminal. The longest
//! paths are tested here as well.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flockwork::{ErrorKind, Event, Lock, Options, Semaphore, SharedFile};

use crate::hostile::fixtures::{KINDS, Kind, exercise};
use crate::support::failure::in_full;

/// Characters that a terminal would obey or reorder.
const EVIL: &str =
    "a\u{1b}[2J\u{1b}]0;owned\u{7}b\rc\u{8}\u{9b}31md\u{202e}e\u{2066}\u{61c}\u{200f}\u{0}\u{7f}f";

fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

/// Each file that is read has a length of one tebibyte, and the process may use less than one
/// gibibyte of memory.
// Linux only: `ulimit -v`.
#[cfg(target_os = "linux")]
#[test]
fn an_endless_file_is_read_as_needed_or_is_an_error() {
    limit!();
    const NAME: &str = "hostile::contents::an_endless_file_is_read_as_needed_or_is_an_error";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -v 1000000 && exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().unwrap());
    crate::support::alone_under(command, NAME, || {
        let dir = tempfile::tempdir().unwrap();
        let endless = |at: &Path| {
            let file = std::fs::File::create(at).unwrap();
            file.set_len(1 << 40).unwrap();
        };
        let path = dir.path().join("p");

        // These files are not read, or only their beginning.
        for suffix in ["", ".holder", ".gate"] {
            endless(&beside(&path, suffix));
        }
        for kind in [Kind::Lock, Kind::RwLock] {
            for (step, outcome) in exercise(kind, &path) {
                assert!(outcome.is_ok(), "{kind:?}, {step}: {outcome:?}");
            }
        }
        let pool = dir.path().join("pool");
        std::fs::create_dir_all(pool.join("holders")).unwrap();
        for name in ["slot.0", "slot.1", "gate", "waiters", "holders/slot.0", "resized"] {
            endless(&pool.join(name));
        }
        for (step, outcome) in exercise(Kind::Semaphore, &pool) {
            assert!(outcome.is_ok(), "{step}: {outcome:?}");
        }
        endless(&pool.join("capacity"));
        assert_eq!(Semaphore::open(&pool, 2).unwrap_err().kind(), ErrorKind::Corrupt);

        // A payload and a shared file are read as a whole, and there is not enough memory for that.
        let event = Event::open(&path).unwrap();
        assert!(event.is_set().unwrap());
        for failed in [event.payload().map(drop), event.try_consume().map(drop)] {
            assert_eq!(
                failed.unwrap_err().io_error().unwrap().kind(),
                std::io::ErrorKind::OutOfMemory
            );
        }
        event.clear().unwrap();
        assert!(!event.is_set().unwrap());
        endless(&path);
        let file = SharedFile::open(&path).unwrap();
        assert_eq!(
            file.read().unwrap_err().io_error().unwrap().kind(),
            std::io::ErrorKind::OutOfMemory
        );
        file.write("short again").unwrap();
        assert_eq!(file.read().unwrap(), b"short again");
    });
}

#[test]
fn invalid_contents_are_errors_or_left_unchanged() {
    limit!();
    let nonsense: Vec<u8> =
        (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let dir = tempfile::tempdir().unwrap();
    let (path, pool) = (dir.path().join("p"), dir.path().join("pool"));
    for suffix in ["", ".holder", ".holder.new", ".gate", ".flock", ".flock.holder"] {
        std::fs::write(beside(&path, suffix), &nonsense).unwrap();
    }
    for kind in [Kind::Lock, Kind::RwLock, Kind::Once, Kind::Event, Kind::SharedFile] {
        std::fs::write(&path, &nonsense).unwrap();
        for (step, outcome) in exercise(kind, &path) {
            assert!(outcome.is_ok(), "{kind:?}, {step}: {outcome:?}");
        }
    }
    for suffix in [".holder", ".holder.new", ".gate", ".flock", ".flock.holder"] {
        assert_eq!(std::fs::read(beside(&path, suffix)).unwrap(), nonsense, "{suffix}");
    }
    std::fs::write(&path, &nonsense).unwrap();
    assert_eq!(Event::open(&path).unwrap().payload().unwrap().unwrap(), nonsense);
    let text = SharedFile::open(&path).unwrap().read_to_string().unwrap_err();
    assert_eq!(text.io_error().unwrap().kind(), std::io::ErrorKind::InvalidData);

    std::fs::create_dir_all(pool.join("holders")).unwrap();
    for name in ["slot.0", "slot.1", "gate", "waiters", "queued", "resized", "holders/slot.0"] {
        std::fs::write(pool.join(name), &nonsense).unwrap();
    }
    for (step, outcome) in exercise(Kind::Semaphore, &pool) {
        assert!(outcome.is_ok(), "{step}: {outcome:?}");
    }
    // The file was not written by flockwork, which therefore does not truncate it.
    assert_eq!(std::fs::read(pool.join("queued")).unwrap(), nonsense);
    std::fs::write(pool.join("capacity"), &nonsense).unwrap();
    assert_eq!(Semaphore::open(&pool, 2).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// A forged record that a living process keeps locked, so that it is believed.
struct Forged {
    _record: std::fs::File,
    _lock: std::fs::File,
}

impl Forged {
    fn at(path: &Path, lines: &[u8]) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let lock = std::fs::File::create(path).unwrap();
        fs4::FileExt::lock(&lock).unwrap();
        let found = lock.metadata().unwrap();
        let mut text =
            format!("flockwork holder 1\npid 4194303\nfile {}:{}\n", found.dev(), found.ino())
                .into_bytes();
        text.extend_from_slice(lines);
        text.extend_from_slice(b"\nend\n");
        std::fs::write(beside(path, ".holder"), text).unwrap();
        let record = std::fs::File::open(beside(path, ".holder")).unwrap();
        fs4::FileExt::lock(&record).unwrap();
        Self { _record: record, _lock: lock }
    }
}

/// Lines of records that must be harmless when other programs print them.
fn forged_lines() -> Vec<Vec<u8>> {
    let mut forged_lines = Vec::new();
    for key in ["host", "label", "command"] {
        forged_lines.push(format!("{key} {EVIL}").into_bytes());
        forged_lines.push(format!("{key} {}", EVIL.repeat(100)).into_bytes());
        forged_lines.push(format!("{key} {}", "\u{202e}".repeat(2000)).into_bytes());
        forged_lines.push([key.as_bytes(), b" \xff\xfe\x1b[31m\x9b"].concat());
    }
    for since in ["253402300799.0", "253402300800.0", "9999999999999.999999999", "0.0", "-1.0", "x"]
    {
        forged_lines.push(format!("since {since}").into_bytes());
    }
    forged_lines
}

#[test]
fn control_characters_of_a_forged_record_are_escaped() {
    limit!();
    for lie in forged_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        let _forged = Forged::at(&path, &lie);
        let shown = String::from_utf8_lossy(&lie).escape_debug().to_string();
        let lock = Lock::open(&path).unwrap();
        let holder = lock.holders().unwrap().remove(0);
        assert_eq!(holder.pid(), 4_194_303, "{shown}");
        let texts = [Some(holder.host()), holder.label(), holder.command()];
        for text in texts.into_iter().flatten() {
            assert!(is_plain(text) && text.chars().count() <= 515, "{shown}: {text:?}");
        }
        let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let reported = std::sync::Arc::clone(&seen);
        let waits = Options::new().on_wait(
            Duration::from_millis(1),
            Duration::from_millis(1),
            move |waiting| {
                *reported.lock().unwrap() = waiting.to_string();
            },
        );
        let waiting = waits.open_lock(&path).unwrap();
        let wait = || waiting.lock_timeout(Duration::from_millis(50)).unwrap_err();
        let mut timed_out = wait();
        // On a busy machine the timeout may pass before this thread runs again.
        crate::support::eventually("the callback is called", || {
            let is_called = seen.lock().unwrap().contains("4194303");
            if !is_called {
                timed_out = wait();
            }
            is_called
        });
        for text in [
            holder.to_string(),
            in_full(&lock.try_lock().unwrap_err()),
            timed_out.to_string(),
            seen.lock().unwrap().clone(),
        ] {
            assert!(is_plain(&text) && text.len() < 8000, "{shown}: {text:?}");
        }
    }
}

// Linux only: the command's output, as in `cli`.
#[cfg(all(feature = "cli", target_os = "linux"))]
#[test]
fn the_command_escapes_control_characters_too() {
    limit!();
    for lie in forged_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        let _forged = Forged::at(&path, &lie);
        let shown = String::from_utf8_lossy(&lie).escape_debug().to_string();
        for words in [
            &["lock", "-n", "p", "true"][..],
            &["lock", "-w", "0.01", "p", "true"],
            &["lock", "-v", "-w", "0.01", "p", "true"],
            &["status", "p"],
            &["status", "--json", "p"],
        ] {
            let ran = crate::cli::command::run(dir.path(), words);
            let is_fine = matches!(ran.code, Some(0 | 75));
            assert!(is_fine && !ran.err.contains("panicked"), "{shown}: {words:?}: {ran:?}");
            let said = format!("{}{}", ran.out, ran.err);
            assert!(said.contains("4194303"), "{shown}: {words:?}: {ran:?}");
            assert!(said.lines().all(is_plain), "{shown}: {words:?}: {ran:?}");
        }
        let json = crate::cli::command::run(dir.path(), ["status", "--json", "p"]).out;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let holder = &json[0]["holders"][0];
        assert_eq!(holder["pid"], 4_194_303, "{shown}: {json}");
    }
}

/// A path is the caller's own, so the JSON contains exactly that path, with its control characters
/// escaped.
// Linux only: names that are not Unicode.
#[cfg(all(feature = "cli", target_os = "linux"))]
#[test]
fn a_name_round_trips_through_json() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let name = EVIL.replace('\0', "");
    std::fs::write(dir.path().join(&name), "").unwrap();
    let out = crate::cli::command::run(dir.path(), ["status", "--json", &name]).out;
    assert!(out.lines().all(is_plain) && out.lines().count() == 1, "{out:?}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json[0]["path"], name);
}

/// Each length up to the longest works, or the error says that it is too long.
#[test]
fn the_longest_names_and_paths_work_or_are_clear_errors() {
    limit!();
    const LONGEST_NAME: usize = 255;
    #[cfg(target_os = "linux")]
    const LONGEST_PATH: usize = 4095;
    #[cfg(not(target_os = "linux"))]
    const LONGEST_PATH: usize = 1023;
    let dir = tempfile::tempdir().unwrap();
    // Returns 1 if all steps succeeded.
    let at = |kind: Kind, path: &Path, fits: bool| {
        let outcomes = exercise(kind, path);
        for (step, outcome) in &outcomes {
            let Err(error) = outcome else { continue };
            let text = error.to_string();
            let is_clear = text.contains("shorter") || text.contains("too long");
            assert!(is_clear, "{kind:?}, {step}: {text}");
            let (reported, requested) = (error.path().as_os_str(), path.as_os_str());
            assert!(
                reported.as_bytes().starts_with(requested.as_bytes()),
                "{kind:?}, {step}: {text}"
            );
        }
        assert!(fits || outcomes[0].1.is_err(), "{kind:?} of {} bytes", path.as_os_str().len());
        u32::from(outcomes.iter().all(|(_, outcome)| outcome.is_ok()))
    };
    let names = (LONGEST_NAME - 20..=LONGEST_NAME + 1).map(|length| (length, LONGEST_NAME));
    let paths = (LONGEST_PATH - 40..=LONGEST_PATH + 1).map(|length| (length, LONGEST_PATH));
    let lengths: Vec<_> = names.chain(paths).collect();
    for kind in KINDS.iter().copied() {
        let worked = AtomicU32::new(0);
        // Many calls run at once, because they spend most of their time waiting.
        crate::support::running::share(12, &lengths, |(length, longest)| {
            let mut deep = dir.path().join(format!("{kind:?}-{length}"));
            let mut name = *length;
            if *longest == LONGEST_PATH {
                while deep.as_os_str().len() + 102 < *length {
                    deep.push("d".repeat(100));
                }
                name -= deep.as_os_str().len() + 1;
            }
            if std::fs::create_dir_all(&deep).is_ok() {
                let count = at(kind, &deep.join("n".repeat(name)), length <= longest);
                worked.fetch_add(count, Ordering::Relaxed);
            }
        });
        let worked = worked.into_inner();
        assert!(worked > 10, "{kind:?}: {worked}");
    }
}

#[test]
fn names_that_are_not_text_are_accepted() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let name = [b"\xff\xfe\x1b[2J\n ", format!("{kind:?}").as_bytes()].concat();
        let path = dir.path().join(OsStr::from_bytes(&name));
        if std::fs::write(&path, "").is_err() {
            return; // This file system does not allow such names.
        }
        std::fs::remove_file(&path).unwrap();
        for (step, outcome) in exercise(*kind, &path) {
            assert!(outcome.is_ok(), "{kind:?}, {step}: {outcome:?}");
        }
    }
}
