//! `flockwork man`: prints the manual pages or installs them. They are generated from the
//! definitions of the command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Command};

use crate::args::EXIT_CODES;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

pub(crate) const EXAMPLES: &str = "\
Example:
  flockwork man --install";

#[derive(Debug, Args)]
#[expect(clippy::option_option, reason = "the value of --install is optional")]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// The verb whose page is printed, such as `lock` or `event wait` (without it, the overview)
    verb: Vec<String>,

    /// Write all pages to DIR, or to the user's directory for manual pages
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with = "verb")]
    install: Option<Option<PathBuf>>,
}

/// Prints a page, or installs all.
pub(crate) fn run(arguments: &ManArgs, mut command: Command) -> Outcome {
    command.build();
    let pages = pages(&command).map_err(|error| {
        Failure::new(Exit::System, format!("could not generate the manual pages: {error}"))
    })?;
    if let Some(directory) = &arguments.install {
        return install(directory.as_deref(), &pages);
    }
    let name = ["flockwork"].into_iter().chain(arguments.verb.iter().map(String::as_str));
    let name = name.collect::<Vec<_>>().join("-");
    if let Some(page) = pages.iter().find(|page| page.name == name) {
        return output::write(&page.text);
    }
    let names = pages.iter().filter_map(|page| page.name.strip_prefix("flockwork-"));
    let names = names.collect::<Vec<_>>().join(", ").replace('-', " ");
    let verb = arguments.verb.join(" ");
    Err(Failure::usage(format!("man: there is no verb `{verb}`"))
        .hint(format!("use one of {names}")))
}

fn install(directory: Option<&Path>, pages: &[Page]) -> Outcome {
    let directory =
        directory.map(Path::to_path_buf).or_else(default_directory).ok_or_else(|| {
            Failure::new(Exit::CannotCreate, "neither XDG_DATA_HOME nor HOME is set")
                .hint("give a directory, as in --install DIR")
        })?;
    let failed = |path: &Path, error: std::io::Error| {
        Failure::new(Exit::CannotCreate, format!("could not write `{}`: {error}", path.display()))
    };
    std::fs::create_dir_all(&directory).map_err(|error| failed(&directory, error))?;
    for page in pages {
        let path = directory.join(format!("{}.1", page.name));
        std::fs::write(&path, &page.text).map_err(|error| failed(&path, error))?;
    }
    let (count, directory) = (pages.len(), directory.display());
    output::write(format!("wrote {count} pages to {directory}\n").as_bytes())
}

/// The directory that man(1) searches because `~/.local/bin` is usually in PATH.
fn default_directory() -> Option<PathBuf> {
    let variable =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    data.map(|data| data.join("man/man1"))
}

struct Page {
    name: String,
    text: Vec<u8>,
}

/// The page of the program, and one for each verb.
fn pages(command: &Command) -> std::io::Result<Vec<Page>> {
    let mut verbs = Vec::new();
    add_verbs(command, "flockwork", &mut verbs);
    let names: Vec<_> = verbs.iter().map(|(name, _)| name.replace(' ', "-")).collect();
    let mut pages = Vec::new();
    for (name, verb) in [("flockwork".to_string(), command)].into_iter().chain(verbs) {
        let page_name = name.replace(' ', "-");
        let parent = page_name.rsplit_once('-').map_or("", |(parent, _)| parent);
        let related = names.iter().map(String::as_str).chain(["flockwork"]).filter(|other| {
            let is_child = other.rsplit_once('-').is_some_and(|(parent, _)| parent == page_name);
            is_child || *other == parent || *other == "flockwork" && *other != page_name
        });
        let mut related: Vec<_> = related.collect();
        related.dedup();
        pages.push(Page { text: page(&name, &page_name, verb, &related)?, name: page_name });
    }
    Ok(pages)
}

fn add_verbs<'a>(command: &'a Command, prefix: &str, verbs: &mut Vec<(String, &'a Command)>) {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let name = format!("{prefix} {}", verb.get_name());
        verbs.push((name.clone(), verb));
        add_verbs(verb, &name, verbs);
    }
}

