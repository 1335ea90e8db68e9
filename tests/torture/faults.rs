//! The times when each worker is stopped, and when and how it ends. The seed determines them.

use std::time::Duration;

use crate::arguments::Arguments;
use crate::breakage::Breakage;
use crate::rng::Rng;

/// A point of a round at which a fault may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultPoint {
    Before,
    Inside,
    Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultAction {
    /// The coordinator stops the process, `delay` after the point, for `span`.
    Stop { delay: Duration, span: Duration },
    /// The coordinator kills the process, `delay` after the point.
    Kill { delay: Duration },
    /// The process kills itself at the point.
    KillSelf,
    /// The process exits at the point, without releasing what it holds.
    Exit,
}

/// A fault in the first round from `round` on that reaches `point`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) round: u64,
    pub(crate) point: FaultPoint,
    pub(crate) action: FaultAction,
}

/// Returns the faults of a process in order. The last one ends it.
pub(crate) fn schedule(arguments: &Arguments, worker: u32, generation: u32) -> Vec<Fault> {
    if matches!(arguments.broken, Some(Breakage::Wake | Breakage::Crash)) && worker == 0 {
        return Vec::new(); // This worker's breakage must be detected.
    }
    let mut rng = Rng::for_purpose(arguments.seed, &[1, u64::from(worker), u64::from(generation)]);
    let last = 1 + rng.below(2 * arguments.rounds_per_process());
    let any_point =
        |rng: &mut Rng| rng.pick(&[FaultPoint::Before, FaultPoint::Inside, FaultPoint::Leaving]);
    let mut faults = Vec::new();
    if rng.one_in(4) {
        let round = rng.below(last);
        // After more than a second, the waiters check for themselves (rules S8 and R3).
        let longest = if rng.one_in(50) { 1_500_000 } else { rng.pick(&[1000, 20_000]) };
        let action = FaultAction::Stop { delay: rng.any_scale(), span: rng.micros(longest) };
        faults.push(Fault { round, point: any_point(&mut rng), action });
    }
    let action = match rng.below(10) {
        0 => FaultAction::KillSelf,
        1 => FaultAction::Exit,
        _ => FaultAction::Kill { delay: rng.any_scale() },
    };
    faults.push(Fault { round: last, point: any_point(&mut rng), action });
    faults
}
