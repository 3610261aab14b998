//! A probe for the host, in WASI 0.2: each path asks one thing of it. The tests read the answers.

mod inside;
mod outside;

use kit_p2::{Reply, Route, answer, answer_json, json_pairs, json_string, method_name, number, sleep_ms};
use wasip2::http::types::{IncomingRequest, ResponseOutparam, Scheme};

wasip2::http::proxy::export!(Probe);

struct Probe;

impl wasip2::exports::http::incoming_handler::Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let route = Route::of(&request);
        match route.segments()[..] {
            ["echo"] => echo(&request, out),
            ["headers"] => answer_json(out, &description(&request)),
            ["status", code] => answer(out, number(code) as u16, "text/plain", ""),
            ["big", bytes] => big(out, number(bytes)),
            ["slow-stream", chunks, ms] => slow_stream(out, number(chunks), number(ms)),
            ["fetch"] => outside::fetch(out, &route.query("url").unwrap_or_default()),
            ["sockets"] => answer_json(out, &outside::sockets()),
            ["env"] => answer_json(out, &inside::environment()),
            ["args"] => answer_json(out, &inside::arguments()),
            ["time"] => answer_json(out, &inside::time()),
            ["random"] => answer_json(out, &inside::random()),
            ["fs"] => answer_json(out, &inside::files()),
            ["log"] => inside::log(out),
            _ => answer(out, 404, "text/plain", "the probe has no such path\n"),
        }
    }
}

/// Sends the body back as it comes, with its type and its trailers.
fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let content_type = request.headers().get("content-type").pop().unwrap_or_default();
    let content_type = String::from_utf8(content_type).unwrap_or_default();
    let headers = [("content-type", content_type.as_str())];
    let headers = if content_type.is_empty() { &headers[..0] } else { &headers };
    let body = request.consume().expect("the body is taken once");
    Reply::start(out, 200, headers).copy(body);
}

/// The head of the request as JSON.
fn description(request: &IncomingRequest) -> String {
    let entries: Vec<_> = request
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
        .collect();
    format!(
        "{{\"method\":{},\"scheme\":{},\"authority\":{},\"path\":{},\"headers\":{}}}",
        json_string(&method_name(&request.method())),
        json_string(request.scheme().as_ref().map_or("", scheme_name)),
        json_string(&request.authority().unwrap_or_default()),
        json_string(&request.path_with_query().unwrap_or_default()),
        json_pairs(entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
    )
}

fn scheme_name(scheme: &Scheme) -> &str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
        Scheme::Other(name) => name,
    }
}

/// Streams `bytes` bytes.
fn big(out: ResponseOutparam, bytes: u64) {
    let reply = Reply::start(out, 200, &[("content-type", "application/octet-stream")]);
    let chunk = [b'm'; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(chunk.len() as u64);
        if reply.write(&chunk[..size as usize]).is_err() {
            return;
        }
        left -= size;
    }
    reply.finish(None);
}

/// Streams numbered lines with a pause after each.
fn slow_stream(out: ResponseOutparam, chunks: u64, ms: u64) {
    let reply = Reply::start(out, 200, &[("content-type", "text/plain")]);
    for chunk in 0..chunks {
        if reply.write(format!("chunk {chunk}\n").as_bytes()).is_err() {
            return;
        }
        sleep_ms(ms);
    }
    reply.finish(None);
}
