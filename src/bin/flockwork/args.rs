//! The command line as clap reads it: the verbs, and what is said of them. The manual, the completions and the README's
//! section are made from this, or checked against it.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::event::EventArgs;
use crate::exit::{Exit, Failure};
use crate::lock::LockArgs;
use crate::once::OnceArgs;
use crate::output;
use crate::sem::SemArgs;
use crate::status::StatusArgs;

/// Locks, semaphores and events between programs, keyed by a path
///
/// A lock, a semaphore or an event is a path in the file system; whoever names the same path means the same one. The kernel
/// frees what a dead process held, so there is nothing to clean up. Locks are flock(2) locks (LockFileEx on Windows), and hold
/// off flock(1), Python's fcntl.flock and other programs that use them.
#[derive(Debug, Parser)]
#[command(
    name = "flockwork",
    version,
    after_long_help = EXIT_CODES,
    after_help = "Exit codes: the command's own; 128 + the signal's number; 75 timed out; 64 usage, 65 damaged,\n66 cannot open, 69 cannot run, 71 system, 73 cannot create; event status: 1 cleared.\nFor more, see `flockwork help VERB`.",
    disable_help_subcommand = false,
    subcommand_required = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a command while holding a lock, alone or shared
    ///
    /// Waits for its turn, runs the command, and exits as it does. What the command starts holds the lock too, until the
    /// last of it has ended, also when `flockwork` itself is killed (Unix; on Windows they end with it). TERM, INT, HUP, QUIT,
    /// USR1, USR2, CONT and TSTP are passed on to the command.
    Lock(LockArgs),
    /// Run a command while holding a permit of a semaphore: at most N at a time
    ///
    /// First come, first served, over all programs of the machine. The command finds the number of its slot, from 0 to N-1,
    /// in FLOCKWORK_SLOT (several, with -k, with commas between them). Its arguments are passed as they are, and by no shell.
    Sem(SemArgs),
    /// Set, clear, look at and wait for events
    ///
    /// An event is a file: it is set while the file is there, and the file's contents are its payload.
    Event(EventArgs),
    /// Run a command once, for all who ask
    ///
    /// Whoever comes first runs it; who comes meanwhile waits until it is done, and who comes later returns at once. If it
    /// fails or is killed it is not done, and the next one runs it.
    Once(OnceArgs),
    /// Say who holds what lies at a path
    ///
    /// Takes nothing, makes nothing and delays nobody.
    Status(StatusArgs),
    /// Write the completions for a shell to the standard output
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual page to the standard output
    #[command(after_help = MAN_EXAMPLES)]
    Man,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done; the command's own code is passed on, and 128 + the signal's number if one ended it
  1    event status: the event is not set; event set --new: it was set
  64   invalid command line
  65   what lies at the path is damaged
  66   something cannot be opened
  69   the command cannot be run
  71   the system has no more of something, or the output cannot be written
  73   something cannot be created
  75   timed out, or not available at once with -n (-E chooses another)

Started under the name `flock` it is flock(1), with its options and exit codes.";

pub(crate) const LOCK_EXAMPLES: &str = "\
Examples:
  flockwork lock /tmp/backup.lock -- tar czf backup.tgz data
  flockwork lock -w 10 deploy.lock -c 'git pull && make install'
  flockwork lock -s config.lock -- cat config.toml";

pub(crate) const SEM_EXAMPLES: &str = "\
Examples:
  find . -name '*.c' | xargs -P 16 -n 1 flockwork sem -j 4 --id cc -- cc -c
  flockwork sem -j 50% /tmp/heavy -- make test
  flockwork sem --bg -j 2 --id fetch -- curl -O URL; flockwork sem --id fetch --wait";

pub(crate) const EVENT_EXAMPLES: &str = "\
Examples:
  flockwork event wait -w 30 server.ready
  flockwork event set server.ready --data 8080
  job=$(flockwork event wait --consume jobs.next)
  flockwork event wait --exists -w 30 /run/database.sock
  flockwork event wait --any build.done build.failed";

pub(crate) const ONCE_EXAMPLES: &str = "\
Examples:
  flockwork once ~/.cache/tool/unpacked -- tar xzf tool.tgz -C ~/.cache/tool
  flockwork once --reset ~/.cache/tool/unpacked";

pub(crate) const STATUS_EXAMPLES: &str = "\
Examples:
  flockwork status /tmp/backup.lock
  flockwork status --json --id cc
  flockwork status --watch deploy.lock

