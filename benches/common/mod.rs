//! Shared by all benches: lock files, the extent of a run, statistics of the measured times, and
//! the table that compares them with the bare system calls of the same run.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use named_lock::NamedLock;

#[cfg_attr(unix, path = "bare_unix.rs")]
#[cfg_attr(not(unix), path = "bare_elsewhere.rs")]
pub(crate) mod bare;

pub(crate) fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).expect("open a lock file")
}

/// A lock of the crate `named-lock`: a file on Unix, and a named mutex of the system on Windows.
pub(crate) fn named_lock(path: &Path) -> NamedLock {
    #[cfg(unix)]
    let lock = NamedLock::with_path(path);
    #[cfg(not(unix))]
    let lock = NamedLock::create(&path.to_string_lossy().replace(['/', '\\', ':'], "_"));
    lock.expect("create a named lock")
}

/// How much of a bench runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Enough rounds for reliable figures.
    Full,
    /// One round of everything, to check that it runs.
    Smoke,
    /// Nothing, since only the names were requested.
    List,
}

impl Extent {
    /// Reads the arguments as criterion does: `cargo bench` measures, while `cargo bench -- --test`
    /// and `cargo test --benches` do not.
    pub(crate) fn from_args() -> Self {
        let has = |wanted: &str| std::env::args().any(|arg| arg == wanted);
        if has("--list") {
            Self::List
        } else if has("--bench") && !has("--test") {
            Self::Full
        } else {
            Self::Smoke
        }
    }

    /// The number of rounds: `full`, or one.
    pub(crate) fn times(self, full: usize) -> usize {
        if self == Self::Full { full } else { 1 }
    }
}

/// A limit for a median, as a multiple of the median of another row.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) baseline: &'static str,
    pub(crate) at_most: f64,
}

/// The number of measurements from which a target is judged.
const ENOUGH: usize = 100;

/// One contender's measurements.
pub(crate) struct Row {
    name: &'static str,
    targets: &'static [Target],
    /// An absolute limit for the median.
    limit: Option<Duration>,
    /// In ascending order, and never empty.
    times: Vec<Duration>,
}

impl Row {
    pub(crate) fn new(
        name: &'static str,
        targets: &'static [Target],
        mut times: Vec<Duration>,
    ) -> Self {
        assert!(!times.is_empty(), "{name} was not measured");
        times.sort_unstable();
        Self { name, targets, limit: None, times }
    }

    #[allow(dead_code, reason = "not every bench has an absolute target")]
    pub(crate) fn within(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    #[allow(dead_code, reason = "not every bench needs the name")]
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    fn p90(&self) -> Duration {
        self.percentile(90)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    /// The smallest time that `percent` percent of the measurements do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.times.len() * percent).div_ceil(100);
        self.times[rank.saturating_sub(1)]
    }

    fn target(&self, baseline: &Row) -> Option<Target> {
        self.targets.iter().find(|target| target.baseline == baseline.name).copied()
    }

    /// Compares a median, in the unit of the target, with the target.
    fn verdict(&self, value: f64, at_most: f64) -> String {
        let verdict = match self.times.len() {
            ..ENOUGH => "",
            _ if value <= at_most => " met",
            _ => " MISSED",
        };
        format!("<= {at_most:.2}{verdict}")
    }
}

/// Prints the rows in microseconds, and as multiples of the baselines: the median relative to the
/// baseline's median, and the p99 relative to its p99. A target limits the median.
pub(crate) fn print_table(title: &str, rows: &[Row], baselines: &[&str]) {
    let baselines: Vec<&Row> = baselines
        .iter()
        .map(|name| rows.iter().find(|row| row.name == *name).expect("a baseline is a row"))
        .collect();
    let has_targets = |baseline: &Row| rows.iter().any(|row| row.target(baseline).is_some());
    println!("\n{title}");

    let has_limits = rows.iter().any(|row| row.limit.is_some());
    let mut header = vec![String::new(), "median us".into(), "p90 us".into(), "p99 us".into()];
    header.extend(has_limits.then(|| "target us".into()));
    for (letter, baseline) in ('A'..).zip(&baselines) {
        println!("{letter} = {}", baseline.name);
        header.extend([format!("median/{letter}"), format!("p99/{letter}")]);
        header.extend(has_targets(baseline).then(|| "target".into()));
    }
    let mut lines = vec![header];
    for row in rows {
        let mut line = vec![row.name.to_owned()];
        line.extend([row.median(), row.p90(), row.p99()].map(microseconds));
        if has_limits {
            let verdict =
                |limit| row.verdict(in_microseconds(row.median()), in_microseconds(limit));
            line.push(row.limit.map(verdict).unwrap_or_default());
        }
        for baseline in &baselines {
            let ratio = row.median().div_duration_f64(baseline.median());
            let p99_ratio = row.p99().div_duration_f64(baseline.p99());
            line.extend([format!("{ratio:.2}"), format!("{p99_ratio:.2}")]);
            if has_targets(baseline) {
                let verdict = |target: Target| row.verdict(ratio, target.at_most);
                line.push(row.target(baseline).map(verdict).unwrap_or_default());
            }
        }
        lines.push(line);
    }
    print_aligned(&lines);
}

fn in_microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn microseconds(time: Duration) -> String {
    format!("{:.2}", in_microseconds(time))
}

/// Prints the first column left-aligned and the others right-aligned.
pub(crate) fn print_aligned(lines: &[Vec<String>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0)
        })
        .collect();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