fn page(name: &str, page_name: &str, verb: &Command, related: &[&str]) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let titled = verb.clone().mut_args(with_aliases).display_name(page_name.to_string());
    let man = clap_mangen::Man::new(titled)
        .title(page_name.to_uppercase())
        // Without a date, clap_mangen leaves out the argument, and man takes the next one for it.
        .date(" ")
        .source(format!("flockwork {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    man.render_title(&mut page)?;
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    writeln!(page, ".SH NAME\n{} \\- {}", escaped(page_name), escaped(&about))?;
    writeln!(page, ".SH SYNOPSIS")?;
    let usage = verb.clone().bin_name(name).render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    unfilled_lines(usage.lines().map(str::trim_start), &mut page)?;
    man.render_description_section(&mut page)?;
    if verb.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    if verb.has_subcommands() {
        writeln!(page, ".SH COMMANDS")?;
        for sub in verb.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let sub = format!("{page_name}-{}", sub.get_name());
            writeln!(page, ".TP\n\\fB{}\\fR(1)\n{}", escaped(&sub), escaped(&about))?;
        }
    }
    writeln!(page, ".SH EXIT STATUS")?;
    unfilled_lines(EXIT_CODES.lines().skip(1).take_while(|line| !line.is_empty()), &mut page)?;
    for (title, text) in [("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)] {
        writeln!(page, ".SH {title}")?;
        for (term, meaning) in text {
            writeln!(page, ".TP\n\\fB{}\\fR\n{}", escaped(term), escaped(meaning))?;
        }
    }
    if ["flockwork", "flockwork-lock", "flockwork-status"].contains(&page_name) {
        writeln!(page, ".SH KINDS OF LOCKS\n{}", escaped(KINDS))?;
    }
    after_help(verb, &mut page)?;
    writeln!(page, ".SH SEE ALSO")?;
    let related = related.iter().copied().chain(["flock"]);
    let related: Vec<_> = related.map(|name| format!("\\fB{}\\fR(1)", escaped(name))).collect();
    writeln!(page, "{}, \\fBflock\\fR(2)", related.join(", "))?;
    Ok(page)
}

const ENVIRONMENT: &[(&str, &str)] = &[
    ("FLOCKWORK_SLOT", "Set by `sem` for its command: the numbers of its slots, from 0 on."),
    ("FLOCKWORK_PAYLOAD", "Set by `event wait` for its command: the payload of the event."),
    ("FLOCKWORK_EVENT", "Set by `event wait --any` for its command: the path of the event."),
    ("NO_COLOR", "If it is not empty, the output has no colors."),
    ("PATH", "The directories in which a command without a slash is looked up."),
    ("SHELL", "The shell that runs the STRING of -c. The default is /bin/sh."),
    ("TERM", "If it is `dumb` or not set, a wait prints lines instead of a live line."),
    ("FLOCKWORK_ID_DIR", "The directory with the semaphores of --id, if it is an absolute path."),
];

const FILES: &[(&str, &str)] = &[
    ("PATH", "The lock file, the event, or the marker of `once`. For `sem`, a directory."),
    ("PATH.gate", "The turnstile of `lock -s` and `lock -x`."),
    ("PATH.holder, PATH.holders", "The records of the holders, which `status` shows."),
    ("PATH.flock", "The lock of `once` and of consumed events."),
    ("~/.local/state/flockwork/NAME", "The semaphore of `--id NAME`."),
    ("/var/tmp/flockwork-UID/NAME", "The same for users without a local home directory."),
];

/// Which programs exclude each other. For the pages of `lock` and `status`, and the overview.
const KINDS: &str = "\
There are two kinds of locks, which do not exclude each other. flock(1), systemd, cargo, Python's \
fcntl.flock and most lock files use flock(2), as flockwork does. apt, dpkg, passwd, useradd, rpm, \
SQLite and mail programs use fcntl(2). `flockwork lock --fcntl` acquires the second kind, and \
`flockwork status` shows both (Linux).";

/// The end of a help text. The lines of examples are not filled.
fn after_help(command: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let Some(text) = command.get_after_help().or(command.get_after_long_help()) else {
        return Ok(());
    };
    let text = text.to_string();
    let is_examples = |paragraph: &str| paragraph.starts_with("Example");
    let (examples, notes): (Vec<_>, Vec<_>) =
        text.split("\n\n").partition(|paragraph| is_examples(paragraph));
    if !notes.is_empty() {
        writeln!(page, ".SH NOTES")?;
        for note in notes {
            writeln!(page, ".PP\n{}", escaped(note))?;
        }
    }
    for example in examples {
        writeln!(page, ".SH EXAMPLES")?;
        unfilled_lines(example.lines().skip(1), page)?;
    }
    Ok(())
}

fn unfilled_lines<'a>(
    lines: impl Iterator<Item = &'a str>,
    page: &mut Vec<u8>,
) -> std::io::Result<()> {
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
