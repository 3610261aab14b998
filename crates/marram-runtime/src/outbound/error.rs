//! How an outbound request fails. The classes are those of `wasi:http`, so that each engine can hand them on.

use std::error::Error;
use std::net::IpAddr;

use marram_core::{Failure, Kind};

/// Why a request to another server failed. The text is for the function's log: it names the thing and the next step.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    /// The function's grant does not list the origin.
    #[error("requests to {origin} are not granted: add {add:?} to allow.http of this function")]
    Denied {
        /// Scheme, host and port.
        origin: String,
        /// The entry to add.
        add: String,
    },
    /// The origin is granted, but its address is not public and not granted.
    #[error(
        "{host} is at {address}, {class}, which allow.http alone does not open: add {add:?} to allow.addresses of this function"
    )]
    AddressDenied {
        /// The host of the URI.
        host: String,
        /// The address that was refused.
        address: IpAddr,
        /// What it is: `"a private address"`.
        class: &'static str,
        /// The entry to add.
        add: String,
    },
    /// The name could not be resolved.
    #[error("the name {host} cannot be resolved: {reason}")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver says.
        reason: String,
    },
    /// Nothing listens there.
    #[error("{origin} refused the connection: is the server running, and is the port right?")]
    ConnectionRefused {
        /// Scheme, host and port.
        origin: String,
    },
    /// No way leads there.
    #[error("{origin} cannot be reached: {reason}")]
    Unreachable {
        /// Scheme, host and port.
        origin: String,
        /// What the system says.
        reason: String,
    },
    /// The connection was not ready in time.
    #[error("{origin} did not take the connection in time: raise the connect time-out if it is just slow")]
    ConnectTimeout {
        /// Scheme, host and port.
        origin: String,
    },
    /// The answer's head did not come in time.
    #[error("{origin} did not answer in time: raise the first-byte time-out if it is just slow")]
    FirstByteTimeout {
        /// Scheme, host and port.
        origin: String,
    },
    /// The answer's body stopped.
    #[error("the answer of {origin} stopped: raise the between-bytes time-out if it is just slow")]
    ReadTimeout {
        /// Scheme, host and port.
        origin: String,
    },
    /// TLS failed.
    #[error("TLS with {host} failed: {reason}{}", fault.next_step())]
    Tls {
        /// The host of the URI.
        host: String,
        /// What failed.
        fault: TlsFault,
        /// The particulars.
        reason: String,
    },
    /// The server does not speak HTTP, or breaks it.
    #[error("{origin} broke the protocol: {reason}")]
    Protocol {
        /// Scheme, host and port.
        origin: String,
        /// The particulars.
        reason: String,
    },
    /// The answer's header section is over the limit.
    #[error("the header section of the answer of {origin} is over the limit of {max} bytes")]
    HeadersTooLarge {
        /// Scheme, host and port.
        origin: String,
        /// The limit in bytes.
        max: usize,
    },
    /// The function's own request body failed, or is not as long as it declares.
    #[error("the body of the request failed: {0}")]
    BodyError(Failure),
    /// The URI cannot be used.
    #[error("the URI {uri:?} cannot be used: {why}")]
    UriInvalid {
        /// The URI, cut.
        uri: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Something else in the request cannot be used.
    #[error("the request cannot be sent: {why}")]
    RequestInvalid {
        /// What is wrong.
        why: &'static str,
    },
    /// The function, or the node, has as many requests under way as it may.
    #[error("{who} has {max} outbound connections already: read or drop earlier answers first")]
    TooManyConnections {
        /// `"this function"` or `"this node"`.
        who: &'static str,
        /// The limit.
        max: usize,
    },
    /// The connection ended before the answer did.
    #[error("{origin} ended the connection before its answer was complete: {reason}")]
    ConnectionTerminated {
        /// Scheme, host and port.
        origin: String,
        /// The particulars.
        reason: String,
    },
}

/// What failed in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFault {
    /// The server's certificate is not trusted, not for this host, or not valid now.
    Certificate,
    /// The server sent this alert (RFC 8446 §6).
    Alert(u8),
    /// Anything else.
    Protocol,
}

impl TlsFault {
    fn next_step(self) -> &'static str {
        match self {
            Self::Certificate => "; if the site has its own authority, add it to `outbound.extra_roots` in node.toml",
            Self::Alert(_) | Self::Protocol => "",
        }
    }
}

/// For an answer's body that a function hands on as it is: to its caller, the function then is a gateway, so time-outs
/// are `504`, a full node `503`, and the rest `502`. The particulars are the cause, and go to the log only.
impl From<OutboundError> for Failure {
    fn from(error: OutboundError) -> Self {
        let (kind, message) = match &error {
            OutboundError::BodyError(failure) => return failure.clone(),
            OutboundError::ConnectTimeout { .. }
            | OutboundError::FirstByteTimeout { .. }
            | OutboundError::ReadTimeout { .. } => {
                (Kind::UpstreamTimeout, "a server that the function depends on is too slow")
            }
            OutboundError::TooManyConnections { .. } => {
                (Kind::Overloaded, "the function is at its limit of requests to other servers")
            }
            _ => (Kind::Upstream, "a server that the function depends on failed"),
        };
        Failure::new(kind, message).because(error)
    }
}

/// Classifies what the HTTP machinery says about an exchange with `origin`.
pub(super) fn of_exchange(origin: &str, host: &str, error: &hyper::Error) -> OutboundError {
    let origin = origin.to_owned();
    if let Some(tls) = find::<rustls::Error>(error) {
        return of_tls(host, tls);
    }
    let reason = reason(error);
    let h2_lost = find::<h2::Error>(error).is_some_and(|h2| h2.is_io() || h2.is_go_away() && h2.is_remote());
    let lost =
        error.is_incomplete_message() || error.is_canceled() || error.is_closed() || error.is_body_write_aborted();
    if error.is_parse_too_large() {
        OutboundError::HeadersTooLarge { origin, max: super::limits::RESPONSE_HEADER_BYTES_MAX }
    } else if lost || h2_lost || find::<std::io::Error>(error).is_some_and(|io| !is_invalid_data(io)) {
        OutboundError::ConnectionTerminated { origin, reason }
    } else {
        OutboundError::Protocol { origin, reason }
    }
}

/// Classifies an error of TLS.
pub(super) fn of_tls(host: &str, error: &rustls::Error) -> OutboundError {
    let fault = match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => TlsFault::Certificate,
        rustls::Error::AlertReceived(alert) => TlsFault::Alert((*alert).into()),
        _ => TlsFault::Protocol,
    };
    OutboundError::Tls { host: host.to_owned(), fault, reason: error.to_string() }
}

/// Malformed chunks come as this: the server's fault, not the network's.
fn is_invalid_data(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput)
}

/// The first cause of type `E`, also one that an I/O error wraps.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = wrapped.map(|inner| inner as &(dyn Error + 'static)).or_else(|| cause.source());
    }
    None
}

fn reason(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
