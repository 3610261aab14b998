//! Failures as S3 says them.

use http::{Response, StatusCode, Uri};
use marram_core::limits::OBJECT_NAME_BYTES_MAX;
use marram_core::{Failure, Kind};
use s3s::{Body, S3Error, S3ErrorCode, StdError};

use crate::{chunks, meta, query};

/// What a failure of a bucket's operation is. A conflict is an expectation that was not held.
pub(crate) fn of(failure: Failure) -> S3Error {
    let code = match failure.kind() {
        Kind::NotFound => S3ErrorCode::NoSuchBucket,
        Kind::Conflict => S3ErrorCode::PreconditionFailed,
        Kind::Invalid => S3ErrorCode::InvalidArgument,
        Kind::BadRequest => S3ErrorCode::BadDigest,
        Kind::BodyTooLarge => S3ErrorCode::EntityTooLarge,
        Kind::HeadersTooLarge => S3ErrorCode::MetadataTooLarge,
        Kind::Overloaded => S3ErrorCode::SlowDown,
        Kind::Draining => S3ErrorCode::ServiceUnavailable,
        // AWS knows no full disk.
        Kind::StorageFull | Kind::StreamFull => S3ErrorCode::Custom("InsufficientStorage".into()),
        _ => S3ErrorCode::InternalError,
    };
    if code == S3ErrorCode::InternalError {
        tracing::error!(%failure, detail = failure.detail(), "an S3 request failed");
    }
    let mut error = S3Error::with_message(code, failure.message().to_owned());
    if matches!(failure.kind(), Kind::StorageFull | Kind::StreamFull) {
        error.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
    }
    error
}

/// The same, where a conflict or something invalid is this.
pub(crate) fn with(failure: Failure, kind: Kind, code: S3ErrorCode) -> S3Error {
    if failure.kind() == kind { S3Error::with_message(code, failure.message().to_owned()) } else { of(failure) }
}

/// Why a body did not come in whole. The types of s3s's streams are its own, so this goes by what they say.
pub(crate) fn of_body(error: &StdError) -> S3Error {
    let text = error.to_string();
    let code = match () {
        () if text.contains("Sha256Mismatch") => S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
        () if text.contains("SignatureMismatch") => S3ErrorCode::SignatureDoesNotMatch,
        () if error.is::<crate::body::TooSlow>() || text.contains(crate::body::TOO_SLOW) => S3ErrorCode::RequestTimeout,
        () if text.contains(chunks::TOO_LARGE) => {
            return S3Error::with_message(S3ErrorCode::InvalidRequest, chunks::TOO_LARGE);
        }
        () => S3ErrorCode::IncompleteBody,
    };
    let mut error = S3Error::with_message(code, "the body did not come as it was announced");
    if error.status_code().is_none() {
        error.set_status_code(StatusCode::BAD_REQUEST);
    }
    error
}

/// Whether an error in XML has a message.
pub(crate) fn says_why(body: &[u8]) -> bool {
    body.windows(9).any(|part| part == b"<Message>")
}

/// A refusal of s3s's that has a code and says no more, with what there is to say of it.
pub(crate) fn explained(response: &Response<Body>, uri: &Uri) -> Option<S3Error> {
    let refused = response.status().is_client_error();
    let body = response.body().bytes().filter(|body| refused && !says_why(body))?;
    let (_, code) = std::str::from_utf8(&body).ok()?.split_once("<Code>")?;
    explain(code.split_once('<')?.0, uri)
}

fn explain(code: &str, uri: &Uri) -> Option<S3Error> {
    let (code, message) = match code {
        "InvalidBucketName" => {
            let path = uri.path();
            let bucket = path.strip_prefix('/').unwrap_or(path).split('/').next().unwrap_or_default();
            return meta::bucket(&query::decoded(bucket)).err();
        }
        "KeyTooLongError" => (
            S3ErrorCode::KeyTooLongError,
            format!("the name of an object has at most {OBJECT_NAME_BYTES_MAX} bytes in UTF-8: give it a shorter one"),
        ),
        "InvalidURI" => (
            S3ErrorCode::InvalidURI,
            "the URL cannot be read: write /<bucket>/<name>, and all of it in UTF-8 that is percent-encoded".into(),
        ),
        "SignatureDoesNotMatch" => (
            S3ErrorCode::SignatureDoesNotMatch,
            "the signature is not the one that this request has with the secret of its access key: look at the secret, \
             and that nothing changes method, path, query or headers after they were signed"
                .into(),
        ),
        "MalformedXML" => (
            S3ErrorCode::MalformedXML,
            "the body is not the XML that this operation takes: look for what is missing, or misspelt".into(),
        ),
        "MethodNotAllowed" => (S3ErrorCode::MethodNotAllowed, "what the path names has no such operation".into()),
        "IncompleteBody" => (S3ErrorCode::IncompleteBody, "the body is not as long as was announced".into()),
        "MissingContentLength" => (S3ErrorCode::MissingContentLength, "say in Content-Length how long it is".into()),
        "MaxMessageLengthExceeded" => {
            (S3ErrorCode::MaxMessageLengthExceeded, "the XML of the body is too large: ask for less at a time".into())
        }
        _ => return None,
    };
    Some(S3Error::with_message(code, message))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_without_a_word_is_explained() {
        let explained = |code: S3ErrorCode, path: &'static str| {
            let response = S3Error::new(code).to_http_response().unwrap();
            let error = explained(&response, &Uri::from_static(path))?;
            let message = error.message().unwrap().to_owned();
            assert_eq!(error.to_http_response().unwrap().status(), response.status());
            Some(message)
        };
        for (code, path, expected) in [
            (S3ErrorCode::InvalidBucketName, "/My_Files/k", "\"My_Files\" is not a name: it does not start with"),
            (S3ErrorCode::InvalidBucketName, "/caf%C3%A9", "\"café\" is not a name: it has another character"),
            (S3ErrorCode::InvalidBucketName, "//files/k", "\"\" is not a name"),
            (S3ErrorCode::KeyTooLongError, "/files/k", "at most 1024 bytes"),
            (S3ErrorCode::InvalidURI, "/files/%ff", "percent-encoded"),
            (S3ErrorCode::SignatureDoesNotMatch, "/files/k", "look at the secret"),
            (S3ErrorCode::MalformedXML, "/files?delete", "not the XML"),
        ] {
            let message = explained(code, path).unwrap();
            assert!(message.contains(expected), "{path}: {message}");
        }
        assert_eq!(explained(S3ErrorCode::NotModified, "/files/k"), None);
        let said = S3Error::with_message(S3ErrorCode::MalformedXML, "why").to_http_response().unwrap();
        assert!(super::explained(&said, &Uri::from_static("/files")).is_none());
    }
}
