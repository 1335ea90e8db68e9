//! Checks that each payload that is sent to the mailbox is consumed once.

use std::collections::HashMap;

use super::Checker;
use crate::record::{Kind, Record};

#[derive(Debug)]
struct Sent {
    number: u64,
    at: u64,
    has_set: bool,
    is_consumed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    sent: Vec<Sent>,
    /// The index in `sent` of each number.
    indexes: HashMap<u64, usize>,
    /// The records of the request and of the exit of each consumer that was killed.
    pub(super) dead_consumers: Vec<(u64, u64)>,
}

impl Checker {
    pub(super) fn check_setting(&mut self, record: Record) {
        let mailbox = &mut self.mailbox;
        if record.kind == Kind::Setting {
            mailbox.indexes.insert(record.b, mailbox.sent.len());
            let at = self.record_count;
            mailbox.sent.push(Sent { number: record.b, at, has_set: false, is_consumed: false });
        } else if let Some(index) = mailbox.indexes.get(&record.b) {
            mailbox.sent[*index].has_set = true;
        }
    }

    pub(super) fn consume(&mut self, number: u64) {
        let Some(index) = self.mailbox.indexes.get(&number) else {
            return self.violation(&format!("{number:x} was consumed but never sent"));
        };
        let sent = &mut self.mailbox.sent[*index];
        if std::mem::replace(&mut sent.is_consumed, true) {
            return self.violation(&format!("{number:x} was consumed twice"));
        }
        self.summary.consumed += 1;
    }

    /// Checks at the end that each payload was consumed, is left, or was lost with a consumer that
    /// was killed before it recorded its success. Such a consumer began before the payload after
    /// the next was sent, and was killed after this one was sent. (The next payload can only be
    /// sent when this one has been taken, and the one after it when the consumers' lock is free
    /// again.)
    pub(crate) fn check_mailbox(&mut self, left: &[u64]) {
        let Mailbox { sent, mut dead_consumers, .. } = std::mem::take(&mut self.mailbox);
        // Some senders were killed during the call. Only a consumer then shows that the payload was
        // sent.
        let was_set = |sent: &&Sent| sent.has_set || sent.is_consumed;
        let set: Vec<&Sent> = sent.iter().filter(was_set).collect();
        self.summary.settings = set.len() as u64;
        for (index, lost) in set.iter().enumerate() {
            if lost.is_consumed {
                continue;
            }
            if left.contains(&lost.number) {
                self.summary.left += 1;
                continue;
            }
            let next_but_one = set.get(index + 2).map_or(u64::MAX, |sent| sent.at);
            let consumer = dead_consumers
                .iter()
                .position(|(requested, died)| *requested < next_but_one && *died > lost.at);
            if let Some(consumer) = consumer {
                dead_consumers.remove(consumer);
                self.summary.lost_with_consumer += 1;
            } else {
                self.violation(&format!("sent but never consumed: {:x}", lost.number));
            }
        }
    }
}
