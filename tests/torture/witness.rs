//! The witness: a process of its own, without flockwork. Reads the records, has them judged, works the flag, fills the
//! mailbox where consumers wait in vain, and looks whether everybody gets on.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::events::{TO_BE_SET, TO_CONSUME};
use crate::payload;
use crate::probe;
use crate::record::{FLAGGER, Kind, Log, Reader, Record};
use crate::table::{State, Table};
use crate::things::{self, SENDERS, THINGS, What};
use crate::tie;

/// What the conductor is told, each on a line that begins with a sign that no other has.
pub(crate) const COUNT: &str = "@count";
pub(crate) const QUIET: &str = "@quiet";
pub(crate) const STUCK: &str = "@stuck";

pub(crate) fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    tie::die_with_the_parent()?;
    let mut reader = Reader::open(&arguments.directory)?;
    let log = Log::open(&arguments.directory)?;
    let table = Mutex::new(Table::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            tie::orders().for_each(drop);
            std::process::exit(70); // the conductor has ended
        });
        scope.spawn(|| keep_things_going(&arguments.directory, &table, &log));
        scope.spawn(|| watch(&table, arguments.patience));
        // The other threads have no end of their own.
        let is_clean = match read(&mut reader, &table) {
            Ok(is_cut_short) => {
                let mut table = lock(&table);
                if !is_cut_short {
                    table.settle_the_mailbox(&what_is_left(&arguments.directory));
                }
                print!("{}", table.tally.in_words());
                let _ = io::stdout().flush();
                table.tally.is_clean()
            }
            Err(error) => {
                eprintln!("the witness cannot read: {error}");
                false
            }
        };
        std::process::exit(i32::from(!is_clean));
    })
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Until the end, which may come while the others are still at it.
fn read(reader: &mut Reader, table: &Mutex<Table>) -> io::Result<bool> {
    const EVERY: u64 = 200;
    let (mut said, mut rested) = (0, 0);
    loop {
        let record = reader.next()?;
        if record.kind == Kind::End {
            return Ok(record.a == 1);
        }
        let mut table = lock(table);
        table.take(record);
        let (acquisitions, kills) = (table.tally.acquisitions(), table.tally.kills);
        let violations = table.tally.violations;
        let rests = table.all_rest().unwrap_or(0);
        drop(table);
        if acquisitions + kills >= said + EVERY {
            said = acquisitions + kills;
            say(&format!("{COUNT} {acquisitions} {kills} {violations}"));
        }
        if rests > rested {
            rested = rests;
            say(&format!("{QUIET} {rests}"));
        }
    }
}

// -------------------------------------------------------------------------------------- events

/// Works the flag with `touch` and `rm`, as any program could, and plays the sender where nobody else sends.
fn keep_things_going(directory: &Path, table: &Mutex<Table>, log: &Log) {
    let flag = things::position(What::Flag);
    let mailbox = things::position(What::Mailbox);
    let flag_path = directory.join(THINGS[flag].path);
    let mut wants = 0; // at first it is cleared
    let mut held_for = Vec::new();
    let mut sent = 0_u64;
    loop {
        std::thread::sleep(Duration::from_millis(1));
        let (is_seen, waiters, has_consumers) = {
            let table = lock(table);
            let consumers = table.waiters(mailbox, TO_CONSUME);
            let wish = Table::WISHES[wants];
            (!table.still_wait(&held_for), table.waiters(flag, wish), !consumers.is_empty())
        };
        // All have seen it who waited when it was changed the last time.
        if is_seen && !waiters.is_empty() {
            let changed = if Table::WISHES[wants] == TO_BE_SET {
                fs::File::create(&flag_path).map(drop)
            } else {
                fs::remove_file(&flag_path)
            };
            if let Err(error) = changed {
                lock(table).violation(&format!("the flag cannot be changed: {error}"));
            }
            lock(table).tally.flag_changes += 1;
            held_for = waiters;
            wants = 1 - wants;
        }
        if has_consumers {
            send(directory, mailbox, &mut sent, log);
        }
    }
}

/// With plain files, and under the lock of those who send, taken as flock(1) does.
fn send(directory: &Path, mailbox: usize, sent: &mut u64, log: &Log) {
    let path = directory.join(THINGS[mailbox].path);
    let taken = directory.join(format!("{}.taken", THINGS[mailbox].path));
    let Ok(Some(_turn)) = probe::take(&directory.join(SENDERS)) else { return };
    if path.exists() || taken.exists() {
        return;
    }
    *sent += 1;
    let number = (63 << 58) | *sent;
    let record = Record::of(Kind::Setting, FLAGGER, 0);
    log.write(Record { thing: mailbox, b: number, ..record });
    let aside = directory.join("mailbox.aside");
    let put = fs::write(&aside, payload::make(number)).and_then(|()| fs::rename(&aside, &path));
    if put.is_ok() {
        log.write(Record { kind: Kind::HasSet, thing: mailbox, b: number, ..record });
    }
}

/// What has not been consumed yet.
fn what_is_left(directory: &Path) -> Vec<u64> {
    let path = THINGS[things::position(What::Mailbox)].path;
    let found = ["", ".taken"].map(|suffix| fs::read(directory.join(format!("{path}{suffix}"))));
    found.into_iter().flatten().filter_map(|bytes| payload::number(&bytes)).collect()
}

// --------------------------------------------------------------------------------------- waits

/// Looks whether everybody gets on. A process is stopped for two seconds at most, and nobody holds anything for longer
/// than some milliseconds: who has not got on for a minute has lost its wake-up.
fn watch(table: &Mutex<Table>, patience: Duration) {
    let mut known = BTreeSet::new();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let mut stuck = Vec::new();
        {
            let mut table = lock(table);
            let now = Instant::now();
            for (worker, process) in table.processes.iter().enumerate() {
                for (thread, actor) in process.actors.iter().enumerate() {
                    let still = now.saturating_duration_since(actor.since);
                    if process.is_alive
                        && still > patience
                        && !matches!(actor.state, State::Rests(_))
                        && known.insert((worker, process.generation, thread, actor.order))
                    {
                        let name = format!("{worker}.{} thread {thread}", process.generation);
                        stuck.push((name, process.pid, describe(actor.state), still));
                    }
                }
            }
            table.tally.lost_wake_ups += stuck.len() as u64;
        }
        for (name, pid, state, still) in &stuck {
            eprintln!("lost wake-up? worker {name} (process {pid}) {state} since {still:?}");
            eprintln!("{}", probe::threads_of(*pid));
        }
        if !stuck.is_empty() {
            eprintln!("{}", fs::read_to_string("/proc/locks").unwrap_or_default());
            say(STUCK);
        }
    }
}

fn describe(state: State) -> String {
    match state {
        State::Waits { thing, way, what } => {
            format!("waits for {} (way {way}, {what})", THINGS[thing].path)
        }
        State::Inside { thing } => format!("is inside {}", THINGS[thing].path),
        State::Idle => "does nothing".into(),
        State::Rests(_) => "rests".into(),
    }
}
