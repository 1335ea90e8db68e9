//! Programs that know nothing of each other count in one JSON file: three with flockwork, and one in Python, which locks
//! the file's lock as any program can that has flock(2). Meanwhile one more reads the file over and over again. No
//! count is lost, and nobody ever sees half of one. They are real processes: this program again, and `python3`. (Where
//! that is missing, or has no `fcntl`, as on Windows, it goes without.)
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

/// So often each program counts.
const TIMES: u64 = 200;
const RUST_PROGRAMS: [&str; 3] = ["alpha", "beta", "gamma"];
const PYTHON_PROGRAM: &str = "python";

const COUNT: &str = "count";
const READ: &str = "read";
/// What each of them says before it begins.
const READY: &str = "ready";

/// A program in another language. All programs must use the same lock, whose path is the data file's
/// path with `.flock` added. What it writes takes the data file's place in one step, so
/// that a reader without the lock sees no half of it either.
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
        [] => story(),
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

// -------------------------------------------------------------------- those who count, and who reads

/// The counterpart of what the Python program does.
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

/// To what is not there yet as well.
fn add_one(count: &mut Value) {
    *count = json!(count.as_u64().unwrap_or(0) + 1);
}

/// Reads the file until the parent has had enough, and once more. Ends with an error if there is anything in it but
/// counts that add up, or a count that has gone back.
fn read(path: &Path) -> Result<(), Box<dyn Error>> {
    let file = SharedFile::open(path)?;
    let mut last = Counts::parse(&file.read()?)?;
    let (mut reads, mut states) = (1, 1);
    println!("{READY}");
    let parent = std::thread::spawn(wait_for_the_parent);
    loop {
        let is_last = parent.is_finished();
        let counts = Counts::parse(&file.read()?)?;
        if !counts.goes_on_from(&last) {
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

/// Until it closes the pipe.
fn wait_for_the_parent() -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

// ---------------------------------------------------------------------------------------- the counts

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
        let number = |count: &Value| count.as_u64().ok_or("a count that is none");
        let by = counts["by"].as_object().ok_or("no counts")?;
        let by = by.iter().map(|(name, count)| Ok::<_, &str>((name.clone(), number(count)?)));
        let counts = Self { total: number(&counts["total"])?, by: by.collect::<Result<_, _>>()? };
        if counts.total != counts.by.values().sum::<u64>() {
            return Err(format!("{counts:?} do not add up").into());
        }
        Ok(counts)
    }

    fn goes_on_from(&self, last: &Self) -> bool {
        last.by.iter().all(|(name, count)| self.by.get(name) >= Some(count))
    }
}

// --------------------------------------------------------------------------------------- the parent

/// Starts them, lets them count, and looks whether it is all there.
fn story() -> Result<bool, Box<dyn Error>> {
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
        println!("The Python program is left out: there is no python3 here that knows fcntl.");
    }
    println!(
        "{} programs count in one JSON file, {TIMES} times each, and one more reads it all the time.",
        programs.len()
    );

    let mut reader = Program::start(Command::new(&this_program).arg(READ).arg(&path))?;
    for (_, program) in &mut programs {
        program.go_on();
    }
    let mut all_well = true;
    for (_, program) in &mut programs {
        all_well &= program.child.wait()?.success();
    }
    reader.go_on();
    let read = reader.line().unwrap_or_default(); // nothing, if it ended with an error
    all_well &= reader.child.wait()?.success();

    let counts = Counts::parse(&file.read()?)?;
    drop(file); // Windows removes no files that are open
    directory.close()?;
    let names: Vec<&str> = programs.iter().map(|(name, _)| *name).collect();
    Ok(judge(&names, &counts, &read) && all_well)
}

fn has_python() -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import fcntl"]);
    python.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

/// Does not outlive the parent, also if that fails.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Returns when it is ready.
    fn start(command: &mut Command) -> Result<Self, Box<dyn Error>> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or("no pipe")?);
        let mut program = Self { child, input, output: BufReader::new(output) };
        match &*program.line()? {
            READY => Ok(program),
            line => Err(format!("{command:?} said {line:?}").into()),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().into())
    }

    /// What it waits for.
    fn go_on(&mut self) {
        self.input = None;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether each has counted as often as it should, and the reader was content to the end.
fn judge(names: &[&str], counts: &Counts, read: &str) -> bool {
    println!();
    for name in names {
        println!("{name:>8} {:5}", counts.by.get(*name).unwrap_or(&0));
    }
    println!("{:>8} {:5}", "total", counts.total);

    let expected: BTreeMap<String, u64> =
        names.iter().map(|name| (name.to_string(), TIMES)).collect();
    let is_counted = counts.by == expected; // and they add up
    let read: Vec<&str> = read.split(' ').collect();
    let is_read = match read[..] {
        [reads, states, last] => {
            println!(
                "\nThe reader read {reads} times and saw {states} states, none of them broken."
            );
            last == counts.total.to_string()
        }
        _ => false,
    };
    if is_counted && is_read {
        println!("All {} are there, and nobody saw half of one.", counts.total);
    } else {
        println!("FAILED: all are there: {is_counted}, the reader saw nothing wrong: {is_read}.");
    }
    is_counted && is_read
}
