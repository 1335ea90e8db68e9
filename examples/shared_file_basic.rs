//! A data file that many processes change. No change is lost, and no reader sees half of one.

use std::error::Error;

use flockwork::SharedFile;

fn main() -> Result<(), Box<dyn Error>> {
    let counter = SharedFile::open("target/shared_file_basic.txt")?;
    // Other processes wait until the file has been read, changed and replaced.
    counter.update(|contents| {
        let runs = String::from_utf8(contents)?.parse().unwrap_or(0_u64);
        Ok::<_, std::string::FromUtf8Error>((runs + 1).to_string().into_bytes())
    })?;
    println!("this is run {}", String::from_utf8(counter.read()?)?);
    Ok(())
}
