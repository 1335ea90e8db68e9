//! Two participants that wait for each other before each step. They could be two processes.

use std::error::Error;

use flockwork::Barrier;

fn work(name: &str) -> flockwork::Result<()> {
    let step = Barrier::open("target/barrier_basic", 2)?;
    for _ in 0..2 {
        let passed = step.wait()?; // an error if the other one has died
        println!("{name} passed {}, leader: {}", passed.generation(), passed.is_leader());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let other = std::thread::spawn(|| work("b"));
    work("a")?;
    Ok(other.join().map_err(|_| "a panic")??)
}
