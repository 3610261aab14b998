//! `marram stream`: events of a node's streams, in and out, and who consumes them.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use marram_node::api::{ConsumerView, StreamView, Streams};
use serde_json::{Value, json};

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::{self, Client, escape};
use crate::exit::{Exit, Problem};
use crate::output::{self, BOLD, GREEN, YELLOW, paint};
use crate::table::{Column, table};
use crate::units;

mod publish;
mod shown;

/// Looks at streams, follows and publishes events, replays, and tends dead letters.
#[derive(Args, Debug)]
pub(crate) struct Stream {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List streams and their consumers
    Ls {
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Print the events of a stream, and those that come
    Tail(Tail),
    /// Publish an event; it is on the disk when the command ends
    Publish(publish::Publish),
    /// Deliver again what a consumer has had
    Replay {
        /// The stream
        stream: String,
        /// Whose cursor moves, as `marram stream ls` shows it
        #[arg(long, value_name = "ID")]
        consumer: String,
        /// `first`, a position, a time such as 2026-11-24T04:09:29Z, a span back from now such as 15m, or `next`: what is owed
        /// and passed over counts as dropped
        #[arg(long, value_name = "WHERE")]
        from: String,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Stop delivering to a consumer, or go on with --resume
    Pause {
        /// The stream
        stream: String,
        /// Which consumer, as `marram stream ls` shows it
        #[arg(long, value_name = "ID")]
        consumer: String,
        /// Go on
        #[arg(long)]
        resume: bool,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show what the consumers of a stream gave up on, which is kept for 7 days, or put it back with --redrive
    Dlq {
        /// The stream
        stream: String,
        /// Put the dead letters back into the stream
        #[arg(long)]
        redrive: bool,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Remove a stream with its events and consumers
    Rm {
        /// The stream
        stream: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Args, Debug)]
struct Tail {
    /// The stream
    stream: String,
    /// `first`, `next`, a position, a time such as 2026-11-24T04:09:29Z, or a span back from now such as 15m
    /// [default: next; with --no-follow, first]
    #[arg(long, value_name = "WHERE")]
    from: Option<String>,
    /// End after the last event that is there
    #[arg(long)]
    no_follow: bool,
    /// At most this many events
    #[arg(long, short = 'n', value_name = "EVENTS")]
    limit: Option<u64>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Does one of them.
pub(crate) async fn run(args: &Stream) -> anyhow::Result<()> {
    match &args.action {
        Action::Ls { json, node } => list(json.json, &Client::new(node)?).await,
        Action::Tail(args) => tail(args).await,
        Action::Publish(args) => publish::run(args).await,
        Action::Replay { stream, consumer, from, json, node } => {
            let body = json!({ "consumer": consumer, "from": from });
            let now = moved(&Client::new(node)?, stream, "replay", &body).await?;
            if json.json {
                return print_line(&now);
            }
            output::message(&format!("{} goes on at {}", paint(BOLD, consumer), now.cursor + 1));
            Ok(())
        }
        Action::Pause { stream, consumer, resume, json, node } => {
            let body = json!({ "consumer": consumer, "paused": !resume });
            let now = moved(&Client::new(node)?, stream, "pause", &body).await?;
            if json.json {
                return print_line(&now);
            }
            output::message(&format!("{} {consumer}", paint(GREEN, if *resume { "resumed" } else { "paused" })));
            Ok(())
        }
        Action::Dlq { stream, redrive: again, json, node } => {
            check_not_dead(stream, *again)?;
            let client = Client::new(node)?;
            if *again { redrive(stream, json.json, &client).await } else { dead(stream, json.json, &client).await }
        }
        Action::Rm { stream, node } => {
            let path = format!("/v1/streams/{}", escape(stream));
            Client::new(node)?.send(Method::DELETE, &path, client::empty()).await?.ok().await?;
            output::message(&format!("{} {}", paint(GREEN, "removed"), paint(BOLD, stream)));
            Ok(())
        }
    }
}

async fn list(json: bool, client: &Client) -> anyhow::Result<()> {
    let answer = client.get("/v1/streams").await?;
    let list: Streams = serde_json::from_value(answer).context("the node's answer is of another version")?;
    if json {
        return list.streams.iter().try_for_each(print_line);
    }
    if list.streams.is_empty() {
        output::message("no streams yet");
        output::hint("declare one as [stream.NAME] in an app's manifest, or `marram stream publish NAME --data …`");
        return Ok(());
    }
    Ok(output::line(&listing(&list.streams))?)
}

/// A row for each stream, and one for each of its consumers. What was refused and dropped has a column where there was
/// any.
fn listing(streams: &[StreamView]) -> String {
    let rejected = streams.iter().any(|stream| stream.rejected > 0);
    let lost = |stream: &StreamView| stream.dropped > 0 || stream.consumers.iter().any(|one| one.dropped > 0);
    let dropped = streams.iter().any(lost);
    let columns = [
        (true, Column::Left("STREAM")),
        (true, Column::Right("EVENTS")),
        (true, Column::Right("SIZE")),
        (true, Column::Right("LAST")),
        (rejected, Column::Right("REJECTED")),
        (dropped, Column::Right("DROPPED")),
        (true, Column::Right("WAITING")),
        (true, Column::Right("RETRYING")),
        (true, Column::Right("DEAD")),
        (true, Column::Whole("CONSUMER")),
    ];
    let shown: Vec<_> = columns.iter().map(|(shown, _)| *shown).collect();
    let kept = |row: [String; 10]| row.into_iter().zip(&shown).filter(|(_, shown)| **shown).map(|(cell, _)| cell);
    let rows: Vec<Vec<_>> = streams.iter().flat_map(rows).map(|row| kept(row).collect()).collect();
    let columns: Vec<_> = columns.into_iter().filter(|(shown, _)| *shown).map(|(_, column)| column).collect();
    table(&columns, &rows)
}

fn rows(stream: &StreamView) -> Vec<[String; 10]> {
    let none = String::new;
    let mut rows = vec![[
        stream.name.clone(),
        units::count(stream.events),
        units::bytes(stream.bytes),
        units::count(stream.last),
        units::count(stream.rejected),
        units::count(stream.dropped),
        none(),
        none(),
        none(),
        none(),
    ]];
    for consumer in &stream.consumers {
        let waiting = stream.last.saturating_sub(consumer.handed) + consumer.held;
        let id =
            if consumer.paused { format!("{} {}", consumer.id, paint(YELLOW, "paused")) } else { consumer.id.clone() };
        let [dropped, waiting, retrying, dead] =
            [consumer.dropped, waiting, consumer.retrying, consumer.dead_lettered].map(units::count);
        rows.push([none(), none(), none(), none(), none(), dropped, waiting, retrying, dead, id]);
    }
    rows
}

async fn tail(args: &Tail) -> anyhow::Result<()> {
    let path = client::with_query(
        &format!("/v1/streams/{}/events", escape(&args.stream)),
        &[
            ("from", args.from.clone()),
            ("limit", args.limit.map(|limit| limit.to_string())),
            ("follow", (!args.no_follow).then(|| "true".to_owned())),
        ],
    );
    let client = Client::new(&args.node)?;
    let mut answer = client.send(Method::GET, &path, client::empty()).await?.ok().await?;
    let mut shown = 0;
    while let Some(line) = answer.line().await? {
        shown += 1;
        if args.json.json {
            output::bytes(&[&line[..], b"\n"].concat())?;
        } else {
            output::line(&shown::line(&line).context("the node sent a line that is no event")?)?;
        }
    }
    anyhow::ensure!(
        args.no_follow || args.limit == Some(shown),
        "the node ended the stream: it has stopped or was drained"
    );
    Ok(())
}

async fn moved(client: &Client, stream: &str, verb: &str, body: &Value) -> anyhow::Result<ConsumerView> {
    let answer = client.call(Method::POST, &format!("/v1/streams/{}/{verb}", escape(stream)), body).await?;
    serde_json::from_value(answer).context("the node's answer is of another version")
}

/// Dead letters are asked for by the stream whose consumers gave up on them.
fn check_not_dead(stream: &str, redrive: bool) -> Result<(), Problem> {
    let Some(of) = stream.strip_suffix(".dead") else { return Ok(()) };
    let again = if redrive { " --redrive" } else { "" };
    Err(Problem::new(Exit::Usage, format!("{stream} is the dead-letter stream itself"))
        .hint(format!("name the stream: `marram stream dlq {of}{again}`")))
}

async fn redrive(stream: &str, json: bool, client: &Client) -> anyhow::Result<()> {
    let path = format!("/v1/streams/{}/redrive", escape(stream));
    let answer = client.call(Method::POST, &path, &json!({})).await?;
    if json {
        return Ok(output::line(&answer.to_string())?);
    }
    let count = answer["redriven"].as_u64().unwrap_or_default();
    let events = if count == 1 { "event" } else { "events" };
    let (done, count, stream) = (paint(GREEN, "put back"), units::count(count), paint(BOLD, stream));
    output::message(&format!("{done} {count} {events} to {stream}"));
    Ok(())
}

async fn dead(stream: &str, json: bool, client: &Client) -> anyhow::Result<()> {
    let path = format!("/v1/streams/{}/events", escape(&format!("{stream}.dead")));
    let answer = client.send(Method::GET, &path, client::empty()).await?;
    if answer.head().status() == http::StatusCode::NOT_FOUND {
        drop(answer);
        // Without dead letters there is no such stream; without the stream itself, its name is misspelt.
        let path =
            client::with_query(&format!("/v1/streams/{}/events", escape(stream)), &[("limit", Some("1".into()))]);
        client.send(Method::GET, &path, client::empty()).await?.ok().await?;
        if !json {
            output::message(&format!("{stream} has no dead letters"));
        }
        return Ok(());
    }
    let mut answer = answer.ok().await?;
    let mut rows = Vec::new();
    while let Some(line) = answer.line().await? {
        if json {
            output::bytes(&[&line[..], b"\n"].concat())?;
            continue;
        }
        let event: Value = serde_json::from_slice(&line).context("the node sent a line that is no event")?;
        let names = ["marramposition", "id", "marramattempts", "marramconsumer", "marramreason"];
        rows.push(names.map(|name| cell(&event[name])).to_vec());
    }
    if !rows.is_empty() {
        let columns = [
            Column::Right("POSITION"),
            Column::Left("ID"),
            Column::Right("TRIES"),
            Column::Left("CONSUMER"),
            Column::Left("WHY"),
        ];
        output::line(&table(&columns, &rows))?;
    } else if !json {
        output::message(&format!("{stream} has no dead letters"));
    }
    Ok(())
}

/// An attribute as a table has it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => output::on_one_line(text).into_owned(),
        other => other.to_string(),
    }
}

fn print_line(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(output::line(&serde_json::to_string(value)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_that_an_event_does_not_have_is_a_dash() {
        for (value, text) in [(Value::Null, "-"), (json!("why"), "why"), (json!(8), "8")] {
            assert_eq!(cell(&value), text);
        }
    }

    #[test]
    fn dead_letters_are_asked_for_by_their_stream() {
        assert!(check_not_dead("readings", true).is_ok());
        let refused = check_not_dead("readings.dead", false).expect_err("it is one");
        assert_eq!((refused.exit(), refused.to_string().contains("readings.dead")), (Exit::Usage, true));
    }

    #[test]
    fn what_was_refused_or_dropped_has_a_column_where_there_was_any() {
        let stream = |rejected, dropped| -> StreamView {
            let consumer = json!({
                "id": "plant/take/stream:readings", "cursor": 0, "handed": 3, "in_flight": 0, "retrying": 0, "held": 1,
                "acked": 0, "dead_lettered": 4, "dropped": dropped, "redelivered": 0, "paused": false,
            });
            serde_json::from_value(json!({
                "name": "readings", "events": 5, "bytes": 0, "first": 1, "last": 5, "bytes_max": 1, "age_max_ms": 1,
                "overflow": "reject", "dropped": 0, "rejected": rejected, "duplicates": 0, "consumers": [consumer],
            }))
            .expect("a stream")
        };
        let words = |stream: StreamView| {
            let text = anstream::adapter::strip_str(&listing(&[stream])).to_string();
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        let shown = words(stream(0, 0));
        assert_eq!(shown[0], "STREAM EVENTS SIZE LAST WAITING RETRYING DEAD CONSUMER");
        assert_eq!(shown[2], "3 0 4 plant/take/stream:readings");
        let shown = words(stream(7, 8));
        assert_eq!(shown[0], "STREAM EVENTS SIZE LAST REJECTED DROPPED WAITING RETRYING DEAD CONSUMER");
        assert_eq!(shown[1..], ["readings 5 0 B 5 7 0", "8 3 0 4 plant/take/stream:readings"]);
    }
}
