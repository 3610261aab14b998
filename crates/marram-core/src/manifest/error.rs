//! What is wrong with a manifest, and where, as its developer wants to read it.

use std::fmt;

use super::hint;

/// A manifest that cannot be used: the line, what is wrong with it, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// What is wrong.
    pub message: String,
    /// What to write instead, if that can be guessed.
    pub hint: Option<String>,
    /// Where.
    pub place: Option<Place>,
}

/// A place in the text of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Characters to underline, at least 1.
    pub width: usize,
    /// The line itself.
    pub text: String,
}

impl ManifestError {
    /// An error about the text as a whole.
    #[must_use]
    pub fn plain(message: String) -> Self {
        Self { message, hint: None, place: None }
    }

    /// What the TOML parser says of `text`: with the line, and with the nearest key where one is misspelt. The
    /// configuration of a node is read in the same way.
    #[must_use]
    pub fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().trim();
        let place = error.span().and_then(|span| Place::of(text, span.start, span.end));
        let hint = nearest(message).or_else(|| hint::of(message, place.as_ref()));
        Self { message: hint::in_words(message), hint, place }
    }

    /// An error about the place where `needle` stands first.
    #[must_use]
    pub fn at(text: &str, needle: &str, message: String) -> Self {
        let place = text.find(needle).and_then(|start| Place::of(text, start, start + needle.len()));
        Self { message, hint: None, place }
    }
}

impl Place {
    fn of(text: &str, start: usize, end: usize) -> Option<Self> {
        let before = text.get(..start)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = end.clamp(start, line_end);
        Some(Self {
            line: before.matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text.get(start..end)?.chars().count().max(1),
            text: text[line_start..line_end].trim_end().to_owned(),
        })
    }
}

/// serde says "unknown field `x`, expected one of `a`, `b`": the nearest of these, if one is near.
fn nearest(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field ")?;
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let written = quoted.next()?;
    let best = quoted.map(|name| (strsim::jaro_winkler(written, name), name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.75).then(|| format!("did you mean `{}`?", best.1))
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            write!(f, "\n{margin} --> line {}, column {}", place.line, place.column)?;
            write!(f, "\n{margin} |\n{number} | {}", place.text)?;
            write!(f, "\n{margin} | {}{}", " ".repeat(place.column - 1), "^".repeat(place.width))?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

impl std::error::Error for ManifestError {}
