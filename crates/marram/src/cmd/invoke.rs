//! `marram invoke`: one request to one function, past the routes.

use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::cli::{FunctionPath, NodeArgs};
use crate::client::{self, Answer, Client};
use crate::data;
use crate::exit::{Exit, Problem};
use crate::output::{self, BOLD, DIM, paint};

/// With these the node refuses a request that no function has got.
const REFUSALS: [StatusCode; 3] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];

/// What says where a message goes and how long it is: with a second one it would not be the same message to everybody.
const OF_THE_MESSAGE: [HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

/// Sends a request to one function and prints its answer. No route is needed.
#[derive(Args, Debug)]
pub(crate) struct Invoke {
    /// The function
    #[arg(value_name = "APP/FUNCTION")]
    function: FunctionPath,
    /// Path and query that it gets
    #[arg(default_value = "/")]
    path: String,
    /// The method; GET, or POST with --data
    #[arg(long, short = 'X', value_name = "METHOD")]
    method: Option<Method>,
    /// A header; can be given several times
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The body: text, `@file`, or `@-` for stdin
    #[arg(long, short)]
    data: Option<String>,
    /// Print status and headers first
    #[arg(long, short)]
    include: bool,
    /// End with exit code 1 if the status is 400 or more; what the node refuses has its own code, with or without this
    #[arg(long, short)]
    fail: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Sends it, and streams the answer to stdout.
pub(crate) async fn run(args: &Invoke) -> anyhow::Result<Exit> {
    let client = Client::new(&args.node)?;
    let method = args.method.clone().unwrap_or(if args.data.is_some() { Method::POST } else { Method::GET });
    let path = args.path.strip_prefix('/').unwrap_or(&args.path);
    let url = format!("/v1/apps/{}/functions/{}/invoke/{path}", args.function.app, args.function.function);
    let mut request = client.request(method, &url);
    let headers =
        request.headers_mut().ok_or_else(|| Problem::new(Exit::Usage, format!("{:?} is not a path", args.path)))?;
    for (name, value) in &args.header {
        headers.append(name, value.clone());
    }
    let request = request.body(data::body(args.data.as_deref()).await?)?;
    let mut answer = client.exchange(request).await?;
    let status = answer.head().status();
    let by_the_node = if status.as_u16() < 400 { None } else { answer.of_the_node().await? };
    let by_the_node = match by_the_node {
        Some(refusal) if REFUSALS.contains(&status) => return Err(refusal.into()),
        said => said.is_some(),
    };
    if args.include {
        show_head(&answer)?;
    }
    let mut last = Bytes::new();
    while let Some(bytes) = answer.chunk().await? {
        output::bytes(&bytes)?;
        last = bytes;
    }
    if status.as_u16() < 400 {
        output::end_line(&last)?;
        return Ok(Exit::Done);
    }
    let who = if by_the_node { "the node answers in its place:" } else { "it answers" };
    output::message(&format!(
        "\n{} {} {}",
        paint(BOLD, who),
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    ));
    let ended = if by_the_node { client::exit_of(status) } else { Exit::Failed };
    Ok(if args.fail { ended } else { Exit::Done })
}

fn show_head(answer: &Answer) -> anyhow::Result<()> {
    let head = answer.head();
    let reason = head.status().canonical_reason().unwrap_or_default();
    output::line(&paint(BOLD, format!("{:?} {} {reason}", head.version(), head.status().as_u16())))?;
    for (name, value) in head.headers() {
        output::line(&format!("{} {}", paint(DIM, format!("{name}:")), String::from_utf8_lossy(value.as_bytes())))?;
    }
    Ok(output::line("")?)
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
    let name: HeaderName = name.trim().parse().map_err(|_| format!("{name:?} is not a header's name"))?;
    if OF_THE_MESSAGE.contains(&name) {
        return Err(format!("marram sets {name} itself, from --node and --data: leave it out"));
    }
    let value = value.trim().parse().map_err(|_| "its value has characters that a header cannot carry".to_owned())?;
    Ok((name, value))
}
