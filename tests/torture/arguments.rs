//! The command line: the options of the user, and the roles of the child processes.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::breakage::Breakage;
use crate::primitives::{self, WORKERS};

pub(crate) const USAGE: &str = "usage: torture [--seed N] [--acquisitions N] [--kills N] [--limit SECONDS] [--patience SECONDS] \
     [--directory PATH] [--spare-inotify] [--tied] [--only PRIMITIVE] \
     [--break lock|rwlock|semaphore|once|barrier|lost-update|tear|event|capacity|permit|wake|crash]";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Coordinator,
    Monitor,
    Chaos,
    Worker { number: u32, generation: u32 },
}

#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    pub(crate) seed: u64,
    pub(crate) acquisitions: u64,
    pub(crate) kills: u64,
    /// The longest duration of the run.
    pub(crate) limit: Duration,
    /// A thread that makes no progress for this long is reported.
    pub(crate) patience: Duration,
    /// A temporary directory for all files is created here.
    pub(crate) directory: PathBuf,
    /// Leave the user's inotify instances alone, for example for tests that run at the same time.
    pub(crate) spare_inotify: bool,
    /// End together with the parent process.
    pub(crate) is_tied: bool,
    /// The index in `PRIMITIVES` of the only primitive to use.
    pub(crate) only: Option<usize>,
    pub(crate) broken: Option<Breakage>,
}

impl Arguments {
    /// Returns the average number of rounds of a process that results in the requested number of
    /// kills.
    pub(crate) fn rounds_per_process(&self) -> u64 {
        const THREADS: u64 = 2;
        (self.acquisitions / self.kills.max(1) / THREADS).max(2)
    }

    /// Returns the options as words, for a child process or to repeat the run.
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
            words.extend(["--only".into(), primitives::PRIMITIVES[only].path.into()]);
        }
        if let Some(broken) = self.broken {
            words.extend(["--break".into(), broken.name().into()]);
        }
        words
    }
}

/// Returns `None` if the command line is invalid.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Option<(Role, Arguments)> {
    let mut words = words.peekable();
    let role = match words.peek().map(String::as_str) {
        Some("monitor") => Role::Monitor,
        Some("chaos") => Role::Chaos,
        Some("worker") => {
            words.next();
            let number = words.next()?.parse().ok().filter(|number| *number < WORKERS)?;
            Role::Worker { number, generation: words.peek()?.parse().ok()? }
        }
        _ => Role::Coordinator,
    };
    if !matches!(role, Role::Coordinator) {
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
                arguments.only = Some(
                    primitives::PRIMITIVES.iter().position(|primitive| primitive.path == path)?,
                );
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

/// Returns a different seed for each run.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) % 1_000_000
}
