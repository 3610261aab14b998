//! A log line for people: time, level, where it is from, text.

use marram_core::record::Level;
use serde::Deserialize;

use crate::output::{BOLD, CYAN, DIM, RED, YELLOW, paint};

/// Digits of a request's id that are shown: enough to tell those of one screen apart, and to find it by.
const REQUEST_DIGITS: usize = 6;

/// What a line of the node's log stream says.
pub(crate) enum LogLine {
    /// A line of a function.
    Line(Box<Line>),
    /// This many lines went by too fast.
    Missed(u64),
    /// Something that this version does not know, as it came.
    Other(String),
}

/// A line of a function.
#[derive(Deserialize)]
pub(crate) struct Line {
    time: String,
    level: Level,
    app: String,
    function: String,
    request: Option<String>,
    #[serde(default)]
    context: String,
    text: String,
}

#[derive(Deserialize)]
struct Missed {
    missed: u64,
}

impl LogLine {
    /// Reads a line of the stream.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        if let Ok(line) = serde_json::from_slice(bytes) {
            return Self::Line(Box::new(line));
        }
        match serde_json::from_slice::<Missed>(bytes) {
            Ok(missed) => Self::Missed(missed.missed),
            Err(_) => Self::Other(String::from_utf8_lossy(bytes).into_owned()),
        }
    }

    /// `09:54:56.789 info  shop/price 8c1f2a  text`, coloured.
    pub(crate) fn pretty(&self, with_app: bool) -> String {
        match self {
            Self::Line(line) => line.pretty(with_app),
            Self::Missed(lines) => paint(YELLOW, format!("… {lines} lines went by too fast to be shown")),
            Self::Other(text) => plain(text),
        }
    }
}

impl Line {
    fn pretty(&self, with_app: bool) -> String {
        let (style, level) = match self.level {
            Level::Trace => (DIM, "trace"),
            Level::Debug => (DIM, "debug"),
            Level::Info => (anstyle::Style::new(), "info "),
            Level::Warn => (YELLOW, "warn "),
            Level::Error => (RED, "error"),
            Level::Critical => (RED, "crit "),
        };
        let from = if with_app { format!("{}/{}", self.app, self.function) } else { self.function.clone() };
        let request = self.request.as_deref().map_or("", |id| &id[id.len().saturating_sub(REQUEST_DIGITS)..]);
        let context =
            if self.context.is_empty() { String::new() } else { format!("{} ", paint(BOLD, plain(&self.context))) };
        format!(
            "{} {} {} {}  {context}{}",
            paint(DIM, self.time_of_day()),
            paint(style, level),
            paint(CYAN, from),
            paint(DIM, format!("{request:REQUEST_DIGITS$}")),
            plain(&self.text),
        )
    }

    /// Of RFC 3339, the time with milliseconds.
    fn time_of_day(&self) -> &str {
        self.time.get(11..23).unwrap_or(&self.time)
    }
}

/// Without control characters: what a function logs must not steer the terminal of its reader. A tab is harmless; the
/// lines of a stack are set in, so that none of them looks like a log line of its own.
fn plain(text: &str) -> String {
    let harmless = |c: char| if c.is_control() && c != '\t' && c != '\n' { '\u{fffd}' } else { c };
    text.trim_end().chars().map(harmless).collect::<String>().replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_steer_the_terminal() {
        let line = br#"{"time":"2026-11-24T04:09:29.123000001Z","level":"warn","app":"shop","function":"price",
            "request":"00000000000000ff","context":"","text":"a\u001b[2Jb"}"#;
        let text = anstream::adapter::strip_str(&LogLine::parse(line).pretty(true)).to_string();
        assert_eq!(text, "04:09:29.123 warn  shop/price 0000ff  a\u{fffd}[2Jb");
        let line = br#"{"time":"2026-11-24T04:09:29.123000001Z","level":"info","app":"shop","function":"price",
            "request":null,"context":"","text":"Error: no\n  at page.js:7:9\n"}"#;
        let text = anstream::adapter::strip_str(&LogLine::parse(line).pretty(true)).to_string();
        assert_eq!(text, "04:09:29.123 info  shop/price         Error: no\n      at page.js:7:9");
        assert!(matches!(LogLine::parse(br#"{"missed":7}"#), LogLine::Missed(7)));
        assert!(matches!(LogLine::parse(b"?"), LogLine::Other(_)));
    }
}
