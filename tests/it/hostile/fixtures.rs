//! What is planted in a directory, where, and who then uses it; and what must not have changed afterwards.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flockwork::{Error, ErrorKind, Event, Lock, Options, Status};

use crate::support::failure::{Failure, in_full};

/// What a path can be used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lock,
    RwLock,
    Semaphore,
    Event,
    Once,
    SharedFile,
}

pub(crate) const KINDS: &[Kind] =
    &[Kind::Lock, Kind::RwLock, Kind::Semaphore, Kind::Event, Kind::Once, Kind::SharedFile];

/// What a thing that cannot be used there does to the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// Some of them fail, and say where.
    Refused,
    /// Nothing: it is in nobody's way.
    Nothing,
}

/// A name beside, or in, the path of a primitive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) suffix: &'static str,
    means: Means,
    /// What is there may be taken away.
    is_removed: bool,
    /// Only what others left there is looked at.
    #[allow(dead_code, reason = "only Linux has it listed")]
    pub(crate) is_never_ours: bool,
}

impl Place {
    const fn refused(kind: Kind, suffix: &'static str) -> Self {
        Self { kind, suffix, means: Means::Refused, is_removed: false, is_never_ours: false }
    }

    const fn nothing(kind: Kind, suffix: &'static str) -> Self {
        Self { means: Means::Nothing, ..Self::refused(kind, suffix) }
    }

    const fn removed(self) -> Self {
        Self { is_removed: true, ..self }
    }

    const fn never_ours(self) -> Self {
        Self { is_never_ours: true, ..self }
    }

    pub(crate) fn of(kind: Kind, name: &str) -> Self {
        let found = PLACES.iter().find(|place| place.kind == kind && place.suffix == name);
        *found.unwrap()
    }
}

/// Every name of `docs/PROTOCOL.md`.
pub(crate) const PLACES: &[Place] = &[
    Place::refused(Kind::Lock, ""),
    Place::nothing(Kind::Lock, ".holder"),
    Place::nothing(Kind::Lock, ".holder.new"),
    Place::nothing(Kind::Lock, ".holders"),
    Place::refused(Kind::RwLock, ""),
    Place::refused(Kind::RwLock, ".gate"),
    Place::nothing(Kind::RwLock, ".holder"),
    Place::nothing(Kind::RwLock, ".holder.new"),
    Place::nothing(Kind::RwLock, ".holders"),
    Place::nothing(Kind::RwLock, ".holders/.flockwork.0123456789abcdef"),
    Place::nothing(Kind::RwLock, ".holders/.flockwork.0123456789abcdef.new"),
    // Who only looks asks whether these are there.
    Place::nothing(Kind::RwLock, ".gate.holder").never_ours(),
    Place::nothing(Kind::RwLock, ".gate.holders").never_ours(),
    Place::refused(Kind::Semaphore, ""),
    Place::refused(Kind::Semaphore, "/capacity"),
    Place::nothing(Kind::Semaphore, "/.flockwork.b1aa3177ea81a5e9.0").never_ours(),
    Place::refused(Kind::Semaphore, "/gate"),
    Place::refused(Kind::Semaphore, "/waiters"),
    Place::refused(Kind::Semaphore, "/resize"),
    Place::refused(Kind::Semaphore, "/queued"),
    Place::refused(Kind::Semaphore, "/resized"),
    Place::nothing(Kind::Semaphore, "/poke").removed(),
    Place::refused(Kind::Semaphore, "/slot.0"),
    Place::refused(Kind::Semaphore, "/slot.1"),
    Place::nothing(Kind::Semaphore, "/slot.7").never_ours(),
    Place::nothing(Kind::Semaphore, "/.slots"),
    Place::refused(Kind::Semaphore, "/.slots/0").removed(),
    Place::nothing(Kind::Semaphore, "/.slots/0.again").removed().never_ours(),
    Place::nothing(Kind::Semaphore, "/.slots/7").never_ours(),
    Place::nothing(Kind::Semaphore, "/holders"),
    Place::nothing(Kind::Semaphore, "/holders/slot.0"),
    Place::nothing(Kind::Semaphore, "/holders/slot.0.new"),
    Place::refused(Kind::Event, ""),
    Place::refused(Kind::Event, ".flock"),
    Place::refused(Kind::Event, ".taken"),
    Place::nothing(Kind::Event, "@.flockwork.af63ed4c8602096f.0").never_ours(),
    Place::nothing(Kind::Event, "@.flockwork.af63ed4c8602096f.1").never_ours(),
    Place::nothing(Kind::Event, ".holder"),
    Place::nothing(Kind::Event, ".holders"),
    Place::refused(Kind::Once, ""),
    Place::nothing(Kind::Once, ".taken"),
    Place::nothing(Kind::Once, ".holder"),
    Place::nothing(Kind::Once, ".holders"),
    Place::refused(Kind::Once, ".flock"),
    Place::nothing(Kind::Once, ".flock.holder"),
    Place::nothing(Kind::Once, ".flock.holder.new"),
    Place::nothing(Kind::Once, ".flock.holders"),
    Place::refused(Kind::SharedFile, ""),
    Place::nothing(Kind::SharedFile, ".holder"),
    Place::nothing(Kind::SharedFile, ".holders"),
    Place::refused(Kind::SharedFile, ".flock"),
    Place::refused(Kind::SharedFile, ".flock.gate"),
    Place::refused(Kind::SharedFile, ".flock.new"),
    Place::nothing(Kind::SharedFile, ".flock.holder"),
    Place::nothing(Kind::SharedFile, ".flock.holder.new"),
    Place::nothing(Kind::SharedFile, ".flock.holders"),
    Place::nothing(Kind::SharedFile, ".flock.holders/.flockwork.0123456789abcdef"),
    Place::nothing(Kind::SharedFile, ".flock.holders/.flockwork.0123456789abcdef.new"),
];

