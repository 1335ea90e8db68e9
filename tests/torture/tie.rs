//! Nothing outlives the conductor: the kernel kills its children with it, also those that are stopped.

use std::io;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// To be called first. `stdin` is the conductor's, and ends with it: who began after its end sees that.
pub(crate) fn die_with_the_parent() -> io::Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Ended before that was asked for: another one is our parent by now.
    if getppid() == parent { Ok(()) } else { Err(io::Error::other("the conductor has ended")) }
}

/// What the conductor says, line by line, until it has no more to say.
pub(crate) fn orders() -> impl Iterator<Item = String> {
    io::stdin().lines().map_while(Result::ok)
}

/// Pause, go on, look whether all is well, end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Go,
    Pause,
    Check,
    End,
}

/// An order with its number.
pub(crate) fn parse(line: &str) -> Option<(u64, Order)> {
    let (number, word) = line.split_once(' ')?;
    let order = match word {
        "go" => Order::Go,
        "pause" => Order::Pause,
        "check" => Order::Check,
        "end" => Order::End,
        _ => return None,
    };
    Some((number.parse().ok()?, order))
}

pub(crate) fn line(number: u64, order: Order) -> String {
    let word = match order {
        Order::Go => "go",
        Order::Pause => "pause",
        Order::Check => "check",
        Order::End => "end",
    };
    format!("{number} {word}\n")
}
