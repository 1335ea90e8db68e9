//! The event calls of a peer, and payloads that reveal a partial read.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flockwork::{Announcement, Error, Event};
use futures_lite::future::block_on;

use super::{Answer, Peer, Setting, Way, done, options, report, text};

sendable! {
    enum Call {
        // Opens one more event. The other calls use the first one; `WaitAny` and `WaitAll` use all
        // of them.
        Open(path: PathBuf, settings: Vec<Setting>),
        Set,
        SetWith(payload: String),
        Clear,
        IsSet,
        Payload,
        IsEventDriven,
        Wait(way: Way),
        // Returns the payload.
        WaitPayload(way: Way),
        // Keeps the announcement, also after a later one.
        Announce(payload: String),
        // These concern the first announcement.
        Withdraw,
        DropAnnouncement,
        StillSet,
        // Forks a child that has copies of the announcements, drops them unless it `keeps` them,
        // and then sleeps. Returns the child's number.
        #[cfg(unix)]
        Fork(keeps: bool),
        // Returns the exit code of a child: 0 if its copy of the announcement changes nothing.
        #[cfg(unix)]
        DropInFork,
        WaitCleared(way: Way),
        // Returns the payload.
        Consume(way: Way),
        WaitAny(way: Way),
        WaitAll(way: Way),
        // Waits for the first event, clears it and sets the second, `times` times.
        PassOn(times: u32, way: Way),
        // Reports `times` changes.
        Follow(times: u32, way: Way),
        // Sets `times` payloads, and waits until the event is clear if another producer was first.
        Produce(name: String, times: u32),
        // Appends each payload as a line to a file, up to the payload "end", which it sets again
        // for other peers.
        ConsumeAll(log: PathBuf),
        // Sets payloads of many lengths without end. Each of them reveals a partial read.
        SetWholePayloads(seed: usize),
    }
}

/// Starts a peer that opens the event.
pub(crate) fn peer(path: &Path, settings: &[Setting]) -> Peer {
    let mut peer = Peer::start();
    peer.open_event(path, settings);
    peer
}

impl Peer {
    #[track_caller]
    pub(crate) fn open_event(&mut self, path: &Path, settings: &[Setting]) {
        self.run(Call::Open(path.into(), settings.into()));
    }
}

#[derive(Default)]
pub(super) struct State {
    events: Vec<Event>,
    announcements: Vec<Announcement>,
}

impl State {
    pub(super) fn obey(&mut self, call: Call) -> Answer {
        let of_bytes = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if let Call::Open(path, settings) = call {
            let opened = options(&settings).open_event(path);
            return done(opened.map(|event| self.events.push(event)));
        }
        let event = &self.events[0];
        match call {
            Call::Open(..) => unreachable!(),
            Call::Set => text(event.set()),
            Call::SetWith(payload) => text(event.set_with(payload.as_bytes())),
            Call::Clear => text(event.clear()),
            Call::IsSet => text(event.is_set()),
            Call::Payload => {
                text(event.payload().map(|payload| payload.map_or("nothing".into(), of_bytes)))
            }
            Call::IsEventDriven => text(Ok(event.is_event_driven())),
            Call::Wait(way) => done(wait(event, way)),
            Call::WaitPayload(way) => text(wait_payload(event, way).map(of_bytes)),
            Call::Announce(payload) => {
                done(event.set_while_alive(payload).map(|made| self.announcements.push(made)))
            }
            Call::Withdraw => done(self.announcements.remove(0).withdraw()),
            Call::DropAnnouncement => {
                drop(self.announcements.remove(0));
                done(Ok(()))
            }
            Call::StillSet => text(self.announcements[0].still_set()),
            #[cfg(unix)]
            Call::Fork(keeps) => text(Ok(self.fork(keeps))),
            #[cfg(unix)]
            Call::DropInFork => match fork::fork().unwrap() {
                fork::Fork::Child => {
                    let refused = !self.announcements[0].still_set().unwrap();
                    let is_error = self.announcements.remove(0).withdraw().is_err();
                    self.announcements.clear();
                    crate::support::exit_copy(i32::from(!(refused && is_error)))
                }
                fork::Fork::Parent(child) => {
                    text(Ok(crate::support::ended(child).exit_status().unwrap()))
                }
            },
            Call::WaitCleared(way) => done(wait_cleared(event, way)),
            Call::Consume(way) => text(consume(event, way).map(of_bytes)),
            Call::WaitAny(Way::Async) => text(block_on(Event::wait_any_async(&self.events))),
            Call::WaitAny(_) => text(Event::wait_any(&self.events)),
            Call::WaitAll(Way::Async) => done(block_on(Event::wait_all_async(&self.events))),
            Call::WaitAll(_) => done(Event::wait_all(&self.events)),
            Call::PassOn(times, way) => done(self.pass_on(times, way)),
            Call::Follow(times, way) => done(follow(event, times, way)),
            Call::Produce(name, times) => done(produce(event, &name, times)),
            Call::ConsumeAll(log) => done(consume_all(event, &log)),
            Call::SetWholePayloads(seed) => done(set_whole_payloads(event, seed)),
        }
    }

