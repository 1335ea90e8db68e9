//! `Event`: the time from `set` in one process until `wait` returns in other processes, the cost
//! when no process waits, and the cost of waiting while nothing happens.
//!
//! The program starts itself again as the waiters. The contenders take turns, so that other work on
//! the machine affects all of them alike.

#[allow(dead_code, reason = "the other benches use the rest")]
mod common;

#[path = "common/clock.rs"]
mod clock;
#[path = "common/contender.rs"]
mod contender;
#[path = "common/cycle.rs"]
mod cycle;
#[allow(dead_code, reason = "another bench uses the rest")]
#[path = "common/peer.rs"]
mod peer;
#[path = "common/python_event.rs"]
mod python_event;
#[cfg_attr(target_os = "linux", path = "common/waiting_linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "common/waiting_elsewhere.rs")]
mod waiting;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use clock::now;
use common::{Extent, Row, Target, bare, print_aligned, print_table};
use contender::{Contender, interleave};
use flockwork::Event;
use futures_lite::future::block_on;
use peer::{Peer, exit_after};
use python_event::{PYTHON, start_python, wake_in_python};
use waiting::{BARE, await_file, is_asleep, resident, switches, watches};

/// A timeout that never passes.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The environment variable with the role of a process. Set only for the other processes, which
/// find the directory in their arguments.
const ROLE: &str = "FLOCKWORK_BENCH_EVENT";
const WAIT: &str = "wait";
const MEASURE_MEMORY: &str = "measure-memory";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        exit_after(TIMEOUT);
        let dir = std::env::args().nth(1).expect("a directory");
        match &*role {
            WAIT => run_waiter(Path::new(&dir)),
            MEASURE_MEMORY => print_memory(Path::new(&dir)),
            role => panic!("unknown role: {role}"),
        }
        return;
    }
    let extent = Extent::from_args();
    if extent != Extent::List {
        let dir = tempfile::tempdir().expect("create a temporary directory");
        measure_wake_ups(dir.path(), extent);
        measure_checks(dir.path(), extent);
        measure_cycles(dir.path(), extent);
        measure_memory(dir.path(), extent);
        measure_idle(dir.path(), extent);
    }
}

// ----------------------------------------------------------------------------------------- methods

/// The minimum where one thread watches for all waiters of a process, and must wake them.
const BARE_BY_THREAD: &str = "bare inotify reader, wakes another thread";
const AS_BARE: &[Target] = &[Target { baseline: BARE, at_most: 1.5 }];

/// A way to wait, with a file that only this method waits for.
struct Method {
    name: &'static str,
    targets: &'static [Target],
    kind: Kind,
    /// The method is left out if there are more waiters than this.
    max_waiters: usize,
    setup: Setup,
    wait: fn(&Setup) -> Duration,
    set: fn(&Setup),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Watching,
    /// Polls at this interval.
    Polling(Duration),
}

/// A file in a separate directory, since a watch reports everything in a directory.
struct Setup {
    directory: PathBuf,
    path: PathBuf,
    stat: bare::Stat,
    event: Event,
}

impl Setup {
    fn new(dir: &Path, name: &str) -> Self {
        let directory = dir.join(name.replace(' ', "-"));
        // Opening an event does not create its directory, and the bare methods need one at once.
        std::fs::create_dir_all(&directory).expect("create a directory");
        let path = directory.join("event");
        let event = Event::open(&path).expect("open an event");
        Self { stat: bare::Stat::of(&path), directory, path, event }
    }
}

