//! Parses GNU sem's command line: options end at the first other word.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use lexopt::{Arg, Parser};

use super::options::{self, Opt};
use crate::exit::Failure;
use crate::getopt::Match;
use crate::permits::{self, PermitCount};
use crate::{duration, holder_text};

#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    Request(Request),
    Help,
    Version,
}

/// How the output of the command is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffering {
    /// At its end, so that the lines of different jobs do not mix.
    Group,
    Line,
    /// The command inherits the output.
    None,
}

/// The contents of a valid command line.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) jobs: PermitCount,
    /// `None` stands for the name of the terminal.
    pub(super) id: Option<OsString>,
    pub(super) timeout: Option<Duration>,
    pub(super) is_foreground: bool,
    pub(super) waits: bool,
    pub(super) buffering: Buffering,
    /// The file that the command reads, instead of the standard input.
    pub(super) input: Option<OsString>,
    /// The command, as a line of shell.
    pub(super) command: OsString,
}

/// As many jobs as a semaphore can have permits, which `-j0` means.
const ALL: u32 = 4096;

pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, Failure> {
    let mut parser = Parser::from_args(words);
    // As with getopt, the value of `-j=5` is `=5`.
    parser.set_short_equals(false);
    let mut request = Request {
        jobs: PermitCount::Fixed(1),
        id: None,
        timeout: None,
        is_foreground: false,
        waits: false,
        buffering: Buffering::Group,
        input: None,
        command: OsString::new(),
    };
    let (mut quotes, mut ungroups, mut buffers_lines) = (false, false, false);
    let mut is_interactive = false;
    let mut rest = Vec::new();
    while let Some((option, value)) = next(&mut parser, &mut rest)? {
        match option {
            Opt::Help => return Ok(Parsed::Help),
            Opt::Version => return Ok(Parsed::Version),
            Opt::Jobs => request.jobs = jobs(&value)?,
            Opt::Id => request.id = Some(value),
            Opt::Timeout => request.timeout = timeout(&value)?,
            Opt::Foreground => request.is_foreground = true,
            Opt::Wait => request.waits = true,
            Opt::Ungroup => ungroups = true,
            Opt::LineBuffer => buffers_lines = true,
            Opt::Quote => quotes = true,
            Opt::Input if request.input.is_some() => {
                return Err(Failure::usage("A semaphore cannot take input from more files"));
            }
            Opt::Input => request.input = Some(value),
            Opt::Interactive => is_interactive = true,
            Opt::Background | Opt::Group | Opt::Ignored => {}
        }
    }
    rest.extend(parser.raw_args().map_err(|error| Failure::usage(error.to_string()))?);
    request.buffering = match (ungroups, buffers_lines) {
        (true, true) => {
            return Err(Failure::usage("--ungroup cannot be combined with --line-buffer"));
        }
        (true, false) => Buffering::None,
        (false, true) => Buffering::Line,
        (false, false) => Buffering::Group,
    };
    if is_interactive {
        let problem = if request.is_foreground {
            "-p is not supported: the command is run without a question"
        } else {
            "Jobs running in the background cannot be interactive."
        };
        return Err(Failure::usage(problem).hint("omit -p"));
    }
    if rest.is_empty() && !request.waits {
        return Err(Failure::usage("COMMAND is missing").hint(super::help::TRY_HELP));
    }
    request.command = joined(&rest, quotes);
    Ok(Parsed::Request(request))
}

/// The next option and its value, if it takes one. The first other word is moved to `rest`.
fn next(parser: &mut Parser, rest: &mut Vec<OsString>) -> Result<Option<(Opt, OsString)>, Failure> {
    let unknown =
        |name: &str| Failure::usage(format!("Unknown option: {name}")).hint(super::help::TRY_HELP);
    let argument = parser.next().map_err(|error| Failure::usage(error.to_string()))?;
    let (name, option) = match argument {
        None => return Ok(None),
        Some(Arg::Value(word)) => {
            rest.push(word);
            return Ok(None);
        }
        Some(Arg::Short(letter)) => (letter.to_string(), Opt::of_letter(letter)),
        Some(Arg::Long(name)) => {
            let name = name.to_string();
            let option = match options::find(&name) {
                Match::One(_, option) => Some(option),
                Match::None => None,
                Match::Several(names) => {
                    let names = names.join(", ");
                    return Err(Failure::usage(format!("Option {name} is ambiguous ({names})")));
                }
            };
            (name, option)
        }
    };
    let option = option.ok_or_else(|| unknown(&name))?;
    if !option.takes_value() {
        // After a letter, this would be the next letters.
        if name.len() > 1 && parser.optional_value().is_some() {
            return Err(Failure::usage(format!("Option {name} does not take an argument")));
        }
        return Ok(Some((option, OsString::new())));
    }
    let value = parser.value();
    let value = value.map_err(|_| Failure::usage(format!("Option {name} requires an argument")))?;
    Ok(Some((option, value)))
}

