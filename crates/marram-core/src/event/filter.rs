//! Which subjects a consumer or a capture takes.

use std::fmt;

/// The longest filter, in bytes: what MQTT allows a topic filter is far more than anybody writes.
pub const FILTER_BYTES_MAX: usize = 1024;
/// The most levels of a filter or a topic.
pub const FILTER_LEVELS_MAX: usize = 64;

/// Which subjects are meant. Matching takes no allocation and time linear in the subject, except that each `*` of a glob
/// may look at the rest of its segment again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SubjectFilter {
    /// Every subject, and events without one.
    All,
    /// This subject only.
    Exact(String),
    /// An MQTT topic filter: `+` is one level, a last `#` is any number of levels, its parent included, and neither matches
    /// a first level that begins with `$` (MQTT 5.0 §4.7).
    Topic(String),
    /// A glob of keys or objects: `*` is any text without `/`, `**` any text, `?` one character but `/`.
    Glob(String),
}

/// Why a text is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{filter:?} is not a {what}: {why}")]
pub struct FilterError {
    filter: String,
    what: &'static str,
    why: &'static str,
}

impl SubjectFilter {
    /// An MQTT topic filter, checked (MQTT 5.0 §4.7.1).
    pub fn topic(filter: &str) -> Result<Self, FilterError> {
        let mut levels = filter.split('/').peekable();
        let mut wrong = None;
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                wrong = Some("`#` stands alone and last, as in `plant/#`");
            } else if level.contains('+') && level != "+" {
                wrong = Some("`+` stands for a whole level, as in `plant/+/vibration`");
            }
        }
        let why = wrong.or_else(|| limits(filter, filter.split('/').count()));
        why.map_or_else(|| Ok(Self::Topic(filter.into())), |why| Err(error(filter, "topic filter", why)))
    }

    /// A glob, checked.
    pub fn glob(filter: &str) -> Result<Self, FilterError> {
        let stars = filter.matches('*').count();
        let why = limits(filter, stars)
            .or_else(|| filter.contains("***").then_some("write `*` for a segment, or `**` for everything below"));
        why.map_or_else(|| Ok(Self::Glob(filter.into())), |why| Err(error(filter, "pattern", why)))
    }

    /// Whether `subject` is meant.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        match self {
            Self::All => true,
            Self::Exact(exact) => exact == subject,
            Self::Topic(filter) => topic_matches(filter, subject),
            Self::Glob(glob) => glob_matches(glob.as_bytes(), subject.as_bytes()),
        }
    }
}

impl fmt::Display for SubjectFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Exact(text) | Self::Topic(text) | Self::Glob(text) => f.write_str(text),
        }
    }
}

fn limits(filter: &str, parts: usize) -> Option<&'static str> {
    match filter {
        "" => Some("it is empty"),
        _ if filter.len() > FILTER_BYTES_MAX => Some("it is longer than 1024 bytes"),
        _ if parts > FILTER_LEVELS_MAX => Some("it has more than 64 levels or wildcards"),
        _ if filter.contains('\0') => Some("it contains U+0000"),
        _ => None,
    }
}

fn error(filter: &str, what: &'static str, why: &'static str) -> FilterError {
    FilterError { filter: filter.chars().take(80).collect(), what, why }
}

fn topic_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filters, mut levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(filter), Some(level)) if filter == level => {}
            _ => return false,
        }
    }
}

/// The latest `*` and the latest `**` are each a place to go back to: never more, so the time is bounded by the product of
/// the lengths.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut one: Option<(usize, usize)> = None;
    let mut any: Option<(usize, usize)> = None;
    loop {
        let step = match (glob.get(g), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) if glob.get(g + 1) == Some(&b'*') => {
                any = Some((g + 2, t));
                one = None;
                g += 2;
                continue;
            }
            (Some(b'*'), _) => {
                one = Some((g + 1, t));
                g += 1;
                continue;
            }
            (Some(b'?'), Some(byte)) if *byte != b'/' => Some(character(text, t)),
            (Some(want), Some(byte)) if want == byte && *want != b'?' => Some(1),
            _ => None,
        };
        if let Some(bytes) = step {
            g += 1;
            t += bytes;
        } else if let Some((after, from)) = one.filter(|(_, from)| text.get(*from).is_some_and(|byte| *byte != b'/')) {
            one = Some((after, from + 1));
            (g, t) = (after, from + 1);
        } else if let Some((after, from)) = any.filter(|(_, from)| *from < text.len()) {
            any = Some((after, from + 1));
            one = None;
            (g, t) = (after, from + 1);
        } else {
            return false;
        }
    }
}