impl Method {
    /// The same in all processes, in the same order.
    fn all(dir: &Path) -> Vec<Self> {
        let new = |name, wait| Self {
            name,
            targets: &[],
            kind: Kind::Watching,
            max_waiters: usize::MAX,
            setup: Setup::new(dir, name),
            wait,
            set: |setup| drop(create(&setup.path)),
        };
        let flockwork = |name, wait| Self {
            targets: AS_BARE,
            set: |setup| assert!(setup.event.set().expect("set the event"), "the event was clear"),
            ..new(name, wait)
        };
        let polling = |name, every, wait| Self { kind: Kind::Polling(every), ..new(name, wait) };
        vec![
            Self {
                max_waiters: MAX_BARE,
                ..new(BARE, |setup| {
                    let reader = await_file(&setup.stat, &setup.directory);
                    let woken = now();
                    drop(reader);
                    woken
                })
            },
            Self { max_waiters: MAX_BARE, ..new(BARE_BY_THREAD, wait_for_a_thread) },
            flockwork("flockwork wait", |setup| after(setup.event.wait())),
            flockwork("flockwork wait_timeout", |setup| after(setup.event.wait_timeout(TIMEOUT))),
            flockwork("flockwork wait_async", |setup| after(block_on(setup.event.wait_async()))),
            polling("a poll every 1 ms", MILLISECOND, |setup| poll(setup, MILLISECOND)),
            polling("a poll every 10 ms", TEN, |setup| poll(setup, TEN)),
        ]
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const TEN: Duration = Duration::from_millis(10);
/// A user has 128 inotify instances in total.
const MAX_BARE: usize = 64;

fn create(path: &Path) -> File {
    OpenOptions::new().write(true).create_new(true).open(path).expect("create a file")
}

fn after(waited: flockwork::Result<()>) -> Duration {
    let woken = now();
    waited.expect("wait for the event");
    woken
}

fn wait_for_a_thread(setup: &Setup) -> Duration {
    let waiter = std::thread::current();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let reader = await_file(&setup.stat, &setup.directory);
            waiter.unpark();
            drop(reader);
        });
        while !setup.stat.exists() {
            std::thread::park();
        }
        now()
    })
}

fn poll(setup: &Setup, every: Duration) -> Duration {
    while !setup.stat.exists() {
        std::thread::sleep(every);
    }
    now()
}

// ---------------------------------------------------------------------------------------- wake-ups

/// The number of waiters and the number of rounds.
const CROWDS: [(usize, usize); 4] = [(1, 500), (16, 150), (64, 60), (256, 15)];
/// The time for waiters to fall asleep.
const SETTLING: Duration = Duration::from_millis(3);
/// The time in which all waiters begin to watch. A waiter that does not has to poll.
const WATCH_TIMEOUT: Duration = Duration::from_millis(500);

/// The results of one method's rounds.
#[derive(Default)]
struct Figures {
    firsts: Vec<Duration>,
    medians: Vec<Duration>,
    lasts: Vec<Duration>,
    /// The smallest number of waiters that watched in a round.
    watching: Option<usize>,
}

impl Figures {
    fn add(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        self.firsts.push(times[0]);
        self.medians.push(times[times.len() / 2]);
        self.lasts.push(times[times.len() - 1]);
    }
}

fn measure_wake_ups(dir: &Path, extent: Extent) {
    let methods = Method::all(dir);
    let is_run = |(size, _): &&(usize, usize)| extent == Extent::Full || *size <= 16;
    let mut peers = Vec::new();
    for &(size, rounds) in CROWDS.iter().filter(is_run) {
        peers.resize_with(size, || Peer::start_this_program(ROLE, WAIT, &[&dir]));
        let rounds = extent.times(rounds);
        let mut figures: Vec<Figures> = methods.iter().map(|_| Figures::default()).collect();
        let mut python = start_python(size);
        let mut of_python = Figures::default();
        for round in 0..rounds {
            for (index, (method, figures)) in methods.iter().zip(&mut figures).enumerate() {
                if size <= method.max_waiters {
                    wake(&mut peers, index, method, round, figures);
                }
            }
            if let Some(python) = &mut python {
                of_python.add(wake_in_python(python));
            }
        }
        let mut results: Vec<(&str, &[Target], Figures)> =
            methods.iter().zip(figures).map(|(it, f)| (it.name, it.targets, f)).collect();
        if let Some(python) = python {
            python.stop();
            results.push((PYTHON, &[], of_python));
        } else {
            println!("{PYTHON}: left out, not available");
        }
        print_wake_ups(size, rounds, results);
    }
    peers.into_iter().for_each(Peer::stop);
}

