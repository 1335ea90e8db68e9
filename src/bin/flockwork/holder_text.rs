//! Describes a holder for a person: its label, its job, its process and how long it has held.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, SystemTime};

use flockwork::Holder;

use crate::parse;

/// The known facts about a holder.
#[derive(Debug, Clone)]
pub(crate) struct HolderText {
    pub(crate) label: Option<String>,
    /// The name of the job's program, without its directory.
    pub(crate) program: Option<String>,
    /// The process, such as `pid 42` or `pid 42 on box`.
    pub(crate) process: String,
    /// How long it has held, such as `4m`.
    pub(crate) held: Option<String>,
}

impl HolderText {
    pub(crate) fn of(holder: &Holder) -> Self {
        Self {
            label: holder.label().map(String::from),
            program: job_of(holder).and_then(|job| job.program()),
            process: process(holder),
            held: held_for(holder).map(coarse),
        }
    }

    /// `"nightly backup" (tar, pid 4242, 4m)`, or without a label `tar (pid 4242, 4m)`.
    pub(crate) fn full(&self) -> String {
        let (name, program) = match (&self.label, &self.program) {
            (Some(label), program) => (format!("\"{label}\""), program.clone()),
            (None, Some(program)) => (program.clone(), None),
            (None, None) => return self.details(&[]),
        };
        let first: Vec<_> = program.into_iter().collect();
        format!("{name} ({})", self.details(&first))
    }

    fn details(&self, first: &[String]) -> String {
        let parts = first.iter().chain([&self.process]).chain(&self.held);
        parts.cloned().collect::<Vec<_>>().join(", ")
    }

    /// `"nightly backup" (pid 4242)`.
    pub(crate) fn short(&self) -> String {
        match self.name() {
            Some(name) => format!("{name} ({})", self.process),
            None => self.process.clone(),
        }
    }

    fn name(&self) -> Option<String> {
        let label = self.label.as_ref().map(|label| format!("\"{label}\""));
        label.or_else(|| self.program.clone())
    }
}

/// The process ID, with a remark if it is not valid here.
pub(crate) fn process(holder: &Holder) -> String {
    let pid = holder.pid();
    if holder.same_pid_namespace() {
        format!("pid {pid}")
    } else if !holder.host().is_empty() && !is_own_host(holder.host()) {
        format!("pid {pid} on {}", holder.host())
    } else {
        format!("pid {pid} in another pid namespace")
    }
}

#[cfg(unix)]
fn is_own_host(name: &str) -> bool {
    rustix::system::uname().nodename().to_string_lossy() == name
}

/// Only Unix distinguishes hosts here, since elsewhere every process ID is valid.
#[cfg(not(unix))]
fn is_own_host(_name: &str) -> bool {
    false
}

pub(crate) fn held_for(holder: &Holder) -> Option<Duration> {
    SystemTime::now().duration_since(holder.since()?).ok()
}

/// One or two units: `12s`, `4m`, `3h20m`, `2d`.
pub(crate) fn coarse(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d"),
        () if hours > 0 && minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        () if hours > 0 => format!("{hours}h"),
        () if minutes > 0 => format!("{minutes}m"),
        () => format!("{seconds}s"),
    }
}

/// The command that runs while its starter holds a lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeldJob {
    Words(Vec<OsString>),
    /// A string that a shell runs.
    Shell(OsString),
}

impl HeldJob {
    /// The name of the program, without its directory.
    fn program(&self) -> Option<String> {
        let word = match self {
            Self::Words(words) => words.first()?.to_string_lossy().into_owned(),
            Self::Shell(string) => {
                string.to_string_lossy().split_whitespace().next().unwrap_or("sh").to_string()
            }
        };
        let name = Path::new(&word).file_name().map(|name| name.to_string_lossy().into_owned());
        name.or(Some(word)).map(|name| crate::exit::printable(&name))
    }

    /// The command as a line of shell.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Words(words) => quoted(words.iter()),
            Self::Shell(string) => crate::exit::printable(&string.to_string_lossy()),
        }
    }
}

/// Words as a line of shell, printable on a terminal.
pub(crate) fn quoted<'a>(words: impl Iterator<Item = &'a OsString>) -> String {
    let words = words.map(|word| {
        let word = word.to_string_lossy();
        // A word with a zero byte cannot be quoted, and no argument has one.
        shlex::try_quote(&word).map_or_else(|_| word.to_string(), std::borrow::Cow::into_owned)
    });
    crate::exit::printable(&words.collect::<Vec<_>>().join(" "))
}

