//! A wait that Ctrl-C ends, after which the program goes on.

use flockwork::{Cancel, Lock, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cancel = Cancel::new();
    let handler = cancel.clone();
    ctrlc::set_handler(move || handler.cancel())?;

    let _guard = Lock::open("target/cancel_basic.lock")?.lock()?;
    let lock = Options::new().cancel(&cancel).open_lock("target/cancel_basic.lock")?;
    println!("waiting: press Ctrl-C to give up");
    match lock.lock_timeout(std::time::Duration::from_secs(3)) {
        Ok(_) => println!("the same lock was acquired twice"),
        Err(error) if error.is_cancelled() => println!("gave up: {error}"),
        Err(error) => println!("{error}"),
    }
    Ok(())
}
