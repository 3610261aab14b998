//! `marram invoke`: one request to one function, past the routes.

use clap::Args;
use http::{HeaderName, HeaderValue, Method};

use crate::cli::{FunctionPath, NodeArgs};
use crate::client::{self, Answer, Client};
use crate::data;
use crate::exit::{Exit, Problem};
use crate::output::{self, BOLD, DIM, paint};

/// The prefix of what the admin API says itself, so that it is not taken for the function's answer.
const PROBLEM_TYPE: &str = "application/problem+json";

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
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The body: text, `@file`, or `@-` for stdin
    #[arg(long, short)]
    data: Option<String>,
    /// Print status and headers first
    #[arg(long, short)]
    include: bool,
    /// End with exit code 1 if the status is 400 or more
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
    if args.include {
        show_head(&answer)?;
    }
    while let Some(bytes) = answer.chunk().await? {
        output::bytes(&bytes)?;
    }
    if status.as_u16() < 400 {
        return Ok(Exit::Done);
    }
    let by_the_node = answer.head().headers().get(http::header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_TYPE);
    let who = if by_the_node { "the node answers for it" } else { "it answers" };
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

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is not a header's name"))?;
    let value = value.trim().parse().map_err(|_| "its value has characters that a header cannot carry".to_owned())?;
    Ok((name, value))
}
