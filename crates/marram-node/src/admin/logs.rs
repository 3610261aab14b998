//! `/v1/logs`: lines of functions' logs, from the past and as they come.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, stream};
use marram_core::record::Level;
use marram_core::trace::{RequestId, TraceId};
use marram_core::{Failure, Name};
use marram_telemetry::{Follow, Followed, LogQuery};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::follow::{self, KEEP_ALIVE};
use super::operation::Operation;
use super::problem::Refusal;
use super::{Admin, input};
use crate::api::{Gap, LogsLine};

/// Lines of one answer, if nothing else is asked for.
const LINES_DEFAULT: usize = 1_000;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/v1/logs",
            "getLogs",
            "Lines of functions' logs; with `follow`, an answer without an end",
            logs,
        )
        .query::<LogParameters>()
        .lines::<LogsLine>(200, "One line an object, oldest first; empty lines say only that the connection lives"),
    ]
}

/// Which lines.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogParameters {
    /// Only this app.
    app: Option<Name>,
    /// Only functions of this name.
    function: Option<Name>,
    /// Only this request.
    request: Option<RequestId>,
    /// Only this trace.
    trace: Option<TraceId>,
    /// Only lines that matter at least this much.
    level: Option<Level>,
    /// From this time on: RFC 3339 in UTC, or a span back from now, such as `15m`.
    since: Option<String>,
    /// At most this many lines of the past, the latest ones. If left out, 1000; with `follow` and without `since`, none.
    limit: Option<usize>,
    /// Go on with every line that comes.
    #[serde(default)]
    follow: bool,
}

async fn logs(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Response, Refusal> {
    let LogParameters { app, function, request, trace, level, since, limit, follow } = input::query(&uri)?;
    let now = admin.parts.clock.unix_ns();
    let since_unix_ns = since.map(|text| input::time(&text, now)).transpose()?;
    let limit = if follow { limit } else { Some(limit.unwrap_or(LINES_DEFAULT)) };
    let query = LogQuery { app, function, request, trace, level, since_unix_ns, limit };
    let telemetry = Arc::clone(&admin.parts.telemetry);
    let body = if follow {
        let place = follow::place(&admin)?;
        let lines = input::blocking(move || telemetry.follow(query)).await?.map_err(Failure::from)?;
        Body::from_stream(following(lines, admin.stop.clone(), place))
    } else {
        let entries = input::blocking(move || telemetry.logs(&query)).await?.map_err(Failure::from)?;
        let lines = entries.into_iter().map(|entry| Ok::<_, Infallible>(line(&LogsLine::Entry(entry))));
        Body::from_stream(stream::iter(lines))
    };
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// Lines until the node stops; the place is given back when the client goes.
fn following(
    follow: Follow,
    stop: CancellationToken,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold((follow, stop, place), |(mut follow, stop, place)| async move {
        let next = stop.run_until_cancelled(tokio::time::timeout(KEEP_ALIVE, follow.next())).await?;
        let bytes = match next {
            Err(_) => Bytes::from_static(b"\n"),
            Ok(None) => return None,
            Ok(Some(Followed::Line(entry))) => line(&LogsLine::Entry(entry)),
            Ok(Some(Followed::Missed(missed))) => line(&LogsLine::Gap(Gap { missed })),
        };
        Some((Ok(bytes), (follow, stop, place)))
    })
}

fn line(line: &LogsLine) -> Bytes {
    let mut text = serde_json::to_vec(line).expect("a log line is texts, numbers and named values");
    text.push(b'\n');
    text.into()
}
