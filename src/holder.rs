//! A process that holds something: what a record says of it, and how it is shown.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::fork_safe::ForkSafe;
use crate::sys::{self, FileId, Numbering, Owner, Process};

pub(crate) const FIRST_LINE: &str = "flockwork holder 1";
/// Where it is written in place (Windows), a reader must see that it is whole.
const LAST_LINE: &str = "end";
/// A label or command is cut to this many characters.
const MAX_CHARACTERS: usize = 512;

/// A process that holds something.
///
/// Which of this is known depends on what the holder left. One that was opened with a
/// [`label`](crate::Options::label) or [`record_holder`](crate::Options::record_holder) wrote
/// all of it; of others Linux tells the process and its command.
///
/// What others wrote is untrusted text: control characters come out escaped, so that it can be shown
/// on a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    process: Process,
    host: String,
    command: Option<String>,
    label: Option<String>,
    since: Option<SystemTime>,
    slot: Option<u32>,
    is_shared: bool,
}

impl Holder {
    /// Its process number. The caller can use the number only where
    /// [`same_pid_namespace`](Self::same_pid_namespace) is `true`; elsewhere it may belong to
    /// another process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Whether [`pid`](Self::pid) is the number by which the calling process knows it, to signal it or to look it up:
    /// both run in one pid namespace of one host. `false` between containers, and where that is not known.
    #[must_use]
    pub fn same_pid_namespace(&self) -> bool {
        let here = this_process();
        let is_same = match self.process.numbering {
            Numbering::Unknown => !sys::PID_NAMESPACES,
            Numbering::Other => false,
            own @ Numbering::Namespace(_) => own == here.numbering,
        };
        is_same && self.process.boot == here.boot && self.is_on_this_host()
    }

    /// The pid namespace in which the process number counts, as the inode that `lsns` shows. Linux only.
    #[must_use]
    pub fn pid_namespace(&self) -> Option<u64> {
        match self.process.numbering {
            Numbering::Namespace(inode) => Some(inode),
            Numbering::Other | Numbering::Unknown => None,
        }
    }

    /// The host it runs on; empty where the system has no name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// The [`label`](crate::Options::label) it gave.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// When it got the lock, by its own host's clock.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Which slot of a semaphore it holds, from 0 on; `None` for what has no slots.
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// Whether it shares what it holds: a reader's lock.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether it is the calling process. Where the system shows them (Linux), the pid namespace,
    /// the boot and the time at which the process was started are compared as well as the number
    /// and the host.
    #[must_use]
    pub fn is_this_process(&self) -> bool {
        let here = this_process();
        let is_same = self.process.pid == here.pid && self.process.started == here.started;
        is_same && self.same_pid_namespace()
    }

    fn is_on_this_host(&self) -> bool {
        self.host == printable(&sys::host_name())
    }

