//! Random command lines of valid words: each ends with a documented exit code and an error, or
//! waits.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::{ProptestConfig, prop_assert};

use crate::support::running::Start as _;

/// How long a process may wait before it is killed.
const MAX_WAIT: Duration = Duration::from_millis(500);

const CODES: &[i32] = &[0, 1, 2, 64, 65, 66, 69, 71, 73, 75];

proptest::proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn any_command_line_ends_with_a_documented_code(
        verb in "lock|sem|event (set|clear|wait|status)|once|status|nonsense",
        options in proptest::collection::vec(
            "-[snxvqo]|-w 0[.]0[1-9]|-w [0-9a-z.-]{1,3}|-E [0-9]{1,3}|-[jk] [0-9%+-]{1,3}|--(json|any|all|new|exists|consume|cleared|reset|fsync|wait|resize|no-record|bogus)|--label \\PC{1,4}|--data \\PC{1,4}|-c true",
            0..4,
        ),
        words in proptest::collection::vec("[abc]|--|true|false|-n|[a-c]/[a-c]|\\PC{1,3}", 0..4),
    ) {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let mut arguments: Vec<&str> = verb.split(' ').collect();
        arguments.extend(options.iter().flat_map(|option| option.splitn(2, ' ')));
        arguments.extend(words.iter().map(String::as_str));
        let mut command = Command::new(env!("CARGO_BIN_EXE_flockwork"));
        command.current_dir(dir.path()).env("FLOCKWORK_ID_DIR", dir.path().join("id")).args(&arguments);
        // Only these programs can be run.
        let programs = dir.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        for program in ["true", "false"] {
            std::os::unix::fs::symlink(format!("/bin/{program}"), programs.join(program)).unwrap();
        }
        command.env("PATH", programs).env_remove("SHELL").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).start();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > MAX_WAIT {
                child.kill().unwrap();
                child.wait().unwrap();
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let mut stderr = Vec::new();
        child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        let stderr = String::from_utf8_lossy(&stderr);
        // -E chooses the exit code.
        let code = status.code().unwrap_or(-1);
        let is_chosen = options.iter().any(|option| option.starts_with("-E ")) && (0..=255).contains(&code);
        prop_assert!(CODES.contains(&code) || is_chosen, "{:?}: {} {}", arguments, status, stderr);
        prop_assert!(!stderr.contains("panicked"), "{:?}: {}", arguments, stderr);
        prop_assert!(stderr.lines().all(|line| !line.chars().any(char::is_control)), "{:?}: {}", arguments, stderr);
        if code >= 64 && !options.iter().any(|option| option == "-q") && !is_chosen {
            prop_assert!(stderr.starts_with("flockwork: "), "{:?}: {} {}", arguments, status, stderr);
        }
    }
}
