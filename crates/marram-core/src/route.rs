//! Route patterns of HTTP triggers: `/price/...`, `shop.example/api/:id`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Segments of a path pattern: deeper ones are refused, since each costs a step of every look-up.
pub const SEGMENTS_MAX: usize = 32;

/// `[host]/path`: which requests an HTTP trigger takes.
///
/// Segments are compared byte for byte with the path as it was sent. A pattern without a host takes every host. The
/// most specific pattern wins, whatever order they were written in: first by host, then segment by segment from the
/// left, a literal before a `:param` before the `...` tail.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RoutePattern {
    /// Lower case, without a port and a dot at its end; `None` takes every host.
    pub host: Option<String>,
    /// The path, split at each `/`. `/` alone has no segments.
    pub segments: Vec<Segment>,
    /// Whether the pattern ends in `...`: this path and everything below it.
    pub tail: bool,
}

/// One segment of a pattern.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Segment {
    /// Matches itself.
    Literal(String),
    /// Matches any one segment that is not empty; the function gets it in the header `marram-param-<name>`.
    Param(String),
}

/// Why a text is not a [`RoutePattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a route: {why}; write a path such as \"/price/...\", \"/api/:id\" or \"shop.example/api/:id\""
)]
pub struct RouteError {
    text: String,
    why: String,
}

impl RoutePattern {
    /// Parses `[host]/path`.
    pub fn parse(text: &str) -> Result<Self, RouteError> {
        let wrong = |why: &str| RouteError { text: text.chars().take(120).collect(), why: why.to_owned() };
        let slash = text.find('/').ok_or_else(|| wrong("it has no '/'"))?;
        let (host, path) = text.split_at(slash);
        if host.contains(':') {
            return Err(wrong("a host has no scheme and no port here"));
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-') {
            return Err(wrong("its host has a character that host names do not have"));
        }
        // The dot that ends an absolute name says nothing more (RFC 1034 §3.1).
        let name = host.strip_suffix('.').unwrap_or(host);
        if name.ends_with('.') || (name.is_empty() && !host.is_empty()) {
            return Err(wrong("its host has nothing before a dot"));
        }
        let host = (!name.is_empty()).then(|| name.to_ascii_lowercase());
        let (path, tail) = match path[1..].strip_suffix("...") {
            Some("") => ("", true),
            Some(rest) => {
                (rest.strip_suffix('/').ok_or_else(|| wrong("'...' has to be a segment of its own, at the end"))?, true)
            }
            None => (&path[1..], false),
        };
        let segments = if path.is_empty() {
            Vec::new()
        } else {
            path.split('/').map(segment).collect::<Result<_, _>>().map_err(wrong)?
        };
        if segments.len() > SEGMENTS_MAX {
            return Err(wrong("it has too many segments"));
        }
        let mut params: Vec<_> = segments.iter().filter_map(Segment::param).collect();
        params.sort_unstable();
        if params.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(wrong("it names a parameter twice"));
        }
        Ok(Self { host, segments, tail })
    }

    /// Whether the two match the very same requests (names of parameters do not matter), so that neither can win.
    #[must_use]
    pub fn claims_the_same_as(&self, other: &Self) -> bool {
        let same_segment = |pair: (&Segment, &Segment)| match pair {
            (Segment::Param(_), Segment::Param(_)) => true,
            (a, b) => a == b,
        };
        self.host == other.host
            && self.tail == other.tail
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(same_segment)
    }
}

impl Segment {
    /// The parameter's name, if it is one.
    #[must_use]
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Param(name) => Some(name),
            Self::Literal(_) => None,
        }
    }
}

fn segment(text: &str) -> Result<Segment, &'static str> {
    // RFC 3986 §3.3: pchar, with '%' of an escape.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=@:".contains(&b);
    match text.strip_prefix(':') {
        _ if text == "..." => Err("'...' has to be at the end"),
        Some(name)
            if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') =>
        {
            Ok(Segment::Param(name.to_owned()))
        }
        // It would match itself alone, and who writes it means something else.
        _ if text.contains('*') => {
            Err("`*` is no wildcard here: for everything below write \"/x/...\", for one segment \"/x/:name\"")
        }
        Some(_) => Err("a parameter's name has lower-case letters, digits and '-'"),
        None if !text.bytes().all(allowed) => Err("a path has only URL characters"),
        None if text == "." || text == ".." => Err("'.' and '..' never reach a route"),
        None => Ok(Segment::Literal(text.to_owned())),
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host.as_deref().unwrap_or(""))?;
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Param(name) => write!(f, "/:{name}")?,
            }
        }
        match (self.tail, self.segments.is_empty()) {
            (true, _) => f.write_str("/..."),
            (false, true) => f.write_str("/"),
            (false, false) => Ok(()),
        }
    }
}

impl fmt::Debug for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RoutePattern {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RoutePattern {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for RoutePattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RoutePattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "examples": ["/price/...", "shop.example/api/:id"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_is_shown_again() {
        for text in ["/", "/...", "/price", "/price/", "/price/...", "/api/:id", "shop.example/api/:id/...", "a.b/"] {
            assert_eq!(RoutePattern::parse(text).map(|route| route.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn bad_patterns() {
        for bad in [
            "",
            "price",
            "/a/.../b",
            "/a...",
            "/:",
            "/:Id",
            "http://x/",
            "x:80/",
            "/a b",
            "/:a/:a",
            "/../x",
            "/a?b",
            "/a/*",
            "/*",
            "/a/*.png",
            "/:a*",
        ] {
            assert!(RoutePattern::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_star_is_no_wildcard_and_says_what_is_one() {
        let error = RoutePattern::parse("/x/*").expect_err("taken").to_string();
        assert!(error.contains("`*` is no wildcard here: for everything below write \"/x/...\""), "{error}");
        let encoded = RoutePattern::parse("/x/%2A").expect("a literal");
        assert_eq!(encoded.segments[1], Segment::Literal("%2A".into()));
    }

    #[test]
    fn parameter_names_do_not_tell_patterns_apart() {
        let parse = |text| RoutePattern::parse(text).expect(text);
        assert!(parse("/api/:id").claims_the_same_as(&parse("/api/:name")));
        assert!(!parse("/api/:id").claims_the_same_as(&parse("/api/id")));
        assert!(!parse("/api").claims_the_same_as(&parse("h/api")));
    }

    #[test]
    fn a_dot_at_the_end_does_not_tell_hosts_apart() {
        let parse = |text| RoutePattern::parse(text).expect(text);
        assert!(parse("Shop.Example./api").claims_the_same_as(&parse("shop.example/api")));
        assert_eq!(parse("shop.example./api").to_string(), "shop.example/api");
        assert!(RoutePattern::parse("./api").is_err() && RoutePattern::parse("shop.example../api").is_err());
    }
}
