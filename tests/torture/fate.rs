//! What becomes of each worker, decided by the seed: in which round, at which step and how long after it a process is
//! stopped, and how it ends.

use std::time::Duration;

use crate::arguments::Arguments;
use crate::dice::Dice;
use crate::things::Breakage;

/// A step of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Before,
    Inside,
    Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// Stopped by the conductor for so long, so long after the step.
    Stop(Duration, Duration),
    /// Killed by the conductor, so long after the step.
    Kill(Duration),
    /// Kills itself at that step.
    KillsItself,
    /// Ends in good order at that step, with all that it has in its hands.
    Exits,
}

/// In the first round from `round` on that comes to `step`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stroke {
    pub(crate) round: u64,
    pub(crate) step: Step,
    pub(crate) blow: Blow,
}

/// In this order; the last one ends it.
pub(crate) fn of(arguments: &Arguments, worker: u32, generation: u32) -> Vec<Stroke> {
    if matches!(arguments.broken, Some(Breakage::Wake | Breakage::Crash)) && worker == 0 {
        return Vec::new(); // this one is to be found out
    }
    let mut dice = Dice::of(arguments.seed, &[1, u64::from(worker), u64::from(generation)]);
    let last = 1 + dice.below(2 * arguments.rounds_of_a_life());
    let step = |dice: &mut Dice| dice.pick(&[Step::Before, Step::Inside, Step::Leaving]);
    let mut strokes = Vec::new();
    if dice.one_in(4) {
        let round = dice.below(last);
        // Longer than a second, and those who wait look for themselves (rules S8 and R3).
        let span = if dice.one_in(50) { 1_500_000 } else { dice.pick(&[1000, 20_000]) };
        let blow = Blow::Stop(dice.any_scale(), dice.micros(span));
        strokes.push(Stroke { round, step: step(&mut dice), blow });
    }
    let blow = match dice.below(10) {
        0 => Blow::KillsItself,
        1 => Blow::Exits,
        _ => Blow::Kill(dice.any_scale()),
    };
    strokes.push(Stroke { round: last, step: step(&mut dice), blow });
    strokes
}