pub(crate) fn quoted_path(path: &Path) -> String {
    quoted([path.as_os_str().to_os_string()].iter())
}

/// A text that contains the holder, with its job instead of its command line.
pub(crate) fn with_job(text: String, holder: &Holder) -> String {
    match (holder.command(), job_of(holder)) {
        (Some(command), Some(job)) => {
            text.replacen(&format!(" ({command})"), &format!(" ({})", job.line()), 1)
        }
        _ => text,
    }
}

/// The job of a holder. If the holder is flockwork or flock(1), that is the command which it runs.
pub(crate) fn job_of(holder: &Holder) -> Option<HeldJob> {
    let is_here = holder.same_pid_namespace();
    let words = is_here.then(|| command_words(holder.pid())).flatten().or_else(|| {
        let command = holder.command()?;
        let split = || command.split_whitespace().map(String::from).collect();
        let words = shlex::split(command).unwrap_or_else(split);
        Some(words.into_iter().map(OsString::from).collect())
    })?;
    (!words.is_empty()).then(|| job_in(words))
}

/// The command line of a process. The record of a holder may have cut it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn command_words(pid: u32) -> Option<Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt as _;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = line.strip_suffix(b"\0")?;
    Some(line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn command_words(_pid: u32) -> Option<Vec<OsString>> {
    None
}

/// The command that these words run, through any number of flockwork and flock(1).
pub(crate) fn job_in(words: Vec<OsString>) -> HeldJob {
    match parse::job(&words) {
        Some(HeldJob::Words(inner)) if !inner.is_empty() => job_in(inner),
        Some(HeldJob::Words(_)) | None => HeldJob::Words(words),
        Some(shell) => shell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(line: &str) -> HeldJob {
        job_in(shlex::split(line).unwrap().into_iter().map(OsString::from).collect())
    }

    #[test]
    fn the_job_of_a_command_line_is_found() {
        limit!();
        for (line, program, command) in [
            ("tar cf x", "tar", "tar cf x"),
            ("flockwork lock l tar cf x", "tar", "tar cf x"),
            (
                "/usr/bin/flockwork lock --label 'a b' -w 3 l -- /bin/tar 'a b'",
                "tar",
                "/bin/tar 'a b'",
            ),
            ("flockwork lock l -c 'git pull && make'", "git", "git pull && make"),
            ("flockwork lock -c 'git pull' l", "git", "git pull"),
            ("flockwork sem -j 4 --id cc -- cc -c a.c", "cc", "cc -c a.c"),
            ("flockwork sem s flockwork once o make all", "make", "make all"),
            ("flockwork lock l flock m -c 'echo hi'", "echo", "echo hi"),
            ("flock -n l make", "make", "make"),
            ("flockwork lock", "flockwork", "flockwork lock"),
            ("flockwork event wait e", "flockwork", "flockwork event wait e"),
            ("", "", ""),
        ] {
            let job = job(line);
            assert_eq!(job.program().unwrap_or_default(), program, "{line}");
            assert_eq!(job.line(), command, "{line}");
        }
    }

    #[test]
    fn a_holder_is_described_by_what_is_known() {
        limit!();
        let mut holder = HolderText {
            label: Some("nightly backup".into()),
            program: Some("tar".into()),
            process: "pid 4242".into(),
            held: Some("4m".into()),
        };
        assert_eq!(holder.full(), "\"nightly backup\" (tar, pid 4242, 4m)");
        assert_eq!(holder.short(), "\"nightly backup\" (pid 4242)");
        holder.label = None;
        assert_eq!(holder.full(), "tar (pid 4242, 4m)");
        assert_eq!(holder.short(), "tar (pid 4242)");
        (holder.program, holder.held) = (None, None);
        assert_eq!((holder.full(), holder.short()), ("pid 4242".into(), "pid 4242".into()));
    }

    #[test]
    fn times_are_shown_in_one_or_two_units() {
        limit!();
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (299, "4m"),
            (3600, "1h"),
            (12_000, "3h20m"),
            (86_400, "1d"),
            (400_000, "4d"),
        ] {
            assert_eq!(coarse(Duration::from_secs(seconds)), text);
        }
    }
}