    /// What to say of the process number where it is not the caller's to use.
    fn whose_number(&self) -> &'static str {
        const ANOTHER: &str = " in another pid namespace";
        const UNKNOWN: &str = " in an unknown pid namespace";
        let here = this_process();
        let same_boot =
            self.process.boot.as_ref().zip(here.boot.as_ref()).map(|(its, own)| its == own);
        let names_host = !self.host.is_empty() && !self.is_on_this_host();
        if self.same_pid_namespace() || same_boot != Some(true) && names_host {
            return "";
        }
        match (same_boot, self.process.numbering, here.numbering) {
            (Some(false), ..) | (_, Numbering::Other, _) => ANOTHER,
            (_, Numbering::Namespace(its), Numbering::Namespace(own)) if its != own => ANOTHER,
            // This host got another name since, or has another one in a container.
            (Some(true), Numbering::Namespace(_), Numbering::Namespace(_)) => "",
            _ => UNKNOWN,
        }
    }

    pub(crate) fn of_this_process(label: Option<&str>) -> Self {
        let command: Vec<_> =
            std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        Self {
            process: Process::clone(&this_process()),
            host: printable(&sys::host_name()),
            command: Some(printable(&command.join(" "))).filter(|text| !text.is_empty()),
            label: label.map(printable),
            since: Some(SystemTime::now()),
            slot: None,
            is_shared: false,
        }
    }

    /// What the system tells of a process that left no record.
    pub(crate) fn of_owner(owner: &Owner) -> Self {
        let here = this_process();
        let process = Process {
            pid: owner.pid.unwrap_or(owner.listed),
            numbering: owner.pid.map_or(Numbering::Other, |_| here.numbering),
            started: sys::started(owner.listed),
            boot: here.boot.clone(),
        };
        Self {
            process,
            host: printable(&sys::host_name()),
            command: sys::command_of(owner.listed).as_deref().map(printable),
            label: None,
            since: None,
            slot: None,
            is_shared: owner.is_shared,
        }
    }

    /// As the holder of one slot of a semaphore, which is never shared.
    pub(crate) fn in_slot(self, slot: u32) -> Self {
        Self { slot: Some(slot), is_shared: false, ..self }
    }

    pub(crate) fn among_readers(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// The same lock, with another process that has inherited it.
    pub(crate) fn passed_to(self, heir: &Owner) -> Self {
        let Self { process, command, .. } = Self::of_owner(heir);
        Self { process, command, ..self }
    }

    /// Whether the process is known to have ended. That is never known of one in another pid
    /// namespace.
    pub(crate) fn has_ended(&self) -> bool {
        self.same_pid_namespace() && sys::has_ended(&self.process)
    }

    pub(crate) fn to_record(&self, locked: FileId) -> String {
        use fmt::Write as _;
        let Process { pid, numbering, started, boot } = &self.process;
        let mut text = format!("{FIRST_LINE}\npid {pid}\nhost {}\n", self.host);
        // Writing to a String cannot fail.
        if let Numbering::Namespace(inode) = numbering {
            let _ = writeln!(text, "namespace {inode}");
        }
        if let Some(started) = started {
            let _ = writeln!(text, "started {started}");
        }
        if let Some(boot) = boot {
            let _ = writeln!(text, "boot {boot}");
        }
        let _ = writeln!(text, "file {locked}");
        let since = self.since.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(since) = since {
            let _ = writeln!(text, "since {}.{:09}", since.as_secs(), since.subsec_nanos());
        }
        if let Some(command) = &self.command {
            let _ = writeln!(text, "command {command}");
        }
        if let Some(label) = &self.label {
            let _ = writeln!(text, "label {label}");
        }
        text.push_str(LAST_LINE);
        text.push('\n');
        text
    }

    /// `None` for anything that is not a whole record.
    pub(crate) fn from_record(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.lines();
        if lines.next() != Some(FIRST_LINE) || lines.next_back() != Some(LAST_LINE) {
            return None;
        }
        let mut pid = None;
        let mut process =
            Process { pid: 0, numbering: Numbering::Unknown, started: None, boot: None };
        let mut holder = Self {
            process: process.clone(),
            host: String::new(),
            command: None,
            label: None,
            since: None,
            slot: None,
            is_shared: false,
        };
        for line in lines {
            match line.split_once(' ') {
                Some(("pid", value)) => pid = value.parse().ok(),
                Some(("namespace", value)) => {
                    process.numbering =
                        value.parse().map_or(Numbering::Unknown, Numbering::Namespace);
                }
                Some(("started", value)) => process.started = value.parse().ok(),
                Some(("boot", value)) => process.boot = Some(printable(value)),
                Some(("host", value)) => holder.host = printable(value),
                Some(("since", value)) => holder.since = time(value),
                Some(("command", value)) => holder.command = Some(printable(value)),
                Some(("label", value)) => holder.label = Some(printable(value)),
                _ => {} // a later version's
            }
        }
        process.pid = pid?;
        Some(Self { process, ..holder })
    }
}

impl fmt::Display for Holder {
    /// The alternate form (`{:#}`) is the process alone, without the label, the mode and the time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            if let Some(label) = &self.label {
                write!(f, "\"{label}\", ")?;
            }
            if self.is_this_process() {
                f.write_str("this very process, ")?;
            }
        }
        write!(f, "process {}{}", self.pid(), self.whose_number())?;
        if let Some(command) = &self.command {
            write!(f, " ({command})")?;
        }
        if !self.host.is_empty() && !self.is_on_this_host() {
            write!(f, " on {}", self.host)?;
        }
        if f.alternate() {
            return Ok(());
        }
        if self.is_shared {
            f.write_str(", to read")?;
        }
        match self.since.and_then(|at| SystemTime::now().duration_since(at).ok()) {
            Some(held) => write!(f, ", for {:.1} s", held.as_secs_f64()),
            None => Ok(()),
        }
    }
}

