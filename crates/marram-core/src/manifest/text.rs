//! Texts of a manifest that are more than text: methods, topic filters, and patterns of keys and objects.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Name;
use crate::event::SubjectFilter;

/// An HTTP method in a manifest: a token in upper case (RFC 9110 §9.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Method(String);

impl Method {
    /// The method as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        let token = !text.is_empty() && text.len() <= 24 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if !token {
            let message = format!(
                "{:?} is not a method: write it in upper case, such as \"GET\"",
                text.chars().take(40).collect::<String>()
            );
            return Err(serde::de::Error::custom(message));
        }
        Ok(Self(text.into_owned()))
    }
}

impl schemars::JsonSchema for Method {
    fn schema_name() -> Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Z-]{1,24}$" })
    }
}

/// An MQTT topic filter: `plant/+/vibration`, `plant/#` (MQTT 5.0 §4.7).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter(SubjectFilter);

impl TopicFilter {
    /// Checks `text` and makes it a filter.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.starts_with("$share/") {
            // The functions of a node share by having one consumer.
            return Err(format!(
                "{text:?} is a shared subscription: leave out `$share/…/`, each message is taken once"
            ));
        }
        SubjectFilter::topic(text).map(Self).map_err(|error| error.to_string())
    }

    /// What it takes.
    #[must_use]
    pub const fn filter(&self) -> &SubjectFilter {
        &self.0
    }
}

/// Keys or objects of one bucket: `<bucket>/<pattern>`, where `*` is any text without `/`, `**` any text, and `?` one
/// character.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketPattern {
    /// The bucket.
    pub bucket: Name,
    /// Which of its keys or objects; never empty.
    pub pattern: String,
    filter: SubjectFilter,
}

impl BucketPattern {
    /// Checks `text` and makes it a pattern.
    pub fn new(text: &str) -> Result<Self, String> {
        let shown = || text.chars().take(80).collect::<String>();
        let (bucket, pattern) = text.split_once('/').filter(|(_, pattern)| !pattern.is_empty()).ok_or_else(|| {
            format!("{:?} is not a bucket and a pattern: write \"uploads/*.png\" or \"state/**\"", shown())
        })?;
        let bucket =
            Name::new(bucket).map_err(|error| format!("{:?} does not begin with a bucket: {error}", shown()))?;
        let filter = SubjectFilter::glob(text).map_err(|error| error.to_string())?;
        Ok(Self { bucket, pattern: pattern.to_owned(), filter })
    }

    /// Which subjects `<bucket>/<key>` it takes.
    #[must_use]
    pub const fn filter(&self) -> &SubjectFilter {
        &self.filter
    }
}

macro_rules! text_form {
    ($type:ident, $example:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self.filter(), f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(from)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "examples": [$example] })
            }
        }
    };
}

text_form!(TopicFilter, "plant/+/vibration");
text_form!(BucketPattern, "uploads/*.png");
