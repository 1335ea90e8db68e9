//! `RwLock`: whether overlapping readers starve a writer, the cost of an uncontended acquisition,
//! and the time from a release until the acquisition returns in another process.
//!
//! The program starts itself again as the other processes. Python's `fasteners` is compared if it
//! is available: set `FLOCKWORK_BENCH_PYTHON` to its interpreter, if that is not `python3`.

#[allow(dead_code, reason = "the other benches use the rest")]
mod common;

#[path = "common/clock.rs"]
mod clock;
#[path = "common/contender.rs"]
mod contender;
#[path = "common/cycle.rs"]
mod cycle;
#[path = "common/hand_off.rs"]
mod hand_off;
#[allow(dead_code, reason = "another bench uses the rest")]
#[path = "common/peer.rs"]
mod peer;
#[path = "common/python_rwlock.rs"]
mod python_rwlock;

use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clock::now;
use common::{Extent, Target, bare, open, print_aligned, print_table};
use contender::{Contender, interleave};
use flockwork::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use futures_lite::future::block_on;
use hand_off::{Handle, Method, ROUNDS, Release, contend, measure};
use peer::{Peer, exit_after};
use python_rwlock::{FASTENERS, has_fasteners, start_fasteners};

/// A timeout that never passes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The environment variable with the role of a process. Set only for the other processes.
const ROLE: &str = "FLOCKWORK_BENCH_RWLOCK";
const LOOP: &str = "loop";
const CONTEND: &str = "contend";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match &*role {
            LOOP => run_loop(&arguments),
            CONTEND => contend(&methods(Path::new(&arguments[0]))),
            role => panic!("unknown role: {role}"),
        }
        return;
    }
    let extent = Extent::from_args();
    if extent != Extent::List {
        let dir = tempfile::tempdir().expect("create a temporary directory");
        measure_starvation(dir.path(), extent);
        measure_cycles(dir.path(), extent);
        measure_hand_off(dir.path(), extent);
    }
}

/// The file that orders the waiters of the lock at `path`.
fn gate(path: &Path) -> PathBuf {
    let mut gate = path.as_os_str().to_owned();
    gate.push(".gate");
    gate.into()
}

// ---------------------------------------------------------------- overlapping readers and a writer

const SPAN: Duration = Duration::from_secs(3);
/// The time in which all processes receive their start time.
const START_DELAY: Duration = Duration::from_millis(20);
/// How much later than the readers the writer starts.
const WRITER_DELAY: Duration = Duration::from_millis(20);
/// How long each reader holds the lock. The durations differ, so that nearly always one of them
/// holds it.
const READS: [Duration; 4] =
    [Duration::from_millis(2), Duration::from_millis(3), Duration::from_millis(5), LONGEST_READ];
const LONGEST_READ: Duration = Duration::from_millis(7);
// How long the writer holds the lock, and how long it pauses afterwards.
const WRITE_FOR: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_millis(1);

const FLOCKWORK: &str = "flockwork RwLock";
const BARE_BLOCKED: &str = "bare flock, blocked";
const FD_LOCK: &str = "fd-lock RwLock";

// The mode of a process.
const READ: &str = "read";
const WRITE: &str = "write";

/// What the other processes contend for.
enum Shared {
    Flockwork(RwLock),
    Bare(File),
    FdLock(fd_lock::RwLock<File>),
}

impl Shared {
    fn open(name: &str, path: &Path) -> Self {
        match name {
            FLOCKWORK => Self::Flockwork(RwLock::open(path).expect("open a flockwork lock")),
            BARE_BLOCKED => Self::Bare(open(path)),
            FD_LOCK => Self::FdLock(fd_lock::RwLock::new(open(path))),
            name => panic!("unknown lock: {name}"),
        }
    }

