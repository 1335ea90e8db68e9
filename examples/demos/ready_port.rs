//! A client that is started before its server: the server binds a port that the system chooses, and says by an event
//! that it can be reached, with the port as the event's payload. The client waits for the event, and needs neither
//! a fixed port nor retries. Both are real processes: this program again.
//!
//! ```text
//! cargo run --example ready_port
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, SystemTime};

use flockwork::Event;

/// How long the client waits for the server.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For the client to be seen waiting.
const HEAD_START: Duration = Duration::from_millis(500);
/// Something is wrong with a process that says nothing for so long.
const PATIENCE: Duration = Duration::from_secs(2 * TIMEOUT.as_secs());

// What they say to each other.
const QUESTION: &str = "hello, server";
const ANSWER: &str = "hello, client";

const SERVER: &str = "server";
const CLIENT: &str = "client";

// What they report.
const WAITS: &str = "waits";
const LISTENS: &str = "listens";
const FINDS: &str = "finds";
const HEARS: &str = "hears";
const CLEARS: &str = "clears";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => story(),
        [SERVER, path] => serve(Path::new(path)).map(|()| true),
        [CLIENT, path] => call(Path::new(path)).map(|()| true),
        _ => {
            eprintln!("usage: ready_port");
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

// ---------------------------------------------------------------------------- the server and the client

fn serve(path: &Path) -> Result<(), Box<dyn Error>> {
    let ready = Event::open(path)?;
    // A server that was killed leaves its event set, and nobody listens on that port any more.
    ready.clear()?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    say(LISTENS, &port.to_string());
    // From here on whoever connects is let in, or waits in the listener's queue. Nobody ever reads half a number.
    ready.set_with(port.to_string().as_bytes())?;

    let (stream, _) = listener.accept()?;
    let heard = read_line(&stream)?;
    say(HEARS, &heard);
    writeln!(&stream, "{ANSWER}")?;

    ready.clear()?;
    say(CLEARS, "");
    Ok(())
}

fn call(path: &Path) -> Result<(), Box<dyn Error>> {
    let ready = Event::open(path)?;
    say(WAITS, "");
    ready.wait_timeout(TIMEOUT)?;

    let payload = ready.payload()?.ok_or("the server has gone again")?;
    let port: u16 = std::str::from_utf8(&payload)?.parse()?;
    say(FINDS, &port.to_string());

    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    writeln!(&stream, "{QUESTION}")?;
    let heard = read_line(&stream)?;
    say(HEARS, &heard);
    Ok(())
}

fn read_line(stream: &TcpStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_string())
}

/// `WORD TIME DETAILS`: what the parent shows and judges by. The time is that of the one clock that all processes of
/// the system can compare, even though somebody might set it meanwhile.
fn say(word: &str, details: &str) {
    println!("{word} {} {details}", clock().as_nanos());
}

fn clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

// --------------------------------------------------------------------------------------- the parent

/// Starts the client and then the server, shows what they do, and judges it.
fn story() -> Result<bool, Box<dyn Error>> {
    println!(
        "A client waits for a server that is not started yet, and learns its port from an event.\n"
    );
    let directory = tempfile::Builder::new().prefix("flockwork-example-").tempdir()?;
    let path = directory.path().join("server.ready");

    let (sender, lines) = mpsc::channel();
    let mut story = Story { start: clock(), lines, said: Vec::new() };
    let mut client = Role::start(CLIENT, &path, sender.clone())?;
    while story.find(CLIENT, WAITS).is_none() && story.goes_on()? {}
    std::thread::sleep(HEAD_START);

    let started_at = clock().saturating_sub(story.start);
    show(started_at, "main", "starts the server");
    let mut server = Role::start(SERVER, &path, sender)?;
    while story.goes_on()? {}
    let all_well = client.0.wait()?.success() && server.0.wait()?.success();

    let is_set = Event::open(&path)?.is_set()?;
    directory.close()?;
    Ok(story.judge(started_at, is_set) && all_well)
}

fn show(time: Duration, who: &str, what: &str) {
    println!("{:5.2} s  {who} {what}", time.as_secs_f64());
}

/// A process that does not outlive the parent, also if that fails.
struct Role(Child);

impl Role {
    fn start(
        role: &'static str,
        path: &Path,
        sender: Sender<(&'static str, String)>,
    ) -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take();
        std::thread::spawn(move || {
            for line in output.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
                let _ = line.map(|line| sender.send((role, line)));
            }
        });
        Ok(Self(process))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Both fail for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the two have said.
struct Story {
    start: Duration,
    lines: Receiver<(&'static str, String)>,
    said: Vec<Said>,
}

struct Said {
    who: &'static str,
    word: String,
    /// Since the start.
    time: Duration,
    details: String,
}

impl Said {
    fn in_words(&self) -> String {
        let details = &self.details;
        match &*self.word {
            WAITS => format!("waits for the server, for {} seconds at most", TIMEOUT.as_secs()),
            LISTENS => format!("listens on port {details}, and sets the event"),
            FINDS => format!("finds port {details} in the event, and connects"),
            CLEARS => "clears the event, and ends".into(),
            word => format!("{word} \"{details}\""),
        }
    }
}

impl Story {
    /// Waits for the next line, and shows it. False when there will be none.
    fn goes_on(&mut self) -> Result<bool, Box<dyn Error>> {
        let (who, line) = match self.lines.recv_timeout(PATIENCE) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => return Err("a process is stuck".into()),
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().ok_or("half a line").map(str::to_string);
        let (word, time, details) = (next()?, next()?, next()?);
        let time = Duration::from_nanos(time.parse()?).saturating_sub(self.start);
        let said = Said { who, word, time, details };
        show(time, who, &said.in_words());
        self.said.push(said);
        Ok(true)
    }

    fn find(&self, who: &str, word: &str) -> Option<&Said> {
        self.said.iter().find(|said| said.who == who && said.word == word)
    }

    /// Whether the client waited before there was a server, found the port on which that listened, and not before it
    /// did, whether each heard what the other said, and the event is clear in the end.
    fn judge(&self, started_at: Duration, is_set: bool) -> bool {
        let waited = self.find(CLIENT, WAITS).is_some_and(|said| said.time <= started_at);
        let found = match (self.find(SERVER, LISTENS), self.find(CLIENT, FINDS)) {
            (Some(told), Some(found)) => found.details == told.details && found.time >= told.time,
            _ => false,
        };
        let has_heard = |who, what| self.find(who, HEARS).is_some_and(|said| said.details == what);
        let talked = has_heard(SERVER, QUESTION) && has_heard(CLIENT, ANSWER);
        let is_well = waited && found && talked && !is_set;
        println!();
        if is_well {
            println!("The client found the server, and the event is clear again.");
        } else {
            println!(
                "FAILED: waited before the server was there: {waited}, found its port: {found}, talked to \
                 it: {talked}, the event is still set: {is_set}."
            );
        }
        is_well
    }
}
