//! A process that swaps files while they are opened.

use std::path::Path;
use std::time::Duration;

use flockwork::{Error, ErrorKind, Options};

use crate::hostile::fixtures::{Kind, snapshot};
use crate::peer::{Peer, Request};

/// CVE-2025-68146 and CVE-2026-22701 of Python's filelock: between a look and an open the file becomes a symbolic link to
/// somebody's file, which was cut, or made. Here another process swaps without pause, and thousands of opens meet it.
#[test]
fn a_file_swapped_for_a_link_never_leads_to_the_victim() {
    limit!();
    let places = [
        (Kind::Lock, ""),
        (Kind::Lock, ".holder"),
        (Kind::Lock, ".holder.new"),
        (Kind::RwLock, ".gate"),
        (Kind::Semaphore, "/capacity"),
        (Kind::Semaphore, "/queued"),
        (Kind::Semaphore, "/slot.0"),
        (Kind::Semaphore, "/holders"),
        (Kind::Semaphore, "/.slots"),
        (Kind::Event, ""),
        (Kind::Once, ""),
        (Kind::SharedFile, ""),
        (Kind::SharedFile, ".flock.new"),
    ];
    crate::support::running::share(4, &places, |(kind, suffix)| swapped(*kind, suffix));
}

fn swapped(kind: Kind, suffix: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (victim, work) = (dir.path().join("victim"), dir.path().join("work"));
    std::fs::create_dir_all(victim.join("directory")).unwrap();
    std::fs::create_dir(&work).unwrap();
    std::fs::write(victim.join("file"), "precious").unwrap();
    let before = snapshot(&victim);
    let mut at = work.join("p").into_os_string();
    at.push(suffix);
    std::fs::create_dir_all(Path::new(&at).parent().unwrap()).unwrap();
    let stop = dir.path().join("stop");
    let mut planter = Peer::start();
    planter.begin(Request::SwapForLinks(at.into(), victim.clone(), stop.clone()));
    assert_eq!(planter.finish(), "plants");
    // Where the swapped file does not matter, or is restored at once, nothing is refused.
    let is_harmless = suffix.contains("holder") || suffix.ends_with("slots") || suffix == "/slot.0";
    let (mut rounds, mut refused, mut done) = (0, 0, 0_u32);
    let begun = std::time::Instant::now();
    // Until both were met, so that it was a race; but no longer than a machine with much else to do needs.
    while rounds < ROUNDS || done == 0 || refused == 0 && !is_harmless {
        rounds += 1;
        match quick(kind, &work.join("p")) {
            Ok(()) => done += 1,
            Err(error) => match error.kind() {
                ErrorKind::NotRegularFile | ErrorKind::Corrupt => refused += 1,
                _ => {}
            },
        }
        if begun.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
    std::fs::write(&stop, "").unwrap();
    let swaps: u32 = planter.finish().parse().unwrap();
    assert!(swaps >= ROUNDS, "{swaps}");
    assert_eq!(snapshot(&victim), before, "{kind:?}{suffix}");
}

const ROUNDS: u32 = 1000;

/// Opens and uses it once, in ways that open and write.
fn quick(kind: Kind, path: &Path) -> Result<(), Error> {
    let options = Options::new().label("race");
    match kind {
        Kind::Lock => options.open_lock(path)?.try_lock().map(drop),
        Kind::RwLock => options.open_rwlock(path)?.try_write().map(drop),
        Kind::Semaphore => {
            let pool = options.open_semaphore(path, 1)?;
            drop(pool.try_acquire()?);
            pool.set_capacity(1)
        }
        Kind::Event => {
            let event = options.open_event(path)?;
            event.set()?;
            event.set_with(b"payload")?;
            event.clear().map(drop)
        }
        Kind::Once => {
            let once = options.open_once(path)?;
            once.try_call_once(|| Ok::<_, Error>(()))?;
            once.reset_timeout(Duration::ZERO).map(drop)
        }
        Kind::SharedFile => {
            let file = options.open_shared_file(path)?;
            file.try_lock_exclusive()?.replace("contents")?;
            file.read().map(drop)
        }
    }
}
