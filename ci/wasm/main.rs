//! Where there are no locks each primitive, and each look, says so with a sentence, and makes nothing: `ci/wasm.sh`.

use std::time::Duration;

use flockwork::{Error, Event, Lock, Once, RwLock, Semaphore, SharedFile};

fn main() {
    let directory = std::path::Path::new("/work");
    std::fs::write(directory.join("it"), "what is there").unwrap();
    let path = directory.join("it");
    let answers = [
        ("Lock", Lock::open(&path).and_then(|lock| lock.try_lock().map(drop))),
        ("RwLock", RwLock::open(&path).and_then(|lock| lock.try_read().map(drop))),
        ("Semaphore", Semaphore::open(directory.join("pool"), 2).map(drop)),
        ("Semaphore that is there", Semaphore::open_existing(directory).map(drop)),
        ("Event::set", Event::open(&path).and_then(|event| event.set()).map(drop)),
        (
            "Event::wait_timeout",
            Event::open(&path).and_then(|event| event.wait_timeout(Duration::ZERO)),
        ),
        ("Once", Once::open(&path).and_then(|once| once.is_done()).map(drop)),
        ("SharedFile", SharedFile::open(&path).and_then(|file| file.read()).map(drop)),
        ("holders", flockwork::holders(&path).map(drop)),
        ("is_held", flockwork::is_held(&path).map(drop)),
        ("held_slots", flockwork::held_slots(directory).map(drop)),
    ];
    for (what, answer) in answers {
        let error = answer.expect_err(what);
        assert!(matches!(error, Error::Unsupported { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains("knows no file locks on this platform"), "{error}");
        println!("{what}: {error}");
    }
    let names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["it"], "nothing was made");
}
