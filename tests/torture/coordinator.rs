//! The coordinator: starts all processes, pauses them at intervals, and checks that nothing is held
//! during a pause.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::AnyResult;
use crate::arguments::Arguments;
use crate::breakage::Breakage;
use crate::children::{self, Children, Message, lock, start};
use crate::monitor::{COUNT, PAUSED, STALLED};
use crate::operations::semaphores;
use crate::phase::{self, Phase};
use crate::primitives::{ELASTIC_CAPACITY, PRIMITIVES, PrimitiveKind, WORKERS};
use crate::probe;
use crate::record::{COORDINATOR, Kind, Log, Record};

/// The number of pauses in a run.
const PAUSES: u64 = 10;

pub(crate) fn run(arguments: &Arguments) -> AnyResult<bool> {
    let again =
        format!("cargo run --release --example torture -- {}", arguments.to_words().join(" "));
    println!("seed {}\n{again}\n", arguments.seed);
    let directory = tempfile::Builder::new().prefix("torture").tempdir_in(&arguments.directory)?;
    let arguments = Arguments { directory: directory.path().into(), ..arguments.clone() };
    let start = Instant::now();
    let is_clean = run_all(&arguments)?;
    println!("{:.0} seconds.", start.elapsed().as_secs_f64());
    if !is_clean {
        println!("Not clean. To repeat: {again}");
    }
    Ok(is_clean)
}

fn run_all(arguments: &Arguments) -> AnyResult<bool> {
    let log = Arc::new(Log::create(&arguments.directory)?);
    for primitive in PRIMITIVES.iter().filter(|primitive| primitive.kind == PrimitiveKind::Elastic)
    {
        let options = flockwork::Options::new();
        options
            .open_semaphore(arguments.directory.join(primitive.path), *ELASTIC_CAPACITY.end())?;
    }
    let (sender, messages) = channel();
    let (mut monitor, stdin, lines) = start(arguments, &["monitor".into()])?;
    let _stdin = stdin; // Stays open until this function returns.
    let report = children::forward_output(lines, sender.clone());
    let children =
        Children { phase: (1, Phase::Run), stdins: BTreeMap::new(), workers: BTreeMap::new() };
    let children = Arc::new(Mutex::new(children));
    let (mut chaos, chaos_stdin, _) = start(arguments, &["chaos".into()])?;
    children::register_stdin(&children, WORKERS, chaos_stdin);
    // The kernel kills a child when the thread that started it ends (`parent.rs`), so each worker
    // has a thread for the whole run.
    let supervisors: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (arguments, children) = (arguments.clone(), Arc::clone(&children));
            let (log, sender) = (Arc::clone(&log), sender.clone());
            std::thread::spawn(move || {
                if let Err(error) =
                    children::supervise(&arguments, worker, &children, &log, &sender)
                {
                    let _ = sender.send(Message::Failed(format!("worker {worker}: {error}")));
                }
            })
        })
        .collect();
    let mut run = Run { arguments, children, messages, log, end: Instant::now() + arguments.limit };
    let outcome = run.run_phases();
    if let Err(error) = &outcome {
        eprintln!("{error}");
        run.announce(Phase::End);
        for worker in lock(&run.children).workers.values() {
            let _ = kill_process(*worker, Signal::KILL); // Also ends a stalled or stopped one.
        }
        chaos.kill()?;
    }
    for supervisor in supervisors {
        let _ = supervisor.join();
    }
    chaos.wait()?;
    let is_aborted = u64::from(outcome.is_err());
    run.log.write(Record { a: is_aborted, ..Record::of(Kind::End, COORDINATOR, 0) });
    let is_clean = monitor.wait()?.success();
    let _ = report.join();
    Ok(is_clean && outcome.is_ok())
}

/// A run in progress.
struct Run<'a> {
    arguments: &'a Arguments,
    children: Arc<Mutex<Children>>,
    messages: Receiver<Message>,
    log: Arc<Log>,
    end: Instant,
}

