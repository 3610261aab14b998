//! `limits`: the table of a function, each value checked against its range where it is read.

use std::fmt::Display;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{LIMIT_RANGE, Limits};
use crate::quantity::{ByteSize, Span};

/// How much a function may use. What is left out has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsTable {
    /// Linear memory of an instance, `64KiB` to `4GiB`. Default `128MiB`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "memory")]
    pub memory: Option<ByteSize>,
    /// Wall-clock time from a request's arrival to the end of its answer, `1ms` to `60m`. Default `30s`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "deadline")]
    pub deadline: Option<Span>,
    /// CPU time of one invocation, `1ms` to `60m`. Default `10s`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "cpu")]
    pub cpu: Option<Span>,
    /// Invocations at the same time, 1 to 10000. Default 128.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "concurrency")]
    pub concurrency: Option<u32>,
    /// Requests that may wait for one of these, 0 to 100000. Default 256.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "queue")]
    pub queue: Option<u32>,
    /// Bytes of a request's body, up to `64GiB`. Default `8MiB`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "body")]
    pub body: Option<ByteSize>,
    /// Bytes of log output of one invocation, up to `64MiB`; the rest is counted and dropped. Default `256KiB`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "log")]
    pub log: Option<ByteSize>,
}

impl LimitsTable {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The limits with every default filled in.
    #[must_use]
    pub fn resolve(&self) -> Limits {
        let default = Limits::default();
        Limits {
            memory: self.memory.unwrap_or(default.memory),
            deadline: self.deadline.map_or(default.deadline, |span| span.0),
            cpu: self.cpu.map_or(default.cpu, |span| span.0),
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            queue: self.queue.unwrap_or(default.queue),
            body: self.body.unwrap_or(default.body),
            log: self.log.unwrap_or(default.log),
        }
    }
}

macro_rules! checked {
    ($($name:ident: $type:ty;)*) => {$(
        fn $name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<$type>, D::Error> {
            within(stringify!($name), <$type>::deserialize(from)?, LIMIT_RANGE.$name).map(Some).map_err(serde::de::Error::custom)
        }
    )*};
}

checked! {
    memory: ByteSize;
    deadline: Span;
    cpu: Span;
    concurrency: u32;
    queue: u32;
    body: ByteSize;
    log: ByteSize;
}

fn within<T: PartialOrd + Display>(what: &str, value: T, (min, max): (T, T)) -> Result<T, String> {
    if value < min || value > max {
        return Err(format!("the limit `{what}` is {value}: it has to be from {min} to {max}"));
    }
    Ok(value)
}
