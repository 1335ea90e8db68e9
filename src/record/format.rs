//! The text of a record (`docs/PROTOCOL.md`, rule 10).

use std::time::{Duration, SystemTime};

use crate::holder::Holder;
use crate::printable::printable;
use crate::process::{HostProcess, this_process};
use crate::sys::{FileId, Numbering, Process};

pub(super) const FIRST_LINE: &str = "flockwork holder 1";
/// A record that is written in place (Windows) is complete when it has this line.
const LAST_LINE: &str = "end";
/// A record has a few hundred bytes. A longer file was not written by flockwork, and is not read to
/// its end.
pub(super) const MAX_BYTES: u64 = 8192;

/// A file on a network file system has another device number on each mount, so its record has only
/// the inode.
const ANY_DEVICE: &str = "network";

/// The text of a record. `on_network`: the locked file is on a network file system.
pub(super) fn write(holder: &Holder, locked: FileId, on_network: bool) -> String {
    use std::fmt::Write as _;
    let Process { pid, numbering, started, boot } = &holder.process.identity;
    let mut text = format!("{FIRST_LINE}\npid {pid}\nhost {}\n", holder.process.host);
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
    let locked = locked.to_string();
    let _ = match locked.rsplit_once(':').filter(|_| on_network) {
        Some((_, inode)) => writeln!(text, "file {ANY_DEVICE}:{inode}"),
        None => writeln!(text, "file {locked}"),
    };
    let since = holder.since.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    if let Some(since) = since {
        let _ = writeln!(text, "since {}.{:09}", since.as_secs(), since.subsec_nanos());
    }
    if let Some(command) = &holder.command {
        let _ = writeln!(text, "command {command}");
    }
    if let Some(label) = &holder.label {
        let _ = writeln!(text, "label {label}");
    }
    text.push_str(LAST_LINE);
    text.push('\n');
    text
}

/// `None` for anything that is not a complete record.
pub(super) fn parse(text: &str) -> Option<Holder> {
    let mut lines = text.strip_suffix('\n')?.lines();
    if lines.next() != Some(FIRST_LINE) || lines.next_back() != Some(LAST_LINE) {
        return None;
    }
    let mut pid = None;
    let identity = Process { pid: 0, numbering: Numbering::Unknown, started: None, boot: None };
    let mut process = HostProcess { identity, host: String::new() };
    let mut holder = Holder {
        process: process.clone(),
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
                process.identity.numbering =
                    value.parse().map_or(Numbering::Unknown, Numbering::Namespace);
            }
            Some(("started", value)) => process.identity.started = value.parse().ok(),
            Some(("boot", value)) => process.identity.boot = Some(printable(value)),
            Some(("host", value)) => process.host = printable(value),
            Some(("since", value)) => holder.since = time(value),
            Some(("command", value)) => holder.command = Some(printable(value)),
            Some(("label", value)) => holder.label = Some(printable(value)),
            _ => {} // a later version may add lines
        }
    }
    process.identity.pid = pid?;
    Some(Holder { process, ..holder })
}

