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
use marram_core::port::blobs;
use marram_core::port::kv::{Change, Expect, Version};
use marram_core::port::mqtt::{Properties, Publication, Qos};
use marram_core::trace::TraceContext;
use marram_core::{Failure, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{script_collections, script_objects};
use crate::invocation::Invocation;
use crate::reach::{Draft, Reach};

/// `Number.MAX_SAFE_INTEGER` of JavaScript (ECMA-262 §21.1.2.6).
const JAVASCRIPT_INTEGER_MAX: u64 = (1 << 53) - 1;

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
            let sum = increment(&reach, parse(&payload)?.0).await?.1;
            Ok(head(&json!({ "sum": sum })))
        }),
        "kv.list" => Box::pin(async move { list(&reach, parse(&payload)?.0) }),
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

/// The same for JavaScript, where a sum past 2^53 would be another number without a word.
pub(crate) fn call_in_javascript(
    reach: &Arc<Reach>,
    run: Option<&Invocation>,
    capability: &str,
    payload: Bytes,
) -> BoxFuture<'static, Result<Vec<u8>, Failure>> {
    if capability != "kv.increment" {
        return call(reach, run, capability, payload);
    }
    let reach = Arc::clone(reach);
    Box::pin(async move {
        let (key, sum) = increment(&reach, parse(&payload)?.0).await?;
        fits_a_number(&key, sum)?;
        Ok(head(&json!({ "sum": sum })))
    })
}

fn fits_a_number(key: &str, sum: i64) -> Result<(), Failure> {
    if sum.unsigned_abs() <= JAVASCRIPT_INTEGER_MAX {
        return Ok(());
    }
    let why = format!(
        "the counter {} was incremented and is {sum} now, which no JavaScript number is: count on in another key",
        blobs::shown(key)
    );
    Err(Failure::new(Kind::Invalid, why))
}

/// The line, and the bytes after it.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(payload: &Bytes) -> Result<(T, Bytes), Failure> {
    let end = payload.iter().position(|byte| *byte == b'\n').unwrap_or(payload.len());
    let asked = serde_json::from_slice(&payload[..end])
        .map_err(|error| Failure::new(Kind::Invalid, format!("an argument is not what it should be: {error}")))?;
    Ok((asked, payload.slice((end + 1).min(payload.len())..)))
}

/// A whole number that an option asks for, `min` or more; `may_be` says the same.
pub(super) fn whole(option: &str, asked: Option<Value>, min: u64, may_be: &str) -> Result<Option<u64>, Failure> {
    let Some(asked) = asked else { return Ok(None) };
    match asked.as_u64().filter(|number| *number >= min) {
        Some(number) => Ok(Some(number)),
        None => Err(Failure::new(Kind::Invalid, format!("`{option}` is {}: it is {may_be}", cut(&asked)))),
    }
}

/// How many entries of a list are asked for; `max` where nothing is said, and never more.
pub(super) fn page_size(limit: Option<Value>, max: usize) -> Result<usize, Failure> {
    let asked = whole("limit", limit, 1, &format!("a whole number from 1; a page has at most {max} entries"))?;
    Ok(asked.and_then(|asked| usize::try_from(asked).ok()).map_or(max, |asked| asked.min(max)))
}

/// Where a list goes on.
pub(super) fn cursor(asked: Option<Value>) -> Result<Option<String>, Failure> {
    match asked {
        None => Ok(None),
        Some(Value::String(after)) => Ok(Some(after)),
        Some(other) => {
            let message = format!("`cursor` is {}: it is what the page before has as its `cursor`", cut(&other));
            Err(Failure::new(Kind::Invalid, message))
        }
    }
}