/// Measures one round: all processes wait, and the event is set.
fn wake(peers: &mut [Peer], index: usize, method: &Method, round: usize, figures: &mut Figures) {
    for peer in &mut *peers {
        peer.send(&index.to_string());
    }
    for peer in &mut *peers {
        assert_eq!(peer.receive().trim(), "waits");
    }
    match method.kind {
        Kind::Watching => {
            let watching = await_watching(peers, &method.setup.directory);
            figures.watching = Some(figures.watching.map_or(watching, |it| it.min(watching)));
            std::thread::sleep(SETTLING);
        }
        Kind::Polling(every) => {
            // The event is set at varying moments between two polls.
            let point = u32::try_from(round * 37 % 100).expect("less than 100");
            std::thread::sleep(SETTLING + every * point / 100);
        }
    }
    let set = now();
    (method.set)(&method.setup);
    let time = |peer: &mut Peer| {
        let woken = peer.receive().trim().parse().expect("a waiter's time");
        Duration::from_nanos(woken).saturating_sub(set)
    };
    figures.add(peers.iter_mut().map(time).collect());
    assert!(method.setup.event.clear().expect("clear the event"), "the event was set");
    // A process ends its watch a moment after the wait, and the number of watches is limited.
    std::thread::sleep(MILLISECOND * u32::try_from(peers.len()).expect("a crowd").min(100));
}

/// Waits until all processes watch and sleep, and returns how many of them watch. If some do not,
/// or if that is unknown, this takes [`WATCH_TIMEOUT`].
fn await_watching(peers: &[Peer], directory: &Path) -> usize {
    let end = now() + WATCH_TIMEOUT;
    let mut not_watching: Vec<u32> = peers.iter().map(Peer::id).collect();
    loop {
        not_watching.retain(|process| !watches(*process, directory));
        let is_ready = not_watching.is_empty() && peers.iter().all(|peer| is_asleep(peer.id()));
        if is_ready || now() > end {
            return peers.len() - not_watching.len();
        }
        std::thread::sleep(MILLISECOND / 4);
    }
}

/// The main function of a waiter.
fn run_waiter(dir: &Path) {
    let methods = Method::all(dir);
    for line in std::io::stdin().lines() {
        let index: usize = line.expect("read from the parent").parse().expect("a method's index");
        let method = &methods[index];
        println!("waits");
        let woken = (method.wait)(&method.setup);
        println!("{}", woken.as_nanos());
    }
}

fn print_wake_ups(
    size: usize,
    rounds: usize,
    results: Vec<(&'static str, &'static [Target], Figures)>,
) {
    let waiters =
        if size == 1 { "another process".into() } else { format!("{size} other processes") };
    let title = format!("From set until wait returns in {waiters} ({rounds} rounds, interleaved)");
    if size == 1 {
        let row = |(name, targets, it): (_, _, Figures)| Row::new(name, targets, it.lasts);
        let rows: Vec<Row> = results.into_iter().map(row).collect();
        print_table(&title, &rows, &[BARE, BARE_BY_THREAD]);
        return;
    }
    println!("\n{title}");
    println!("Medians over the rounds, for the first, the median and the last waiter.\nA = {BARE}");
    if size > MAX_BARE {
        println!(
            "A is left out: a user has 128 inotify instances, and each process uses one. A process \
             without one polls."
        );
    }
    let header =
        ["", "first us", "/A", "median us", "/A", "last us", "/A", "p99 of last us", "watching"];
    let mut lines = vec![header.map(String::from).to_vec()];
    let mut baseline: Option<[Duration; 3]> = None;
    for (name, _, it) in results {
        if it.lasts.is_empty() {
            continue;
        }
        let rows = [it.firsts, it.medians, it.lasts].map(|times| Row::new(name, &[], times));
        let medians = [0, 1, 2].map(|part| rows[part].median());
        if name == BARE {
            baseline = Some(medians);
        }
        let mut line = vec![name.to_owned()];
        for (part, median) in medians.into_iter().enumerate() {
            let ratio = baseline.map(|it| median.div_duration_f64(it[part]));
            line.push(microseconds(median));
            line.push(ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default());
        }
        line.push(microseconds(rows[2].p99()));
        line.push(it.watching.map(|watching| watching.to_string()).unwrap_or_default());
        lines.push(line);
    }
    print_aligned(&lines);
}

