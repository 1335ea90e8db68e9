//! A process that swaps files while they are being opened.

use std::path::Path;
use std::time::Duration;

use flockwork::{Error, ErrorKind, Options};

use crate::hostile::fixtures::{Kind, snapshot};
use crate::peer::{Peer, Request};

/// CVE-2025-68146 and CVE-2026-22701 of Python's filelock: between a check and an open, the file
/// became a symbolic link to another user's file, which was then truncated or created. Here another
/// process swaps files without pause during thousands of opens.
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
        (Kind::Barrier, "/setup"),
        (Kind::Barrier, "/participant.0"),
        (Kind::Barrier, "/arrived"),
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
    // If the swapped file does not matter, or is restored immediately, no call fails.
    let is_harmless = suffix.contains("holder") || suffix.ends_with("slots") || suffix == "/slot.0";
    let (mut rounds, mut failed, mut done) = (0, 0, 0_u32);
    let begun = std::time::Instant::now();
    // The loop ends after both results have occurred, which proves a race, or after enough time for
    // a busy machine.
    while rounds < ROUNDS || done == 0 || failed == 0 && !is_harmless {
        rounds += 1;
        match quick(kind, &work.join("p")) {
            Ok(()) => done += 1,
            Err(error) => match error.kind() {
                ErrorKind::NotRegularFile | ErrorKind::Corrupt => failed += 1,
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

/// Opens the primitive and uses it once, with calls that open and write files.
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
            event.set_while_alive(b"payload")?.withdraw()?;
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
        Kind::Barrier => {
            let barrier = options.open_barrier(path, 1)?;
            barrier.reset()?;
            barrier.wait_timeout(Duration::ZERO)?;
            barrier.abort()
        }
    }
}
