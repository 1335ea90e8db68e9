//! An event: how long from the set in one process to the waits returning in others, what it costs when nobody
//! waits, and what one who waits costs while nothing happens.
//!
//! This program starts itself again as the waiters. What is compared takes turns, so that what else the machine
//! does hits all alike.

#[allow(dead_code, reason = "the other benches have more to compare with")]
mod common;

#[path = "common/clock.rs"]
mod clock;
#[path = "common/contender.rs"]
mod contender;
#[path = "common/cycle.rs"]
mod cycle;
#[allow(dead_code, reason = "another bench asks for more")]
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
use peer::{Peer, end_after};
use python_event::{PYTHON, start_python, wake_in_python};
use waiting::{BARE, await_file, is_asleep, resident, switches, watches};

/// Long enough never to end.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What this process is to be, if it is not the first. The directory is in its arguments.
const ROLE: &str = "FLOCKWORK_BENCH_EVENT";
const WAIT: &str = "wait";
const WEIGH: &str = "weigh";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        end_after(TIMEOUT);
        let dir = std::env::args().nth(1).expect("a directory");
        match &*role {
            WAIT => run_waiter(Path::new(&dir)),
            WEIGH => weigh(Path::new(&dir)),
            role => panic!("no role: {role}"),
        }
        return;
    }
    let extent = Extent::from_args();
    if extent != Extent::List {
        let dir = tempfile::tempdir().expect("a temporary directory");
        measure_wake_ups(dir.path(), extent);
        measure_looks(dir.path(), extent);
        measure_cycles(dir.path(), extent);
        measure_weight(dir.path(), extent);
        measure_idling(dir.path(), extent);
    }
}

// ------------------------------------------------------------------------------------------- methods

/// The least that it takes where one thread listens for all who wait in a process: it must wake them.
const BARE_BY_THREAD: &str = "bare inotify reader, wakes another thread";
const AS_BARE: &[Target] = &[Target { baseline: BARE, at_most: 1.5 }];

/// A way to wait, and a file of its own to wait for.
struct Method {
    name: &'static str,
    targets: &'static [Target],
    kind: Kind,
    /// Of more waiters it is left out.
    most: usize,
    place: Place,
    wait: fn(&Place) -> Duration,
    set: fn(&Place),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Watching,
    /// Looks so often.
    Polling(Duration),
}

/// A directory of its own: who watches it hears of everything in it.
struct Place {
    directory: PathBuf,
    path: PathBuf,
    stat: bare::Stat,
    event: Event,
}

impl Place {
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
            most: usize::MAX,
            place: Place::new(dir, name),
            wait,
            set: |place| drop(create(&place.path)),
        };
        let flockwork = |name, wait| Self {
            targets: AS_BARE,
            set: |place| assert!(place.event.set().expect("set the event"), "nobody has set it"),
            ..new(name, wait)
        };
        let polling = |name, every, wait| Self { kind: Kind::Polling(every), ..new(name, wait) };
        vec![
            Self {
                most: MAX_BARE,
                ..new(BARE, |place| {
                    let reader = await_file(&place.stat, &place.directory);
                    let woken = now();
                    drop(reader);
                    woken
                })
            },
            Self { most: MAX_BARE, ..new(BARE_BY_THREAD, wait_for_a_thread) },
            flockwork("flockwork wait", |place| after(place.event.wait())),
            flockwork("flockwork wait_timeout", |place| after(place.event.wait_timeout(TIMEOUT))),
            flockwork("flockwork wait_async", |place| after(block_on(place.event.wait_async()))),
            polling("a look each millisecond", MILLISECOND, |place| poll(place, MILLISECOND)),
            polling("a look each 10 ms", TEN, |place| poll(place, TEN)),
        ]
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const TEN: Duration = Duration::from_millis(10);
/// A user has 128 inotify instances in all.
const MAX_BARE: usize = 64;

fn create(path: &Path) -> File {
    OpenOptions::new().write(true).create_new(true).open(path).expect("make a file")
}

fn after(waited: flockwork::Result<()>) -> Duration {
    let woken = now();
    waited.expect("wait for the event");
    woken
}

fn wait_for_a_thread(place: &Place) -> Duration {
    let waiter = std::thread::current();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let reader = await_file(&place.stat, &place.directory);
            waiter.unpark();
            drop(reader);
        });
        while !place.stat.is_there() {
            std::thread::park();
        }
        now()
    })
}

fn poll(place: &Place, every: Duration) -> Duration {
    while !place.stat.is_there() {
        std::thread::sleep(every);
    }
    now()
}

// -------------------------------------------------------------------------------------- from set to wait

/// How many wait, and how often.
const CROWDS: [(usize, usize); 4] = [(1, 500), (16, 150), (64, 60), (256, 15)];
/// For who is asleep to be fast asleep.
const SETTLING: Duration = Duration::from_millis(3);
/// So long it is waited for all to watch. Who cannot has begun to look now and then.
const PATIENCE: Duration = Duration::from_millis(500);

