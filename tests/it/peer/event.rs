//! What a peer does with events, as it is told.

use std::path::Path;
use std::time::Duration;

use flockwork::{Error, Event};
use futures_lite::future::block_on;

use crate::peer::{Peer, milliseconds, options, told};

/// A peer that has opened the event.
pub(crate) fn peer(path: &Path, settings: &str) -> Peer {
    let mut peer = Peer::start();
    open(&mut peer, path, settings);
    peer
}

/// Opens one more; `wait` and its kin are about the first.
pub(crate) fn open(peer: &mut Peer, path: &Path, settings: &str) {
    peer.open(&format!("event\topen\t{}", path.display()), settings);
}

#[derive(Default)]
pub(crate) struct State {
    events: Vec<Event>,
}

impl State {
    pub(crate) fn obey(&mut self, words: &[&str]) -> String {
        told(self.done(words))
    }

    fn done(&mut self, words: &[&str]) -> Result<String, Error> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let ok = |()| "ok".to_string();
        if let ["open", path, ref settings @ ..] = *words {
            self.events.push(options(settings).open_event(path)?);
            return Ok("ok".into());
        }
        let event = &self.events[0];
        Ok(match *words {
            ["set"] => event.set()?.to_string(),
            ["set", payload] => event.set_with(payload.as_bytes())?.to_string(),
            ["clear"] => event.clear()?.to_string(),
            ["is-set"] => event.is_set()?.to_string(),
            ["payload"] => event.payload()?.map_or("nothing".into(), text),
            ["event-driven"] => event.is_event_driven().to_string(),
            ["wait"] => event.wait().map(ok)?,
            ["wait", "async"] => block_on(event.wait_async()).map(ok)?,
            ["wait", ms] => event.wait_timeout(milliseconds(ms)).map(ok)?,
            ["cleared"] => event.wait_cleared().map(ok)?,
            ["cleared", "async"] => block_on(event.wait_cleared_async()).map(ok)?,
            ["cleared", ms] => event.wait_cleared_timeout(milliseconds(ms)).map(ok)?,
            ["consume"] => text(event.consume()?),
            ["consume", "async"] => text(block_on(event.consume_async())?),
            ["consume", ms] => text(event.consume_timeout(milliseconds(ms))?),
            ["try-consume"] => text(event.try_consume()?),
            ["any"] => Event::wait_any(&self.events)?.to_string(),
            ["any", "async"] => block_on(Event::wait_any_async(&self.events))?.to_string(),
            ["all"] => Event::wait_all(&self.events).map(ok)?,
            ["all", "async"] => block_on(Event::wait_all_async(&self.events)).map(ok)?,
            // Sets the second, and waits for the first, so many times.
            ["return", times, way] => {
                for _ in 0..times.parse().unwrap() {
                    wait(event, way)?;
                    assert!(event.clear()?);
                    assert!(self.events[1].set()?);
                }
                "ok".into()
            }
            // Says what it has seen of each change, so many times.
            ["follow", times, way] => {
                for _ in 0..times.parse().unwrap() {
                    wait(event, way)?;
                    crate::peer::say("set");
                    match way {
                        "plain" => event.wait_cleared()?,
                        "async" => block_on(event.wait_cleared_async())?,
                        _ => event.wait_cleared_timeout(LONG)?,
                    }
                    crate::peer::say("cleared");
                }
                "ok".into()
            }
            // Sets it with each of `times` payloads, and waits until it is clear where another
            // producer was first.
            ["produce", name, times] => {
                for number in 0..times.parse().unwrap() {
                    while !event.set_new(format!("{name}{number}"))? {
                        event.wait_cleared_timeout(LONG)?;
                    }
                }
                "ok".into()
            }
            // Appends what it gets to a file, a line for each, until it gets "end", which it sets again for others.
            ["consume-all", log] => loop {
                let payload = event.consume()?;
                if payload == b"end" {
                    event.set_with(b"end")?;
                    break "ok".into();
                }
                let mut log = std::fs::File::options().append(true).open(log).unwrap();
                std::io::Write::write_all(&mut log, &[&payload[..], b"\n"].concat()).unwrap();
            },
            // Sets payloads of many lengths that tell whether they are whole, for ever.
            ["write-payloads", seed] => {
                crate::peer::say("begins");
                let mut number: usize = seed.parse().unwrap();
                loop {
                    number = number.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                    event.set_with(&whole(number % 300_000, (number >> 8).to_le_bytes()[0]))?;
                }
            }
            _ => format!("what is {words:?}?"),
        })
    }
}

const LONG: Duration = Duration::from_secs(1000);

fn wait(event: &Event, way: &str) -> Result<(), Error> {
    match way {
        "plain" => event.wait(),
        "async" => block_on(event.wait_async()),
        _ => event.wait_timeout(LONG),
    }
}

/// A payload that shows whether anything of it is missing, or of another.
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