    /// Acquires the lock, calls `within` and releases the lock.
    fn read(&self, within: impl FnOnce()) {
        match self {
            Self::Flockwork(lock) => {
                let guard = lock.read().expect("read");
                within();
                guard.unlock().expect("unlock");
            }
            Self::Bare(file) => {
                bare::lock_shared(file);
                within();
                bare::unlock(file);
            }
            Self::FdLock(lock) => {
                let _guard = lock.read().expect("read");
                within();
            }
        }
    }

    fn write(&mut self, within: impl FnOnce()) {
        match self {
            Self::Flockwork(lock) => {
                let guard = lock.write().expect("write");
                within();
                guard.unlock().expect("unlock");
            }
            Self::Bare(file) => {
                bare::lock(file);
                within();
                bare::unlock(file);
            }
            Self::FdLock(lock) => {
                let _guard = lock.write().expect("write");
                within();
            }
        }
    }
}

fn measure_starvation(dir: &Path, extent: Extent) {
    let span = if extent == Extent::Full { SPAN } else { Duration::from_millis(60) };
    let mut names = vec![BARE_BLOCKED, FLOCKWORK, FD_LOCK];
    let has_fasteners = has_fasteners();
    names.extend(has_fasteners.then_some(FASTENERS));

    let header = ["", "writes", "median wait ms", "longest", "reads", "median wait ms", "longest"];
    let mut lines = vec![header.map(String::from).to_vec()];
    for name in names {
        let path = dir.join(name);
        let (reads, writes) = overlap(name, &path, span);
        let mut line = vec![name.to_owned()];
        for waits in [writes, reads] {
            line.push(waits.acquired.to_string());
            line.extend([waits.median(), waits.longest()].map(milliseconds));
        }
        lines.push(line);
    }
    let holds = READS.map(|hold| hold.as_millis().to_string()).join(", ");
    println!(
        "\nOverlapping readers ({} processes, which read for {holds} ms again and again without a pause) and \
         one\nwriter (writes for {} ms, pauses for {} ms), {} s for each lock. A wait that has not ended \
         by then counts with\nits duration so far.",
        READS.len(),
        WRITE_FOR.as_millis(),
        PAUSE.as_millis(),
        span.as_secs_f64()
    );
    print_aligned(&lines);
    if !has_fasteners {
        println!("{FASTENERS}: left out, not available");
    }
}

/// The waits of all processes with the same mode.
#[derive(Default)]
struct Waits {
    /// The number of waits that ended with an acquisition.
    acquired: usize,
    /// In ascending order.
    all: Vec<Duration>,
}

impl Waits {
    /// Reads lines of `acquired` or `waits` and nanoseconds from each process.
    fn of(peers: impl IntoIterator<Item = Peer>) -> Self {
        let mut waits = Self::default();
        for mut peer in peers {
            for line in peer.take_answers().lines() {
                let line = line.expect("read from a process");
                let (word, time) = line.split_once(' ').expect("a word and a time");
                waits.acquired += usize::from(word == "acquired");
                waits.all.push(Duration::from_nanos(time.parse().expect("a time")));
            }
            peer.stop();
        }
        waits.all.sort_unstable();
        waits
    }

    fn median(&self) -> Option<Duration> {
        self.all.get(self.all.len() / 2).copied()
    }

    fn longest(&self) -> Option<Duration> {
        self.all.last().copied()
    }
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".into(), |time| format!("{:.2}", time.as_secs_f64() * 1e3))
}

/// Runs the readers and the writer, and returns the waits of both.
fn overlap(name: &str, path: &Path, span: Duration) -> (Waits, Waits) {
    let start_one = |mode: &str, hold: Duration, pause: Duration| {
        let [hold, pause] = [hold, pause].map(|time| time.as_micros().to_string());
        let mut peer = if name == FASTENERS {
            start_fasteners(&[&path, &mode, &hold, &pause])
        } else {
            Peer::start_this_program(ROLE, LOOP, &[&path, &mode, &hold, &pause, &name])
        };
        assert_eq!(peer.receive().trim(), "ready");
        peer
    };
    let mut readers = READS.map(|hold| start_one(READ, hold, Duration::ZERO));
    let mut writer = start_one(WRITE, WRITE_FOR, PAUSE);

    let reading_from = now() + START_DELAY;
    let writing_from = reading_from + WRITER_DELAY;
    let end = writing_from + span;
    let send_times = |peer: &mut Peer, start: Duration| {
        peer.send(&format!("{} {}", start.as_nanos(), end.as_nanos()));
    };
    for reader in &mut readers {
        send_times(reader, reading_from);
    }
    send_times(&mut writer, writing_from);
    (Waits::of(readers), Waits::of([writer]))
}

