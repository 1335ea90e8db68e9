//! Builds the command `flockwork`, since Cargo does not build it for benches of another package.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Builds the command with the profile of this bench, and returns its path.
pub(crate) fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--manifest-path", workspace])
        .args(["--package", "flockwork", "--bin", "flockwork", "--features", "cli"])
        .args(["--profile", &profile(), "--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .expect("start cargo");
    assert!(output.status.success(), "cargo builds the command: {}", output.status);
    let messages = String::from_utf8(output.stdout).expect("messages in Unicode");
    let mut executables = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executables.next_back().expect("a message that names the command")
}

/// The profile of this bench, from its directory: the profile `dev` uses `debug/`, and the profiles
/// `bench` and `release` share `release/`.
fn profile() -> String {
    let bench = std::env::current_exe().expect("this program's path");
    let directory = bench.parent().and_then(Path::parent).and_then(Path::file_name);
    match directory.and_then(|name| name.to_str()).expect("a profile's directory") {
        "debug" => "dev".to_owned(),
        name => name.to_owned(),
    }
}
