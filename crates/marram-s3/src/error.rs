//! Failures as S3 says them.

use http::StatusCode;
use marram_core::{Failure, Kind};
use s3s::{S3Error, S3ErrorCode, StdError};

use crate::chunks;

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
