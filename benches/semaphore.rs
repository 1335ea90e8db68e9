//! `Semaphore`: the cost of an uncontended acquisition, the speed and the fairness with which
//! permits go from process to process under contention, and the number of wake-ups for each
//! release.
//!
//! The program starts itself again as the other processes. The contenders take turns, so that other
//! work on the machine affects all of them alike.

#[allow(dead_code, reason = "the other benches use the rest")]
mod common;

#[path = "common/clock.rs"]
mod clock;
#[path = "common/cycle.rs"]
mod cycle;
#[path = "common/peer.rs"]
mod peer;

use std::fs::File;
use std::io::{BufRead as _, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use clock::now;
use common::{Extent, Row, Target, bare, open, print_aligned, print_table};
use cycle::{cost_of_the_clock, time_cycles};
use flockwork::{Options, Permit, Semaphore};
use futures_lite::future::block_on;
use peer::{Peer, exit_after};

/// A timeout that never passes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The environment variable with the role of a process. Set only for the other processes.
const ROLE: &str = "FLOCKWORK_BENCH_SEMAPHORE";
const LOOP: &str = "loop";
const WAIT: &str = "wait";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        exit_after(TIMEOUT);
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let (path, permits) = (Path::new(&arguments[0]), arguments[1].parse().expect("permits"));
        match &*role {
            LOOP => {
                let hold = Duration::from_micros(arguments[2].parse().expect("a time"));
                run_loop(&Pool::open(path, permits, &Options::new()), hold);
            }
            WAIT => wait_in_crowd(&Pool::open(path, permits, &without_checks())),
            role => panic!("unknown role: {role}"),
        }
        return;
    }
    let extent = Extent::from_args();
    if extent != Extent::List {
        let dir = tempfile::tempdir().expect("create a temporary directory");
        measure_cycles(dir.path(), extent);
        measure_batches(dir.path(), extent);
        measure_commands(dir.path(), extent);
        measure_hand_off(dir.path(), extent);
        measure_fairness(dir.path(), extent);
        measure_wake_ups(dir.path(), extent);
    }
}

/// What the other processes contend for.
enum Pool {
    /// A lock file that is locked with bare system calls.
    Bare(File),
    Flockwork(Semaphore),
}

#[expect(clippy::large_enum_variant, reason = "only a few values exist")]
enum Held<'a> {
    Bare(&'a File),
    Flockwork(Permit),
}

/// Stands for a bare lock in place of a number of permits.
const BARE_LOCK: u32 = 0;

impl Pool {
    fn open(path: &Path, permits: u32, options: &Options) -> Self {
        if permits == BARE_LOCK {
            return Self::Bare(open(path));
        }
        Self::Flockwork(options.open_semaphore(path, permits).expect("open a semaphore"))
    }

    fn acquire(&self) -> Held<'_> {
        match self {
            Self::Bare(file) => {
                bare::lock(file);
                Held::Bare(file)
            }
            Self::Flockwork(semaphore) => Held::Flockwork(semaphore.acquire().expect("acquire")),
        }
    }
}

impl Held<'_> {
    fn slot(&self) -> u32 {
        match self {
            Self::Bare(_) => 0,
            Self::Flockwork(permit) => permit.slots()[0],
        }
    }

    fn release(self) {
        match self {
            Self::Bare(file) => bare::unlock(file),
            Self::Flockwork(permit) => permit.release().expect("release"),
        }
    }
}

// ------------------------------------------------------------------------------------- uncontended

const CYCLE_ROUNDS: usize = 1000;
/// The number of cycles of one contender before it is the turn of the next.
const BATCH: usize = 32;
const CYCLE_PERMITS: u32 = 4;

/// The closest thing to a semaphore: one lock file that is opened for each use.
const BARE_PER_USE: &str = "bare open+flock+close";
const CYCLE_TARGETS: &[Target] = &[Target { baseline: BARE_PER_USE, at_most: 1.0 }];

