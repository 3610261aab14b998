//! What an answer means for the events: the rules of settlement.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use marram_core::event::{Event, http as codec};
use marram_core::port::{Body, Clock};
use marram_core::stream::StreamName;
use marram_core::{Blame, Failure, Kind, Retry};

use crate::limits::{ANSWER_BYTES_MAX, REASON_TEXT_BYTES_MAX, RETRY_AFTER_MAX};

/// What is to happen to the events of a run.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Acknowledged, with what the function answered and where that goes.
    Done(Vec<(StreamName, Event)>),
    /// Acknowledged; the answer was an event, and the function has no output.
    Unused,
    /// To be delivered again.
    Again {
        /// `Retry-After`.
        after: Option<Duration>,
        reason: String,
        /// Whether it is about all of the events, rather than about one of them.
        all: bool,
    },
    /// To the dead-letter stream.
    Never(String),
    /// The function did not run, for a reason of the node's.
    NotNow(String),
}

/// The verdict on an answer. Reads it to its end: before that, the run is not over and may still fail.
pub(super) async fn read(response: Response<Body>, output: Option<&StreamName>, clock: &dyn Clock) -> Verdict {
    let (head, body) = response.into_parts();
    let status = head.status;
    if status.is_success() {
        return match (codec::mode(&head.headers), output) {
            (Ok(None), _) => {
                rest(body).await.map_or_else(|failure| of_failure(&failure), |_| Verdict::Done(Vec::new()))
            }
            (Ok(Some(_)), Some(output)) => events(&head.headers, body, output).await,
            (_, None) => rest(body).await.map_or_else(|failure| of_failure(&failure), |_| Verdict::Unused),
            (Err(error), Some(_)) => Verdict::Never(format!("its answer is not a CloudEvent: {error}")),
        };
    }
    let text = match rest(body).await {
        Ok(text) => text,
        Err(failure) => return of_failure(&failure),
    };
    let reason = reason(status, &text);
    match status {
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => {
            Verdict::Again { after: retry_after(&head.headers, clock), reason, all: true }
        }
        _ if status.is_server_error() => {
            let after = retry_after(&head.headers, clock);
            // Who says when to come back does not mean one event.
            Verdict::Again { after, reason, all: after.is_some() }
        }
        _ => Verdict::Never(reason),
    }
}

/// The verdict on a run that failed.
pub(super) fn of_failure(failure: &Failure) -> Verdict {
    let reason = failure.to_string();
    match failure.kind() {
        Kind::Overloaded | Kind::Draining | Kind::StorageFull | Kind::StreamFull => Verdict::NotNow(reason),
        kind if kind.blame() == Blame::Caller => Verdict::Never(reason),
        kind => {
            // A trap, a limit or a deadline may be one event's doing; what is broken around the function is not.
            let all = kind.blame() == Blame::Host;
            let after = match failure.retry_after() {
                Retry::After(after) if all => Some(after),
                _ => None,
            };
            Verdict::Again { after, reason, all }
        }
    }
}

/// An answer that says that it is an event, or a batch.
async fn events(headers: &HeaderMap, mut body: Body, output: &StreamName) -> Verdict {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(failure) => return of_failure(&failure),
        };
        if whole.len() + data.len() > ANSWER_BYTES_MAX {
            return Verdict::Never(format!("its answer is an event of more than {ANSWER_BYTES_MAX} bytes"));
        }
        whole.extend_from_slice(&data);
    }
    match codec::decode(headers, whole.freeze()) {
        Ok(events) => Verdict::Done(events.into_iter().flatten().map(|event| (output.clone(), event)).collect()),
        Err(error) => Verdict::Never(format!("its answer is not a CloudEvent: {error}")),
    }
}

/// Reads a body to its end, and keeps its beginning.
async fn rest(mut body: Body) -> Result<Bytes, Failure> {
    let mut beginning = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = frame?.into_data().unwrap_or_default();
        let room = REASON_TEXT_BYTES_MAX - beginning.len();
        beginning.extend_from_slice(&data[..data.len().min(room)]);
    }
    Ok(beginning.freeze())
}

/// `400 Bad Request: the temperature is missing`, on one line.
fn reason(status: StatusCode, text: &[u8]) -> String {
    let name = status.canonical_reason().unwrap_or("");
    let text: String = match std::str::from_utf8(text) {
        Ok(text) => text.into(),
        // The end of the beginning may have cut a character in two.
        Err(error) if error.error_len().is_none() => String::from_utf8_lossy(&text[..error.valid_up_to()]).into_owned(),
        Err(_) => String::new(),
    };
    let text = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    let text = text.collect::<Vec<_>>().join(" ");
    let head = format!("{} {name}", status.as_u16());
    if text.is_empty() { head.trim_end().to_owned() } else { format!("{}: {text}", head.trim_end()) }
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(clock.unix_ns());
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(after.min(RETRY_AFTER_MAX))
}
