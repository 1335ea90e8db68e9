//! A worker process: two threads that run one operation after the other and record what they do.
//! The seed decides when the process is stopped and killed.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};

use crate::AnyResult;
use crate::arguments::Arguments;
use crate::breakage::Breakage;
use crate::faults::{self, Fault, FaultAction, FaultPoint};
use crate::operations::{self, recovery};
use crate::parent;
use crate::phase::Phase;
use crate::primitives::{Handle, PRIMITIVES, SENDER_LOCK, THREADS};
use crate::record::{Kind, Log, Record};
use crate::rng::Rng;

/// The limit of a worker's descriptors, low so that they are quickly used up.
const MAX_DESCRIPTORS: u64 = 200;
/// The thread of flockwork that catches panics of notify.
const PANICKING_THREAD: &str = "flockwork-watch";

/// The state that the threads of a worker share.
pub(crate) struct Process {
    pub(crate) arguments: Arguments,
    pub(crate) number: u32,
    pub(crate) generation: u32,
    pub(crate) directory: PathBuf,
    pub(crate) log: Log,
    pub(crate) handles: Vec<Handle>,
    pub(crate) sender_lock: flockwork::Lock,
    faults: Vec<Fault>,
    next_fault: AtomicUsize,
    phase: Mutex<(u64, Phase)>,
    phase_changed: Condvar,
    /// The number of the phase in which each thread pauses, or paused last.
    paused: [AtomicU64; THREADS as usize],
    /// Holds all free descriptors during a shortage.
    reserved: Mutex<Vec<OwnedFd>>,
    /// The number of begun and ended shortages of descriptors. Odd during a shortage.
    shortages: AtomicU64,
}

/// One thread of a worker.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) process: Arc<Process>,
    pub(crate) thread: u32,
    pub(crate) round: u64,
    numbers_used: u64,
}

pub(crate) fn run(arguments: &Arguments, number: u32, generation: u32) -> AnyResult<()> {
    parent::die_with_parent()?;
    let log = Log::open(&arguments.directory)?;
    log.write(Record {
        a: u64::try_from(getpid().as_raw_nonzero().get())?,
        ..Record::of(Kind::Started, number, generation)
    });
    let limit = Some(MAX_DESCRIPTORS);
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
    abort_on_panic();
    let mut rng = Rng::for_purpose(arguments.seed, &[2, u64::from(number), u64::from(generation)]);
    let directory = arguments.directory.clone();
    let retry = || log.write(Record::of(Kind::Opening, number, generation));
    let handles = PRIMITIVES.iter().map(|primitive| open(&directory, primitive, &mut rng, retry));
    let handles = handles.collect::<AnyResult<_>>()?;
    let process = Arc::new(Process {
        number,
        generation,
        log,
        handles,
        sender_lock: flockwork::Lock::open(directory.join(SENDER_LOCK))?,
        directory,
        faults: faults::schedule(arguments, number, generation),
        next_fault: AtomicUsize::new(0),
        phase: Mutex::new((0, Phase::Pause)),
        phase_changed: Condvar::new(),
        paused: Default::default(),
        reserved: Mutex::new(Vec::new()),
        shortages: AtomicU64::new(0),
        arguments: arguments.clone(),
    });
    std::thread::scope(|scope| {
        let process = &process;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let process = Arc::clone(process);
                let actor = Actor { process, thread, round: 0, numbers_used: 0 };
                scope.spawn(move || actor.run())
            })
            .collect();
        scope.spawn(move || {
            for (number, phase) in parent::phases() {
                *process.phase.lock().unwrap_or_else(PoisonError::into_inner) = (number, phase);
                process.phase_changed.notify_all();
                match phase {
                    Phase::Run => {}
                    Phase::End => return,
                    Phase::Pause | Phase::Check => process.abort_barriers(number),
                }
            }
            std::process::exit(70); // The coordinator has ended.
        });
        for thread in threads {
            let _ = thread.join();
        }
    });
    Ok(())
}

/// Opens a primitive, whose files may be tampered with at this moment. Calls `retry` before each
/// further attempt.
fn open(
    directory: &std::path::Path,
    primitive: &crate::primitives::Primitive,
    rng: &mut Rng,
    retry: impl Fn(),
) -> AnyResult<Handle> {
    let mut attempts = 0_u32;
    loop {
        match Handle::open(directory, primitive, rng) {
            // The process retries until the damage is removed, which took more than ten seconds on
            // a busy machine.
            Err(error) if primitive.is_tampered_with && attempts < 10_000 => {
                attempts += 1;
                if attempts % 500 == 0 {
                    eprintln!("{} cannot be opened yet: {error}", primitive.path);
                }
                std::thread::sleep(Duration::from_millis(10));
                retry();
            }
            opened => return Ok(opened?),
        }
    }
}

/// Makes a panic in any thread end the process, so that the coordinator notices it.
fn abort_on_panic() {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(PANICKING_THREAD) {
            default_hook(panic);
            std::process::abort();
        }
    }));
}

