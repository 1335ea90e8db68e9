//! `flockwork man`: prints the manual page, generated from the definitions of the command line.

use crate::exit::{Exit, Failure, Outcome};
use crate::output;

pub(crate) const EXAMPLES: &str = "\
Example:
  flockwork man > ~/.local/share/man/man1/flockwork.1";

/// Prints one page, with a section for each verb.
pub(crate) fn run(mut command: clap::Command) -> Outcome {
    command.build();
    let mut page = Vec::new();
    let mut render = || -> std::io::Result<()> {
        let man = clap_mangen::Man::new(command.clone());
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        verb_sections(&command, "flockwork", &mut page)?;
        after_help(&command, ".SH", &mut page)
    };
    render().map_err(|error| {
        Failure::new(Exit::System, format!("could not generate the manual page: {error}"))
    })?;
    output::write(&page)
}

fn verb_sections(command: &clap::Command, prefix: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write as _;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let name = format!("{prefix} {}", verb.get_name());
        if verb.has_subcommands() {
            verb_sections(verb, &name, page)?;
            continue;
        }
        writeln!(page, ".SH {}", escaped(&name.to_uppercase()))?;
        let usage = verb.clone().render_usage().to_string();
        let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
        unfilled_lines(usage.lines().map(str::trim_start), page)?;
        let mut section = Vec::new();
        let verb_man = clap_mangen::Man::new(verb.clone().mut_args(with_aliases));
        verb_man.render_description_section(&mut section)?;
        verb_man.render_options_section(&mut section)?;
        let section = String::from_utf8_lossy(&section).replace(".SH ", ".SS ");
        page.extend_from_slice(section.as_bytes());
        after_help(verb, ".SS", page)?;
    }
    Ok(())
}

/// The end of a help text, which has examples or exit codes. A paragraph that begins with a title
/// becomes a section whose lines are not filled.
fn after_help(command: &clap::Command, heading: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write as _;
    let Some(text) = command.get_after_long_help().or(command.get_after_help()) else {
        return Ok(());
    };
    for paragraph in text.to_string().split("\n\n") {
        let title = paragraph.lines().next().and_then(|line| line.strip_suffix(':'));
        match title.filter(|title| !title.contains(' ') || *title == "Exit codes") {
            Some(title) => {
                writeln!(page, "{heading} {}", escaped(&title.to_uppercase()))?;
                unfilled_lines(paragraph.lines().skip(1), page)?;
            }
            None => writeln!(page, ".PP\n{}", escaped(paragraph))?,
        }
    }
    Ok(())
}

fn unfilled_lines<'a>(
    lines: impl Iterator<Item = &'a str>,
    page: &mut Vec<u8>,
) -> std::io::Result<()> {
    use std::io::Write as _;
    writeln!(page, ".nf")?;
    for line in lines {
        writeln!(page, "{}", escaped(line))?;
    }
    writeln!(page, ".fi")
}

/// Escapes characters that roff interprets: backslashes, hyphens, and a dot or quote at the start
/// of a line.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.lines().map(|line| {
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_string() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Adds the visible aliases of an option to its help, since clap_mangen omits them.
fn with_aliases(argument: clap::Arg) -> clap::Arg {
    let short = argument.get_visible_short_aliases().unwrap_or_default();
    let mut aliases: Vec<_> = short.iter().map(|short| format!("-{short}")).collect();
    let long = argument.get_visible_aliases().unwrap_or_default();
    aliases.extend(long.iter().map(|long| format!("--{long}")));
    if aliases.is_empty() {
        return argument;
    }
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    argument.help(format!("{help} [also {}]", aliases.join(", ")))
}
