//! `flockwork event wait --cleared`: waits until one or several events are cleared.

use std::future::Future as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use flockwork::{Event, Options};

use super::open;
use super::pending::Pending;
use super::wait::EventWaitArgs;
use crate::exit::{Exit, Failure, WAIT};
use crate::progress::seconds;
use crate::wait_args::Limit;

/// Waits for several events to be cleared; the library waits for one.
struct ClearedWait {
    events: Vec<Event>,
    is_any: bool,
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

    /// Polls a future for each event. No notification is lost, since an `unpark` before the `park`
    /// makes it return immediately.
    fn until_any(&self, limit: Limit) -> flockwork::Result<usize> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut waits: Vec<_> = self.events.iter().map(Event::wait_cleared_async).collect();
        loop {
            for (index, wait) in waits.iter_mut().enumerate() {
                if let Poll::Ready(cleared) = Pin::new(wait).poll(&mut context) {
                    return cleared.map(|()| index);
                }
            }
            match limit {
                Limit::Never => std::thread::park(),
                Limit::At(deadline) if Instant::now() < deadline => {
                    std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
                }
                Limit::Now | Limit::At(_) => {
                    let last = self.events.len() - 1;
                    for (index, event) in self.events.iter().enumerate() {
                        match wait_for_one(event, Limit::Now) {
                            Err(error) if error.is_timed_out() && index < last => {}
                            result => return result.map(|()| index),
                        }
                    }
                }
            }
        }
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
    let events = open_all(&progress.attach_subject(options.clone(), move || pending.subject()))?;
    let waiting = ClearedWait { events, is_any };
    let index = wait.run(&progress, wait.limit(), |limit| {
        let cleared = if is_any { waiting.until_any(limit) } else { waiting.until_all(limit) };
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

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
