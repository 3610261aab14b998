//! The next step: what to write instead of what the TOML parser and serde complain about.

use super::error::Place;

/// What an error points at.
struct Wrong {
    /// The line up to there.
    before: String,
    /// The key whose value it is, if that stands on the line.
    key: String,
    /// The text itself; `…` where it is long, or goes on in the next line.
    written: String,
}

/// How a message begins and ends, and the hint that goes with it.
type Rule = (&'static str, &'static str, fn(&Wrong) -> Option<String>);

const RULES: [Rule; 15] = [
    ("missing field `manifest_version`", "", |_| Some("begin the file with `manifest_version = 1`".into())),
    ("invalid type: map", "expected a sequence", list_of_tables),
    ("invalid type: string", "expected a sequence", list),
    ("invalid type: sequence", "expected a map", name_in_header),
    ("invalid type: string", "expected struct OnTable", trigger),
    ("string values must be quoted", "", text),
    ("invalid boolean", "", text),
    ("invalid float", "", text),
    ("invalid type: integer", "expected a string", text),
    ("invalid type: floating point", "expected a string", text),
    ("invalid type: boolean", "expected a string", text),
    ("invalid type: string", "expected u8", number),
    ("invalid type: string", "expected u32", number),
    ("", "invalid socket address syntax", address),
    ("", "expected socket address", address),
];

/// Characters of a value that are shown again.
const SHOWN_MAX: usize = 60;

/// What to write instead, where one of the rules knows it.
pub(super) fn of(message: &str, place: Option<&Place>) -> Option<String> {
    let said = |rule: &&Rule| message.starts_with(rule.0) && message.ends_with(rule.1);
    let (_, _, hint) = RULES.iter().find(said)?;
    hint(&place.map_or_else(Wrong::unknown, Wrong::at))
}

/// The same message without the names of types of this program.
pub(super) fn in_words(message: &str) -> String {
    let is_digits = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match (message.rsplit_once("expected struct "), message.rsplit_once("expected u")) {
        (Some((before, name)), _) if is_name(name) => format!("{before}expected a table"),
        (_, Some((before, bits))) if is_digits(bits) => format!("{before}expected a whole number"),
        _ => message.to_owned(),
    }
}

impl Wrong {
    fn unknown() -> Self {
        Self { before: String::new(), key: String::new(), written: "…".into() }
    }

    fn at(place: &Place) -> Self {
        let before: String = place.text.chars().take(place.column - 1).collect();
        let written: String = place.text.chars().skip(place.column - 1).take(place.width).collect();
        let written = match written.trim_end() {
            table if table.starts_with('{') && !table.ends_with('}') => "{ … }".to_owned(),
            long if long.chars().count() > SHOWN_MAX => "…".to_owned(),
            text => text.to_owned(),
        };
        let key = before.trim_end_matches(['[', ' ']).strip_suffix('=').unwrap_or_default().trim_end();
        let key = key.rsplit([' ', ',', '{', '[']).next().unwrap_or_default().to_owned();
        Self { before, key, written }
    }

    /// `key = value`, or the value alone.
    fn with(&self, value: &str) -> String {
        if self.key.is_empty() { format!("`{value}`") } else { format!("`{} = {value}`", self.key) }
    }

    /// `function`, of the header `[function]`.
    fn header(&self) -> Option<&str> {
        let inside = self.written.strip_prefix('[').filter(|_| self.key.is_empty())?;
        Some(inside.trim_start_matches('[').trim_end_matches(']').trim())
    }
}

fn list_of_tables(wrong: &Wrong) -> Option<String> {
    Some(match wrong.header() {
        Some(name) => format!("there can be several: write `[[{name}]]`"),
        None => format!("write a list: {}", wrong.with(&format!("[{}]", wrong.written))),
    })
}

fn list(wrong: &Wrong) -> Option<String> {
    if wrong.key == "on" {
        return trigger(wrong);
    }
    Some(format!("write a list: {}", wrong.with(&format!("[{}]", wrong.written))))
}

fn trigger(wrong: &Wrong) -> Option<String> {
    let written = if wrong.written.starts_with("\"/") { wrong.written.as_str() } else { "\"/price/...\"" };
    Some(format!("write a list of tables, each with its source: `on = [{{ http = {written} }}]`"))
}

fn name_in_header(wrong: &Wrong) -> Option<String> {
    let name = wrong.header()?;
    Some(format!("its name belongs into the header: write `[{name}.<name>]`"))
}

fn text(wrong: &Wrong) -> Option<String> {
    let what = if wrong.before.contains("config") { "values of `config` are text" } else { "text is in quotes" };
    let plain = !wrong.written.is_empty() && !wrong.written.contains(['"', '\'', '\\', '…']);
    Some(if plain { format!("{what}: {}", wrong.with(&format!("\"{}\"", wrong.written))) } else { what.to_owned() })
}

fn number(wrong: &Wrong) -> Option<String> {
    let digits = wrong.written.trim_matches(['"', '\'']);
    let whole = digits.parse::<u64>().is_ok();
    Some(if whole {
        format!("a number has no quotes: {}", wrong.with(digits))
    } else {
        "a number has no quotes and no unit".into()
    })
}

fn address(_: &Wrong) -> Option<String> {
    Some("write address and port, such as `127.0.0.1:3000`".into())
}
