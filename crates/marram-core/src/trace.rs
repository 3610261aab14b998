//! W3C Trace Context: the identifiers that tie a request, its logs and its onward calls together.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One position in a trace: which trace, which span, and whether the caller records it (W3C Trace Context §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// Not zero.
    pub trace: TraceId,
    /// The span of this invocation; children name it as their parent. Not zero.
    pub span: SpanId,
    /// Bit 0 of the flags.
    pub sampled: bool,
}

/// 16 bytes, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

/// 8 bytes, written as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub u64);

/// Identifies one request to this node, in answers, logs and meter records: 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

/// Bytes of a `traceparent`: `00-<32>-<16>-<2>`.
pub const TRACEPARENT_BYTES: usize = 55;

impl TraceContext {
    /// Reads a `traceparent` header. Later versions are read as version 0 with a tail (§3.2.4); anything else that is
    /// not valid is `None`, and the caller starts a trace of its own.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let version = hex(header.get(..2)?)?;
        let known_length = header.len() == TRACEPARENT_BYTES;
        let longer_version = version != 0 && header.get(TRACEPARENT_BYTES) == Some(&b'-');
        if version == 0xff || !(known_length || longer_version) {
            return None;
        }
        if [2, 35, 52].iter().any(|dash| header[*dash] != b'-') {
            return None;
        }
        let trace = hex(&header[3..35])?;
        let span = u64::try_from(hex(&header[36..52])?).ok()?;
        let flags = hex(&header[53..55])?;
        (trace != 0 && span != 0).then_some(Self { trace: TraceId(trace), span: SpanId(span), sampled: flags & 1 == 1 })
    }

    /// The header that onward calls carry.
    #[must_use]
    pub fn header(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut out[3..35], self.trace.0);
        write_hex(&mut out[36..52], u128::from(self.span.0));
        write_hex(&mut out[53..55], u128::from(self.sampled));
        out
    }

    /// The same trace with another span: a child.
    #[must_use]
    pub const fn child(self, span: SpanId) -> Self {
        Self { span, ..self }
    }
}

/// Lower-case hex only, as the recommendation demands.
fn hex(digits: &[u8]) -> Option<u128> {
    let nibble = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 16];
    for (byte, digits) in bytes.iter_mut().zip(digits.rchunks_exact(2)) {
        *byte = nibble(&digits[0])? << 4 | nibble(&digits[1])?;
    }
    Some(u128::from_le_bytes(bytes))
}

/// Two digits for each byte of the end of `value`.
fn write_hex(out: &mut [u8], value: u128) {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    for (digits, byte) in out.rchunks_exact_mut(2).zip(value.to_le_bytes()) {
        digits.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

macro_rules! hex_form {
    ($type:ident, $inner:ty, $digits:literal, $pattern:literal) => {
        impl $type {
            /// The identifier as ASCII hex digits.
            #[must_use]
            pub fn digits(self) -> [u8; $digits] {
                let mut out = [0; $digits];
                write_hex(&mut out, u128::from(self.0));
                out
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", stringify!($digits), "x}"), self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $type {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <$inner>::from_str_radix(text, 16).map(Self)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
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

hex_form!(TraceId, u128, 32, "^[0-9a-f]{32}$");
hex_form!(SpanId, u64, 16, "^[0-9a-f]{16}$");
hex_form!(RequestId, u64, 16, "^[0-9a-f]{16}$");

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn reads_and_writes_the_example_of_the_recommendation() {
        let context = TraceContext::parse(GOOD).expect("valid");
        assert!(context.sampled);
        assert_eq!(context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.header(), GOOD);
    }

    #[test]
    fn refuses_what_is_not_valid() {
        for bad in [
            &b""[..],
            b"00",
            b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            b"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-tail",
            b"00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
        let later = b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes";
        assert!(TraceContext::parse(later).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(0u8.., 0..80)) {
            let _ = TraceContext::parse(&bytes);
        }
    }
}
