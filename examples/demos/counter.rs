//! Three programs and a Python script count in one JSON file, and no count is lost.
//!
//! The three programs use flockwork. The script locks the file's lock with flock(2), as any program
//! can. Meanwhile another program reads the file again and again, and never sees a part of a
//! change. The program starts itself again for each of them. Without a `python3` that has `fcntl`,
//! as on Windows, the script is left out.
//!
//! ```text
//! cargo run --example counter
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use flockwork::SharedFile;
use serde_json::{Value, json};

/// How many times each program counts.
const TIMES: u64 = 200;
const RUST_PROGRAMS: [&str; 3] = ["alpha", "beta", "gamma"];
const PYTHON_PROGRAM: &str = "python";

const COUNT: &str = "count";
const READ: &str = "read";
/// What each program prints before it begins.
const READY: &str = "ready";

/// A program in another language. All programs must use the same lock, whose path is the data
/// file's path with `.flock` added. The script replaces the data file in one step, so a reader
/// without the lock never sees a part of a change.
const PYTHON: &str = r#"
import fcntl, json, os, sys

path, name, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.read()  # until the parent closes it
with open(path + ".flock", "a") as lock:
    for _ in range(times):
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path) as file:
            counts = json.load(file)
        counts["by"][name] = counts["by"].get(name, 0) + 1
        counts["total"] += 1
        with open(path + "." + name, "w") as file:
            json.dump(counts, file)
        os.replace(path + "." + name, path)
        fcntl.flock(lock, fcntl.LOCK_UN)
