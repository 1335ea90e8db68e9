//! Compares operations that take microseconds. The contenders take turns in small batches.

use std::time::Duration;

use crate::common::{Row, Target};
use crate::cycle::{cost_of_the_clock, time_cycles};

/// One of the operations that are compared.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    targets: &'static [Target],
    pub(crate) cycle: Box<dyn FnMut()>,
}

impl Contender {
    pub(crate) fn new(
        name: &'static str,
        targets: &'static [Target],
        cycle: impl FnMut() + 'static,
    ) -> Self {
        Self { name, targets, cycle: Box::new(cycle) }
    }
}

/// Runs the contenders in turn, so that other work on the machine affects all of them alike.
pub(crate) fn interleave(mut contenders: Vec<Contender>, rounds: usize, batch: usize) -> Vec<Row> {
    let clock = cost_of_the_clock();
    let mut times: Vec<Vec<Duration>> = vec![Vec::with_capacity(rounds * batch); contenders.len()];
    for _ in 0..rounds {
        for (Contender { cycle, .. }, times) in contenders.iter_mut().zip(&mut times) {
            times.extend(time_cycles(cycle, batch, clock));
        }
    }
    let row =
        |(contender, times): (Contender, _)| Row::new(contender.name, contender.targets, times);
    contenders.into_iter().zip(times).map(row).collect()
}
