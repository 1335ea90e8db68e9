//! Parses flock(1)'s command line as getopt_long(3) does: options end at the first other word.

use std::ffi::OsString;

use lexopt::{Arg, Parser};

use crate::exit::Failure;
use crate::getopt::Match;

use super::numbers;
use super::options::{self, Opt};
use super::request::{JobSource, LockTarget, Mode, Range, Request, Wait};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Request(Request),
    Help,
    Version,
}

/// The options that were parsed so far.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
struct ParsedOptions {
    mode: Mode,
    now: bool,
    timeout: Option<Wait>,
    conflict: i32,
    close: bool,
    no_fork: bool,
    verbose: bool,
    range: Option<Range>,
    descriptor: Option<i32>,
    shell: Option<OsString>,
}

pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, Failure> {
    let words: Vec<_> = words.into_iter().collect();
    if words.is_empty() {
        return Err(try_help("not enough arguments"));
    }
    let mut parser = Parser::from_args(words);
    // As with getopt, the value of `-w=5` is `=5`.
    parser.set_short_equals(false);
    let mut options = ParsedOptions {
        mode: Mode::Exclusive,
        now: false,
        timeout: None,
        conflict: 1,
        close: false,
        no_fork: false,
        verbose: false,
        range: None,
        descriptor: None,
        shell: None,
    };
    let mut rest = Vec::new();
    while options.shell.is_none() {
        let Some(option) = next(&mut parser, options.descriptor.is_some(), &mut rest)? else {
            break;
        };
        match option {
            (Opt::Help, _) => return Ok(Parsed::Help),
            (Opt::Version, _) => return Ok(Parsed::Version),
            (option, value) => options.set(option, &value)?,
        }
    }
    rest.extend(parser.raw_args().map_err(|error| try_help(&error.to_string()))?);
    if options.no_fork && options.close {
        return Err(Failure::usage("the --no-fork and --close options are incompatible"));
    }
    options.into_request(rest).map(Parsed::Request)
}

/// The next option and its value, if it takes one. The first other word is moved to `rest`.
fn next(
    parser: &mut Parser,
    has_descriptor: bool,
    rest: &mut Vec<OsString>,
) -> Result<Option<(Opt, OsString)>, Failure> {
    let argument = parser.next().map_err(|error| try_help(&error.to_string()))?;
    let (option, missing) = match argument {
        None => return Ok(None),
        Some(Arg::Value(word)) => {
            rest.push(word);
            return Ok(None);
        }
        Some(Arg::Short(letter)) => {
            // With `--fd`, no file name precedes `-c`.
            let option = match letter {
                'c' if has_descriptor => Some(Opt::Command),
                letter => Opt::of_letter(letter),
            };
            let Some(option) = option else {
                return Err(match letter {
                    '?' => try_help(""),
                    letter => try_help(&format!("invalid option -- '{letter}'")),
                });
            };
            (option, format!("option requires an argument -- '{letter}'"))
        }
        Some(Arg::Long(name)) => {
            let name = name.to_string();
            (long_option(parser, &name, has_descriptor)?, {
                let full = options::full_name(&name, has_descriptor);
                format!("option '--{full}' requires an argument")
            })
        }
    };
    let value = match option {
        option if option.takes_value() => parser.value().map_err(|_| try_help(&missing))?,
        _ => OsString::new(),
    };
    Ok(Some((option, value)))
}

fn long_option(parser: &mut Parser, name: &str, has_descriptor: bool) -> Result<Opt, Failure> {
    // The spelling for the error message.
    let written = |parser: &mut Parser| match parser.optional_value() {
        Some(value) => format!("--{name}={}", value.to_string_lossy()),
        None => format!("--{name}"),
    };
    match options::find(name, has_descriptor) {
        Match::One(full, option) if !option.takes_value() && parser.optional_value().is_some() => {
            Err(try_help(&format!("option '--{full}' doesn't allow an argument")))
        }
        Match::One(_, option) => Ok(option),
        Match::None => Err(try_help(&format!("unrecognized option '{}'", written(parser)))),
        Match::Several(names) => {
            let names: Vec<_> = names.iter().map(|name| format!("'--{name}'")).collect();
            let (written, names) = (written(parser), names.join(" "));
            Err(try_help(&format!("option '{written}' is ambiguous; possibilities: {names}")))
        }
    }
}

