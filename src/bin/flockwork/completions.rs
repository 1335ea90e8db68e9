//! `flockwork completions`: prints the completions for a shell. Bash, zsh and fish also complete
//! the command after PATH and the names of `--id`, for which they call this program.

use std::ffi::OsString;

use clap::Args;
use clap_complete::Shell;

use crate::exit::Outcome;
use crate::{id, output};

const EXAMPLES: &str = "\
Example:
  flockwork completions bash > ~/.local/share/bash-completion/completions/flockwork";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(required_unless_present_any = ["at", "ids"])]
    shell: Option<Shell>,

    /// Print the kind of the last of these words, which a shell completes
    #[arg(long, hide = true, num_args = 0.., allow_hyphen_values = true, value_name = "WORD")]
    at: Option<Vec<OsString>>,

    /// Print the names of all semaphores of --id
    #[arg(long, hide = true)]
    ids: bool,
}

pub(crate) fn run(arguments: &CompletionsArgs, command: &mut clap::Command) -> Outcome {
    if let Some(words) = &arguments.at {
        command.build();
        return output::write(format!("{}\n", kind_of_last(command, words).text()).as_bytes());
    }
    let Some(shell) = arguments.shell else {
        let names = id::names().into_iter().map(|name| format!("{name}\n"));
        return output::write(names.collect::<String>().as_bytes());
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "flockwork", &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match shell {
        Shell::Bash => format!("{script}\n{BASH}"),
        Shell::Zsh => match script.rsplit_once("\nif [ \"$funcstack[1]\"") {
            Some((functions, _)) => format!("{functions}\n{ZSH}"),
            None => script.into_owned(),
        },
        Shell::Fish => format!("{script}\n{FISH}"),
        _ => script.into_owned(),
    };
    output::write(script.as_bytes())
}

const BASH: &str = r#"_flockwork_or_command() {
    local at
    at=$(flockwork completions --at "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2> /dev/null)
    case $at in
    command\ *)
        local offset=${at#command } current=${COMP_WORDS[COMP_CWORD]}
        if declare -F _command_offset > /dev/null; then
            _command_offset "$offset"
        elif ((offset == COMP_CWORD)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$current")
        else
            compopt -o default
        fi
        ;;
    id)
        mapfile -t COMPREPLY < <(
            compgen -W "$(flockwork completions --ids 2> /dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"
        )
        ;;
    path) compopt -o default ;;
    *) _flockwork "$@" ;;
    esac
}
complete -F _flockwork_or_command -o nosort -o bashdefault -o default flockwork
"#;

const ZSH: &str = r#"_flockwork_or_command() {
    local at
    at=$(flockwork completions --at "${(@)words[1,CURRENT]}" 2> /dev/null)
    case $at in
    command\ *)
        local offset=${at#command }
        shift $offset words
        ((CURRENT -= offset))
        _normal
        ;;
    id) compadd -- ${(f)"$(flockwork completions --ids 2> /dev/null)"} ;;
    path) _files ;;
    *) _flockwork "$@" ;;
    esac
}

compdef _flockwork_or_command flockwork
if [ "$funcstack[1]" = "_flockwork" ]; then
    _flockwork_or_command "$@"
fi
"#;

const FISH: &str = r#"function __flockwork_at
    flockwork completions --at (commandline -opc) (commandline -ct) 2> /dev/null
end

function __flockwork_command
    set -l first (math (string replace 'command ' '' (__flockwork_at)) + 1)
    set -l words (commandline -opc)
    set -l line
    if test $first -le (count $words)
        set line (string escape -- $words[$first..-1])
    end
    complete -C (string join ' ' -- $line (commandline -ct))
end

complete -c flockwork -n "string match -q 'command *' (__flockwork_at)" -f -a '(__flockwork_command)'
complete -c flockwork -n '__fish_seen_subcommand_from sem status' -l id -x -a '(flockwork completions --ids 2> /dev/null)'
complete -c flockwork -n '__fish_seen_subcommand_from help' -f
"#;

/// The kind of a word that a shell completes.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A word of the command to run, which begins at this word.
    Command(usize),
    /// A name of `--id`.
    Id,
    Path,
    /// A verb, an option or its value.
    Other,
}

impl Kind {
    fn text(&self) -> String {
        match self {
            Self::Command(first) => format!("command {first}"),
            Self::Id => "id".into(),
            Self::Path => "path".into(),
            Self::Other => "other".into(),
        }
    }
}

