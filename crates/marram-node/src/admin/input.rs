//! What a request brings: names in its path, its query, its body, each checked, bounded in size and in time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use marram_core::quantity::Span;
use marram_core::{Failure, Kind, Name};
use marram_telemetry::Timestamp;
use serde::de::DeserializeOwned;

use super::problem::Refusal;

/// How long a client may be silent within a body.
const CHUNK_WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes of a JSON body: the largest manifest, with its escapes.
const JSON_BYTES_MAX: usize = 4 << 20;

/// The variable segments of the path; what does not decode is a problem like any other.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(error) => Err(Refusal::new(Kind::BadRequest, format!("the path cannot be used: {error}"))),
        }
    }
}

/// The name of an app or a function.
pub(super) fn name(text: &str) -> Result<Name, Failure> {
    Name::new(text).map_err(|error| Failure::new(Kind::BadRequest, error.to_string()))
}

/// The query as a `T`.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Failure> {
    let parsed = axum::extract::Query::<T>::try_from_uri(uri);
    parsed.map(|query| query.0).map_err(|error| {
        // axum's own words say where; the cause says what.
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Failure::new(Kind::BadRequest, format!("the query cannot be used: {cause}"))
    })
}

/// The body as a `T` in JSON. A body of nothing is `T`'s default where the caller allows that with `{}`.
pub(super) async fn json<T: DeserializeOwned>(body: Body, empty: &'static str) -> Result<T, Failure> {
    let bytes = gather(body, JSON_BYTES_MAX).await?;
    let text = if bytes.is_empty() { empty.as_bytes() } else { &bytes };
    serde_json::from_slice(text)
        .map_err(|error| Failure::new(Kind::BadRequest, format!("the body cannot be used: {error}")))
}

/// The whole body, at most `bytes_max`.
pub(super) async fn gather(mut body: Body, bytes_max: usize) -> Result<Bytes, Failure> {
    let mut all = BytesMut::new();
    while let Some(bytes) = chunk(&mut body).await? {
        if all.len() + bytes.len() > bytes_max {
            return Err(Failure::new(Kind::BodyTooLarge, format!("the body has more than {bytes_max} bytes")));
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

/// The next bytes of a body, `None` at its end.
pub(super) async fn chunk(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    loop {
        let frame = tokio::time::timeout(CHUNK_WAIT_MAX, body.frame()).await;
        let frame = frame.map_err(|_| Failure::new(Kind::ClientTimeout, "the body stopped arriving"))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Failure::new(Kind::ClientGone, "the body broke off").because(error)),
            Some(Ok(frame)) => {
                // Trailers say nothing here.
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// A moment: RFC 3339 in UTC, or a span back from now.
pub(super) fn time(text: &str, now_unix_ns: u64) -> Result<u64, Failure> {
    if let Ok(Timestamp(unix_ns)) = text.parse() {
        return Ok(unix_ns);
    }
    let back: Span = text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        Failure::new(
            Kind::BadRequest,
            format!(
                "{shown:?} is not a time: write it as 2026-11-24T04:09:29Z, or as a span back from now such as \"15m\""
            ),
        )
    })?;
    Ok(now_unix_ns.saturating_sub(u64::try_from(back.0.as_nanos()).unwrap_or(u64::MAX)))
}

/// Runs what may wait for a disk, off the threads that serve.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(Kind::Internal, "the request failed unexpectedly").because(error))
}