/// What one method's rounds came to.
#[derive(Default)]
struct Figures {
    firsts: Vec<Duration>,
    medians: Vec<Duration>,
    lasts: Vec<Duration>,
    /// The fewest who watched in a round.
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
                if size <= method.most {
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
            println!("{PYTHON}: left out, it is not to be had here");
        }
        print_wake_ups(size, rounds, results);
    }
    peers.into_iter().for_each(Peer::stop);
}

/// One round: all of them wait, and the event is set.
fn wake(peers: &mut [Peer], index: usize, method: &Method, round: usize, figures: &mut Figures) {
    for peer in &mut *peers {
        peer.tell(&index.to_string());
    }
    for peer in &mut *peers {
        assert_eq!(peer.hear().trim(), "waits");
    }
    match method.kind {
        Kind::Watching => {
            let watching = await_watching(peers, &method.place.directory);
            figures.watching = Some(figures.watching.map_or(watching, |it| it.min(watching)));
            std::thread::sleep(SETTLING);
        }
        Kind::Polling(every) => {
            // At any point between two looks.
            let point = u32::try_from(round * 37 % 100).expect("less than 100");
            std::thread::sleep(SETTLING + every * point / 100);
        }
    }
    let set = now();
    (method.set)(&method.place);
    let time = |peer: &mut Peer| {
        let woken = peer.hear().trim().parse().expect("a waiter's time");
        Duration::from_nanos(woken).saturating_sub(set)
    };
    figures.add(peers.iter_mut().map(time).collect());
    assert!(method.place.event.clear().expect("clear the event"), "somebody has cleared it");
    // Watches are given up a moment after they were needed, and too many at once cannot be had.
    std::thread::sleep(MILLISECOND * u32::try_from(peers.len()).expect("a crowd").min(100));
}

/// Returns how many of them watch, when all do and are asleep. Where that is not known, or cannot be, it takes the
/// time that there is for it.
fn await_watching(peers: &[Peer], directory: &Path) -> usize {
    let end = now() + PATIENCE;
    let mut others: Vec<u32> = peers.iter().map(Peer::id).collect();
    loop {
        others.retain(|process| !watches(*process, directory));
        let is_ready = others.is_empty() && peers.iter().all(|peer| is_asleep(peer.id()));
        if is_ready || now() > end {
            return peers.len() - others.len();
        }
        std::thread::sleep(MILLISECOND / 4);
    }
}

/// The `main` of a waiter.
fn run_waiter(dir: &Path) {
    let methods = Method::all(dir);
    for order in std::io::stdin().lines() {
        let index: usize = order.expect("hear the order").parse().expect("a method's index");
        let method = &methods[index];
        println!("waits");
        let woken = (method.wait)(&method.place);
        println!("{}", woken.as_nanos());
    }
}