impl ParsedOptions {
    fn set(&mut self, option: Opt, value: &OsString) -> Result<(), Failure> {
        match option {
            Opt::Shared => self.mode = Mode::Shared,
            Opt::Exclusive => self.mode = Mode::Exclusive,
            Opt::Unlock => self.mode = Mode::Unlock,
            Opt::Nonblocking => self.now = true,
            Opt::Timeout => self.timeout = Some(numbers::timeout(value)?),
            Opt::ConflictExitCode => self.conflict = numbers::exit_code(value)?,
            Opt::Close => self.close = true,
            Opt::NoFork => self.no_fork = true,
            Opt::Verbose => self.verbose = true,
            Opt::Fcntl => {
                self.range.get_or_insert_default();
            }
            Opt::Start => {
                self.range.get_or_insert_default().start = numbers::size(value, "--start")?;
            }
            Opt::Length => {
                self.range.get_or_insert_default().length = numbers::size(value, "--length")?;
            }
            Opt::Fd => self.descriptor = Some(numbers::open_descriptor(value)?),
            Opt::Command => self.shell = Some(value.clone()),
            Opt::Help | Opt::Version => {}
        }
        Ok(())
    }

    /// Combines the options with the words after them.
    fn into_request(self, mut rest: Vec<OsString>) -> Result<Request, Failure> {
        let (target, job) = if let Some(descriptor) = self.descriptor {
            let job = match self.shell {
                Some(_) if !rest.is_empty() => return Err(exactly_one("-c")),
                Some(string) => Some(JobSource::Shell(string)),
                None => job_source(rest)?,
            };
            if job.is_none() {
                return Err(Failure::usage("--fd requires a command")
                    .hint(format!("to lock it for the shell, use `flock {descriptor}`")));
            }
            (LockTarget::Descriptor(descriptor), job)
        } else if rest.is_empty() {
            return Err(Failure::usage("requires file descriptor, file or directory"));
        } else {
            let first = rest.remove(0);
            match job_source(rest)? {
                None => (LockTarget::Descriptor(numbers::descriptor(&first)?), None),
                job => (LockTarget::Path(first), job),
            }
        };
        let wait = match self.timeout {
            Some(Wait::Impossible) => Wait::Impossible,
            _ if self.now => Wait::Never,
            Some(wait) => wait,
            None => Wait::Forever,
        };
        Ok(Request {
            mode: self.mode,
            wait,
            conflict: self.conflict,
            close: self.close,
            no_fork: self.no_fork,
            verbose: self.verbose,
            range: self.range,
            target,
            job,
        })
    }
}

fn job_source(mut words: Vec<OsString>) -> Result<Option<JobSource>, Failure> {
    match words.first() {
        None => Ok(None),
        Some(flag) if flag == "-c" || flag == "--command" => match words.len() {
            2 => Ok(Some(JobSource::Shell(words.remove(1)))),
            _ => Err(exactly_one(&flag.to_string_lossy())),
        },
        Some(_) => Ok(Some(JobSource::Words(words))),
    }
}

fn exactly_one(flag: &str) -> Failure {
    Failure::usage(format!("{flag} requires exactly one command argument"))
}

