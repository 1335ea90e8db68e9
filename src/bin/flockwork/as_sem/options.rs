//! The options of GNU sem, and those of GNU parallel that have no effect on it.

use crate::getopt::{self, Match};

/// An option, in any of its spellings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opt {
    Jobs,
    Id,
    Timeout,
    Foreground,
    Background,
    Wait,
    Ungroup,
    LineBuffer,
    Group,
    Quote,
    /// The file that the command reads as its standard input.
    Input,
    Interactive,
    /// Has no effect, since a command of sem always reads the standard input, and there is one job.
    Ignored,
    Help,
    Version,
}

impl Opt {
    pub(super) fn takes_value(self) -> bool {
        matches!(self, Self::Jobs | Self::Id | Self::Timeout | Self::Input)
    }

    pub(super) fn of_letter(letter: char) -> Option<Self> {
        Some(match letter {
            'j' | 'P' => Self::Jobs,
            'u' => Self::Ungroup,
            'q' => Self::Quote,
            'a' => Self::Input,
            'p' => Self::Interactive,
            'k' => Self::Ignored,
            'h' => Self::Help,
            'V' => Self::Version,
            _ => return None,
        })
    }
}

const LONG: [(&str, Opt); 27] = [
    ("jobs", Opt::Jobs),
    ("max-procs", Opt::Jobs),
    ("id", Opt::Id),
    ("semaphorename", Opt::Id),
    ("semaphore-name", Opt::Id),
    ("st", Opt::Timeout),
    ("semaphoretimeout", Opt::Timeout),
    ("semaphore-timeout", Opt::Timeout),
    ("fg", Opt::Foreground),
    ("bg", Opt::Background),
    ("wait", Opt::Wait),
    ("ungroup", Opt::Ungroup),
    ("lb", Opt::LineBuffer),
    ("line-buffer", Opt::LineBuffer),
    ("linebuffer", Opt::LineBuffer),
    ("line-buffered", Opt::LineBuffer),
    ("group", Opt::Group),
    ("quote", Opt::Quote),
    ("arg-file", Opt::Input),
    ("interactive", Opt::Interactive),
    ("pipe", Opt::Ignored),
    ("semaphore", Opt::Ignored),
    ("keep-order", Opt::Ignored),
    ("will-cite", Opt::Ignored),
    ("no-notice", Opt::Ignored),
    ("help", Opt::Help),
    ("version", Opt::Version),
];

pub(super) fn find(name: &str) -> Match<Opt> {
    getopt::find(&LONG, name)
}