fn microseconds(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1e6)
}

// -------------------------------------------------------------------------------- without a waiter

const CHECK_ROUNDS: usize = 1000;
const CHECKS: usize = 32;
const STAT: &str = "bare stat";
const AS_STAT: &[Target] = &[Target { baseline: STAT, at_most: 1.2 }];

fn measure_checks(dir: &Path, extent: Extent) {
    let (rounds, batch) = (extent.times(CHECK_ROUNDS), extent.times(CHECKS));
    for is_set in [true, false] {
        let Setup { stat, event, .. } = Setup::new(dir, if is_set { "set" } else { "clear" });
        if is_set {
            event.set().expect("set the event");
        }
        let contenders = vec![
            Contender::new(STAT, &[], move || assert_eq!(stat.exists(), is_set)),
            Contender::new("flockwork is_set", AS_STAT, move || {
                assert_eq!(event.is_set().expect("check the event"), is_set);
            }),
        ];
        let rows = interleave(contenders, rounds, batch);
        let state = if is_set { "set" } else { "not set" };
        let title = format!(
            "A check of an event that is {state} ({rounds} rounds of {batch}, interleaved)"
        );
        print_table(&title, &rows, &[STAT]);
    }
}

const CYCLE_ROUNDS: usize = 100;
const CYCLES: usize = 8;
const CREATE: &str = "bare create+unlink";
const CREATE_SAFELY: &str = "bare create+write+fdatasync+rename+unlink";
const PAYLOAD: &[u8] = b"40123";

fn measure_cycles(dir: &Path, extent: Extent) {
    let path = dir.join("bare");
    let (aside, named) = (dir.join("aside"), dir.join("named"));
    let [plain, with_payload] = ["plain", "payload"].map(|name| Setup::new(dir, name).event);
    let remove = |path: &Path| std::fs::remove_file(path).expect("remove a file");
    let contenders = vec![
        Contender::new(CREATE, &[], move || {
            drop(create(&path));
            remove(&path);
        }),
        Contender::new(CREATE_SAFELY, &[], move || {
            let mut file = create(&aside);
            file.write_all(PAYLOAD).expect("write");
            file.sync_data().expect("sync");
            drop(file);
            std::fs::rename(&aside, &named).expect("rename");
            remove(&named);
        }),
        Contender::new("flockwork set+clear", &[], move || {
            plain.set().expect("set");
            plain.clear().expect("clear");
        }),
        Contender::new("flockwork set_with+clear", &[], move || {
            with_payload.set_with(PAYLOAD).expect("set");
            with_payload.clear().expect("clear");
        }),
    ];
    let (rounds, batch) = (extent.times(CYCLE_ROUNDS), extent.times(CYCLES));
    let rows = interleave(contenders, rounds, batch);
    let title = format!(
        "An event set and cleared in {} ({rounds} rounds of {batch}, interleaved)",
        dir.display()
    );
    print_table(&title, &rows, &[CREATE, CREATE_SAFELY]);
}

// --------------------------------------------------------------------------------- cost of waiting

const FUTURES: usize = 2000;
const MAX_BYTES: usize = 1024;

