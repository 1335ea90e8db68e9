//! Parses the command line by the definitions in `args`.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{Args, FromArgMatches as _, Parser as _};

use crate::args::{Cli, Verb};
use crate::color::ColorArgs;
use crate::exit::{Exit, Failure};
use crate::holder_text::HeldJob;
use crate::output;
use crate::{Program, as_flock, as_sem, color, command_line, event, lock, once, sem, usage_error};

/// The result of parsing a command line.
pub(crate) enum Parsed {
    Cli(Cli),
    /// The help or the version was printed, with this result.
    Shown(Exit),
}

pub(crate) fn parse(words: &[OsString]) -> Result<Parsed, Failure> {
    let mut cli = match parse_in_order(words)? {
        Parsed::Cli(cli) => cli,
        shown @ Parsed::Shown(_) => return Ok(shown),
    };
    let Some((path, again)) = options_after_path(&mut cli.verb, words) else {
        return Ok(Parsed::Cli(cli));
    };
    let mut parsed = parse_in_order(&again)?;
    if let Parsed::Cli(cli) = &mut parsed {
        insert_path(&mut cli.verb, path, &again)?;
    }
    Ok(parsed)
}

/// The words after the options of a verb that runs a command. The first of them is the path.
fn words_after_options(verb: &mut Verb) -> Option<&mut Vec<OsString>> {
    match verb {
        Verb::Lock(arguments) => Some(&mut arguments.words),
        Verb::Sem(arguments) if arguments.id.is_none() => Some(&mut arguments.words),
        Verb::Once(arguments) => Some(&mut arguments.words),
        _ => None,
    }
}

/// Finds options between PATH and COMMAND, where clap takes them for the command. Returns the path,
/// and the command line without it, in which clap finds them.
fn options_after_path(verb: &mut Verb, words: &[OsString]) -> Option<(OsString, Vec<OsString>)> {
    let rest = words_after_options(verb)?;
    let [path, option, ..] = &rest[..] else { return None };
    if !option.as_encoded_bytes().starts_with(b"-") || option == "-" || option == "--" {
        return None;
    }
    let (before, _) = words.split_at(words.len() - rest.len());
    if before.last().is_some_and(|word| word == "--") {
        rest.insert(1, "--".into()); // the options have ended before the path
        return None;
    }
    Some((path.clone(), [before, &rest[1..]].concat()))
}

/// Inserts the path into the words of a verb that was parsed without it.
fn insert_path(verb: &mut Verb, path: OsString, words: &[OsString]) -> Result<(), Failure> {
    let Some(rest) = words_after_options(verb) else {
        let path = path.to_string_lossy();
        return Err(command_line::usage("sem", &format!("`{path}` was taken as PATH before --id"))
            .hint("put --id before COMMAND"));
    };
    if words[words.len() - rest.len() - 1] == "--" {
        rest.insert(0, "--".into());
    }
    rest.insert(0, path);
    Ok(())
}

fn parse_in_order(words: &[OsString]) -> Result<Parsed, Failure> {
    if let Some((verb, color)) = parse_verb(words) {
        color::choose(color.color);
        return Ok(Parsed::Cli(Cli { color, verb }));
    }
    let error = match Cli::try_parse_from(words) {
        Ok(cli) => {
            color::choose(cli.color.color);
            return Ok(Parsed::Cli(cli));
        }
        Err(error) => error,
    };
    color::choose_by(words);
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = error.render();
            let is_colored = color::is_on(&std::io::stdout());
            let text = if is_colored { text.ansi().to_string() } else { text.to_string() };
            output::write(text.as_bytes()).map(Parsed::Shown)
        }
        _ => Err(usage_error::failure(&error)),
    }
}

