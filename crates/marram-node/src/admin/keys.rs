//! `/v1/kv`: keys of buckets, their values, and their changes as they happen.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use marram_core::limits::KV_VALUE_BYTES_MAX;
use marram_core::manifest::is_of_node;
use marram_core::port::Kv as _;
use marram_core::port::kv::{Change, Entry, Expect, KeyChange, Version, Watched};
use marram_core::quantity::Span;
use marram_core::time::Timestamp;
use marram_core::{Failure, Kind, Name};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::input::{self, Segments};
use super::operation::{Content, Operation};
use super::problem::Refusal;
use super::{Admin, follow};
use crate::api::{ChangesMissed, KeyBuckets, KeyChanged, KeyWritten, Keys, WatchLine};

/// Keys of one answer, if nothing else is asked for.
const KEYS_DEFAULT: usize = 1_000;

pub(super) fn operations() -> Vec<Operation> {
    const BUCKET: &str = "/v1/kv/{bucket}";
    const KEY: &str = "/v1/kv/{bucket}/keys/{*key}";
    vec![
        Operation::new(Method::GET, "/v1/kv", "listKeyBuckets", "Buckets that have keys", buckets)
            .json::<KeyBuckets>(200, "By name"),
        Operation::new(Method::GET, BUCKET, "listKeys", "Keys of a bucket, page by page", list)
            .query::<ListParameters>()
            .json::<Keys>(200, "A page"),
        Operation::new(Method::GET, KEY, "getKey", "The value of a key", get).answer(
            200,
            "The value, with its version as `etag` and, if it goes away by itself, `expires-at`",
            Some(Content::Bytes("application/octet-stream")),
        ),
        Operation::new(
            Method::PUT,
            KEY,
            "putKey",
            "Sets a key; `if-match` with an `etag`, or `if-none-match: *`, says what has to be there",
            put,
        )
        .query::<PutParameters>()
        .takes_bytes()
        .json::<KeyWritten>(200, "It is on the disk"),
        Operation::new(Method::DELETE, KEY, "deleteKey", "Removes a key; `if-match` says what has to be there", delete)
            .json::<KeyWritten>(200, "It is gone"),
        Operation::new(
            Method::GET,
            "/v1/kv/{bucket}/watch",
            "watchKeys",
            "Changes of keys as they happen: an answer without an end",
            watch,
        )
        .query::<WatchParameters>()
        .lines::<WatchLine>(200, "One change an object; empty lines say only that the connection lives"),
    ]
}

/// Which keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListParameters {
    /// Only keys that begin with this.
    #[serde(default)]
    prefix: String,
    /// Only keys after this one.
    after: Option<String>,
    /// At most this many; 1000 if left out.
    limit: Option<usize>,
}

/// Which keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WatchParameters {
    /// Only keys that begin with this.
    #[serde(default)]
    prefix: String,
}

/// How long a key stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PutParameters {
    /// After this long it goes away, such as `30s`.
    ttl: Option<Span>,
}

async fn buckets(State(admin): State<Arc<Admin>>) -> Result<Json<KeyBuckets>, Refusal> {
    let kv = admin.parts.kv.clone();
    let buckets = input::blocking(move || kv.buckets()).await??;
    Ok(Json(KeyBuckets { buckets: buckets.iter().map(ToString::to_string).collect() }))
}

async fn list(
    State(admin): State<Arc<Admin>>,
    Segments(bucket): Segments<String>,
    uri: Uri,
) -> Result<Json<Keys>, Refusal> {
    let ListParameters { prefix, after, limit } = input::query(&uri)?;
    let (bucket, kv) = (input::name(&bucket)?, admin.parts.kv.clone());
    let most = limit.unwrap_or(KEYS_DEFAULT);
    let page = input::blocking(move || kv.list(&bucket, &prefix, after.as_deref(), most)).await??;
    Ok(Json(Keys { keys: page.keys, more: page.more }))
}

async fn get(
    State(admin): State<Arc<Admin>>,
    Segments((bucket, key)): Segments<(String, String)>,
) -> Result<Response, Refusal> {
    let (bucket, kv) = (input::name(&bucket)?, admin.parts.kv.clone());
    let (of, asked) = (bucket.clone(), key.clone());
    let entry = input::blocking(move || kv.get(&of, &asked)).await??.ok_or_else(|| no_key(&bucket, &key))?;
    let headers = headers(&entry);
    Ok((headers, Body::from(entry.value)).into_response())
}

