//! What `env` of a JavaScript or Python function offers of the node's state: `env.kv` (its sets and maps are in
//! [`super::script_collections`]), `env.blob` ([`super::script_objects`]), `env.stream`, `env.mqtt`. The other end is
//! `guests/js-engine/prelude/state.js`, and the Python engine's `state.py`: a call and its answer are a line of JSON, and the
//! bytes that belong to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use marram_core::limits::KV_LIST_KEYS_MAX;
use marram_core::manifest::Allow;
use marram_core::port::kv::{Change, Expect, Version};
use marram_core::port::mqtt::{Properties, Publication, Qos};
use marram_core::trace::TraceContext;
use marram_core::{Failure, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{script_collections, script_objects};
use crate::invocation::Invocation;
use crate::reach::{Draft, Reach};

/// What a function's `env` gets, each as `<kind>/<name>`.
pub(crate) fn granted(allow: &Allow) -> Vec<String> {
    let buckets = allow.kv.iter().map(|bucket| format!("kv/{bucket}"));
    let streams = allow.publish.iter().map(|stream| format!("stream/{stream}"));
    let mqtt = (!allow.mqtt.is_empty()).then(|| "mqtt/".to_owned());
    let blobs = allow.blob.iter().map(|bucket| format!("blob/{bucket}"));
    buckets.chain(blobs).chain(streams).chain(mqtt).collect()
}

/// The first of them whose kind is also the name of a configured value: one would hide the other.
pub(crate) fn hidden<'a>(granted: &'a [String], config: &BTreeMap<String, String>) -> Option<&'a str> {
    granted.iter().filter_map(|grant| Some(grant.split_once('/')?.0)).find(|kind| config.contains_key(*kind))
}

/// Carries out a call of a run, or of nobody's. What is in memory is there at the first poll.
pub(crate) fn call(
    reach: &Arc<Reach>,
    run: Option<&Invocation>,
    capability: &str,
    payload: Bytes,
) -> BoxFuture<'static, Result<Vec<u8>, Failure>> {
    let (reach, trace) = (Arc::clone(reach), run.map(|run| run.call.trace));
    match capability {
        "kv.get" => Box::pin(async move { get(&reach, &parse(&payload)?.0) }),
        "kv.put" => Box::pin(async move {
            let (asked, value) = parse(&payload)?;
            put(&reach, asked, value).await
        }),
        "kv.delete" => Box::pin(async move { delete(&reach, parse(&payload)?.0).await }),
        "kv.increment" => Box::pin(async move {
            let Keyed { bucket, key, delta, .. } = parse(&payload)?.0;
            let sum = reach.kv()?.increment(reach.bucket(&bucket)?, &key, delta).await?;
            Ok(head(&json!({ "sum": sum })))
        }),
        "kv.list" => Box::pin(async move { list(&reach, &parse(&payload)?.0) }),
        "stream.publish" => Box::pin(async move {
            let (asked, data) = parse(&payload)?;
            publish(&reach, trace.as_ref(), asked, data).await
        }),
        "mqtt.publish" => Box::pin(async move {
            let (asked, bytes) = parse(&payload)?;
            reach.publish_mqtt(publication(asked, bytes)?).await?;
            Ok(head(&Value::Null))
        }),
        _ if capability.starts_with("blob.") => {
            script_objects::call(&reach, run.map(Invocation::uploads), capability, payload)
        }
        _ if capability.starts_with("crdt.") => script_collections::call(&reach, capability, payload),
        _ => {
            let message = format!("the capability {capability} is not offered by this version of Marram");
            Box::pin(async move { Err(Failure::new(Kind::Invalid, message)) })
        }
    }
}

/// The line, and the bytes after it.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(payload: &Bytes) -> Result<(T, Bytes), Failure> {
    let end = payload.iter().position(|byte| *byte == b'\n').unwrap_or(payload.len());
    let asked = serde_json::from_slice(&payload[..end])
        .map_err(|error| Failure::new(Kind::Invalid, format!("an argument is not what it should be: {error}")))?;
    Ok((asked, payload.slice((end + 1).min(payload.len())..)))
}

