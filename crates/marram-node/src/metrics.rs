//! What the node's state says of itself at `/metrics`: streams and their consumers, keys, MQTT, S3.
//!
//! All of it is counted already: nothing here looks into a table. Labels are names that apps declare, and there are limits to
//! those; what clients choose (topics, client identifiers, keys, objects) is never one.

use marram_core::port::Streams as _;
use marram_core::port::streams::{ConsumerState, StreamState};
use marram_telemetry::{Family, Labels, Values};
use marram_trigger::{AppliedTrigger, Counts};

use crate::node::Parts;

/// Everything, as it is now.
pub(crate) async fn of_state(parts: &Parts) -> Vec<Family> {
    // From memory, though the port allows for more.
    let streams = parts.streams.list().unwrap_or_default();
    let mut families = vec![Family::level(
        "marram_store_full",
        "Whether the disk is full: changes are refused.",
        f64::from(u8::from(parts.store.is_full())),
    )];
    families.extend(of_streams(&streams));
    families.extend(of_consumers(&streams));
    families.extend(of_triggers(&parts.triggers.status()));
    families.extend(of_mqtt(parts).await);
    families.extend(of_keys(parts));
    families.extend(of_s3(parts));
    families
}

fn of_streams(streams: &[StreamState]) -> Vec<Family> {
    let labels = |stream: &StreamState| vec![("stream", stream.name.to_string())];
    let level = |name, help, of: fn(&StreamState) -> u64| {
        let values = streams.iter().map(|stream| (labels(stream), of(stream) as f64)).collect();
        Family { name, help, values: Values::Levels(values) }
    };
    let count = |name, help, of: fn(&StreamState) -> u64| {
        let values = streams.iter().map(|stream| (labels(stream), of(stream))).collect();
        Family { name, help, values: Values::Counts(values) }
    };
    vec![
        level("marram_stream_events", "Events that a stream keeps.", |stream| stream.events),
        level("marram_stream_bytes", "Bytes that a stream keeps.", |stream| stream.bytes),
        level("marram_stream_limit_bytes", "Bytes that a stream may keep.", |stream| stream.policy.bytes_max),
        count("marram_stream_published", "Events that were stored since the stream was made.", |stream| stream.last),
        count("marram_stream_dropped", "Events that went while a consumer was owed them.", |stream| stream.dropped),
        count("marram_stream_rejected", "Publishes that were refused for want of room.", |stream| stream.rejected),
        count("marram_stream_duplicates", "Publishes of an event that was there already.", |stream| stream.duplicates),
    ]
}

fn of_consumers(streams: &[StreamState]) -> Vec<Family> {
    let all: Vec<(Labels, u64, &ConsumerState)> = streams
        .iter()
        .flat_map(|stream| stream.consumers.iter().map(move |consumer| (stream, consumer)))
        .map(|(stream, consumer)| {
            let labels = vec![("stream", stream.name.to_string()), ("consumer", consumer.id.to_string())];
            (labels, stream.last.saturating_sub(consumer.cursor), consumer)
        })
        .collect();
    let lag = all.iter().map(|(labels, lag, _)| (labels.clone(), *lag as f64)).collect();
    let help = "Events behind the oldest that a consumer has not settled, that one included.";
    let lag = Family { name: "marram_consumer_lag_events", help, values: Values::Levels(lag) };
    let level = |name, help, of: fn(&ConsumerState) -> u64| {
        let values = all.iter().map(|(labels, _, consumer)| (labels.clone(), of(consumer) as f64)).collect();
        Family { name, help, values: Values::Levels(values) }
    };
    let count = |name, help, of: fn(&ConsumerState) -> u64| {
        let values = all.iter().map(|(labels, _, consumer)| (labels.clone(), of(consumer))).collect();
        Family { name, help, values: Values::Counts(values) }
    };
    vec![
        lag,
        level("marram_consumer_in_flight", "Events that are delivered and not settled.", |state| state.in_flight),
        level("marram_consumer_retrying", "Events that failed and will be delivered again.", |state| state.retrying),
        level("marram_consumer_held", "Events that wait for one of their subject.", |state| state.held),
        level("marram_consumer_paused", "Whether a consumer is paused.", |state| u64::from(state.paused)),
        count("marram_consumer_acked", "Events that are done.", |state| state.acked),
        count("marram_consumer_dead_lettered", "Events that were given up on.", |state| state.dead_lettered),
        count("marram_consumer_dropped", "Events that went before they were settled.", |state| state.dropped),
        count("marram_consumer_redelivered", "Deliveries after the first of an event.", |state| state.redelivered),
    ]
}

