//! `flockwork event`: sets, clears, looks at and waits for events.

use std::ffi::OsString;
use std::future::Future as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use flockwork::{Event, Options};

use crate::exit::{Exit, Failure, Outcome, WAIT};
use crate::made::Made;
use crate::output;
use crate::progress::{Progress, seconds};
use crate::signals;
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
    /// Set it: creates the file PATH, and wakes all waiters
    Set {
        /// The event, a file
        path: PathBuf,
        /// Give it this payload (- reads it from the standard input) instead of none
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        data: Option<OsString>,
        /// Set it only if it is not set, in one step; exit with 1 if it is
        #[arg(long)]
        new: bool,
        #[command(flatten)]
        made: Made,
    },
    /// Clear it: removes the file PATH
    Clear {
        /// The event, a file
        path: PathBuf,
    },
    /// Wait until it is set
    Wait(WaitArgs),
    /// Print whether it is set; exit with 0 if it is, with 1 if it is not
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

    /// Clear it and write its payload to the standard output: each setting goes to exactly one consumer
    #[arg(long, conflicts_with = "cleared")]
    consume: bool,

    /// Wait for one of several; writes its path to the standard output
    #[arg(long, conflicts_with = "consume")]
    any: bool,

    /// Wait for all of several, at the same time (the default)
    #[arg(long, conflicts_with_all = ["any", "consume"])]
    all: bool,

    /// Wait for a file of any kind: a directory, a socket, a symbolic link that leads to a file
    #[arg(long, conflicts_with = "consume")]
    exists: bool,

    #[command(flatten)]
    made: Made,

    /// The events, files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(crate) fn run(verb: &EventVerb) -> Outcome {
    signals::end_when_told()?;
    match verb {
        EventVerb::Set { path, data, new, made } => {
            let event = open(path, &made.options())?;
            let was_unset = match (data, new) {
                (None, _) => event.set()?,
                (Some(data), true) => event.set_new(payload(data)?)?,
                (Some(data), false) => event.set_with(&payload(data)?)?,
            };
            Ok(if *new && !was_unset { Exit::No } else { Exit::Success })
        }
        EventVerb::Clear { path } => {
            open(path, &Options::new())?.clear()?;
            Ok(Exit::Success)
        }
        EventVerb::Status { path } => {
            let is_set = open(path, &Options::new())?.is_set()?;
            let (line, exit) =
                if is_set { ("set\n", Exit::Success) } else { ("cleared\n", Exit::No) };
            match output::write(line.as_bytes())? {
                Exit::Success => Ok(exit),
                other => Ok(other),
            }
        }
        EventVerb::Wait(arguments) => wait(arguments),
    }
}

fn open(path: &PathBuf, options: &Options) -> Result<Event, Failure> {
    if path.as_os_str().is_empty() {
        return Err(words::usage("event", "the path is empty"));
    }
    Ok(options.open_event(path)?)
}

