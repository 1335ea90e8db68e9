//! Describes an error in the command line on one line, with a suggestion.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The verbs that have their own help text.
const VERBS: [&str; 6] = ["lock", "sem", "event", "once", "status", "completions"];
const EVENT_VERBS: [&str; 4] = ["set", "clear", "wait", "status"];

/// clap describes an error on several lines. This is one line with the same content.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            if std::env::args_os().nth(1).is_some_and(|verb| verb == "event") {
                "no verb; use one of set, clear, wait, status".to_string()
            } else {
                "no verb; use one of lock, sem, event, once, status, completions, man".to_string()
            }
        }
        _ => {
            let first = text.split("\n\n").next().unwrap_or_default();
            first.split_whitespace().collect::<Vec<_>>().join(" ")
        }
    };
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
    if let Some(alternative) = alternative {
        message = format!("{message}; {alternative}");
    } else if !near.is_empty() {
        message = format!("{message}; did you mean {}?", near.join(" or "));
    } else if words.iter().eq(["event", "set"]) && error.kind() == ErrorKind::UnknownArgument {
        message = format!("{message}; a payload is given with --data");
    }
    let help = match words.as_slice() {
        [event, verb] if event == "event" && EVENT_VERBS.contains(&verb.as_ref()) => {
            format!("flockwork event {verb} --help")
        }
        [verb, ..] if VERBS.contains(&verb.as_ref()) => format!("flockwork {verb} --help"),
        _ => "flockwork --help".to_string(),
    };
    format!("{message}; see `{help}`")
}

fn strings(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(all)) => all.clone(),
        _ => Vec::new(),
    }
}

/// Whether `word` is probably a misspelling of `near`. clap also suggests words that share only a
/// prefix.
fn is_misspelt(word: &str, near: &str) -> bool {
    let length = word.chars().count().max(near.chars().count());
    strsim::osa_distance(word, near) <= (length / 4).max(1)
}

/// What to use instead of an option that only flock(1) or GNU sem has.
fn alternative_option(verb: &str, option: &str) -> Option<&'static str> {
    match (verb, option.split('=').next().unwrap_or_default()) {
        ("sem", "--semaphoretimeout" | "--semaphore-timeout" | "--st") | ("lock", "--wait") => {
            Some("use -w SECS, after which it gives up")
        }
        ("sem", "--line-buffer" | "--linebuffer" | "--lb" | "--ungroup" | "-u") => {
            Some("leave it out, since the output of the command is never held back")
        }
        ("sem", "--pipe") => {
            Some("leave it out, since the command has the standard input, but in the background")
        }
        (
            "lock",
            "-u" | "--unlock" | "-F" | "--no-fork" | "--fd" | "--fcntl" | "--start" | "--length",
        ) => Some("only `flock` has it, the name under which this program is flock(1)"),
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
