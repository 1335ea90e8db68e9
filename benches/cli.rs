//! The cost of the command `flockwork` as a whole process, compared with flock(1) of util-linux and
//! GNU `sem`, and the number of jobs that run at once when xargs starts many of them.
//!
//! The contenders take turns, so that other work on the machine affects all of them alike. Programs
//! that are not installed are left out.

#[path = "common/clock.rs"]
mod clock;
#[path = "common/command.rs"]
mod command;
#[allow(dead_code, reason = "the other benches compare within one process")]
mod common;

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clock::now;
use common::{Extent, Row, Target, print_aligned, print_table};

/// The environment variable with the duration of a job in microseconds. Set only for the jobs,
/// which this program runs as well.
const JOB: &str = "FLOCKWORK_BENCH_CLI";

fn main() {
    if let Ok(duration) = std::env::var(JOB) {
        return run_job(Duration::from_micros(duration.parse().expect("a time")));
    }
    let extent = Extent::from_args();
    if extent != Extent::List {
        let dir = tempfile::tempdir().expect("create a temporary directory");
        let flockwork = command::build();
        print_sizes(&flockwork);
        measure_commands(&flockwork, dir.path(), extent);
        measure_throughput(&flockwork, dir.path(), extent);
    }
}

// ------------------------------------------------------------------------------ the command's size

const MIB: f64 = 1024.0 * 1024.0;
const SIZE_LIMIT_MIB: f64 = 3.0;

/// The command as built by `cargo build --profile size`, if it exists.
fn small(flockwork: &Path) -> Option<PathBuf> {
    let profiles = flockwork.parent()?.parent()?;
    Some(profiles.join("size").join(flockwork.file_name()?)).filter(|path| path.is_file())
}

#[allow(clippy::cast_precision_loss, reason = "only two digits are printed")]
fn print_sizes(flockwork: &Path) {
    let size =
        |path: &Path| std::fs::metadata(path).expect("look up the command").len() as f64 / MIB;
    println!("\nThe command's size");
    println!("as measured below         {:.2} MiB", size(flockwork));
    match small(flockwork).map(|path| size(&path)) {
        Some(size) => {
            let verdict = if size <= SIZE_LIMIT_MIB { "met" } else { "MISSED" };
            println!("with the profile `size`   {size:.2} MiB, <= {SIZE_LIMIT_MIB:.2} {verdict}");
        }
        None => println!(
            "with the profile `size`   left out, not built: cargo build --profile size --features cli"
        ),
    }
}

// -------------------------------------------------------------------- a command from start to exit

const ROUNDS: usize = 500;
/// GNU `sem` is so much slower that it runs only in every fifth round.
const GNU_EVERY: usize = 5;

const TRUE: &str = "true";
const FLOCK: &str = "flock f true";
const GNU_SEM: &str = "GNU sem --id x --fg true";

// The allowance over flock(1), whichever is more.
const SLOWER_BY: Duration = Duration::from_millis(2);
const SLOWER_TIMES: f64 = 1.5;
const AS_A_SEMAPHORE: &[Target] = &[Target { baseline: GNU_SEM, at_most: 0.1 }];

struct Contender {
    name: &'static str,
    targets: &'static [Target],
    program: PathBuf,
    arguments: &'static [&'static str],
    /// Runs once in this many rounds.
    every: usize,
    times: Vec<Duration>,
}

impl Contender {
    fn new(
        name: &'static str,
        program: impl Into<PathBuf>,
        arguments: &'static [&'static str],
    ) -> Self {
        let (program, times) = (program.into(), Vec::new());
        Self { name, targets: &[], program, arguments, every: 1, times }
    }

    fn run(&self, dir: &Path) -> Duration {
        let mut command = in_directory(&self.program, dir);
        command.args(self.arguments).stdin(Stdio::null());
        let before = Instant::now();
        let status = command.status().expect("run a command");
        let time = before.elapsed();
        assert!(status.success(), "{}: {status}", self.name);
        time
    }
}

/// A command whose files, including those of named semaphores, are in `dir`.
fn in_directory(program: impl AsRef<OsStr>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env("FLOCKWORK_ID_DIR", dir.join("id")).env("PARALLEL_HOME", dir);
    command
}