/// An argument as messages show it.
fn cut(asked: &Value) -> String {
    const CHARS_MAX: usize = 40;
    asked.to_string().chars().take(CHARS_MAX).collect()
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
    ttl_ms: Option<Value>,
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

/// How long an entry lives. The engines have looked whether it lives at all.
fn time_to_live(ttl_ms: Option<Value>) -> Result<Option<Duration>, Failure> {
    let Some(ttl_ms) = ttl_ms else { return Ok(None) };
    let too_long = || {
        let message = format!(
            "the entry would expire in {} ms, which is too far off: give a smaller `expirationTtl` or `expiration` \
             (`ttl` in Python), or none for an entry that stays",
            cut(&ttl_ms)
        );
        Failure::new(Kind::Invalid, message)
    };
    ttl_ms.as_u64().map(|ms| Some(Duration::from_millis(ms))).ok_or_else(too_long)
}

/// The key, and its sum.
async fn increment(reach: &Reach, asked: Keyed) -> Result<(String, i64), Failure> {
    let sum = reach.kv()?.increment(reach.bucket(&asked.bucket)?, &asked.key, asked.delta).await?;
    Ok((asked.key, sum))
}

async fn put(reach: &Reach, mut asked: Keyed, value: Bytes) -> Result<Vec<u8>, Failure> {
    let (expect, ttl) = (asked.expect()?, time_to_live(asked.ttl_ms.take())?);
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
    limit: Option<Value>,
    after: Option<Value>,
}

fn list(reach: &Reach, asked: Listing) -> Result<Vec<u8>, Failure> {
    let (max, after) = (page_size(asked.limit, KV_LIST_KEYS_MAX)?, cursor(asked.after)?);
    let page = reach.kv()?.list(reach.bucket(&asked.bucket)?, &asked.prefix, after.as_deref(), max)?;
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
    qos: Value,
    retain: bool,
    #[serde(rename = "expiry_s")]
    expiry_s: Option<Value>,
    content_type: Option<String>,
    response_topic: Option<String>,
    user: Vec<(String, String)>,
    /// Of the payload, in the bytes that follow.
    length: usize,
    /// Whether the rest of them is correlation data.
    correlation: bool,
}

fn publication(asked: Messaging, mut bytes: Bytes) -> Result<Publication, Failure> {
    let qos = asked.qos.as_u64().and_then(|level| Qos::from_level(u8::try_from(level).ok()?));
    let wrong_qos = || Failure::new(Kind::Invalid, format!("`qos` is {}: it is 0, 1 or 2", cut(&asked.qos)));
    let qos = qos.ok_or_else(wrong_qos)?;
    let expiry_s = whole("expiry", asked.expiry_s, 0, "a whole number of seconds")?;
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
        // More than the protocol can say (MQTT 5.0 §3.3.2.3.3).
        expiry_s: expiry_s.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
        properties: (properties != Properties::default()).then(|| Box::new(properties)),
        publisher: String::new(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(answer: Result<T, Failure>) -> String {
        answer.unwrap_err().message().to_owned()
    }

    #[test]
    fn a_number_that_is_none_is_told_by_the_name_of_its_option() {
        let list = |options: &str| {
            let payload = format!("{{\"bucket\":\"state\",\"prefix\":\"\",{options}}}\n");
            let asked: Listing = parse(&payload.into()).unwrap().0;
            cursor(asked.after).and_then(|_| page_size(asked.limit, 1000))
        };
        for (options, expected) in [("\"limit\":null", 1000), ("\"limit\":1", 1), ("\"limit\":5000", 1000)] {
            assert_eq!(list(options).unwrap(), expected, "{options}");
        }
        for bad in ["0", "-1", "1.5", "\"10\"", "true", "1e21"] {
            let told = refused(list(&format!("\"limit\":{bad}")));
            assert!(told.starts_with("`limit` is ") && told.contains("a whole number from 1"), "{bad}: {told}");
        }
        assert_eq!(refused(list("\"after\":5")), "`cursor` is 5: it is what the page before has as its `cursor`");
        let long = Value::from("x".repeat(1_000));
        assert!(refused(page_size(Some(long), 1000)).len() < 200);
    }

    #[test]
    fn an_entry_that_expires_too_far_off_is_refused() {
        let put = |ttl_ms: &str| {
            let payload = format!("{{\"bucket\":\"state\",\"key\":\"k\",\"ttl_ms\":{ttl_ms}}}\n");
            time_to_live(parse::<Keyed>(&payload.into()).unwrap().0.ttl_ms)
        };
        assert_eq!(put("60000").unwrap(), Some(Duration::from_secs(60)));
        assert_eq!(put("null").unwrap(), None);
        let told = refused(put("1e+21"));
        assert!(told.contains("1e+21 ms") && told.contains("`expirationTtl`"), "{told}");
    }

    #[test]
    fn a_sum_that_no_javascript_number_is_is_told_with_what_has_happened() {
        for sum in [0, (1 << 53) - 1, 1 - (1 << 53)] {
            fits_a_number("n", sum).unwrap();
        }
        for sum in [1 << 53, -(1 << 53), i64::MIN] {
            let told = refused(fits_a_number("n", sum));
            assert!(told.starts_with(&format!("the counter \"n\" was incremented and is {sum} now")), "{told}");
        }
    }
}
