//! `/v1/usage` and `/v1/invocations`: what functions used, summed up and one by one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri};
use marram_core::trace::RequestId;
use marram_core::{Failure, Name};
use marram_telemetry::{InvocationQuery, UsageQuery};
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::Operation;
use super::problem::Refusal;
use super::{Admin, input};
use crate::api::{FunctionUsage, Invocations, UsageView};

/// Invocations of one answer, if nothing else is asked for.
const INVOCATIONS_DEFAULT: usize = 100;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/v1/usage", "getUsage", "What functions used, and what it costs", usage)
            .query::<UsageParameters>()
            .json::<UsageView>(200, "By app and function"),
        Operation::new(Method::GET, "/v1/invocations", "listInvocations", "Recent invocations", invocations)
            .query::<InvocationParameters>()
            .json::<Invocations>(200, "The latest ones, oldest first"),
    ]
}

/// Which usage. Its span is rounded outwards to minutes, and to hours where it is older than two days.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UsageParameters {
    /// Only this app.
    app: Option<Name>,
    /// Only functions of this name.
    function: Option<Name>,
    /// From this time on: RFC 3339 in UTC, or a span back from now, such as `12h`.
    since: Option<String>,
    /// Before this time.
    until: Option<String>,
}

/// Which invocations.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InvocationParameters {
    /// Only this app.
    app: Option<Name>,
    /// Only functions of this name.
    function: Option<Name>,
    /// Only this request.
    request: Option<RequestId>,
    /// At most this many; 100 if left out.
    limit: Option<usize>,
}

async fn usage(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Json<UsageView>, Refusal> {
    let UsageParameters { app, function, since, until } = input::query(&uri)?;
    let now = admin.parts.clock.unix_ns();
    let time = |text: Option<String>| text.map(|text| input::time(&text, now)).transpose();
    let query = UsageQuery { app, function, since_unix_ns: time(since)?, until_unix_ns: time(until)? };
    let telemetry = Arc::clone(&admin.parts.telemetry);
    let usage = input::blocking(move || telemetry.usage(&query)).await?.map_err(Failure::from)?;
    let prices = admin.parts.config.prices.as_ref();
    let priced =
        usage.into_iter().map(|usage| FunctionUsage { cost: prices.map(|prices| prices.cost(&usage.used)), usage });
    Ok(Json(UsageView { usage: priced.collect() }))
}

async fn invocations(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Json<Invocations>, Refusal> {
    let InvocationParameters { app, function, request, limit } = input::query(&uri)?;
    let query = InvocationQuery { app, function, request, limit: Some(limit.unwrap_or(INVOCATIONS_DEFAULT)) };
    let telemetry = Arc::clone(&admin.parts.telemetry);
    let invocations = input::blocking(move || telemetry.invocations(&query)).await?;
    Ok(Json(Invocations { invocations }))
}
