//! A worker: two threads that go from round to round, tell the witness what they do, and come to grief as the seed
//! has it.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};

use crate::arguments::Arguments;
use crate::dice::Dice;
use crate::fate::{self, Blow, Step, Stroke};
use crate::record::{Kind, Log, Record};
use crate::rounds;
use crate::things::{Breakage, Handle, SENDERS, THINGS, THREADS};
use crate::tie::{self, Order};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// So many descriptors a worker may have, so that it is quickly done to use them up.
const DESCRIPTORS: u64 = 200;
/// The thread in which flockwork expects notify to panic now and then, and catches it.
const EXPECTED_TO_PANIC: &str = "flockwork-watch";

/// What the threads of a process share.
pub(crate) struct Process {
    pub(crate) arguments: Arguments,
    pub(crate) number: u32,
    pub(crate) generation: u32,
    pub(crate) directory: PathBuf,
    pub(crate) log: Log,
    pub(crate) handles: Vec<Handle>,
    pub(crate) senders: flockwork::Lock,
    strokes: Vec<Stroke>,
    struck: AtomicUsize,
    order: Mutex<(u64, Order)>,
    ordered: Condvar,
    hoard: Mutex<Vec<OwnedFd>>,
    /// Odd: there is no descriptor to be had.
    scarcity: AtomicU64,
}

/// One of the threads.
pub(crate) struct Actor<'a> {
    pub(crate) process: &'a Process,
    pub(crate) thread: u32,
    pub(crate) round: u64,
    told: u64,
}

pub(crate) fn run(arguments: &Arguments, number: u32, generation: u32) -> Outcome<()> {
    tie::die_with_the_parent()?;
    let log = Log::open(&arguments.directory)?;
    log.write(Record {
        a: u64::try_from(getpid().as_raw_nonzero().get())?,
        ..Record::of(Kind::Begins, number, generation)
    });
    let limit = Some(DESCRIPTORS);
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
    panics_end_it();
    let mut dice = Dice::of(arguments.seed, &[2, u64::from(number), u64::from(generation)]);
    let directory = arguments.directory.clone();
    let handles = THINGS.iter().map(|thing| open(&directory, thing, &mut dice));
    let process = Process {
        number,
        generation,
        log,
        handles: handles.collect::<Outcome<_>>()?,
        senders: flockwork::Lock::open(directory.join(SENDERS))?,
        directory,
        strokes: fate::of(arguments, number, generation),
        struck: AtomicUsize::new(0),
        order: Mutex::new((0, Order::Pause)),
        ordered: Condvar::new(),
        hoard: Mutex::new(Vec::new()),
        scarcity: AtomicU64::new(0),
        arguments: arguments.clone(),
    };
    std::thread::scope(|scope| {
        let process = &process;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || Actor { process, thread, round: 0, told: 0 }.live()))
            .collect();
        scope.spawn(move || {
            for (number, order) in tie::orders().filter_map(|line| tie::parse(&line)) {
                *process.order.lock().unwrap_or_else(PoisonError::into_inner) = (number, order);
                process.ordered.notify_all();
                if order == Order::End {
                    return;
                }
            }
            std::process::exit(70); // the conductor has ended
        });
        for thread in threads {
            let _ = thread.join();
        }
    });
    Ok(())
}

/// Somebody may be meddling with the files in the yard at this moment.
fn open(
    directory: &std::path::Path,
    thing: &crate::things::Thing,
    dice: &mut Dice,
) -> Outcome<Handle> {
    let mut tries = 0_u32;
    loop {
        match Handle::open(directory, thing, dice) {
            // Until the damage is undone: on a busy machine that took more than ten seconds.
            Err(_) if thing.is_in_the_yard && tries < 100_000 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return Ok(opened?),
        }
    }
}

/// A panic in any thread ends the process, so that the conductor sees it.
fn panics_end_it() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(EXPECTED_TO_PANIC) {
            usual(panic);
            std::process::abort();
        }
    }));
}

impl Process {
    pub(crate) fn is_broken(&self, how: Breakage) -> bool {
        self.arguments.broken == Some(how)
    }

