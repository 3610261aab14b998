//! Every limit that a client of the S3 API is held to, with its reason.

use std::time::Duration;

/// What a client may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time, of which each holds up to about 1 MiB of a content on its way. For one more, one
    /// without a request is closed; where all have one under way, more wait in the system's backlog.
    pub connections: usize,
    /// Bytes of a request's header section: 8 KiB of metadata, a name of 3 KiB when encoded, and a signature.
    pub header_bytes: usize,
    /// From the first byte of a request to the end of its header section, and a connection without a request.
    pub header_time: Duration,
    /// The handshake of TLS.
    pub handshake_time: Duration,
    /// Between two reads of a body.
    pub body_idle: Duration,
    /// An answer of which the client takes nothing.
    pub write_stall: Duration,
    /// Bytes of a signed chunk of a content, which is held in memory until its signature can be looked at: SDKs make them of 64
    /// to 128 KiB.
    pub signed_chunk_bytes: u64,
    /// Bytes of a body in XML, which is held in memory: a delete of 1,000 names of 1 KiB, or the 10,000 parts of an upload with
    /// their checksums.
    pub xml_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            header_bytes: 32 << 10,
            header_time: Duration::from_secs(30),
            handshake_time: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            signed_chunk_bytes: 1 << 20,
            xml_bytes: 8 << 20,
        }
    }
}

/// For how long an URL can be signed, as AWS has it.
pub const PRESIGNED_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How far a client's clock may be off, as AWS has it.
pub const CLOCK_SKEW: Duration = Duration::from_secs(15 * 60);