With --json there is an object for each path, and for PATH.flock beside it where that exists (Once,
SharedFile, consumed events). Each has: path; kind (missing, file or semaphore); held; holders.
A holder has pid, pid_namespace, same_pid_namespace, host, command, label, since (RFC 3339), slot
and shared, null where unknown. Its pid can be used here, for example with kill, only if
same_pid_namespace is true: other containers and hosts have numbers of their own. A file also has
shared, set and bytes (as an event); what is missing has set; a semaphore has permits, available
and slots (those that are held).";

const COMPLETIONS_EXAMPLES: &str = "\
Example:
  flockwork completions bash > ~/.local/share/bash-completion/completions/flockwork";

const MAN_EXAMPLES: &str = "\
Example:
  flockwork man > ~/.local/share/man/man1/flockwork.1";

/// What a command line came to.
pub(crate) enum Parsed {
    Cli(Cli),
    /// It asked for help or the version, and that is how writing it ended.
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
        _ => Err(Failure::usage(one_line(&error))),
    }
}

/// Those that have a help of their own.
const VERBS: [&str; 6] = ["lock", "sem", "event", "once", "status", "completions"];
const EVENT_VERBS: [&str; 4] = ["set", "clear", "wait", "status"];

/// With the definitions of the one verb that is named: those of all verbs are a fifth of what this program executes from
/// its start to its end. What cannot be meant, or asks for help, is for all of them to see.
fn parse_verb(words: &[OsString]) -> Option<Verb> {
    let (name, words) = (words.get(1)?.to_str()?, &words[1..]);
    match name {
        "lock" => alone(words).map(Verb::Lock),
        "sem" => alone(words).map(Verb::Sem),
        "event" => alone(words).map(Verb::Event),
        "once" => alone(words).map(Verb::Once),
        "status" => alone(words).map(Verb::Status),
        _ => None,
    }
}

/// The first word is taken for the program's name.
fn alone<A: clap::Args>(words: &[OsString]) -> Option<A> {
    let definitions = A::augment_args(clap::Command::new("flockwork"));
    let matches = definitions.try_get_matches_from(words).ok()?;
    A::from_arg_matches(&matches).ok()
}

/// What is wrong, and what to do: clap says it on several lines.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text.strip_prefix("error: ").unwrap_or(&text);
    let mut message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            if std::env::args_os().nth(1).is_some_and(|verb| verb == "event") {
                "no verb; use one of set, clear, wait, status".to_string()
            } else {
                "no verb; use one of lock, sem, event, once, status, completions, man".to_string()
            }
        }
        _ => {
            let first = said.split("\n\n").next().unwrap_or_default();
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
    let known = words.first().and_then(|verb| known_elsewhere(verb, &invalid));
    if let Some(known) = known {
        message = format!("{message}; {known}");
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

/// Whether it is likely that `near` was meant. clap also suggests what has no more than a beginning in common.
fn is_misspelt(word: &str, near: &str) -> bool {
    let length = word.chars().count().max(near.chars().count());
    strsim::osa_distance(word, near) <= (length / 4).max(1)
}

/// An option that flock(1) or GNU sem has, and what to use instead.
fn known_elsewhere(verb: &str, option: &str) -> Option<&'static str> {
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
    use clap::CommandFactory as _;
    use proptest::prelude::{ProptestConfig, Strategy as _, prop_assert_eq};

    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        limit!();
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_suggested_is_near() {
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

    #[test]
    fn a_verb_alone_reads_its_words_as_all_verbs_together_do() {
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
            let together = Cli::try_parse_from(&words).ok().map(|cli| format!("{:?}", cli.verb));
            let alone = parse_verb(&words).map(|verb| format!("{verb:?}"));
            let has_verb = !matches!(&together, Some(verb) if verb == "Man");
            assert_eq!(alone, together.filter(|_| has_verb), "{line}");
        }
    }

    /// Words that mean something, and some that do not.
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
        fn any_words_are_refused_in_one_line_or_read_as_all_verbs_together_do(words in any_words()) {
            limit!();
            let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
            let together = Cli::try_parse_from(&words);
            let alone = parse_verb(&words).map(|verb| format!("{verb:?}"));
            match &together {
                Ok(cli) => {
                    let verb = format!("{:?}", cli.verb);
                    let has_own = !matches!(cli.verb, Verb::Man | Verb::Completions { .. });
                    prop_assert_eq!(alone, Some(verb).filter(|_| has_own));
                }
                Err(error) => {
                    prop_assert_eq!(alone, None);
                    prop_assert_eq!(crate::exit::printable(&one_line(error)).lines().count(), 1);
                }
            }
        }
    }
}