fn measure_commands(flockwork: &Path, dir: &Path, extent: Extent) {
    if !version_starts_with(TRUE, "") {
        return left_out("commands", TRUE);
    }
    let mut contenders = vec![Contender::new(TRUE, TRUE, &[])];
    if has_flock() {
        contenders.push(Contender::new(FLOCK, "flock", &["f", TRUE]));
    } else {
        left_out(FLOCK, "util-linux");
    }
    contenders.push(Contender::new("flockwork lock f true", flockwork, &["lock", "f", TRUE]));
    if let Some(small) = small(flockwork) {
        let name = "flockwork lock f true, profile size";
        contenders.push(Contender::new(name, small, &["lock", "f", TRUE]));
    }
    match as_flock(flockwork, dir) {
        Some(link) => {
            let name = "flockwork as flock, f true";
            contenders.push(Contender::new(name, link, &["f", TRUE]));
        }
        None => left_out("flockwork as flock", "flockwork under the name `flock`"),
    }
    let has_gnu_sem = has_gnu_sem();
    contenders.push(Contender {
        targets: if has_gnu_sem { AS_A_SEMAPHORE } else { &[] },
        ..Contender::new(
            "flockwork sem -j 1 --id x true",
            flockwork,
            &["sem", "-j", "1", "--id", "x", TRUE],
        )
    });
    if has_gnu_sem {
        let contender = Contender::new(GNU_SEM, "sem", &["--id", "x", "--fg", TRUE]);
        contenders.push(Contender { every: GNU_EVERY, ..contender });
    } else {
        left_out(GNU_SEM, "parallel");
    }

    let rounds = extent.times(ROUNDS);
    // The first run creates the files and is not measured.
    for contender in &contenders {
        contender.run(dir);
    }
    for round in 0..rounds {
        for contender in &mut contenders {
            if round % contender.every == 0 {
                let time = contender.run(dir);
                contender.times.push(time);
            }
        }
    }
    print_commands(contenders, &format!("{} ({rounds} rounds, interleaved)", dir.display()));
}

fn print_commands(contenders: Vec<Contender>, how: &str) {
    let has = |name| contenders.iter().any(|contender| contender.name == name);
    let baselines: Vec<_> = [TRUE, FLOCK, GNU_SEM].into_iter().filter(|name| has(*name)).collect();
    let rows: Vec<_> = contenders
        .into_iter()
        .map(|contender| Row::new(contender.name, contender.targets, contender.times))
        .collect();
    let flock = rows.iter().position(|row| row.name() == FLOCK).map(|at| rows[at].median());
    let limit = flock.map(|flock| (flock + SLOWER_BY).max(flock.mul_f64(SLOWER_TIMES)));
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let is_ours = row.name().starts_with("flockwork");
            row.within(limit.filter(|_| is_ours))
        })
        .collect();
    print_table(&format!("A command from its start to its exit, in {how}"), &rows, &baselines);
    if limit.is_some() {
        println!(
            "target us: {} ms more than {FLOCK}, or {SLOWER_TIMES} times as long, whichever is more",
            SLOWER_BY.as_millis()
        );
    }
}

/// A link to the command under the name `flock`, if it works like flock(1) under that name.
#[cfg(unix)]
fn as_flock(flockwork: &Path, dir: &Path) -> Option<PathBuf> {
    let link = dir.join("flock");
    std::os::unix::fs::symlink(flockwork, &link).ok()?;
    let mut command = in_directory(&link, dir);
    command.args(["f", TRUE]).stdin(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success()).then_some(link)
}

#[cfg(not(unix))]
fn as_flock(_flockwork: &Path, _dir: &Path) -> Option<PathBuf> {
    None
}

fn has_flock() -> bool {
    version_starts_with("flock", "flock from util-linux")
}

fn has_gnu_sem() -> bool {
    version_starts_with("sem", "GNU")
}

/// Whether the program is installed and its version text starts with `beginning`.
fn version_starts_with(program: &str, beginning: &str) -> bool {
    let version = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    version.is_ok_and(|output| output.stdout.starts_with(beginning.as_bytes()))
}

fn left_out(what: &str, missing: &str) {
    println!("{what}: left out, {missing} is not available");
}

// ---------------------------------------------------------------------- many jobs at the same time

const JOBS: usize = 200;
/// GNU `sem` is much slower, so it runs fewer jobs.
const GNU_JOBS: usize = 40;
const PROCESSES: &str = "16";
const PERMITS: usize = 4;
const JOB_DURATION: Duration = Duration::from_millis(5);

