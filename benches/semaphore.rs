//! A semaphore: what it costs when nobody waits, how fast and how fairly permits go from process to process
//! when too many want them, and how many are woken when one is given back.
//!
//! This program starts itself again as the other processes. What is compared takes turns, so that what else
//! the machine does hits all alike.

#[allow(dead_code, reason = "the other benches have more to compare with")]
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
use peer::{Peer, end_after};

/// Long enough never to end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What one of the other processes is to be. Set for them only.
const ROLE: &str = "FLOCKWORK_BENCH_SEMAPHORE";
const LOOP: &str = "loop";
const WAIT: &str = "wait";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        end_after(TIMEOUT);
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let (path, permits) = (Path::new(&arguments[0]), arguments[1].parse().expect("permits"));
        match &*role {
            LOOP => {
                let hold = Duration::from_micros(arguments[2].parse().expect("a time"));
                run_loop(&Pool::open(path, permits, &Options::new()), hold);
            }
            WAIT => wait_in_the_crowd(&Pool::open(path, permits, &patient())),
            role => panic!("no role: {role}"),
        }
        return;
    }
    let extent = Extent::from_args();
    if extent != Extent::List {
        let dir = tempfile::tempdir().expect("a temporary directory");
        measure_cycles(dir.path(), extent);
        measure_commands(dir.path(), extent);
        measure_hand_off(dir.path(), extent);
        measure_fairness(dir.path(), extent);
        measure_wake_ups(dir.path(), extent);
    }
}

/// What the other processes contend for.
enum Pool {
    /// A lock file, and nothing around it.
    Bare(File),
    Flockwork(Semaphore),
}

enum Held<'a> {
    Bare(&'a File),
    Flockwork(Permit),
}

/// In place of a number of permits: a bare lock.
const A_BARE_LOCK: u32 = 0;

