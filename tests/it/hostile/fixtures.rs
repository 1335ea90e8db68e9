//! Files planted at the names that primitives use, calls that use those names, and snapshots of
//! what must not change.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flockwork::{Error, ErrorKind, Event, Lock, Options, Status};

use crate::support::failure::{Failure, in_full};

/// The primitive that a path is used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lock,
    RwLock,
    Semaphore,
    Event,
    Once,
    SharedFile,
    Barrier,
}

pub(crate) const KINDS: &[Kind] = &[
    Kind::Lock,
    Kind::RwLock,
    Kind::Semaphore,
    Kind::Event,
    Kind::Once,
    Kind::SharedFile,
    Kind::Barrier,
];

/// The effect of an unusable file at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Some calls fail, and name the path.
    Fails,
    /// All calls succeed.
    None,
}

/// A name next to the path of a primitive, or within it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) suffix: &'static str,
    effect: Effect,
    /// Calls may remove the file.
    is_removed: bool,
    /// Calls only check for a file that other programs left there.
    #[allow(dead_code, reason = "read only on Linux")]
    pub(crate) is_only_foreign: bool,
}

impl Place {
    const fn fails(kind: Kind, suffix: &'static str) -> Self {
        Self { kind, suffix, effect: Effect::Fails, is_removed: false, is_only_foreign: false }
    }

    const fn no_effect(kind: Kind, suffix: &'static str) -> Self {
        Self { effect: Effect::None, ..Self::fails(kind, suffix) }
    }

    const fn removed(self) -> Self {
        Self { is_removed: true, ..self }
    }

    const fn only_foreign(self) -> Self {
        Self { is_only_foreign: true, ..self }
    }

    pub(crate) fn of(kind: Kind, name: &str) -> Self {
        let found = PLACES.iter().find(|place| place.kind == kind && place.suffix == name);
        *found.unwrap()
    }
}

