//! `flockwork completions` and `flockwork man`: made from the definitions in `args`.

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

pub(crate) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flockwork", &mut script);
    output::write(&script)
}

/// One page: the command, and a section for each verb.
pub(crate) fn man() -> Outcome {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let render = || -> std::io::Result<()> {
        let whole = clap_mangen::Man::new(command.clone());
        whole.render_title(&mut page)?;
        whole.render_name_section(&mut page)?;
        whole.render_synopsis_section(&mut page)?;
        whole.render_description_section(&mut page)?;
        verbs(&command, "flockwork", &mut page)?;
        whole.render_extra_section(&mut page)?;
        Ok(())
    };
    let mut render = render;
    render()
        .map_err(|error| Failure::new(Exit::System, format!("cannot write the manual: {error}")))?;
    output::write(&page)
}

fn verbs(command: &clap::Command, before: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write as _;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let name = format!("{before} {}", verb.get_name());
        if verb.has_subcommands() {
            verbs(verb, &name, page)?;
            continue;
        }
        // Each of them under a heading of its own, with its options below it.
        writeln!(page, ".SH {}", name.to_uppercase().replace('-', "\\-"))?;
        let mut section = Vec::new();
        let man = clap_mangen::Man::new(verb.clone().mut_args(with_aliases));
        man.render_synopsis_section(&mut section)?;
        man.render_description_section(&mut section)?;
        man.render_options_section(&mut section)?;
        man.render_extra_section(&mut section)?;
        let section = String::from_utf8_lossy(&section).replace(".SH ", ".SS ");
        page.extend_from_slice(section.as_bytes());
    }
    Ok(())
}

/// The page shows an option's own names; its others are said with it.
fn with_aliases(argument: clap::Arg) -> clap::Arg {
    let short = argument.get_visible_short_aliases().unwrap_or_default();
    let mut others: Vec<_> = short.iter().map(|short| format!("-{short}")).collect();
    let long = argument.get_visible_aliases().unwrap_or_default();
    others.extend(long.iter().map(|long| format!("--{long}")));
    if others.is_empty() {
        return argument;
    }
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    argument.help(format!("{help} [also {}]", others.join(", ")))
}