fn of_triggers(triggers: &[AppliedTrigger]) -> Vec<Family> {
    let count = |name, help, of: fn(&Counts) -> u64| {
        let value = |trigger: &AppliedTrigger| {
            let labels = vec![("stream", trigger.stream.to_string()), ("consumer", trigger.consumer.id.to_string())];
            (labels, of(&trigger.counts))
        };
        Family { name, help, values: Values::Counts(triggers.iter().map(value).collect()) }
    };
    vec![
        count("marram_trigger_delivered", "Events that were handed to a function.", |counts| counts.delivered),
        count("marram_trigger_retried", "Deliveries that failed and are made again.", |counts| counts.retried),
        count("marram_trigger_outputs", "Answers that were published to the output.", |counts| counts.outputs),
        count("marram_trigger_outputs_unused", "Answers that were events, without an output to go to.", |counts| {
            counts.outputs_unused
        }),
    ]
}

async fn of_mqtt(parts: &Parts) -> Vec<Family> {
    let now = parts.mqtt.counts();
    let dropped = [
        ("slow", now.dropped_slow),
        ("full", now.dropped_full),
        ("expired", now.dropped_expired),
        ("large", now.dropped_large),
    ];
    let dropped = dropped.map(|(why, count)| (vec![("reason", why.to_owned())], count)).to_vec();
    let mut families = vec![
        Family::level("marram_mqtt_connections_open", "MQTT connections that are open.", now.connections as f64),
        Family::count("marram_mqtt_connections", "MQTT connections that were accepted.", now.accepted),
        Family::count("marram_mqtt_connections_refused", "MQTT connections that were refused.", now.refused),
        Family::level("marram_mqtt_sessions", "MQTT sessions, connected or not.", now.sessions as f64),
        Family::level("marram_mqtt_subscriptions", "Subscriptions of all sessions.", now.subscriptions as f64),
        Family::level("marram_mqtt_retained_messages", "Retained messages.", now.retained as f64),
        Family::level("marram_mqtt_memory_bytes", "Bytes of messages in memory.", (now.memory + now.reserve) as f64),
        Family::count("marram_mqtt_messages_received", "Messages that clients published.", now.received),
        Family::count("marram_mqtt_messages_sent", "Messages that were sent, repetitions included.", now.sent),
        Family::count(
            "marram_mqtt_messages_rejected",
            "Messages that could not be kept: not acknowledged.",
            now.rejected,
        ),
        Family::count("marram_mqtt_messages_lost", "QoS 0 messages that could not be kept.", now.lost),
        Family::count(
            "marram_mqtt_messages_unauthorized",
            "Messages that their client may not publish.",
            now.unauthorized,
        ),
        Family::count(
            "marram_mqtt_bridge_left_out",
            "Messages that bridges left out, because a broker never takes them.",
            now.bridge_left_out,
        ),
        Family::count(
            "marram_mqtt_bridge_unretained",
            "Messages of bridges that went over and were not retained, for want of room.",
            now.bridge_unretained,
        ),
        Family::count("marram_mqtt_faults", "Packets that were malformed or against the protocol.", now.faults),
        Family::count("marram_mqtt_commits_failed", "Commits that failed as a whole.", now.commits_failed),
        Family {
            name: "marram_mqtt_messages_dropped",
            help: "Messages that a subscriber did not get, by why.",
            values: Values::Counts(dropped),
        },
    ];
    // None while the broker stops.
    if let Ok(queued) = parts.mqtt.queued().await {
        let help = "Messages that wait for their subscribers, sent or not.";
        families.push(Family::level("marram_mqtt_messages_queued", help, queued as f64));
    }
    families
}

fn of_keys(parts: &Parts) -> Vec<Family> {
    let counts = parts.kv.counts();
    let ahead = parts.kv.clock_ahead_ms() as f64 / 1_000.0;
    vec![
        Family::count("marram_kv_changes", "Keys that were written or deleted, or have expired.", counts.changed),
        Family::count("marram_kv_cache_misses", "Reads of keys that the cache could not answer.", counts.missed),
        Family::level("marram_kv_cache_bytes", "Bytes of keys in memory.", parts.kv.cache_bytes() as f64),
        Family::level("marram_kv_clock_ahead_seconds", "How far versions of keys run ahead of the clock.", ahead),
    ]
}

fn of_s3(parts: &Parts) -> Vec<Family> {
    let Some(s3) = &parts.s3 else { return Vec::new() };
    let answers = s3.answers().map(|(class, count)| (vec![("status", class.to_owned())], count)).to_vec();
    let help = "Connections of S3 clients that are open.";
    vec![
        Family {
            name: "marram_s3_requests",
            help: "Requests to the S3 API by class of status.",
            values: Values::Counts(answers),
        },
        Family::level("marram_s3_connections_open", help, s3.connections() as f64),
    ]
}
