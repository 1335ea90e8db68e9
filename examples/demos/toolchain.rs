//! Ten builds need a toolchain that has to be unpacked once. The build that does it first is killed half-way; another
//! finds what that one left, clears it away and unpacks the toolchain, and the rest wait until that is done. An
//! editor needs it as well, and only waits for the others to unpack it. They are real processes: this program again.
//!
//! ```text
//! cargo run --example toolchain
//! ```

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use flockwork::{Once, Options};

const BUILDS: usize = 10;
const FILES: usize = 40;

/// The editor looks in, before anything can be there,
const GLANCE: Duration = Duration::from_millis(50);
/// and then waits. It is long because a busy disk may take its time: see [`Options::fsync`].
const TIMEOUT: Duration = Duration::from_secs(300);
/// Something is wrong with a process that says nothing for so long.
const PATIENCE: Duration = Duration::from_secs(2 * TIMEOUT.as_secs());

const BUILD: &str = "build";
const EDITOR: &str = "editor";

// What they report.
const NEEDS: &str = "needs";
const UNPACKS: &str = "unpacks";
const HALF_WAY: &str = "half-way";
const UNPACKED: &str = "unpacked";
const TOO_EARLY: &str = "too-early";
const FOUND: &str = "found";

// What they are told.
const GO_ON: &str = "go on";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => story(),
        [BUILD, name, directory] => build(name, Path::new(directory)).map(|()| true),
        [EDITOR, _, directory] => edit(Path::new(directory)).map(|()| true),
        _ => {
            eprintln!("usage: toolchain");
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

// -------------------------------------------------------------------------- the builds and the editor

fn build(name: &str, directory: &Path) -> Result<(), Box<dyn Error>> {
    let toolchain = toolchain_in(directory);
    let unpacked = Options::new()
        .label(name) // for those who want to know who is at it
        .fsync(true) // no loss of power leaves "unpacked" without the files
        .open_once(marker_in(directory))?;

    say(NEEDS, "");
    let was_me = unpacked.call_once(|| unpack(&toolchain))?;
    say(if was_me { UNPACKED } else { FOUND }, &Files::of(&toolchain)?.to_string());
    Ok(())
}

/// It may be killed at any moment, so it begins by clearing away what another one may have left.
fn unpack(toolchain: &Path) -> io::Result<()> {
    say(UNPACKS, &Files::of(toolchain)?.to_string());
    if toolchain.exists() {
        std::fs::remove_dir_all(toolchain)?;
    }
    std::fs::create_dir(toolchain)?;
    for number in 0..FILES {
        let (path, text) = (path_of(toolchain, number), text_of(number));
        if number == FILES / 2 {
            std::fs::write(&path, &text[..text.len() / 2])?;
            half_way()?;
        }
        std::fs::write(&path, text)?;
    }
    Ok(())
}

/// Goes on only when it is told to. So the parent can kill it here and not a moment later.
fn half_way() -> io::Result<()> {
    say(HALF_WAY, "");
    let mut told = String::new();
    io::stdin().read_line(&mut told)?;
    if told.trim_end() == GO_ON { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// It has nothing to unpack a toolchain with.
fn edit(directory: &Path) -> Result<(), Box<dyn Error>> {
    let unpacked = Once::open(marker_in(directory))?;
    match unpacked.wait_timeout(GLANCE) {
        Err(late) if late.is_timed_out() => {
            say(TOO_EARLY, &late.to_string());
            unpacked.wait_timeout(TIMEOUT)?;
        }
        outcome => outcome?,
    }
    say(FOUND, &Files::of(&toolchain_in(directory))?.to_string());
    Ok(())
}

/// `WORD DETAILS`: what the parent shows and judges by.
fn say(word: &str, details: &str) {
    println!("{word} {details}");
}

// ------------------------------------------------------------------------------------- the toolchain

fn toolchain_in(directory: &Path) -> PathBuf {
    directory.join("toolchain")
}

/// There when the toolchain is.
fn marker_in(directory: &Path) -> PathBuf {
    directory.join("toolchain.unpacked")
}

fn path_of(toolchain: &Path, number: usize) -> PathBuf {
    toolchain.join(format!("file-{number}"))
}

fn text_of(number: usize) -> String {
    format!("This is file {number} of the toolchain.\n").repeat(100)
}

/// What there is of a toolchain.
#[derive(PartialEq, Eq)]
struct Files {
    whole: usize,
    broken: usize,
}

impl Files {
    const NONE: Self = Self { whole: 0, broken: 0 };
    const HALF: Self = Self { whole: FILES / 2, broken: 1 };
    const ALL: Self = Self { whole: FILES, broken: 0 };

    /// Looks into every file.
    fn of(toolchain: &Path) -> io::Result<Self> {
        let there = match std::fs::read_dir(toolchain) {
            Ok(entries) => entries.count(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let is_whole = |number: &usize| {
            let text = std::fs::read_to_string(path_of(toolchain, *number));
            text.is_ok_and(|text| text == text_of(*number))
        };
        let whole = (0..FILES).filter(is_whole).count();
        Ok(Self { whole, broken: there.saturating_sub(whole) })
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} whole files and {} broken", self.whole, self.broken)
    }
}

// --------------------------------------------------------------------------------------- the parent

/// Starts them, kills the first that unpacks, shows what they do, and judges it.
fn story() -> Result<bool, Box<dyn Error>> {
    println!(
        "{BUILDS} builds need a toolchain of {FILES} files. The first that unpacks it is killed half-way.\n"
    );
    let directory = tempfile::Builder::new().prefix("flockwork-example-").tempdir()?;
    let unpacked = Once::open(marker_in(directory.path()))?;

    let (sender, lines) = mpsc::channel();
    let mut story = Story { start: Instant::now(), lines, said: Vec::new() };
    let mut processes = Vec::new();
    for number in 0..BUILDS {
        processes.push(Process::start(number, BUILD, directory.path(), sender.clone())?);
    }
    while story.who(NEEDS).len() < BUILDS || story.who(HALF_WAY).is_empty() {
        story.hear()?.ok_or("nobody unpacks it")?;
    }
    // From here on nothing happens until somebody is told to go on.
    processes.push(Process::start(BUILDS, EDITOR, directory.path(), sender)?);
    while story.who(TOO_EARLY).is_empty() && story.who(FOUND).is_empty() {
        story.hear()?.ok_or("the editor does not wait")?;
    }
    let [killed] = story.who(HALF_WAY)[..] else { return Err("two unpack it at once".into()) };
    let holder = unpacked.holders()?.pop().ok_or("it is not known who unpacks it")?;
    let was_named =
        holder.label() == Some(&*name(killed)) && holder.pid() == processes[killed].child.id();
    story.show("main", &format!("sees who is at it: {holder}"));
    story.show("main", &format!("kills {}", name(killed)));
    processes[killed].kill()?;

    let mut was_done_early = unpacked.is_done()?;
    while let Some((who, word)) = story.hear()? {
        if word == HALF_WAY {
            was_done_early |= unpacked.is_done()?;
            processes[who].tell(GO_ON)?;
        }
    }
    let mut all_well = unpacked.is_done()? && !was_done_early && was_named;
    for (who, process) in processes.iter_mut().enumerate() {
        all_well &= process.child.wait()?.success() == (who != killed);
    }

    drop(unpacked); // Windows removes no files that are open
    directory.close()?;
    Ok(story.judge(killed, all_well))
}

fn name(who: usize) -> String {
    if who < BUILDS { format!("build {}", who + 1) } else { EDITOR.into() }
}

/// Does not outlive the parent, also if that fails.
struct Process {
    child: Child,
    input: ChildStdin,
}

impl Process {
    fn start(
        who: usize,
        role: &str,
        directory: &Path,
        sender: Sender<(usize, String)>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([role, &name(who)])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take());
        std::thread::spawn(move || {
            for line in output.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
                let _ = line.map(|line| sender.send((who, line)));
            }
        });
        Ok(Self { child, input })
    }

    fn tell(&mut self, words: &str) -> io::Result<()> {
        writeln!(self.input, "{words}")
    }

    /// Without any chance to clean up.
    fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What they have said.
struct Story {
    start: Instant,
    lines: Receiver<(usize, String)>,
    said: Vec<Said>,
}

struct Said {
    who: usize,
    word: String,
    details: String,
}

impl Said {
    fn in_words(&self) -> String {
        let details = &self.details;
        match &*self.word {
            NEEDS => "needs the toolchain".into(),
            UNPACKS if *details == Files::NONE.to_string() => "unpacks it".into(),
            UNPACKS => format!("finds {details}, clears them away, and unpacks it"),
            HALF_WAY => "is half-way".into(),
            UNPACKED => format!("has unpacked it: {details}"),
            TOO_EARLY => format!("is too early: {details}"),
            FOUND => format!("finds it unpacked: {details}"),
            word => format!("{word} {details}"),
        }
    }
}

impl Story {
    fn show(&self, who: &str, what: &str) {
        println!("{:5.2} s  {who} {what}", self.start.elapsed().as_secs_f64());
    }

    /// Waits for the next line, and shows it: who has said which word. `None` when there will be none.
    fn hear(&mut self) -> Result<Option<(usize, String)>, Box<dyn Error>> {
        let (who, line) = match self.lines.recv_timeout(PATIENCE) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => return Err("a process is stuck".into()),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        };
        let (word, details) = line.split_once(' ').ok_or("half a line")?;
        let said = Said { who, word: word.into(), details: details.into() };
        self.show(&name(who), &said.in_words());
        self.said.push(said);
        Ok(Some((who, word.into())))
    }

    /// Who has said that word, in the order in which they did.
    fn who(&self, word: &str) -> Vec<usize> {
        self.said.iter().filter(|said| said.word == word).map(|said| said.who).collect()
    }

    /// Whether two began to unpack, one from nothing and one from what the first had left, and only the second got to
    /// the end; and whether whoever was not killed had all of the toolchain before it went on.
    fn judge(&self, killed: usize, all_well: bool) -> bool {
        let (began, completed) = (self.who(UNPACKS), self.who(UNPACKED));
        let began_with = self.said.iter().filter(|said| said.word == UNPACKS);
        let began_with: Vec<&str> = began_with.map(|said| &*said.details).collect();
        let found = self.who(FOUND).into_iter().filter(|who| *who < BUILDS).count();
        let had_all = self.said.iter().filter(|said| {
            [UNPACKED, FOUND].contains(&&*said.word) && said.details == Files::ALL.to_string()
        });
        let had_all = had_all.count();
        let is_well = all_well
            && completed.len() == 1
            && began == [killed, completed[0]]
            && began_with == [Files::NONE.to_string(), Files::HALF.to_string()]
            && found == BUILDS - 2
            && self.who(TOO_EARLY) == [BUILDS]
            && had_all == BUILDS; // all builds but one, and the editor
        println!();
        if is_well {
            println!("{} was killed half-way.", name(killed));
            println!("{} completed the unpacking, and nobody else did.", name(completed[0]));
            println!("{found} builds and the editor found it complete.");
            println!("All {FILES} files were there and whole for each of these {had_all}.");
        } else {
            println!(
                "FAILED: {} began to unpack it, {} completed it, {found} builds found it, {had_all} of {BUILDS} \
                 processes had all files, and the rest was well: {all_well}.",
                began.len(),
                completed.len()
            );
        }
        is_well
    }
}