/// A usage error with the hint that flock(1) adds to getopt's errors.
fn try_help(problem: &str) -> Failure {
    let hint = super::help::TRY_HELP;
    if problem.is_empty() { Failure::usage(hint) } else { Failure::usage(problem).hint(hint) }
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

    fn error_message(line: &str) -> String {
        let failure = parse(line.split(' ').map(OsString::from)).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage, "{line}");
        format!("{failure:?}")
    }

    #[test]
    fn options_are_read_in_each_spelling() {
        limit!();
        for line in ["-xn l true", "-e --nb l true", "--excl --nonblock l true", "--e -n -- l true"]
        {
            let request = request(line);
            assert_eq!((request.mode, request.wait), (Mode::Exclusive, Wait::Never), "{line}");
            assert_eq!(request.target, LockTarget::Path("l".into()), "{line}");
            assert_eq!(request.job, Some(JobSource::Words(vec!["true".into()])), "{line}");
        }
        let five = Wait::Until(std::time::Duration::from_secs(5));
        for line in ["-w5 9", "-w 5 9", "-sw5 9", "--wait=5 9", "--t 5 9", "--timeout 5 9"] {
            assert_eq!(request(line).wait, five, "{line}");
            assert_eq!(request(line).target, LockTarget::Descriptor(9), "{line}");
        }
        for (line, mode) in [("--s 9", Mode::Shared), ("-xu 9", Mode::Unlock)] {
            assert_eq!(request(line).mode, mode, "{line}");
        }
    }

    #[test]
    fn options_end_at_the_first_word() {
        limit!();
        let words = |line: &str| request(line).job;
        assert_eq!(words("l -n -s"), Some(JobSource::Words(vec!["-n".into(), "-s".into()])));
        assert_eq!(words("l -- true"), Some(JobSource::Words(vec!["--".into(), "true".into()])));
        assert_eq!(words("l -c true"), Some(JobSource::Shell("true".into())));
    }

    #[test]
    fn fd_takes_a_command() {
        limit!();
        for line in ["--fd 9 -c a", "--fd=9 --command a", "--fd 9 -- -c a", "--fd 9 -n -ca"] {
            assert_eq!(request(line).target, LockTarget::Descriptor(9), "{line}");
            assert_eq!(request(line).job, Some(JobSource::Shell("a".into())), "{line}");
        }
        let words = vec!["a".into(), "-c".into()];
        assert_eq!(request("--fd 9 a -c").job, Some(JobSource::Words(words)));
    }

    #[test]
    fn a_range_implies_fcntl() {
        limit!();
        let range = |line: &str| request(line).range;
        assert_eq!(range("l true"), None);
        assert_eq!(range("--fcntl l true"), Some(Range::default()));
        assert_eq!(range("--start 1K --l 2 l true"), Some(Range { start: 1024, length: 2 }));
    }

    #[test]
    fn invalid_command_lines_are_rejected() {
        limit!();
        for (line, expected) in [
            ("-z", "invalid option -- 'z'"),
            ("-c a", "invalid option -- 'c'"),
            ("--bogus=1", "unrecognized option '--bogus=1'"),
            ("--n", "ambiguous; possibilities: '--nonblocking' '--no-fork'"),
            ("--excl=1", "'--exclusive' doesn't allow an argument"),
            ("--wai", "'--wait' requires an argument"),
            ("-xw", "requires an argument -- 'w'"),
            ("-w=5 l true", "invalid timeout value: '=5'"),
            ("-oF l true", "incompatible"),
            ("-x", "requires file descriptor"),
            ("l -c", "-c requires exactly one"),
            ("l --command a b", "--command requires exactly one"),
            ("--fd 9 -c a b", "-c requires exactly one"),
            ("-", "bad file descriptor: '-'"),
            ("--fd 9", "--fd requires a command"),
            ("--fd -1 true", "bad file descriptor: '-1'"),
        ] {
            assert!(error_message(line).contains(expected), "{line}: {}", error_message(line));
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        /// No words cause a panic, and the command consists of the last words.
        #[test]
        fn any_words_are_a_request_or_a_usage_error(
            words in proptest::collection::vec("(-{0,2}[suxneowEFcvhV]{0,3}=?[0-9]{0,2})|(--(s|sh|ex|un|no|nb|ti|wa|con|cl|ve|fc|st|le|fd|co|he)[a-z-]{0,6}=?[0-9K]{0,2})|l|9|--|-c|true|\\PC{0,3}", 0..7),
        ) {
            limit!();
            match parse(words.iter().map(OsString::from)) {
                Err(failure) => prop_assert_eq!(failure.exit, crate::exit::Exit::Usage),
                Ok(Parsed::Help | Parsed::Version) => {}
                Ok(Parsed::Request(request)) => {
                    prop_assert!((0..=255).contains(&request.conflict));
                    match request.job {
                        Some(JobSource::Words(run)) => {
                            let run: Vec<_> = run.iter().map(|word| word.to_string_lossy().into_owned()).collect();
                            prop_assert!(!run.is_empty() && words.ends_with(&run), "{:?}: {:?}", words, run);
                        }
                        Some(JobSource::Shell(string)) => {
                            let string = string.to_string_lossy().into_owned();
                            prop_assert!(words.iter().any(|word| word.ends_with(&string)), "{:?}: {:?}", words, string);
                        }
                        None => prop_assert!(matches!(request.target, LockTarget::Descriptor(_)), "{:?}", words),
                    }
                }
            }
        }
    }
}
