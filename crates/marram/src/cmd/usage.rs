//! `marram usage`: what functions have used.

use anyhow::Context as _;
use clap::Args;
use marram_core::Name;
use marram_core::quantity::Span;
use serde::Deserialize;

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::{self, Client};
use crate::output;
use crate::table::{Column, table};
use crate::units;

/// Shows what each function has used.
#[derive(Args, Debug)]
pub(crate) struct Usage {
    /// Only this app
    #[arg(long)]
    app: Option<Name>,
    /// Only functions of this name
    #[arg(long)]
    function: Option<Name>,
    /// Only the last while, such as 1h or 30d
    #[arg(long, value_name = "SPAN")]
    since: Option<Span>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Deserialize)]
struct Answer {
    usage: Vec<Used>,
}

/// What is shown of a function's usage; `--json` has all of it.
#[derive(Deserialize, Default)]
struct Used {
    app: String,
    function: String,
    invocations: u64,
    failed: u64,
    wall_ns: u64,
    cpu_ns: u64,
    gb_seconds: f64,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(default)]
    cost: Option<Cost>,
}

#[derive(Deserialize)]
struct Cost {
    currency: String,
    total: f64,
}

/// Asks and prints.
pub(crate) async fn run(args: &Usage) -> anyhow::Result<()> {
    let since = args.since.map(|span| units::rfc3339(units::now_unix_ms().saturating_sub(span.0.as_millis() as u64)));
    let path = client::with_query(
        "/v1/usage",
        &[
            ("app", args.app.as_ref().map(ToString::to_string)),
            ("function", args.function.as_ref().map(ToString::to_string)),
            ("since", since),
        ],
    );
    let answer = Client::new(&args.node)?.get(&path).await?;
    if args.json.json {
        return Ok(output::json(&answer)?);
    }
    let answer: Answer = serde_json::from_value(answer).context("the node's answer is of another version")?;
    if answer.usage.is_empty() {
        output::message("nothing was used");
        return Ok(());
    }
    let priced = answer.usage.iter().any(|used| used.cost.is_some());
    let mut columns = vec![
        Column::Left("FUNCTION"),
        Column::Right("RUNS"),
        Column::Right("FAILED"),
        Column::Right("WALL/RUN"),
        Column::Right("CPU/RUN"),
        Column::Right("GB-S"),
        Column::Right("IN"),
        Column::Right("OUT"),
    ];
    if priced {
        columns.push(Column::Right("COST"));
    }
    let mut rows: Vec<_> = answer.usage.iter().map(|used| row(used, priced)).collect();
    if rows.len() > 1 {
        rows.push(row(&total(&answer.usage), priced));
    }
    output::line(&table(&columns, &rows))?;
    Ok(())
}

fn row(used: &Used, priced: bool) -> Vec<String> {
    let per_run = |ns: u64| units::nanoseconds(ns / used.invocations.max(1));
    let name = if used.app.is_empty() { used.function.clone() } else { format!("{}/{}", used.app, used.function) };
    let mut row = vec![
        name,
        units::count(used.invocations),
        units::count(used.failed),
        per_run(used.wall_ns),
        per_run(used.cpu_ns),
        format!("{:.3}", used.gb_seconds),
        units::bytes(used.bytes_in),
        units::bytes(used.bytes_out),
    ];
    if priced {
        row.push(used.cost.as_ref().map_or("-".into(), |cost| format!("{:.4} {}", cost.total, cost.currency)));
    }
    row
}

/// All functions together.
fn total(usage: &[Used]) -> Used {
    let mut total = Used { function: "total".into(), ..Used::default() };
    for used in usage {
        total.invocations += used.invocations;
        total.failed += used.failed;
        total.wall_ns += used.wall_ns;
        total.cpu_ns += used.cpu_ns;
        total.gb_seconds += used.gb_seconds;
        total.bytes_in += used.bytes_in;
        total.bytes_out += used.bytes_out;
        if let Some(cost) = &used.cost {
            let sum = total.cost.map_or(0.0, |sum: Cost| sum.total) + cost.total;
            total.cost = Some(Cost { currency: cost.currency.clone(), total: sum });
        }
    }
    total
}
