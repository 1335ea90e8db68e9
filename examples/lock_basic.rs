//! A lock, which one process (and one of its threads) holds at a time.

use flockwork::Lock;

fn main() -> flockwork::Result<()> {
    // Missing files and parent directories are created.
    let lock = Lock::open("target/lock_basic.lock")?;
    let guard = lock.lock()?; // waits while another process or thread holds the lock
    println!("locked {}", guard.path().display());

    match lock.try_lock() {
        Ok(_) => println!("the same lock was acquired twice"),
        Err(error) => println!("try_lock: {error}"), // the lock is held
    }
    guard.unlock()?; // dropping the guard also releases the lock, but returns no error
    println!("released");
    Ok(())
}
