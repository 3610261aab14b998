//! Building answers in WASI 0.3: a response is returned at once, and a task of its own writes the body.

use wasip3::http::types::{ErrorCode, Fields, Response};
use wasip3::wit_bindgen::{FutureWriter, StreamWriter, spawn_local};
use wasip3::{wit_future, wit_stream};

/// What a body ends with: trailers, or none, or an error.
pub type End = Result<Option<Fields>, ErrorCode>;

/// A response with status 200, its body's writer, and the writer of its end.
pub fn stream_with_trailers(content_type: &str) -> (StreamWriter<u8>, FutureWriter<End>, Response) {
    let headers = Fields::new();
    let _ = headers.append("content-type", content_type.as_bytes());
    let (body, contents) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    (body, end, Response::new(headers, Some(contents), trailers).0)
}

/// An answer in one piece.
pub fn text(status: u16, content_type: &str, content: String) -> Response {
    let (mut body, _end, response) = stream_with_trailers(content_type);
    let _ = response.set_status_code(status);
    spawn_local(async move {
        body.write_all(content.into_bytes()).await;
    });
    response
}

/// `text` as a JSON string.
pub fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Pairs as a JSON array of pairs: names may repeat, and order is kept.
pub fn json_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<_> = pairs.map(|(name, value)| format!("[{},{}]", json_string(name), json_string(value))).collect();
    format!("[{}]", pairs.join(","))
}