/// What lies there.
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
    /// Of a file with no bytes in it, as lock files have none.
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

    /// Whether it could be planted: a device only by the superuser.
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
            // A path of a socket has room for a hundred bytes.
            Self::Socket => {
                let short = tempfile::Builder::new().prefix("s").tempdir().unwrap();
                drop(std::os::unix::net::UnixListener::bind(short.path().join("s")).unwrap());
                if std::fs::rename(short.path().join("s"), at).is_err() {
                    return false; // another file system
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

/// All that can be seen of a tree, but for what looking changes.
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

/// A thing at a place, in a directory of its own, beside what is somebody's.
pub(crate) struct Case {
    place: Place,
    plant: Plant,
    dir: tempfile::TempDir,
}

impl Case {
    /// `None`: it cannot be planted here.
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
        // A name of its own beside `p`; the digits come from that name (rule 14).
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
        let outcomes = within_a_minute(&what, move || {
            let outcomes = exercise(kind, &path);
            #[cfg(all(feature = "cli", target_os = "linux"))]
            command(kind, &path);
            outcomes
        });
        assert_eq!(snapshot(&victim), before, "{what}: something of the victim's changed");
        let is_there = std::fs::symlink_metadata(self.at()).is_ok();
        if !self.plant.is_regular() && !self.place.is_removed {
            let mut after = if is_there { snapshot(&self.at()) } else { BTreeMap::new() };
            if self.plant == Plant::Directory {
                after.clear(); // it may be used
            } else {
                assert_eq!(after, planted, "{what}: it was not left as it was");
            }
        }
        let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
        // A directory that is made there would be one as well.
        let fits = self.plant == Plant::Directory
            && (matches!(self.place.suffix, "/.slots" | "/holders" | ".holders")
                || self.place.suffix.is_empty() && kind == Kind::Semaphore);
        match self.place.means {
            Means::Refused if !self.plant.is_regular() && !fits => {
                assert!(!failed.is_empty(), "{what}: nothing was refused");
            }
            Means::Nothing => assert!(failed.is_empty(), "{what}: {failed:?}"),
            Means::Refused => {}
        }
        for (step, outcome) in &failed {
            let Err(error) = outcome else { continue };
            assert!(error.path().starts_with(self.dir.path()), "{what}, {step}: {error:?}");
            assert!(!error.to_string().chars().any(char::is_control), "{what}, {step}: {error}");
        }
    }
}

/// What takes longer has hung.
pub(crate) fn within_a_minute<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, wait) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        let _ = done.send(work());
    });
    match wait.recv_timeout(Duration::from_secs(60)) {
        Ok(outcome) => outcome,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what}: hangs"),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(worker.join().unwrap_err())
        }
    }
}