/// Every name of `docs/PROTOCOL.md`.
pub(crate) const PLACES: &[Place] = &[
    Place::fails(Kind::Lock, ""),
    Place::no_effect(Kind::Lock, ".holder"),
    Place::no_effect(Kind::Lock, ".holder.new"),
    Place::no_effect(Kind::Lock, ".holders"),
    Place::fails(Kind::RwLock, ""),
    Place::fails(Kind::RwLock, ".gate"),
    Place::no_effect(Kind::RwLock, ".queue"),
    Place::no_effect(Kind::RwLock, ".queue/tickets"),
    Place::no_effect(Kind::RwLock, ".queue/0"),
    Place::no_effect(Kind::RwLock, ".queue/0.lock"),
    Place::no_effect(Kind::RwLock, ".queue/labels"),
    Place::no_effect(Kind::RwLock, ".holder"),
    Place::no_effect(Kind::RwLock, ".holder.new"),
    Place::no_effect(Kind::RwLock, ".holders"),
    Place::no_effect(Kind::RwLock, ".holders/.flockwork.0123456789abcdef"),
    Place::no_effect(Kind::RwLock, ".holders/.flockwork.0123456789abcdef.new"),
    // An inspection checks whether these exist.
    Place::no_effect(Kind::RwLock, ".gate.holder").only_foreign(),
    Place::no_effect(Kind::RwLock, ".gate.holders").only_foreign(),
    Place::fails(Kind::Semaphore, ""),
    Place::fails(Kind::Semaphore, "/capacity"),
    Place::no_effect(Kind::Semaphore, "/.flockwork.b1aa3177ea81a5e9.0").only_foreign(),
    // A barrier has this file.
    Place::fails(Kind::Semaphore, "/participant.0").only_foreign(),
    Place::fails(Kind::Semaphore, "/gate"),
    Place::no_effect(Kind::Semaphore, "/fifo.0"),
    Place::no_effect(Kind::Semaphore, "/changed"),
    Place::no_effect(Kind::Semaphore, "/queue"),
    Place::no_effect(Kind::Semaphore, "/queue/tickets"),
    Place::no_effect(Kind::Semaphore, "/queue/0"),
    Place::no_effect(Kind::Semaphore, "/queue/0.lock"),
    Place::no_effect(Kind::Semaphore, "/queue/labels").only_foreign(),
    Place::fails(Kind::Semaphore, "/waiters"),
    Place::fails(Kind::Semaphore, "/resize"),
    Place::fails(Kind::Semaphore, "/queued"),
    Place::fails(Kind::Semaphore, "/resized"),
    Place::no_effect(Kind::Semaphore, "/poke").removed(),
    Place::fails(Kind::Semaphore, "/slot.0"),
    Place::fails(Kind::Semaphore, "/slot.1"),
    Place::no_effect(Kind::Semaphore, "/slot.7").only_foreign(),
    Place::no_effect(Kind::Semaphore, "/.slots"),
    Place::fails(Kind::Semaphore, "/.slots/0").removed(),
    Place::no_effect(Kind::Semaphore, "/.slots/0.again").removed().only_foreign(),
    Place::no_effect(Kind::Semaphore, "/.slots/7").only_foreign(),
    Place::no_effect(Kind::Semaphore, "/holders"),
    Place::no_effect(Kind::Semaphore, "/holders/slot.0"),
    Place::no_effect(Kind::Semaphore, "/holders/slot.0.new"),
    Place::fails(Kind::Event, ""),
    Place::fails(Kind::Event, ".flock"),
    Place::fails(Kind::Event, ".taken"),
    Place::no_effect(Kind::Event, "@.flockwork.af63ed4c8602096f.0").only_foreign(),
    Place::no_effect(Kind::Event, "@.flockwork.af63ed4c8602096f.1").only_foreign(),
    Place::no_effect(Kind::Event, ".holder"),
    Place::no_effect(Kind::Event, ".holders"),
    Place::no_effect(Kind::Event, ".gate"),
    Place::no_effect(Kind::Event, ".queue"),
    Place::fails(Kind::Once, ""),
    Place::no_effect(Kind::Once, ".taken"),
    Place::no_effect(Kind::Once, ".holder"),
    Place::no_effect(Kind::Once, ".holders"),
    Place::no_effect(Kind::Once, ".gate"),
    Place::no_effect(Kind::Once, ".queue"),
    Place::fails(Kind::Once, ".flock"),
    Place::no_effect(Kind::Once, ".flock.holder"),
    Place::no_effect(Kind::Once, ".flock.holder.new"),
    Place::no_effect(Kind::Once, ".flock.holders"),
    Place::fails(Kind::SharedFile, ""),
    Place::no_effect(Kind::SharedFile, ".holder"),
    Place::no_effect(Kind::SharedFile, ".holders"),
    Place::no_effect(Kind::SharedFile, ".gate"),
    Place::no_effect(Kind::SharedFile, ".queue"),
    Place::fails(Kind::SharedFile, ".flock"),
    Place::fails(Kind::SharedFile, ".flock.gate"),
    Place::no_effect(Kind::SharedFile, ".flock.queue/tickets"),
    Place::fails(Kind::SharedFile, ".flock.new"),
    Place::no_effect(Kind::SharedFile, ".flock.holder"),
    Place::no_effect(Kind::SharedFile, ".flock.holder.new"),
    Place::no_effect(Kind::SharedFile, ".flock.holders"),
    Place::no_effect(Kind::SharedFile, ".flock.holders/.flockwork.0123456789abcdef"),
    Place::no_effect(Kind::SharedFile, ".flock.holders/.flockwork.0123456789abcdef.new"),
    Place::fails(Kind::Barrier, ""),
    // A semaphore has this file.
    Place::fails(Kind::Barrier, "/capacity").only_foreign(),
    Place::fails(Kind::Barrier, "/setup"),
    Place::fails(Kind::Barrier, "/participant.0"),
    Place::fails(Kind::Barrier, "/arrived"),
    // The names say everything: what is there is never opened, only renamed or removed.
    Place::no_effect(Kind::Barrier, "/arrived/0.0").removed(),
    Place::no_effect(Kind::Barrier, "/open.2.0").removed(),
    Place::no_effect(Kind::Barrier, "/full.2.0").removed(),
    Place::fails(Kind::Barrier, "/broken.2.0").removed(),
    Place::no_effect(Kind::Barrier, "/reset.0").removed(),
    Place::no_effect(Kind::Barrier, "/wanted").removed(),
];