/// Measures the memory of a future, in a separate process whose memory nothing else has used
/// before.
fn measure_memory(dir: &Path, extent: Extent) {
    if !cfg!(target_os = "linux") {
        println!("\nMemory of a future: left out, measured on Linux only");
        return;
    }
    let mut peer = Peer::start_this_program(ROLE, MEASURE_MEMORY, &[&dir]);
    let answer = peer.receive();
    peer.stop();
    let mut numbers = answer.split_whitespace().map(|it| it.parse::<usize>().expect("a number"));
    let mut next = || numbers.next().expect("two numbers");
    let (size, growth) = (next(), next());
    let each = growth / FUTURES;
    let verdict = match extent {
        Extent::Full if each <= MAX_BYTES => " met",
        Extent::Full => " MISSED",
        _ => "",
    };
    println!(
        "\nA waiting future: {each} bytes, of which {size} are the future itself; target <= {MAX_BYTES}{verdict}\n\
         (from the growth of the process with {FUTURES} futures that wait for one event)"
    );
}

fn print_memory(dir: &Path) {
    let event = Setup::new(dir, "memory").event;
    let mut context = Context::from_waker(Waker::noop());
    let mut wait = || {
        let mut future = Box::new(event.wait_async());
        assert!(pin!(&mut future).poll(&mut context).is_pending());
        future
    };
    // The first wait starts the threads.
    let first = wait();
    let size = size_of_val(&*first);
    std::thread::sleep(MILLISECOND * 100);
    let mut futures = Vec::with_capacity(FUTURES);
    let before = resident();
    futures.extend((0..FUTURES).map(|_| wait()));
    std::thread::sleep(MILLISECOND * 100);
    println!("{size} {}", resident() - before);
}

/// The time until the waiters only wait.
const SETTLE_SPAN: Duration = Duration::from_millis(500);
const IDLE_SPAN: Duration = Duration::from_secs(5);
const MAX_SWITCHES: f64 = 1.0;

/// Measures how often a waiter wakes up while nothing happens.
fn measure_idle(dir: &Path, extent: Extent) {
    if !cfg!(target_os = "linux") {
        println!("\nWake-ups of a waiter: left out, counted on Linux only");
        return;
    }
    let span = if extent == Extent::Full { IDLE_SPAN } else { SETTLE_SPAN };
    let methods = Method::all(dir);
    let mut peers: Vec<Peer> =
        methods.iter().map(|_| Peer::start_this_program(ROLE, WAIT, &[&dir])).collect();
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.send(&index.to_string());
        assert_eq!(peer.receive().trim(), "waits");
    }
    std::thread::sleep(SETTLE_SPAN);
    let count = || -> Vec<usize> { peers.iter().map(|peer| switches(peer.id())).collect() };
    let before = count();
    std::thread::sleep(span);
    let after = count();

    println!(
        "\nVoluntary context switches of a waiting process while nothing happens, for {} s",
        span.as_secs_f64()
    );
    let mut lines = vec![["", "per second", "target"].map(String::from).to_vec()];
    for (method, (before, after)) in methods.iter().zip(before.into_iter().zip(after)) {
        let number = f64::from(u32::try_from(after - before).expect("fits into 32 bits"));
        let rate = number / span.as_secs_f64();
        let verdict = match extent {
            Extent::Full if rate <= MAX_SWITCHES => " met",
            Extent::Full => " MISSED",
            _ => "",
        };
        let has_target = !method.targets.is_empty();
        let target =
            if has_target { format!("<= {MAX_SWITCHES:.2}{verdict}") } else { String::new() };
        lines.push(vec![method.name.into(), format!("{rate:.2}"), target]);
    }
    print_aligned(&lines);
    for (mut peer, method) in peers.into_iter().zip(&methods) {
        (method.set)(&method.setup);
        peer.receive();
        method.setup.event.clear().expect("clear the event");
        peer.stop();
    }
}
