//! `[stream.<name>]` and `[bucket.<name>]`: what an app declares besides its functions.

use std::fmt::Display;

use serde::{Deserialize, Deserializer, Serialize};

use super::TopicFilter;
use crate::Name;
use crate::limits::{DEDUPE_MAX, ENTRIES_MAX, STREAM_AGE, STREAM_BYTES};
use crate::quantity::{ByteSize, Span};
use crate::stream::{Overflow, StreamName, StreamPolicy};

/// A stream and what it keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamTable {
    /// How much it keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain: Option<Retain>,
    /// What happens past that: `"reject"` refuses to take more while what is kept is owed to a consumer, and
    /// `"drop-oldest"` drops it. Default `"reject"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// How long the source and id of an event are remembered, so that the same again is not stored twice: up to seven
    /// days. Default `2m`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "dedupe")]
    pub dedupe: Option<Span>,
    /// Whether events are taken over HTTP on the public listener, with a token.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ingest: bool,
    /// MQTT topics whose messages are stored here as well, as filters: `["plant/#"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mqtt: Vec<TopicFilter>,
}

/// How much a stream keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retain {
    /// Bytes of all events, from `2MiB`. Default `1GiB`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "bytes")]
    pub bytes: Option<ByteSize>,
    /// How old they get, from `1s`. Default `7d`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "age")]
    pub age: Option<Span>,
}

/// A bucket of objects. There is nothing to say of it yet: `[bucket.uploads]` is enough.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BucketTable {}

impl StreamTable {
    /// What the stream keeps, with every default filled in.
    #[must_use]
    pub fn policy(&self) -> StreamPolicy {
        let default = StreamPolicy::default();
        let retain = self.retain.clone().unwrap_or_default();
        StreamPolicy {
            bytes_max: retain.bytes.map_or(default.bytes_max, |bytes| bytes.0),
            age_max: retain.age.map_or(default.age_max, |age| age.0),
            overflow: self.overflow.unwrap_or(default.overflow),
            dedupe: self.dedupe.map_or(default.dedupe, |dedupe| dedupe.0),
        }
    }

    pub(super) fn check(&self, name: &Name) -> Result<(), String> {
        if self.mqtt.len() > ENTRIES_MAX {
            return Err(format!("`mqtt` has {} entries, more than {ENTRIES_MAX}", self.mqtt.len()));
        }
        if StreamName::from(name).is_source() && (self.ingest || !self.mqtt.is_empty()) {
            return Err("only the node publishes to it: `ingest` and `mqtt` belong to a stream of another name".into());
        }
        Ok(())
    }
}

fn within<T: PartialOrd + Display>(what: &str, value: T, (min, max): (T, T)) -> Result<Option<T>, String> {
    if value < min || value > max {
        return Err(format!("`{what}` is {value}: it has to be from {min} to {max}"));
    }
    Ok(Some(value))
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ByteSize>, D::Error> {
    within("bytes", ByteSize::deserialize(from)?, STREAM_BYTES).map_err(serde::de::Error::custom)
}

fn age<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Span>, D::Error> {
    within("age", Span::deserialize(from)?, STREAM_AGE).map_err(serde::de::Error::custom)
}

fn dedupe<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Span>, D::Error> {
    within("dedupe", Span::deserialize(from)?, (Span::default(), DEDUPE_MAX)).map_err(serde::de::Error::custom)
}
