//! Finds long options as getopt_long(3) does: by their names and unambiguous abbreviations.

/// The result of a search among the long options.
pub(crate) enum Match<O> {
    One(&'static str, O),
    None,
    /// The names that an ambiguous abbreviation may mean.
    Several(Vec<&'static str>),
}

pub(crate) fn find<O: Copy + PartialEq>(known: &[(&'static str, O)], name: &str) -> Match<O> {
    if let Some((full, option)) = known.iter().find(|(full, _)| *full == name) {
        return Match::One(full, *option);
    }
    let mut matching = known.iter().filter(|(full, _)| full.starts_with(name));
    let Some((first, option)) = matching.next() else { return Match::None };
    let others = matching.filter(|(_, other)| other != option).map(|(full, _)| *full);
    let names: Vec<_> = std::iter::once(*first).chain(others).collect();
    if names.len() == 1 { Match::One(first, *option) } else { Match::Several(names) }
}
