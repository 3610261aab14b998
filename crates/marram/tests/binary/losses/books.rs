//! The books: what was acknowledged, against what is there.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use marram_testkit::Client;
use serde_json::Value;

/// What a stream was seen to hold, read on from where the last reading ended.
#[derive(Default)]
pub struct Read {
    next: u64,
    /// How often each was there, by its data.
    pub counts: BTreeMap<String, u32>,
}

impl Read {
    /// Reads what is new. Positions have no gaps.
    pub async fn on(&mut self, admin: &Client, stream: &str) {
        loop {
            let from = self.next.max(1);
            let reply = admin.get(&format!("/v1/streams/{stream}/events?from={from}&limit=1000")).await;
            if reply.status == 404 {
                return;
            }
            let text = reply.expect(200).text();
            if text.is_empty() {
                return;
            }
            for (line, position) in text.lines().zip(from..) {
                let event: Value = serde_json::from_str(line).unwrap();
                assert_eq!(event["marramposition"], position.to_string(), "{stream}: {event}");
                let data = text_of(&event);
                *self.counts.entry(data).or_default() += 1;
                self.next = position + 1;
            }
        }
    }

    pub fn names(&self) -> BTreeSet<&str> {
        self.counts.keys().map(String::as_str).collect()
    }

    /// What was there more than once.
    pub fn repeated(&self) -> Vec<(&str, u32)> {
        self.counts.iter().filter(|(_, count)| **count > 1).map(|(data, count)| (data.as_str(), *count)).collect()
    }
}

/// The data of an event; what came without a media type is in base64 (CloudEvents JSON format §3.1).
fn text_of(event: &Value) -> String {
    match (&event["data"], &event["data_base64"]) {
        (Value::String(text), _) => text.clone(),
        (_, Value::String(encoded)) => String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap(),
        _ => panic!("no text: {event}"),
    }
}

/// One stream, as `/v1/streams` shows it.
pub async fn stream(admin: &Client, name: &str) -> Value {
    let streams = admin.get("/v1/streams").await.expect(200).json();
    let streams = streams["streams"].as_array().unwrap();
    streams.iter().find(|stream| stream["name"] == name).cloned().unwrap_or(Value::Null)
}
