//! The counts of a run, and the table that shows them.

use std::fmt::Write as _;

use crate::primitives::{PRIMITIVES, PrimitiveKind};

/// The counts of one primitive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) acquisitions: u64,
    /// Requests while another thread held it or waited for it.
    pub(crate) contended: u64,
    /// Calls that would have blocked, timed out, dropped a future, or whose closure deliberately
    /// failed.
    pub(crate) gave_up: [u64; 4],
    pub(crate) failed: u64,
    pub(crate) killed_waiting: u64,
    pub(crate) killed_inside: u64,
}

#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) rows: Vec<Row>,
    pub(crate) processes: u64,
    pub(crate) kills: u64,
    pub(crate) exits: u64,
    pub(crate) stops: u64,
    /// Files tampered with, shortages of descriptors, and shortages of inotify instances.
    pub(crate) tampering: [u64; 3],
    pub(crate) settings: u64,
    pub(crate) consumed: u64,
    pub(crate) lost_with_consumer: u64,
    /// Payloads that are not consumed yet.
    pub(crate) left: u64,
    pub(crate) flag_changes: u64,
    pub(crate) violations: u64,
    pub(crate) lost_permits: u64,
    pub(crate) lost_wake_ups: u64,
}

impl Summary {
    pub(crate) fn new() -> Self {
        Self {
            rows: vec![Row::default(); PRIMITIVES.len()],
            processes: 0,
            kills: 0,
            exits: 0,
            stops: 0,
            tampering: [0; 3],
            settings: 0,
            consumed: 0,
            lost_with_consumer: 0,
            left: 0,
            flag_changes: 0,
            violations: 0,
            lost_permits: 0,
            lost_wake_ups: 0,
        }
    }

    pub(crate) fn acquisitions(&self) -> u64 {
        self.rows.iter().map(|row| row.acquisitions).sum()
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violations + self.lost_permits + self.lost_wake_ups == 0
    }

    pub(crate) fn to_text(&self) -> String {
        const HEADINGS: [&str; 9] = [
            "",
            "acquired",
            "contended",
            "would block",
            "timed out",
            "dropped",
            "errors",
            "killed waiting",
            "killed inside",
        ];
        let mut text = String::new();
        let line = |text: &mut String, name: &str, cells: &[String]| {
            let _ = write!(text, "{name:<20}");
            for (cell, head) in cells.iter().zip(&HEADINGS[1..]) {
                let _ = write!(text, " {cell:>width$}", width = head.len().max(9));
            }
            text.push('\n');
        };
        line(
            &mut text,
            HEADINGS[0],
            &HEADINGS[1..].iter().map(|head| (*head).to_owned()).collect::<Vec<_>>(),
        );
        let kinds = ["Lock", "RwLock", "Semaphore", "Event", "Once", "SharedFile", "Barrier"];
        let mut sum = Row::default();
        for (is_tampered_with, kind) in [false, true]
            .into_iter()
            .flat_map(|is_tampered_with| kinds.map(|kind| (is_tampered_with, kind)))
        {
            let mut row = Row::default();
            for (primitive, one) in PRIMITIVES.iter().zip(&self.rows) {
                if primitive.is_tampered_with == is_tampered_with
                    && type_name(primitive.kind) == kind
                {
                    row.add(one);
                }
            }
            sum.add(&row);
            let name = format!("{kind}{}", if is_tampered_with { ", tampered with" } else { "" });
            line(&mut text, &name, &row.cells());
        }
        line(&mut text, "all", &sum.cells());
        let [files, descriptors, instances] = self.tampering;
        let _ = write!(
            text,
            "\n{} processes: {} killed by SIGKILL, {} exited while holding; {} stops.\n\
             {files} changes to files from outside; {descriptors} times no descriptors, {instances} times no inotify instances.\n\
             {} settings of the mailbox: {} consumed, {} lost with a killed consumer, {} left; the flag changed {} times.\n\
             \n{} acquisitions, {} kills: {} violations, {} lost permits, {} lost wake-ups.\n",
            self.processes,
            self.kills,
            self.exits,
            self.stops,
            self.settings,
            self.consumed,
            self.lost_with_consumer,
            self.left,
            self.flag_changes,
            self.acquisitions(),
            self.kills,
            self.violations,
            self.lost_permits,
            self.lost_wake_ups,
        );
        text
    }
}

fn type_name(kind: PrimitiveKind) -> &'static str {
    match kind {
        PrimitiveKind::Lock => "Lock",
        PrimitiveKind::RwLock => "RwLock",
        PrimitiveKind::Semaphore(_) | PrimitiveKind::Elastic => "Semaphore",
        PrimitiveKind::Flag | PrimitiveKind::Mailbox | PrimitiveKind::AnyUse => "Event",
        PrimitiveKind::Once => "Once",
        PrimitiveKind::SharedFile => "SharedFile",
        PrimitiveKind::Barrier(_) => "Barrier",
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.acquisitions += other.acquisitions;
        self.contended += other.contended;
        for (sum, more) in self.gave_up.iter_mut().zip(other.gave_up) {
            *sum += more;
        }
        self.failed += other.failed;
        self.killed_waiting += other.killed_waiting;
        self.killed_inside += other.killed_inside;
    }

    fn cells(&self) -> Vec<String> {
        let [would_block, timed_out, dropped, _] = self.gave_up;
        [
            self.acquisitions,
            self.contended,
            would_block,
            timed_out,
            dropped,
            self.failed,
            self.killed_waiting,
            self.killed_inside,
        ]
        .map(|number| number.to_string())
        .to_vec()
    }
}
