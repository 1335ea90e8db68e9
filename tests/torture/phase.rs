//! The phases of a run, which the coordinator announces to all processes on their standard input.

/// What all processes do until the next phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Run,
    Pause,
    /// Pause, and check before that whether the files that were tampered with work again.
    Check,
    End,
}

/// Parses a phase and its number.
pub(crate) fn parse(line: &str) -> Option<(u64, Phase)> {
    let (number, word) = line.split_once(' ')?;
    let phase = match word {
        "run" => Phase::Run,
        "pause" => Phase::Pause,
        "check" => Phase::Check,
        "end" => Phase::End,
        _ => return None,
    };
    Some((number.parse().ok()?, phase))
}

pub(crate) fn to_line(number: u64, phase: Phase) -> String {
    let word = match phase {
        Phase::Run => "run",
        Phase::Pause => "pause",
        Phase::Check => "check",
        Phase::End => "end",
    };
    format!("{number} {word}\n")
}