/// The job in the command line of a flockwork or flock(1). `None` if these words are neither, or
/// run no job.
pub(crate) fn job(words: &[OsString]) -> Option<HeldJob> {
    match crate::program(words) {
        Program::Flock => return as_flock::job(words),
        Program::Sem => return as_sem::job(words),
        Program::Flockwork => {}
    }
    if Path::new(words.first()?).file_name()? != "flockwork" {
        return None;
    }
    let job = match verb_in(words)? {
        Verb::Lock(arguments) => lock::job(&arguments),
        Verb::Sem(arguments) => sem::job(&arguments),
        Verb::Once(arguments) => once::job(&arguments),
        Verb::Event(arguments) => event::job(&arguments.verb),
        _ => return None,
    };
    job.ok().flatten().map(|job| job.as_held())
}

/// The label in the command line of a flockwork that waits for a lock.
pub(crate) fn label(words: &[OsString]) -> Option<OsString> {
    if Path::new(words.first()?).file_name()? != "flockwork" {
        return None;
    }
    match verb_in(words)? {
        Verb::Lock(arguments) => arguments.label,
        Verb::Once(arguments) => arguments.label,
        _ => None,
    }
}

/// The verb and its arguments in the command line of another process.
fn verb_in(words: &[OsString]) -> Option<Verb> {
    let (mut verb, _) = parse_verb(words)?;
    if let Some((path, again)) = options_after_path(&mut verb, words) {
        (verb, _) = parse_verb(&again)?;
        insert_path(&mut verb, path, &again).ok()?;
    }
    Some(verb)
}

/// Parses with the definitions of the named verb alone: building those of all verbs takes a fifth
/// of the instructions of a run. Returns `None` for an invalid command line and for one that asks
/// for help, which is parsed again with all definitions.
fn parse_verb(words: &[OsString]) -> Option<(Verb, ColorArgs)> {
    let (name, words) = (words.get(1)?.to_str()?, &words[1..]);
    match name {
        "lock" => parse_args(words, Verb::Lock),
        "sem" => parse_args(words, Verb::Sem),
        "event" => parse_args(words, Verb::Event),
        "once" => parse_args(words, Verb::Once),
        "status" => parse_args(words, Verb::Status),
        _ => None,
    }
}

