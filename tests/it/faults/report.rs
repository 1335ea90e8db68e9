//! The results as a table, which can be written into `docs/RELIABILITY.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::attempt::Outcome;

/// The columns, each with its system calls.
const COLUMNS: [(&str, &[&str]); 10] = [
    ("flock", &["flock"]),
    ("open", &["openat", "open"]),
    (
        "stat",
        &[
            "statx",
            "newfstatat",
            "stat",
            "lstat",
            "fstat",
            "statfs",
            "fstatfs",
            "faccessat2",
            "lgetxattr",
            "llistxattr",
        ],
    ),
    ("read", &["read", "getdents64", "lseek", "readlink"]),
    (
        "write",
        &[
            "write",
            "pwrite64",
            "ftruncate",
            "fchmod",
            "fchmodat",
            "chmod",
            "utimensat",
            "fsetxattr",
            "fremovexattr",
        ],
    ),
    ("rename, link", &["rename", "renameat", "renameat2", "link", "linkat"]),
    ("unlink, mkdir", &["unlink", "unlinkat", "mkdir", "mkdirat"]),
    ("fsync", &["fsync", "fdatasync", "syncfs"]),
    ("inotify", &["inotify_init1", "inotify_add_watch", "epoll_create1", "epoll_ctl", "eventfd2"]),
    ("clone", &["clone3", "clone"]),
];

#[derive(Default, Clone, Copy)]
struct Count {
    ok: usize,
    failed: usize,
    other: usize,
}

impl Count {
    fn of(outcome: &Outcome, is_bad: bool) -> Self {
        let mut count = Self::default();
        match outcome {
            _ if is_bad => count.other = 1,
            Outcome::Ok(_) => count.ok = 1,
            Outcome::Err { .. } => count.failed = 1,
            Outcome::Panic | Outcome::Killed(_) => count.other = 1,
        }
        count
    }

    fn add(&mut self, more: Self) {
        self.ok += more.ok;
        self.failed += more.failed;
        self.other += more.other;
    }

    fn tries(self) -> usize {
        self.ok + self.failed + self.other
    }
}

/// The attempts of each operation, by system calls.
#[derive(Default)]
pub(super) struct Report {
    rows: BTreeMap<(usize, String), BTreeMap<usize, Count>>,
}

impl Report {
    /// Adds the outcome of an attempt. `place` is the position of the operation in the table.
    pub(super) fn add(
        &mut self,
        place: usize,
        name: &str,
        call: &str,
        outcome: &Outcome,
        is_bad: bool,
    ) {
        let column = COLUMNS.iter().position(|(_, calls)| calls.contains(&call));
        let column = column.unwrap_or_else(|| panic!("{call} has no column"));
        let row = self.rows.entry((place, name.into())).or_default();
        row.entry(column).or_default().add(Count::of(outcome, is_bad));
    }

    pub(super) fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut table = String::from("| operation |");
        for (name, _) in COLUMNS {
            let _ = write!(table, " {name} |");
        }
        table.push_str(" success | typed error | other |\n|---|");
        table.push_str(&"---|".repeat(COLUMNS.len() + 3));
        let mut sums = BTreeMap::<usize, Count>::new();
        let line = |name: &str, row: &BTreeMap<usize, Count>| {
            let mut line = format!("\n| {name} |");
            let mut sum = Count::default();
            for column in 0..COLUMNS.len() {
                let count = row.get(&column).copied().unwrap_or_default();
                sum.add(count);
                let tries = count.tries();
                let _ = if tries == 0 { write!(line, " |") } else { write!(line, " {tries} |") };
            }
            let _ = write!(line, " {} | {} | {} |", sum.ok, sum.failed, sum.other);
            line
        };
        for ((_, name), row) in &self.rows {
            for (column, count) in row {
                sums.entry(*column).or_default().add(*count);
            }
            table.push_str(&line(name, row));
        }
        table.push_str(&line("all", &sums));
        table.push('\n');
        table
    }
}

/// Describes the system on which the results were measured.
pub(super) fn platform() -> String {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.unwrap_or_default().lines().next().unwrap_or_default().to_string()
    };
    let temp = std::env::temp_dir();
    let file_system = first_line("stat", &["-f", "-c", "%T", &temp.to_string_lossy()]);
    format!(
        "Linux {}, {}, {}, {} on {}, {}\n",
        first_line("uname", &["-r"]),
        first_line("ldd", &["--version"]),
        first_line("strace", &["-V"]).replace("-- ", ""),
        if rustix::process::geteuid().is_root() { "as the superuser" } else { "as a user" },
        file_system,
        std::env::consts::ARCH,
    )
}

/// Puts `text` between the two marks of that name in `docs/RELIABILITY.md`.
pub(super) fn write(name: &str, text: &str) {
    // Two tests write to the document.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/RELIABILITY.md");
    let old = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = old.split_once(&begin).expect("the table has a begin mark");
    let (_, after) = rest.split_once(&end).expect("the table has an end mark");
    std::fs::write(&path, format!("{before}{begin}\n{text}\n{end}{after}")).unwrap();
}
