//! The text that shows the progress of a wait, fitted to the width of a terminal.

use std::time::Duration;

use crate::holder_text::HolderText;

/// The columns to which a path is shortened before the holder's description is shortened.
const SHORTENED_PATH: usize = 16;

/// The columns to which it is shortened before the holder is left out.
const SHORTEST_PATH: usize = 8;

/// A wait: its subject, its time, and the holders.
#[derive(Debug)]
pub(crate) struct WaitText {
    /// The path or name of the primitive, as the user typed it.
    pub(crate) subject: String,
    pub(crate) elapsed: Duration,
    pub(crate) timeout: Option<Duration>,
    pub(crate) holders: Vec<HolderText>,
}

impl WaitText {
    /// The whole text, for a line that stays.
    pub(crate) fn full(&self) -> String {
        format!("waiting for {}{}", self.subject, self.details()[0])
    }

    /// The text with at most this many columns, in which the path and the rest may be shortened.
    pub(crate) fn fit(&self, columns: usize) -> String {
        const START: &str = "waiting for ";
        let all = self.details();
        let with_holder = &all[..all.len() - 1];
        let attempts = with_holder.iter().map(|details| (details, SHORTENED_PATH));
        let attempts = attempts.chain(all.iter().map(|details| (details, SHORTEST_PATH)));
        for (details, path) in attempts {
            let rest = START.len() + width(details);
            if rest + width(&self.subject).min(path) <= columns {
                return format!("{START}{}{details}", elided(&self.subject, columns - rest));
            }
        }
        elided(&format!("{START}{}", self.subject), columns)
    }

    /// The text after the path, from the longest form to the shortest.
    fn details(&self) -> Vec<String> {
        let elapsed = clock(self.elapsed);
        let whole = match self.timeout {
            Some(timeout) => format!(" {elapsed} of {}", clock(timeout)),
            None => format!(" {elapsed}"),
        };
        let Some((first, others)) = self.holders.split_first() else {
            return vec![whole, format!(" {elapsed}")];
        };
        let more = match others.len() {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        vec![
            format!("{whole}, held by {}{more}", first.full()),
            format!("{whole}, held by {}{more}", first.short()),
            format!(" {elapsed}, held by {}{more}", first.short()),
            format!(" {elapsed}, {}", first.short()),
            format!(" {elapsed}, {}", first.process),
            format!(" {elapsed}"),
        ]
    }
}

/// Minutes and seconds, with hours if there are any: `0:03`, `2:05:00`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// The text with its middle replaced by `…` if it has more columns. The end is the longer part,
/// since it names the file.
pub(crate) fn elided(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.into();
    }
    let Some(kept) = columns.checked_sub(1) else { return String::new() };
    let prefix = |letters: &mut dyn Iterator<Item = char>, columns: usize| {
        let mut taken = String::new();
        for letter in letters {
            taken.push(letter);
            if width(&taken) > columns {
                taken.pop();
                break;
            }
        }
        taken
    };
    let start = prefix(&mut text.chars(), kept / 3);
    let end = prefix(&mut text.chars().rev(), kept - kept / 3);
    format!("{start}…{}", end.chars().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(subject: &str) -> WaitText {
        let holder = HolderText {
            label: Some("nightly backup".into()),
            program: Some("tar".into()),
            process: "pid 4242".into(),
            held: Some("4m".into()),
        };
        WaitText {
            subject: subject.into(),
            elapsed: Duration::from_secs(3),
            timeout: Some(Duration::from_secs(10)),
            holders: vec![holder],
        }
    }

    #[test]
    fn a_line_names_as_much_as_the_terminal_has_room_for() {
        limit!();
        let short = wait("backup.lock");
        let long = wait("/home/me/jobs/very/long/path/to/the/backup.lock");
        for (wait, columns, line) in [
            (
                &short,
                200,
                "waiting for backup.lock 0:03 of 0:10, held by \"nightly backup\" (tar, pid 4242, 4m)",
            ),
            (
                &short,
                79,
                "waiting for backup.lock 0:03 of 0:10, held by \"nightly backup\" (pid 4242)",
            ),
            (&short, 39, "waiting for backup.lock 0:03, pid 4242"),
            (&short, 20, "waitin…r backup.lock"),
            (
                &long,
                200,
                "waiting for /home/me/jobs/very/long/path/to/the/backup.lock 0:03 of 0:10, held by \"nightly backup\" (tar, pid 4242, 4m)",
            ),
            (
                &long,
                79,
                "waiting for /home…backup.lock 0:03 of 0:10, held by \"nightly backup\" (pid 4242)",
            ),
            (&long, 39, "waiting for /ho…kup.lock 0:03, pid 4242"),
        ] {
            assert_eq!(wait.fit(columns), line);
        }
        assert_eq!(short.full(), short.fit(200));
        let event = WaitText { holders: Vec::new(), timeout: None, ..wait("a and 2 others") };
        assert_eq!(event.fit(79), "waiting for a and 2 others 0:03");
        let mut several = wait("s");
        several.holders = vec![several.holders[0].clone(), several.holders[0].clone()];
        assert!(several.full().ends_with("4m) and 1 more"), "{}", several.full());
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        limit!();
        for subject in ["f", "/a/long/path/to/a/file", "ファイル/の/名前が/とても/長い"]
        {
            for columns in 0..120 {
                let line = wait(subject).fit(columns);
                assert!(width(&line) <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn clocks_show_hours_only_if_there_are_any() {
        limit!();
        for (seconds, text) in [(0, "0:00"), (65, "1:05"), (3599, "59:59"), (7500, "2:05:00")] {
            assert_eq!(clock(Duration::from_secs(seconds)), text);
        }
    }
}