/// Parses the words after the program's name. The first of them is the verb, which clap ignores as
/// the name of the program.
fn parse_args<A: Args>(
    words: &[OsString],
    verb: impl FnOnce(A) -> Verb,
) -> Option<(Verb, ColorArgs)> {
    let definitions = ColorArgs::augment_args(A::augment_args(clap::Command::new("flockwork")));
    let matches = definitions.try_get_matches_from(words).ok()?;
    let color = ColorArgs::from_arg_matches(&matches).ok()?;
    A::from_arg_matches(&matches).ok().map(|arguments| (verb(arguments), color))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, Strategy as _, prop_assert_eq};

    use super::*;

    #[test]
    fn options_are_read_between_path_and_command() {
        limit!();
        let parsed = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let (verb, rest) = match parse(&words) {
                Ok(Parsed::Cli(mut cli)) => {
                    let rest = words_after_options(&mut cli.verb).map(std::mem::take);
                    (format!("{:?}", cli.verb), rest)
                }
                Ok(Parsed::Shown(_)) => ("help".into(), None),
                Err(failure) => (failure.message().into(), None),
            };
            let rest = rest.unwrap_or_default();
            (verb, rest.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" "))
        };
        for (line, same, rest) in [
            ("lock f -n true -x", "lock -n f true -x", "f true -x"),
            ("lock -w 3 f -x -- -c", "lock -w 3 -x f -- -c", "f -- -c"),
            ("lock f -c a", "lock -c a f", "f"),
            ("lock f --label a -o b c", "lock --label a -o f b c", "f b c"),
            ("lock -- f -n", "lock f -- -n", "f -- -n"),
            ("sem s -j 2 make -j8", "sem -j 2 s make -j8", "s make -j8"),
            ("sem --id x make -j8", "sem --id x make -j8", ""),
            ("sem s --wait", "sem --wait s", "s"),
            ("once o --reset", "once --reset o", "o"),
            ("lock f - -n", "lock f - -n", "f - -n"),
        ] {
            let (line, same) = (format!("flockwork {line}"), format!("flockwork {same}"));
            assert_eq!(parsed(&line), (parsed(&same).0, rest.into()), "{line}");
        }
        for (line, message) in [
            ("lock f --bogus true", "unexpected argument '--bogus' found"),
            ("lock f -n -w 1 true", "cannot be used with"),
            ("sem make --id x", "`make` was taken as PATH before --id"),
        ] {
            let (failed, _) = parsed(&format!("flockwork {line}"));
            assert!(failed.contains(message), "{line}: {failed}");
        }
    }

    #[test]
    fn one_verb_parses_as_all_verbs_together_do() {
        limit!();
        for line in [
            "lock",
            "lock f true",
            "lock -s f -- true -x --help",
            "lock -x -w 1.5m -E 3 -v -o --label a f -c true",
            "lock --no-record -nq f true --label b",
            "lock -s -x f true",
            "lock --label a --no-record f true",
            "lock -w x f true",
            "lock --nonsense",
            "lock --nb f sh -c true",
            "lock -c",
            "lock help",
            "lock --help",
            "lock -h",
            "lock --version",
            "lock -V",
            "lock -- -f true",
            "lock lock lock lock",
            "sem",
            "sem --id x true",
            "sem -j 4 -k 2 s -- true",
            "sem -j -1 --id x -w 0 true",
            "sem -P 50% --bg s true",
            "sem --semaphorename x --wait",
            "sem --wait --bg s",
            "sem -k 0 s true",
            "sem --resize s",
            "sem --resize -j 3 s",
            "sem --stay -j 3 s true",
            "event",
            "event help",
            "event help wait",
            "event set e",
            "event set e --data x",
            "event wait --any a b",
            "event wait -w 3 --consume a",
            "event set --new e --data=x --access group",
            "event wait --exists --cleared -n a",
            "event status e",
            "event clear e",
            "event nonsense e",
            "once f true",
            "once --reset f",
            "once",
            "status f",
            "status --json --id x",
            "status --watch f",
            "status",
            "help lock",
            "man",
            "lok f true",
            "",
        ] {
            let words: Vec<OsString> = std::iter::once("flockwork")
                .chain(line.split_whitespace())
                .map(Into::into)
                .collect();
            let all_verbs = Cli::try_parse_from(&words).ok().map(|cli| format!("{:?}", cli.verb));
            let one_verb = parse_verb(&words).map(|(verb, _)| format!("{verb:?}"));
            let has_verb = !matches!(&all_verbs, Some(verb) if verb.starts_with("Man"));
            assert_eq!(one_verb, all_verbs.filter(|_| has_verb), "{line}");
        }
    }

    /// Valid and invalid words.
    fn any_words() -> impl proptest::strategy::Strategy<Value = Vec<String>> {
        let verb = "lock|sem|event|once|status|man|completions|help|lok|";
        let word = "(set|clear|wait|status|f|s|true|--|-c|-|4|50%|-1|0.5|1m|x=y)|(--?(s|x|e|n|w|E|v|q|o|c|j|P|k|h|V|any|all|new|exists|bg|fg|id|json|watch|wait|reset|resize|fsync|label|data|consume|cleared|timeout|no-record|mode|jobs|permits|bogus)(=?[0-9%a.-]{0,3}))|\\PC{0,4}";
        (verb, proptest::collection::vec(word, 0..8)).prop_map(|(verb, words)| {
            std::iter::once("flockwork".into()).chain([verb]).chain(words).collect()
        })
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

        #[test]
        fn any_words_parse_equally_or_give_a_one_line_message(words in any_words()) {
            limit!();
            let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
            let all_verbs = Cli::try_parse_from(&words);
            let one_verb = parse_verb(&words).map(|(verb, _)| format!("{verb:?}"));
            match &all_verbs {
                Ok(cli) => {
                    let verb = format!("{:?}", cli.verb);
                    let has_own = !matches!(cli.verb, Verb::Man { .. } | Verb::Completions { .. });
                    prop_assert_eq!(one_verb, Some(verb).filter(|_| has_own));
                }
                Err(error) => {
                    prop_assert_eq!(one_verb, None);
                    let failure = usage_error::failure(error);
                    prop_assert_eq!(crate::exit::printable(failure.message()).lines().count(), 1);
                }
            }
        }
    }
}