impl Run<'_> {
    fn run_phases(&mut self) -> AnyResult<()> {
        let Arguments { acquisitions, kills, .. } = *self.arguments;
        let mut next_pause = acquisitions / PAUSES;
        let mut progress = (0, 0);
        while progress.0 < acquisitions || progress.1 < kills {
            if let Some((word, numbers)) = self.receive()?.filter(|(word, _)| word == COUNT) {
                let [acquired, killed, violations] = numbers[..] else {
                    return Err(format!("invalid line: {word} {numbers:?}").into());
                };
                progress = (acquired, killed);
                if self.arguments.broken.is_some() && violations > 0 {
                    return Err("the deliberate error was detected".into());
                }
            }
            if progress.0 >= next_pause && progress.0 < acquisitions {
                next_pause = progress.0 + acquisitions / PAUSES;
                self.wait_until_paused(Phase::Pause)?;
                self.check_nothing_is_held()?;
                self.announce(Phase::Run);
            }
        }
        self.wait_until_paused(Phase::Pause)?;
        self.check_nothing_is_held()?;
        self.wait_until_paused(Phase::Check)?;
        self.check_nothing_is_held()?;
        self.announce(Phase::End);
        Ok(())
    }

    /// Receives the next line of the monitor: a word and numbers.
    fn receive(&mut self) -> AnyResult<Option<(String, Vec<u64>)>> {
        let left = self.end.saturating_duration_since(Instant::now());
        match self.messages.recv_timeout(left.min(Duration::from_millis(500))) {
            Ok(Message::Line(line)) if line == STALLED => {
                Err("a thread makes no progress: see above".into())
            }
            Ok(Message::Line(line)) => {
                let mut words = line.split(' ');
                let word = words.next().unwrap_or_default().to_owned();
                Ok(Some((word, words.filter_map(|word| word.parse().ok()).collect())))
            }
            Ok(Message::Failed(words)) => Err(words.into()),
            Ok(Message::MonitorEnded) => Err("the monitor has ended".into()),
            Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                Err(format!("not done within {:?}", self.arguments.limit).into())
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("all senders have ended".into()),
        }
    }

    fn announce(&self, phase: Phase) -> u64 {
        let mut children = lock(&self.children);
        let number = children.phase.0 + 1;
        children.phase = (number, phase);
        for stdin in children.stdins.values_mut() {
            // An error means that the child has ended; its successor receives the phase when it
            // starts.
            let _ = stdin.write_all(phase::to_line(number, phase).as_bytes());
        }
        number
    }

    /// Announces a phase, and waits until all processes pause, including those that start in the
    /// meantime.
    fn wait_until_paused(&mut self, phase: Phase) -> AnyResult<()> {
        let number = self.announce(phase);
        loop {
            if let Some((word, numbers)) = self.receive()? {
                if word == PAUSED && numbers.first().is_some_and(|paused| *paused >= number) {
                    return Ok(());
                }
            }
        }
    }

    /// No process holds anything during a pause, so everything must be available.
    fn check_nothing_is_held(&self) -> AnyResult<()> {
        let Arguments { directory, patience, broken, .. } = self.arguments;
        if *broken == Some(Breakage::Permit) {
            semaphores::leak(directory)?;
        }
        // A permit that was leaked on purpose is never released.
        let patience = if broken.is_some() { Duration::from_secs(1) } else { *patience };
        let mut lost = probe::count_lost(directory, patience)?;
        for primitive in PRIMITIVES.iter().filter(|primitive| !primitive.is_tampered_with) {
            if let PrimitiveKind::Semaphore(permits) = primitive.kind {
                let path = directory.join(primitive.path);
                if !path.exists() {
                    continue;
                }
                let semaphore = flockwork::Semaphore::open_existing(path)?;
                let free = semaphore.available_permits()?;
                if free != permits {
                    eprintln!("{}: {free} of {permits} permits are free", primitive.path);
                    lost += 1;
                }
            }
        }
        if lost > 0 {
            self.log.write(Record { a: lost, ..Record::of(Kind::LostPermits, COORDINATOR, 0) });
            return Err("no process holds them, but they are not available".into());
        }
        Ok(())
    }
}
