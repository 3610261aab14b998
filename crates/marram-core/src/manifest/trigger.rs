//! `on`: what starts a function.
//!
//! An entry is one flat table; which trigger it is follows from the one source that it names. The table is read as a
//! whole first, so that an unknown key and a wrong value show their place, and taken apart then.

use serde::{Deserialize, Serialize};

use super::delivery::{ack_wait, in_flight};
use super::{Batch, BucketPattern, Delivery, From, Method, Order, Retry, TopicFilter};
use crate::limits::SCHEDULE_BYTES_MAX;
use crate::quantity::Span;
use crate::route::RoutePattern;
use crate::stream::StreamName;

/// What starts a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OnTable", into = "OnTable")]
pub enum On {
    /// Requests.
    Http(HttpTrigger),
    /// Messages of MQTT.
    Mqtt(MqttTrigger),
    /// Time.
    Schedule(ScheduleTrigger),
    /// Events of a stream.
    Stream(StreamTrigger),
    /// Keys that change.
    Key(KeyTrigger),
    /// Objects that are created or deleted.
    Object(ObjectTrigger),
}

/// Requests of a host and path.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTrigger {
    /// Host and path.
    pub http: RoutePattern,
    /// Only these methods; all of them if empty. `HEAD` comes with `GET`.
    pub methods: Vec<Method>,
}

/// Messages of MQTT topics.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttTrigger {
    /// Which topics.
    pub mqtt: TopicFilter,
    /// The most that is asked of a broker elsewhere, 0 to 2.
    pub qos: u8,
    /// How they are delivered.
    pub delivery: Delivery,
}

/// Moments by a cron expression.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleTrigger {
    /// The expression: five fields, or six with seconds in front.
    pub schedule: String,
    /// The IANA name of the time zone whose wall clock counts.
    pub timezone: String,
    /// What happens to moments at which the node did not run.
    pub missed: Missed,
    /// How they are delivered.
    pub delivery: Delivery,
}

/// Events of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamTrigger {
    /// Which stream.
    pub stream: StreamName,
    /// How they are delivered.
    pub delivery: Delivery,
}

/// Keys that change.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyTrigger {
    /// Which keys.
    pub key: BucketPattern,
    /// How they are delivered.
    pub delivery: Delivery,
}

/// Objects that are created or deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectTrigger {
    /// Which objects.
    pub object: BucketPattern,
    /// How they are delivered.
    pub delivery: Delivery,
}

/// What happens to moments of a schedule at which the node did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// The last of them is made up for.
    #[default]
    Once,
    /// They are left out.
    Skip,
    /// Each is made up for, in order.
    All,
}

/// A trigger as it is written: exactly one of `http`, `mqtt`, `schedule`, `stream`, `key` and `object`, and what belongs to
/// it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "On")]
pub struct OnTable {
    /// Requests of this host and path: `"/price/..."`, `"shop.example/api/:id"`. `:id` takes any one segment, `...` everything
    /// below; `*` is no wildcard, and refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<RoutePattern>,
    /// With `http`: only these methods; all of them if left out. `HEAD` comes with `GET`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// MQTT messages of these topics: `"plant/+/vibration"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<TopicFilter>,
    /// With `mqtt`: the quality of service asked of a broker elsewhere, 0 to 2. Default 1. What arrived is durable in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    /// Moments by a cron expression of five fields, or six with seconds in front: `"0 */5 * * * *"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// With `schedule`: the time zone whose wall clock counts, such as `"Europe/Berlin"`. Default `"UTC"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// With `schedule`: what happens to moments at which the node did not run: `"once"` makes up for the last of them,
    /// `"all"` for each, `"skip"` for none. Default `"once"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// Events of this stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamName>,
    /// Changes of these keys, as bucket and pattern: `"thresholds/*"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<BucketPattern>,
    /// Objects that are created or deleted, as bucket and pattern: `"uploads/*.png"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<BucketPattern>,
    /// Several events in one request: `{ max = 256, wait = "20ms" }`. Not with `http` and `schedule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// What happens to an event that fails: `{ max = 8, backoff = "100ms..1m" }`. Not with `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// `"subject"`: an event waits until the one before it with the same subject is settled. Default `"none"`. Not with
    /// `http` and `schedule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Events that may be delivered and not settled, 1 to 2048. One that waits for its next attempt after a failure is not
    /// counted. Default 256, or four batches. Not with `http`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "in_flight")]
    pub in_flight: Option<u32>,
    /// How long a delivery may go unheard of before it is made again, `1s` to `1h`. While the function runs it is extended.
    /// Default `1m`. Not with `http`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "ack_wait")]
    pub ack_wait: Option<Span>,
    /// Where a new consumer begins: at the `"first"` event that is kept, or with `"new"` ones. Default `"first"` with
    /// `stream`, otherwise `"new"`. Not with `http` and `schedule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
}