/// The kind of file that is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    LinkToFile,
    DanglingLink,
    LinkToDirectory,
    LinkToDevice,
    LinkToItself,
    Fifo,
    Directory,
    Socket,
    Device,
    HardLink,
    /// A hard link to an empty file, since lock files are empty.
    HardLinkToEmpty,
}

impl Plant {
    pub(crate) const ALL: &[Self] = &[
        Self::LinkToFile,
        Self::DanglingLink,
        Self::LinkToDirectory,
        Self::LinkToDevice,
        Self::LinkToItself,
        Self::Fifo,
        Self::Directory,
        Self::Socket,
        Self::Device,
        Self::HardLink,
        Self::HardLinkToEmpty,
    ];

    /// Returns whether the file could be planted. Only the superuser can create a device.
    fn put(self, at: &Path, dir: &Path) -> bool {
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        match self {
            Self::LinkToFile => symlink(dir.join("victim/file"), at).unwrap(),
            Self::DanglingLink => symlink(dir.join("victim/new"), at).unwrap(),
            Self::LinkToDirectory => symlink(dir.join("victim/directory"), at).unwrap(),
            Self::LinkToDevice => symlink("/dev/null", at).unwrap(),
            Self::LinkToItself => symlink(at, at).unwrap(),
            Self::Fifo => mkfifo(at),
            Self::Directory => std::fs::create_dir(at).unwrap(),
            // The path of a socket has room for a hundred bytes.
            Self::Socket => {
                let short = tempfile::Builder::new().prefix("s").tempdir().unwrap();
                drop(std::os::unix::net::UnixListener::bind(short.path().join("s")).unwrap());
                if std::fs::rename(short.path().join("s"), at).is_err() {
                    return false; // It is on another file system.
                }
            }
            Self::Device => return make_null(at),
            Self::HardLink => std::fs::hard_link(dir.join("victim/file"), at).unwrap(),
            Self::HardLinkToEmpty => std::fs::hard_link(dir.join("victim/empty"), at).unwrap(),
        }
        true
    }

    fn is_regular(self) -> bool {
        matches!(self, Self::HardLink | Self::HardLinkToEmpty)
    }
}

pub(crate) fn mkfifo(at: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(at).status().unwrap().success());
}

