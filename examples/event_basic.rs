//! An event, which one process sets and all waiters see. Here two threads stand for the processes.

use std::thread;

use flockwork::Event;

fn main() -> flockwork::Result<()> {
    let ready = Event::open("target/event_basic.ready")?;
    ready.clear()?; // an earlier run left it set

    let server = ready.clone();
    let server = thread::spawn(move || server.set_with(b"port 4242"));
    ready.wait()?; // blocks until the event is set
    let payload = ready.payload()?.unwrap_or_default();
    println!("the server is ready: {}", String::from_utf8_lossy(&payload));
    server.join().expect("the server does not panic")?;
    Ok(())
}