/// One of the ways to acquire and release that are compared.
struct Contender {
    name: &'static str,
    targets: &'static [Target],
    /// Measures this number of cycles.
    run: Box<dyn FnMut(usize) -> Vec<Duration>>,
}

impl Contender {
    fn new(
        name: &'static str,
        targets: &'static [Target],
        mut cycle: impl FnMut() + 'static,
    ) -> Self {
        let clock = cost_of_the_clock();
        Self { name, targets, run: Box::new(move |count| time_cycles(&mut cycle, count, clock)) }
    }
}

fn measure_cycles(dir: &Path, extent: Extent) {
    let slot = dir.join("bare");
    let flockwork = |name: &'static str, acquire: fn(&Semaphore) -> flockwork::Result<Permit>| {
        let semaphore = Semaphore::open(dir.join(name), CYCLE_PERMITS).expect("open a semaphore");
        Contender::new(name, CYCLE_TARGETS, move || drop(acquire(&semaphore).expect("acquire")))
    };
    let mut contenders = vec![
        Contender::new(BARE_PER_USE, &[], move || {
            let file = open(&slot);
            bare::lock(&file);
            drop(file);
        }),
        flockwork("flockwork acquire", Semaphore::acquire),
        flockwork("flockwork try_acquire", Semaphore::try_acquire),
        flockwork("flockwork acquire_timeout", |semaphore| semaphore.acquire_timeout(TIMEOUT)),
        flockwork("flockwork acquire_async", |semaphore| block_on(semaphore.acquire_async())),
    ];
    let mut left_out = Vec::new();
    for (name, run) in [("POSIX sem_t", posix()), (PORTALOCKER, portalocker(dir))] {
        match run {
            Some(run) => contenders.push(Contender { name, targets: &[], run }),
            None => left_out.push(name),
        }
    }

    let rounds = extent.times(CYCLE_ROUNDS);
    let batch = extent.times(BATCH);
    let mut times = vec![Vec::with_capacity(rounds * batch); contenders.len()];
    for _ in 0..rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            times.extend((contender.run)(batch));
        }
    }
    let row =
        |(contender, times): (&Contender, _)| Row::new(contender.name, contender.targets, times);
    let rows: Vec<Row> = contenders.iter().zip(times).map(row).collect();
    let title = format!(
        "Uncontended acquire and release of one of {CYCLE_PERMITS} permits in {} ({rounds} rounds of \
         {batch}, interleaved)",
        dir.display()
    );
    print_table(&title, &rows, &[BARE_PER_USE]);
    for name in left_out {
        println!("{name}: left out, not available");
    }
}

// --------------------------------------------------------------------------------- large batches

const BATCH_ROUNDS: usize = 100;
/// The largest capacity. Each contender has this number of descriptors open.
const BATCH_PERMITS: u32 = 4096;
const BARE_FILES: &str = "bare open+flock+close of 4096 files";
const BATCH_TARGETS: &[Target] = &[Target { baseline: BARE_FILES, at_most: 3.0 }];

/// Measures the acquisition and the release of all permits together.
fn measure_batches(dir: &Path, extent: Extent) {
    let slots = dir.join("many");
    std::fs::create_dir(&slots).expect("create a directory");
    let slots: Vec<_> = (0..BATCH_PERMITS).map(|slot| slots.join(slot.to_string())).collect();
    drop(slots.iter().map(|slot| open(slot)).collect::<Vec<_>>());
    let path = dir.join("many.sem");
    let semaphore = Semaphore::open(&path, BATCH_PERMITS).expect("open a semaphore");
    let acquire = |semaphore: &Semaphore| {
        drop(semaphore.try_acquire_many(BATCH_PERMITS).expect("acquire"));
    };
    let time = |cycle: &dyn Fn()| {
        let before = Instant::now();
        cycle();
        before.elapsed()
    };
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..extent.times(BATCH_ROUNDS) {
        times[0].push(time(&|| {
            let files: Vec<_> = slots.iter().map(|slot| open(slot)).collect();
            files.iter().for_each(bare::lock);
        }));
        let new = Semaphore::open_existing(&path).expect("open a semaphore");
        times[1].push(time(&|| acquire(&new)));
        times[2].push(time(&|| acquire(&semaphore)));
    }
    let [bare, new, kept] = times;
    let rows = [
        Row::new(BARE_FILES, &[], bare),
        Row::new("flockwork try_acquire_many(4096), new handle", BATCH_TARGETS, new),
        Row::new("flockwork try_acquire_many(4096), again", BATCH_TARGETS, kept),
    ];
    let title = format!("All of {BATCH_PERMITS} permits together");
    print_table(&title, &rows, &[BARE_FILES]);
}

