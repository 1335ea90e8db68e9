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
        after_words(&command, ".SH", &mut page)
    };
    let mut render = render;
    render().map_err(|error| {
        Failure::new(Exit::System, format!("could not write the manual: {error}"))
    })?;
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
        writeln!(page, ".SH {}", escaped(&name.to_uppercase()))?;
        let usage = verb.clone().render_usage().to_string();
        let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
        as_it_stands(usage.lines().map(str::trim_start), page)?;
        let mut section = Vec::new();
        let man = clap_mangen::Man::new(verb.clone().mut_args(with_aliases));
        man.render_description_section(&mut section)?;
        man.render_options_section(&mut section)?;
        let section = String::from_utf8_lossy(&section).replace(".SH ", ".SS ");
        page.extend_from_slice(section.as_bytes());
        after_words(verb, ".SS", page)?;
    }
    Ok(())
}

/// What a help text ends with: examples, or exit codes. Its paragraphs begin with a title, and their lines stay as they are.
fn after_words(command: &clap::Command, heading: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write as _;
    let Some(text) = command.get_after_long_help().or(command.get_after_help()) else {
        return Ok(());
    };
    for paragraph in text.to_string().split("\n\n") {
        let title = paragraph.lines().next().and_then(|line| line.strip_suffix(':'));
        match title.filter(|title| !title.contains(' ') || *title == "Exit codes") {
            Some(title) => {
                writeln!(page, "{heading} {}", escaped(&title.to_uppercase()))?;
                as_it_stands(paragraph.lines().skip(1), page)?;
            }
            None => writeln!(page, ".PP\n{}", escaped(paragraph))?,
        }
    }
    Ok(())
}

fn as_it_stands<'a>(
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

/// Nothing in it is roff's: no line begins with a dot or a quote, and a hyphen is one.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.lines().map(|line| {
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_string() }
    });
    lines.collect::<Vec<_>>().join("\n")
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
