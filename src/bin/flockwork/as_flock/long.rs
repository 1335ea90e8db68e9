//! Long options and their abbreviations, as `getopt_long(3)` finds them.

use super::args::Opt;

/// Those of util-linux 2.38.
const LONG: [(&str, Opt); 14] = [
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
    // No option of its own there, but its abbreviations never were ambiguous.
    ("nonblock", Opt::Nonblocking),
];

/// Those that came later. An abbreviation that meant one of the older ones still does: `--s` is no doubt about `--start`.
const LATER: [(&str, Opt); 4] =
    [("fcntl", Opt::Fcntl), ("start", Opt::Start), ("length", Opt::Length), ("fd", Opt::Fd)];

pub(super) enum Long {
    One(&'static str, Opt),
    None,
    Several(Vec<&'static str>),
}

/// By its name, or by a beginning of it that can be no other's.
pub(super) fn find(name: &str, has_descriptor: bool) -> Long {
    if has_descriptor && name == "command" {
        return Long::One("command", Opt::Command);
    }
    let known = || LONG.iter().chain(&LATER);
    if let Some((full, option)) = known().find(|(full, _)| *full == name) {
        return Long::One(full, *option);
    }
    for table in [&LONG[..], &LATER[..]] {
        let mut fitting = table.iter().filter(|(full, _)| full.starts_with(name));
        let Some((first, option)) = fitting.next() else { continue };
        let others = fitting.filter(|(_, other)| other != option).map(|(full, _)| *full);
        let names: Vec<_> = std::iter::once(*first).chain(others).collect();
        return if names.len() == 1 { Long::One(first, *option) } else { Long::Several(names) };
    }
    Long::None
}

/// The whole name of an option that was found.
pub(super) fn full(name: &str, has_descriptor: bool) -> &str {
    match find(name, has_descriptor) {
        Long::One(full, _) => full,
        _ => name,
    }
}
