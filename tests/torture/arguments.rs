//! What it is told to do, by the user and by itself.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::things::{self, Breakage, WORKERS};

pub(crate) const USAGE: &str = "usage: torture [--seed N] [--acquisitions N] [--kills N] [--limit SECONDS] [--patience SECONDS] \
     [--directory PATH] [--spare-inotify] [--tied] [--only THING] \
     [--break lock|rwlock|semaphore|once|lost-update|tear|event|capacity|permit|wake|crash]";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Conductor,
    Witness,
    Vandal,
    Worker { number: u32, generation: u32 },
}

#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    pub(crate) seed: u64,
    pub(crate) acquisitions: u64,
    pub(crate) kills: u64,
    /// How long all of it may take.
    pub(crate) limit: Duration,
    /// Who has not got on for so long is lost.
    pub(crate) patience: Duration,
    /// Where all happens; a temporary directory is made in it.
    pub(crate) directory: PathBuf,
    /// All inotify instances of the user are others' as well, such as tests that run beside this.
    pub(crate) spare_inotify: bool,
    /// It ends with who started it.
    pub(crate) is_tied: bool,
    /// The one thing that all contend for, by its place in `THINGS`.
    pub(crate) only: Option<usize>,
    pub(crate) broken: Option<Breakage>,
}

impl Arguments {
    /// How many rounds a process lives on average, for as many kills as are wanted.
    pub(crate) fn rounds_of_a_life(&self) -> u64 {
        const THREADS: u64 = 2;
        (self.acquisitions / self.kills.max(1) / THREADS).max(2)
    }

    /// To be handed on, or to be typed in to repeat it.
    pub(crate) fn to_words(&self) -> Vec<String> {
        let mut words: Vec<String> = [
            ("--seed", self.seed),
            ("--acquisitions", self.acquisitions),
            ("--kills", self.kills),
            ("--limit", self.limit.as_secs()),
            ("--patience", self.patience.as_secs()),
        ]
        .into_iter()
        .flat_map(|(name, number)| [name.to_owned(), number.to_string()])
        .collect();
        if self.spare_inotify {
            words.push("--spare-inotify".into());
        }
        if let Some(only) = self.only {
            words.extend(["--only".into(), things::THINGS[only].path.into()]);
        }
        if let Some(broken) = self.broken {
            words.extend(["--break".into(), broken.name().into()]);
        }
        words
    }
}

/// `None`: not understood.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Option<(Role, Arguments)> {
    let mut words = words.peekable();
    let role = match words.peek().map(String::as_str) {
        Some("witness") => Role::Witness,
        Some("vandal") => Role::Vandal,
        Some("worker") => {
            words.next();
            let number = words.next()?.parse().ok().filter(|number| *number < WORKERS)?;
            Role::Worker { number, generation: words.peek()?.parse().ok()? }
        }
        _ => Role::Conductor,
    };
    if !matches!(role, Role::Conductor) {
        words.next();
    }
    let mut arguments = Arguments {
        seed: any_seed(),
        acquisitions: 50_000,
        kills: 500,
        limit: Duration::from_secs(1200),
        patience: Duration::from_secs(60),
        directory: std::env::temp_dir(),
        spare_inotify: false,
        is_tied: false,
        only: None,
        broken: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--spare-inotify" => arguments.spare_inotify = true,
            "--tied" => arguments.is_tied = true,
            "--only" => {
                let path = words.next()?;
                arguments.only = Some(things::THINGS.iter().position(|thing| thing.path == path)?);
            }
            "--break" => arguments.broken = Some(Breakage::named(&words.next()?)?),
            "--directory" => arguments.directory = words.next()?.into(),
            other => {
                let number: u64 = words.next()?.parse().ok()?;
                match other {
                    "--seed" => arguments.seed = number,
                    "--acquisitions" => arguments.acquisitions = number,
                    "--kills" => arguments.kills = number,
                    "--limit" => arguments.limit = Duration::from_secs(number),
                    "--patience" => arguments.patience = Duration::from_secs(number),
                    _ => return None,
                }
            }
        }
    }
    Some((role, arguments))
}

/// Another one each time; it is printed.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) % 1_000_000
}
