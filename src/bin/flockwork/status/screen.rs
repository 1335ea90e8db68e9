//! The text of `status --watch` on a terminal, which is drawn again in its place.

use std::fmt::Write as _;

use console::Term;

use crate::exit::Outcome;
use crate::output;

pub(super) struct Screen {
    /// How many lines were drawn, above the cursor.
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { drawn: 0 }
    }

    /// Draws the lines of a text for this many columns over the last ones. A line that is too long
    /// is cut, and so is the text if it has more lines than the terminal, since those that have
    /// scrolled away cannot be drawn again.
    pub(super) fn draw(&mut self, text: impl FnOnce(usize) -> String) -> Outcome {
        let (rows, columns) = Term::stdout().size();
        let (shown, count) = fit(&text(columns.into()), rows.into(), columns.into());
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        self.drawn = count;
        // Each line is erased after it is written, so that nothing flickers.
        output::write(format!("\r{up}{shown}\x1b[J").as_bytes())
    }
}

/// The lines that fit, and how many there are.
fn fit(text: &str, rows: usize, columns: usize) -> (String, usize) {
    let lines: Vec<_> = text.lines().collect();
    // The cursor is below the last line.
    let room = rows.saturating_sub(1).max(1);
    let (mut shown, mut count) = (String::new(), 0);
    let mut write = |line: &str| {
        let line = console::truncate_str(line, columns, "…");
        let _ = write!(shown, "{line}\x1b[K\r\n");
        count += 1;
    };
    let fitting = if lines.len() <= room { lines.len() } else { room - 1 };
    for line in &lines[..fitting] {
        write(line);
    }
    if fitting < lines.len() {
        write(&format!("... and {} more lines", lines.len() - fitting));
    }
    (shown, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_drawn_than_fits_the_terminal() {
        limit!();
        let lines = |text: &str, rows, columns| {
            let (shown, count) = fit(text, rows, columns);
            let lines: Vec<_> = shown.lines().map(|line| line.replace("\x1b[K", "")).collect();
            assert_eq!(lines.len(), count);
            lines
        };
        assert_eq!(lines("a\nb\n", 24, 80), ["a", "b"]);
        assert_eq!(lines("a long line\nb\n", 24, 6), ["a lon…", "b"]);
        assert_eq!(lines("a\nb\nc\nd\n", 4, 80), ["a", "b", "... and 2 more lines"]);
        assert_eq!(lines("a\nb\n", 1, 80), ["... and 2 more lines"]);
    }
}