fn kind_of_last(command: &clap::Command, words: &[OsString]) -> Kind {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let Some(last) = words.len().checked_sub(1) else { return Kind::Other };
    let (mut definitions, mut at) = (command, 1);
    while at < last {
        let Some(verb) = definitions.find_subcommand(&*words[at]) else { break };
        (definitions, at) = (verb, at + 1);
    }
    if definitions.has_subcommands() || at > last {
        return Kind::Other;
    }
    let runs_command = matches!(definitions.get_name(), "lock" | "sem" | "once");
    let (mut has_path, mut is_literal) = (false, false);
    while at <= last {
        let word = &*words[at];
        let is_last = at == last;
        if word == "--" && !is_literal && !is_last {
            if runs_command && has_path {
                return Kind::Command(at + 1);
            }
            is_literal = true;
        } else if word.starts_with('-') && !is_literal && (word.len() > 1 || is_last) {
            let option = option(definitions, word);
            if is_last {
                return Kind::Other;
            }
            has_path |= option.name == "id" || word.starts_with("--id=");
            if option.takes_next {
                at += 1;
                if at == last {
                    return if option.name == "id" { Kind::Id } else { Kind::Other };
                }
            }
        } else if !runs_command {
            let has_paths = definitions.get_name() != "completions";
            if is_last && has_paths {
                return Kind::Path;
            }
        } else if has_path {
            return Kind::Command(at);
        } else if is_last {
            return Kind::Path;
        } else {
            has_path = true;
        }
        at += 1;
    }
    Kind::Other
}

struct Opt {
    name: String,
    takes_next: bool,
}

/// The option in a word, in which the last letter of several counts.
fn option(definitions: &clap::Command, word: &str) -> Opt {
    let takes_value = |argument: &&clap::Arg| argument.get_action().takes_values();
    let find = |matches: &dyn Fn(&clap::Arg) -> bool| {
        definitions.get_arguments().find(|argument| matches(argument))
    };
    if let Some(long) = word.strip_prefix("--") {
        let found = find(&|argument| {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            argument.get_long() == Some(long) || aliases.contains(&long)
        });
        let name = found.map(|found| found.get_id().to_string()).unwrap_or_default();
        return Opt { name, takes_next: found.is_some_and(|found| takes_value(&found)) };
    }
    for (index, letter) in word.char_indices().skip(1) {
        let found = find(&|argument| {
            let aliases = argument.get_all_short_aliases().unwrap_or_default();
            argument.get_short() == Some(letter) || aliases.contains(&letter)
        });
        if found.as_ref().is_some_and(takes_value) {
            let takes_next = index + letter.len_utf8() == word.len();
            return Opt { name: String::new(), takes_next };
        }
    }
    Opt { name: String::new(), takes_next: false }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_kind_of_each_word_is_known() {
        limit!();
        let mut command = crate::args::Cli::command();
        command.build();
        for (line, kind) in [
            ("flockwork ", Kind::Other),
            ("flockwork lo", Kind::Other),
            ("flockwork lock ", Kind::Path),
            ("flockwork lock f ", Kind::Command(3)),
            ("flockwork lock f ec", Kind::Command(3)),
            ("flockwork lock f echo a ", Kind::Command(3)),
            ("flockwork lock f -", Kind::Other),
            ("flockwork lock f -n ec", Kind::Command(4)),
            ("flockwork lock -w ", Kind::Other),
            ("flockwork lock -w 3 ", Kind::Path),
            ("flockwork lock -nw 3 f ", Kind::Command(5)),
            ("flockwork lock -w3 f ", Kind::Command(4)),
            ("flockwork lock --timeout=3 f ", Kind::Command(4)),
            ("flockwork lock --label a f ", Kind::Command(5)),
            ("flockwork lock f -- ", Kind::Command(4)),
            ("flockwork lock -- f ", Kind::Command(4)),
            ("flockwork sem --id ", Kind::Id),
            ("flockwork sem --id x ", Kind::Command(4)),
            ("flockwork sem --id=x -j 2 ec", Kind::Command(5)),
            ("flockwork sem -P 2 s ec", Kind::Command(5)),
            ("flockwork sem --semaphorename ", Kind::Id),
            ("flockwork once o ec", Kind::Command(3)),
            ("flockwork status ", Kind::Path),
            ("flockwork status f ", Kind::Path),
            ("flockwork status --id ", Kind::Id),
            ("flockwork event ", Kind::Other),
            ("flockwork event wait ", Kind::Path),
            ("flockwork event set --data x ", Kind::Path),
            ("flockwork completions ", Kind::Other),
            ("", Kind::Other),
        ] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert_eq!(kind_of_last(&command, &words), kind, "{line}");
        }
    }
}
