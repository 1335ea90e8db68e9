//! Turns an error of clap, which spans several lines, into one clause and a hint.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit::Failure;

/// The verbs that have their own help text.
const VERBS: [&str; 7] = ["lock", "sem", "event", "once", "status", "completions", "man"];
const EVENT_VERBS: [&str; 4] = ["set", "clear", "wait", "status"];

/// The failure for an error in the command line.
pub(crate) fn failure(error: &clap::Error) -> Failure {
    Failure::usage(message(error)).hint(hint(error))
}

fn is_without_verb(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    )
}

fn message(error: &clap::Error) -> String {
    if is_without_verb(error) {
        return "no verb was given".to_string();
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let first = text.split("\n\n").next().unwrap_or_default();
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn hint(error: &clap::Error) -> String {
    let invalid =
        [ContextKind::InvalidArg, ContextKind::InvalidSubcommand, ContextKind::InvalidValue]
            .into_iter()
            .find_map(|kind| strings(error, kind).into_iter().next())
            .unwrap_or_default();
    let words: Vec<_> = std::env::args_os().skip(1).take(2).collect();
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let near =
        [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
            .into_iter()
            .flat_map(|kind| strings(error, kind))
            .filter(|near| is_misspelt(&invalid, near))
            .collect::<Vec<_>>();
    let alternative = words.first().and_then(|verb| alternative_option(verb, &invalid));
    let advice = if is_without_verb(error) {
        let is_event = words.first().is_some_and(|verb| verb == "event");
        let verbs = if is_event { EVENT_VERBS.join(", ") } else { VERBS.join(", ") };
        format!("use one of {verbs}; ")
    } else if let Some(alternative) = alternative {
        format!("{alternative}; ")
    } else if !near.is_empty() {
        format!("did you mean {}? Otherwise, ", near.join(" or "))
    } else if words.iter().eq(["event", "set"]) && error.kind() == ErrorKind::UnknownArgument {
        "give a payload with --data; ".to_string()
    } else {
        String::new()
    };
    let help = match words.as_slice() {
        [event, verb] if event == "event" && EVENT_VERBS.contains(&verb.as_ref()) => {
            format!("flockwork event {verb} --help")
        }
        [verb, ..] if VERBS.contains(&verb.as_ref()) => format!("flockwork {verb} --help"),
        _ => "flockwork --help".to_string(),
    };
    format!("{advice}see `{help}`")
}

fn strings(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(all)) => all.clone(),
        _ => Vec::new(),
    }
}

/// Whether `word` is probably a misspelling of `near`. clap also suggests words that only share a
/// prefix.
fn is_misspelt(word: &str, near: &str) -> bool {
    let length = word.chars().count().max(near.chars().count());
    strsim::osa_distance(word, near) <= (length / 4).max(1)
}

/// Advice on an option that only flock(1) or GNU sem has.
fn alternative_option(verb: &str, option: &str) -> Option<&'static str> {
    match (verb, option.split('=').next().unwrap_or_default()) {
        ("sem", "--semaphoretimeout" | "--semaphore-timeout" | "--st") => {
            Some("use -w SECS, which gives up after the timeout")
        }
        ("sem", "--line-buffer" | "--linebuffer" | "--lb" | "--ungroup" | "-u") => {
            Some("omit it, since the command's output is never buffered")
        }
        ("sem", "--pipe") => {
            Some("omit it, since the command inherits the standard input (except with --bg)")
        }
        ("lock", "-u" | "--unlock" | "--fd" | "--fcntl" | "--start" | "--length") => {
            Some("start this program under the name `flock`, which has this option")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_similar_to_the_word() {
        limit!();
        for (word, near, is_near) in [
            ("lokc", "lock", true),
            ("--nonblok", "--nonblock", true),
            ("--timout", "--timeout", true),
            ("--nv", "--nb", true),
            ("--semaphoretimeout", "--semaphorename", false),
            ("--line-buffer", "--nb", false),
            ("--wait", "--quiet", false),
        ] {
            assert_eq!(is_misspelt(word, near), is_near, "{word} {near}");
        }
    }
}