/// A number of jobs, or a file that contains one.
fn jobs(value: &OsString) -> Result<PermitCount, Failure> {
    let text = value.to_string_lossy();
    if text.trim_start_matches('0').is_empty() && !text.is_empty() {
        return Ok(PermitCount::Fixed(ALL));
    }
    let at_most = |count| match count {
        PermitCount::Fixed(count) => PermitCount::Fixed(count.min(ALL)),
        relative => relative,
    };
    permits::parse(&text).map(at_most).or_else(|why| {
        let file = std::fs::read_to_string(Path::new(value)).ok();
        let failed = || Failure::usage(format!("invalid value '{text}' of --jobs: {why}"));
        file.and_then(|text| permits::parse(text.trim()).ok()).map(at_most).ok_or_else(failed)
    })
}

/// `-N`: gives up after N seconds. A positive number would steal the semaphore.
fn timeout(value: &OsString) -> Result<Option<Duration>, Failure> {
    let text = value.to_string_lossy();
    let (steals, number) = match text.strip_prefix('-') {
        Some(number) => (false, number),
        None => (true, text.strip_prefix('+').unwrap_or(&text)),
    };
    let time = duration::parse(number)
        .map_err(|why| Failure::usage(format!("invalid value '{text}' of --st: {why}")))?;
    if time.is_zero() {
        return Ok(None);
    }
    if steals {
        let problem = format!(
            "--st {number} would run more jobs than -j allows after {number} s, which flockwork never does"
        );
        let hint = format!("to give up after that time, use --st -{number}");
        return Err(Failure::usage(problem).hint(hint));
    }
    Ok(Some(time))
}

/// The words as a line of shell. There is no input, so the replacement strings of GNU parallel are
/// empty, and the numbers of the job and of its slot are 1.
fn joined(words: &[OsString], quotes: bool) -> OsString {
    let mut line = OsString::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            line.push(" ");
        }
        if quotes {
            line.push(holder_text::quoted([word].into_iter()));
            continue;
        }
        match word.to_str() {
            Some(text) => line.push(replaced(text)),
            None => line.push(word),
        }
    }
    line
}

fn replaced(text: &str) -> String {
    let mut text = text.to_string();
    for (name, value) in [
        ("{}", ""),
        ("{.}", ""),
        ("{/}", ""),
        ("{//}", ""),
        ("{/.}", ""),
        ("{#}", "1"),
        ("{%}", "1"),
    ] {
        text = text.replace(name, value);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq};

    use super::*;

    fn request(line: &str) -> Request {
        match parse(line.split(' ').map(OsString::from)) {
            Ok(Parsed::Request(request)) => request,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_are_read_in_each_spelling() {
        limit!();
        for line in
            ["-j2 --id a -u true", "-uj 2 --semaphorename=a true", "-P2 --id a --ung -- true"]
        {
            let request = request(line);
            assert_eq!(request.jobs, PermitCount::Fixed(2), "{line}");
            assert_eq!(request.id, Some("a".into()), "{line}");
            assert_eq!(request.buffering, Buffering::None, "{line}");
            assert_eq!(request.command, "true", "{line}");
        }
        assert_eq!(request("-j+0 a").jobs, PermitCount::Relative(0));
        assert_eq!(request("-j -1 a").jobs, PermitCount::Relative(-1));
        assert_eq!(request("-j0 a").jobs, PermitCount::Fixed(ALL));
        assert_eq!(request("--st -1m a").timeout, Some(Duration::from_secs(60)));
        assert_eq!(request("--st 0 a").timeout, None);
        assert_eq!(request("echo -j2 --id").command, "echo -j2 --id");
        assert_eq!(request("echo {} x {#}").command, "echo  x 1");
        assert!(request("--wait").waits && request("--fg --wait a").waits);
    }

    #[test]
    fn invalid_command_lines_are_rejected() {
        limit!();
        for (line, expected) in [
            ("--bogus x", "Unknown option: bogus"),
            ("-z x", "Unknown option: z"),
            ("-p --bg x", "cannot be interactive"),
            ("-a f --arg-file=f x", "more files"),
            ("--st 3 x", "would run more jobs than -j allows"),
            ("--st +3 x", "would run more jobs than -j allows"),
            ("--st x x", "invalid value 'x' of --st"),
            ("-j x a", "invalid value 'x' of --jobs"),
            ("-j", "requires an argument"),
            ("--wait=1", "does not take an argument"),
            ("--se a", "is ambiguous"),
            ("-u --lb a", "cannot be combined"),
            ("--fg", "COMMAND is missing"),
        ] {
            let failure = parse(line.split(' ').map(OsString::from)).unwrap_err();
            assert!(failure.message().contains(expected), "{line}: {failure:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        /// No words cause a panic, and the command consists of the last words.
        #[test]
        fn any_words_are_a_request_or_a_usage_error(
            words in proptest::collection::vec("(-{0,2}[jPukahV]{0,3}[0-9+%-]{0,3})|(--(id|st|fg|bg|wa|un|li|lb|pi|se|jo|gr)[a-z-]{0,6}=?[0-9]{0,2})|--|true|\\PC{0,3}", 0..6),
        ) {
            limit!();
            match parse(words.iter().map(OsString::from)) {
                Err(failure) => prop_assert_eq!(failure.exit, crate::exit::Exit::Usage),
                Ok(Parsed::Help | Parsed::Version) => {}
                Ok(Parsed::Request(request)) => {
                    let last = words.last().cloned().unwrap_or_default();
                    let command = request.command.to_string_lossy().into_owned();
                    prop_assert!(request.waits || command.ends_with(&replaced(&last)), "{:?}", words);
                }
            }
        }
    }
}
