//! A probe for the host, in WASI 0.3: each path asks one thing of it. The tests read the answers.

mod inside;
mod outside;
mod reply;

use reply::{json_pairs, json_string, stream_with_trailers, text};
use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future};

wasip3::http::service::export!(Probe);

struct Probe;

impl wasip3::exports::http::handler::Guest for Probe {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let segments: Vec<_> = path.split('/').skip(1).collect();
        let number = |segment: &str| segment.parse::<u64>().unwrap_or(0);
        Ok(match segments[..] {
            ["echo"] => echo(request),
            ["headers"] => text(200, "application/json", description(&request)),
            ["status", code] => text(number(code) as u16, "text/plain", String::new()),
            ["big", bytes] => big(number(bytes)),
            ["slow-stream", chunks, ms] => slow_stream(number(chunks), number(ms)),
            ["fetch"] => outside::fetch(query.strip_prefix("url=").unwrap_or_default()).await,
            ["sockets"] => text(200, "application/json", outside::sockets().await),
            ["env"] => text(200, "application/json", inside::environment()),
            ["args"] => text(200, "application/json", inside::arguments()),
            ["time"] => text(200, "application/json", inside::time().await),
            ["random"] => text(200, "application/json", inside::random()),
            ["fs"] => text(200, "application/json", inside::files()),
            ["log"] => inside::log(),
            _ => text(404, "text/plain", "the probe has no such path\n".to_owned()),
        })
    }
}

/// Sends the body back as it comes, with its type and its trailers: the host's own streams are handed on.
fn echo(request: Request) -> Response {
    let content_type = request.get_headers().get("content-type").pop();
    let headers = Fields::new();
    if let Some(content_type) = content_type {
        let _ = headers.append("content-type", &content_type);
    }
    let (_, received) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, received);
    Response::new(headers, Some(body), trailers).0
}

/// The head of the request as JSON.
fn description(request: &Request) -> String {
    let entries: Vec<_> = request
        .get_headers()
        .copy_all()
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
        .collect();
    let method = match request.get_method() {
        Method::Other(name) => name,
        named => format!("{named:?}").trim_start_matches("Method::").to_ascii_uppercase(),
    };
    let scheme = match request.get_scheme() {
        Some(Scheme::Http) => "http".to_owned(),
        Some(Scheme::Https) => "https".to_owned(),
        Some(Scheme::Other(name)) => name,
        None => String::new(),
    };
    format!(
        "{{\"method\":{},\"scheme\":{},\"authority\":{},\"path\":{},\"headers\":{}}}",
        json_string(&method),
        json_string(&scheme),
        json_string(&request.get_authority().unwrap_or_default()),
        json_string(&request.get_path_with_query().unwrap_or_default()),
        json_pairs(entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
    )
}

/// Streams `bytes` bytes.
fn big(bytes: u64) -> Response {
    let (mut body, trailers, response) = stream_with_trailers("application/octet-stream");
    wit_bindgen::spawn_local(async move {
        let mut left = bytes;
        while left > 0 {
            let size = left.min(64 * 1024);
            if !body.write_all(vec![b'm'; size as usize]).await.is_empty() {
                return;
            }
            left -= size;
        }
        drop(body);
        let _ = trailers.write(Ok(None)).await;
    });
    response
}

/// Streams numbered lines with a pause after each, and ends with a trailer that says how many there were.
fn slow_stream(chunks: u64, ms: u64) -> Response {
    let (mut body, trailers, response) = stream_with_trailers("text/plain");
    wit_bindgen::spawn_local(async move {
        for chunk in 0..chunks {
            if !body.write_all(format!("chunk {chunk}\n").into_bytes()).await.is_empty() {
                return;
            }
            monotonic_clock::wait_for(ms * 1_000_000).await;
        }
        drop(body);
        let fields = Fields::new();
        let _ = fields.append("x-chunks", chunks.to_string().as_bytes());
        let _ = trailers.write(Ok(Some(fields))).await;
    });
    response
}
