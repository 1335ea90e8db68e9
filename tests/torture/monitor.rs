//! The monitor: a separate process that does not use flockwork. It reads the records, passes them
//! to the checker, and runs the threads of `event_driver.rs` and `stalls.rs`.

use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::AnyResult;
use crate::arguments::Arguments;
use crate::checker::Checker;
use crate::event_driver;
use crate::parent;
use crate::record::{Kind, Log, Reader};
use crate::stalls;

/// The words of the lines for the coordinator, which are not part of the report.
pub(crate) const COUNT: &str = "@count";
pub(crate) const PAUSED: &str = "@paused";
pub(crate) const STALLED: &str = "@stalled";

pub(crate) fn run(arguments: &Arguments) -> AnyResult<bool> {
    parent::die_with_parent()?;
    let mut reader = Reader::open(&arguments.directory)?;
    let log = Log::open(&arguments.directory)?;
    let checker = Mutex::new(Checker::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            parent::phases().for_each(drop);
            std::process::exit(70); // The coordinator has ended.
        });
        scope.spawn(|| event_driver::drive_events(&arguments.directory, &checker, &log));
        scope.spawn(|| stalls::watch(&checker, arguments.patience));
        // The other threads never end.
        let is_clean = match read(&mut reader, &checker) {
            Ok(is_aborted) => {
                let mut checker = lock(&checker);
                if !is_aborted {
                    checker.check_mailbox(&event_driver::unconsumed(&arguments.directory));
                }
                print!("{}", checker.summary.to_text());
                let _ = io::stdout().flush();
                checker.summary.is_clean()
            }
            Err(error) => {
                eprintln!("could not read the records: {error}");
                false
            }
        };
        std::process::exit(i32::from(!is_clean));
    })
}

pub(crate) fn lock(checker: &Mutex<Checker>) -> MutexGuard<'_, Checker> {
    checker.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn send_line(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Reads to the last record. Returns whether the run was aborted.
fn read(reader: &mut Reader, checker: &Mutex<Checker>) -> io::Result<bool> {
    const INTERVAL: u64 = 200;
    let (mut reported, mut paused) = (0, 0);
    loop {
        let record = reader.next()?;
        if record.kind == Kind::End {
            return Ok(record.a == 1);
        }
        let mut checker = lock(checker);
        checker.check(record);
        let (acquisitions, kills) = (checker.summary.acquisitions(), checker.summary.kills);
        let violations = checker.summary.violations;
        let phase = checker.paused_since().unwrap_or(0);
        if phase > paused {
            checker.settle_barrier();
        }
        drop(checker);
        if acquisitions + kills >= reported + INTERVAL {
            reported = acquisitions + kills;
            send_line(&format!("{COUNT} {acquisitions} {kills} {violations}"));
        }
        if phase > paused {
            paused = phase;
            send_line(&format!("{PAUSED} {phase}"));
        }
    }
}
