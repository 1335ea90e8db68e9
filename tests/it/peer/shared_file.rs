//! The shared file calls of a peer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flockwork::{Error, FileReadGuard, FileWriteGuard, SharedFile};
use futures_lite::future::block_on;

use super::{Answer, Peer, Setting, Way, called, describe, done, options, report, text};
use crate::support::failure::Failure;

sendable! {
    enum Call {
        Open(path: PathBuf, settings: Vec<Setting>),
        Read,
        // Reads under the lock, for which it waits.
        ReadLocked(way: Way),
        Write(contents: String, way: Way),
        Update(change: Change, way: Way),
        IsDurable,
        LockExclusive,
        Replace(contents: String),
        DropGuard,
        // Adds one, `times` times, and appends a byte to the log after each update.
        Count(log: PathBuf, times: u32),
        // Reads until the file exists, and checks that the contents are complete.
        ReadUntil(file: PathBuf, through: Through),
        // Returns the exit code of a child that has a copy of the guard: 0 if replacing fails.
        #[cfg(unix)]
        ReplaceInFork(contents: String),
    }
}

sendable! {
    /// The change that an update makes.
    enum Change {
        Append(text: String),
        Fail,
        Hang,
    }
}

sendable! {
    /// How a file is read.
    #[derive(Copy)]
    enum Through {
        Library,
        System,
    }
}

/// Starts a peer that opens the file.
pub(crate) fn peer(path: &Path, settings: &[Setting]) -> Peer {
    let mut peer = Peer::start();
    peer.open_shared_file(path, settings);
    peer
}

impl Peer {
    #[track_caller]
    pub(crate) fn open_shared_file(&mut self, path: &Path, settings: &[Setting]) {
        self.run(Call::Open(path.into(), settings.into()));
    }
}

#[derive(Default)]
pub(super) struct State {
    file: Option<SharedFile>,
    writing: Option<FileWriteGuard>,
}

impl State {
    pub(super) fn obey(&mut self, call: Call) -> Answer {
        let of_bytes = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if let Call::Open(path, settings) = call {
            let opened = options(&settings).open_shared_file(path);
            return done(opened.map(|file| self.file = Some(file)));
        }
        let file = self.file.as_ref().expect("open is called first");
        match call {
            Call::Open(..) => unreachable!(),
            Call::Read => text(file.read().map(of_bytes)),
            Call::ReadLocked(way) => {
                text(lock_shared(file, way).and_then(|guard| guard.read()).map(of_bytes))
            }
            Call::Write(contents, way) => done(write(file, contents, way)),
            Call::Update(change, way) => {
                called(update(file, way, move |contents| changed(contents, &change)).map(|()| ""))
            }
            Call::IsDurable => text(Ok(file.is_durable())),
            Call::LockExclusive => {
                done(file.lock_exclusive().map(|guard| self.writing = Some(guard)))
            }
            Call::Replace(contents) => done(self.writing.as_mut().unwrap().replace(contents)),
            Call::DropGuard => {
                self.writing = None;
                done(Ok(()))
            }
            Call::Count(log, times) => count(file, &log, times),
            Call::ReadUntil(until, through) => read_until(file, &until, through),
            #[cfg(unix)]
            Call::ReplaceInFork(contents) => match fork::fork().unwrap() {
                fork::Fork::Child => {
                    let failed = self.writing.as_mut().unwrap().replace(contents).is_err();
                    crate::support::exit_copy(i32::from(!failed))
                }
                fork::Fork::Parent(child) => {
                    text(Ok(crate::support::ended(child).exit_status().unwrap()))
                }
            },
        }
    }
}

/// A write with a limit acquires a guard with that limit.
fn write(file: &SharedFile, contents: String, way: Way) -> Result<(), Error> {
    match way {
        Way::Block => file.write(contents),
        Way::Async => block_on(file.write_async(contents)),
        limited => lock_exclusive(file, limited)?.replace(contents),
    }
}

fn lock_exclusive(file: &SharedFile, way: Way) -> Result<FileWriteGuard, Error> {
    match way {
        Way::Block => file.lock_exclusive(),
        Way::Try => file.try_lock_exclusive(),
        Way::Timeout(ms) => file.lock_exclusive_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => {
            file.lock_exclusive_deadline(Instant::now() + Duration::from_millis(ms))
        }
        Way::Async => block_on(file.lock_exclusive_async()),
    }
}

fn lock_shared(file: &SharedFile, way: Way) -> Result<FileReadGuard, Error> {
    match way {
        Way::Block => file.lock_shared(),
        Way::Try => file.try_lock_shared(),
        Way::Timeout(ms) => file.lock_shared_timeout(Duration::from_millis(ms)),
        Way::Deadline(ms) => file.lock_shared_deadline(Instant::now() + Duration::from_millis(ms)),
        Way::Async => block_on(file.lock_shared_async()),
    }
}

type Updated = Result<(), Failure<String>>;

/// An update with a limit acquires a guard with that limit.
fn update(
    file: &SharedFile,
    way: Way,
    change: impl FnOnce(&mut Vec<u8>) -> Updated + Send + 'static,
) -> Updated {
    match way {
        Way::Block => file.update(change),
        Way::Async => block_on(file.update_async(change)),
        limited => lock_exclusive(file, limited)?.update(change),
    }
}

fn changed(contents: &mut Vec<u8>, change: &Change) -> Updated {
    match change {
        Change::Fail => return Err(Failure::Closure("it failed".into())),
        Change::Hang => {
            report("in the middle");
            std::thread::sleep(Duration::from_secs(600));
        }
        Change::Append(text) => contents.extend(text.as_bytes()),
    }
    Ok(())
}

fn add_one(contents: &mut Vec<u8>) -> Updated {
    let number = String::from_utf8_lossy(contents).into_owned();
    let number: u64 = match number.as_str() {
        "" => 0,
        number => {
            number.parse().map_err(|error| Failure::Closure(format!("{number:?}: {error}")))?
        }
    };
    *contents = (number + 1).to_string().into_bytes();
    Ok(())
}

fn count(file: &SharedFile, acknowledged: &Path, times: u32) -> Answer {
    use std::io::Write as _;
    let mut log = std::fs::File::options().append(true).create(true).open(acknowledged).unwrap();
    for round in 0..times {
        let way = [Way::Block, Way::Timeout(300_000), Way::Async][(round % 3) as usize];
        if let Err(error) = update(file, way, add_one) {
            return called::<String>(Err(error));
        }
        log.write_all(b".").unwrap();
    }
    done(Ok(()))
}

/// Reads until the file exists. Complete contents consist of one repeated letter.
fn read_until(file: &SharedFile, until: &Path, through: Through) -> Answer {
    let mut reads = 0_u32;
    while !until.exists() {
        let contents = match through {
            Through::System => match std::fs::read(file.path()) {
                // No process can open a file on Windows while it is being replaced.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => continue,
                contents => contents.unwrap(),
            },
            Through::Library => match file.read() {
                Ok(contents) => contents,
                Err(error) => return Err(describe(&error)),
            },
        };
        if contents.len() < 100_000 || contents.iter().any(|byte| *byte != contents[0]) {
            return Err(format!("torn: {} bytes", contents.len()));
        }
        reads += 1;
        if reads == 5 {
            std::fs::write(until.with_extension(std::process::id().to_string()), "").unwrap();
        }
    }
    done(Ok(()))
}
