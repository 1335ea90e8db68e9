//! The vandal: does to the files in the yard what no program should, and takes the user's inotify instances for a
//! while. It does not use flockwork either.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, inotify, mknodat};

use crate::arguments::Arguments;
use crate::dice::Dice;
use crate::record::{Kind, Log, Record, VANDAL};
use crate::tie::{self, Order};

const FILES: [&str; 15] = [
    "yard/lock",
    "yard/rwlock",
    "yard/rwlock.gate",
    "yard/semaphore/slot.0",
    "yard/semaphore/slot.1",
    "yard/semaphore/gate",
    "yard/semaphore/waiters",
    "yard/semaphore/queued",
    "yard/semaphore/capacity",
    "yard/deep/er/event",
    "yard/deep/er/event.flock",
    "yard/once.flock",
    "yard/shared",
    "yard/shared.flock",
    "yard/shared.flock.gate",
];
const DIRECTORIES: [&str; 5] =
    ["yard/semaphore", "yard/semaphore/.slots", "yard/deep/er", "yard/deep", "yard"];

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    tie::die_with_the_parent()?;
    let log = Log::open(&arguments.directory)?;
    let orders = orders();
    let mut dice = Dice::of(arguments.seed, &[4]);
    let mut order = orders.recv()?;
    loop {
        match order.1 {
            Order::Go => {
                let kind = act(arguments, &mut dice);
                log.write(Record { a: kind, ..Record::of(Kind::Mischief, VANDAL, 0) });
                match orders.recv_timeout(dice.micros(10_000)) {
                    Ok(next) => order = next,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
            Order::End => return Ok(()),
            Order::Pause | Order::Check => {
                tidy_up(&arguments.directory);
                log.write(Record { a: order.0, ..Record::of(Kind::Rests, VANDAL, 0) });
                order = orders.recv()?;
            }
        }
    }
}

fn orders() -> Receiver<(u64, Order)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for order in tie::orders().filter_map(|line| tie::parse(&line)) {
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Most of it may fail: others make and use the same files. Returns what kind of act it was.
fn act(arguments: &Arguments, dice: &mut Dice) -> u64 {
    if !arguments.spare_inotify && dice.one_in(300) {
        take_all_instances(dice.micros(300_000));
        return 2;
    }
    let directory = &arguments.directory;
    let _ = if dice.one_in(8) {
        to_a_directory(&directory.join(dice.pick(&DIRECTORIES)), dice)
    } else {
        to_a_file(&directory.join(dice.pick(&FILES)), dice)
    };
    0
}

fn take_all_instances(span: Duration) {
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

fn to_a_file(path: &Path, dice: &mut Dice) -> io::Result<()> {
    let aside = aside(path);
    let pause = dice.any_scale();
    match dice.below(8) {
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
            for_a_moment(&aside, path, pause)
        }
        5 => {
            std::os::unix::fs::symlink("somewhere/else", &aside)?;
            for_a_moment(&aside, path, pause)
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

/// What is no regular file.
fn for_a_moment(aside: &Path, path: &Path, pause: Duration) -> io::Result<()> {
    fs::rename(aside, path)?;
    std::thread::sleep(pause);
    fs::remove_file(path)
}

fn to_a_directory(path: &Path, dice: &mut Dice) -> io::Result<()> {
    let aside = aside(path);
    match dice.below(3) {
        0 => fs::remove_dir_all(path),
        1 => {
            fs::rename(path, &aside)?;
            std::thread::sleep(dice.any_scale());
            // Somebody may have made another meanwhile.
            fs::rename(&aside, path).or_else(|_| fs::remove_dir_all(&aside))
        }
        _ => {
            fs::rename(path, &aside)?;
            fs::create_dir_all(path)?;
            fs::remove_dir_all(&aside)
        }
    }
}

/// Nothing is left in the place of a file that is none, or in that of the capacity that is no number.
fn tidy_up(directory: &Path) {
    for path in FILES.map(|path| directory.join(path)) {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => drop(fs::remove_dir_all(&path)),
            Ok(found) if !found.is_file() => drop(fs::remove_file(&path)),
            _ => {}
        }
    }
    let _ = fs::remove_file(directory.join("yard/semaphore/capacity"));
    let _ = fs::remove_file(directory.join("yard/shared"));
}
