//! Every bound of outbound HTTP, with its reason.

use std::time::Duration;

/// Connections of a node: a quarter of the usual limit of 16 Ki open files, beside listeners, the store and logs.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// Idle connections of a node; each holds about 40 KiB with TLS.
pub(crate) const IDLE_MAX: usize = 1024;
/// Requests under way for one function, from the permit to the end of the answer: one function cannot take the node's
/// connections, and each invocation of a function at its default concurrency can have two.
pub(crate) const EXCHANGES_MAX: usize = 256;
/// Requests of one function that may wait for a permit; the next one fails at once.
pub(crate) const WAITING_MAX: usize = 1024;
/// Idle connections of one function.
pub(crate) const IDLE_PER_GRANT_MAX: usize = 64;
/// Idle HTTP/1.1 connections of one function to one origin.
pub(crate) const IDLE_PER_ORIGIN_MAX: usize = 16;
/// Servers commonly close after 60 s or more; below that, few requests meet a connection that is just being closed.
pub(crate) const IDLE: Duration = Duration::from_secs(45);
/// An older connection gets no new requests, so that a change in DNS is followed also under steady traffic.
pub(crate) const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);

/// Streams of one HTTP/2 connection; beyond it another connection is opened.
pub(crate) const H2_STREAMS_MAX: usize = 32;
/// What a server may send on one stream before the function reads: 256 KiB fill 20 Mbit/s at 100 ms.
pub(crate) const H2_STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// All streams of a connection together: a full window each, so that unread streams do not stall the others.
pub(crate) const H2_CONNECTION_WINDOW_BYTES: u32 = H2_STREAM_WINDOW_BYTES * H2_STREAMS_MAX as u32;
/// What is taken from the function before the socket takes it, per HTTP/2 stream.
pub(crate) const H2_SEND_BYTES_MAX: usize = 256 << 10;
/// Read buffer of an HTTP/1.1 connection. It has to hold the header section.
pub(crate) const H1_BUFFER_BYTES_MAX: usize = 128 << 10;

/// Header section of an answer: more than any common server sends (8 to 32 KiB).
pub(crate) const RESPONSE_HEADER_BYTES_MAX: usize = 64 << 10;
/// Header fields of an answer.
pub(crate) const RESPONSE_HEADERS_MAX: usize = 256;
/// Header section of a request, for the same reason.
pub(crate) const REQUEST_HEADER_BYTES_MAX: usize = 64 << 10;

/// Name look-ups at the same time on a node: each blocks a thread of the runtime's blocking pool (512 threads).
pub(crate) const LOOKUPS_MAX: usize = 32;
/// Name look-ups at the same time for one function: slow names of one leave room for the others.
pub(crate) const LOOKUPS_PER_GRANT_MAX: usize = 8;
/// A look-up takes longer only when its servers do not answer.
pub(crate) const LOOKUP_WAIT: Duration = Duration::from_secs(5);
/// How long an answer of DNS is used again. The system's resolver does not tell the record's own time to live.
pub(crate) const LOOKUP_KEPT: Duration = Duration::from_secs(10);
/// How long a failed look-up is remembered: enough to stop a busy loop.
pub(crate) const LOOKUP_FAILURE_KEPT: Duration = Duration::from_secs(1);
/// Names in the cache.
pub(crate) const LOOKUPS_KEPT_MAX: usize = 1024;
/// Addresses of a name that are considered.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// How long an address is tried before the next one is tried beside it (RFC 8305 §5 recommends 250 ms).
pub(crate) const ATTEMPT_STAGGER: Duration = Duration::from_millis(250);

/// How long one request may take, in parts. The invocation's own deadline holds besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// A permit; then look-up, TCP and TLS until the connection can be used.
    pub(crate) connect: Duration,
    /// From the last progress of the request's body to the head of the answer.
    pub(crate) first_byte: Duration,
    /// Between two parts of the answer's body.
    pub(crate) between_bytes: Duration,
}

impl Timeouts {
    /// The longest that a function may ask for: a connection that takes a minute will not come; the others are bounded
    /// as the longest deadline is.
    pub(crate) const MAX: Self = Self {
        connect: Duration::from_secs(60),
        first_byte: Duration::from_secs(3600),
        between_bytes: Duration::from_secs(3600),
    };

    /// The same, none longer than in [`Timeouts::MAX`].
    #[must_use]
    pub(crate) fn bounded(self) -> Self {
        Self {
            connect: self.connect.min(Self::MAX.connect),
            first_byte: self.first_byte.min(Self::MAX.first_byte),
            between_bytes: self.between_bytes.min(Self::MAX.between_bytes),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { connect: Duration::from_secs(10), first_byte: minute, between_bytes: minute }
    }
}

/// The bounds of one grant, apart so that tests can lower them.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrantLimits {
    pub(super) exchanges: usize,
    pub(super) waiting: usize,
    pub(super) idle: Duration,
    pub(super) idle_per_origin: usize,
    pub(super) idle_total: usize,
}

impl Default for GrantLimits {
    fn default() -> Self {
        Self {
            exchanges: EXCHANGES_MAX,
            waiting: WAITING_MAX,
            idle: IDLE,
            idle_per_origin: IDLE_PER_ORIGIN_MAX,
            idle_total: IDLE_PER_GRANT_MAX,
        }
    }
}
