//! Setting an event only if it is clear: one of several concurrent callers succeeds, and nothing is
//! lost.

use std::collections::BTreeSet;
use std::time::Duration;

use flockwork::{ErrorKind, Event};

use crate::event::dirs;
use crate::peer::event::{Call, peer};
use crate::peer::{LATE_BACKSTOP, Peer};

#[test]
fn an_event_that_is_set_keeps_its_payload() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    assert!(event.set_new("one").unwrap());
    for payload in ["two", ""] {
        assert!(!event.set_new(payload).unwrap());
        assert_eq!(event.payload().unwrap().unwrap(), b"one");
    }
    assert!(event.clear().unwrap());
    assert!(event.set_new([]).unwrap());
    assert!(!event.set_new(vec![1, 2]).unwrap());
    assert_eq!(event.consume().unwrap(), b"");
    assert!(event.set_new(b"three").unwrap());
    assert_eq!(event.consume().unwrap(), b"three");
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "only the consumers' lock file is left");
    // Missing directories are created, and other kinds of files are left unchanged.
    let deep = Event::open(dir.path().join("a/b/ready")).unwrap();
    std::fs::remove_dir_all(dir.path().join("a")).or_else(is_missing).unwrap();
    assert!(deep.set_new("four").unwrap());
    std::fs::create_dir(&path).unwrap();
    for payload in ["", "five"] {
        let error = event.set_new(payload).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
    }
}

fn is_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[test]
fn exactly_one_of_many_callers_sets_the_event() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    for round in 0..20 {
        let barrier = std::sync::Barrier::new(8);
        let set = crate::support::running::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|caller| {
                    let (event, barrier) = (&event, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        event.set_new(format!("{round}.{caller}")).unwrap().then_some(caller)
                    })
                })
                .collect();
            callers.into_iter().filter_map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(set.len(), 1, "{set:?}");
        let payload = String::from_utf8(event.consume().unwrap()).unwrap();
        assert_eq!(payload, format!("{round}.{}", set[0]));
    }
}

#[test]
fn four_producers_that_share_an_event_lose_nothing() {
    limit!();
    const EACH: u32 = if cfg!(windows) { 5 } else { 50 };
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mut producers: Vec<Peer> = (0..4).map(|_| peer(&path, LATE_BACKSTOP)).collect();
    for (producer, name) in producers.iter_mut().zip("abcd".chars()) {
        producer.begin(Call::Produce(name.to_string(), EACH));
    }
    let mut consumed = BTreeSet::new();
    for _ in 0..4 * EACH {
        let payload = event.consume_timeout(Duration::from_secs(100)).unwrap();
        let payload = String::from_utf8(payload).unwrap();
        assert!(consumed.insert(payload.clone()), "{payload} was consumed twice");
    }
    for producer in &mut producers {
        producer.finish();
    }
    let jobs = "abcd".chars().flat_map(|name| (0..EACH).map(move |at| format!("{name}{at}")));
    assert_eq!(consumed, jobs.collect());
    assert!(!event.is_set().unwrap());
}