/// The payload of the command line, or else the standard input.
fn payload(data: &OsString) -> Result<Vec<u8>, Failure> {
    if data != "-" {
        return Ok(data.as_encoded_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| {
        Failure::new(Exit::CannotOpen, format!("could not read the standard input: {error}"))
    })?;
    Ok(bytes)
}

fn wait(arguments: &WaitArgs) -> Outcome {
    let wait = &arguments.wait;
    let options = arguments.made.options().any_file_type(arguments.exists);
    let paths = &arguments.paths;
    if arguments.consume && paths.len() > 1 {
        return Err(words::usage("event", "--consume takes one path"));
    }
    if arguments.cleared && paths.len() > 1 {
        return wait_cleared(arguments, &options);
    }
    let (options, progress) = wait.tell(options);
    let open = |path| {
        open(path, &options).map_err(|failure| match failure.exit {
            Exit::CannotOpen if !arguments.consume && !arguments.exists && path.exists() => {
                failure.hint("to wait for a file of any kind, use --exists")
            }
            _ => failure,
        })
    };
    let events = paths.iter().map(open).collect::<Result<Vec<_>, Failure>>()?;
    let first = &events[0];
    let limit = wait.limit();
    if arguments.consume {
        let payload = wait.take(&progress, limit, |limit| {
            Ok(match limit {
                Limit::Now => first.try_consume(),
                Limit::Never => first.consume(),
                Limit::At(deadline) => first.consume_deadline(deadline),
            }?)
        })?;
        output::deliver(&payload).map_err(|failure| put_back(first, payload, failure))?;
        progress.ended(&format!("consumed `{}`", paths[0].display()));
        return Ok(Exit::Success);
    }
    if arguments.cleared {
        wait.take(&progress, limit, |limit| Ok(one_cleared(first, limit)?))?;
        progress.ended(&format!("`{}` is cleared", paths[0].display()));
        return if arguments.any { shown(&paths[0]) } else { Ok(Exit::Success) };
    }
    if arguments.any {
        let index = wait.take(&progress, limit, |limit| {
            Ok(match limit {
                Limit::Now => Event::wait_any_timeout(&events, Duration::ZERO),
                Limit::Never => Event::wait_any(&events),
                Limit::At(deadline) => Event::wait_any_deadline(&events, deadline),
            }?)
        })?;
        progress.ended(&format!("`{}` is set", paths[index].display()));
        return shown(&paths[index]);
    }
    wait.take(&progress, limit, |limit| {
        Ok(match limit {
            Limit::Now => Event::wait_all_timeout(&events, Duration::ZERO),
            Limit::Never => Event::wait_all(&events),
            Limit::At(deadline) => Event::wait_all_deadline(&events, deadline),
        }?)
    })?;
    match paths.as_slice() {
        [path] => progress.ended(&format!("`{}` is set", path.display())),
        paths => progress.ended(&format!("all {} events are set", paths.len())),
    }
    Ok(Exit::Success)
}

fn shown(path: &Path) -> Outcome {
    let mut line = path.as_os_str().as_encoded_bytes().to_vec();
    line.push(b'\n');
    output::write(&line)
}

/// A payload that was not delivered waits for the next consumer, unless the event has been set again meanwhile: then that
/// setting has taken its place, as it would have before.
fn put_back(event: &Event, payload: Vec<u8>, failure: Failure) -> Failure {
    failure.hint(match event.set_new(payload) {
        Ok(true) => "the event is set again",
        Ok(false) => "its payload is lost, since the event was set with another one meanwhile",
        Err(_) => "its payload is lost, since the event could not be set again",
    })
}

// ------------------------------------------------------------------------- several that are cleared

/// The library waits for one event to be cleared; here are several.
struct Clearing {
    events: Vec<Event>,
    is_any: bool,
}

impl Clearing {
    /// The first that is still set and how many more are, joined by a word; and the verb that
    /// agrees with them.
    fn missing(&self, joined: &str) -> (String, &'static str) {
        let still_set = self.events.iter().filter(|event| event.is_set().unwrap_or(true));
        let others = still_set.clone().count().saturating_sub(1);
        let first = still_set.chain(&self.events).next().map(Event::path);
        let first = first.unwrap_or(Path::new("")).display();
        match others {
            0 => (format!("`{first}`"), "is"),
            1 => (format!("`{first}` {joined} 1 other"), "are"),
            others => (format!("`{first}` {joined} {others} others"), "are"),
        }
    }

    /// The events that the wait is for, as text.
    fn wanted(&self) -> String {
        self.missing(if self.is_any { "or" } else { "and" }).0
    }

    fn until_all(&self, limit: Limit) -> flockwork::Result<usize> {
        // Until all were seen cleared one after the other, without having waited for any.
        let mut seen = 0;
        while seen < self.events.len() {
            for event in &self.events {
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

    /// Polls a future for each. No wake-up is lost: a waker's `unpark` before the `park` makes that return at once.
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
                    let (last, others) = (self.events.len() - 1, &self.events);
                    for (index, event) in others.iter().enumerate() {
                        match one_cleared(event, Limit::Now) {
                            Err(error) if error.is_timed_out() && index < last => {}
                            looked => return looked.map(|()| index),
                        }
                    }
                }
            }
        }
    }
}

fn wait_cleared(arguments: &WaitArgs, options: &Options) -> Outcome {
    let wait = &arguments.wait;
    let progress = Progress::new(wait.quiet, wait.verbose);
    let open_all = |options: &Options| {
        arguments.paths.iter().map(|path| open(path, options)).collect::<Result<Vec<_>, Failure>>()
    };
    let is_any = arguments.any;
    let looking = Clearing { events: open_all(options)?, is_any };
    let (shown_by, begun) = (progress.clone(), Instant::now());
    let text = move || {
        let is_missing = looking.events.iter().any(|event| event.is_set().unwrap_or(true));
        is_missing.then(|| {
            let waited = begun.elapsed().as_secs_f64();
            format!("waiting for {} for {waited:.1} s", looking.wanted())
        })
    };
    let events = open_all(&shown_by.attach_text(options.clone(), text))?;
    let waiting = Clearing { events, is_any };
    let index = wait.take(&progress, wait.limit(), |limit| {
        let cleared = if is_any { waiting.until_any(limit) } else { waiting.until_all(limit) };
        cleared.map_err(|error| match limit {
            _ if !error.is_timed_out() => error.into(),
            Limit::Now => {
                let (missing, are) = waiting.missing("and");
                Failure::new(Exit::NotInTime, format!("{missing} {are} still set")).hint(WAIT)
            }
            _ => {
                let (waited, missing) = (seconds(begun.elapsed()), waiting.wanted());
                let why =
                    format!("gave up after {waited} s of waiting for {missing} to be cleared");
                Failure::new(Exit::NotInTime, why)
                    .hint("wait longer, or see whether the program that should clear it is running")
            }
        })
    })?;
    if is_any {
        progress.ended(&format!("`{}` is cleared", arguments.paths[index].display()));
        return shown(&arguments.paths[index]);
    }
    progress.ended(&format!("all {} events are cleared", arguments.paths.len()));
    Ok(Exit::Success)
}

fn one_cleared(event: &Event, limit: Limit) -> flockwork::Result<()> {
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