    #[cfg(unix)]
    fn fork(&mut self, keeps: bool) -> i32 {
        match fork::fork().unwrap() {
            fork::Fork::Child => {
                if !keeps {
                    self.announcements.clear();
                }
                // The test kills this process, unless it fails before that.
                std::thread::sleep(crate::limit::LIMIT);
                crate::support::exit_copy(3)
            }
            fork::Fork::Parent(child) => child,
        }
    }

    fn pass_on(&self, times: u32, way: Way) -> Result<(), Error> {
        for _ in 0..times {
            wait(&self.events[0], way)?;
            assert!(self.events[0].clear()?);
            assert!(self.events[1].set()?);
        }
        Ok(())
    }
}

fn follow(event: &Event, times: u32, way: Way) -> Result<(), Error> {
    for _ in 0..times {
        wait(event, way)?;
        report("set");
        wait_cleared(event, way)?;
        report("cleared");
    }
    Ok(())
}

fn produce(event: &Event, name: &str, times: u32) -> Result<(), Error> {
    for number in 0..times {
        while !event.set_new(format!("{name}{number}"))? {
            event.wait_cleared_timeout(Duration::from_secs(1000))?;
        }
    }
    Ok(())
}

fn consume_all(event: &Event, log: &Path) -> Result<(), Error> {
    loop {
        let payload = event.consume()?;
        if payload == b"end" {
            return event.set_with(b"end").map(drop);
        }
        let mut log = std::fs::File::options().append(true).open(log).unwrap();
        std::io::Write::write_all(&mut log, &[&payload[..], b"\n"].concat()).unwrap();
    }
}

fn set_whole_payloads(event: &Event, seed: usize) -> Result<(), Error> {
    report("begins");
    let mut number = seed;
    loop {
        number = number.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        event.set_with(whole(number % 300_000, (number >> 8).to_le_bytes()[0]))?;
    }
}

fn wait(event: &Event, way: Way) -> Result<(), Error> {
    match way {
        Way::Block => event.wait(),
        Way::Try => event.wait_timeout(Duration::ZERO),
        Way::Timeout(ms) => event.wait_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => event.wait_deadline(Instant::now() + Duration::from_millis(ms)),
        Way::Async => block_on(event.wait_async()),
    }
}

fn wait_payload(event: &Event, way: Way) -> Result<Vec<u8>, Error> {
    match way {
        Way::Block => event.wait_payload(),
        Way::Try => event.try_wait_payload(),
        Way::Timeout(ms) => event.wait_payload_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => {
            event.wait_payload_deadline(Instant::now() + Duration::from_millis(ms))
        }
        Way::Async => block_on(event.wait_payload_async()),
    }
}

fn wait_cleared(event: &Event, way: Way) -> Result<(), Error> {
    match way {
        Way::Block => event.wait_cleared(),
        Way::Try => event.wait_cleared_timeout(Duration::ZERO),
        Way::Timeout(ms) => event.wait_cleared_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => {
            event.wait_cleared_deadline(Instant::now() + Duration::from_millis(ms))
        }
        Way::Async => block_on(event.wait_cleared_async()),
    }
}

fn consume(event: &Event, way: Way) -> Result<Vec<u8>, Error> {
    match way {
        Way::Block => event.consume(),
        Way::Try => event.try_consume(),
        Way::Timeout(ms) => event.consume_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => event.consume_deadline(Instant::now() + Duration::from_millis(ms)),
        Way::Async => block_on(event.consume_async()),
    }
}

/// Returns a payload that reveals whether a part is missing or comes from another payload.
pub(crate) fn whole(length: usize, letter: u8) -> Vec<u8> {
    let mut payload = format!("{length:08}").into_bytes();
    payload.resize(8 + length, letter);
    payload
}

pub(crate) fn is_whole(payload: &[u8]) -> bool {
    let Some((length, rest)) = payload.split_at_checked(8) else { return false };
    let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
    rest.len() == length && rest.iter().all(|byte| *byte == rest[0])
}
