//! What a peer does with what runs a closure, as it is told: something that is done once, and a file that is shared.

use std::path::Path;
use std::time::{Duration, Instant};

use flockwork::{CallError, Error, FileReadGuard, FileWriteGuard, Once, SharedFile};
use futures_lite::future::block_on;

use crate::peer::{Peer, complaint, milliseconds, options, say, told};

/// A peer that has opened `path` as `kind`: `once` or `file`.
pub(crate) fn peer(kind: &str, path: &Path, settings: &str) -> Peer {
    let mut peer = Peer::start();
    open(&mut peer, kind, path, settings);
    peer
}

pub(crate) fn open(peer: &mut Peer, kind: &str, path: &Path, settings: &str) {
    peer.open(&format!("{kind}\topen\t{}", path.display()), settings);
}

#[derive(Default)]
pub(crate) struct State {
    once: Option<Once>,
    file: Option<SharedFile>,
    reading: Option<FileReadGuard>,
    writing: Option<FileWriteGuard>,
}

/// What a call came to that runs a closure.
fn called<T: ToString, E: std::fmt::Display>(outcome: Result<T, CallError<E>>) -> String {
    match outcome {
        Ok(value) => value.to_string(),
        Err(CallError::Closure(error)) => format!("closure: {error}"),
        Err(CallError::Flockwork(error)) => complaint(&error),
    }
}

/// What is done once, in a peer: writes a line to a file, in two steps.
fn do_it(log: &str, how: &str) -> Result<(), String> {
    use std::io::Write as _;
    match how {
        "fails" => return Err("it failed".into()),
        // Without a word on standard error.
        "panics" => std::panic::resume_unwind(Box::new("it panicked")),
        "hangs" => {
            say("in the middle");
            std::thread::sleep(Duration::from_secs(600));
        }
        // A copy of this process comes back from the closure as well, and says that it went well.
        #[cfg(unix)]
        "forks" => match fork::fork().unwrap() {
            fork::Fork::Child => return Ok(()),
            fork::Fork::Parent(child) => {
                let status = crate::support::ended(child);
                return Err(format!("the copy ended with {:?}", status.exit_status()));
            }
        },
        "slowly" => std::thread::sleep(Duration::from_millis(20)),
        _ => {}
    }
    let mut log = std::fs::File::options().append(true).create(true).open(log).unwrap();
    writeln!(log, "done by {}", std::process::id()).unwrap();
    Ok(())
}

impl State {
    pub(crate) fn once(&mut self, words: &[&str]) -> String {
        if let ["open", path, ref settings @ ..] = *words {
            let opened = options(settings).open_once(path);
            return told(opened.map(|once| {
                self.once = Some(once);
                "ok".into()
            }));
        }
        let once = self.once.as_ref().expect("open comes first");
        if let ["call", log, how, ref way @ ..] = *words {
            let call = || match *way {
                [] => once.call_once(|| do_it(log, how)),
                ["try"] => once.try_call_once(|| do_it(log, how)),
                ["async"] => block_on(once.call_once_async(|| async { do_it(log, how) })),
                ["deadline", ms] => {
                    let deadline = Instant::now() + milliseconds(ms);
                    once.call_once_deadline(deadline, || do_it(log, how))
                }
                [ms] => once.call_once_timeout(milliseconds(ms), || do_it(log, how)),
                _ => panic!("what is {way:?}?"),
            };
            let own = std::process::id();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
            if std::process::id() != own {
                std::process::exit(i32::from(!matches!(outcome, Ok(Err(_)))));
            }
            return outcome.map_or("panicked".into(), called);
        }
        let ok = |()| "ok".to_string();
        let done = |words: &[&str]| -> Result<String, Error> {
            Ok(match *words {
                ["is-done"] => once.is_done()?.to_string(),
                ["holder"] => once.holder()?.map_or("nobody".into(), |holder| holder.to_string()),
                ["reset"] => once.reset()?.to_string(),
                ["reset", "try"] => once.try_reset()?.to_string(),
                ["reset", "async"] => block_on(once.reset_async())?.to_string(),
                ["reset", ms] => once.reset_timeout(milliseconds(ms))?.to_string(),
                ["wait"] => once.wait().map(ok)?,
                ["wait", "async"] => block_on(once.wait_async()).map(ok)?,
                ["wait", "deadline", ms] => {
                    once.wait_deadline(Instant::now() + milliseconds(ms)).map(ok)?
                }
                ["wait", ms] => once.wait_timeout(milliseconds(ms)).map(ok)?,
                _ => format!("what is {words:?}?"),
            })
        };
        told(done(words))
    }

