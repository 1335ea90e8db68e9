//! Directories that other users may write to: an unexpected file is planted at each name that a
//! primitive creates or reads. Nothing outside the named path is created, changed or followed, and
//! no process hangs. `fixtures` has the tools.

#[cfg(target_os = "linux")]
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::hostile::fixtures::{Case, KINDS, Kind, PLACES, Place, Plant, exercise};

/// This tests each kind of file at each name of each primitive.
#[test]
fn planted_files_never_cause_hangs_or_outside_changes() {
    limit!(2 * crate::limit::LIMIT);
    let cases = AtomicUsize::new(0);
    crate::support::running::share(8, PLACES, |place| {
        for plant in Plant::ALL {
            let Some(case) = Case::new(*place, *plant) else { continue };
            case.run();
            cases.fetch_add(1, Ordering::Relaxed);
        }
    });
    let cases = cases.into_inner();
    assert!(cases >= PLACES.len() * 9, "{cases} cases");
}

/// All steps must succeed without planted files, or the test above proves nothing.
#[test]
fn without_anything_planted_every_step_of_the_exercise_succeeds() {
    limit!();
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        for (step, outcome) in exercise(*kind, &dir.path().join("p")) {
            assert!(outcome.is_ok(), "{kind:?}, {step}: {outcome:?}");
        }
    }
}

