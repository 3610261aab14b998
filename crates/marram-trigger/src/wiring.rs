//! From a trigger of a manifest to the consumer that it is.

use std::sync::Arc;

use marram_core::Name;
use marram_core::capture::Capture;
use marram_core::event::SubjectFilter;
use marram_core::manifest::{Batch, Delivery, From, On, Order};
use marram_core::stream::{ConsumerId, ConsumerPolicy, Start, StreamName};

use crate::{key, mqtt, object, schedule, stream};

/// What a trigger is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Wiring {
    /// What it consumes.
    pub stream: StreamName,
    /// As whom.
    pub id: ConsumerId,
    /// How.
    pub policy: ConsumerPolicy,
    /// What has to be captured into the stream for it.
    pub capture: Option<Capture>,
    /// Whether several events come in one request.
    pub batch: Option<Batch>,
    /// The trigger as text, for people: `mqtt:plant/+/vibration`.
    pub source: String,
}

impl Wiring {
    /// The wiring of a trigger of `function` of `app`; `None` for one that takes requests.
    #[must_use]
    pub fn of(app: &Name, function: &Name, on: &On) -> Option<Self> {
        let (stream, filter, capture) = match on {
            On::Http(_) => return None,
            On::Stream(trigger) => stream::wire(trigger),
            On::Mqtt(trigger) => mqtt::wire(trigger),
            On::Key(trigger) => key::wire(trigger),
            On::Object(trigger) => object::wire(trigger),
            On::Schedule(trigger) => schedule::wire(app, function, trigger),
        };
        let delivery = on.delivery().cloned().unwrap_or_default();
        let begins = match (delivery.from, on) {
            (Some(From::First), _) | (None, On::Stream(_) | On::Schedule(_)) => Start::First,
            (Some(From::New) | None, _) => Start::Next,
        };
        let source = on.source();
        let id = ConsumerId(Arc::from(format!("{app}/{function}/{source}")));
        Some(Self { stream, id, policy: policy(&delivery, filter, begins), capture, batch: delivery.batch, source })
    }
}

fn policy(delivery: &Delivery, filter: SubjectFilter, start: Start) -> ConsumerPolicy {
    let default = ConsumerPolicy::default();
    let retry = delivery.retry;
    let backoff = retry.and_then(|retry| retry.backoff);
    // Four batches: one that runs, one that fills, and one of each for another core.
    let batches = delivery.batch.map_or(0, |batch| batch.max.saturating_mul(4));
    let in_flight = default.in_flight_max.max(batches).min(marram_core::limits::IN_FLIGHT_MAX);
    ConsumerPolicy {
        filter,
        start,
        order_by_subject: delivery.order == Some(Order::Subject),
        in_flight_max: delivery.in_flight.unwrap_or(in_flight),
        ack_wait: delivery.ack_wait.map_or(default.ack_wait, |wait| wait.0),
        deliveries_max: retry.and_then(|retry| retry.max).unwrap_or(default.deliveries_max),
        backoff_min: backoff.map_or(default.backoff_min, |backoff| backoff.min),
        backoff_max: backoff.map_or(default.backoff_max, |backoff| backoff.max),
    }
}