/// This process. The system is asked once, since that takes some 50 microseconds.
fn this_process() -> Arc<Process> {
    static KNOWN: ForkSafe<Option<Arc<Process>>> = ForkSafe::new(None, |()| None);
    if let Some(known) = &*KNOWN.lock() {
        return Arc::clone(known);
    }
    let here = sys::this_process();
    let is_whole = here.started.is_some() && here.numbering != Numbering::Unknown;
    let here = Arc::new(Process { boot: here.boot.as_deref().map(printable), ..here });
    // Where `/proc` is missing it may be mounted yet.
    if is_whole || !sys::PID_NAMESPACES {
        *KNOWN.lock() = Some(Arc::clone(&here));
    }
    here
}

fn time(text: &str) -> Option<SystemTime> {
    let (seconds, nanos) = text.split_once('.')?;
    let since =
        Duration::new(seconds.parse().ok()?, nanos.parse().ok().filter(|n| *n < 1_000_000_000)?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// On one line, without control characters (nor the marks that turn the direction of text round), and
/// not endless: escapes count as they are shown, so that the longest record is shorter than what is read of one. What has
/// been made printable stays as it is.
fn printable(text: &str) -> String {
    const CUT: &str = "...";
    let (mut out, mut length, mut fits) = (String::new(), 0, 0);
    for character in text.chars() {
        let hidden = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || hidden {
            out.extend(character.escape_default());
            length += character.escape_default().count();
        } else {
            out.push(character);
            length += 1;
        }
        if length + CUT.len() <= MAX_CHARACTERS {
            fits = out.len();
        } else if length > MAX_CHARACTERS {
            out.truncate(fits);
            out.push_str(CUT);
            return out;
        }
    }
    out
}

/// Whether a record is of the file `id`. Device numbers count within one boot of one machine, inode
/// numbers belong to the file system: of a record that another machine wrote, or this one before
/// its last boot, the inode decides.
pub(crate) fn is_for(text: &str, id: FileId) -> bool {
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let is_of_this_boot = value("boot").map(printable) == this_process().boot;
    let id = id.to_string();
    let inode = |id: &str| id.rsplit_once(':').map(|(_, inode)| inode.to_string());
    value("file").is_some_and(|file| {
        file == id || !is_of_this_boot && inode(file).is_some() && inode(file) == inode(&id)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{
        Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof,
    };

    use super::*;

    fn holder() -> Holder {
        Holder {
            process: Process {
                pid: 42,
                numbering: Numbering::Namespace(4_026_531_836),
                started: Some(8123),
                boot: Some("7a7911e1-d8a6-418e-8dfd-a1fc20c5c4ce".into()),
            },
            host: "box".into(),
            command: Some("cargo build".into()),
            label: Some("nightly".into()),
            since: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
            slot: None,
            is_shared: false,
        }
    }

    fn record(holder: &Holder) -> String {
        let file = tempfile::tempfile().unwrap();
        holder.to_record(sys::identity(&file).unwrap())
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        limit!();
        assert_eq!(Holder::from_record(&record(&holder())), Some(holder()));
        let process = Process { pid: 42, numbering: Numbering::Unknown, started: None, boot: None };
        let bare = Holder { process, command: None, label: None, since: None, ..holder() };
        assert_eq!(Holder::from_record(&record(&bare)), Some(bare));
    }

    #[test]
    fn lines_of_a_later_version_are_passed_over() {
        limit!();
        let text = record(&holder());
        let more = text.replace("host ", "colour green\nnamespaces 5\n\nhost ");
        assert_ne!(more, text);
        assert_eq!(Holder::from_record(&more), Some(holder()));
    }

    /// What is changed of the own process; how it is shown then, whether its number counts here, and whether it is this one.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    type Case<'a> = (&'a dyn Fn(&mut Holder), &'a str, bool, bool);

    // Linux only: no other system shows the pid namespace, the time of the start and the boot.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn this_process_is_told_by_all_that_a_record_has() {
        limit!();
        let own = Holder::of_this_process(None);
        let Process { numbering: Numbering::Namespace(inode), started: Some(started), .. } =
            own.process
        else {
            panic!("{:?}", own.process)
        };
        let boot = || Some("another".to_string());
        let (other, unknown) = (Numbering::Namespace(inode + 1), Numbering::Unknown);
        let number = format!("process {}", std::process::id());
        let bare = format!("{FIRST_LINE}\npid {}\n{LAST_LINE}\n", std::process::id());
        let of = |change: &dyn Fn(&mut Holder)| {
            let mut holder = Holder { command: None, ..own.clone() };
            change(&mut holder);
            assert!(format!("{holder}").contains(&format!("{holder:#}")), "{holder}");
            (format!("{holder:#}"), holder.same_pid_namespace(), holder.is_this_process())
        };
        let another = " in another pid namespace";
        let cases: &[Case<'_>] = &[
            (&|_| {}, "", true, true),
            (&|h| h.process.started = Some(started + 1), "", true, false),
            (&|h| h.process.started = None, "", true, false),
            (&|h| h.process.numbering = other, another, false, false),
            (&|h| h.process.numbering = Numbering::Other, another, false, false),
            (&|h| h.process.numbering = unknown, " in an unknown pid namespace", false, false),
            (&|h| h.process.boot = boot(), another, false, false),
            (&|h| h.process.boot = None, " in an unknown pid namespace", false, false),
            (&|h| h.host = "box".into(), " on box", false, false),
            (
                &|h| *h = Holder::from_record(&bare).unwrap(),
                " in an unknown pid namespace",
                false,
                false,
            ),
        ];
        for (change, place, same, this) in cases {
            assert_eq!(of(change), (format!("{number}{place}"), *same, *this));
        }
        let in_a_container = of(&|h| {
            h.host = "box".into();
            h.process.numbering = other;
        });
        assert_eq!(in_a_container.0, format!("{number} in another pid namespace on box"));
        let on_another_machine = of(&|h| {
            h.host = "box".into();
            h.process.boot = boot();
        });
        assert_eq!(on_another_machine.0, format!("{number} on box"));
    }

    /// A device has another number on another machine, and may have one after the next boot.
    // Unix only: on Windows a file has no number.
    #[cfg(unix)]
    #[test]
    fn of_another_boots_record_the_inode_decides() {
        limit!();
        let id = sys::identity(&tempfile::tempfile().unwrap()).unwrap();
        let (device, inode) =
            id.to_string().split_once(':').map(|(d, i)| (d.to_string(), i.to_string())).unwrap();
        let mut holder = Holder::of_this_process(None);
        let own = holder.to_record(id);
        holder.process.boot = Some("another".into());
        let others = holder.to_record(id);
        let on = |record: &str, file: String| {
            record.replace(&format!("file {id}\n"), &format!("file {file}\n"))
        };
        for record in [&own, &others] {
            assert!(is_for(record, id));
            assert!(!is_for(&on(record, format!("{device}:7{inode}")), id), "{record}");
            assert!(!is_for(&on(record, inode.clone()), id), "{record}");
            assert!(!is_for("boot another\nend\n", id));
        }
        assert!(!is_for(&on(&own, format!("7{device}:{inode}")), id));
        assert!(is_for(&on(&others, format!("7{device}:{inode}")), id));
    }

    #[test]
    fn what_is_no_record_is_nobody() {
        limit!();
        let coordinator = record(&holder());
        for cut in 0..coordinator.len() {
            assert_eq!(Holder::from_record(&coordinator[..cut]), None, "{:?}", &coordinator[..cut]);
        }
        for text in [
            "",
            "\n",
            "pid 1",
            "flockwork holder 2\npid 1\nend\n",
            "flockwork holder 1\npid -1\nend\n",
        ] {
            assert_eq!(Holder::from_record(text), None, "{text:?}");
        }
        // A time that does not fit, or makes no sense, is an unknown one.
        for since in ["99999999999999999999.0", "18446744073709551615.0", "1.9999999999", "x", "1"]
        {
            let text = format!("{FIRST_LINE}\npid 1\nsince {since}\nend\n");
            assert_eq!(Holder::from_record(&text).unwrap().since, None, "{since}");
        }
    }

    #[test]
    fn a_hostile_record_cannot_reach_the_terminal() {
        limit!();
        let text = format!(
            "{FIRST_LINE}\npid 1\nhost \u{1b}[2J\nlabel a\u{7}\u{202e}b\rc\ncommand \u{9b}x\nend\n"
        );
        let shown = Holder::from_record(&text).unwrap().to_string();
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
        let own = Holder { label: Some(printable("two\nlines")), ..holder() };
        assert_eq!(Holder::from_record(&record(&own)), Some(own));
        assert!(printable(&"x".repeat(10_000)).len() < 600);
    }

    /// As it comes, with much of what is special.
    fn any_text() -> impl Strategy<Value = String> {
        let special = "[\\x00-\\x20\u{7f}-\u{9f}\u{61c}\u{200e}\u{202e}\u{2066}\u{2028} a-c\\\\\"{}.\u{1F600}]{0,700}";
        prop_oneof![any::<String>(), special, "\u{202e}{500,600}", "[^\\x00]{505,520}"]
    }

    fn any_holder() -> impl Strategy<Value = Holder> {
        let since = proptest::option::of((0..=u64::from(u32::MAX) * 100, 0..1_000_000_000_u32));
        let texts =
            (any_text(), proptest::option::of(any_text()), proptest::option::of(any_text()));
        let numbering =
            prop_oneof![Just(Numbering::Unknown), any::<u64>().prop_map(Numbering::Namespace)];
        let boot = proptest::option::of("[0-9a-f-]{36}");
        let process = (any::<u32>(), numbering, any::<Option<u64>>(), boot);
        let process = process.prop_map(|(pid, numbering, started, boot)| Process {
            pid,
            numbering,
            started,
            boot,
        });
        (process, texts, since).prop_map(|(process, (host, command, label), since)| Holder {
            process,
            host: printable(&host),
            command: command.as_deref().map(printable),
            label: label.as_deref().map(printable),
            since: since.map(|(s, n)| SystemTime::UNIX_EPOCH + Duration::new(s, n)),
            slot: None,
            is_shared: false,
        })
    }

    fn is_plain(text: &str) -> bool {
        !text.chars().any(|c| c.is_control() || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        #[test]
        fn any_record_comes_back_as_it_was_written_and_no_part_of_it_does(holder in any_holder()) {
            limit!();
            let text = record(&holder);
            prop_assert!(text.len() < usize::try_from(crate::record::MAX_BYTES).unwrap(), "{} bytes", text.len());
            prop_assert_eq!(Holder::from_record(&text), Some(holder));
            for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                prop_assert_eq!(Holder::from_record(&text[..cut]), None);
            }
        }

        #[test]
        fn whatever_is_read_is_harmless(
            bytes in any::<Vec<u8>>(),
            keys in proptest::collection::vec(("(pid|host|namespace|started|boot|since|command|label|file|end)?[ \n\r.0-9+-]{0,3}", any_text()), 0..6),
        ) {
            limit!();
            let mut lines = vec![FIRST_LINE.to_string(), "pid 7".into()];
            lines.extend(keys.into_iter().map(|(key, value)| format!("{key}{value}")));
            lines.push("end\n".into());
            for text in [String::from_utf8_lossy(&bytes).into_owned(), lines.join("\n")] {
                let Some(holder) = Holder::from_record(&text) else { continue };
                prop_assert!(is_plain(&holder.to_string()), "{:?}", holder);
                for text in [Some(holder.host()), holder.label(), holder.command()].into_iter().flatten() {
                    prop_assert!(text.chars().count() <= MAX_CHARACTERS);
                }
            }
        }

        #[test]
        fn what_is_printable_is_plain_short_and_stays_as_it_is(text in any_text()) {
            limit!();
            let shown = printable(&text);
            prop_assert!(is_plain(&shown) && shown.chars().count() <= MAX_CHARACTERS, "{:?}", shown);
            prop_assert_eq!(printable(&shown), shown.clone());
            if is_plain(&text) && text.chars().count() <= MAX_CHARACTERS {
                prop_assert_eq!(shown, text);
            }
        }

        #[test]
        fn a_time_is_what_it_says(seconds in any::<u64>(), nanos in any::<u32>(), nonsense in any::<String>()) {
            limit!();
            let read = time(&format!("{seconds}.{nanos:09}"));
            let wanted = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, 0));
            let wanted = wanted.filter(|_| nanos < 1_000_000_000).and_then(|at| at.checked_add(Duration::new(0, nanos)));
            prop_assert_eq!(read, wanted);
            let _ = time(&nonsense);
        }
    }
}