pub(super) fn head(answer: &Value) -> Vec<u8> {
    let mut line = answer.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[derive(Deserialize)]
struct Keyed {
    bucket: String,
    #[serde(default)]
    key: String,
    ttl_ms: Option<u64>,
    version: Option<String>,
    #[serde(default)]
    absent: bool,
    #[serde(default)]
    delta: i64,
}

impl Keyed {
    fn expect(&self) -> Result<Expect, Failure> {
        match &self.version {
            None if self.absent => Ok(Expect::Absent),
            None => Ok(Expect::Any),
            Some(version) => match u128::from_str_radix(version, 16) {
                Ok(number) => Ok(Expect::Version(Version(number.to_be_bytes()))),
                Err(_) => Err(Failure::new(Kind::Invalid, "`ifVersion` is not a version that `getWithVersion` gave")),
            },
        }
    }
}

fn shown(version: Version) -> String {
    format!("{:032x}", u128::from_be_bytes(version.0))
}

fn get(reach: &Reach, asked: &Keyed) -> Result<Vec<u8>, Failure> {
    let Some(entry) = reach.kv()?.get(reach.bucket(&asked.bucket)?, &asked.key)? else {
        return Ok(head(&Value::Null));
    };
    let expiration = entry.expires_unix_ns.map(|ns| ns as f64 / 1e9);
    let mut answer = head(&json!({ "version": shown(entry.version), "expiration": expiration }));
    answer.extend_from_slice(&entry.value);
    Ok(answer)
}

async fn put(reach: &Reach, asked: Keyed, value: Bytes) -> Result<Vec<u8>, Failure> {
    let (expect, ttl) = (asked.expect()?, asked.ttl_ms.map(Duration::from_millis));
    let bucket = reach.bucket(&asked.bucket)?;
    let change = Change::Put { key: asked.key, value, ttl, expect };
    let written = reach.kv()?.apply(bucket, vec![change]).await?;
    Ok(head(&json!({ "version": written.first().copied().flatten().map(shown) })))
}

async fn delete(reach: &Reach, asked: Keyed) -> Result<Vec<u8>, Failure> {
    let expect = asked.expect()?;
    let bucket = reach.bucket(&asked.bucket)?;
    reach.kv()?.apply(bucket, vec![Change::Delete { key: asked.key, expect }]).await?;
    Ok(head(&Value::Null))
}

#[derive(Deserialize)]
struct Listing {
    bucket: String,
    prefix: String,
    limit: Option<usize>,
    after: Option<String>,
}

fn list(reach: &Reach, asked: &Listing) -> Result<Vec<u8>, Failure> {
    let max = asked.limit.unwrap_or(KV_LIST_KEYS_MAX).clamp(1, KV_LIST_KEYS_MAX);
    let page = reach.kv()?.list(reach.bucket(&asked.bucket)?, &asked.prefix, asked.after.as_deref(), max)?;
    Ok(head(&json!({ "keys": page.keys, "more": page.more })))
}

#[derive(Deserialize)]
struct Publishing {
    stream: String,
    events: Vec<Attributes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    id: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    content_type: Option<String>,
    data_schema: Option<String>,
    #[serde(default)]
    extensions: Vec<(String, String)>,
    /// Of the data, in the bytes that follow; none if there is no data.
    length: Option<usize>,
}

async fn publish(
    reach: &Reach,
    trace: Option<&TraceContext>,
    asked: Publishing,
    mut data: Bytes,
) -> Result<Vec<u8>, Failure> {
    let mut drafts = Vec::with_capacity(asked.events.len());
    for event in asked.events {
        let data = event.length.map(|length| take(&mut data, length)).transpose()?;
        drafts.push(Draft {
            id: event.id,
            source: event.source,
            kind: event.kind,
            subject: event.subject,
            time: event.time,
            data_content_type: event.content_type,
            data_schema: event.data_schema,
            extensions: event.extensions,
            data,
        });
    }
    let published = reach.publish(&asked.stream, drafts, trace).await?;
    let published = published.iter().map(|one| json!({ "position": one.position, "duplicate": one.duplicate }));
    Ok(head(&published.collect()))
}

pub(super) fn take(bytes: &mut Bytes, length: usize) -> Result<Bytes, Failure> {
    if length > bytes.len() {
        return Err(Failure::new(Kind::Internal, "the engine and this node are of different versions"));
    }
    Ok(bytes.split_to(length))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Messaging {
    topic: String,
    qos: u8,
    retain: bool,
    #[serde(rename = "expiry_s")]
    expiry_s: Option<u32>,
    content_type: Option<String>,
    response_topic: Option<String>,
    user: Vec<(String, String)>,
    /// Of the payload, in the bytes that follow.
    length: usize,
    /// Whether the rest of them is correlation data.
    correlation: bool,
}

fn publication(asked: Messaging, mut bytes: Bytes) -> Result<Publication, Failure> {
    let qos = Qos::from_level(asked.qos);
    let qos = qos.ok_or_else(|| Failure::new(Kind::Invalid, format!("`qos` is {}: it is 0, 1 or 2", asked.qos)))?;
    let payload = take(&mut bytes, asked.length)?;
    let properties = Properties {
        utf8: false,
        content_type: asked.content_type,
        response_topic: asked.response_topic,
        correlation: asked.correlation.then_some(bytes),
        user: asked.user,
    };
    Ok(Publication {
        topic: asked.topic,
        payload,
        qos,
        retain: asked.retain,
        expiry_s: asked.expiry_s,
        properties: (properties != Properties::default()).then(|| Box::new(properties)),
        publisher: String::new(),
    })
}
