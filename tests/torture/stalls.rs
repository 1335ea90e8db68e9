//! Detects threads that make no progress because they have lost a notification.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::checker::{Checker, State};
use crate::monitor::{STALLED, lock, send_line};
use crate::primitives::PRIMITIVES;
use crate::probe;

/// Reports each thread that makes no progress for `patience`. A process is stopped for two seconds
/// at most, and no thread holds anything for more than a few milliseconds. A process that starts
/// while files are damaged records each attempt to open them, so it is reported only if one attempt
/// hangs.
pub(crate) fn watch(checker: &Mutex<Checker>, patience: Duration) {
    let mut known = BTreeSet::new();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let mut stalled = Vec::new();
        {
            let mut checker = lock(checker);
            let now = Instant::now();
            for (worker, process) in checker.processes.iter().enumerate() {
                for (thread, actor) in process.actors.iter().enumerate() {
                    let idle = now.saturating_duration_since(actor.since);
                    if process.is_alive
                        && idle > patience
                        && !matches!(actor.state, State::Paused(_))
                        && known.insert((worker, process.generation, thread, actor.last_record))
                    {
                        let name = format!("{worker}.{} thread {thread}", process.generation);
                        stalled.push((name, process.pid, describe(actor.state), idle));
                    }
                }
            }
            checker.summary.lost_wake_ups += stalled.len() as u64;
        }
        for (name, pid, state, idle) in &stalled {
            eprintln!("lost wake-up? worker {name} (process {pid}) {state} since {idle:?}");
            eprintln!("{}", probe::threads_of(*pid));
        }
        if !stalled.is_empty() {
            eprintln!("{}", fs::read_to_string("/proc/locks").unwrap_or_default());
            send_line(STALLED);
        }
    }
}

fn describe(state: State) -> String {
    match state {
        State::Waits { primitive, mode, operation } => {
            format!("waits for {} (mode {mode}, {operation})", PRIMITIVES[primitive].path)
        }
        State::Inside { primitive } => format!("is inside {}", PRIMITIVES[primitive].path),
        State::Idle => "does nothing".into(),
        State::Paused(_) => "pauses".into(),
    }
}
