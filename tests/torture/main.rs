//! Torture: processes use every primitive at random, while they are killed, stopped and deprived of
//! descriptors, while futures are dropped before they complete, and while another process tampers
//! with the files.
//!
//! The coordinator (`coordinator.rs`) starts the workers (`worker.rs`, `operations/`). Each worker
//! records when it enters and leaves. A monitor that does not use flockwork reads the records
//! (`monitor.rs`) and checks them (`checker/`).
//!
//! ```text
//! cargo run --release --example torture              a short run, under a minute
//! cargo run --release --example torture -- --seed 7 --acquisitions 1000000 --kills 10000
//! cargo run --release --example torture -- --break lock  cause an error, which is detected
//! ```
//!
//! The seed decides what each thread does in each round, and in which round, at which point and
//! after how many microseconds a process is killed or stopped. (The kernel's scheduler decides the
//! rest.) The torture test requires Linux: it reads `/proc`, and makes all processes die with their
//! parent. `tests/it/torture.rs` runs it with few acquisitions.

#[cfg(target_os = "linux")]
mod arguments;
#[cfg(target_os = "linux")]
mod breakage;
#[cfg(target_os = "linux")]
mod chaos;
#[cfg(target_os = "linux")]
mod checker;
#[cfg(target_os = "linux")]
mod children;
#[cfg(target_os = "linux")]
mod coordinator;
#[cfg(target_os = "linux")]
mod event_driver;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod monitor;
#[cfg(target_os = "linux")]
mod operations;
#[cfg(target_os = "linux")]
mod parent;
#[cfg(target_os = "linux")]
mod payload;
#[cfg(target_os = "linux")]
mod phase;
#[cfg(target_os = "linux")]
mod primitives;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod rng;
#[cfg(target_os = "linux")]
mod stalls;
#[cfg(target_os = "linux")]
mod wait_modes;
#[cfg(target_os = "linux")]
mod worker;

/// A result whose error is only printed.
#[cfg(target_os = "linux")]
type AnyResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("The torture runs on Linux only.");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use arguments::{Role, USAGE};
    use std::process::ExitCode;

    let Some((role, arguments)) = arguments::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    let outcome = match role {
        Role::Coordinator => coordinator::run(&arguments),
        Role::Monitor => monitor::run(&arguments),
        Role::Worker { number, generation } => {
            worker::run(&arguments, number, generation).map(|()| true)
        }
        Role::Chaos => chaos::run(&arguments).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture {role:?}: {error}");
            ExitCode::FAILURE
        }
    }
}
