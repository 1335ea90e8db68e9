//! A data file that many processes change. No change is lost, and no reader sees half of one.

use std::error::Error;

use flockwork::SharedFile;

fn main() -> Result<(), Box<dyn Error>> {
    let counter = SharedFile::open("target/shared_file_basic.txt")?;
    // Other processes wait until the file has been read, changed and replaced.
    let run = counter.update(|text| -> Result<u64, Box<dyn Error>> {
        let run = std::str::from_utf8(text)?.parse().unwrap_or(0) + 1;
        *text = run.to_string().into_bytes();
        Ok(run)
    })?;
    println!("this is run {run}");
    Ok(())
}
