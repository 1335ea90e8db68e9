//! Parses the command line by the definitions in `args`.

use std::ffi::OsString;
use std::path::Path;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::{Cli, Verb};
use crate::exit::{Exit, Failure};
use crate::holder_text::HeldJob;
use crate::output;
use crate::{as_flock, lock, once, sem, usage_error};

/// The result of parsing a command line.
pub(crate) enum Parsed {
    Cli(Cli),
    /// The help or the version was printed, with this result.
    Shown(Exit),
}

pub(crate) fn parse(words: Vec<OsString>) -> Result<Parsed, Failure> {
    if let Some(verb) = parse_verb(&words) {
        return Ok(Parsed::Cli(Cli { verb }));
    }
    let error = match Cli::try_parse_from(words) {
        Ok(cli) => return Ok(Parsed::Cli(cli)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::write(error.render().to_string().as_bytes()).map(Parsed::Shown)
        }
        _ => Err(usage_error::failure(&error)),
    }
}

/// The job in the command line of a flockwork or flock(1). `None` if these words are neither, or
/// run no job.
pub(crate) fn job(words: &[OsString]) -> Option<HeldJob> {
    let name = Path::new(words.first()?).file_name()?;
    if name == "flock" {
        return as_flock::job(words);
    }
    if name != "flockwork" {
        return None;
    }
    let job = match parse_verb(words)? {
        Verb::Lock(arguments) => lock::job(&arguments),
        Verb::Sem(arguments) => sem::job(&arguments),
        Verb::Once(arguments) => once::job(&arguments),
        _ => return None,
    };
    job.ok().map(|job| job.as_held())
}

/// Parses with the definitions of the named verb alone: building those of all verbs takes a fifth
/// of the instructions of a run. Returns `None` for an invalid command line and for one that asks
/// for help, which is parsed again with all definitions.
fn parse_verb(words: &[OsString]) -> Option<Verb> {
    let (name, words) = (words.get(1)?.to_str()?, &words[1..]);
    match name {
        "lock" => parse_args(words).map(Verb::Lock),
        "sem" => parse_args(words).map(Verb::Sem),
        "event" => parse_args(words).map(Verb::Event),
        "once" => parse_args(words).map(Verb::Once),
        "status" => parse_args(words).map(Verb::Status),
        _ => None,
    }
}

/// Parses the words after the program's name. The first of them is the verb, which clap ignores as
/// the name of the program.
fn parse_args<A: clap::Args>(words: &[OsString]) -> Option<A> {
    let definitions = A::augment_args(clap::Command::new("flockwork"));
    let matches = definitions.try_get_matches_from(words).ok()?;
    A::from_arg_matches(&matches).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, Strategy as _, prop_assert_eq};

    use super::*;

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
            let one_verb = parse_verb(&words).map(|verb| format!("{verb:?}"));
            let has_verb = !matches!(&all_verbs, Some(verb) if verb == "Man");
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
            let one_verb = parse_verb(&words).map(|verb| format!("{verb:?}"));
            match &all_verbs {
                Ok(cli) => {
                    let verb = format!("{:?}", cli.verb);
                    let has_own = !matches!(cli.verb, Verb::Man | Verb::Completions { .. });
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