/// The waits of one process, which it prints in the end.
#[derive(Default)]
struct Record {
    waits: Vec<Duration>,
    /// The start of the current wait.
    since: Option<Duration>,
}

/// The main function of a reader or writer. It may be blocked when the time is up, so another
/// thread prints the record and exits.
fn run_loop(arguments: &[String]) {
    static RECORD: Mutex<Record> = Mutex::new(Record { waits: Vec::new(), since: None });
    let record = || RECORD.lock().unwrap_or_else(PoisonError::into_inner);

    exit_after(TIMEOUT);
    let [path, mode, hold, pause, name] = arguments else {
        panic!("not five arguments: {arguments:?}")
    };
    let [hold, pause] =
        [hold, pause].map(|time| Duration::from_micros(time.parse().expect("a time")));
    let mut lock = Shared::open(name, Path::new(path));

    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("read from the parent");
    let mut times = line.split_whitespace().map(|word| word.parse().expect("a time"));
    let mut next = || Duration::from_nanos(times.next().expect("two times"));
    let (start, end) = (next(), next());

    std::thread::spawn(move || {
        std::thread::sleep(end.saturating_sub(now()));
        let record = record();
        let mut output = std::io::stdout().lock();
        for wait in &record.waits {
            writeln!(output, "acquired {}", wait.as_nanos()).expect("write to the parent");
        }
        if let Some(since) = record.since {
            writeln!(output, "waits {}", now().saturating_sub(since).as_nanos())
                .expect("write to the parent");
        }
        output.flush().expect("write to the parent");
        std::process::exit(0);
    });
    std::thread::sleep(start.saturating_sub(now()));
    loop {
        let since = now();
        record().since = Some(since);
        let within = || {
            let wait = now().saturating_sub(since);
            let mut record = record();
            record.since = None;
            record.waits.push(wait);
            drop(record);
            std::thread::sleep(hold);
        };
        if mode == READ {
            lock.read(within);
        } else {
            lock.write(within);
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}

// ------------------------------------------------------------------------------------- uncontended

const CYCLE_ROUNDS: usize = 2000;
/// The number of cycles of one contender before it is the turn of the next.
const BATCH: usize = 32;

// The minimum: for each of the two files a `flock`, a check that the path still names it, and an
// unlock.
const BARE_READ: &str = "bare, gate and shared lock";
const BARE_WRITE: &str = "bare, gate and exclusive lock";
const BARE_DOWNGRADE: &str = "bare, gate and exclusive lock, then shared";
const FD_LOCK_READ: &str = "fd-lock read";
const FD_LOCK_WRITE: &str = "fd-lock write";

const READ_TARGETS: &[Target] = &[Target { baseline: BARE_READ, at_most: 1.25 }];
const WRITE_TARGETS: &[Target] = &[Target { baseline: BARE_WRITE, at_most: 1.25 }];
const DOWNGRADE_TARGETS: &[Target] = &[Target { baseline: BARE_DOWNGRADE, at_most: 1.25 }];

fn measure_cycles(dir: &Path, extent: Extent) {
    let rounds = extent.times(CYCLE_ROUNDS);
    let batch = extent.times(BATCH);
    let how = format!("in {} ({rounds} rounds of {batch}, interleaved)", dir.display());

    let rows = interleave(reading(dir), rounds, batch);
    let title = format!("Uncontended read and release {how}");
    print_table(&title, &rows, &[BARE_READ, FD_LOCK_READ]);

    let rows = interleave(writing(dir), rounds, batch);
    let title = format!("Uncontended write and release {how}");
    print_table(&title, &rows, &[BARE_WRITE, BARE_DOWNGRADE, FD_LOCK_WRITE]);
}

/// Contenders that each acquire and release a separate lock.
fn reading(dir: &Path) -> Vec<Contender> {
    let flockwork = |name: &'static str,
                     read: fn(&RwLock) -> flockwork::Result<RwLockReadGuard>| {
        let lock = RwLock::open(dir.join(name)).expect("open a flockwork lock");
        Contender::new(name, READ_TARGETS, move || drop(read(&lock).expect("read")))
    };
    let fd_lock = fd_lock::RwLock::new(open(&dir.join(FD_LOCK_READ)));
    vec![
        Contender::new(BARE_READ, &[], bare_cycle(&dir.join(BARE_READ), bare::lock_shared)),
        flockwork("flockwork read", RwLock::read),
        flockwork("flockwork try_read", RwLock::try_read),
        flockwork("flockwork read_timeout", |lock| lock.read_timeout(TIMEOUT)),
        flockwork("flockwork read_async", |lock| block_on(lock.read_async())),
        Contender::new(FD_LOCK_READ, &[], move || drop(fd_lock.read().expect("read"))),
    ]
}

fn writing(dir: &Path) -> Vec<Contender> {
    let flockwork =
        |name: &'static str, write: fn(&RwLock) -> flockwork::Result<RwLockWriteGuard>| {
            let lock = RwLock::open(dir.join(name)).expect("open a flockwork lock");
            Contender::new(name, WRITE_TARGETS, move || drop(write(&lock).expect("write")))
        };
    let downgrade = "flockwork write, downgrade";
    let downgraded = RwLock::open(dir.join(downgrade)).expect("open a flockwork lock");
    let mut fd_lock = fd_lock::RwLock::new(open(&dir.join(FD_LOCK_WRITE)));
    vec![
        Contender::new(BARE_WRITE, &[], bare_cycle(&dir.join(BARE_WRITE), bare::lock)),
        Contender::new(
            BARE_DOWNGRADE,
            &[],
            bare_cycle_then(&dir.join(BARE_DOWNGRADE), bare::lock, bare::share),
        ),
        flockwork("flockwork write", RwLock::write),
        flockwork("flockwork try_write", RwLock::try_write),
        flockwork("flockwork write_timeout", |lock| lock.write_timeout(TIMEOUT)),
        flockwork("flockwork write_async", |lock| block_on(lock.write_async())),
        Contender::new(downgrade, DOWNGRADE_TARGETS, move || {
            let writing = downgraded.write().expect("write");
            drop(writing.downgrade().expect("downgrade"));
        }),
        Contender::new(FD_LOCK_WRITE, &[], move || drop(fd_lock.write().expect("write"))),
    ]
}

fn bare_cycle(path: &Path, lock: fn(&File)) -> impl FnMut() + 'static {
    bare_cycle_then(path, lock, |_| {})
}