fn print_wake_ups(
    size: usize,
    rounds: usize,
    results: Vec<(&'static str, &'static [Target], Figures)>,
) {
    let others =
        if size == 1 { "another process".into() } else { format!("{size} other processes") };
    let title = format!("From set to wait returning in {others} ({rounds} rounds, interleaved)");
    if size == 1 {
        let row = |(name, targets, it): (_, _, Figures)| Row::new(name, targets, it.lasts);
        let rows: Vec<Row> = results.into_iter().map(row).collect();
        print_table(&title, &rows, &[BARE, BARE_BY_THREAD]);
        return;
    }
    println!("\n{title}");
    println!(
        "Medians over the rounds, of the first, the median and the last of the waiters.\nA = {BARE}"
    );
    if size > MAX_BARE {
        println!(
            "A is left out: a user has 128 inotify instances, and each process takes one. Who has none looks now and then."
        );
    }
    let header = [
        "",
        "first us",
        "/A",
        "median us",
        "/A",
        "last us",
        "/A",
        "p99 of last us",
        "of them watch",
    ];
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

// ------------------------------------------------------------------------------------- nobody waits

const LOOK_ROUNDS: usize = 1000;
const LOOKS: usize = 32;
const STAT: &str = "bare stat";
const AS_STAT: &[Target] = &[Target { baseline: STAT, at_most: 1.2 }];

fn measure_looks(dir: &Path, extent: Extent) {
    let (rounds, batch) = (extent.times(LOOK_ROUNDS), extent.times(LOOKS));
    for is_set in [true, false] {
        let Place { stat, event, .. } = Place::new(dir, if is_set { "set" } else { "clear" });
        if is_set {
            event.set().expect("set the event");
        }
        let contenders = vec![
            Contender::new(STAT, &[], move || assert_eq!(stat.is_there(), is_set)),
            Contender::new("flockwork is_set", AS_STAT, move || {
                assert_eq!(event.is_set().expect("look"), is_set);
            }),
        ];
        let rows = interleave(contenders, rounds, batch);
        let state = if is_set { "set" } else { "not set" };
        let title =
            format!("A look at an event that is {state} ({rounds} rounds of {batch}, interleaved)");
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
    let [plain, with_payload] = ["plain", "payload"].map(|name| Place::new(dir, name).event);
    let remove = |path: &Path| std::fs::remove_file(path).expect("remove a file");
    let contenders = vec![
        Contender::new(CREATE, &[], move || {
            drop(create(&path));
            remove(&path);
        }),
        Contender::new(CREATE_SAFELY, &[], move || {
            let mut file = create(&aside);
            file.write_all(PAYLOAD).expect("write");
            file.sync_data().expect("bring it to the disk");
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

// -------------------------------------------------------------------------------- what waiting costs

const FUTURES: usize = 2000;
const BYTES_AT_MOST: usize = 1024;

/// In a process of its own, whose memory nothing else has used before.
fn measure_weight(dir: &Path, extent: Extent) {
    if !cfg!(target_os = "linux") {
        println!("\nMemory of a future: left out, Linux tells it");
        return;
    }
    let mut peer = Peer::start_this_program(ROLE, WEIGH, &[&dir]);
    let answer = peer.hear();
    peer.stop();
    let mut numbers = answer.split_whitespace().map(|it| it.parse::<usize>().expect("a number"));
    let mut next = || numbers.next().expect("two numbers");
    let (size, growth) = (next(), next());
    let each = growth / FUTURES;
    let verdict = match extent {
        Extent::Full if each <= BYTES_AT_MOST => " met",
        Extent::Full => " MISSED",
        _ => "",
    };
    println!(
        "\nA waiting future: {each} bytes, of which {size} are the future itself; target <= {BYTES_AT_MOST}{verdict}\n\
         (by the growth of the process with {FUTURES} futures that wait for one event)"
    );
}

fn weigh(dir: &Path) {
    let event = Place::new(dir, "weight").event;
    let mut context = Context::from_waker(Waker::noop());
    let mut wait = || {
        let mut future = Box::new(event.wait_async());
        assert!(pin!(&mut future).poll(&mut context).is_pending());
        future
    };
    // The first has the threads started.
    let first = wait();
    let size = size_of_val(&*first);
    std::thread::sleep(MILLISECOND * 100);
    let mut futures = Vec::with_capacity(FUTURES);
    let before = resident();
    futures.extend((0..FUTURES).map(|_| wait()));
    std::thread::sleep(MILLISECOND * 100);
    println!("{size} {}", resident() - before);
}

/// For the waiters to have come to rest.
const RESTING: Duration = Duration::from_millis(500);
const IDLE_SPAN: Duration = Duration::from_secs(5);
const SWITCHES_AT_MOST: f64 = 1.0;

/// How often a waiter wakes up while nothing happens.
fn measure_idling(dir: &Path, extent: Extent) {
    if !cfg!(target_os = "linux") {
        println!("\nWake-ups of who waits: left out, Linux counts them");
        return;
    }
    let span = if extent == Extent::Full { IDLE_SPAN } else { RESTING };
    let methods = Method::all(dir);
    let mut peers: Vec<Peer> =
        methods.iter().map(|_| Peer::start_this_program(ROLE, WAIT, &[&dir])).collect();
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.tell(&index.to_string());
        assert_eq!(peer.hear().trim(), "waits");
    }
    std::thread::sleep(RESTING);
    let count = || -> Vec<usize> { peers.iter().map(|peer| switches(peer.id())).collect() };
    let before = count();
    std::thread::sleep(span);
    let after = count();

    println!(
        "\nVoluntary context switches of a waiting process while nothing happens, for {} s",
        span.as_secs_f64()
    );
    let mut lines = vec![["", "a second", "target"].map(String::from).to_vec()];
    for (method, (before, after)) in methods.iter().zip(before.into_iter().zip(after)) {
        let number = f64::from(u32::try_from(after - before).expect("not so many"));
        let rate = number / span.as_secs_f64();
        let verdict = match extent {
            Extent::Full if rate <= SWITCHES_AT_MOST => " met",
            Extent::Full => " MISSED",
            _ => "",
        };
        let has_target = !method.targets.is_empty();
        let target =
            if has_target { format!("<= {SWITCHES_AT_MOST:.2}{verdict}") } else { String::new() };
        lines.push(vec![method.name.into(), format!("{rate:.2}"), target]);
    }
    print_aligned(&lines);
    for (mut peer, method) in peers.into_iter().zip(&methods) {
        (method.set)(&method.place);
        peer.hear();
        method.place.event.clear().expect("clear the event");
        peer.stop();
    }
}
