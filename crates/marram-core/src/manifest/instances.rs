//! `instances`: whether an instance serves one request or many.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{CONCURRENT_MAX, REUSE_MAX, WARM_MAX};
use crate::quantity::Span;

/// What a manifest says of instances.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Instances {
    /// `"fresh"`: every request gets an instance of its own, which nothing else has touched.
    Fresh(Fresh),
    /// An instance serves several requests.
    Reuse(Reuse),
}

/// The word `"fresh"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fresh {
    /// The only value.
    Fresh,
}

/// How an instance is used again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reuse {
    /// Requests that an instance serves before it is replaced.
    #[serde(default = "reuse_default", deserialize_with = "reuse")]
    pub reuse: u32,
    /// Requests at the same time in one instance; more than 1 only for `wasi:http@0.3` and JavaScript.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "concurrent")]
    pub concurrent: Option<u32>,
    /// How long an instance with nothing to do is kept.
    #[serde(default = "idle_default")]
    pub idle: Span,
    /// Instances kept ready before a request comes.
    #[serde(default, deserialize_with = "warm")]
    pub warm: u32,
}

/// How instances are used, with every default filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstancePolicy {
    /// Requests that an instance serves before it is replaced; 1 is fresh.
    pub reuse: u32,
    /// Requests at the same time in one instance.
    pub concurrent: u32,
    /// How long an instance with nothing to do is kept.
    pub idle: Duration,
    /// Instances kept ready.
    pub warm: u32,
}

impl InstancePolicy {
    /// One request per instance: what `wasi:http@0.2` gets if nothing is said.
    pub const FRESH: Self = Self { reuse: 1, concurrent: 1, idle: Duration::ZERO, warm: 0 };
    /// 128 requests, 16 at once: what `wasi:http@0.3` and JavaScript get if nothing is said.
    pub const SHARED: Self = Self { reuse: 128, concurrent: 16, idle: Duration::from_secs(1), warm: 0 };
    /// 128 requests, one after the other: what Python gets if nothing is said.
    pub const SERIAL: Self = Self { concurrent: 1, ..Self::SHARED };

    /// What the manifest says, or `default`.
    #[must_use]
    pub fn of(written: Option<&Instances>, default: Self) -> Self {
        match written {
            None => default,
            Some(Instances::Fresh(_)) => Self::FRESH,
            Some(Instances::Reuse(reuse)) => Self {
                reuse: reuse.reuse,
                concurrent: reuse.concurrent.unwrap_or(default.concurrent),
                idle: reuse.idle.0,
                warm: reuse.warm,
            },
        }
    }
}

fn reuse_default() -> u32 {
    InstancePolicy::SHARED.reuse
}

fn idle_default() -> Span {
    Span(InstancePolicy::SHARED.idle)
}

fn within(what: &str, value: u32, min: u32, max: u32) -> Result<u32, String> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(format!("`{what}` is {value}: it has to be from {min} to {max}"))
    }
}

fn reuse<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    within("reuse", u32::deserialize(from)?, 1, REUSE_MAX).map_err(serde::de::Error::custom)
}

fn concurrent<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    within("concurrent", u32::deserialize(from)?, 1, CONCURRENT_MAX).map(Some).map_err(serde::de::Error::custom)
}

fn warm<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    within("warm", u32::deserialize(from)?, 0, WARM_MAX).map_err(serde::de::Error::custom)
}

/// By hand, because an untagged enum would hide which key of the table is wrong.
impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Instances;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"fresh\" or a table such as { reuse = 128, concurrent = 16 }")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Instances, E> {
                match text {
                    "fresh" => Ok(Instances::Fresh(Fresh::Fresh)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Instances, A::Error> {
                Reuse::deserialize(MapAccessDeserializer::new(map)).map(Instances::Reuse)
            }
        }

        from.deserialize_any(Visitor)
    }
}
