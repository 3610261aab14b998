//! What the WASI 0.2 test guests share: reading a request, answering in one piece or in a stream, copying a body with its
//! trailers. Blocking, because a 0.2 handler has one request and nothing else to do.

use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

/// WASI lets one blocking write carry this many bytes.
const WRITE_BYTES_MAX: usize = 4096;

/// The path of a request, cut at its slashes, and its query.
pub struct Route {
    segments: Vec<String>,
    query: String,
}

impl Route {
    /// Reads the path and the query of `request`.
    pub fn of(request: &IncomingRequest) -> Self {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let segments = path.split('/').skip(1).map(str::to_owned).collect();
        Self { segments, query: query.to_owned() }
    }

    /// The segments, for matching.
    pub fn segments(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// The value of a query parameter, percent-decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let value = self.query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
        Some(percent_decoded(value))
    }
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                out.push(byte);
                rest = &tail[2..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A number from a path segment; 0 for what is none.
pub fn number(segment: &str) -> u64 {
    segment.parse().unwrap_or(0)
}

/// A response whose head has been sent and whose body is being written.
pub struct Reply {
    // The stream is a child of the body: it must be dropped first, so it comes first.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Reply {
    /// Sends the head.
    pub fn start(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> Self {
        let fields = Fields::new();
        for (name, value) in headers {
            fields.append(name, value.as_bytes()).expect("the guests use valid headers");
        }
        let response = OutgoingResponse::new(fields);
        response.set_status_code(status).expect("the status comes checked");
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("the stream is taken once");
        Self { stream, body }
    }

    /// Writes all of `bytes` and flushes them out. An error means that the client is gone.
    pub fn write(&self, bytes: &[u8]) -> Result<(), StreamError> {
        bytes.chunks(WRITE_BYTES_MAX).try_for_each(|chunk| self.stream.blocking_write_and_flush(chunk))
    }

    /// Copies an incoming body to its end, then finishes with its trailers.
    pub fn copy(self, incoming: IncomingBody) {
        let input = incoming.stream().expect("the stream is taken once");
        loop {
            match input.blocking_read(64 * 1024) {
                Ok(bytes) if self.write(&bytes).is_err() => return,
                Ok(_) => {}
                Err(StreamError::Closed) => break,
                // The sender broke off: so does this answer, which is left without its end.
                Err(StreamError::LastOperationFailed(_)) => return,
            }
        }
        drop(input);
        let trailers = IncomingBody::finish(incoming);
        trailers.subscribe().block();
        let trailers = match trailers.get() {
            Some(Ok(Ok(trailers))) => trailers,
            _ => None,
        };
        self.finish(trailers);
    }

    /// Ends the body.
    pub fn finish(self, trailers: Option<Fields>) {
        let Self { stream, body } = self;
        drop(stream);
        // A client that left early is no business of a test guest.
        let _ = OutgoingBody::finish(body, trailers);
    }
}

/// Answers in one piece.
pub fn answer(out: ResponseOutparam, status: u16, content_type: &str, body: &str) {
    let reply = Reply::start(out, status, &[("content-type", content_type)]);
    let _ = reply.write(body.as_bytes());
    reply.finish(None);
}

/// Answers 200 with JSON.
pub fn answer_json(out: ResponseOutparam, body: &str) {
    answer(out, 200, "application/json", body);
}

/// Answers 200 with plain text.
pub fn answer_text(out: ResponseOutparam, body: &str) {
    answer(out, 200, "text/plain; charset=utf-8", body);
}

/// Waits for some milliseconds without using the CPU.
pub fn sleep_ms(ms: u64) {
    wasip2::clocks::monotonic_clock::subscribe_duration(ms * 1_000_000).block();
}

/// The name of a method.
pub fn method_name(method: &Method) -> String {
    match method {
        Method::Other(name) => name.clone(),
        named => format!("{named:?}").trim_start_matches("Method::").to_ascii_uppercase(),
    }
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
