//! The chaos process: tampers with files that are in use, and uses up the user's inotify instances
//! for a while. It does not use flockwork.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, inotify, mknodat};

use crate::AnyResult;
use crate::arguments::Arguments;
use crate::parent;
use crate::phase::Phase;
use crate::record::{CHAOS, Kind, Log, Record};
use crate::rng::Rng;

const FILES: [&str; 19] = [
    "tampered/lock",
    "tampered/rwlock",
    "tampered/rwlock.gate",
    "tampered/semaphore/slot.0",
    "tampered/semaphore/slot.1",
    "tampered/semaphore/gate",
    "tampered/semaphore/waiters",
    "tampered/semaphore/queued",
    "tampered/semaphore/capacity",
    "tampered/deep/er/event",
    "tampered/deep/er/event.flock",
    "tampered/once.flock",
    "tampered/shared",
    "tampered/shared.flock",
    "tampered/shared.flock.gate",
    "tampered/barrier/participant.0",
    "tampered/barrier/setup",
    "tampered/barrier/wanted",
    "tampered/barrier/open.2.0",
];
const DIRECTORIES: [&str; 7] = [
    "tampered/semaphore",
    "tampered/semaphore/.slots",
    "tampered/barrier",
    "tampered/barrier/arrived",
    "tampered/deep/er",
    "tampered/deep",
    "tampered",
];

pub(crate) fn run(arguments: &Arguments) -> AnyResult<()> {
    parent::die_with_parent()?;
    let log = Log::open(&arguments.directory)?;
    let phases = receive_phases();
    let mut rng = Rng::for_purpose(arguments.seed, &[4]);
    let mut phase = phases.recv()?;
    loop {
        match phase.1 {
            Phase::Run => {
                let kind = act(arguments, &mut rng);
                log.write(Record { a: kind, ..Record::of(Kind::Tampered, CHAOS, 0) });
                match phases.recv_timeout(rng.micros(10_000)) {
                    Ok(next) => phase = next,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
            Phase::End => return Ok(()),
            Phase::Pause | Phase::Check => {
                remove_damage(&arguments.directory);
                log.write(Record { a: phase.0, ..Record::of(Kind::Paused, CHAOS, 0) });
                phase = phases.recv()?;
            }
        }
    }
}

fn receive_phases() -> Receiver<(u64, Phase)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for phase in parent::phases() {
            if sender.send(phase).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Does one random act of tampering, and returns its kind. Most kinds may fail, since workers use
/// the same files.
fn act(arguments: &Arguments, rng: &mut Rng) -> u64 {
    if !arguments.spare_inotify && rng.one_in(300) {
        exhaust_inotify(rng.micros(300_000));
        return 2;
    }
    let directory = &arguments.directory;
    let _ = if rng.one_in(8) {
        tamper_with_directory(&directory.join(rng.pick(&DIRECTORIES)), rng)
    } else {
        tamper_with_file(&directory.join(rng.pick(&FILES)), rng)
    };
    0
}

fn exhaust_inotify(span: Duration) {
    let mut instances: Vec<OwnedFd> = Vec::new();
    while let Ok(instance) = inotify::init(inotify::CreateFlags::CLOEXEC) {
        instances.push(instance);
    }
    std::thread::sleep(span);
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".aside");
    name.into()
}

fn tamper_with_file(path: &Path, rng: &mut Rng) -> io::Result<()> {
    let aside = aside(path);
    // A FIFO that an earlier rename has failed to move would block the write below.
    let _ = fs::remove_file(&aside);
    let pause = rng.any_scale();
    match rng.below(8) {
        0 | 1 => fs::remove_file(path),
        2 => {
            fs::write(&aside, "")?;
            fs::rename(&aside, path)
        }
        3 => {
            fs::rename(path, &aside)?;
            std::thread::sleep(pause);
            fs::rename(&aside, path)
        }
        4 => {
            mknodat(CWD, &aside, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            replace_for(&aside, path, pause)
        }
        5 => {
            std::os::unix::fs::symlink("somewhere/else", &aside)?;
            replace_for(&aside, path, pause)
        }
        6 => {
            let _ = fs::remove_file(path);
            fs::create_dir(path)?;
            std::thread::sleep(pause);
            fs::remove_dir(path)
        }
        _ => fs::write(path, "7"),
    }
}

/// Replaces a file with something other than a regular file for a while.
fn replace_for(aside: &Path, path: &Path, pause: Duration) -> io::Result<()> {
    fs::rename(aside, path)?;
    std::thread::sleep(pause);
    fs::remove_file(path)
}

fn tamper_with_directory(path: &Path, rng: &mut Rng) -> io::Result<()> {
    let aside = aside(path);
    match rng.below(3) {
        0 => fs::remove_dir_all(path),
        1 => {
            fs::rename(path, &aside)?;
            std::thread::sleep(rng.any_scale());
            // A worker may have created another directory in the meantime.
            fs::rename(&aside, path).or_else(|_| fs::remove_dir_all(&aside))
        }
        _ => {
            fs::rename(path, &aside)?;
            fs::create_dir_all(path)?;
            fs::remove_dir_all(&aside)
        }
    }
}

/// Removes everything that is not a regular file, and the files whose contents may be invalid.
fn remove_damage(directory: &Path) {
    for path in FILES.map(|path| directory.join(path)) {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => drop(fs::remove_dir_all(&path)),
            Ok(found) if !found.is_file() => drop(fs::remove_file(&path)),
            _ => {}
        }
    }
    let _ = fs::remove_file(directory.join("tampered/semaphore/capacity"));
    let _ = fs::remove_file(directory.join("tampered/shared"));
    // It may have two states.
    let _ = fs::remove_dir_all(directory.join("tampered/barrier"));
}
