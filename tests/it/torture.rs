//! Runs the torture test (`tests/torture/`) for a short time, and checks that it detects deliberate
//! breakage.

use crate::examples::{run, text};

/// The torture test leaves the user's inotify instances to the tests that run at the same time, and
/// ends when the tests are killed.
const OF_A_TEST: [&str; 2] = ["--spare-inotify", "--tied"];

#[test]
fn a_short_torture_run_finds_no_violation() {
    limit!(4 * crate::limit::LIMIT); // each waiter in turn waits for a processor
    let mut output = run("torture", &with(&["--acquisitions", "10000", "--kills", "150"]));
    // On a busy machine it may take a while until a file that was tampered with is restored.
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_failure = |line: &&str| !line.contains(" cannot be opened yet: ");
    output.stderr = errors.split_inclusive('\n').filter(is_failure).collect::<String>().into();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("seed "), "{text}");
    assert!(figure(&text, " acquisitions, ") >= 10_000, "{text}");
    assert!(figure(&text, " kills: ") >= 150, "{text}");
    for count in [" violations, ", " lost permits, ", " lost wake-ups."] {
        assert_eq!(figure(&text, count), 0, "{count}: {text}");
    }
    let mut killed_waiting = 0;
    for primitive in ["Lock", "RwLock", "Semaphore", "Event", "Once", "SharedFile", "Barrier"] {
        let row = text.lines().find(|line| line.split_whitespace().next() == Some(primitive));
        let row = row.unwrap_or_else(|| panic!("no {primitive}: {text}"));
        let figures: Vec<u64> =
            row.split_whitespace().skip(1).map(|figure| figure.parse().unwrap()).collect();
        let [acquired, contended, _would_block, _timed_out, dropped, _errors, was_killed, _] =
            figures[..]
        else {
            panic!("{row}")
        };
        assert!(acquired > 0 && contended > 0 && dropped > 0, "{row}");
        killed_waiting += was_killed;
    }
    // A short run does not kill a waiter of every primitive.
    assert!(killed_waiting > 0, "{text}");

    let failed = run("torture", &["--seed"]);
    assert_eq!(failed.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&failed.stderr).starts_with("usage: torture "));
}

#[test]
fn the_torture_reports_what_is_broken_on_purpose() {
    limit!(4 * crate::limit::LIMIT); // each run starts many processes
    // A run ends when it detects the breakage. It counts permits after each tenth of the
    // acquisitions.
    let long = with(&["--acquisitions", "200000", "--kills", "2000"]);
    let short = with(&["--acquisitions", "2000", "--kills", "20"]);
    let (violation, permit, wake_up) = (" violations, ", " lost permits, ", " lost wake-ups.");
    let breakages = [
        ("lock", violation),
        ("rwlock", violation),
        ("semaphore", violation),
        ("once", violation),
        ("barrier", violation),
        ("lost-update", violation),
        ("tear", violation),
        ("event", violation),
        ("capacity", violation),
        ("permit", permit),
        ("wake", wake_up),
        ("crash", "worker 0.0 ended unexpectedly"),
    ];
    crate::support::running::share(4, &breakages, |(broken, expected)| {
        let patience = if *expected == wake_up { "10" } else { "60" };
        let course = if *expected == permit { &short } else { &long };
        let output =
            run("torture", &[&course[..], &["--break", broken, "--patience", patience]].concat());
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(1), "{broken}: {text}");
        assert!(text.contains("Not clean. To repeat: "), "{broken}: {text}");
        if *broken == "crash" {
            assert!(text.contains(expected), "{text}");
        } else {
            assert!(figure(&text, expected) > 0, "{broken}: {text}");
        }
    });
}

fn with<'a>(course: &[&'a str]) -> Vec<&'a str> {
    [&OF_A_TEST, course].concat()
}

/// Returns the number before these words in the last line that contains them.
fn figure(text: &str, words: &str) -> u64 {
    let before = text.rsplit_once(words).unwrap_or_else(|| panic!("no {words}: {text}")).0;
    let number = before.rsplit([' ', '\n']).next().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {words}: {text}"))
}
