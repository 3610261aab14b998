//! Every limit that a client is held to, with its reason.

use std::time::Duration;

/// What a client may take. The defaults suit a node that strangers reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time on a listener; more wait in the system's backlog. Each costs two descriptors at
    /// most and about 16 KiB.
    pub connections: usize,
    /// With more connections than this, a request waits until all that is ready has been looked at before its function runs:
    /// one function's crowd is counted and lined up before it can hold up another function's request. Below, that would cost
    /// more than it gives.
    pub crowd: usize,
    /// Bytes of a request line with its header section: browsers with large cookies stay below 16 KiB.
    pub header_bytes: usize,
    /// Fields of a header section. hyper parses up to 100 on the stack.
    pub headers: usize,
    /// Bytes of a request target: what RFC 9110 §4.1 asks to support at least.
    pub uri_bytes: usize,
    /// From the first byte of a header section to its last (slowloris).
    pub header_time: Duration,
    /// Between two reads of a request body that a function waits for.
    pub body_idle: Duration,
    /// A connection without a request.
    pub idle: Duration,
    /// An answer of which the client takes nothing.
    pub write_stall: Duration,
    /// HTTP/2 requests at the same time on a connection: what browsers assume at least (RFC 9113 §6.5.2).
    pub h2_streams: u32,
    /// HTTP/2 streams that the peer reset before they were accepted, or that we reset for its errors: past these the
    /// connection is closed (CVE-2023-44487, rapid reset; CVE-2025-8671, made-you-reset).
    pub h2_resets: usize,
    /// How often an HTTP/2 peer is asked whether it is there, and how long it may take to say so.
    pub h2_ping: Duration,
    /// Unsent bytes kept for a slow reader, for each HTTP/1.1 connection or HTTP/2 stream.
    pub send_buffer_bytes: usize,
    /// The longest that a request is held which comes before the `retry-after` of a refusal on its connection is over.
    pub pace: Duration,
    /// Requests in flight at a drain have this long to finish.
    pub drain: Duration,
    /// How long a closed connection still reads, so that the last answer is not lost to a reset (RFC 9112 §9.6).
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            crowd: 256,
            header_bytes: 32 << 10,
            headers: 100,
            uri_bytes: 8_000,
            header_time: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            write_stall: Duration::from_secs(30),
            h2_streams: 100,
            h2_resets: 20,
            h2_ping: Duration::from_secs(20),
            send_buffer_bytes: 64 << 10,
            pace: Duration::from_secs(1),
            drain: Duration::from_secs(30),
            linger: Duration::from_secs(1),
        }
    }
}
