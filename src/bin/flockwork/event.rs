//! `flockwork event`: sets, clears, looks at and waits for events.

use std::ffi::OsString;
use std::future::Future as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use flockwork::{Event, Options};

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::waiting::{Limit, Wait};
use crate::words;

#[derive(Debug, Args)]
#[command(after_help = crate::args::EVENT_EXAMPLES)]
pub(crate) struct EventArgs {
    #[command(subcommand)]
    pub(crate) verb: EventVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventVerb {
    /// Set it: makes the file PATH, and wakes all who wait for it
    Set {
        /// The event, a file
        path: PathBuf,
        /// Give it this payload (- reads it from the standard input) instead of none
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        data: Option<OsString>,
    },
    /// Clear it: removes the file PATH
    Clear {
        /// The event, a file
        path: PathBuf,
    },
    /// Wait until it is set
    Wait(WaitArgs),
    /// Say whether it is set; exit with 0 if it is, with 1 if it is not
    Status {
        /// The event, a file
        path: PathBuf,
    },
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    wait: Wait,

    /// Wait until it is cleared
    #[arg(long)]
    cleared: bool,

    /// Clear it as it is had, and write its payload to the standard output: of all who consume one has each setting
    #[arg(long, conflicts_with = "cleared")]
    consume: bool,

    /// Of several one is enough; writes its path to the standard output
    #[arg(long, conflicts_with = "consume")]
    any: bool,

    /// Of several all, at the same time (the default)
    #[arg(long, conflicts_with_all = ["any", "consume"])]
    all: bool,

    /// The events, files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(crate) fn run(verb: &EventVerb) -> Outcome {
    match verb {
        EventVerb::Set { path, data } => {
            let event = open(path)?;
            match data {
                None => event.set()?,
                Some(data) if data == "-" => event.set_with(&input()?)?,
                Some(data) => event.set_with(data.as_encoded_bytes())?,
            };
            Ok(Exit::Success)
        }
        EventVerb::Clear { path } => {
            if !is_missing(path) {
                open(path)?.clear()?;
            }
            Ok(Exit::Success)
        }
        EventVerb::Status { path } => {
            let (line, exit) = if !is_missing(path) && open(path)?.is_set()? {
                ("set\n", Exit::Success)
            } else {
                ("cleared\n", Exit::Cleared)
            };
            match output::write(line.as_bytes())? {
                Exit::Success => Ok(exit),
                other => Ok(other),
            }
        }
        EventVerb::Wait(arguments) => wait(arguments),
    }
}

/// Opening it would make the directories above it.
fn is_missing(path: &PathBuf) -> bool {
    !path.as_os_str().is_empty()
        && std::fs::symlink_metadata(path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn open(path: &PathBuf) -> Result<Event, Failure> {
    if path.as_os_str().is_empty() {
        return Err(words::usage("event", "the path is empty"));
    }
    Ok(Event::open(path)?)
}

fn input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| {
        Failure::new(Exit::CannotOpen, format!("cannot read the standard input: {error}"))
    })?;
    Ok(bytes)
}

fn wait(arguments: &WaitArgs) -> Outcome {
    let wait = &arguments.wait;
    let (options, progress) = wait.tell(Options::new());
    let mut events = Vec::new();
    for path in &arguments.paths {
        open(path)?; // what is wrong with it is said of it
        events.push(options.open_event(path)?);
    }
    let shown = |index: usize| -> Vec<u8> {
        let mut line = arguments.paths[index].as_os_str().as_encoded_bytes().to_vec();
        line.push(b'\n');
        line
    };
    if arguments.consume {
        let [event] = events.as_slice() else {
            return Err(Failure::usage(
                "event: --consume takes one path; see `flockwork event wait --help`",
            ));
        };
        let until = |deadline| event.consume_deadline(deadline);
        let payload = wait.take(&progress, || event.try_consume(), || event.consume(), until)?;
        return output::write(&payload).map_err(|failure| put_back(event, &payload, failure));
    }
    if arguments.cleared {
        let index = wait.take(
            &progress,
            || cleared(&events, arguments.any, &Limit::Now),
            || cleared(&events, arguments.any, &Limit::Never),
            |deadline| cleared(&events, arguments.any, &Limit::At(deadline)),
        )?;
        return if arguments.any { output::write(&shown(index)) } else { Ok(Exit::Success) };
    }
    let zero = Duration::ZERO;
    if arguments.any {
        let index = wait.take(
            &progress,
            || Event::wait_any_timeout(&events, zero),
            || Event::wait_any(&events),
            |deadline| Event::wait_any_deadline(&events, deadline),
        )?;
        return output::write(&shown(index));
    }
    wait.take(
        &progress,
        || Event::wait_all_timeout(&events, zero),
        || Event::wait_all(&events),
        |deadline| Event::wait_all_deadline(&events, deadline),
    )?;
    Ok(Exit::Success)
}

/// What could not be written is there for the next one, unless another has been set meanwhile.
fn put_back(event: &Event, payload: &[u8], failure: Failure) -> Failure {
    let is_back = event.is_set().is_ok_and(|is_set| !is_set) && event.set_with(payload).is_ok();
    let what = if is_back { "it is set again" } else { "its payload is lost" };
    failure.and(what)
}

/// Waits until one or all of them are cleared; which one.
fn cleared(events: &[Event], any: bool, limit: &Limit) -> flockwork::Result<usize> {
    if any {
        return any_cleared(events, limit);
    }
    // Until all were seen cleared one after the other, without having waited for any.
    let mut seen = 0;
    while seen < events.len() {
        for event in events {
            if event.is_set()? {
                one_cleared(event, limit)?;
                seen = 0;
            } else {
                seen += 1;
            }
        }
    }
    Ok(0)
}

fn one_cleared(event: &Event, limit: &Limit) -> flockwork::Result<()> {
    match limit {
        Limit::Now => event.wait_cleared_timeout(Duration::ZERO),
        Limit::Never => event.wait_cleared(),
        Limit::At(deadline) => event.wait_cleared_deadline(*deadline),
    }
}

/// Polls a future for each. No wake-up is lost: a waker's `unpark` before the `park` makes that return at once.
fn any_cleared(events: &[Event], limit: &Limit) -> flockwork::Result<usize> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut waits: Vec<_> = events.iter().map(Event::wait_cleared_async).collect();
    loop {
        for (index, wait) in waits.iter_mut().enumerate() {
            if let Poll::Ready(cleared) = Pin::new(wait).poll(&mut context) {
                return cleared.map(|()| index);
            }
        }
        match limit {
            Limit::Never => std::thread::park(),
            Limit::At(deadline) if Instant::now() < *deadline => {
                std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            }
            Limit::Now | Limit::At(_) => {
                // Each has been looked at; the last look says how long it was.
                let (last, others) = (events.len() - 1, &events[..events.len() - 1]);
                for (index, event) in others.iter().enumerate() {
                    if one_cleared(event, &Limit::Now).is_ok() {
                        return Ok(index);
                    }
                }
                return one_cleared(&events[last], limit).map(|()| last);
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
