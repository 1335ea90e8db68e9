//! `flockwork event wait --cleared`: waits until one or several events are cleared.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flockwork::{Cancel, Event, Options};

use super::open;
use super::pending::Pending;
use super::wait::EventWaitArgs;
use crate::exit::{Exit, Failure, WAIT};
use crate::progress::seconds;
use crate::thread;
use crate::wait_args::Limit;

/// Waits for several events to be cleared; the library waits for one.
struct ClearedWait {
    events: Vec<Event>,
    is_any: bool,
    /// Ends the other waits when the wait for any of them has ended.
    stop: Cancel,
}

impl ClearedWait {
    /// Describes the events that are still set by the first one, `conjunction`, and the number of
    /// the other events. Also returns the verb that agrees with them.
    fn still_set(&self, conjunction: &str) -> (String, &'static str) {
        let set_events = self.events.iter().filter(|event| event.is_set().unwrap_or(true));
        let others = set_events.clone().count().saturating_sub(1);
        let first = set_events.chain(&self.events).next().map(Event::path);
        let first = first.unwrap_or(Path::new("")).display();
        match others {
            0 => (format!("`{first}`"), "is"),
            1 => (format!("`{first}` {conjunction} 1 other"), "are"),
            others => (format!("`{first}` {conjunction} {others} others"), "are"),
        }
    }

    /// Describes the events that this waits for.
    fn description(&self) -> String {
        self.still_set(if self.is_any { "or" } else { "and" }).0
    }

    fn until_all(&self, limit: Limit) -> flockwork::Result<usize> {
        // The wait ends when all events were cleared in one pass without a wait.
        let mut found_cleared = 0;
        while found_cleared < self.events.len() {
            for event in &self.events {
                if event.is_set()? {
                    wait_for_one(event, limit)?;
                    found_cleared = 0;
                } else {
                    found_cleared += 1;
                }
            }
        }
        Ok(0)
    }

    /// Waits for each event in a thread of its own.
    fn until_any(&self, limit: Limit) -> Result<flockwork::Result<usize>, Failure> {
        let is_timed_out =
            |it: &flockwork::Result<usize>| it.as_ref().is_err_and(flockwork::Error::is_timed_out);
        let mut result = Ok(0);
        for (index, event) in self.events.iter().enumerate() {
            result = wait_for_one(event, Limit::Now).map(|()| index);
            if !is_timed_out(&result) {
                return Ok(result);
            }
        }
        if matches!(limit, Limit::Now) {
            return Ok(result);
        }
        let ended = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let mut threads = Vec::new();
        for (index, event) in self.events.iter().cloned().enumerate() {
            let results = Arc::clone(&ended);
            let wait = move || {
                let result = wait_for_one(&event, limit).map(|()| index);
                results.0.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                results.1.notify_one();
            };
            threads.push(thread::start("flockwork-event", wait).map_err(|error| {
                let why = format!("could not start a thread for each event: {error}");
                Failure::new(Exit::System, why)
            })?);
        }
        let is_undecided = |results: &mut Vec<flockwork::Result<usize>>| {
            results.len() < self.events.len() && results.iter().all(is_timed_out)
        };
        let results = ended.0.lock().unwrap_or_else(PoisonError::into_inner);
        let results = ended.1.wait_while(results, is_undecided);
        let mut results = std::mem::take(&mut *results.unwrap_or_else(PoisonError::into_inner));
        let decisive = results.iter().position(|it| !is_timed_out(it)).unwrap_or(0);
        self.stop.cancel();
        for thread in threads {
            let _ = thread.join();
        }
        Ok(results.swap_remove(decisive))
    }
}

/// Waits for several events to be cleared. Returns the index of the one that ended a wait for any.
pub(super) fn wait_for_several(
    arguments: &EventWaitArgs,
    options: &Options,
) -> Result<Option<usize>, Failure> {
    let wait = &arguments.wait;
    let progress = wait.progress("");
    let open_all = |options: &Options| {
        arguments.paths.iter().map(|path| open(path, options)).collect::<Result<Vec<_>, Failure>>()
    };
    let is_any = arguments.any;
    let pending = Pending::open(&arguments.paths, options, is_any, true)?;
    let start = Instant::now();
    let stop = Cancel::new();
    let options = options.clone().cancel(&stop);
    let events = open_all(&progress.attach_subject(options, move || pending.subject()))?;
    let waiting = ClearedWait { events, is_any, stop };
    let index = wait.run(&progress, wait.limit(), |limit| {
        let cleared = if is_any { waiting.until_any(limit)? } else { waiting.until_all(limit) };
        cleared.map_err(|error| match limit {
            _ if !error.is_timed_out() => error.into(),
            Limit::Now => {
                let (still_set, are) = waiting.still_set("and");
                Failure::new(Exit::NotInTime, format!("{still_set} {are} still set")).hint(WAIT)
            }
            _ => {
                let (waited, events) = (seconds(start.elapsed()), waiting.description());
                let why = format!("timed out after {waited} s waiting for {events} to be cleared");
                Failure::new(Exit::NotInTime, why)
                    .hint("wait longer, or check that the program that clears it is running")
            }
        })
    })?;
    if is_any {
        progress.ended(&format!("`{}` is cleared", arguments.paths[index].display()));
        return Ok(Some(index));
    }
    progress.ended(&format!("all {} events are cleared", arguments.paths.len()));
    Ok(None)
}

pub(super) fn wait_for_one(event: &Event, limit: Limit) -> flockwork::Result<()> {
    match limit {
        Limit::Now => event.wait_cleared_timeout(Duration::ZERO),
        Limit::Never => event.wait_cleared(),
        Limit::At(deadline) => event.wait_cleared_deadline(deadline),
    }
}
