//! A semaphore with two permits, counted over all processes that open its path.

use flockwork::Semaphore;

fn main() -> flockwork::Result<()> {
    // The capacity is stored on disk. Opening with a different one is an error.
    let semaphore = Semaphore::open("target/semaphore_basic", 2)?;
    let permit = semaphore.acquire()?; // waits while other processes hold both
    println!("acquired slot {}", permit.slots()[0]);
    println!("{} of {} permits left", semaphore.available_permits()?, semaphore.capacity()?);

    permit.release()?; // dropping the permit also releases it, but returns no error
    println!("{} of {} permits left", semaphore.available_permits()?, semaphore.capacity()?);
    Ok(())
}
