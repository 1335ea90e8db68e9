//! The `Barrier` calls of a peer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flockwork::{Barrier, BarrierWaitResult, Error};
use futures_lite::future::block_on;

use super::{Answer, Peer, Setting, Way, called, describe, done, options, report, text};
use crate::support::failure::Failure;

sendable! {
    enum Call {
        Open(path: PathBuf, parties: u32, settings: Vec<Setting>),
        // Returns the generation, and whether this call was the leader's.
        Wait(way: Way),
        // Waits with an action that appends a line to the log.
        WaitWith(log: PathBuf, action: Action),
        // Appends to its file in two directories in turn, and checks their total lengths.
        Multipass(first: PathBuf, second: PathBuf, passes: u32),
        // In each round appends to its own file, waits, and checks the files of all.
        Rounds(own: PathBuf, all: Vec<PathBuf>, rounds: u64),
        Waiting,
        IsBroken,
        Abort,
        Reset,
    }
}

sendable! {
    #[derive(Copy, PartialEq)]
    enum Action {
        Succeed,
        Fail,
        Panic,
        Hang,
    }
}

/// Starts peers that open the barrier.
pub(crate) fn peers(path: &Path, parties: u32, count: u32, settings: &[Setting]) -> Vec<Peer> {
    let mut peers: Vec<_> = (0..count).map(|_| Peer::start()).collect();
    for peer in &mut peers {
        peer.begin(Call::Open(path.into(), parties, settings.into()));
    }
    for peer in &mut peers {
        peer.finish();
    }
    peers
}

#[derive(Default)]
pub(super) struct State {
    barrier: Option<Barrier>,
}

impl State {
    pub(super) fn obey(&mut self, call: Call) -> Answer {
        if let Call::Open(path, parties, settings) = call {
            let opened = options(&settings).open_barrier(path, parties);
            return done(opened.map(|barrier| self.barrier = Some(barrier)));
        }
        let barrier = self.barrier.as_ref().expect("open is called first");
        match call {
            Call::Open(..) => unreachable!(),
            Call::Wait(way) => text(wait(barrier, way).map(passed)),
            Call::WaitWith(log, action) => wait_with(barrier, &log, action),
            Call::Multipass(first, second, passes) => {
                multipass(barrier, &first, &second, passes).map_err(|error| describe(&error))
            }
            Call::Rounds(own, all, rounds) => {
                for round in 1..=rounds {
                    append(&own, "x");
                    if let Err(error) = barrier.wait() {
                        return Err(describe(&error));
                    }
                    for length in all.iter().map(|path| length(path)) {
                        assert!((round..=round + 1).contains(&length), "{length} in {round}");
                    }
                }
                Ok(String::new())
            }
            Call::Waiting => text(barrier.waiting()),
            Call::IsBroken => text(barrier.is_broken()),
            Call::Abort => done(barrier.abort()),
            Call::Reset => done(barrier.reset()),
        }
    }
}

fn passed(result: BarrierWaitResult) -> String {
    format!("{}{}", result.generation(), if result.is_leader() { " leader" } else { "" })
}

pub(crate) fn wait(barrier: &Barrier, way: Way) -> Result<BarrierWaitResult, Error> {
    match way {
        Way::Block => barrier.wait(),
        Way::Try => barrier.try_wait(),
        Way::Timeout(ms) => barrier.wait_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => barrier.wait_deadline(Instant::now() + Duration::from_millis(ms)),
        Way::Async => block_on(barrier.wait_async()),
    }
}

fn wait_with(barrier: &Barrier, log: &Path, action: Action) -> Answer {
    let act = || {
        match action {
            Action::Fail => return Err(Failure::Closure("it failed".to_string())),
            // This prints no message on standard error.
            Action::Panic => std::panic::resume_unwind(Box::new("it panicked")),
            Action::Hang => {
                report("in the middle");
                std::thread::sleep(Duration::from_secs(600));
            }
            Action::Succeed => {}
        }
        append(log, "done\n");
        Ok(())
    };
    let call = std::panic::AssertUnwindSafe(|| barrier.wait_with(act).map(passed));
    std::panic::catch_unwind(call).map_or(Err("panicked".into()), called)
}

fn append(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

/// `BarrierTests.multipass` of `CPython`.
fn multipass(barrier: &Barrier, first: &Path, second: &Path, passes: u32) -> Result<String, Error> {
    let total = |directory: &Path| -> u64 {
        let files = std::fs::read_dir(directory).unwrap();
        files.map(|file| length(&file.unwrap().path())).sum()
    };
    let own = std::process::id().to_string();
    let parties = u64::from(barrier.parties());
    for pass in 0..u64::from(passes) {
        append(&first.join(&own), "x");
        assert_eq!(total(second), pass * parties);
        barrier.wait()?;
        append(&second.join(&own), "x");
        assert_eq!(total(first), (pass + 1) * parties);
        barrier.wait()?;
    }
    Ok(String::new())
}
