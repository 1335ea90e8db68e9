//! Timing what takes microseconds.

use std::time::{Duration, Instant};

/// So many cycles, each timed by itself, less what reading the clock costs. One more goes before them
/// unmeasured: it finds the caches as another contender left them.
pub(crate) fn time_cycles(
    cycle: &mut dyn FnMut(),
    count: usize,
    cost_of_the_clock: Duration,
) -> Vec<Duration> {
    cycle();
    let mut before = Instant::now();
    let time = |_| {
        cycle();
        let after = Instant::now();
        let time = (after - before).saturating_sub(cost_of_the_clock);
        before = after;
        time
    };
    (0..count).map(time).collect()
}

pub(crate) fn cost_of_the_clock() -> Duration {
    let mut costs: Vec<Duration> = (0..1001).map(|_| Instant::now().elapsed()).collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}
