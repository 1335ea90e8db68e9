//! The conductor: starts everybody, strikes them as the seed has it, sees to it that now and then all rest, and
//! looks then whether anything is still held.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::arguments::Arguments;
use crate::fate::{self, Blow};
use crate::probe;
use crate::record::{CONDUCTOR, Kind, Log, Record};
use crate::rounds;
use crate::things::{Breakage, ELASTIC, THINGS, WORKERS, What};
use crate::tie::{self, Order};
use crate::witness::{COUNT, QUIET, STUCK};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// So often all rest in the course of it.
const QUIET_POINTS: u64 = 10;

/// What the order is, and who is to be told of it.
struct Board {
    order: (u64, Order),
    stdins: BTreeMap<u32, ChildStdin>,
    /// The workers that have not been seen to end.
    workers: BTreeMap<u32, Pid>,
}

enum News {
    Line(String),
    /// Something that must not happen to a child.
    Bad(String),
    WitnessEnded,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<bool> {
    let again =
        format!("cargo run --release --example torture -- {}", arguments.to_words().join(" "));
    println!("seed {}\n{again}\n", arguments.seed);
    let directory = tempfile::Builder::new().prefix("torture").tempdir_in(&arguments.directory)?;
    let arguments = Arguments { directory: directory.path().into(), ..arguments.clone() };
    let start = Instant::now();
    let is_clean = conduct(&arguments)?;
    println!("{:.0} seconds.", start.elapsed().as_secs_f64());
    if !is_clean {
        println!("Not clean. Again: {again}");
    }
    Ok(is_clean)
}

fn conduct(arguments: &Arguments) -> Outcome<bool> {
    let log = Arc::new(Log::make(&arguments.directory)?);
    for thing in THINGS.iter().filter(|thing| thing.what == What::Elastic) {
        let options = flockwork::Options::new();
        options.open_semaphore(arguments.directory.join(thing.path), *ELASTIC.end())?;
    }
    let (sender, news) = channel();
    let (mut witness, stdin, lines) = start(arguments, &["witness".into()])?;
    let _stdin = stdin; // open for as long as this runs
    let report = listen(lines, sender.clone());
    let board = Board { order: (1, Order::Go), stdins: BTreeMap::new(), workers: BTreeMap::new() };
    let board = Arc::new(Mutex::new(board));
    let (mut vandal, vandal_stdin, _) = start(arguments, &["vandal".into()])?;
    tell(&board, WORKERS, vandal_stdin);
    // The kernel kills a child with the thread that started it (see `tie.rs`), so each has one for all its life.
    let keepers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (arguments, board) = (arguments.clone(), Arc::clone(&board));
            let (log, sender) = (Arc::clone(&log), sender.clone());
            std::thread::spawn(move || {
                if let Err(error) = keep(&arguments, worker, &board, &log, &sender) {
                    let _ = sender.send(News::Bad(format!("worker {worker}: {error}")));
                }
            })
        })
        .collect();
    let mut play = Play { arguments, board, news, log, end: Instant::now() + arguments.limit };
    let outcome = play.through();
    if let Err(error) = &outcome {
        eprintln!("{error}");
        play.order(Order::End);
        for worker in lock(&play.board).workers.values() {
            let _ = kill_process(*worker, Signal::KILL); // also who is stuck, or stopped
        }
        vandal.kill()?;
    }
    for keeper in keepers {
        let _ = keeper.join();
    }
    vandal.wait()?;
    let is_cut_short = u64::from(outcome.is_err());
    play.log.write(Record { a: is_cut_short, ..Record::of(Kind::End, CONDUCTOR, 0) });
    let is_clean = witness.wait()?.success();
    let _ = report.join();
    Ok(is_clean && outcome.is_ok())
}

// ------------------------------------------------------------------------------------ children

fn start(
    arguments: &Arguments,
    role: &[String],
) -> Outcome<(Child, ChildStdin, BufReader<std::process::ChildStdout>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(role)
        .args(arguments.to_words())
        .arg("--directory")
        .arg(&arguments.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take().ok_or("no stdin")?;
    let stdout = child.stdout.take().ok_or("no stdout")?;
    Ok((child, stdin, BufReader::new(stdout)))
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on that child gets the orders, and the present one at once.
fn tell(board: &Mutex<Board>, who: u32, mut stdin: ChildStdin) {
    let mut board = lock(board);
    let (number, order) = board.order;
    // It may be dead already, which its keeper sees.
    let _ = stdin.write_all(tie::line(number, order).as_bytes());
    board.stdins.insert(who, stdin);
}

/// Passes on what the witness says; its report goes to the user.
fn listen(
    lines: BufReader<std::process::ChildStdout>,
    sender: Sender<News>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if line.starts_with('@') {
                let _ = sender.send(News::Line(line));
            } else {
                println!("{line}");
            }
        }
        let _ = sender.send(News::WitnessEnded);
    })
}

