//! Torture: processes that take and give back every primitive at random, while they are killed, stopped and starved of
//! descriptors, while futures are dropped half-way, and while somebody meddles with the files. A witness that does
//! not use flockwork is told by everybody when they go in and out, and judges: see `table.rs` for what and how.
//!
//! ```text
//! cargo run --release --example torture                                  a short run, under a minute
//! cargo run --release --example torture -- --seed 7 --acquisitions 1000000 --kills 10000
//! cargo run --release --example torture -- --break lock                  the witness sees what is broken on purpose
//! ```
//!
//! The seed decides who does what in which round, and in which round, at which step and after how many microseconds
//! a process is killed or stopped. (What the kernel's scheduler makes of that is its own.) It needs Linux: it looks into
//! `/proc`, and has all processes die with their parent. `tests/it/torture.rs` runs it with few acquisitions.

#[cfg(target_os = "linux")]
mod arguments;
#[cfg(target_os = "linux")]
mod capacity;
#[cfg(target_os = "linux")]
mod conductor;
#[cfg(target_os = "linux")]
mod dice;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod fate;
#[cfg(target_os = "linux")]
mod payload;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod rounds;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod things;
#[cfg(target_os = "linux")]
mod tie;
#[cfg(target_os = "linux")]
mod vandal;
#[cfg(target_os = "linux")]
mod ways;
#[cfg(target_os = "linux")]
mod witness;
#[cfg(target_os = "linux")]
mod worker;

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
        Role::Conductor => conductor::run(&arguments),
        Role::Witness => witness::run(&arguments),
        Role::Worker { number, generation } => {
            worker::run(&arguments, number, generation).map(|()| true)
        }
        Role::Vandal => vandal::run(&arguments).map(|()| true),
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
