//! What of `wasi:http` this function needs.

use serde_json::Value;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::StreamError;

/// WASI lets one blocking write carry this many bytes.
const WRITE_BYTES_MAX: usize = 4096;

/// The value of a header, if it is there and is text.
pub fn header(request: &IncomingRequest, name: &str) -> Option<String> {
    String::from_utf8(request.headers().get(name).into_iter().next()?).ok()
}

/// All of the body.
pub fn body(request: IncomingRequest) -> Vec<u8> {
    let Ok(body) = request.consume() else { return Vec::new() };
    let Ok(stream) = body.stream() else { return Vec::new() };
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return bytes,
            // What is there is too short, and is refused as that.
            Err(_) => return Vec::new(),
        }
    }
}

/// Settles the event without another one. The text is the reason that a dead letter has.
pub fn answer(out: ResponseOutparam, status: u16, text: &str) {
    send(out, status, Fields::new(), text.as_bytes());
}

/// Settles the event, and publishes another: a CloudEvent in binary mode. It has the id of its cause, so that the stream
/// stores it once if the cause comes again.
pub fn answer_event(out: ResponseOutparam, cause: &str, photo: &str, rendered: &Value) {
    let headers = Fields::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", cause),
        ("ce-source", "/media/uploads"),
        ("ce-type", "com.example.photo.rendered"),
        ("ce-subject", &percent_encoded(photo)),
    ] {
        headers.append(name, value.as_bytes()).expect("these are headers");
    }
    send(out, 200, headers, rendered.to_string().as_bytes());
}

/// As the value of a header has to be (CloudEvents HTTP binding §3.1.3.2).
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'%';
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn send(out: ResponseOutparam, status: u16, headers: Fields, bytes: &[u8]) {
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("it is a status");
    let body = response.body().expect("it is asked for once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("it is asked for once");
    for chunk in bytes.chunks(WRITE_BYTES_MAX) {
        if stream.blocking_write_and_flush(chunk).is_err() {
            return;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