fn time(text: &str) -> Option<SystemTime> {
    let (seconds, nanos) = text.split_once('.')?;
    let since =
        Duration::new(seconds.parse().ok()?, nanos.parse().ok().filter(|n| *n < 1_000_000_000)?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// Whether a record is of the file `id`. Device numbers are valid within one boot of one machine,
/// and on a network file system within one mount; inode numbers belong to the file system. So only
/// the inode is compared with a record that another machine wrote, or this one before its last
/// boot, and where the file is on a network file system by the record or for this process
/// (rule 10).
pub(super) fn is_for(text: &str, id: FileId, on_network: impl FnOnce() -> bool) -> bool {
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let Some(file) = value("file") else { return false };
    let id = id.to_string();
    if file == id {
        return true;
    }
    let (Some((device, inode)), Some((_, own))) = (file.rsplit_once(':'), id.rsplit_once(':'))
    else {
        return false;
    };
    let is_of_this_boot = || value("boot").map(printable) == this_process().boot;
    inode == own && (device == ANY_DEVICE || !is_of_this_boot() || on_network())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{
        Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof,
    };

    use super::*;
    use crate::printable::MAX_CHARACTERS;
    use crate::printable::tests::{any_text, is_plain};
    use crate::sys;

    fn holder() -> Holder {
        Holder {
            process: HostProcess {
                identity: Process {
                    pid: 42,
                    numbering: Numbering::Namespace(4_026_531_836),
                    started: Some(8123),
                    boot: Some("7a7911e1-d8a6-418e-8dfd-a1fc20c5c4ce".into()),
                },
                host: "box".into(),
            },
            command: Some("cargo build".into()),
            label: Some("nightly".into()),
            since: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
            slot: None,
            is_shared: false,
        }
    }

    fn record(holder: &Holder) -> String {
        let file = tempfile::tempfile().unwrap();
        write(holder, sys::identity(&file).unwrap(), false)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        limit!();
        assert_eq!(parse(&record(&holder())), Some(holder()));
        let identity =
            Process { pid: 42, numbering: Numbering::Unknown, started: None, boot: None };
        let process = HostProcess { identity, host: "box".into() };
        let bare = Holder { process, command: None, label: None, since: None, ..holder() };
        assert_eq!(parse(&record(&bare)), Some(bare));
    }

    #[test]
    fn lines_of_a_later_version_are_ignored() {
        limit!();
        let text = record(&holder());
        let more = text.replace("host ", "colour green\nnamespaces 5\n\nhost ");
        assert_ne!(more, text);
        assert_eq!(parse(&more), Some(holder()));
    }

    /// A device has a different number on another machine, and may have one after the next boot; a
    /// network file system has one on each mount.
    // Unix only: on Windows a file has no number.
    #[cfg(unix)]
    #[test]
    fn only_the_inode_is_compared_with_another_boot_or_mount() {
        limit!();
        let id = sys::identity(&tempfile::tempfile().unwrap()).unwrap();
        let (device, inode) =
            id.to_string().split_once(':').map(|(d, i)| (d.to_string(), i.to_string())).unwrap();
        let mut holder = Holder::of_this_process(None);
        let own = write(&holder, id, false);
        let on_network = write(&holder, id, true);
        holder.process.identity.boot = Some("another".into());
        let others = write(&holder, id, false);
        let on = |record: &str, file: String| {
            record.replace(&format!("file {id}\n"), &format!("file {file}\n"))
        };
        for record in [&own, &others] {
            assert!(is_for(record, id, || false));
            for is_network in [false, true] {
                let is_for = |record: &str| is_for(record, id, || is_network);
                assert!(!is_for(&on(record, format!("{device}:7{inode}"))), "{record}");
                assert!(!is_for(&on(record, inode.clone())), "{record}");
                assert!(!is_for("boot another\nend\n"));
            }
        }
        let elsewhere = on(&own, format!("7{device}:{inode}"));
        assert!(!is_for(&elsewhere, id, || false));
        assert!(is_for(&on(&others, format!("7{device}:{inode}")), id, || false));
        // A network file system has another device number on each mount.
        assert!(is_for(&elsewhere, id, || true));
        assert!(!on_network.contains(&device), "{on_network}");
        assert!(is_for(&on_network, id, || false));
        let another = on_network.replace(&inode, &format!("7{inode}"));
        assert!(!is_for(&another, id, || true), "{another}");
    }

    #[test]
    fn an_incomplete_or_invalid_record_names_no_holder() {
        limit!();
        let whole = record(&holder());
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "{:?}", &whole[..cut]);
        }
        for text in [
            "",
            "\n",
            "pid 1",
            "flockwork holder 2\npid 1\nend\n",
            "flockwork holder 1\npid -1\nend\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        // A time that is invalid or too large is unknown.
        for since in ["99999999999999999999.0", "18446744073709551615.0", "1.9999999999", "x", "1"]
        {
            let text = format!("{FIRST_LINE}\npid 1\nsince {since}\nend\n");
            assert_eq!(parse(&text).unwrap().since, None, "{since}");
        }
    }

    #[test]
    fn a_hostile_record_cannot_reach_the_terminal() {
        limit!();
        let text = format!(
            "{FIRST_LINE}\npid 1\nhost \u{1b}[2J\nlabel a\u{7}\u{202e}b\rc\ncommand \u{9b}x\nend\n"
        );
        let shown = parse(&text).unwrap().to_string();
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
        let own = Holder { label: Some(printable("two\nlines")), ..holder() };
        assert_eq!(parse(&record(&own)), Some(own));
        assert!(printable(&"x".repeat(10_000)).len() < 600);
    }

    fn any_holder() -> impl Strategy<Value = Holder> {
        let since = proptest::option::of((0..=u64::from(u32::MAX) * 100, 0..1_000_000_000_u32));
        let texts =
            (any_text(), proptest::option::of(any_text()), proptest::option::of(any_text()));
        let numbering =
            prop_oneof![Just(Numbering::Unknown), any::<u64>().prop_map(Numbering::Namespace)];
        let boot = proptest::option::of("[0-9a-f-]{36}");
        let process = (any::<u32>(), numbering, any::<Option<u64>>(), boot);
        let identity = process.prop_map(|(pid, numbering, started, boot)| Process {
            pid,
            numbering,
            started,
            boot,
        });
        (identity, texts, since).prop_map(|(identity, (host, command, label), since)| Holder {
            process: HostProcess { identity, host: printable(&host) },
            command: command.as_deref().map(printable),
            label: label.as_deref().map(printable),
            since: since.map(|(s, n)| SystemTime::UNIX_EPOCH + Duration::new(s, n)),
            slot: None,
            is_shared: false,
        })
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        #[test]
        fn any_record_is_read_as_it_was_written_and_no_part_of_it_is(holder in any_holder()) {
            limit!();
            let text = record(&holder);
            prop_assert!(text.len() < usize::try_from(MAX_BYTES).unwrap(), "{} bytes", text.len());
            prop_assert_eq!(parse(&text), Some(holder));
            for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                prop_assert_eq!(parse(&text[..cut]), None);
            }
        }

        #[test]
        fn a_record_with_any_contents_is_harmless(
            bytes in any::<Vec<u8>>(),
            keys in proptest::collection::vec(("(pid|host|namespace|started|boot|since|command|label|file|end)?[ \n\r.0-9+-]{0,3}", any_text()), 0..6),
        ) {
            limit!();
            let mut lines = vec![FIRST_LINE.to_string(), "pid 7".into()];
            lines.extend(keys.into_iter().map(|(key, value)| format!("{key}{value}")));
            lines.push("end\n".into());
            for text in [String::from_utf8_lossy(&bytes).into_owned(), lines.join("\n")] {
                let Some(holder) = parse(&text) else { continue };
                prop_assert!(is_plain(&holder.to_string()), "{:?}", holder);
                for text in [Some(holder.host()), holder.label(), holder.command()].into_iter().flatten() {
                    prop_assert!(text.chars().count() <= MAX_CHARACTERS);
                }
            }
        }

        #[test]
        fn any_valid_time_is_read_exactly(seconds in any::<u64>(), nanos in any::<u32>(), nonsense in any::<String>()) {
            limit!();
            let read = time(&format!("{seconds}.{nanos:09}"));
            let wanted = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, 0));
            let wanted = wanted.filter(|_| nanos < 1_000_000_000).and_then(|at| at.checked_add(Duration::new(0, nanos)));
            prop_assert_eq!(read, wanted);
            let _ = time(&nonsense);
        }
    }
}