impl Process {
    pub(crate) fn is_broken(&self, how: Breakage) -> bool {
        self.arguments.broken == Some(how)
    }

    /// Returns the number of begun and ended shortages. A call was affected by a shortage if the
    /// number changed.
    pub(crate) fn shortages(&self) -> u64 {
        self.shortages.load(Ordering::SeqCst)
    }

    pub(crate) fn was_short_since(&self, before: u64) -> bool {
        before % 2 == 1 || self.shortages() != before
    }

    fn use_up_descriptors(&self) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.is_empty() {
            self.shortages.fetch_add(1, Ordering::SeqCst);
        }
        while let Ok(descriptor) = rustix::io::dup(std::io::stdin()) {
            reserved.push(descriptor);
        }
    }

    fn release_descriptors(&self) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if !reserved.is_empty() {
            reserved.clear();
            self.shortages.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Ends the waits at barriers, whose other participants may pause already, until all threads
    /// pause.
    fn abort_barriers(&self, phase: u64) {
        while self.paused.iter().any(|paused| paused.load(Ordering::SeqCst) < phase) {
            for handle in &self.handles {
                if let Handle::Barrier(barrier) = handle {
                    let _ = barrier.abort(); // It is called again.
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the phase of that number is over.
    fn wait_for_next_phase(&self, current: u64) {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.phase_changed.wait_while(phase, |(number, _)| *number <= current));
    }
}

impl Actor {
    fn run(mut self) {
        let process = Arc::clone(&self.process);
        loop {
            let (number, phase) = *process.phase.lock().unwrap_or_else(PoisonError::into_inner);
            match phase {
                Phase::Run if number > 0 => {
                    self.round += 1;
                    self.create_shortage();
                    operations::run_round(&mut self);
                }
                Phase::End => return,
                _ => {
                    self.end_shortage();
                    if phase == Phase::Check {
                        recovery::check(&mut self);
                    }
                    process.paused[self.thread as usize].store(number, Ordering::SeqCst);
                    self.record(Kind::Paused, 0, number, 0);
                    process.wait_for_next_phase(number);
                }
            }
        }
    }

    /// Uses up all descriptors for three rounds of 120.
    fn create_shortage(&self) {
        const EVERY: u64 = 120;
        if self.thread != 0 {
            return;
        }
        match self.round % EVERY {
            60 => {
                self.process.use_up_descriptors();
                self.record(Kind::Tampered, 0, 1, 0);
            }
            // Descriptors that were closed in the meantime are used up as well.
            61 | 62 => self.process.use_up_descriptors(),
            63 => self.process.release_descriptors(),
            _ => {}
        }
    }

    fn end_shortage(&self) {
        if self.thread == 0 {
            self.process.release_descriptors();
        }
    }

    pub(crate) fn record(&self, kind: Kind, primitive: usize, a: u64, b: u64) {
        let Process { number, generation, .. } = *self.process;
        let record = Record::of(kind, number, generation);
        self.process.log.write(Record { thread: self.thread, primitive, a, b, ..record });
    }

    pub(crate) fn violation(&self, primitive: usize, what: &str) {
        eprintln!(
            "worker {}.{} thread {} round {}, {}: {what}",
            self.process.number,
            self.process.generation,
            self.thread,
            self.round,
            PRIMITIVES[primitive].path
        );
        self.record(Kind::Violation, primitive, 0, 0);
    }

    /// Returns a number that is used once in the run.
    pub(crate) fn unique_number(&mut self) -> u64 {
        self.numbers_used += 1;
        let Process { number, generation, .. } = *self.process;
        let process = (u64::from(number) + 1) << 58 | u64::from(generation) << 26;
        process | u64::from(self.thread) << 25 | self.numbers_used
    }

    /// Marks a point at which the next fault of this process may happen.
    pub(crate) fn fault_point(&self, point: FaultPoint) {
        let process = &self.process;
        if self.thread != 0 {
            return;
        }
        let index = process.next_fault.load(Ordering::Relaxed);
        let Some(fault) = process.faults.get(index) else { return };
        if self.round < fault.round || point != fault.point {
            return;
        }
        process.next_fault.store(index + 1, Ordering::Relaxed);
        match fault.action {
            FaultAction::Stop { .. } | FaultAction::Kill { .. } => {
                // The coordinator stops or kills this process some time after it has read this
                // line.
                let mut out = std::io::stdout().lock();
                let _ = writeln!(out, "{index}").and_then(|()| out.flush());
            }
            FaultAction::KillSelf => {
                self.record(Kind::Ending, 0, 1, 0);
                let _ = kill_process(getpid(), Signal::KILL);
            }
            FaultAction::Exit => {
                self.record(Kind::Ending, 0, 2, 0);
                std::process::exit(0); // Runs no destructors.
            }
        }
    }
}
