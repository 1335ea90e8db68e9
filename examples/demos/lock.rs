//! Two processes append to one file, as in the tutorial on Python's `multiprocessing.Lock`.
//!
//! One worker holds the lock for a scope (Python's `with lock:`). The other one locks and unlocks
//! explicitly (`lock.acquire()`, `lock.release()`). The program starts itself again for each
//! worker.
//!
//! ```text
//! cargo run --example lock                     the lines of the two workers never mix
//! cargo run --example lock -- --without-lock   the lines are torn
//! ```

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use flockwork::{Lock, Options};

const TURNS: usize = 3;
const LINES: usize = 4;
/// A line is written in pieces, with pauses in which the other worker could write into it.
const PIECES: [&str; 4] = ["all", " of", " one", " line"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => tutorial(true),
        ["--without-lock"] => tutorial(false),
        ["worker", name, directory, with_lock] => {
            worker(name, Path::new(directory), with_lock == "true").map(|()| true)
        }
        _ => {
            eprintln!("usage: lock [--without-lock]");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the two workers and checks the lines that they wrote. With the lock, a torn line is a
/// failure.
fn tutorial(with_lock: bool) -> Result<bool, Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("flockwork-example-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    println!(
        "Two processes append {} lines each to one file, {} the lock.",
        TURNS * LINES,
        if with_lock { "with" } else { "without" }
    );
    let start = |name: &str| -> std::io::Result<Child> {
        Command::new(std::env::current_exe()?)
            .args(["worker", name])
            .arg(&directory)
            .arg(with_lock.to_string())
            .spawn()
    };
    let workers = [start("scoped")?, start("explicit")?];
    let mut succeeded = true;
    for mut worker in workers {
        succeeded &= worker.wait()?.success();
    }

    let text = std::fs::read_to_string(directory.join("shared.txt"))?;
    println!("\nThe file:");
    let mut torn = 0;
    for line in text.lines() {
        let whole = ["scoped", "explicit"]
            .iter()
            .any(|name| line == format!("{name}: {}", PIECES.concat()));
        torn += usize::from(!whole);
        println!("  {line}{}", if whole { "" } else { "   <- torn" });
    }
    println!("\n{} lines, {torn} of them torn.", text.lines().count());
    if !with_lock {
        println!("Run the example without --without-lock to see whole lines.");
    }
    std::fs::remove_dir_all(&directory)?;
    Ok(succeeded && (torn == 0 || !with_lock))
}

/// The main function of a worker process.
fn worker(name: &str, directory: &Path, with_lock: bool) -> Result<(), Box<dyn Error>> {
    let mut file =
        OpenOptions::new().create(true).append(true).open(directory.join("shared.txt"))?;
    let me = format!("{name:>8} ({})", std::process::id());
    let lock: Lock = Options::new()
        .label(format!("the {name} worker"))
        .on_wait(Duration::from_millis(50), Duration::from_millis(50), {
            let me = me.clone();
            move |waiting| match waiting.holders().first().and_then(|h| h.label()) {
                Some(holder) => println!("{me} waits, {holder} holds the lock"),
                None => println!("{me} waits"),
            }
        })
        .open_lock(directory.join("shared.lock"))?;

    for turn in 1..=TURNS {
        if !with_lock {
            write_lines(&mut file, name)?;
        } else if name == "scoped" {
            let _guard = lock.lock()?;
            println!("{me} holds the lock, turn {turn}");
            write_lines(&mut file, name)?;
            println!("{me} releases the lock at the end of the scope");
        } else {
            let guard = lock.lock()?;
            println!("{me} holds the lock, turn {turn}");
            write_lines(&mut file, name)?;
            println!("{me} releases the lock with unlock()");
            guard.unlock()?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn write_lines(file: &mut File, name: &str) -> std::io::Result<()> {
    for _ in 0..LINES {
        write!(file, "{name}:")?;
        for piece in [" "].iter().chain(&PIECES) {
            file.write_all(piece.as_bytes())?;
            std::thread::sleep(Duration::from_millis(5));
        }
        file.write_all(b"\n")?;
    }
    Ok(())
}
