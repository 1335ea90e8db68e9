//! Checks that on a platform without locks each operation returns an error of kind `Unsupported`
//! and creates nothing. Run by `ci/wasm.sh`.

use std::time::Duration;

use flockwork::{ErrorKind, Event, Lock, Once, RwLock, Semaphore, SharedFile};

fn main() {
    let directory = std::path::Path::new("/work");
    std::fs::write(directory.join("it"), "contents").unwrap();
    let path = directory.join("it");
    let results = [
        ("Lock", Lock::open(&path).and_then(|lock| lock.try_lock().map(drop))),
        ("RwLock", RwLock::open(&path).and_then(|lock| lock.try_read().map(drop))),
        ("Semaphore", Semaphore::open(directory.join("pool"), 2).map(drop)),
        ("Semaphore::open_existing", Semaphore::open_existing(directory).map(drop)),
        ("Event::set", Event::open(&path).and_then(|event| event.set()).map(drop)),
        (
            "Event::wait_timeout",
            Event::open(&path).and_then(|event| event.wait_timeout(Duration::ZERO)),
        ),
        ("Once", Once::open(&path).and_then(|once| once.is_done()).map(drop)),
        ("SharedFile", SharedFile::open(&path).and_then(|file| file.read()).map(drop)),
        ("inspect, of a file", flockwork::inspect(&path).map(drop)),
        ("inspect, of a directory", flockwork::inspect(directory).map(drop)),
    ];
    for (operation, result) in results {
        let error = result.expect_err(operation);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{operation}: {error:?}");
        println!("{operation}: {error}");
    }
    let names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["it"], "nothing is created");
}
