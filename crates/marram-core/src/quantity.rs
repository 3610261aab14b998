//! Sizes and durations as people write them: `64MiB`, `200ms`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes, written `512`, `64KiB`, `8MiB`, `1GiB` (powers of 1024) or `8MB`, `1GB` (powers of 1000).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A span of time, written `250us`, `20ms`, `2s`, `1.5s`, `5m`, `12h` or `7d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: write a number and a unit, such as {example}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
    example: &'static str,
}

const BYTE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Units in nanoseconds; the longer suffix first, because `ms` also ends with `s`.
const TIME_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// `<number><unit>` in the smallest unit, or `None`. The number may have a fraction; the unit may be left out if `bare`.
fn parse(text: &str, units: &[(&str, u64)], bare: bool) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let factor = match units.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None if bare && unit.is_empty() => 1,
        None => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    // 2^53: past it a float no longer holds every whole number.
    (value.is_finite() && (0.0..9_007_199_254_740_992.0).contains(&value)).then_some(value.round() as u64)
}

impl std::str::FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text, &BYTE_UNITS, true).map(ByteSize).ok_or_else(|| QuantityError {
            text: text.chars().take(40).collect(),
            what: "size",
            example: "\"64MiB\" or \"512KiB\"",
        })
    }
}

impl std::str::FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text, &TIME_UNITS, false).map(|ns| Span(Duration::from_nanos(ns))).ok_or_else(|| QuantityError {
            text: text.chars().take(40).collect(),
            what: "duration",
            example: "\"200ms\", \"2s\" or \"5m\"",
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The unit of the smallest whole number: most likely the one that it was written in.
        let exact = BYTE_UNITS
            .iter()
            .filter(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .min_by_key(|(_, factor)| self.0 / factor);
        match exact {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => f.write_str("0B"),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        if ns == 0 {
            return f.write_str("0s");
        }
        // Days and hours read worse than they save: the largest unit written is the minute.
        let (unit, factor) =
            TIME_UNITS[..5].iter().rev().find(|(_, factor)| ns.is_multiple_of(*factor)).unwrap_or(&TIME_UNITS[0]);
        write!(f, "{}{unit}", ns / factor)
    }
}

macro_rules! text_form {
    ($type:ident, $written:literal, $pattern:literal) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Written;

                impl serde::de::Visitor<'_> for Written {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($written)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                from.deserialize_str(Written)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

text_form!(ByteSize, "a size in quotes, such as \"64MiB\"", r"^[0-9.]+ *(B|KB|KiB|MB|MiB|GB|GiB)?$");
text_form!(Span, "a duration in quotes, such as \"2s\"", r"^[0-9.]+ *(ns|us|ms|s|m|h|d)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("1KiB", 1024), ("1.5KiB", 1536), ("64 MiB", 64 << 20), ("2MB", 2_000_000)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "MiB", "64mib", "-1", "1e9", "1..2KiB", "99999999999999GiB", "64 MiB x"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?} was taken");
        }
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(ByteSize(1500).to_string(), "1500B");
        for written in ["0B", "64GB", "3KiB", "4608MiB", "1KB", "1KiB"] {
            assert_eq!(written.parse::<ByteSize>().map(|size| size.to_string()), Ok(written.to_owned()));
        }
    }

    #[test]
    fn spans() {
        for (text, ms) in [("20ms", 20), ("2s", 2_000), ("1.5s", 1_500), ("5m", 300_000), ("1d", 86_400_000)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for bad in ["", "2", "s", "2 seconds", "-2s", "999999999999d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?} was taken");
        }
        assert_eq!(Span(Duration::from_millis(1_500)).to_string(), "1500ms");
        assert_eq!(Span(Duration::from_secs(300)).to_string(), "5m");
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes in 0u64..1 << 50, ns in 0u64..1 << 60) {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
            let span = Span(Duration::from_nanos(ns));
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