    pub(crate) fn file(&mut self, words: &[&str]) -> String {
        if let ["open", path, ref settings @ ..] = *words {
            let opened = options(settings).open_shared_file(path);
            return told(opened.map(|file| {
                self.file = Some(file);
                "ok".into()
            }));
        }
        let file = self.file.as_ref().expect("open comes first");
        match *words {
            ["update", how, ref way @ ..] => {
                return called(update(file, way, |old| changed(old, how)).map(|()| "ok"));
            }
            // Adds one, so many times, and counts in a file of its own how often that was done.
            ["count", acknowledged, times] => return count(file, acknowledged, times),
            // Reads until the file is there, and looks whether what it reads is whole.
            ["watch", until, way] => return watch(file, Path::new(until), way),
            _ => {}
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let ok = |()| "ok".to_string();
        let mut done = || -> Result<String, Error> {
            match *words {
                ["read"] => return file.read().map(text),
                ["read", "try"] => return file.try_read().map(text),
                ["read", "async"] => return block_on(file.read_async()).map(text),
                ["read", "deadline", ms] => {
                    return file.read_deadline(Instant::now() + milliseconds(ms)).map(text);
                }
                ["read", ms] => return file.read_timeout(milliseconds(ms)).map(text),
                ["durable"] => return Ok(file.is_durable().to_string()),
                // Under the lock, for which it waits.
                ["read-locked", ref way @ ..] => return share(file, way)?.read().map(text),
                ["write", contents] => return file.write(contents).map(ok),
                ["write", contents, "try"] => return file.try_write(contents).map(ok),
                ["write", contents, "async"] => {
                    return block_on(file.write_async(contents)).map(ok);
                }
                ["write", contents, ms] => {
                    return file.write_timeout(contents, milliseconds(ms)).map(ok);
                }
                ["lock-shared"] => self.reading = Some(file.lock_shared()?),
                ["lock-exclusive"] => self.writing = Some(file.lock_exclusive()?),
                ["replace", contents] => self.writing.as_mut().unwrap().replace(contents)?,
                ["drop"] => {
                    self.reading = None;
                    self.writing = None;
                }
                // In a child that has a copy of the guard.
                #[cfg(unix)]
                ["fork-replace", contents] => match fork::fork().unwrap() {
                    fork::Fork::Child => {
                        let refused = self.writing.as_mut().unwrap().replace(contents).is_err();
                        std::process::exit(i32::from(!refused))
                    }
                    fork::Fork::Parent(child) => {
                        let status = crate::support::ended(child);
                        return Ok(format!("child {}", status.exit_status().unwrap()));
                    }
                },
                _ => return Ok(format!("what is {words:?}?")),
            }
            Ok("ok".into())
        };
        let outcome = done();
        told(outcome)
    }
}

fn share(file: &SharedFile, way: &[&str]) -> Result<FileReadGuard, Error> {
    match *way {
        [] => file.lock_shared(),
        ["try"] => file.try_lock_shared(),
        ["async"] => block_on(file.lock_shared_async()),
        ["deadline", ms] => file.lock_shared_deadline(Instant::now() + milliseconds(ms)),
        [ms] => file.lock_shared_timeout(milliseconds(ms)),
        _ => panic!("what is {way:?}?"),
    }
}

fn update<E>(
    file: &SharedFile,
    way: &[&str],
    change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
) -> Result<(), CallError<E>> {
    match *way {
        [] => file.update(change),
        ["try"] => file.try_update(change),
        ["async"] => block_on(file.update_async(change)),
        ["deadline", ms] => file.update_deadline(Instant::now() + milliseconds(ms), change),
        [ms] => file.update_timeout(milliseconds(ms), change),
        _ => panic!("what is {way:?}?"),
    }
}

fn changed(mut old: Vec<u8>, how: &str) -> Result<Vec<u8>, String> {
    match how {
        "fails" => Err("it failed".into()),
        "adds" => add_one(&old),
        "hangs" => {
            say("in the middle");
            std::thread::sleep(Duration::from_secs(600));
            Ok(old)
        }
        _ => {
            old.extend(how.as_bytes());
            Ok(old)
        }
    }
}

fn add_one(old: &[u8]) -> Result<Vec<u8>, String> {
    let number = String::from_utf8_lossy(old).into_owned();
    let number: u64 = match number.as_str() {
        "" => 0,
        number => number.parse().map_err(|error| format!("{number:?}: {error}"))?,
    };
    Ok((number + 1).to_string().into_bytes())
}

fn count(file: &SharedFile, acknowledged: &str, times: &str) -> String {
    use std::io::Write as _;
    let mut log = std::fs::File::options().append(true).create(true).open(acknowledged).unwrap();
    for round in 0..times.parse::<u32>().unwrap() {
        let way: &[&str] = [&[][..], &["300000"], &["async"]][(round % 3) as usize];
        if let Err(error) = update(file, way, |old| add_one(&old)) {
            return called::<String, _>(Err(error));
        }
        log.write_all(b".").unwrap();
    }
    "ok".into()
}

/// A file is whole if it is one letter all over.
fn watch(file: &SharedFile, until: &Path, way: &str) -> String {
    let mut reads = 0_u32;
    while !until.exists() {
        let contents = match way {
            "bare" => match std::fs::read(file.path()) {
                // On Windows nobody can open it while it is replaced.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => continue,
                contents => contents.unwrap(),
            },
            _ => match file.read() {
                Ok(contents) => contents,
                Err(error) => return complaint(&error),
            },
        };
        if contents.len() < 100_000 || contents.iter().any(|byte| *byte != contents[0]) {
            return format!("torn: {} bytes", contents.len());
        }
        reads += 1;
        if reads == 5 {
            std::fs::write(until.with_extension(std::process::id().to_string()), "").unwrap();
        }
    }
    "ok".into()
}