#[cfg(target_os = "linux")]
fn make_null(at: &Path) -> bool {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    mknodat(CWD, at, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn make_null(_at: &Path) -> bool {
    false
}

/// Returns everything that is visible in a tree, except what reading changes.
pub(crate) fn snapshot(below: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut open = vec![below.to_path_buf()];
    while let Some(path) = open.pop() {
        let found = std::fs::symlink_metadata(&path).unwrap();
        let is = found.file_type();
        let more = if is.is_file() && found.len() < 1 << 20 {
            format!("{:?}", std::fs::read(&path).unwrap())
        } else if is.is_symlink() {
            format!("leads to {}", std::fs::read_link(&path).unwrap().display())
        } else {
            let (fifo, socket) = (is.is_fifo(), is.is_socket());
            format!("directory {}, fifo {fifo}, socket {socket}", is.is_dir())
        };
        if is.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let bits = found.permissions().mode();
        let (seconds, nanos) = (found.mtime(), found.mtime_nsec());
        let (owner, group) = (found.uid(), found.gid());
        let text =
            format!("{bits:o} {owner}:{group} {} bytes, {seconds}.{nanos:09}, {more}", found.len());
        seen.insert(path, text);
    }
    seen
}

/// A planted file at a place, in its own directory, which also contains a victim's files.
pub(crate) struct Case {
    place: Place,
    plant: Plant,
    dir: tempfile::TempDir,
}

impl Case {
    /// Returns `None` if the file cannot be planted here.
    pub(crate) fn new(place: Place, plant: Plant) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::create_dir_all(victim.join("directory")).unwrap();
        for (name, contents) in [
            ("file", "precious"),
            ("empty", ""),
            ("directory/slot.0", ""),
            ("directory/0", "more"),
            ("directory/7", ""),
            ("directory/capacity", "9\n"),
        ] {
            std::fs::write(victim.join(name), contents).unwrap();
            let mode = std::fs::Permissions::from_mode(0o640);
            std::fs::set_permissions(victim.join(name), mode).unwrap();
        }
        let case = Self { place, plant, dir };
        case.plant.put(&case.at(), case.dir.path()).then_some(case)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("work/p")
    }

    fn at(&self) -> PathBuf {
        // This is a separate name next to `p`; its digits are derived from that name (rule 14).
        if let Some(own) = self.place.suffix.strip_prefix('@') {
            return self.path().with_file_name(own);
        }
        let mut name = self.path().into_os_string();
        name.push(self.place.suffix);
        name.into()
    }

    pub(crate) fn victims_directory(&self) -> PathBuf {
        self.dir.path().join("victim/directory")
    }

    pub(crate) fn run(self) {
        let what = format!("{:?} at {:?}{}", self.plant, self.place.kind, self.place.suffix);
        let victim = self.dir.path().join("victim");
        let (before, planted) = (snapshot(&victim), snapshot(&self.at()));
        let (kind, path) = (self.place.kind, self.path());
        let outcomes = within_five_minutes(&what, move || {
            let outcomes = exercise(kind, &path);
            #[cfg(all(feature = "cli", target_os = "linux"))]
            command(kind, &path);
            outcomes
        });
        assert_eq!(snapshot(&victim), before, "{what}: a file of the victim changed");
        let is_there = std::fs::symlink_metadata(self.at()).is_ok();
        if !self.plant.is_regular() && !self.place.is_removed {
            let mut after = if is_there { snapshot(&self.at()) } else { BTreeMap::new() };
            let is_place_of_a_fifo =
                ["fifo.0", "changed", "queue/0"].iter().any(|it| self.place.suffix.ends_with(it));
            if self.plant == Plant::Directory || self.plant == Plant::Fifo && is_place_of_a_fifo {
                after.clear(); // It may be used.
            } else {
                assert_eq!(after, planted, "{what}: the planted file changed");
            }
        }
        let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
        // A primitive would create a directory at these names, too.
        let fits = self.plant == Plant::Directory
            && (matches!(self.place.suffix, "/.slots" | "/holders" | ".holders" | "/arrived")
                || self.place.suffix.is_empty() && matches!(kind, Kind::Semaphore | Kind::Barrier));
        match self.place.effect {
            Effect::Fails if !self.plant.is_regular() && !fits => {
                assert!(!failed.is_empty(), "{what}: no call failed");
            }
            Effect::None => assert!(failed.is_empty(), "{what}: {failed:?}"),
            Effect::Fails => {}
        }
        for (step, outcome) in &failed {
            let Err(error) = outcome else { continue };
            assert!(error.path().starts_with(self.dir.path()), "{what}, {step}: {error:?}");
            assert!(!error.to_string().chars().any(char::is_control), "{what}, {step}: {error}");
        }
    }
}

/// Runs `work`, and panics if it takes longer than five minutes.
pub(crate) fn within_five_minutes<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, wait) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        let _ = done.send(work());
    });
    match wait.recv_timeout(Duration::from_secs(300)) {
        Ok(outcome) => outcome,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what}: hangs"),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(worker.join().unwrap_err())
        }
    }
}