/// What a key belongs to: each source that takes it.
const KEYS: [(&str, &[&str]); 10] = [
    ("methods", &["http"]),
    ("qos", &["mqtt"]),
    ("timezone", &["schedule"]),
    ("missed", &["schedule"]),
    ("batch", &["mqtt", "stream", "key", "object"]),
    ("order", &["mqtt", "stream", "key", "object"]),
    ("from", &["mqtt", "stream", "key", "object"]),
    ("retry", &["mqtt", "schedule", "stream", "key", "object"]),
    ("in_flight", &["mqtt", "schedule", "stream", "key", "object"]),
    ("ack_wait", &["mqtt", "schedule", "stream", "key", "object"]),
];

impl OnTable {
    /// The one source.
    fn source(&self) -> Result<&'static str, String> {
        let written = [
            ("http", self.http.is_some()),
            ("mqtt", self.mqtt.is_some()),
            ("schedule", self.schedule.is_some()),
            ("stream", self.stream.is_some()),
            ("key", self.key.is_some()),
            ("object", self.object.is_some()),
        ];
        let mut sources = written.iter().filter(|(_, written)| *written).map(|(name, _)| *name);
        match (sources.next(), sources.next()) {
            (Some(source), None) => Ok(source),
            (Some(one), Some(other)) => {
                Err(format!("a trigger has one source, and this one has `{one}` and `{other}`: write two triggers"))
            }
            (None, _) => {
                Err("this trigger has no source: write one of `http`, `mqtt`, `schedule`, `stream`, `key` and `object`"
                    .into())
            }
        }
    }

    /// Refuses a key that says nothing of `source`.
    fn check_keys(&self, source: &str) -> Result<(), String> {
        let written = [
            !self.methods.is_empty(),
            self.qos.is_some(),
            self.timezone.is_some(),
            self.missed.is_some(),
            self.batch.is_some(),
            self.order.is_some(),
            self.from.is_some(),
            self.retry.is_some(),
            self.in_flight.is_some(),
            self.ack_wait.is_some(),
        ];
        for ((key, sources), written) in KEYS.iter().zip(written) {
            if written && !sources.contains(&source) {
                let list = sources.iter().map(|source| format!("`{source}`")).collect::<Vec<_>>().join(", ");
                return Err(format!("`{key}` says nothing of a trigger with `{source}`: it goes with {list}"));
            }
        }
        Ok(())
    }
}

impl TryFrom<OnTable> for On {
    type Error = String;

    fn try_from(table: OnTable) -> Result<Self, String> {
        let source = table.source()?;
        table.check_keys(source)?;
        if table.qos.is_some_and(|qos| qos > 2) {
            return Err("`qos` is a quality of service: 0, 1 or 2".into());
        }
        let OnTable { http, methods, mqtt, qos, schedule, timezone, missed, stream, key, object, .. } = table;
        let OnTable { batch, retry, order, in_flight, ack_wait, from, .. } = table;
        let delivery = Delivery { batch, retry, order, in_flight, ack_wait, from };
        let trigger = if let Some(http) = http {
            Self::Http(HttpTrigger { http, methods })
        } else if let Some(mqtt) = mqtt {
            Self::Mqtt(MqttTrigger { mqtt, qos: qos.unwrap_or(1), delivery })
        } else if let Some(stream) = stream {
            Self::Stream(StreamTrigger { stream, delivery })
        } else if let Some(key) = key {
            Self::Key(KeyTrigger { key, delivery })
        } else if let Some(object) = object {
            Self::Object(ObjectTrigger { object, delivery })
        } else {
            let schedule = spaced_once(&schedule.unwrap_or_default());
            check_schedule(&schedule)?;
            let timezone = timezone.unwrap_or_else(|| "UTC".into());
            Self::Schedule(ScheduleTrigger { schedule, timezone, missed: missed.unwrap_or_default(), delivery })
        };
        Ok(trigger)
    }
}

