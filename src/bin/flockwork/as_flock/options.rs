//! The options of flock(1), with their letters, long names and abbreviations (`getopt_long(3)`).

use crate::getopt::{self, Match};

/// An option, in any of its spellings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opt {
    Shared,
    Exclusive,
    Unlock,
    Nonblocking,
    Timeout,
    ConflictExitCode,
    Close,
    NoFork,
    Verbose,
    Fcntl,
    Start,
    Length,
    Fd,
    Command,
    Help,
    Version,
}

impl Opt {
    pub(super) fn takes_value(self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::ConflictExitCode
                | Self::Start
                | Self::Length
                | Self::Fd
                | Self::Command
        )
    }

    pub(super) fn of_letter(letter: char) -> Option<Self> {
        Some(match letter {
            's' => Self::Shared,
            'x' | 'e' => Self::Exclusive,
            'u' => Self::Unlock,
            'n' => Self::Nonblocking,
            'w' => Self::Timeout,
            'E' => Self::ConflictExitCode,
            'o' => Self::Close,
            'F' => Self::NoFork,
            'h' => Self::Help,
            'V' => Self::Version,
            _ => return None,
        })
    }
}

/// The options of util-linux 2.38.
const LONG_OF_2_38: [(&str, Opt); 14] = [
    ("shared", Opt::Shared),
    ("exclusive", Opt::Exclusive),
    ("unlock", Opt::Unlock),
    ("nonblocking", Opt::Nonblocking),
    ("nb", Opt::Nonblocking),
    ("timeout", Opt::Timeout),
    ("wait", Opt::Timeout),
    ("conflict-exit-code", Opt::ConflictExitCode),
    ("close", Opt::Close),
    ("no-fork", Opt::NoFork),
    ("verbose", Opt::Verbose),
    ("help", Opt::Help),
    ("version", Opt::Version),
    // Not an option in util-linux, where it is an abbreviation that was never ambiguous.
    ("nonblock", Opt::Nonblocking),
];

/// The options that 2.43 adds. An abbreviation of an older option keeps its meaning: `--s` is
/// `--shared`, although `--start` begins with it too.
const LONG_OF_2_43: [(&str, Opt); 4] =
    [("fcntl", Opt::Fcntl), ("start", Opt::Start), ("length", Opt::Length), ("fd", Opt::Fd)];

/// Finds an option by its name or by an unambiguous abbreviation.
pub(super) fn find(name: &str, has_descriptor: bool) -> Match<Opt> {
    if has_descriptor && name == "command" {
        return Match::One("command", Opt::Command);
    }
    let newer = getopt::find(&LONG_OF_2_43, name);
    match getopt::find(&LONG_OF_2_38, name) {
        // An abbreviation of an older option is not its full name.
        Match::One(full, option) if full == name => Match::One(full, option),
        _ if matches!(&newer, Match::One(full, _) if *full == name) => newer,
        Match::None => newer,
        older => older,
    }
}

/// The full name of an abbreviated option.
pub(super) fn full_name(name: &str, has_descriptor: bool) -> &str {
    match find(name, has_descriptor) {
        Match::One(full, _) => full,
        _ => name,
    }
}
