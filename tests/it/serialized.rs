//! The feature `serde`: holders, statuses and permissions as data.

use flockwork::{Access, Holder, Options, StatusKind, inspect};
use serde_json::{Value, json};

#[track_caller]
fn assert_round_trip<T>(value: &T) -> Value
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *value, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_status_and_its_holders_are_the_same_after_a_round_trip() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let lock = Options::new().label("build \"x\"").open_lock(at("lock")).unwrap();
    let _held = lock.lock().unwrap();
    let status = assert_round_trip(&inspect(lock.path()).unwrap());
    assert_eq!(status["path"], json!(lock.path()));
    assert_eq!((&status["kind"], &status["held"]), (&json!("file"), &json!(true)));
    assert_eq!((&status["set"], &status["payload_len"]), (&json!(true), &json!(0)));
    assert_eq!(status["holders"][0]["pid"], json!(std::process::id()));
    assert_eq!(status["holders"][0]["label"], json!("build \"x\""));
    assert_eq!(status["holders"][0]["shared"], json!(false));

    let holder = &lock.holders().unwrap()[0];
    let value = assert_round_trip(holder);
    let back: Holder = serde_json::from_value(value).unwrap();
    assert!(back.is_this_process() && back.same_pid_namespace() && back.since().is_some());
    assert_eq!(back.to_string().split(", for").next(), holder.to_string().split(", for").next());

    let pool = Options::new().record_holder(true).open_semaphore(at("pool"), 3).unwrap();
    let permit = pool.acquire_many(2).unwrap();
    let status = assert_round_trip(&inspect(pool.path()).unwrap());
    assert_eq!((&status["kind"], &status["capacity"]), (&json!("semaphore"), &json!(3)));
    assert_eq!(status["held_slots"], json!(permit.slots()));
    assert_eq!(status["holders"][1]["slot"], json!(permit.slots()[1]));

    let missing = assert_round_trip(&inspect(at("missing")).unwrap());
    assert_eq!((&missing["kind"], &missing["held"]), (&json!("missing"), &json!(false)));
    assert_eq!(assert_round_trip(&StatusKind::Semaphore), json!("semaphore"));
}

#[test]
fn permissions_can_be_read_from_a_configuration() {
    limit!();
    for (access, name) in [
        (Access::Umask, "umask"),
        (Access::Private, "private"),
        (Access::Group, "group"),
        (Access::Everyone, "everyone"),
    ] {
        assert_eq!(assert_round_trip(&access), json!(name));
    }
    assert!(serde_json::from_value::<Access>(json!("0644")).is_err());
}

/// Any program may have written the text that a holder is read from.
#[test]
fn control_characters_of_a_received_holder_are_escaped() {
    limit!();
    let received = json!({
        "pid": 7, "host": "\u{1b}[2J", "command": "a\nb", "label": "\u{202e}c", "boot": "\r",
    });
    let holder: Holder = serde_json::from_value(received).unwrap();
    assert_eq!((holder.pid(), holder.slot(), holder.since()), (7, None, None));
    assert!(!holder.is_this_process() && !holder.same_pid_namespace());
    assert!(!holder.to_string().contains(char::is_control));
    assert_round_trip(&holder);
    assert!(serde_json::from_value::<Holder>(json!({ "host": "x" })).is_err());
}

// Unix only: other systems have no names that are not Unicode.
#[cfg(unix)]
#[test]
fn a_status_of_a_path_that_is_not_text_is_serialized() {
    limit!();
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    use flockwork::{Lock, Semaphore, Status};

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(Path::new(std::ffi::OsStr::from_bytes(b"a\xff")));
    drop(Lock::open(&path).unwrap());
    drop(Semaphore::open(dir.path().join("pool"), 1).unwrap());
    let status = serde_json::to_value(inspect(&path).unwrap()).unwrap();
    assert!(status["path"].as_str().unwrap().ends_with("a\u{fffd}"), "{status}");
    let back: Status = serde_json::from_value(status).unwrap();
    assert_eq!(back.kind(), StatusKind::File);
}
