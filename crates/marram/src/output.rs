//! Where everything that people and scripts read is written: data to stdout, messages to stderr.
//!
//! Colours follow the terminal, `NO_COLOR` and `CLICOLOR_FORCE`; a pipe gets plain text.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};

/// Errors.
pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
/// Success.
pub(crate) const GREEN: Style = AnsiColor::Green.on_default().bold();
/// Warnings.
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
/// Hints and names.
pub(crate) const CYAN: Style = AnsiColor::Cyan.on_default();
/// What matters less.
pub(crate) const DIM: Style = Style::new().dimmed();
/// What matters more.
pub(crate) const BOLD: Style = Style::new().bold();

/// Stdout has not taken the data.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout")]
pub(crate) struct Unwritten(#[from] io::Error);

impl Unwritten {
    /// Whether that is because nobody reads any more.
    pub(crate) fn is_unread(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// One line of data, or several.
///
/// In one write: who has read the first line and goes away has taken all of it, and is no broken pipe.
pub(crate) fn line(text: &str) -> Result<(), Unwritten> {
    let mut out = anstream::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes())?;
    Ok(out.flush()?)
}

/// Bytes of data, as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Unwritten> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Ends the line of data whose last bytes these were, where a person reads it: the prompt is not to follow on the same line.
/// What a program reads stays as it is.
pub(crate) fn end_line(last: &[u8]) -> Result<(), Unwritten> {
    if !last.is_empty() && !last.ends_with(b"\n") && stdout_is_terminal() { bytes(b"\n") } else { Ok(()) }
}

/// A JSON document for `--json`.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Unwritten> {
    line(&format!("{value:#}"))
}

/// One line of what is going on. A message that nobody can read is no reason to stop.
pub(crate) fn message(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// What went wrong.
pub(crate) fn error(text: &str) {
    message(&format!("{RED}error:{RED:#} {text}"));
}

/// What is odd.
pub(crate) fn warning(text: &str) {
    message(&format!("{YELLOW}warning:{YELLOW:#} {text}"));
}

/// What to do next.
pub(crate) fn hint(text: &str) {
    message(&format!("{CYAN}hint:{CYAN:#} {text}"));
}

/// `text` in `style`.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// What others have written, for a line of ours: what would end the line, or tell a terminal something, is written as
/// JSON writes it, `\n` or `\u001b`.
pub(crate) fn on_one_line(text: &str) -> Cow<'_, str> {
    let is_odd = |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
    if !text.contains(is_odd) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            odd if is_odd(odd) => out.push_str(&format!("\\u{:04x}", u32::from(odd))),
            other => out.push(other),
        }
    }
    out.into()
}

/// Whether a person reads stdout.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person watches stderr.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}
