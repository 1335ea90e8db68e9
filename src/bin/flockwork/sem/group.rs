//! The group of a background job, whose failures `--wait` counts: a name, or the session of the
//! processes that a shell or cron has started.

use std::ffi::OsStr;

use crate::exit::Failure;
use crate::id;
#[cfg(unix)]
use crate::process_stat;

/// The name of a group, which is part of a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group(String);

/// The longest name of a group that leaves room in a file name.
const MAX_NAME: usize = 200;

impl Group {
    /// The group of `--group`, or else that of this process's session.
    pub(crate) fn of(name: Option<&OsStr>) -> Result<Self, Failure> {
        let Some(name) = name else { return Ok(Self(session())) };
        let encoded = format!("n-{}", id::encoded(name));
        if name.is_empty() || encoded.len() > MAX_NAME {
            let problem = if name.is_empty() { "is empty" } else { "is too long" };
            return Err(Failure::usage(format!("the NAME of --group {problem}"))
                .hint("give a name, as in --group nightly"));
        }
        Ok(Self(encoded))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the same group as one in a file name. The start of a session is unknown
    /// after its first process has ended.
    pub(super) fn is(&self, other: &str) -> bool {
        let parts = |name: &str| {
            let (session, start) = name.rsplit_once('-')?;
            name.starts_with("s-").then(|| (session.to_string(), start.to_string()))
        };
        match (parts(&self.0), parts(other)) {
            (Some((own, start)), Some((session, other_start))) => {
                let is_unknown = start == "0" || other_start == "0";
                own == session && (start == other_start || is_unknown)
            }
            _ => self.0 == other,
        }
    }
}

/// The session, with all that distinguishes it from earlier ones of the same number.
#[cfg(unix)]
fn session() -> String {
    // It is 0 in a container whose session began outside, which rustix takes for a fault.
    let session = nix::unistd::getsid(None).map_or(0, nix::unistd::Pid::as_raw);
    let boot = read("/proc/sys/kernel/random/boot_id");
    let boot = boot.split('-').next().unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let namespace = namespace.to_string_lossy();
    let namespace: String = namespace.chars().filter(char::is_ascii_digit).collect();
    let pid = u32::try_from(session).unwrap_or_default();
    let start = process_stat::field(pid, process_stat::START).unwrap_or_else(|| "0".into());
    format!("s-{session}-{boot}-{namespace}-{start}")
}

/// The contents of a small file, or nothing on systems without it.
#[cfg(unix)]
fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim_end().to_string()).unwrap_or_default()
}

/// Other systems have no background jobs.
#[cfg(not(unix))]
fn session() -> String {
    "s-0".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_without_its_first_process_is_the_same() {
        limit!();
        let group = |name: &str| Group(name.into());
        for (one, other, is_same) in [
            ("s-5-b-n-77", "s-5-b-n-77", true),
            ("s-5-b-n-77", "s-5-b-n-78", false),
            ("s-5-b-n-77", "s-5-b-n-0", true),
            ("s-5-b-n-0", "s-5-b-n-78", true),
            ("s-5-b-n-77", "s-6-b-n-77", false),
            ("n-a-0", "n-a-1", false),
            ("n-a", "n-a", true),
            ("n-a", "s-5-b-n-77", false),
        ] {
            assert_eq!(group(one).is(other), is_same, "{one} {other}");
        }
        assert!(Group::of(Some(OsStr::new(""))).is_err());
        assert!(Group::of(Some(OsStr::new(&"x".repeat(MAX_NAME)))).is_err());
        assert_eq!(Group::of(None).unwrap(), Group::of(None).unwrap());
    }
}
