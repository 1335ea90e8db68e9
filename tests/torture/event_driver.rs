//! The monitor's part in the rounds with events: it sets and clears the flag, and sends to the
//! mailbox if no worker does.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::checker::Checker;
use crate::monitor::lock;
use crate::operations::{TO_BE_CLEARED, TO_BE_SET, TO_CONSUME};
use crate::payload;
use crate::primitives::{self, PRIMITIVES, PrimitiveKind, SENDER_LOCK};
use crate::probe;
use crate::record::{EVENT_DRIVER, Kind, Log, Record};

/// The states of the flag that threads wait for, in the order in which it takes them.
const WANTED_STATES: [u64; 2] = [TO_BE_SET, TO_BE_CLEARED];

/// Creates and removes the flag's file, as any program could, and sends while consumers wait.
pub(crate) fn drive_events(directory: &Path, checker: &Mutex<Checker>, log: &Log) {
    let flag = primitives::position(PrimitiveKind::Flag);
    let mailbox = primitives::position(PrimitiveKind::Mailbox);
    let flag_path = directory.join(PRIMITIVES[flag].path);
    let mut next = 0; // The flag is cleared at first.
    let mut last_waiters = Vec::new();
    let mut sent = 0_u64;
    loop {
        std::thread::sleep(Duration::from_millis(1));
        let (has_returned, waiters, has_consumers) = {
            let checker = lock(checker);
            let consumers = checker.waiters(mailbox, TO_CONSUME);
            let wanted = WANTED_STATES[next];
            (
                !checker.still_wait(&last_waiters),
                checker.waiters(flag, wanted),
                !consumers.is_empty(),
            )
        };
        // All threads that waited at the last change have returned.
        if has_returned && !waiters.is_empty() {
            let changed = if WANTED_STATES[next] == TO_BE_SET {
                fs::File::create(&flag_path).map(drop)
            } else {
                fs::remove_file(&flag_path)
            };
            if let Err(error) = changed {
                lock(checker).violation(&format!("the flag cannot be changed: {error}"));
            }
            lock(checker).summary.flag_changes += 1;
            last_waiters = waiters;
            next = 1 - next;
        }
        if has_consumers {
            send(directory, mailbox, &mut sent, log);
        }
    }
}

/// Sends with plain file operations, under the senders' lock, which it acquires as flock(1) does.
fn send(directory: &Path, mailbox: usize, sent: &mut u64, log: &Log) {
    let path = directory.join(PRIMITIVES[mailbox].path);
    let taken = directory.join(format!("{}.taken", PRIMITIVES[mailbox].path));
    let Ok(Some(_guard)) = probe::try_lock(&directory.join(SENDER_LOCK)) else { return };
    if path.exists() || taken.exists() {
        return;
    }
    *sent += 1;
    let number = (63 << 58) | *sent;
    let record = Record::of(Kind::Setting, EVENT_DRIVER, 0);
    log.write(Record { primitive: mailbox, b: number, ..record });
    let aside = directory.join("mailbox.aside");
    let sent_file =
        fs::write(&aside, payload::make(number)).and_then(|()| fs::rename(&aside, &path));
    if sent_file.is_ok() {
        log.write(Record { kind: Kind::WasSet, primitive: mailbox, b: number, ..record });
    }
}

/// Returns the payloads that have not been consumed.
pub(crate) fn unconsumed(directory: &Path) -> Vec<u64> {
    let path = PRIMITIVES[primitives::position(PrimitiveKind::Mailbox)].path;
    let found = ["", ".taken"].map(|suffix| fs::read(directory.join(format!("{path}{suffix}"))));
    found.into_iter().flatten().filter_map(|bytes| payload::number(&bytes)).collect()
}
