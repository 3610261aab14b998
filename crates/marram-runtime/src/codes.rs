//! Between failures and the error codes of `wasi:http`, both ways. A code says no more than what happened; the words are
//! in the function's log.

use marram_core::{Failure, Kind};
use wasmtime_wasi_http::Error;

use crate::hooks::SendError;
use crate::outbound::{OutboundError, TlsFault};

/// For a request of the guest that was not answered.
pub(crate) fn of_send(error: &SendError) -> Error {
    match error {
        SendError::Internal(failure) => match failure.kind() {
            Kind::NotFound => Error::DestinationNotFound,
            Kind::Conflict => Error::LoopDetected,
            _ => Error::HttpRequestDenied,
        },
        SendError::Outbound(error) => of_outbound(error),
    }
}

/// For a body that breaks off on its way to a guest: of the request that it serves, or of the answer to one of its own.
/// The codes of the one are not those of the other, so that it is known whose fault it was if the guest hands it on.
pub(crate) fn wasi_error(failure: &Failure) -> Error {
    if let Some(error) = failure.cause::<OutboundError>() {
        return match error {
            OutboundError::ConnectionTerminated { .. } => Error::HttpResponseIncomplete,
            OutboundError::ReadTimeout { .. } => Error::HttpResponseTimeout,
            error => of_outbound(error),
        };
    }
    match failure.kind() {
        Kind::BodyTooLarge => Error::HttpRequestBodySize(None),
        Kind::ClientTimeout => Error::ConnectionReadTimeout,
        Kind::ClientGone => Error::ConnectionTerminated,
        // Another function of the app, in the middle of its answer.
        Kind::Deadline | Kind::UpstreamTimeout => Error::HttpResponseTimeout,
        _ => Error::HttpResponseIncomplete,
    }
}

fn of_outbound(error: &OutboundError) -> Error {
    match error {
        OutboundError::Denied { .. } => Error::HttpRequestDenied,
        OutboundError::AddressDenied { .. } => Error::DestinationIpProhibited,
        OutboundError::Dns { .. } => Error::DnsError { rcode: None, info_code: None },
        OutboundError::ConnectionRefused { .. } => Error::ConnectionRefused,
        OutboundError::Unreachable { .. } => Error::DestinationUnavailable,
        OutboundError::HeadersTooLarge { .. } => Error::HttpResponseHeaderSectionSize(None),
        OutboundError::BodyError { .. } | OutboundError::RequestInvalid { .. } => Error::InternalError(None),
        OutboundError::ConnectTimeout { .. } => Error::ConnectionTimeout,
        OutboundError::FirstByteTimeout { .. } => Error::HttpResponseTimeout,
        OutboundError::ReadTimeout { .. } => Error::ConnectionReadTimeout,
        OutboundError::ConnectionTerminated { .. } => Error::ConnectionTerminated,
        OutboundError::UriInvalid { .. } => Error::HttpRequestUriInvalid,
        OutboundError::TooManyConnections { .. } => Error::ConnectionLimitReached,
        OutboundError::Tls { fault: TlsFault::Certificate, .. } => Error::TlsCertificateError,
        OutboundError::Tls { fault: TlsFault::Alert(alert), .. } => {
            Error::TlsAlertReceived { alert_id: Some(*alert), alert_message: None }
        }
        OutboundError::Tls { .. } => Error::TlsProtocolError,
        OutboundError::Protocol { .. } => Error::HttpProtocolError,
    }
}

/// The other way round, for the body of an answer that a guest breaks off.
pub(crate) fn failure_of(error: &Error) -> Failure {
    match error {
        Error::HttpResponseBodySize(_) => untrue_length(),
        // As above: these come from the client's side, not from a server that the function asked.
        Error::ConnectionTerminated | Error::ConnectionReadTimeout => broken_off(error),
        _ => upstream(error).unwrap_or_else(|| broken_off(error)),
    }
}

/// The same for an answer of 0.2, whose guests have no codes for it: the one that comes says that the body was dropped before its
/// end, or has another length than it declares, and not why.
pub(crate) fn given_up(error: &Error) -> Failure {
    match error {
        Error::HttpProtocolError => broken_off(error),
        error => failure_of(error),
    }
}

