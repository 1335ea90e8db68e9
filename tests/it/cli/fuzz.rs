//! Command lines of words that mean something, put together without sense: each ends with a code that is documented, and with a
//! line that says why, or waits.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::{ProptestConfig, prop_assert};

use crate::support::running::Start as _;

/// So long one may wait for what nobody will do; then it is ended.
const PATIENCE: Duration = Duration::from_millis(500);

const CODES: &[i32] = &[0, 1, 64, 65, 66, 69, 71, 73, 75];

proptest::proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn any_command_line_ends_as_the_manual_says(
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
        command.current_dir(dir.path()).env("XDG_RUNTIME_DIR", dir.path()).args(&arguments);
        // Nothing but these is run, whatever comes about.
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
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let mut said = Vec::new();
        child.stderr.take().unwrap().read_to_end(&mut said).unwrap();
        let said = String::from_utf8_lossy(&said);
        // With -E it is whatever was asked for.
        let code = status.code().unwrap_or(-1);
        let is_chosen = options.iter().any(|option| option.starts_with("-E ")) && (0..=255).contains(&code);
        prop_assert!(CODES.contains(&code) || is_chosen, "{:?}: {} {}", arguments, status, said);
        prop_assert!(!said.contains("panicked"), "{:?}: {}", arguments, said);
        prop_assert!(said.lines().all(|line| !line.chars().any(char::is_control)), "{:?}: {}", arguments, said);
        if code >= 64 && !options.iter().any(|option| option == "-q") && !is_chosen {
            prop_assert!(said.starts_with("flockwork: "), "{:?}: {} {}", arguments, status, said);
        }
    }
}