/// How many bytes the character at `at` has.
fn character(text: &[u8], at: usize) -> usize {
    1 + text[at + 1..].iter().take_while(|byte| **byte & 0xc0 == 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &SubjectFilter, yes: &[&str], no: &[&str]) {
        for text in yes {
            assert!(filter.matches(text), "{filter} does not take {text}");
        }
        for text in no {
            assert!(!filter.matches(text), "{filter} takes {text}");
        }
    }

    /// The examples of MQTT 5.0 §4.7.1 and §4.7.2.
    #[test]
    fn topics_match_as_the_standard_says() {
        let topic = |text| SubjectFilter::topic(text).unwrap();
        check(
            &topic("sport/tennis/player1/#"),
            &["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"],
            &["sport/tennis/player2", "sport/tennis"],
        );
        check(&topic("sport/#"), &["sport", "sport/"], &["sports"]);
        check(&topic("sport/tennis/+"), &["sport/tennis/player1", "sport/tennis/"], &["sport/tennis/player1/ranking"]);
        check(&topic("sport/+"), &["sport/"], &["sport"]);
        check(&topic("+/+"), &["/finance"], &["finance"]);
        check(&topic("/+"), &["/finance"], &["finance"]);
        check(&topic("+"), &["finance"], &["/finance", "$SYS"]);
        check(&topic("#"), &["a", "a/b", "/"], &["$SYS/monitor"]);
        check(&topic("$SYS/#"), &["$SYS", "$SYS/monitor"], &["SYS"]);
        for bad in ["", "a#", "a/#/b", "sport+", "#/a", &"x".repeat(1025), &"/".repeat(64)] {
            assert!(SubjectFilter::topic(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn globs_match_segments_and_trees() {
        let glob = |text| SubjectFilter::glob(text).unwrap();
        check(&glob("uploads/*.png"), &["uploads/a.png", "uploads/.png"], &["uploads/a/b.png", "uploads/a.pngx"]);
        check(&glob("thresholds/*"), &["thresholds/a", "thresholds/"], &["thresholds/a/b", "thresholds"]);
        check(&glob("a/**"), &["a/", "a/b", "a/b/c"], &["a", "b/a/c"]);
        check(&glob("a/**/*.x"), &["a/b/c.x", "a/b/c/d.x"], &["a/c.x", "a/b/c.y"]);
        check(&glob("?b"), &["ab", "äb"], &["/b", "b", "aab"]);
        check(&glob("*a*b"), &["ab", "xaxb", "aabab"], &["a", "ba", "ab/"]);
        check(&glob("**b*/c"), &["b/c", "a/b/xb/c"], &["b/x/c"]);
        assert!(SubjectFilter::glob("").is_err() && SubjectFilter::glob("***").is_err());
    }

    proptest::proptest! {
        /// Against the definition, written down as plainly as can be.
        #[test]
        fn globs_are_what_their_definition_says(glob in "[ab/*?]{0,8}", text in "[ab/]{0,8}") {
            fn plain(glob: &[u8], text: &[u8]) -> bool {
                match glob {
                    [] => text.is_empty(),
                    [b'*', b'*', rest @ ..] => (0..=text.len()).any(|n| plain(rest, &text[n..])),
                    [b'*', rest @ ..] => (0..=text.len())
                        .take_while(|n| !text[..*n].contains(&b'/'))
                        .any(|n| plain(rest, &text[n..])),
                    [b'?', rest @ ..] => text.first().is_some_and(|b| *b != b'/') && plain(rest, &text[1..]),
                    [byte, rest @ ..] => text.first() == Some(byte) && plain(rest, &text[1..]),
                }
            }
            proptest::prop_assert_eq!(glob_matches(glob.as_bytes(), text.as_bytes()), plain(glob.as_bytes(), text.as_bytes()));
        }
    }
}