type Run = Box<dyn FnMut(usize) -> Vec<Duration>>;

#[cfg(target_os = "linux")]
fn posix() -> Option<Run> {
    let name = format!("flockwork-bench-{}", std::process::id());
    let semaphore = named_sem::NamedSemaphore::create(format!("/{name}"), CYCLE_PERMITS);
    // The semaphore exists until no process has it open.
    let _ = std::fs::remove_file(format!("/dev/shm/sem.{name}"));
    let mut semaphore = semaphore.ok()?;
    let cycle = move || {
        semaphore.wait().expect("wait");
        semaphore.post().expect("post");
    };
    Some(Contender::new("", &[], cycle).run)
}

#[cfg(not(target_os = "linux"))]
fn posix() -> Option<Run> {
    None
}

const PORTALOCKER: &str = "portalocker.BoundedSemaphore (Python)";

/// The script measures the cycles, so that the result does not include the pipes.
const PORTALOCKER_PROGRAM: &str = "
import sys, time, portalocker
semaphore = portalocker.BoundedSemaphore(int(sys.argv[2]), name='bench', directory=sys.argv[1])
print('ready', flush=True)
for line in sys.stdin:
    times = []
    for _ in range(int(line)):
        before = time.perf_counter_ns()
        semaphore.acquire()
        semaphore.release()
        times.append(time.perf_counter_ns() - before)
    print(*times, flush=True)
";

