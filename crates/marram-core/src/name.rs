//! Names of apps and functions.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: it has to fit a DNS label (RFC 1035 §2.3.4).
pub const NAME_BYTES_MAX: usize = 63;

/// The name of an app or of a function: a DNS label in lower case, `[a-z]([a-z0-9-]*[a-z0-9])?`, at most 63 bytes.
///
/// A name becomes a host (`<function>.internal`), a path, a label of a metric and a key of the store, so it is what all
/// of these take. Cloning is a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a name: {why} (lower-case letters, digits and '-', at most {NAME_BYTES_MAX}, starting with a letter)"
)]
pub struct NameError {
    text: String,
    why: &'static str,
}

impl Name {
    /// Checks `text` and makes it a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let why = match bytes {
            [] => "it is empty",
            _ if bytes.len() > NAME_BYTES_MAX => "it is too long",
            [first, ..] if !first.is_ascii_lowercase() => "it does not start with a lower-case letter",
            [.., b'-'] => "it ends with '-'",
            _ if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') => {
                "it has another character"
            }
            _ => return Ok(Self(text.into())),
        };
        Err(NameError { text: text.chars().take(80).collect(), why })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": NAME_BYTES_MAX
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "shop", "price-2", &"x".repeat(63)] {
            assert_eq!(Name::new(good).map(|n| n.to_string()), Ok(good.to_string()));
        }
        for bad in ["", "2shop", "Shop", "a_b", "a.b", "a/../b", "shop-", "é", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad:?} was taken");
        }
    }
}