/// Runs a job, which sleeps and prints when it began and ended. So the check does not rely on the
/// semaphore.
fn run_job(duration: Duration) {
    let begun = now();
    std::thread::sleep(duration);
    // The jobs share one pipe, so a job writes its line with a single call.
    let line = format!("{} {}\n", begun.as_nanos(), now().as_nanos());
    std::io::stdout().write_all(line.as_bytes()).expect("print the times");
}

fn measure_throughput(flockwork: &Path, dir: &Path, extent: Extent) {
    if !version_starts_with("xargs", "") {
        return left_out("throughput", "xargs");
    }
    let permits = PERMITS.to_string();
    let flockwork = flockwork.to_str().expect("a path in Unicode");
    let flockwork_sem = [flockwork, "sem", "-j", &permits, "--id", "cc", "--"];
    let gnu_sem = ["sem", "--fg", "-j", &permits, "--id", "cc"];
    let mut runs = vec![
        ("flockwork sem", JOBS, &flockwork_sem[..]),
        // Without a limit, the result shows the cost of the jobs alone, and that the check would
        // notice too many of them.
        ("no semaphore", JOBS, &[]),
    ];
    if has_gnu_sem() {
        runs.push(("GNU sem --fg", GNU_JOBS, &gnu_sem[..]));
    } else {
        left_out("GNU sem --fg", "parallel");
    }
    let header = ["", "jobs", "seconds", "jobs/s", "most at once", "target"];
    let mut lines = vec![header.map(str::to_owned).to_vec()];
    for (name, jobs, command) in runs {
        let (took, spans) = run_jobs(dir, extent.times(jobs), command);
        let per_second = Duration::from_secs(spans.len() as u64).div_duration_f64(took);
        let most = most_at_once(&spans);
        let target = if command.is_empty() {
            String::new()
        } else {
            assert!(most <= PERMITS || command[0] != flockwork, "{most} jobs ran at once");
            format!("<= {PERMITS} {}", if most <= PERMITS { "met" } else { "MISSED" })
        };
        lines.push(vec![
            name.to_owned(),
            spans.len().to_string(),
            format!("{:.2}", took.as_secs_f64()),
            format!("{per_second:.0}"),
            most.to_string(),
            target,
        ]);
    }
    println!(
        "\nJobs of {} ms under a semaphore of {PERMITS} permits, started by xargs -P {PROCESSES}",
        JOB_DURATION.as_millis()
    );
    print_aligned(&lines);
}

type Span = (u128, u128);

/// Runs the jobs, and returns how long all of them took and when each of them ran.
fn run_jobs(dir: &Path, jobs: usize, wrapper: &[&str]) -> (Duration, Vec<Span>) {
    let mut xargs = in_directory("xargs", dir);
    xargs.args(["-P", PROCESSES, "-n", "1"]).args(wrapper);
    xargs.arg(std::env::current_exe().expect("this program's path"));
    xargs
        .env(JOB, JOB_DURATION.as_micros().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let before = Instant::now();
    let mut xargs = xargs.spawn().expect("start xargs");
    let mut input = xargs.stdin.take().expect("a pipe");
    input.write_all("job\n".repeat(jobs).as_bytes()).expect("write the list of jobs");
    drop(input);
    let mut printed = String::new();
    let mut output = xargs.stdout.take().expect("a pipe");
    output.read_to_string(&mut printed).expect("read the jobs' output");
    let status = xargs.wait().expect("wait for xargs");
    let took = before.elapsed();
    assert!(status.success(), "a job failed: {status}");
    let time = |word: &str| word.parse::<u128>().expect("a time");
    let span = |line: &str| {
        let (begun, ended) = line.split_once(' ').expect("two times");
        (time(begun), time(ended))
    };
    let spans: Vec<_> = printed.lines().map(span).collect();
    assert_eq!(spans.len(), jobs, "each job ran once");
    (took, spans)
}

fn most_at_once(spans: &[Span]) -> usize {
    let mut changes: Vec<(u128, i32)> =
        spans.iter().flat_map(|(begun, ended)| [(*begun, 1), (*ended, -1)]).collect();
    changes.sort_unstable();
    let running = changes.iter().scan(0, |running, (_, change)| {
        *running += change;
        Some(*running)
    });
    usize::try_from(running.max().unwrap_or(0)).expect("no job ends before it begins")
}