pub(crate) type Steps = Vec<(&'static str, Result<(), Error>)>;

/// Only calls that need not wait succeed in this time.
const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(20);

/// Calls everything that a primitive can do, in each form of wait, and inspects it. Errors because
/// it is held are expected.
pub(crate) fn exercise(kind: Kind, path: &Path) -> Steps {
    let mut steps = Steps::new();
    let mut step = |name, outcome: Result<(), Error>| {
        let is_expected = matches!(&outcome, Err(e) if e.is_would_block() || e.is_timed_out());
        if let Err(error) = &outcome {
            assert!(!in_full(error).is_empty()); // Looks up the holder.
        }
        steps.push((name, if is_expected { Ok(()) } else { outcome }));
    };
    let options = Options::new().label("hostile");
    match kind {
        Kind::Lock => lock(&options, path, &mut step),
        Kind::RwLock => rwlock(&options, path, &mut step),
        Kind::Semaphore => semaphore(&options, path, &mut step),
        Kind::Event => event(&options, path, &mut step),
        Kind::Once => once(&options, path, &mut step),
        Kind::SharedFile => shared_file(&options, path, &mut step),
        Kind::Barrier => barrier(&options, path, &mut step),
    }
    // An inspection fails for a file that is not a lock file; that is not part of the exercise.
    if let Err(error) = flockwork::inspect(path) {
        assert!(!error.to_string().is_empty());
    }
    steps
}

/// Runs the command on the same path. It must end with a known code, and print lines without
/// control characters.
#[cfg(all(feature = "cli", target_os = "linux"))]
fn command(kind: Kind, path: &Path) {
    use crate::cli::command::Ran;
    let verb: &[&str] = match kind {
        Kind::Lock => &["lock", "-n", "PATH", "true"],
        Kind::RwLock | Kind::SharedFile => &["lock", "-s", "-n", "PATH", "true"],
        // The command refuses a barrier.
        Kind::Semaphore | Kind::Barrier => &["sem", "-n", "PATH", "true"],
        Kind::Event => &["event", "wait", "--consume", "-n", "PATH"],
        Kind::Once => &["once", "-n", "PATH", "true"],
    };
    for words in [verb, &["status", "PATH"], &["status", "--json", "PATH"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flockwork"));
        for word in words {
            match *word {
                "PATH" => command.arg(path),
                word => command.arg(word),
            };
        }
        let ran = Ran::of(command.stdin(std::process::Stdio::null()));
        assert!(matches!(ran.code, Some(0 | 65 | 66 | 73 | 75)), "{words:?}: {ran:?}");
        for line in ran.err.lines().chain(ran.out.lines()) {
            assert!(!line.chars().any(char::is_control), "{words:?}: {ran:?}");
        }
        assert!(ran.code == Some(0) || ran.err.starts_with("flockwork: "), "{words:?}: {ran:?}");
    }
}

type Step<'a> = &'a mut dyn FnMut(&'static str, Result<(), Error>);

/// Reports the step, and returns the value if there is one.
fn kept<T>(step: Step<'_>, name: &'static str, outcome: Result<T, Error>) -> Option<T> {
    match outcome {
        Ok(value) => {
            step(name, Ok(()));
            Some(value)
        }
        Err(error) => {
            step(name, Err(error));
            None
        }
    }
}

fn lock(options: &Options, path: &Path, step: Step<'_>) {
    let Some(lock) = kept(step, "open", options.open_lock(path)) else { return };
    let held = kept(step, "lock", lock.lock());
    if let Some(held) = &held {
        step("still_held", held.still_held().map(drop));
    }
    step("try", lock.try_lock().map(drop));
    step("timeout", lock.lock_timeout(SHORT).map(drop));
    step("holder", lock.holders().map(drop));
    drop(held);
    step("async", futures_lite::future::block_on(lock.lock_async()).map(drop));
}

fn rwlock(options: &Options, path: &Path, step: Step<'_>) {
    let Some(lock) = kept(step, "open", options.open_rwlock(path)) else { return };
    let readers: Vec<_> =
        (0..3).filter_map(|_| kept(step, "read", lock.read_timeout(LONG))).collect();
    step("try_write", lock.try_write().map(drop));
    step("write_timeout", lock.write_timeout(SHORT).map(drop));
    step("holders", lock.holders().map(drop));
    drop(readers);
    if let Some(writer) = kept(step, "write", lock.write_timeout(LONG)) {
        step("try_read", lock.try_read().map(drop));
        step("read_timeout", lock.read_timeout(SHORT).map(drop));
        step("downgrade", writer.downgrade().map(drop));
    }
}

fn semaphore(options: &Options, path: &Path, step: Step<'_>) {
    let Some(pool) = kept(step, "open", options.open_semaphore(path, 2)) else { return };
    let both = kept(step, "acquire_many", pool.acquire_many_timeout(2, LONG));
    if let Some(both) = &both {
        step("still_held", both.still_held().map(drop));
    }
    step("try", pool.try_acquire().map(drop));
    step("timeout", pool.acquire_timeout(SHORT).map(drop));
    step("holders", pool.holders().map(drop));
    step("available", pool.available_permits().map(drop));
    crate::support::running::scope(|scope| {
        let waiter = scope.spawn(|| pool.acquire_timeout(LONG).map(drop));
        std::thread::sleep(SHORT * 4); // It probably waits by then.
        drop(both);
        step("after a wait", waiter.join().unwrap());
    });
    step("grow", pool.set_capacity(3));
    step("shrink", pool.set_capacity(2));
    step("acquire", pool.acquire_timeout(LONG).map(drop));
    step("existing", Options::new().open_existing_semaphore(path).map(drop));
}

fn event(options: &Options, path: &Path, step: Step<'_>) {
    let Some(event) = kept(step, "open", options.open_event(path)) else { return };
    step("set", event.set().map(drop));
    let is_set = event.is_set();
    let timeout = if matches!(is_set, Ok(true)) { LONG } else { SHORT };
    step("is_set", is_set.map(drop));
    step("wait", event.wait_timeout(timeout));
    step("set_with", event.set_with(b"payload").map(drop));
    step("payload", event.payload().map(drop));
    step("consume", event.consume_timeout(timeout).map(drop));
    step("try_consume", event.try_consume().map(drop));
    step("set again", event.set_with(b"more").map(drop));
    inspect_locked(path);
    step("wait_any", Event::wait_any_timeout(std::slice::from_ref(&event), SHORT).map(drop));
    step("cleared", event.wait_cleared_timeout(SHORT));
    step("clear", event.clear().map(drop));
    step("wait for a cleared event", event.wait_timeout(SHORT));
    if let Some(announcement) = kept(step, "announce", event.set_while_alive(b"alive")) {
        step("wait_payload", event.wait_payload_timeout(LONG).map(drop));
        step("withdraw", announcement.withdraw());
    }
}

/// Inspects a file that is locked, because records are read only then.
fn inspect_locked(path: &Path) {
    if let Ok(_locked) = Lock::open(path).and_then(|lock| lock.try_lock()) {
        let status = flockwork::inspect(path);
        assert!(status.as_ref().is_ok_and(Status::is_held), "{status:?}");
    }
}

fn once(options: &Options, path: &Path, step: Step<'_>) {
    let Some(once) = kept(step, "open", options.open_once(path)) else { return };
    step("fails", flat(once.call_once_timeout(LONG, || Err(Failure::Closure(())))));
    step("calls", flat(once.call_once_timeout(LONG, || Ok(()))));
    step("is_done", once.is_done().map(drop));
    step("wait", once.wait_timeout(SHORT));
    inspect_locked(path);
    step("holder", once.holders().map(drop));
    step("reset", once.reset_timeout(LONG).map(drop));
}

/// The error of the closure is expected.
fn flat<T>(outcome: Result<T, Failure<()>>) -> Result<(), Error> {
    match outcome {
        Ok(_) | Err(Failure::Closure(())) => Ok(()),
        Err(Failure::Flockwork(error)) => Err(error),
    }
}

fn shared_file(options: &Options, path: &Path, step: Step<'_>) {
    let Some(file) = kept(step, "open", options.open_shared_file(path)) else { return };
    let exclusive = || file.lock_exclusive_timeout(LONG);
    let written = exclusive().and_then(|mut writer| writer.replace("contents"));
    let is_written = written.is_ok();
    step("write", written);
    match file.read() {
        Err(error) if !is_written && error.kind() == ErrorKind::NotFound => {}
        read => step("read", read.map(drop)),
    }
    let change = |contents: &mut Vec<u8>| {
        contents.extend(b"changed");
        Ok::<_, Error>(())
    };
    step("update", exclusive().and_then(|mut writer| writer.update(change)));
    if let Some(mut writer) = kept(step, "lock_exclusive", exclusive()) {
        step("try_lock_shared", file.try_lock_shared().map(drop));
        step("replace", writer.replace("again"));
    }
    step("lock_shared", file.lock_shared_timeout(LONG).map(drop));
    step("holders", file.holders().map(drop));
    inspect_locked(path);
}

fn barrier(options: &Options, path: &Path, step: Step<'_>) {
    let Some(barrier) = kept(step, "open", options.open_barrier(path, 2)) else { return };
    step("try_wait", barrier.try_wait().map(drop));
    step("timeout", barrier.wait_timeout(SHORT).map(drop));
    step("is_broken", barrier.is_broken().map(drop));
    step("reset", barrier.reset());
    step("waiting", barrier.waiting().map(drop));
    crate::support::running::scope(|scope| {
        // Three callers: one of them takes no part or times out.
        let waiters = [(); 3].map(|()| scope.spawn(|| barrier.wait_timeout(SHORT * 4).map(drop)));
        for waiter in waiters {
            step("wait", unless_broken(waiter.join().unwrap()));
        }
    });
    step("abort", barrier.abort());
    step("reset again", barrier.reset());
    crate::support::running::scope(|scope| {
        let waiters = [(); 2].map(|()| {
            scope.spawn(|| {
                let passed = barrier.wait_with(|| Ok::<(), Error>(())).map(drop);
                if passed.is_err() {
                    let _ = barrier.abort(); // The other one must not wait forever.
                }
                passed
            })
        });
        for waiter in waiters {
            step("wait_with", waiter.join().unwrap());
        }
    });
    step("reset at the end", barrier.reset());
}

/// A participant learns that another one has timed out.
fn unless_broken(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::Broken => Ok(()),
        outcome => outcome,
    }
}

/// Swaps the file at a path without pause until the file `until` exists: a symbolic link to a
/// victim's file, a link to a place where no file may be created, a hard link, a new file,
/// and nothing. Returns the number of swaps.
pub(crate) fn plant_until(at: &Path, victim: &Path, until: &Path) -> String {
    crate::peer::report("plants");
    let aside = victim.with_file_name("aside");
    let mut swaps = 0_u32;
    while swaps < 1000 || !until.exists() {
        // Renaming one name of a file to another of its names does nothing (rename(2)). The write
        // below would then change the victim's own file.
        let _ = std::fs::remove_file(&aside);
        let made = match swaps % 6 {
            0 => symlink(victim.join("file"), &aside),
            1 => symlink(victim.join("new"), &aside),
            2 => symlink(victim.join("directory"), &aside),
            3 => std::fs::hard_link(victim.join("file"), &aside),
            4 => std::fs::write(&aside, "1\n"), // A valid capacity.
            _ => std::fs::remove_file(at),
        };
        if made.is_ok() && swaps % 6 != 5 && std::fs::rename(&aside, at).is_err() {
            let _ = std::fs::remove_dir_all(at); // It is a directory.
            let _ = std::fs::remove_file(&aside);
        }
        swaps += 1;
    }
    let _ = std::fs::remove_file(at);
    swaps.to_string()
}
