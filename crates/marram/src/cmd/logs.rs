//! `marram logs`: what functions have logged, and what they log now.

use clap::{Args, ValueEnum};
use marram_core::Name;
use marram_core::quantity::Span;
use marram_core::record::Level;
use marram_core::trace::RequestId;

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::{self, Client};
use crate::log_line::LogLine;
use crate::{output, units};

/// Shows what functions have logged.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Go on with what they log from now on
    #[arg(long, short)]
    follow: bool,
    /// Only this app
    #[arg(long)]
    app: Option<Name>,
    /// Only functions of this name
    #[arg(long)]
    function: Option<Name>,
    /// Only this request: the `marram-request-id` of its answer
    #[arg(long, value_name = "ID", value_parser = request)]
    request: Option<RequestId>,
    /// Only what matters at least this much
    #[arg(long, value_enum)]
    level: Option<Least>,
    /// Only the last while, such as 5m or 1h
    #[arg(long, value_name = "SPAN")]
    since: Option<Span>,
    /// At most this many of the past lines
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// A level on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Least {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl From<Least> for Level {
    fn from(least: Least) -> Self {
        match least {
            Least::Trace => Self::Trace,
            Least::Debug => Self::Debug,
            Least::Info => Self::Info,
            Least::Warn => Self::Warn,
            Least::Error => Self::Error,
            Least::Critical => Self::Critical,
        }
    }
}

/// Prints line by line, as they come.
pub(crate) async fn run(args: &Logs) -> anyhow::Result<()> {
    let since = args.since.map(|span| units::rfc3339(units::now_unix_ms().saturating_sub(span.0.as_millis() as u64)));
    let level = args.level.map(|least| serde_json::to_value(Level::from(least))).transpose()?;
    let path = client::with_query(
        "/v1/logs",
        &[
            ("app", args.app.as_ref().map(ToString::to_string)),
            ("function", args.function.as_ref().map(ToString::to_string)),
            ("request", args.request.map(|request| request.to_string())),
            ("level", level.and_then(|level| level.as_str().map(str::to_owned))),
            ("since", since),
            ("limit", Some(args.limit.to_string())),
            ("follow", args.follow.then(|| "true".to_owned())),
        ],
    );
    let client = Client::new(&args.node)?;
    let mut answer = client.send(http::Method::GET, &path, client::empty()).await?.ok().await?;
    let mut nothing = true;
    while let Some(line) = answer.line().await? {
        nothing = false;
        if args.json.json {
            output::bytes(&[&line[..], b"\n"].concat())?;
        } else {
            output::line(&LogLine::parse(&line).pretty(args.app.is_none()))?;
        }
    }
    anyhow::ensure!(!args.follow, "the node ended the log: it has stopped or was drained");
    if nothing && !args.json.json {
        output::message("nothing of what is asked for was logged yet");
    }
    Ok(())
}

fn request(text: &str) -> Result<RequestId, String> {
    let is_one = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let known = is_one.then(|| text.parse().ok()).flatten();
    known.ok_or_else(|| {
        "a request's id has 16 hexadecimal digits, such as 0af7651916cd43dd: it is the `marram-request-id` of an answer"
            .to_owned()
    })
}
