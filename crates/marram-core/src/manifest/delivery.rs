//! How events are delivered: what every trigger that is an event may say.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{ACK_WAIT, BACKOFF_MAX, BATCH_EVENTS_MAX, BATCH_WAIT_MAX, DELIVERIES_MAX, IN_FLIGHT_MAX};
use crate::quantity::Span;

/// How events are delivered. What is left out has a default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivery {
    /// Several events in one request.
    pub batch: Option<Batch>,
    /// What happens to an event that fails.
    pub retry: Option<Retry>,
    /// Whether an event waits for an earlier one.
    pub order: Option<Order>,
    /// Events that may be delivered and not settled; those that wait for their next attempt are not counted.
    pub in_flight: Option<u32>,
    /// How long a settlement may take.
    pub ack_wait: Option<Span>,
    /// Where a new consumer begins.
    pub from: Option<From>,
}

/// Several events in one request, as `application/cloudevents-batch+json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Events of a request at most, 1 to 1000.
    #[serde(deserialize_with = "batch_max")]
    pub max: u32,
    /// How long the first of them waits for others, up to `1m`. Default `0s`: what is there goes.
    #[serde(default, deserialize_with = "batch_wait", skip_serializing_if = "is_zero")]
    pub wait: Span,
}

/// What happens to an event whose delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Deliveries in all, the first included, before it goes to the dead-letter stream: 1 to 1000. Default 8.
    #[serde(default, deserialize_with = "deliveries", skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// The first wait and the longest, as in `"100ms..1m"`; it doubles in between. `Retry-After` is honoured up to the
    /// longest. Default `"100ms..1m"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
}

/// A shortest and a longest wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second delivery.
    pub min: Duration,
    /// Never longer than this.
    pub max: Duration,
}

/// What waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Nothing.
    None,
    /// An event waits until the one before it with the same subject is settled.
    Subject,
}

/// Where a consumer begins that was not there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// At the oldest event that is kept.
    First,
    /// At what comes after the deployment.
    New,
}

fn is_zero(span: &Span) -> bool {
    span.0.is_zero()
}

fn within<T: PartialOrd + fmt::Display>(what: &str, value: T, (min, max): (T, T)) -> Result<T, String> {
    if value < min || value > max {
        return Err(format!("`{what}` is {value}: it has to be from {min} to {max}"));
    }
    Ok(value)
}

fn batch_max<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    within("max", u32::deserialize(from)?, (1, BATCH_EVENTS_MAX)).map_err(serde::de::Error::custom)
}

fn batch_wait<'de, D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
    let range = (Span(Duration::ZERO), Span(BATCH_WAIT_MAX));
    within("wait", Span::deserialize(from)?, range).map_err(serde::de::Error::custom)
}

fn deliveries<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    within("max", u32::deserialize(from)?, (1, DELIVERIES_MAX)).map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn in_flight<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    within("in_flight", u32::deserialize(from)?, (1, IN_FLIGHT_MAX)).map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn ack_wait<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Span>, D::Error> {
    let range = (Span(ACK_WAIT.0), Span(ACK_WAIT.1));
    within("ack_wait", Span::deserialize(from)?, range).map(Some).map_err(serde::de::Error::custom)
}

impl Backoff {
    /// `"100ms..1m"`, or `"1s"` where it stays the same.
    fn parse(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let span = |part: &str| part.parse::<Span>().map_err(|error| format!("{error}, or two of them: \"100ms..1m\""));
        let (min, max) = (span(min)?.0, span(max)?.0);
        if min.is_zero() || max < min || max > BACKOFF_MAX {
            let text = text.chars().take(40).collect::<String>();
            return Err(format!(
                "{text:?} is not a back-off: write the first wait and the longest, such as \"100ms..1m\""
            ));
        }
        Ok(Self { min, max })
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", Span(self.min), Span(self.max))
    }
}

impl Serialize for Backoff {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl serde::de::Visitor<'_> for Written {
            type Value = Backoff;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a first wait and a longest in quotes, such as \"100ms..1m\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Backoff, E> {
                Backoff::parse(text).map_err(E::custom)
            }
        }

        from.deserialize_str(Written)
    }
}

impl schemars::JsonSchema for Backoff {
    fn schema_name() -> Cow<'static, str> {
        "Backoff".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "examples": ["100ms..1m", "1s"] })
    }
}