/// For an answer that is longer or shorter than it declares.
pub(crate) fn untrue_length() -> Failure {
    Failure::new(Kind::NoResponse, "the answer's body is not as long as its content-length says")
}

/// For a guest that answers with an error in the place of a response.
pub(crate) fn failed_answer(error: &Error) -> Failure {
    upstream(error).unwrap_or_else(|| {
        Failure::new(Kind::NoResponse, "the function answered with an error instead of a response")
            .because(format!("{error:?}"))
    })
}

fn broken_off(error: &Error) -> Failure {
    Failure::new(Kind::NoResponse, "the function broke its answer off").because(format!("{error:?}"))
}

/// What a guest hands on of a server that it asked: to its caller it is a gateway then.
fn upstream(error: &Error) -> Option<Failure> {
    let kind = match error {
        Error::DnsTimeout | Error::ConnectionTimeout | Error::ConnectionReadTimeout | Error::HttpResponseTimeout => {
            Kind::UpstreamTimeout
        }
        Error::DnsError { .. }
        | Error::DestinationUnavailable
        | Error::ConnectionRefused
        | Error::ConnectionTerminated
        | Error::TlsProtocolError
        | Error::TlsCertificateError
        | Error::TlsAlertReceived { .. }
        | Error::HttpResponseIncomplete
        | Error::HttpResponseHeaderSectionSize(_)
        | Error::HttpProtocolError => Kind::Upstream,
        _ => return None,
    };
    let message = match kind {
        Kind::UpstreamTimeout => "a server that the function depends on is too slow",
        _ => "a server that the function depends on failed",
    };
    Some(Failure::new(kind, message).because(format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body's failure is to the guest, and what it becomes when the guest hands it on as its own.
    #[track_caller]
    fn check(failure: &Failure, code: &str, handed_on: Kind) {
        let error = wasi_error(failure);
        assert_eq!(format!("{error:?}"), code);
        assert_eq!(failure_of(&error).kind(), handed_on, "{code}");
    }

    #[test]
    fn each_way_in_which_a_body_fails_has_its_code() {
        let origin = || "http://api.example".to_owned();
        let reason = || "it says so".to_owned();
        let outbound = |error: OutboundError| Failure::from(error);
        let terminated = outbound(OutboundError::ConnectionTerminated { origin: origin(), reason: reason() });
        check(&terminated, "HttpResponseIncomplete", Kind::Upstream);
        let slow = outbound(OutboundError::ReadTimeout { origin: origin() });
        check(&slow, "HttpResponseTimeout", Kind::UpstreamTimeout);
        let broken = outbound(OutboundError::Protocol { origin: origin(), reason: reason() });
        check(&broken, "HttpProtocolError", Kind::Upstream);
        let fault = TlsFault::Alert(40);
        let tls = outbound(OutboundError::Tls { host: "api.example".into(), fault, reason: reason() });
        check(&tls, "TlsAlertReceived { alert_id: Some(40), alert_message: None }", Kind::Upstream);

        let client = |kind| Failure::new(kind, "the request's body");
        check(&client(Kind::ClientGone), "ConnectionTerminated", Kind::NoResponse);
        check(&client(Kind::ClientTimeout), "ConnectionReadTimeout", Kind::NoResponse);
        check(&client(Kind::BodyTooLarge), "HttpRequestBodySize(None)", Kind::NoResponse);
        // A function of the same app that breaks off.
        check(&client(Kind::Trap), "HttpResponseIncomplete", Kind::Upstream);
        check(&client(Kind::Deadline), "HttpResponseTimeout", Kind::UpstreamTimeout);
    }

    #[test]
    fn an_error_instead_of_an_answer_is_told_from_one_of_a_server() {
        assert_eq!(failed_answer(&Error::ConnectionRefused).kind(), Kind::Upstream);
        assert_eq!(failed_answer(&Error::ConnectionReadTimeout).kind(), Kind::UpstreamTimeout);
        for own in [Error::InternalError(None), Error::HttpRequestDenied, Error::DestinationIpProhibited] {
            assert_eq!(failed_answer(&own).kind(), Kind::NoResponse, "{own:?}");
        }
    }
}
