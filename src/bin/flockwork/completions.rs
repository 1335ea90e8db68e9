//! `flockwork completions`: prints the completions for a shell.

use clap::Args;

use crate::exit::Outcome;
use crate::output;

const EXAMPLES: &str = "\
Example:
  flockwork completions bash > ~/.local/share/bash-completion/completions/flockwork";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(arguments: &CompletionsArgs, command: &mut clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "flockwork", &mut script);
    output::write(&script)
}
