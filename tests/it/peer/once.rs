//! The `Once` calls of a peer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flockwork::{Error, Once};
use futures_lite::future::block_on;

use super::{Answer, Peer, Setting, Way, called, done, held_by, options, report, text};
use crate::support::failure::Failure;

sendable! {
    enum Call {
        Open(path: PathBuf, settings: Vec<Setting>),
        // Returns whether this call ran the work, which appends a line to the log.
        Run(log: PathBuf, work: Work, way: Way),
        IsDone,
        Holder,
        Reset(way: Way),
        Wait(way: Way),
    }
}

sendable! {
    /// How the work ends.
    #[derive(Copy, PartialEq)]
    enum Work {
        Succeed,
        Slow,
        Fail,
        Panic,
        Hang,
        // A forked copy of this process returns from the closure as well.
        #[cfg(unix)]
        ReturnInFork,
    }
}

/// Starts a peer that opens the `Once`.
pub(crate) fn peer(path: &Path, settings: &[Setting]) -> Peer {
    let mut peer = Peer::start();
    peer.open_once(path, settings);
    peer
}

impl Peer {
    #[track_caller]
    pub(crate) fn open_once(&mut self, path: &Path, settings: &[Setting]) {
        self.run(Call::Open(path.into(), settings.into()));
    }
}

/// The work: writes a line to a file, in two steps.
fn do_work(log: &Path, work: Work) -> Result<(), Failure<String>> {
    use std::io::Write as _;
    match work {
        Work::Fail => return Err(Failure::Closure("it failed".into())),
        // This prints no message on standard error.
        Work::Panic => std::panic::resume_unwind(Box::new("it panicked")),
        Work::Hang => {
            report("in the middle");
            std::thread::sleep(Duration::from_secs(600));
        }
        // A forked copy of this process returns from the closure as well, and reports success.
        #[cfg(unix)]
        Work::ReturnInFork => match fork::fork().unwrap() {
            fork::Fork::Child => return Ok(()),
            fork::Fork::Parent(child) => {
                let status = crate::support::ended(child);
                let text = format!("the copy ended with {:?}", status.exit_status());
                return Err(Failure::Closure(text));
            }
        },
        Work::Slow => std::thread::sleep(Duration::from_millis(20)),
        Work::Succeed => {}
    }
    let mut log = std::fs::File::options().append(true).create(true).open(log).unwrap();
    writeln!(log, "done by {}", std::process::id()).unwrap();
    Ok(())
}

#[derive(Default)]
pub(super) struct State {
    once: Option<Once>,
}

impl State {
    pub(super) fn obey(&mut self, call: Call) -> Answer {
        if let Call::Open(path, settings) = call {
            return done(options(&settings).open_once(path).map(|once| self.once = Some(once)));
        }
        let once = self.once.as_ref().expect("open is called first");
        match call {
            Call::Open(..) => unreachable!(),
            Call::Run(log, work, way) => call_once(once, &log, work, way),
            Call::IsDone => text(once.is_done()),
            Call::Holder => held_by(once.holders()),
            Call::Reset(way) => text(reset(once, way)),
            Call::Wait(way) => done(wait(once, way)),
        }
    }
}

fn call_once(once: &Once, log: &Path, work: Work, way: Way) -> Answer {
    let call = || match way {
        Way::Block => once.call_once(|| do_work(log, work)),
        Way::Try => once.try_call_once(|| do_work(log, work)),
        Way::Timeout(ms) => {
            once.call_once_timeout(Duration::from_millis(ms), || do_work(log, work))
        }
        Way::Deadline(ms) => {
            let deadline = Instant::now() + Duration::from_millis(ms);
            once.call_once_deadline(deadline, || do_work(log, work))
        }
        Way::Async => {
            let log = log.to_path_buf();
            block_on(once.call_once_async(move || async move { do_work(&log, work) }))
        }
    };
    #[cfg(unix)]
    let own = std::process::id();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    #[cfg(unix)]
    if std::process::id() != own {
        crate::support::exit_copy(i32::from(!matches!(outcome, Ok(Err(_)))));
    }
    outcome.map_or(Err("panicked".into()), called)
}

/// A reset has no form that only tries and none with a deadline. A timeout replaces both.
fn reset(once: &Once, way: Way) -> Result<bool, Error> {
    match way {
        Way::Block => once.reset(),
        Way::Try => once.reset_timeout(Duration::ZERO),
        Way::Timeout(ms) | Way::Deadline(ms) => once.reset_timeout(Duration::from_millis(ms)),
        Way::Async => block_on(once.reset_async()),
    }
}

/// A wait has no form that only tries and none with a deadline. A timeout replaces both.
fn wait(once: &Once, way: Way) -> Result<(), Error> {
    match way {
        Way::Block => once.wait(),
        Way::Try => once.wait_timeout(Duration::ZERO),
        Way::Timeout(ms) | Way::Deadline(ms) => once.wait_timeout(Duration::from_millis(ms)),
        Way::Async => block_on(once.wait_async()),
    }
}