fn bare_cycle_then(path: &Path, lock: fn(&File), then: fn(&File)) -> impl FnMut() + 'static {
    let gate = gate(path);
    let (gate_file, file) = (open(&gate), open(path));
    let (gate_stat, stat) = (bare::Stat::of(&gate), bare::Stat::of(path));
    move || {
        bare::lock(&gate_file);
        gate_stat.call();
        lock(&file);
        stat.call();
        bare::unlock(&gate_file);
        then(&file);
        bare::unlock(&file);
    }
}

// ---------------------------------------------------------------------------------------- hand-off

/// The minimum for a lock on a path, which must check that the path still names the locked file.
const BARE_WITH_STAT: &str = "bare flock, blocked, then stat";
const BEHIND_THE_GATE: &str = "flockwork write, gate to acquisition";

/// For waits in which the caller itself blocks in the kernel, once it has locked the gate file.
const AS_BARE: &[Target] = &[Target { baseline: BARE_BLOCKED, at_most: 1.1 }];
/// For waits in which a helper thread blocks in the kernel and notifies the caller.
const BY_HELPER: &[Target] = &[Target { baseline: BARE_BLOCKED, at_most: 3.0 }];

fn measure_hand_off(dir: &Path, extent: Extent) {
    let dir = dir.join("handoff");
    std::fs::create_dir(&dir).expect("create a directory");
    let rows = measure(&methods(&dir), (ROLE, CONTEND), &[&dir], extent);
    let title = format!(
        "A writer's release to the acquisition in another process ({} rounds, interleaved)",
        extent.times(ROUNDS)
    );
    print_table(&title, &rows, &[BARE_BLOCKED, BARE_WITH_STAT]);
}

