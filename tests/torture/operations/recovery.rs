//! Checks that the primitives whose files were tampered with work again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flockwork::Error;

use crate::payload;
use crate::primitives::{Handle, PRIMITIVES};
use crate::rng::Rng;
use crate::worker::Actor;

/// Each operation must succeed within this time, once the tampering has ended.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(45);

/// Uses each primitive after the end of the tampering, through the existing handle and a new one.
pub(crate) fn check(actor: &mut Actor) {
    let process = Arc::clone(&actor.process);
    let numbered = PRIMITIVES.iter().zip(&process.handles).enumerate();
    for (index, (primitive, handle)) in
        numbered.filter(|(_, (primitive, _))| primitive.is_tampered_with)
    {
        let new_handle =
            match Handle::open(&process.directory, primitive, &mut Rng::for_purpose(0, &[])) {
                Ok(new_handle) => new_handle,
                Err(error) => {
                    actor.violation(index, &format!("can no longer be opened: {error}"));
                    continue;
                }
            };
        for handle in [handle, &new_handle] {
            if let Err(error) = use_once(handle) {
                actor.violation(index, &format!("no longer works: {error}"));
            }
        }
    }
}

fn use_once(handle: &Handle) -> Result<(), Error> {
    match handle {
        Handle::Lock(lock) => lock.lock_timeout(RECOVERY_TIMEOUT)?.unlock(),
        Handle::RwLock(lock) => {
            lock.write_timeout(RECOVERY_TIMEOUT)?.unlock()?;
            lock.read_timeout(RECOVERY_TIMEOUT)?.unlock()
        }
        Handle::Semaphore(semaphore) => {
            semaphore.acquire_many_timeout(2, RECOVERY_TIMEOUT)?.release()
        }
        Handle::Event(event) => {
            let deadline = Instant::now() + RECOVERY_TIMEOUT;
            while Instant::now() < deadline {
                event.set()?;
                // Other workers may consume it in the meantime.
                if event.wait_timeout(Duration::from_secs(1)).is_ok() {
                    return Ok(());
                }
            }
            event.wait_timeout(Duration::ZERO)
        }
        Handle::Once(once) => {
            once.call_once_timeout(RECOVERY_TIMEOUT, || Ok::<_, Error>(())).map(|_| ())
        }
        Handle::Barrier(barrier) => super::barriers::recover(barrier),
        Handle::SharedFile(file) => {
            file.lock_exclusive_timeout(RECOVERY_TIMEOUT)?.replace(payload::make(1))?;
            file.lock_exclusive_timeout(RECOVERY_TIMEOUT)?.update(|contents| {
                *contents = payload::make(2);
                Ok(())
            })
        }
    }
}