impl std::convert::From<On> for OnTable {
    fn from(on: On) -> Self {
        let Delivery { batch, retry, order, in_flight, ack_wait, from } = on.delivery().cloned().unwrap_or_default();
        let table = Self { batch, retry, order, in_flight, ack_wait, from, ..Self::default() };
        match on {
            On::Http(HttpTrigger { http, methods }) => Self { http: Some(http), methods, ..table },
            On::Mqtt(MqttTrigger { mqtt, qos, .. }) => Self { mqtt: Some(mqtt), qos: Some(qos), ..table },
            On::Schedule(ScheduleTrigger { schedule, timezone, missed, .. }) => {
                Self { schedule: Some(schedule), timezone: Some(timezone), missed: Some(missed), ..table }
            }
            On::Stream(StreamTrigger { stream, .. }) => Self { stream: Some(stream), ..table },
            On::Key(KeyTrigger { key, .. }) => Self { key: Some(key), ..table },
            On::Object(ObjectTrigger { object, .. }) => Self { object: Some(object), ..table },
        }
    }
}

impl On {
    /// The trigger, if it takes requests.
    #[must_use]
    pub const fn http(&self) -> Option<&HttpTrigger> {
        match self {
            Self::Http(trigger) => Some(trigger),
            _ => None,
        }
    }

    /// How events are delivered; `None` for requests.
    #[must_use]
    pub const fn delivery(&self) -> Option<&Delivery> {
        match self {
            Self::Http(_) => None,
            Self::Mqtt(trigger) => Some(&trigger.delivery),
            Self::Schedule(trigger) => Some(&trigger.delivery),
            Self::Stream(trigger) => Some(&trigger.delivery),
            Self::Key(trigger) => Some(&trigger.delivery),
            Self::Object(trigger) => Some(&trigger.delivery),
        }
    }

    /// What starts it, in one word and a line: `mqtt:plant/+/vibration`. The same in the next revision is the same
    /// consumer.
    #[must_use]
    pub fn source(&self) -> String {
        match self {
            Self::Http(trigger) => format!("http:{}", trigger.http),
            Self::Mqtt(trigger) => format!("mqtt:{}", trigger.mqtt),
            Self::Schedule(trigger) => format!("schedule:{} {}", trigger.schedule, trigger.timezone),
            Self::Stream(trigger) => format!("stream:{}", trigger.stream),
            Self::Key(trigger) => format!("key:{}", trigger.key),
            Self::Object(trigger) => format!("object:{}", trigger.object),
        }
    }
}

impl HttpTrigger {
    /// Whether both take some request and neither is more specific.
    #[must_use]
    pub fn claims_the_same_as(&self, other: &Self) -> bool {
        let methods_meet = self.methods.is_empty() == other.methods.is_empty()
            && (self.methods.is_empty() || self.methods.iter().any(|m| other.methods.contains(m)));
        methods_meet && self.http.claims_the_same_as(&other.http)
    }
}

impl schemars::JsonSchema for On {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "On".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        OnTable::json_schema(generator)
    }
}

fn spaced_once(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// That it looks like a cron expression. Whether it is one, and whether the time zone is known, is checked where the
/// calendar is: in `marram-trigger`, before anything is deployed.
fn check_schedule(schedule: &str) -> Result<(), String> {
    let shown = || schedule.chars().take(80).collect::<String>();
    if schedule.len() > SCHEDULE_BYTES_MAX {
        return Err(format!("the schedule has {} bytes, more than {SCHEDULE_BYTES_MAX}", schedule.len()));
    }
    let fields = schedule.split(' ').filter(|field| !field.is_empty()).count();
    if fields != 5 && fields != 6 {
        return Err(format!(
            "{:?} is not a schedule: write five fields (minute, hour, day, month, weekday), or six with seconds in front, such as \"0 */5 * * * *\"",
            shown()
        ));
    }
    if !schedule.bytes().all(|b| b.is_ascii_alphanumeric() || b" *,-/#?".contains(&b)) {
        return Err(format!("{:?} is not a schedule: it has a character that cron expressions do not have", shown()));
    }
    Ok(())
}