pub(crate) type Steps = Vec<(&'static str, Result<(), Error>)>;

/// Too short for anything to happen, but for what is there already.
const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(20);

/// Uses all that a primitive can do, in its ways of waiting, and looks at it. What is refused as busy is as it should be.
pub(crate) fn exercise(kind: Kind, path: &Path) -> Steps {
    let mut steps = Steps::new();
    let mut step = |name, outcome: Result<(), Error>| {
        let is_expected = matches!(&outcome, Err(e) if e.is_would_block() || e.is_timed_out());
        if let Err(error) = &outcome {
            assert!(!in_full(error).is_empty()); // looks who holds it
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
    }
    // Who only looks is refused what is no lock file; that is no part of the exercise.
    if let Err(error) = flockwork::inspect(path) {
        assert!(!error.to_string().is_empty());
    }
    steps
}

/// What the command says of it, in the same surroundings: a code that it knows, and at most lines without control characters.
#[cfg(all(feature = "cli", target_os = "linux"))]
fn command(kind: Kind, path: &Path) {
    use crate::cli::command::Ran;
    let verb: &[&str] = match kind {
        Kind::Lock => &["lock", "-n", "PATH", "true"],
        Kind::RwLock | Kind::SharedFile => &["lock", "-s", "-n", "PATH", "true"],
        Kind::Semaphore => &["sem", "-n", "PATH", "true"],
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

/// The value goes on, if there is one.
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
    step("try", pool.try_acquire().map(drop));
    step("timeout", pool.acquire_timeout(SHORT).map(drop));
    step("holders", pool.holders().map(drop));
    step("available", pool.available_permits().map(drop));
    crate::support::running::scope(|scope| {
        let waiter = scope.spawn(|| pool.acquire_timeout(LONG).map(drop));
        std::thread::sleep(SHORT * 4); // it may wait by then; nothing depends on it
        drop(both);
        step("waited for", waiter.join().unwrap());
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
    let span = if matches!(is_set, Ok(true)) { LONG } else { SHORT };
    step("is_set", is_set.map(drop));
    step("wait", event.wait_timeout(span));
    step("set_with", event.set_with(b"payload").map(drop));
    step("payload", event.payload().map(drop));
    step("consume", event.consume_timeout(span).map(drop));
    step("try_consume", event.try_consume().map(drop));
    step("set again", event.set_with(b"more").map(drop));
    inspect_locked(path);
    step("wait_any", Event::wait_any_timeout(std::slice::from_ref(&event), SHORT).map(drop));
    step("cleared", event.wait_cleared_timeout(SHORT));
    step("clear", event.clear().map(drop));
    step("wait in vain", event.wait_timeout(SHORT));
}

/// Looks at a file that another program has locked: only then its records are looked at.
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

/// A closure that failed is as it should be.
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

/// Swaps what is at a path without pause, until a file is there: for a symbolic link to a victim's file, to a place where none
/// may be made, for a hard link, for a file of its own, and for nothing. Tells how often.
pub(crate) fn plant_until(at: &Path, victim: &Path, until: &Path) -> String {
    crate::peer::report("plants");
    let aside = victim.with_file_name("aside");
    let mut swaps = 0_u32;
    while swaps < 1000 || !until.exists() {
        // To rename one name of a file to another of its names does nothing (rename(2)), and what is
        // left would be written to below: the victim's own file.
        let _ = std::fs::remove_file(&aside);
        let made = match swaps % 6 {
            0 => symlink(victim.join("file"), &aside),
            1 => symlink(victim.join("new"), &aside),
            2 => symlink(victim.join("directory"), &aside),
            3 => std::fs::hard_link(victim.join("file"), &aside),
            4 => std::fs::write(&aside, "1\n"), // good as a capacity
            _ => std::fs::remove_file(at),
        };
        if made.is_ok() && swaps % 6 != 5 && std::fs::rename(&aside, at).is_err() {
            let _ = std::fs::remove_dir_all(at); // a directory is there
            let _ = std::fs::remove_file(&aside);
        }
        swaps += 1;
    }
    let _ = std::fs::remove_file(at);
    swaps.to_string()
}
