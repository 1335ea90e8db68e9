//! A client is started before its server, and learns the server's port from an event.
//!
//! The server binds a port that the system chooses, and sets the event with the port as its
//! payload for as long as it lives. The client waits for the event, so it needs neither a fixed
//! port nor retries. A first server is killed before the client starts: the client does not find
//! its port. The program starts itself again as the servers and as the client.
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
/// How long the client waits before the server is started.
const HEAD_START: Duration = Duration::from_millis(500);
/// A process that reports nothing for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(2 * TIMEOUT.as_secs());

// What the client and the server send to each other.
const QUESTION: &str = "hello, server";
const ANSWER: &str = "hello, client";

// The arguments of the processes, and their names in the output.
const SERVER: &str = "server";
const CLIENT: &str = "client";
const FIRST: &str = "server 1";
const SECOND: &str = "server 2";

// The words of their reports.
const WAITS: &str = "waits";
const LISTENS: &str = "listens";
const FINDS: &str = "finds";
const RECEIVES: &str = "receives";
const CLEARS: &str = "clears";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => demo(),
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

// ----------------------------------------------------------------------- the server and the client

fn serve(path: &Path) -> Result<(), Box<dyn Error>> {
    let ready = Event::open(path)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    // From here on a client can connect. It always reads the whole number, and the event is clear
    // as soon as this process ends, even if it is killed.
    let announcement = ready.set_while_alive(port.to_string())?;
    report(LISTENS, &port.to_string());

    let (stream, _) = listener.accept()?;
    let received = read_line(&stream)?;
    report(RECEIVES, &received);
    writeln!(&stream, "{ANSWER}")?;

    announcement.withdraw()?;
    report(CLEARS, "");
    Ok(())
}

fn call(path: &Path) -> Result<(), Box<dyn Error>> {
    let ready = Event::open(path)?;
    report(WAITS, "");
    let payload = ready.wait_payload_timeout(TIMEOUT)?;
    let port: u16 = std::str::from_utf8(&payload)?.parse()?;
    report(FINDS, &port.to_string());

    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    writeln!(&stream, "{QUESTION}")?;
    let received = read_line(&stream)?;
    report(RECEIVES, &received);
    Ok(())
}

fn read_line(stream: &TcpStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_string())
}

/// Prints `WORD TIME DETAILS`, which the parent shows and checks.
///
/// The time comes from the system's clock, which all processes share.
fn report(word: &str, details: &str) {
    println!("{word} {} {details}", clock().as_nanos());
}

fn clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

// -------------------------------------------------------------------------------------- the parent

/// Kills a first server, starts the client and then the second server, shows their reports and
/// checks them.
fn demo() -> Result<bool, Box<dyn Error>> {
    println!("A client waits for a server that has not been started, and learns its port.\n");
    let directory = tempfile::Builder::new().prefix("flockwork-example-").tempdir()?;
    let path = directory.path().join("server.ready");

    let (sender, lines) = mpsc::channel();
    let mut transcript = Transcript { start: clock(), lines, reports: Vec::new() };
    let mut killed = Role::start(SERVER, FIRST, &path, sender.clone())?;
    while transcript.find(FIRST, LISTENS).is_none() && transcript.receive_next()? {}
    show(clock().saturating_sub(transcript.start), "main", "kills server 1");
    killed.0.kill()?;
    killed.0.wait()?;

    let mut client = Role::start(CLIENT, CLIENT, &path, sender.clone())?;
    while transcript.find(CLIENT, WAITS).is_none() && transcript.receive_next()? {}
    std::thread::sleep(HEAD_START);

    let started_at = clock().saturating_sub(transcript.start);
    show(started_at, "main", "starts server 2");
    let mut server = Role::start(SERVER, SECOND, &path, sender)?;
    while transcript.receive_next()? {}
    let succeeded = client.0.wait()?.success() && server.0.wait()?.success();

    let is_set = Event::open(&path)?.is_set()?;
    directory.close()?;
    Ok(transcript.check(started_at, is_set) && succeeded)
}

fn show(time: Duration, process: &str, text: &str) {
    println!("{:5.2} s  {process} {text}", time.as_secs_f64());
}

/// A process that is killed when this is dropped, so that it does not outlive the parent.
struct Role(Child);

impl Role {
    fn start(
        role: &str,
        name: &'static str,
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
                let _ = line.map(|line| sender.send((name, line)));
            }
        });
        Ok(Self(process))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Both calls fail if the process has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The reports of all processes so far.
struct Transcript {
    start: Duration,
    lines: Receiver<(&'static str, String)>,
    reports: Vec<Report>,
}

struct Report {
    role: &'static str,
    word: String,
    /// The time since the start.
    time: Duration,
    details: String,
}

impl Report {
    fn text(&self) -> String {
        let details = &self.details;
        match &*self.word {
            WAITS => format!("waits for the server, for at most {} seconds", TIMEOUT.as_secs()),
            LISTENS => format!("listens on port {details} and sets the event"),
            FINDS => format!("finds port {details} in the event and connects"),
            CLEARS => "clears the event and exits".into(),
            word => format!("{word} \"{details}\""),
        }
    }
}

impl Transcript {
    /// Waits for the next report and shows it. Returns false when all processes have exited.
    fn receive_next(&mut self) -> Result<bool, Box<dyn Error>> {
        let (role, line) = match self.lines.recv_timeout(STUCK_AFTER) {
            Ok(received) => received,
            Err(RecvTimeoutError::Timeout) => return Err("a process is stuck".into()),
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().ok_or("an incomplete report").map(str::to_string);
        let (word, time, details) = (next()?, next()?, next()?);
        let time = Duration::from_nanos(time.parse()?).saturating_sub(self.start);
        let report = Report { role, word, time, details };
        show(time, role, &report.text());
        self.reports.push(report);
        Ok(true)
    }

    fn find(&self, role: &str, word: &str) -> Option<&Report> {
        self.reports.iter().find(|report| report.role == role && report.word == word)
    }

    /// Checks that the client waited before the second server was started and found that server's
    /// port, that each received the other's message, and that the event is clear.
    fn check(&self, started_at: Duration, is_set: bool) -> bool {
        let waited = self.find(CLIENT, WAITS).is_some_and(|report| report.time <= started_at);
        let found = match (self.find(SECOND, LISTENS), self.find(CLIENT, FINDS)) {
            (Some(set), Some(found)) => found.details == set.details,
            _ => false,
        };
        let has_received = |role, message| {
            self.find(role, RECEIVES).is_some_and(|report| report.details == message)
        };
        let talked = has_received(SECOND, QUESTION) && has_received(CLIENT, ANSWER);
        let is_right = waited && found && talked && !is_set;
        println!();
        if is_right {
            println!("The client found the living server, and the event is clear again.");
        } else {
            println!(
                "FAILED: the client waited before the server was started: {waited}, found its port: \
                 {found}, talked to it: {talked}; the event is still set: {is_set}."
            );
        }
        is_right
    }
}
