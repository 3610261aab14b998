//! `/v1/blobs`: components on their way to a deployment, by digest.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse;
use marram_core::limits::COMPONENT_BYTES_MAX;
use marram_core::{Digest, Failure, Kind};
use marram_store::BlobPin;

use super::input::Segments;
use super::operation::Operation;
use super::problem::Refusal;
use super::{Admin, input};
use crate::api::BlobView;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::HEAD, "/v1/blobs/{digest}", "hasBlob", "Whether a blob is here", has)
            .answer(200, "It is", None),
        Operation::new(
            Method::PUT,
            "/v1/blobs/{digest}",
            "putBlob",
            "Uploads a component; it is kept for an hour, and for as long as a revision needs it",
            put,
        )
        .takes_bytes()
        .json::<BlobView>(200, "It was here already")
        .json::<BlobView>(201, "It is here now"),
    ]
}

async fn has(
    State(admin): State<Arc<Admin>>,
    Segments(digest): Segments<String>,
) -> Result<impl IntoResponse, Refusal> {
    let digest = parse(&digest)?;
    // Pinning renews the hour, so that whoever was told that the blob is here has the time to deploy it.
    let _pin = pin_whole(&admin, digest).await?.ok_or_else(|| missing(&digest))?;
    Ok([(header::CONTENT_LENGTH, size(&admin, &digest)?.to_string())])
}

async fn put(
    State(admin): State<Arc<Admin>>,
    Segments(digest): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<BlobView>), Refusal> {
    let digest = parse(&digest)?;
    check_announced(&headers)?;
    let known = pin_whole(&admin, digest).await?.is_some();
    // A blob that is known is not written again; its bytes are read all the same, for the connection's sake.
    if known {
        drain(body).await?;
    } else {
        store(&admin, digest, body).await?;
    }
    let status = if known { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(BlobView { digest, bytes: size(&admin, &digest)? })))
}

/// Keeps a blob that is here as it was sent. One that is damaged counts as missing, so that it is sent again and replaced.
/// Reading a component takes milliseconds, and somebody asks for one once a deployment; contents of objects, which are blobs
/// as well and may be larger, are nothing that could be uploaded here.
async fn pin_whole(admin: &Admin, digest: Digest) -> Result<Option<BlobPin>, Failure> {
    let blobs = Arc::clone(admin.parts.store.blobs());
    let Some(pin) = blobs.pin(digest)? else { return Ok(None) };
    if size(admin, &digest)? > COMPONENT_BYTES_MAX as u64 {
        return Ok(Some(pin));
    }
    match input::blocking(move || blobs.check(&digest)).await? {
        Ok(()) => Ok(Some(pin)),
        Err(error) => {
            tracing::warn!(%digest, %error, "a stored component is not what was sent: it has to be sent again");
            Ok(None)
        }
    }
}

/// Streams the body into the store: at no time more than a chunk of it is in memory.
async fn store(admin: &Admin, digest: Digest, mut body: Body) -> Result<(), Failure> {
    let mut upload = admin.parts.store.blobs().upload(COMPONENT_BYTES_MAX as u64)?;
    while let Some(bytes) = input::chunk(&mut body).await? {
        upload = input::blocking(move || upload.write(&bytes).map(|()| upload)).await??;
    }
    let pin = input::blocking(move || upload.finish(Some(digest))).await??;
    drop(pin);
    Ok(())
}

async fn drain(mut body: Body) -> Result<(), Failure> {
    let mut bytes = 0;
    while let Some(chunk) = input::chunk(&mut body).await? {
        bytes += chunk.len();
        if bytes > COMPONENT_BYTES_MAX {
            return Err(too_large());
        }
    }
    Ok(())
}

/// Refuses at once what says itself that it is too large.
fn check_announced(headers: &HeaderMap) -> Result<(), Failure> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > COMPONENT_BYTES_MAX as u64) { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Failure {
    let message = format!("a component has at most {} MiB: build it optimised and stripped", COMPONENT_BYTES_MAX >> 20);
    Failure::new(Kind::BodyTooLarge, message)
}

fn size(admin: &Admin, digest: &Digest) -> Result<u64, Failure> {
    let file = admin.parts.store.blobs().open_file(digest)?;
    let metadata = file.metadata();
    metadata
        .map(|metadata| metadata.len())
        .map_err(|error| Failure::new(Kind::Internal, "the stored blob cannot be read").because(error))
}

fn parse(digest: &str) -> Result<Digest, Failure> {
    digest.parse().map_err(|error: marram_core::digest::DigestError| Failure::new(Kind::BadRequest, error.to_string()))
}

fn missing(digest: &Digest) -> Failure {
    Failure::new(Kind::NotFound, format!("there is no blob {digest}"))
}