"#;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => demo(),
        [COUNT, path, name] => count(Path::new(path), name).map(|()| true),
        [READ, path] => read(Path::new(path)).map(|()| true),
        _ => {
            eprintln!("usage: counter");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

// --------------------------------------------------------------------- the programs and the reader

/// Does the same as the Python script.
fn count(path: &Path, name: &str) -> Result<(), Box<dyn Error>> {
    let file = SharedFile::open(path)?;
    println!("{READY}");
    wait_for_the_parent()?;
    for _ in 0..TIMES {
        file.update(|contents| -> Result<(), Box<dyn Error>> {
            let mut counts: Value = serde_json::from_slice(contents)?;
            add_one(&mut counts["by"][name]);
            add_one(&mut counts["total"]);
            *contents = serde_json::to_vec(&counts)?;
            Ok(())
        })?;
    }
    Ok(())
}

/// Adds one to a count. A missing count is zero.
fn add_one(count: &mut Value) {
    *count = json!(count.as_u64().unwrap_or(0) + 1);
}

/// Reads the file until the parent closes the pipe, and once more. Returns an error if the counts
/// do not add up to the total, or if a count has decreased.
fn read(path: &Path) -> Result<(), Box<dyn Error>> {
    let file = SharedFile::open(path)?;
    let mut last = Counts::parse(&file.read()?)?;
    let (mut reads, mut states) = (1, 1);
    println!("{READY}");
    let parent = std::thread::spawn(wait_for_the_parent);
    loop {
        let is_last = parent.is_finished();
        let counts = Counts::parse(&file.read()?)?;
        if !counts.continues(&last) {
            return Err(format!("{counts:?} came after {last:?}").into());
        }
        reads += 1;
        states += u64::from(counts.total != last.total);
        last = counts;
        if is_last {
            println!("{reads} {states} {}", last.total);
            return Ok(());
        }
    }
}

/// Waits until the parent closes the pipe.
fn wait_for_the_parent() -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

// -------------------------------------------------------------------------------------- the counts

#[derive(Debug)]
struct Counts {
    total: u64,
    by: BTreeMap<String, u64>,
}

impl Counts {
    fn none() -> Value {
        json!({ "total": 0, "by": {} })
    }

    fn parse(text: &[u8]) -> Result<Self, Box<dyn Error>> {
        let counts: Value = serde_json::from_slice(text)?;
        let number = |count: &Value| count.as_u64().ok_or("not a count");
        let by = counts["by"].as_object().ok_or("no counts")?;
        let by = by.iter().map(|(name, count)| Ok::<_, &str>((name.clone(), number(count)?)));
        let counts = Self { total: number(&counts["total"])?, by: by.collect::<Result<_, _>>()? };
        if counts.total != counts.by.values().sum::<u64>() {
            return Err(format!("{counts:?} do not add up").into());
        }
        Ok(counts)
    }

    /// Whether no count is smaller than in `last`.
    fn continues(&self, last: &Self) -> bool {
        last.by.iter().all(|(name, count)| self.by.get(name) >= Some(count))
    }
}

// -------------------------------------------------------------------------------------- the parent

/// Starts the programs, waits until they have counted, and checks the counts.
fn demo() -> Result<bool, Box<dyn Error>> {
    let directory = tempfile::Builder::new().prefix("flockwork-example-").tempdir()?;
    let path = directory.path().join("counter.json");
    let file = SharedFile::open(&path)?;
    file.write(Counts::none().to_string())?;

    let this_program = std::env::current_exe()?;
    let mut programs = Vec::new();
    for name in RUST_PROGRAMS {
        let mut program = Command::new(&this_program);
        program.arg(COUNT).arg(&path).arg(name);
        programs.push((name, Program::start(&mut program)?));
    }
    if has_python() {
        let script = directory.path().join("count.py");
        std::fs::write(&script, PYTHON)?;
        let mut python = Command::new("python3");
        python.arg(&script).arg(&path).args([PYTHON_PROGRAM, &TIMES.to_string()]);
        programs.push((PYTHON_PROGRAM, Program::start(&mut python)?));
    } else {
        println!("The Python script is left out: there is no python3 with fcntl.");
    }
    println!(
        "{} programs count in one JSON file, {TIMES} times each, while another program reads it.",
        programs.len()
    );

    let mut reader = Program::start(Command::new(&this_program).arg(READ).arg(&path))?;
    for (_, program) in &mut programs {
        program.close_input();
    }
    let mut succeeded = true;
    for (_, program) in &mut programs {
        succeeded &= program.child.wait()?.success();
    }
    reader.close_input();
    let read = reader.line().unwrap_or_default(); // empty if the reader failed
    succeeded &= reader.child.wait()?.success();

    let counts = Counts::parse(&file.read()?)?;
    drop(file); // Windows does not remove open files
    directory.close()?;
    let names: Vec<&str> = programs.iter().map(|(name, _)| *name).collect();
    Ok(check(&names, &counts, &read) && succeeded)
}

fn has_python() -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import fcntl"]);
    python.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

/// A process that is killed when this is dropped, so that it does not outlive the parent.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts the program and waits until it is ready.
    fn start(command: &mut Command) -> Result<Self, Box<dyn Error>> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or("no pipe")?);
        let mut program = Self { child, input, output: BufReader::new(output) };
        match &*program.line()? {
            READY => Ok(program),
            line => Err(format!("{command:?} printed {line:?}").into()),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().into())
    }

    /// Closes the pipe that the program waits for.
    fn close_input(&mut self) {
        self.input = None;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both calls fail if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checks that no count is missing, and that the reader succeeded and saw the final total.
fn check(names: &[&str], counts: &Counts, read: &str) -> bool {
    println!();
    for name in names {
        println!("{name:>8} {:5}", counts.by.get(*name).unwrap_or(&0));
    }
    println!("{:>8} {:5}", "total", counts.total);

    let expected: BTreeMap<String, u64> =
        names.iter().map(|name| (name.to_string(), TIMES)).collect();
    let is_complete = counts.by == expected;
    let read: Vec<&str> = read.split(' ').collect();
    let is_read = match read[..] {
        [reads, states, last] => {
            println!(
                "\nThe reader read the file {reads} times and saw {states} states, none incomplete."
            );
            last == counts.total.to_string()
        }
        _ => false,
    };
    if is_complete && is_read {
        println!("None of the {} counts is missing.", counts.total);
    } else {
        println!(
            "FAILED: the counts are complete: {is_complete}, the reader succeeded: {is_read}."
        );
    }
    is_complete && is_read
}