/// One life after the other, until the end.
fn keep(
    arguments: &Arguments,
    worker: u32,
    board: &Mutex<Board>,
    log: &Log,
    sender: &Sender<News>,
) -> Outcome<()> {
    for generation in 0.. {
        let role = ["worker".into(), worker.to_string(), generation.to_string()];
        let (mut child, stdin, lines) = start(arguments, &role)?;
        let pid = Pid::from_child(&child);
        lock(board).workers.insert(worker, pid);
        tell(board, worker, stdin);
        let strokes = fate::of(arguments, worker, generation);
        let note = |kind| log.write(Record::of(kind, worker, generation));
        for line in lines.lines().map_while(Result::ok) {
            match strokes[line.parse::<usize>()?].blow {
                Blow::Kill(after) => {
                    std::thread::sleep(after);
                    note(Kind::Condemned);
                    kill_process(pid, Signal::KILL)?;
                }
                Blow::Stop(after, span) => {
                    std::thread::sleep(after);
                    note(Kind::Stopped);
                    kill_process(pid, Signal::STOP)?;
                    std::thread::sleep(span);
                    kill_process(pid, Signal::CONT)?;
                    note(Kind::Continued);
                }
                Blow::KillsItself | Blow::Exits => {}
            }
        }
        lock(board).workers.remove(&worker);
        let status = child.wait()?;
        note(Kind::Dead);
        let is_the_end = lock(board).order.1 == Order::End;
        let is_killed = status.signal() == Some(Signal::KILL.as_raw());
        let exits = strokes.last().is_some_and(|stroke| stroke.blow == Blow::Exits);
        if !is_killed && !(status.success() && (is_the_end || exits)) {
            let bad = format!("worker {worker}.{generation} ended by itself: {status}");
            let _ = sender.send(News::Bad(bad));
            return Ok(());
        }
        if is_the_end {
            return Ok(());
        }
    }
    Ok(())
}

// --------------------------------------------------------------------------------- the course

struct Play<'a> {
    arguments: &'a Arguments,
    board: Arc<Mutex<Board>>,
    news: Receiver<News>,
    log: Arc<Log>,
    end: Instant,
}

impl Play<'_> {
    fn through(&mut self) -> Outcome<()> {
        let Arguments { acquisitions, kills, .. } = *self.arguments;
        let mut next_quiet = acquisitions / QUIET_POINTS;
        let mut has_had = (0, 0);
        while has_had.0 < acquisitions || has_had.1 < kills {
            if let Some((word, numbers)) = self.hear()?.filter(|(word, _)| word == COUNT) {
                let [had, killed, violations] = numbers[..] else {
                    return Err(format!("not understood: {word} {numbers:?}").into());
                };
                has_had = (had, killed);
                if self.arguments.broken.is_some() && violations > 0 {
                    return Err("what is broken was seen".into());
                }
            }
            if has_had.0 >= next_quiet && has_had.0 < acquisitions {
                next_quiet = has_had.0 + acquisitions / QUIET_POINTS;
                self.rest(Order::Pause)?;
                self.look()?;
                self.order(Order::Go);
            }
        }
        self.rest(Order::Pause)?;
        self.look()?;
        self.rest(Order::Check)?;
        self.look()?;
        self.order(Order::End);
        Ok(())
    }

    /// The next thing that the witness says, with its numbers.
    fn hear(&mut self) -> Outcome<Option<(String, Vec<u64>)>> {
        let left = self.end.saturating_duration_since(Instant::now());
        match self.news.recv_timeout(left.min(Duration::from_millis(500))) {
            Ok(News::Line(line)) if line == STUCK => Err("somebody is stuck: see above".into()),
            Ok(News::Line(line)) => {
                let mut words = line.split(' ');
                let word = words.next().unwrap_or_default().to_owned();
                Ok(Some((word, words.filter_map(|word| word.parse().ok()).collect())))
            }
            Ok(News::Bad(words)) => Err(words.into()),
            Ok(News::WitnessEnded) => Err("the witness has ended".into()),
            Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                Err(format!("not done within {:?}", self.arguments.limit).into())
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("nobody says anything".into()),
        }
    }

    fn order(&self, order: Order) -> u64 {
        let mut board = lock(&self.board);
        let number = board.order.0 + 1;
        board.order = (number, order);
        for stdin in board.stdins.values_mut() {
            // Who is dead is told nothing; the next one reads the board.
            let _ = stdin.write_all(tie::line(number, order).as_bytes());
        }
        number
    }

    /// Until all rest, who were alive and who came meanwhile.
    fn rest(&mut self, order: Order) -> Outcome<()> {
        let number = self.order(order);
        loop {
            if let Some((word, numbers)) = self.hear()? {
                if word == QUIET && numbers.first().is_some_and(|rested| *rested >= number) {
                    return Ok(());
                }
            }
        }
    }

    /// Nobody has anything: so everything is free.
    fn look(&self) -> Outcome<()> {
        let Arguments { directory, patience, broken, .. } = self.arguments;
        if *broken == Some(Breakage::Permit) {
            rounds::leak(directory)?;
        }
        // What was taken on purpose never comes back.
        let patience = if broken.is_some() { Duration::from_secs(1) } else { *patience };
        let mut lost = probe::lost(directory, patience)?;
        for thing in THINGS.iter().filter(|thing| !thing.is_in_the_yard) {
            if let What::Semaphore(permits) = thing.what {
                let path = directory.join(thing.path);
                if !path.exists() {
                    continue;
                }
                let semaphore = flockwork::Semaphore::open_existing(path)?;
                let free = semaphore.available_permits()?;
                if free != permits {
                    eprintln!("{}: {free} permits are free, of {permits}", thing.path);
                    lost += 1;
                }
            }
        }
        if lost > 0 {
            self.log.write(Record { a: lost, ..Record::of(Kind::LostPermits, CONDUCTOR, 0) });
            return Err("nobody has them, and they are not to be had".into());
        }
        Ok(())
    }
}
