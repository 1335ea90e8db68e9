//! Work that one process does once. Other processes wait until it is done, and later runs skip it.

use std::error::Error;
use std::fs;

use flockwork::Once;

fn main() -> Result<(), Box<dyn Error>> {
    let prepared = Once::open("target/once_basic.done")?;
    // A process that dies here leaves the work to the next one.
    let did_it = prepared.call_once(|| fs::write("target/once_basic.txt", "a prepared file"))?;
    println!("{}", if did_it { "prepared by this run" } else { "prepared by an earlier run" });
    println!("found {}", fs::read_to_string("target/once_basic.txt")?);
    Ok(())
}