impl Pool {
    fn open(path: &Path, permits: u32, options: &Options) -> Self {
        if permits == A_BARE_LOCK {
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

// ------------------------------------------------------------------------------------- nobody waits

const CYCLE_ROUNDS: usize = 1000;
/// Cycles of one contender before it is the next one's turn.
const BATCH: usize = 32;
const CYCLE_PERMITS: u32 = 4;

/// What the nearest thing to a semaphore does: one lock file, opened for each use.
const BARE_PER_USE: &str = "bare open+flock+close";
const CYCLE_TARGETS: &[Target] = &[Target { baseline: BARE_PER_USE, at_most: 1.0 }];

/// One way to acquire and release.
struct Contender {
    name: &'static str,
    targets: &'static [Target],
    /// Measures so many cycles.
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
        println!("{name}: left out, it is not to be had here");
    }
}

type Run = Box<dyn FnMut(usize) -> Vec<Duration>>;

#[cfg(target_os = "linux")]
fn posix() -> Option<Run> {
    let name = format!("flockwork-bench-{}", std::process::id());
    let semaphore = named_sem::NamedSemaphore::create(format!("/{name}"), CYCLE_PERMITS);
    // It lives until nobody has it open.
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

/// Measures itself: what a pipe costs is none of its business.
const PORTALOCKER_PROGRAM: &str = "
import sys, time, portalocker
semaphore = portalocker.BoundedSemaphore(int(sys.argv[2]), name='bench', directory=sys.argv[1])
print('ready', flush=True)
for order in sys.stdin:
    times = []
    for _ in range(int(order)):
        before = time.perf_counter_ns()
        semaphore.acquire()
        semaphore.release()
        times.append(time.perf_counter_ns() - before)
    print(*times, flush=True)
";

fn portalocker(dir: &Path) -> Option<Run> {
    let has_it = Command::new("python3")
        .args(["-c", "import portalocker"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_it {
        return None;
    }
    let permits = CYCLE_PERMITS.to_string();
    let mut command = Command::new("python3");
    command.args(["-c", PORTALOCKER_PROGRAM]).arg(dir).arg(permits);
    let mut python = Peer::start(&mut command);
    assert_eq!(python.hear().trim(), "ready");
    Some(Box::new(move |count| {
        python.tell(&count.to_string());
        let answer = python.hear();
        let time = |word: &str| Duration::from_nanos(word.parse().expect("a time"));
        answer.split_whitespace().map(time).collect()
    }))
}

// ----------------------------------------------------------------------------- semaphores of the shell

const COMMAND_ROUNDS: usize = 20;
const TRUE: &str = "true";

/// GNU `sem`, which is started anew for each use.
fn measure_commands(dir: &Path, extent: Extent) {
    let version = Command::new("sem").arg("--version").stdin(Stdio::null()).output();
    if !version.is_ok_and(|output| output.stdout.starts_with(b"GNU")) {
        println!("GNU sem: left out, it is not to be had here");
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

// ------------------------------------------------------------------------------- too many want permits

/// So many runs of each, in turn.
const LOOP_ROUNDS: usize = 8;
const LOOP_SPAN: Duration = Duration::from_millis(300);
/// For all processes to hear when they begin.
const SETTING_OUT: Duration = Duration::from_millis(20);
/// How long a permit is held. In the second case asleep, so that it is not the processors that are wanted.
const HOLDS: [(&str, Duration); 2] = [
    ("given back at once", Duration::ZERO),
    ("held for 200 us, asleep", Duration::from_micros(200)),
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
    Scenario::new(BARE_SATURATED, A_BARE_LOCK, 4),
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

/// One acquisition, as the process that made it saw it.
struct Use {
    process: usize,
    slot: u32,
    /// Before `acquire` was called.
    asked: Duration,
    /// After it returned.
    acquired: Duration,
    /// Before `release` was called.
    released: Duration,
}

fn longest_wait(uses: &[Use]) -> Duration {
    uses.iter().map(|it| it.acquired.saturating_sub(it.asked)).max().unwrap_or_default()
}

/// All of one run, and what they amount to.
#[derive(Default)]
struct Uses {
    span: Duration,
    /// From a release to the next acquisition of the same slot, by a process that waited at the release.
    hand_offs: Vec<Duration>,
    acquisitions: usize,
    longest_wait: Duration,
}

impl Uses {
    /// Pairs each acquisition with the release before it of the same slot. A hand-off is what goes to one
    /// that had asked before that: of the others, some took again what they had just released, and some
    /// asked when the slot was free, so that the time between says nothing.
    ///
    /// With a bare lock, who releases mostly takes it again before the one that was woken gets there. That
    /// one is on its way already when at last a release is its own, so that the time is shorter than it
    /// takes to wake somebody.
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
            let gap = gap.expect("two had the same slot at once");
            if after.asked < before.released {
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
    ["", "acquired/s", "handed over", "of all", "longest hand-off ms", "longest wait ms"];

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
                "Release to acquisition of the same slot by a process that waited, {what} ({rounds} \
                 times {} s, interleaved)",
                span.as_secs_f64()
            );
            print_table(&title, &rows, &[BARE_SATURATED]);
        }
        println!();
        print_aligned(&lines);
    }
}

/// All of these processes acquire and release for so long. What they do is counted from when all have begun
/// until the first ends.
fn saturate(dir: &Path, scenario: &Scenario, hold: Duration, span: Duration) -> Vec<Use> {
    let path = fresh(dir);
    let mut peers: Vec<Peer> = (0..scenario.processes)
        .map(|_| {
            let hold = hold.as_micros().to_string();
            Peer::start_this_program(ROLE, LOOP, &[&path, &scenario.permits.to_string(), &hold])
        })
        .collect();
    for peer in &mut peers {
        assert_eq!(peer.hear().trim(), "ready");
    }
    let start = now() + SETTING_OUT;
    let end = start + span;
    for peer in &mut peers {
        peer.tell(&format!("{} {}", start.as_nanos(), end.as_nanos()));
    }
    let mut uses = Vec::new();
    for (process, mut peer) in peers.into_iter().enumerate() {
        let lines = peer.take_answers().lines();
        uses.extend(lines.map(|line| Use::from_line(process, &line.expect("hear a process"))));
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
        let [asked, acquired, released] = [next(), next(), next()].map(Duration::from_nanos);
        Self { process, slot, asked, acquired, released }
    }
}

/// The `main` of one of them.
fn run_loop(pool: &Pool, span: Duration) {
    println!("ready");
    let mut order = String::new();
    std::io::stdin().read_line(&mut order).expect("hear the order");
    let mut times = order.split_whitespace().map(|word| word.parse().expect("a time"));
    let mut next = || Duration::from_nanos(times.next().expect("two times"));
    let (start, end) = (next(), next());
    std::thread::sleep(start.saturating_sub(now()));

    let mut uses = Vec::new();
    loop {
        let asked = now();
        if asked >= end {
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
        uses.push((slot, asked, acquired, released));
    }
    let mut output = BufWriter::new(std::io::stdout().lock());
    for (slot, asked, acquired, released) in uses {
        let [asked, acquired, released] = [asked, acquired, released].map(|time| time.as_nanos());
        writeln!(output, "{slot} {asked} {acquired} {released}").expect("answer");
    }
    output.flush().expect("answer");
}

// ------------------------------------------------------------------------------------------ fairness

const EQUALS: usize = 16;
const FAIRNESS_SPAN: Duration = Duration::from_secs(2);
const FAIRNESS: [Scenario; 2] = [
    Scenario::new("bare flock, blocked", A_BARE_LOCK, EQUALS),
    Scenario::new("flockwork, 2 permits", 2, EQUALS),
];

/// How often each of equals gets a permit.
fn measure_fairness(dir: &Path, extent: Extent) {
    let span = if extent == Extent::Full { FAIRNESS_SPAN } else { Duration::from_millis(30) };
    let header = ["", "fewest", "median", "most", "most/fewest", "longest wait ms"];
    for (what, hold) in HOLDS {
        let mut lines = vec![header.map(String::from).to_vec()];
        for scenario in &FAIRNESS {
            let uses = saturate(dir, scenario, hold, span);
            let mut counts = [0; EQUALS];
            for it in &uses {
                counts[it.process] += 1;
            }
            counts.sort_unstable();
            let [fewest, median, most] = [counts[0], counts[EQUALS / 2], counts[EQUALS - 1]];
            let mut line = vec![scenario.name.to_owned()];
            line.extend([fewest, median, most].map(|count| count.to_string()));
            line.extend([format!("{:.2}", ratio(most, fewest)), milliseconds(longest_wait(&uses))]);
            lines.push(line);
        }
        println!(
            "\nAcquisitions of each of {EQUALS} equal processes in {} s, {what}",
            span.as_secs_f64()
        );
        print_aligned(&lines);
    }
}

// ------------------------------------------------------------------------------------------ wake-ups

const HAND_OVERS: usize = 150;
/// For who is at the head of the queue now to be asleep, and for who has just left to be at its end.
const SETTLING: Duration = Duration::from_millis(3);
/// For threads to end that are not needed any more.
const CALMING: Duration = Duration::from_millis(60);
/// A permit that nobody has got by then was lost.
const LOST: Duration = Duration::from_secs(10);
const CROWD_PERMITS: u32 = 2;
const WAKE_UPS_AT_MOST: f64 = 1.5;

// What one of them is told: in turn to release and to join the queue again, and at any time to say how often
// it has been asleep.
const RELEASE: &str = "release";
const JOIN: &str = "join";
const SWITCHES: &str = "switches";

/// When who has released joins the queue again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joining {
    /// When the next has the permit and all is quiet: what the release itself costs.
    Later,
    /// As one does who acquires and releases in a loop.
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
    CrowdKind { name: BARE_CROWD, permits: A_BARE_LOCK, waiting: 16 },
    CrowdKind { name: "bare flock, 256 waiting", permits: A_BARE_LOCK, waiting: 256 },
    CrowdKind { name: SMALLEST, permits: CROWD_PERMITS, waiting: 16 },
    CrowdKind { name: "flockwork, 64 waiting", permits: CROWD_PERMITS, waiting: 64 },
    CrowdKind { name: "flockwork, 256 waiting", permits: CROWD_PERMITS, waiting: 256 },
];

/// Those who stand in the queue look for themselves once a second. Here they do not: it would count with the
/// wake-ups, and make up for one that is lost.
fn patient() -> Options {
    Options::new().backstop(6 * LOST)
}

/// Many wait, and one permit goes from one of them to the next.
fn measure_wake_ups(dir: &Path, extent: Extent) {
    let hand_overs = extent.times(HAND_OVERS);
    let is_run = |kind: &&CrowdKind| extent == Extent::Full || kind.waiting == 16;
    let kinds: Vec<&CrowdKind> = CROWDS.iter().filter(is_run).collect();
    let mut crowds: Vec<Crowd> = kinds.iter().map(|kind| Crowd::gather(dir, kind)).collect();

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
        println!("\nWake-ups: left out, Linux counts them");
        return;
    }
    println!(
        "\nVoluntary context switches of all processes of the crowd, per release ({hand_overs} releases \
         each).\nFour are the bench's own: of the one that is told to release, and to join again. Who \
         joins at once may\ntake flock(2) from the one that was just woken, and that one wakes all \
         behind it when it blocks again\n(fs/locks.c): the bare rows show it."
    );
    for (what, joining) in [
        ("which joins the queue again later", Joining::Later),
        ("which joins the queue again at once", Joining::AtOnce),
    ] {
        let header = [what, "switches", "of 16 waiting", "target"].map(String::from);
        let mut lines = vec![header.to_vec()];
        let mut of_smallest = [None; 2];
        for (kind, crowd) in kinds.iter().zip(&mut crowds) {
            let is_bare = kind.permits == A_BARE_LOCK;
            let switches = crowd.switches_per_hand_over(hand_overs, joining);
            let ratio = switches / *of_smallest[usize::from(is_bare)].get_or_insert(switches);
            let verdict = match extent {
                Extent::Full if ratio <= WAKE_UPS_AT_MOST => " met",
                Extent::Full => " MISSED",
                _ => "",
            };
            let target =
                if is_bare { String::new() } else { format!("<= {WAKE_UPS_AT_MOST:.2}{verdict}") };
            let line = [kind.name.into(), format!("{switches:.2}"), format!("{ratio:.2}"), target];
            lines.push(line.to_vec());
        }
        println!();
        print_aligned(&lines);
    }
}

/// Processes that wait, but for one of them, which has a permit and waits for orders.
struct Crowd {
    peers: Vec<Peer>,
    answers: Receiver<(usize, String)>,
    holder: usize,
    /// The permits that do not go round.
    _others: Vec<Permit>,
}

impl Crowd {
    /// Returns when the first of them has its permit.
    fn gather(dir: &Path, kind: &CrowdKind) -> Self {
        let path = fresh(dir);
        let pool = Pool::open(&path, kind.permits, &patient());
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
        // One more than wait: the one that has it.
        let peers: Vec<Peer> = (0..=kind.waiting).map(start).collect();
        for _ in &peers {
            assert_eq!(hear(&answers).1, "ready");
        }
        std::thread::sleep(100 * SETTLING); // until they are blocked
        held.pop().expect("at least one").release();
        let (holder, _) = hear(&answers);
        let permit = |held| match held {
            Held::Bare(_) => None,
            Held::Flockwork(permit) => Some(permit),
        };
        let others = held.into_iter().filter_map(permit).collect();
        Self { peers, answers, holder, _others: others }
    }

    /// How long until the next has what the holder releases.
    fn hand_over(&mut self, joining: Joining) -> Duration {
        std::thread::sleep(SETTLING);
        let before = self.holder;
        self.peers[before].tell(RELEASE);
        if joining == Joining::AtOnce {
            self.peers[before].tell(JOIN);
        }
        let (mut released, mut acquired) = (None, None);
        while released.is_none() || acquired.is_none() {
            let (index, line) = hear(&self.answers);
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
            self.peers[before].tell(JOIN);
        }
        let time = acquired.zip(released).and_then(|(after, before)| after.checked_sub(before));
        time.expect("two had it at once")
    }

    fn switches_per_hand_over(&mut self, hand_overs: usize, joining: Joining) -> f64 {
        std::thread::sleep(CALMING);
        let before = self.switches();
        for _ in 0..hand_overs {
            self.hand_over(joining);
        }
        std::thread::sleep(CALMING);
        // To ask each of them was one more.
        per(self.switches() - before - self.peers.len(), ratio(hand_overs, 1))
    }

    fn switches(&mut self) -> usize {
        self.peers.iter_mut().for_each(|peer| peer.tell(SWITCHES));
        let number = |_| hear(&self.answers).1.parse::<usize>().expect("a number");
        self.peers.iter().map(number).sum()
    }
}

/// What one of them says, and which.
fn hear(answers: &Receiver<(usize, String)>) -> (usize, String) {
    answers.recv_timeout(LOST).expect("a permit was lost, or a process")
}

/// The `main` of one of them.
fn wait_in_the_crowd(pool: &Pool) {
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for order in std::io::stdin().lines().map_while(Result::ok) {
            if order == SWITCHES {
                println!("{}", switches());
            } else {
                let _ = sender.send(());
            }
        }
        std::process::exit(0); // also while the other thread waits
    });
    println!("ready");
    loop {
        let held = pool.acquire();
        println!("acquired {}", now().as_nanos());
        let Ok(()) = orders.recv() else { return };
        let released = now();
        held.release();
        println!("released {}", released.as_nanos());
        let Ok(()) = orders.recv() else { return };
    }
}

/// How often this process has gone to sleep, with its threads that have ended.
#[cfg(target_os = "linux")]
fn switches() -> impl std::fmt::Display {
    use nix::sys::resource::{UsageWho, getrusage};

    getrusage(UsageWho::RUSAGE_SELF).expect("getrusage").voluntary_context_switches()
}

#[cfg(not(target_os = "linux"))]
fn switches() -> u32 {
    unreachable!("nobody asks")
}

// ------------------------------------------------------------------------------------------- figures

/// A path that was not used yet.
fn fresh(dir: &Path) -> PathBuf {
    static USED: AtomicU32 = AtomicU32::new(0);
    dir.join(format!("run-{}", USED.fetch_add(1, Ordering::Relaxed)))
}

fn ratio(part: usize, whole: usize) -> f64 {
    let number = |count| f64::from(u32::try_from(count).expect("not so many"));
    number(part) / number(whole)
}

fn per(count: usize, of: f64) -> f64 {
    ratio(count, 1) / of
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}