async fn put(
    State(admin): State<Arc<Admin>>,
    Segments((bucket, key)): Segments<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<KeyWritten>, Refusal> {
    let PutParameters { ttl } = input::query(&uri)?;
    if ttl.as_ref().is_some_and(|span| span.0.is_zero()) {
        let message = "`ttl` is 0, so the key would be gone at once: delete it, or leave `ttl` out";
        return Err(Failure::new(Kind::BadRequest, message).into());
    }
    let (bucket, expect) = (input::name(&bucket)?, expect(&headers)?);
    let value = input::gather(body, KV_VALUE_BYTES_MAX).await?;
    apply(&admin, &bucket, Change::Put { key, value, ttl: ttl.map(|span| span.0), expect }).await
}

async fn delete(
    State(admin): State<Arc<Admin>>,
    Segments((bucket, key)): Segments<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<KeyWritten>, Refusal> {
    let (bucket, expect) = (input::name(&bucket)?, expect(&headers)?);
    apply(&admin, &bucket, Change::Delete { key, expect }).await
}

async fn apply(admin: &Admin, bucket: &Name, change: Change) -> Result<Json<KeyWritten>, Refusal> {
    if is_of_node(bucket) {
        let message = format!("the bucket \"{bucket}\" is the node's own: it can be read only");
        return Err(Failure::new(Kind::Invalid, message).into());
    }
    let versions = admin.parts.kv.apply(bucket, vec![change]).await?;
    Ok(Json(KeyWritten { version: versions.into_iter().next().flatten().map(|version| text_of(&version)) }))
}

async fn watch(
    State(admin): State<Arc<Admin>>,
    Segments(bucket): Segments<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let WatchParameters { prefix } = input::query(&uri)?;
    let changes = admin.parts.kv.watch(&input::name(&bucket)?, &prefix)?;
    let place = follow::place(&admin)?;
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines(changes, admin, place))).into_response())
}

/// Lines until the node stops; the place is given back when the client goes.
fn lines(
    changes: impl Stream<Item = Watched> + Send + Unpin + 'static,
    admin: Arc<Admin>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold((changes, admin, place), |(mut changes, admin, place)| async move {
        let next = tokio::time::timeout(follow::KEEP_ALIVE, changes.next());
        let bytes = match admin.stop.run_until_cancelled(next).await? {
            Err(_) => Bytes::from_static(b"\n"),
            Ok(None) => return None,
            Ok(Some(Watched::Changed(change))) => line(&WatchLine::Change(changed(change))),
            Ok(Some(Watched::Missed(missed))) => line(&WatchLine::Missed(ChangesMissed { missed })),
        };
        Some((Ok(bytes), (changes, admin, place)))
    })
}

fn line(line: &WatchLine) -> Bytes {
    let mut text = serde_json::to_vec(line).expect("a change is texts and numbers");
    text.push(b'\n');
    text.into()
}

fn changed(change: KeyChange) -> KeyChanged {
    let text = change.value.as_ref().and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned);
    let base64 = change.value.filter(|_| text.is_none()).map(|value| BASE64_STANDARD.encode(value));
    KeyChanged { key: change.key, event: change.event.as_str().into(), version: text_of(&change.version), text, base64 }
}

fn headers(entry: &Entry) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name, text: String| {
        headers.insert(name, HeaderValue::try_from(text).expect("hex digits and a timestamp are a header's value"));
    };
    add(header::CONTENT_TYPE, "application/octet-stream".into());
    add(header::CACHE_CONTROL, "no-store".into());
    add(header::ETAG, format!("\"{}\"", text_of(&entry.version)));
    if let Some(expires) = entry.expires_unix_ns {
        add(header::HeaderName::from_static("expires-at"), Timestamp(expires).to_string());
    }
    headers
}

/// What has to be there (RFC 9110 §13.1).
fn expect(headers: &HeaderMap) -> Result<Expect, Failure> {
    let text = |name: header::HeaderName| headers.get(&name).map(|value| (name, value.to_str().unwrap_or_default()));
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Expect::Any),
        (None, Some((_, "*"))) => Ok(Expect::Absent),
        (Some((_, tag)), None) => version_of(tag).map(Expect::Version).ok_or_else(|| {
            Failure::new(Kind::BadRequest, "`if-match` is not the `etag` of a key: send it as it came, with its quotes")
        }),
        _ => Err(Failure::new(Kind::BadRequest, "write either `if-match` with an `etag`, or `if-none-match: *`")),
    }
}

fn text_of(version: &Version) -> String {
    version.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn version_of(tag: &str) -> Option<Version> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let number = (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok())??;
    Some(Version(number.to_be_bytes()))
}

fn no_key(bucket: &Name, key: &str) -> Failure {
    let shown: String = key.chars().take(80).collect();
    Failure::new(
        Kind::NotFound,
        format!("bucket \"{bucket}\" has no key {shown:?}: `marram kv ls {bucket}` lists them"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_its_own_etag() {
        let version = Version(*b"0123456789abcdef");
        assert_eq!(version_of(&format!("\"{}\"", text_of(&version))), Some(version));
        for bad in ["", "\"\"", "*", "W/\"00\"", &text_of(&version), "\"zz\""] {
            assert_eq!(version_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_condition_at_a_time() {
        let of = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            expect(&pairs.collect())
        };
        let tag = format!("\"{}\"", text_of(&Version([7; 16])));
        assert_eq!(of(&[]).unwrap(), Expect::Any);
        assert_eq!(of(&[("if-none-match", "*")]).unwrap(), Expect::Absent);
        assert_eq!(of(&[("if-match", &tag)]).unwrap(), Expect::Version(Version([7; 16])));
        assert!(of(&[("if-match", "*")]).is_err() && of(&[("if-none-match", &tag)]).is_err());
        assert!(of(&[("if-match", &tag), ("if-none-match", "*")]).is_err());
    }
}
