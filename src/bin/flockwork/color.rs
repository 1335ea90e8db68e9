//! Whether the output has colors: the option `--color`, the variable `NO_COLOR`, and the terminal.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU8, Ordering};

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct ColorArgs {
    /// Print colors always, never, or (auto) on a terminal if NO_COLOR is not set
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t = When::Auto,
        global = true,
        hide_possible_values = true,
        display_order = 1000
    )]
    pub(crate) color: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

static CHOICE: AtomicU8 = AtomicU8::new(When::Auto as u8);

pub(crate) fn choose(when: When) {
    CHOICE.store(when as u8, Ordering::Relaxed);
}

/// Chooses by the words of a command line that is invalid or asks for help.
pub(crate) fn choose_by(words: &[OsString]) {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    for (index, word) in words.iter().enumerate() {
        let value = match word.strip_prefix("--color") {
            Some("") => words.get(index + 1).map(AsRef::as_ref),
            Some(value) => value.strip_prefix('='),
            None => None,
        };
        if let Some(Ok(when)) = value.map(|value| When::from_str(value, false)) {
            choose(when);
        }
    }
}

/// Whether to print colors to this stream.
pub(crate) fn is_on(stream: &impl IsTerminal) -> bool {
    match CHOICE.load(Ordering::Relaxed) {
        choice if choice == When::Always as u8 => true,
        choice if choice == When::Never as u8 => false,
        _ => {
            let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            stream.is_terminal() && !is_set("NO_COLOR") && !crate::live_line::is_dumb()
        }
    }
}
