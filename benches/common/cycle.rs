//! Measures cycles that take microseconds.

use std::time::{Duration, Instant};

/// Measures `count` cycles one by one, less the cost of reading the clock. One more cycle runs
/// first and is not measured, since the caches still contain another contender's data.
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