    /// Who asks before a call and after it knows whether descriptors were lacking meanwhile.
    pub(crate) fn scarcity(&self) -> u64 {
        self.scarcity.load(Ordering::SeqCst)
    }

    pub(crate) fn was_scarce_since(&self, before: u64) -> bool {
        before % 2 == 1 || self.scarcity() != before
    }

    fn use_up_descriptors(&self) {
        let mut hoard = self.hoard.lock().unwrap_or_else(PoisonError::into_inner);
        if hoard.is_empty() {
            self.scarcity.fetch_add(1, Ordering::SeqCst);
        }
        while let Ok(descriptor) = rustix::io::dup(std::io::stdin()) {
            hoard.push(descriptor);
        }
    }

    fn give_descriptors_back(&self) {
        let mut hoard = self.hoard.lock().unwrap_or_else(PoisonError::into_inner);
        if !hoard.is_empty() {
            hoard.clear();
            self.scarcity.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits for a newer order than that; the rests are told by who rests.
    fn newer_order(&self, than: u64) -> (u64, Order) {
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = self.ordered.wait_while(order, |(number, _)| *number <= than);
        *newer.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Actor<'_> {
    fn live(mut self) {
        let process = self.process;
        loop {
            let (number, order) = *process.order.lock().unwrap_or_else(PoisonError::into_inner);
            match order {
                Order::Go if number > 0 => {
                    self.round += 1;
                    self.scarcity();
                    rounds::one(&mut self);
                }
                Order::End => return,
                _ => {
                    self.give_back();
                    if order == Order::Check {
                        rounds::check_the_yard(&mut self);
                    }
                    self.tell(Kind::Rests, 0, number, 0);
                    process.newer_order(number);
                }
            }
        }
    }

    /// Every now and then there are no descriptors for three rounds.
    fn scarcity(&self) {
        const EVERY: u64 = 120;
        if self.thread != 0 {
            return;
        }
        match self.round % EVERY {
            60 => {
                self.process.use_up_descriptors();
                self.tell(Kind::Mischief, 0, 1, 0);
            }
            // Also those that were given back meanwhile.
            61 | 62 => self.process.use_up_descriptors(),
            63 => self.process.give_descriptors_back(),
            _ => {}
        }
    }

    fn give_back(&self) {
        if self.thread == 0 {
            self.process.give_descriptors_back();
        }
    }

    pub(crate) fn tell(&self, kind: Kind, thing: usize, a: u64, b: u64) {
        let Process { number, generation, .. } = *self.process;
        let record = Record::of(kind, number, generation);
        self.process.log.write(Record { thread: self.thread, thing, a, b, ..record });
    }

    pub(crate) fn wrong(&self, thing: usize, what: &str) {
        eprintln!(
            "worker {}.{} thread {} round {}, {}: {what}",
            self.process.number,
            self.process.generation,
            self.thread,
            self.round,
            THINGS[thing].path
        );
        self.tell(Kind::Wrong, thing, 0, 0);
    }

    /// A number that no other ever has.
    pub(crate) fn token(&mut self) -> u64 {
        self.told += 1;
        let Process { number, generation, .. } = *self.process;
        let process = (u64::from(number) + 1) << 58 | u64::from(generation) << 26;
        process | u64::from(self.thread) << 25 | self.told
    }

    /// A step at which this process may be struck.
    pub(crate) fn step(&self, step: Step) {
        let process = self.process;
        if self.thread != 0 {
            return;
        }
        let at = process.struck.load(Ordering::Relaxed);
        let Some(stroke) = process.strokes.get(at) else { return };
        if self.round < stroke.round || step != stroke.step {
            return;
        }
        process.struck.store(at + 1, Ordering::Relaxed);
        match stroke.blow {
            Blow::Stop(..) | Blow::Kill(_) => {
                // The conductor does it, so long after it has heard of this.
                let mut out = std::io::stdout().lock();
                let _ = writeln!(out, "{at}").and_then(|()| out.flush());
            }
            Blow::KillsItself => {
                self.tell(Kind::Condemned, 0, 1, 0);
                let _ = kill_process(getpid(), Signal::KILL);
            }
            Blow::Exits => {
                self.tell(Kind::Condemned, 0, 2, 0);
                std::process::exit(0); // no destructor is run
            }
        }
    }
}