enum Way {
    Bare(File, Option<bare::Stat>),
    Flockwork(RwLock, Wait),
    /// The gate file is held and released. So a process waits that arrives while another one waits.
    Gate(File, RwLock),
}

type Wait = fn(&RwLock) -> Release<'static>;

/// The methods in the same order in both processes.
fn methods(dir: &Path) -> Vec<Method<Way>> {
    let new = |name: &'static str, targets, open: &dyn Fn(&Path) -> Way| {
        let path = dir.join(name);
        Method { name, targets, handle: open(&path), path }
    };
    let open_lock = |path: &Path| RwLock::open(path).expect("open a flockwork lock");
    let flockwork = |name, targets, wait: Wait| {
        new(name, targets, &|path| Way::Flockwork(open_lock(path), wait))
    };
    vec![
        new(BARE_BLOCKED, &[], &|path| Way::Bare(open(path), None)),
        new(BARE_WITH_STAT, &[], &|path| Way::Bare(open(path), Some(bare::Stat::of(path)))),
        flockwork("flockwork write", AS_BARE, |lock| write_release(lock.write())),
        flockwork("flockwork write_timeout", BY_HELPER, |lock| {
            write_release(lock.write_timeout(TIMEOUT))
        }),
        flockwork("flockwork write_async", BY_HELPER, |lock| {
            write_release(block_on(lock.write_async()))
        }),
        flockwork("flockwork read", AS_BARE, |lock| read_release(lock.read())),
        flockwork("flockwork read_timeout", BY_HELPER, |lock| {
            read_release(lock.read_timeout(TIMEOUT))
        }),
        flockwork("flockwork read_async", BY_HELPER, |lock| {
            read_release(block_on(lock.read_async()))
        }),
        Method {
            path: gate(&dir.join(BEHIND_THE_GATE)),
            ..new(BEHIND_THE_GATE, BY_HELPER, &|path| Way::Gate(open(&gate(path)), open_lock(path)))
        },
    ]
}

fn read_release(guard: flockwork::Result<RwLockReadGuard>) -> Release<'static> {
    let guard = guard.expect("read");
    Box::new(|| guard.unlock().expect("unlock"))
}

fn write_release(guard: flockwork::Result<RwLockWriteGuard>) -> Release<'static> {
    let guard = guard.expect("write");
    Box::new(|| guard.unlock().expect("unlock"))
}

impl Handle for Way {
    fn hold(&self) -> Release<'_> {
        match self {
            Self::Bare(file, _) | Self::Gate(file, _) => {
                assert!(bare::try_lock(file), "the lock is free");
                Box::new(|| bare::unlock(file))
            }
            Self::Flockwork(lock, _) => write_release(lock.try_write()),
        }
    }

    fn wait(&self) -> Release<'_> {
        match self {
            Self::Bare(file, stat) => {
                bare::lock(file);
                if let Some(stat) = stat {
                    stat.call();
                }
                Box::new(|| bare::unlock(file))
            }
            Self::Flockwork(lock, wait) => wait(lock),
            Self::Gate(_, lock) => write_release(lock.write()),
        }
    }
}
