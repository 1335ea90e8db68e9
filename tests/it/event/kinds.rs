//! An event that any kind of file sets: it can be read and waited for, and is never changed.

use std::path::Path;
use std::time::Duration;

use flockwork::{Error, ErrorKind, Event, Once, Options};

use crate::event::dirs;
use crate::peer::Way::Block;
use crate::peer::event::{Call, peer};
use crate::peer::{LATE_BACKSTOP, Setting};
use crate::support::until_watching;

fn open(path: &Path) -> Event {
    Options::new().any_file_type(true).open_event(path).unwrap()
}

#[test]
fn a_directory_or_a_file_sets_the_event() {
    limit!();
    let (_dir, path) = dirs();
    let event = open(&path);
    assert!(!event.is_set().unwrap());
    std::fs::create_dir(&path).unwrap();
    assert!(event.is_set().unwrap());
    event.wait().unwrap();
    assert!(event.wait_cleared_timeout(Duration::from_millis(10)).unwrap_err().is_timed_out());
    assert!(open(&path.join("")).is_set().unwrap(), "a path with a slash at its end");
    let error = event.payload().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
    std::fs::remove_dir(&path).unwrap();
    event.wait_cleared().unwrap();
    std::fs::write(&path, "8080").unwrap();
    assert_eq!(event.payload().unwrap().unwrap(), b"8080");
    assert_eq!(Event::wait_any([&open(&path.with_file_name("other")), &event]).unwrap(), 1);
    Event::wait_all([&event]).unwrap();
}

#[test]
fn setting_clearing_and_consuming_the_event_are_errors() {
    limit!();
    let (_dir, path) = dirs();
    let event = open(&path);
    std::fs::create_dir(&path).unwrap();
    let changes: [(&str, Result<bool, Error>); 7] = [
        ("set", event.set()),
        ("set", event.set_with(b"x")),
        ("set", event.set_new("x")),
        ("set", event.set_new("")),
        ("clear", event.clear()),
        ("consume", event.try_consume().map(|_| true)),
        ("consume", event.consume().map(|_| true)),
    ];
    for (operation, changed) in changes {
        let error = changed.unwrap_err();
        assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(&format!("could not {operation} `")), "{error}");
        assert!(error.to_string().contains("any type"), "{error}");
    }
    std::fs::remove_dir(&path).unwrap();
    assert!(event.set().is_err() && !path.exists());
    // A `Once` is done when there is a regular file, whatever the options.
    let once: Once = Options::new().any_file_type(true).open_once(path.join("deep/done")).unwrap();
    assert!(once.call_once(|| Ok::<_, std::io::Error>(())).unwrap());
}

#[test]
fn waiting_for_the_event_creates_no_directory() {
    limit!();
    let (dir, path) = dirs();
    let event = open(&path.join("deep/ready"));
    assert!(event.wait_timeout(Duration::from_millis(10)).unwrap_err().is_timed_out());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_waiter_is_woken_by_a_directory() {
    limit!();
    let (dir, path) = dirs();
    let mut waiter = peer(&path, &[&[Setting::AnyFileType][..], LATE_BACKSTOP].concat());
    waiter.begin(Call::Wait(Block));
    until_watching(waiter.id(), dir.path());
    std::fs::create_dir(&path).unwrap();
    waiter.finish();
    waiter.begin(Call::WaitCleared(Block));
    until_watching(waiter.id(), dir.path());
    std::fs::remove_dir(&path).unwrap();
    waiter.finish();
}

// Unix only: sockets, FIFOs and symbolic links.
#[cfg(unix)]
#[test]
fn a_socket_sets_the_event() {
    limit!();
    let (_dir, path) = dirs();
    let event = open(&path);
    let _listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
    event.wait().unwrap();
    assert!(Event::open(&path).is_err(), "an ordinary event rejects it");
}

/// The keys of a `ConfigMap` are mounted like this: `ready` leads through `..data`, which is
/// renamed into place.
// Unix only: symbolic links.
#[cfg(unix)]
#[test]
fn a_symbolic_link_sets_the_event_while_it_leads_to_a_file() {
    limit!();
    use std::os::unix::fs::symlink;
    let (dir, path) = dirs();
    let at = |name: &str| dir.path().join(name);
    let mut waiter = peer(&path, &[Setting::AnyFileType]);
    waiter.begin(Call::Wait(Block));
    until_watching(waiter.id(), dir.path());
    symlink("..data/ready", &path).unwrap();
    assert!(!open(&path).is_set().unwrap(), "the link leads nowhere");
    std::fs::create_dir(at("..1")).unwrap();
    std::fs::write(at("..1/ready"), "").unwrap();
    assert!(waiter.is_silent());
    symlink("..1", at("..data_tmp")).unwrap();
    std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    waiter.finish();
    // The file behind the link changes, for which no file system event arrives.
    waiter.begin(Call::WaitCleared(Block));
    std::fs::remove_file(at("..1/ready")).unwrap();
    waiter.finish();
    waiter.begin(Call::Wait(Block));
    std::fs::write(at("..1/ready"), "").unwrap();
    waiter.finish();
    // A link to itself is an error instead of a reason to wait.
    symlink("loop", at("loop")).unwrap();
    let options = Options::new().any_file_type(true);
    let error = options.open_event(at("loop")).unwrap_err();
    assert!(error.to_string().starts_with("could not look up `"), "{error}");
}