fn portalocker(dir: &Path) -> Option<Run> {
    let is_available = Command::new("python3")
        .args(["-c", "import portalocker"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !is_available {
        return None;
    }
    let permits = CYCLE_PERMITS.to_string();
    let mut command = Command::new("python3");
    command.args(["-c", PORTALOCKER_PROGRAM]).arg(dir).arg(permits);
    let mut python = Peer::start(&mut command);
    assert_eq!(python.receive().trim(), "ready");
    Some(Box::new(move |count| {
        python.send(&count.to_string());
        let answer = python.receive();
        let time = |word: &str| Duration::from_nanos(word.parse().expect("a time"));
        answer.split_whitespace().map(time).collect()
    }))
}

// ------------------------------------------------------------------------- semaphores of the shell

const COMMAND_ROUNDS: usize = 20;
const TRUE: &str = "true";

/// Measures GNU `sem`, which is a process for each use.
fn measure_commands(dir: &Path, extent: Extent) {
    let version = Command::new("sem").arg("--version").stdin(Stdio::null()).output();
    if !version.is_ok_and(|output| output.stdout.starts_with(b"GNU")) {
        println!("GNU sem: left out, not available");
        return;
    }
    let time = |program: &str, arguments: &[&str]| {
        let before = Instant::now();
        let output = Command::new(program)
            .args(arguments)
            .env("PARALLEL_HOME", dir)
            .stdin(Stdio::null())
            .output()
            .expect("run a command");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        before.elapsed()
    };
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..extent.times(COMMAND_ROUNDS) {
        times[0].push(time(TRUE, &[]));
        times[1].push(time("sem", &["--fg", "--id", "flockwork-bench", "-j", "4", TRUE]));
    }
    let [without, with] = times;
    let rows = [Row::new(TRUE, &[], without), Row::new("GNU sem --fg true", &[], with)];
    print_table("A command, and a command under a semaphore", &rows, &[TRUE]);
}

// -------------------------------------------------------------------------------------- contention

/// The number of runs of each scenario. The scenarios take turns.
const LOOP_ROUNDS: usize = 8;
const LOOP_SPAN: Duration = Duration::from_millis(300);
/// The time in which all processes receive their start time.
const START_DELAY: Duration = Duration::from_millis(20);
/// How long a permit is held. In the second case the holder sleeps, so the processes do not compete
/// for the processors.
const HOLDS: [(&str, Duration); 2] = [
    ("released at once", Duration::ZERO),
    ("held for 200 us by a sleeping process", Duration::from_micros(200)),
];

struct Scenario {
    name: &'static str,
    permits: u32,
    processes: usize,
    targets: &'static [Target],
    limit: Option<Duration>,
}

impl Scenario {
    const fn new(name: &'static str, permits: u32, processes: usize) -> Self {
        Self { name, permits, processes, targets: &[], limit: None }
    }
}

const BARE_SATURATED: &str = "bare flock, blocked, 4 processes";
const SCENARIOS: [Scenario; 4] = [
    Scenario::new(BARE_SATURATED, BARE_LOCK, 4),
    Scenario {
        targets: &[Target { baseline: BARE_SATURATED, at_most: 3.0 }],
        ..Scenario::new("flockwork, 1 permit, 4 processes", 1, 4)
    },
    Scenario {
        limit: Some(Duration::from_micros(200)),
        ..Scenario::new("flockwork, 4 permits, 12 processes", 4, 12)
    },
    Scenario::new("flockwork, 16 permits, 32 processes", 16, 32),
];

/// One acquisition, with the times that its process measured.
struct Use {
    process: usize,
    slot: u32,
    /// The time before `acquire` was called.
    requested: Duration,
    /// The time after `acquire` returned.
    acquired: Duration,
    /// The time before `release` was called.
    released: Duration,
}

fn longest_wait(uses: &[Use]) -> Duration {
    uses.iter().map(|it| it.acquired.saturating_sub(it.requested)).max().unwrap_or_default()
}

/// The acquisitions of one scenario, and their statistics.
#[derive(Default)]
struct Uses {
    span: Duration,
    /// The times from a release until the next acquisition of the same slot, by a process that was
    /// waiting at the release.
    hand_offs: Vec<Duration>,
    acquisitions: usize,
    longest_wait: Duration,
}

impl Uses {
    /// Pairs each acquisition with the previous release of the same slot. It is a hand-off only if
    /// the process had called `acquire` before that release. Other acquisitions are by the process
    /// that had just released the slot, or by one that arrived when the slot was free, so the time
    /// in between measures nothing.
    ///
    /// With a bare lock, the process that releases it mostly acquires it again before the woken
    /// waiter runs. That waiter is already awake when it finally acquires the lock, so the measured
    /// time is shorter than a wake-up.
    fn add(&mut self, mut uses: Vec<Use>, span: Duration) {
        self.span += span;
        self.acquisitions += uses.len();
        self.longest_wait = self.longest_wait.max(longest_wait(&uses));
        uses.sort_unstable_by_key(|it| (it.slot, it.acquired));
        for pair in uses.windows(2) {
            let [before, after] = pair else { unreachable!() };
            if before.slot != after.slot {
                continue;
            }
            let gap = after.acquired.checked_sub(before.released);
            let gap = gap.expect("no two processes hold the same slot");
            if after.requested < before.released {
                self.hand_offs.push(gap);
            }
        }
    }

    fn line(&self, name: &str) -> Vec<String> {
        vec![
            name.into(),
            format!("{:.0}", per(self.acquisitions, self.span.as_secs_f64())),
            self.hand_offs.len().to_string(),
            format!("{:.0} %", ratio(self.hand_offs.len(), self.acquisitions) * 100.0),
            milliseconds(self.hand_offs.iter().max().copied().unwrap_or_default()),
            milliseconds(self.longest_wait),
        ]
    }
}

const USES_HEADER: [&str; 6] =
    ["", "acquired/s", "hand-offs", "share", "longest hand-off ms", "longest wait ms"];

fn measure_hand_off(dir: &Path, extent: Extent) {
    let span = if extent == Extent::Full { LOOP_SPAN } else { Duration::from_millis(30) };
    let rounds = extent.times(LOOP_ROUNDS);
    let mut results: Vec<Uses> =
        HOLDS.iter().flat_map(|_| &SCENARIOS).map(|_| Uses::default()).collect();
    for _ in 0..rounds {
        let each = HOLDS.iter().flat_map(|(_, hold)| SCENARIOS.iter().map(move |it| (hold, it)));
        for ((hold, scenario), result) in each.zip(&mut results) {
            result.add(saturate(dir, scenario, *hold, span), span);
        }
    }
    for (what, _) in HOLDS {
        let mut lines = vec![USES_HEADER.map(String::from).to_vec()];
        let mut rows = Vec::new();
        for (scenario, result) in SCENARIOS.iter().zip(results.drain(..SCENARIOS.len())) {
            lines.push(result.line(scenario.name));
            if !result.hand_offs.is_empty() {
                let row = Row::new(scenario.name, scenario.targets, result.hand_offs);
                rows.push(row.within(scenario.limit));
            }
        }
        if rows.len() == SCENARIOS.len() {
            let title = format!(
                "Release to acquisition of the same slot by a waiting process, {what} ({rounds} runs \
                 of {} s, interleaved)",
                span.as_secs_f64()
            );
            print_table(&title, &rows, &[BARE_SATURATED]);
        }
        println!();
        print_aligned(&lines);
    }
}

/// Runs processes that acquire and release for a time span, and returns the acquisitions of that
/// span.
fn saturate(dir: &Path, scenario: &Scenario, hold: Duration, span: Duration) -> Vec<Use> {
    let path = fresh(dir);
    let mut peers: Vec<Peer> = (0..scenario.processes)
        .map(|_| {
            let hold = hold.as_micros().to_string();
            Peer::start_this_program(ROLE, LOOP, &[&path, &scenario.permits.to_string(), &hold])
        })
        .collect();
    for peer in &mut peers {
        assert_eq!(peer.receive().trim(), "ready");
    }
    let start = now() + START_DELAY;
    let end = start + span;
    for peer in &mut peers {
        peer.send(&format!("{} {}", start.as_nanos(), end.as_nanos()));
    }
    let mut uses = Vec::new();
    for (process, mut peer) in peers.into_iter().enumerate() {
        let lines = peer.take_answers().lines();
        uses.extend(lines.map(|line| Use::from_line(process, &line.expect("read from a process"))));
        peer.stop();
    }
    uses.retain(|it| it.acquired <= end);
    uses
}

impl Use {
    fn from_line(process: usize, line: &str) -> Self {
        let mut words = line.split(' ').map(|word| word.parse().expect("a number"));
        let mut next = || words.next().expect("four numbers");
        let slot = u32::try_from(next()).expect("a slot");
        let [requested, acquired, released] = [next(), next(), next()].map(Duration::from_nanos);
        Self { process, slot, requested, acquired, released }
    }
}

/// The main function of a process that acquires and releases in a loop.
fn run_loop(pool: &Pool, span: Duration) {
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("read from the parent");
    let mut times = line.split_whitespace().map(|word| word.parse().expect("a time"));
    let mut next = || Duration::from_nanos(times.next().expect("two times"));
    let (start, end) = (next(), next());
    std::thread::sleep(start.saturating_sub(now()));

    let mut uses = Vec::new();
    loop {
        let requested = now();
        if requested >= end {
            break;
        }
        let held = pool.acquire();
        let acquired = now();
        if !span.is_zero() {
            std::thread::sleep(span);
        }
        let slot = held.slot();
        let released = now();
        held.release();
        uses.push((slot, requested, acquired, released));
    }
    let mut output = BufWriter::new(std::io::stdout().lock());
    for (slot, requested, acquired, released) in uses {
        let [requested, acquired, released] =
            [requested, acquired, released].map(|time| time.as_nanos());
        writeln!(output, "{slot} {requested} {acquired} {released}").expect("write to the parent");
    }
    output.flush().expect("write to the parent");
}

// ---------------------------------------------------------------------------------------- fairness

const PROCESSES: usize = 16;
const FAIRNESS_SPAN: Duration = Duration::from_secs(2);
const FAIRNESS: [Scenario; 2] = [
    Scenario::new("bare flock, blocked", BARE_LOCK, PROCESSES),
    Scenario::new("flockwork, 2 permits", 2, PROCESSES),
];

/// Measures how often each of several identical processes acquires a permit.
fn measure_fairness(dir: &Path, extent: Extent) {
    let span = if extent == Extent::Full { FAIRNESS_SPAN } else { Duration::from_millis(30) };
    let header = ["", "fewest", "median", "most", "most/fewest", "longest wait ms"];
    for (what, hold) in HOLDS {
        let mut lines = vec![header.map(String::from).to_vec()];
        for scenario in &FAIRNESS {
            let uses = saturate(dir, scenario, hold, span);
            let mut counts = [0; PROCESSES];
            for it in &uses {
                counts[it.process] += 1;
            }
            counts.sort_unstable();
            let [fewest, median, most] = [counts[0], counts[PROCESSES / 2], counts[PROCESSES - 1]];
            let mut line = vec![scenario.name.to_owned()];
            line.extend([fewest, median, most].map(|count| count.to_string()));
            line.extend([format!("{:.2}", ratio(most, fewest)), milliseconds(longest_wait(&uses))]);
            lines.push(line);
        }
        println!(
            "\nAcquisitions of each of {PROCESSES} identical processes in {} s, {what}",
            span.as_secs_f64()
        );
        print_aligned(&lines);
    }
}

// ---------------------------------------------------------------------------------------- wake-ups

const HAND_OVERS: usize = 150;
/// The time for the queue's leader to fall asleep, and for the process that has just released its
/// permit to reach the end of the queue.
const SETTLING: Duration = Duration::from_millis(3);
/// The time in which threads end that are no longer needed.
const THREAD_END: Duration = Duration::from_millis(60);
/// A permit that no process has acquired after this time is lost.
const LOST_AFTER: Duration = Duration::from_secs(10);
const CROWD_PERMITS: u32 = 2;
const MAX_WAKE_UP_RATIO: f64 = 1.5;

// The commands for a process of the crowd: in turn to release its permit and to join the queue
// again, and at any time to print its number of context switches.
const RELEASE: &str = "release";
const JOIN: &str = "join";
const SWITCHES: &str = "switches";

/// When a process that has released its permit joins the queue again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joining {
    /// After the next process has acquired the permit and all processes sleep. This shows the cost
    /// of the release alone.
    Later,
    /// At once, as a process does that acquires and releases in a loop.
    AtOnce,
}

struct CrowdKind {
    name: &'static str,
    permits: u32,
    waiting: usize,
}

const BARE_CROWD: &str = "bare flock, 16 waiting";
const SMALLEST: &str = "flockwork, 16 waiting";
const CROWDS: [CrowdKind; 5] = [
    CrowdKind { name: BARE_CROWD, permits: BARE_LOCK, waiting: 16 },
    CrowdKind { name: "bare flock, 256 waiting", permits: BARE_LOCK, waiting: 256 },
    CrowdKind { name: SMALLEST, permits: CROWD_PERMITS, waiting: 16 },
    CrowdKind { name: "flockwork, 64 waiting", permits: CROWD_PERMITS, waiting: 64 },
    CrowdKind { name: "flockwork, 256 waiting", permits: CROWD_PERMITS, waiting: 256 },
];

/// Options under which waiters do not check once a second on their own. A check would count as a
/// wake-up and hide a lost one.
fn without_checks() -> Options {
    Options::new().backstop(6 * LOST_AFTER)
}

/// Measures a crowd of waiters, in which one permit goes from process to process.
fn measure_wake_ups(dir: &Path, extent: Extent) {
    let hand_overs = extent.times(HAND_OVERS);
    let is_run = |kind: &&CrowdKind| extent == Extent::Full || kind.waiting == 16;
    let kinds: Vec<&CrowdKind> = CROWDS.iter().filter(is_run).collect();
    let mut crowds: Vec<Crowd> = kinds.iter().map(|kind| Crowd::start(dir, kind)).collect();

    let mut times = vec![Vec::with_capacity(hand_overs); crowds.len()];
    for _ in 0..hand_overs {
        for (crowd, times) in crowds.iter_mut().zip(&mut times) {
            times.push(crowd.hand_over(Joining::Later));
        }
    }
    let rows: Vec<Row> =
        kinds.iter().zip(times).map(|(kind, times)| Row::new(kind.name, &[], times)).collect();
    let title =
        format!("Release to acquisition with a crowd waiting ({hand_overs} rounds, interleaved)");
    print_table(&title, &rows, &[BARE_CROWD, SMALLEST]);

    if !cfg!(target_os = "linux") {
        println!("\nWake-ups: left out, counted on Linux only");
        return;
    }
    println!(
        "\nVoluntary context switches of all processes of the crowd, per release ({hand_overs} releases \
         each).\nFour of them belong to the bench, which sends the commands to release and to join. A \
         process that joins at\nonce may barge in ahead of the waiter that was just woken. With bare \
         flock(2), that waiter wakes all waiters\nbehind it when it blocks again (fs/locks.c in Linux)."
    );
    for (what, joining) in [
        ("joining the queue again later", Joining::Later),
        ("joining the queue again at once", Joining::AtOnce),
    ] {
        let header = [what, "switches", "relative to 16", "target"].map(String::from);
        let mut lines = vec![header.to_vec()];
        let mut of_smallest = [None; 2];
        for (kind, crowd) in kinds.iter().zip(&mut crowds) {
            let is_bare = kind.permits == BARE_LOCK;
            let switches = crowd.switches_per_hand_over(hand_overs, joining);
            let ratio = switches / *of_smallest[usize::from(is_bare)].get_or_insert(switches);
            let verdict = match extent {
                Extent::Full if ratio <= MAX_WAKE_UP_RATIO => " met",
                Extent::Full => " MISSED",
                _ => "",
            };
            let target =
                if is_bare { String::new() } else { format!("<= {MAX_WAKE_UP_RATIO:.2}{verdict}") };
            let line = [kind.name.into(), format!("{switches:.2}"), format!("{ratio:.2}"), target];
            lines.push(line.to_vec());
        }
        println!();
        print_aligned(&lines);
    }
}

/// Processes that share a semaphore: one holds a permit and waits for commands, and all others wait
/// for a permit.
struct Crowd {
    peers: Vec<Peer>,
    answers: Receiver<(usize, String)>,
    holder: usize,
    /// The permits that stay with the bench.
    _kept: Vec<Permit>,
}

impl Crowd {
    /// Starts the processes, and returns when the first of them has acquired a permit.
    fn start(dir: &Path, kind: &CrowdKind) -> Self {
        let path = fresh(dir);
        let pool = Pool::open(&path, kind.permits, &without_checks());
        let mut held: Vec<Held<'_>> = (0..kind.permits.max(1)).map(|_| pool.acquire()).collect();
        let (sender, answers) = mpsc::channel();
        let start = |index| {
            let arguments: [&dyn AsRef<_>; 2] = [&path, &kind.permits.to_string()];
            let mut peer = Peer::start_this_program(ROLE, WAIT, &arguments);
            let lines = peer.take_answers().lines();
            let sender = sender.clone();
            std::thread::spawn(move || {
                lines.map_while(Result::ok).try_for_each(|line| sender.send((index, line)))
            });
            peer
        };
        // One process more than the number of waiters, since one of them holds the permit.
        let peers: Vec<Peer> = (0..=kind.waiting).map(start).collect();
        for _ in &peers {
            assert_eq!(receive(&answers).1, "ready");
        }
        std::thread::sleep(100 * SETTLING); // until they are blocked
        held.pop().expect("at least one").release();
        let (holder, _) = receive(&answers);
        let permit = |held| match held {
            Held::Bare(_) => None,
            Held::Flockwork(permit) => Some(permit),
        };
        let kept = held.into_iter().filter_map(permit).collect();
        Self { peers, answers, holder, _kept: kept }
    }

    /// Measures the time from the holder's release until the next process has acquired the permit.
    fn hand_over(&mut self, joining: Joining) -> Duration {
        std::thread::sleep(SETTLING);
        let before = self.holder;
        self.peers[before].send(RELEASE);
        if joining == Joining::AtOnce {
            self.peers[before].send(JOIN);
        }
        let (mut released, mut acquired) = (None, None);
        while released.is_none() || acquired.is_none() {
            let (index, line) = receive(&self.answers);
            let (word, time) = line.split_once(' ').expect("a word and a time");
            let time = Some(Duration::from_nanos(time.parse().expect("a time")));
            if word == "acquired" {
                (acquired, self.holder) = (time, index);
            } else {
                released = time;
            }
        }
        if joining == Joining::Later {
            std::thread::sleep(SETTLING);
            self.peers[before].send(JOIN);
        }
        let time = acquired.zip(released).and_then(|(after, before)| after.checked_sub(before));
        time.expect("no two processes hold the permit")
    }

    fn switches_per_hand_over(&mut self, hand_overs: usize, joining: Joining) -> f64 {
        std::thread::sleep(THREAD_END);
        let before = self.switches();
        for _ in 0..hand_overs {
            self.hand_over(joining);
        }
        std::thread::sleep(THREAD_END);
        // The request for the number costs one more switch in each process.
        per(self.switches() - before - self.peers.len(), ratio(hand_overs, 1))
    }

    fn switches(&mut self) -> usize {
        self.peers.iter_mut().for_each(|peer| peer.send(SWITCHES));
        let number = |_| receive(&self.answers).1.parse::<usize>().expect("a number");
        self.peers.iter().map(number).sum()
    }
}

/// Receives the next line of any process, with the index of that process.
fn receive(answers: &Receiver<(usize, String)>) -> (usize, String) {
    answers.recv_timeout(LOST_AFTER).expect("no permit and no process is lost")
}

/// The main function of a process of the crowd.
fn wait_in_crowd(pool: &Pool) {
    let (sender, commands) = mpsc::channel();
    std::thread::spawn(move || {
        for command in std::io::stdin().lines().map_while(Result::ok) {
            if command == SWITCHES {
                println!("{}", switches());
            } else {
                let _ = sender.send(());
            }
        }
        std::process::exit(0); // even if the other thread waits
    });
    println!("ready");
    loop {
        let held = pool.acquire();
        println!("acquired {}", now().as_nanos());
        let Ok(()) = commands.recv() else { return };
        let released = now();
        held.release();
        println!("released {}", released.as_nanos());
        let Ok(()) = commands.recv() else { return };
    }
}

/// The number of voluntary context switches of this process, including its threads that have ended.
#[cfg(target_os = "linux")]
fn switches() -> impl std::fmt::Display {
    use nix::sys::resource::{UsageWho, getrusage};

    getrusage(UsageWho::RUSAGE_SELF).expect("getrusage").voluntary_context_switches()
}

#[cfg(not(target_os = "linux"))]
fn switches() -> u32 {
    unreachable!("called on Linux only")
}

// ----------------------------------------------------------------------------------------- figures

/// A path that has not been used before.
fn fresh(dir: &Path) -> PathBuf {
    static USED: AtomicU32 = AtomicU32::new(0);
    dir.join(format!("run-{}", USED.fetch_add(1, Ordering::Relaxed)))
}

fn ratio(part: usize, whole: usize) -> f64 {
    let number = |count| f64::from(u32::try_from(count).expect("fits into 32 bits"));
    number(part) / number(whole)
}

fn per(count: usize, of: f64) -> f64 {
    ratio(count, 1) / of
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}