/// The table contains every name that the exercises use, according to strace.
// Linux only: strace.
#[cfg(target_os = "linux")]
#[test]
fn every_name_that_a_primitive_touches_is_in_the_table() {
    limit!();
    use crate::support::{alone_under, has};
    const NAME: &str = "hostile::planted::every_name_that_a_primitive_touches_is_in_the_table";
    const WHERE: &str = "FLOCKWORK_IT_WHERE";
    if let Some(dir) = std::env::var_os(WHERE) {
        for kind in KINDS {
            let path = Path::new(&dir).join(format!("{kind:?}"));
            for (step, outcome) in exercise(*kind, &path) {
                assert!(outcome.is_ok(), "{kind:?}, {step}: {outcome:?}");
            }
        }
        return;
    }
    if !has("strace", &["-V"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (log, work) = (dir.path().join("log"), dir.path().join("work"));
    std::fs::create_dir(&work).unwrap();
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-s", "4096", "-e", "trace=%file", "-o"]).arg(&log);
    command.arg(std::env::current_exe().unwrap()).env(WHERE, &work);
    alone_under(command, NAME, || ());
    let log = crate::support::strace::whole_calls(&std::fs::read_to_string(&log).unwrap());
    assert_opens_are_careful(&log, &work);
    let below = format!("{}/", work.display());
    let mut seen = std::collections::BTreeSet::new();
    // Paths relative to a descriptor are resolved with these directories.
    let mut held = std::collections::BTreeMap::new();
    for line in log.lines() {
        let mut quoted = line.split('"').skip(1).step_by(2);
        if line.contains("O_PATH") {
            let number = line.rsplit(" = ").next().and_then(|number| number.parse::<u32>().ok());
            held.extend(number.zip(quoted.clone().next().map(String::from)));
        }
        for path in quoted.by_ref() {
            let within = path.strip_prefix("/proc/self/fd/").and_then(|path| path.split_once('/'));
            let path = match within.and_then(|(number, name)| Some((number.parse().ok()?, name))) {
                Some((number, name)) => held.get(&number).map(|held| format!("{held}/{name}")),
                None => Some(path.to_string()),
            };
            let name = path.as_deref().and_then(|path| path.strip_prefix(&below));
            seen.extend(name.filter(|name| !name.is_empty()).map(plain));
        }
    }
    assert!(seen.len() > 30, "{seen:?}");
    for name in &seen {
        let is_known =
            PLACES.iter().any(|place| *name == plain(&format!("{:?}{}", place.kind, place.suffix)));
        assert!(is_known || is_temporary(name), "{name} is missing in the table: {seen:?}");
    }
    // The exercises use every name of the table, except those that only other programs create.
    for place in PLACES.iter().filter(|place| !place.is_only_foreign) {
        let name = plain(&format!("{:?}{}", place.kind, place.suffix));
        assert!(seen.contains(&name), "{name} is not used: {seen:?}");
    }
}

/// No open truncates a file, and no existing file is taken for a newly created one.
/// `fs.protected_regular` and `fs.protected_fifos` concern opens that create without `O_EXCL`, so
/// they do not matter here.
#[cfg(target_os = "linux")]
fn assert_opens_are_careful(log: &str, work: &Path) {
    let below = format!("openat(AT_FDCWD, \"{}/", work.display());
    let held = "openat(AT_FDCWD, \"/proc/self/fd/";
    let opens = log.lines().filter(|line| line.contains(&below) || line.contains(held));
    let opens: Vec<_> = opens.collect();
    assert!(opens.len() > 100, "{}", opens.len());
    for open in opens {
        assert!(open.contains("O_CLOEXEC") && !open.contains("O_TRUNC"), "{open}");
        assert!(!open.contains("O_CREAT") || open.contains("O_EXCL"), "{open}");
        let is_careful = open.contains("O_NOFOLLOW") && open.contains("O_NONBLOCK");
        assert!(is_careful || open.contains("O_DIRECTORY"), "{open}");
    }
}

/// Replaces the random digits of a name.
#[cfg(target_os = "linux")]
fn plain(name: &str) -> String {
    // Each slot behaves like the first one.
    let name = ["1", "2"].iter().fold(name.to_string(), |name, slot| {
        let name = name.replace(&format!("slots/{slot}"), "slots/0");
        let name = name.replace(&format!("slot.{slot}"), "slot.0");
        name.replace(&format!("fifo.{slot}"), "fifo.0")
    });
    let name = plain_in_barrier(&name);
    match name.split_once(".flockwork.") {
        Some((before, rest)) if before.ends_with(".holders/") && rest.contains('.') => {
            format!("{before}.flockwork.#.new")
        }
        Some((before, _)) => format!("{before}.flockwork.#"),
        None => name,
    }
}

/// Each generation and each participant behaves like the first one.
#[cfg(target_os = "linux")]
fn plain_in_barrier(name: &str) -> String {
    let Some((barrier, file)) = name.split_once("Barrier/") else { return name.to_string() };
    let numbered = ["open.2.", "full.2.", "broken.2.", "arrived/", "participant.", "reset."];
    match numbered.iter().find(|prefix| file.starts_with(**prefix)) {
        Some(&"arrived/") => format!("{barrier}Barrier/arrived/0.0"),
        Some(prefix) => format!("{barrier}Barrier/{prefix}0"),
        None => format!("{barrier}Barrier/{file}"),
    }
}

/// Whether the name is that of a temporary file with a random name, created with `O_EXCL` or by a
/// rename.
#[cfg(target_os = "linux")]
fn is_temporary(name: &str) -> bool {
    name.ends_with(".flockwork.#") && !name.contains(".holders/")
}

/// A victim's file is linked at `queued` or `resized`. flockwork changes the length of those files
/// in place, so a file with another name is an error.
#[test]
fn a_hard_linked_file_never_changes_its_length() {
    limit!();
    for name in ["queued", "resized"] {
        for contents in ["", "x", "precious"] {
            let dir = tempfile::tempdir().unwrap();
            let (path, victim) = (dir.path().join("pool"), dir.path().join("victim"));
            std::fs::create_dir(&path).unwrap();
            std::fs::write(&victim, contents).unwrap();
            std::fs::hard_link(&victim, path.join(name)).unwrap();
            let error = flockwork::Semaphore::open(&path, 2).unwrap_err();
            assert_eq!(error.kind(), flockwork::ErrorKind::Corrupt, "{error}");
            assert_eq!(error.path(), path.join(name));
            assert!(error.to_string().contains("another name"), "{error}");
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), contents);
            // The link replaces a file that is in use.
            std::fs::remove_file(path.join(name)).unwrap();
            let semaphore = flockwork::Semaphore::open(&path, 2).unwrap();
            let held = semaphore.acquire_many(2).unwrap();
            std::fs::remove_file(path.join(name)).unwrap();
            std::fs::hard_link(&victim, path.join(name)).unwrap();
            let _ = semaphore.acquire_timeout(Duration::from_millis(20)).unwrap_err();
            let _ = semaphore.set_capacity(3);
            drop(held);
            drop(semaphore);
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), contents);
        }
    }
}

/// A slot number that no semaphore can have allocates no memory.
#[test]
fn a_slot_with_an_impossible_number_is_ignored() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool");
    drop(flockwork::Semaphore::open(&path, 2).unwrap());
    for name in ["slot.4294967295", "slot.99999999999999999999", "slot.4096", ".slots/4294967294"] {
        std::fs::create_dir_all(path.join(".slots")).unwrap();
        std::fs::write(path.join(name), "").unwrap();
    }
    let semaphore = flockwork::Semaphore::open(&path, 2).unwrap();
    drop(semaphore.acquire_many(2).unwrap());
    assert_eq!(semaphore.available_permits().unwrap(), 2);
    assert!(flockwork::inspect(&path).unwrap().held_slots().is_empty());
}

/// Symbolic links replace the directories of a semaphore. Records and second names are not created
/// in their targets.
#[test]
fn links_in_place_of_a_semaphores_directories_are_not_followed() {
    limit!();
    for (name, theirs) in [("/holders", "slot.0"), ("/.slots", "0")] {
        let place = Place::of(Kind::Semaphore, name);
        let case = Case::new(place, Plant::LinkToDirectory).unwrap();
        assert!(case.victims_directory().join(theirs).exists(), "the victim has such names");
        case.run();
    }
}
