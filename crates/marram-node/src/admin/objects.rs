//! `/v1/objects`: buckets of objects, and the objects themselves, streamed both ways.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use marram_core::port::Blobs as _;
use marram_core::port::blobs::{Attributes, Delete, Expect, Finish, ListQuery, Listed, Object, shown};
use marram_core::{Failure, Kind, Name};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Admin;
use super::input::{self, Segments};
use super::operation::{Content, Operation};
use super::problem::Refusal;
use crate::api::{ObjectBucket, ObjectBuckets, ObjectView, Objects};

/// Entries of one answer, if nothing else is asked for.
const ENTRIES_DEFAULT: usize = 1_000;

pub(super) fn operations() -> Vec<Operation> {
    const BUCKET: &str = "/v1/objects/{bucket}";
    const OBJECT: &str = "/v1/objects/{bucket}/{*name}";
    vec![
        Operation::new(Method::GET, "/v1/objects", "listObjectBuckets", "Buckets of objects", buckets)
            .json::<ObjectBuckets>(200, "By name"),
        Operation::new(Method::PUT, BUCKET, "putObjectBucket", "Makes a bucket of objects", create)
            .answer(200, "It was there already", None)
            .answer(201, "It is there now", None),
        Operation::new(Method::DELETE, BUCKET, "deleteObjectBucket", "Deletes an empty bucket", delete_bucket).answer(
            204,
            "It is gone",
            None,
        ),
        Operation::new(Method::GET, BUCKET, "listObjects", "Objects of a bucket, page by page", list)
            .query::<ListParameters>()
            .json::<Objects>(200, "A page"),
        Operation::new(Method::GET, OBJECT, "getObject", "The content of an object", get).answer(
            200,
            "The content, with what was said of it in headers",
            Some(Content::Bytes("application/octet-stream")),
        ),
        Operation::new(
            Method::PUT,
            OBJECT,
            "putObject",
            "Stores an object; `if-match` with an `etag`, or `if-none-match: *`, says what has to be there",
            put,
        )
        .takes_bytes()
        .json::<ObjectView>(200, "It is on the disk"),
        Operation::new(
            Method::DELETE,
            OBJECT,
            "deleteObject",
            "Deletes an object; `if-match` says what has to be there",
            delete,
        )
        .answer(204, "It is gone", None),
    ]
}

/// Which objects.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListParameters {
    /// Only names that begin with this.
    #[serde(default)]
    prefix: String,
    /// Names that have this past the prefix are listed as one prefix, up to and with it.
    delimiter: Option<String>,
    /// Only what comes after this name or prefix.
    after: Option<String>,
    /// At most this many; 1000 if left out.
    limit: Option<usize>,
}

async fn buckets(State(admin): State<Arc<Admin>>) -> Result<Json<ObjectBuckets>, Refusal> {
    let buckets = admin.parts.objects.buckets().await?;
    let view = |bucket: marram_core::port::blobs::Bucket| ObjectBucket {
        bucket: bucket.name.to_string(),
        created_unix_ms: bucket.created_unix_ns / 1_000_000,
    };
    Ok(Json(ObjectBuckets { buckets: buckets.into_iter().map(view).collect() }))
}

async fn create(State(admin): State<Arc<Admin>>, Segments(bucket): Segments<String>) -> Result<StatusCode, Refusal> {
    let made = admin.parts.objects.create_bucket(&input::name(&bucket)?).await?;
    Ok(if made { StatusCode::CREATED } else { StatusCode::OK })
}

async fn delete_bucket(
    State(admin): State<Arc<Admin>>,
    Segments(bucket): Segments<String>,
) -> Result<StatusCode, Refusal> {
    let bucket = input::name(&bucket)?;
    if admin.parts.objects.delete_bucket(&bucket).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Refusal::new(Kind::NotFound, format!("there is no bucket \"{bucket}\": `marram blob buckets` lists them")))
}

async fn list(
    State(admin): State<Arc<Admin>>,
    Segments(bucket): Segments<String>,
    uri: Uri,
) -> Result<Json<Objects>, Refusal> {
    let ListParameters { prefix, delimiter, after, limit } = input::query(&uri)?;
    let max = limit.unwrap_or(ENTRIES_DEFAULT).max(1);
    let page = admin.parts.objects.list(&input::name(&bucket)?, ListQuery { prefix, after, delimiter, max }).await?;
    let next = page.entries.last().filter(|_| page.more).map(|entry| entry.name().to_owned());
    let mut answer = Objects { objects: Vec::new(), prefixes: Vec::new(), next };
    for entry in page.entries {
        match entry {
            Listed::Object(object) => answer.objects.push(view(&object)),
            Listed::Prefix(prefix) => answer.prefixes.push(prefix),
        }
    }
    Ok(Json(answer))
}

async fn get(
    State(admin): State<Arc<Admin>>,
    Segments((bucket, name)): Segments<(String, String)>,
) -> Result<Response, Refusal> {
    let bucket = input::name(&bucket)?;
    let opened = admin.parts.objects.get(&bucket, &name).await?.ok_or_else(|| no_object(&bucket, &name))?;
    let body = Body::from_stream(opened.content.read(0..opened.object.size));
    Ok((headers(&opened.object), body).into_response())
}

/// The media type is that of the document; the object's own is in `object-content-type`.
fn headers(object: &Object) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name, text: &str| {
        // What was said of an object came in headers; should it not be one, it is left out.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    add(header::CONTENT_TYPE, "application/octet-stream");
    add(header::CACHE_CONTROL, "no-store");
    add(header::CONTENT_LENGTH, &object.size.to_string());
    add(header::ETAG, &format!("\"{}\"", object.etag));
    if let Some(content_type) = &object.attributes.content_type {
        add(header::HeaderName::from_static("object-content-type"), content_type);
    }
    headers
}

async fn put(
    State(admin): State<Arc<Admin>>,
    Segments((bucket, name)): Segments<(String, String)>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<Json<ObjectView>, Refusal> {
    let (bucket, expect) = (input::name(&bucket)?, expect(&headers)?);
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let attributes = Attributes { content_type, ..Attributes::default() };
    let mut writer = admin.parts.objects.put(&bucket, &name, attributes).await?;
    while let Some(bytes) = input::chunk(&mut body).await? {
        writer.write(bytes).await?;
    }
    let object = writer.finish(Finish::from(expect)).await?;
    Ok(Json(view(&object)))
}

async fn delete(
    State(admin): State<Arc<Admin>>,
    Segments((bucket, name)): Segments<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let (bucket, expect) = (input::name(&bucket)?, expect(&headers)?);
    let answers = admin.parts.objects.delete(&bucket, vec![Delete { name: name.clone(), expect }]).await?;
    match answers.into_iter().next() {
        Some(Ok(true)) => Ok(StatusCode::NO_CONTENT),
        Some(Err(failure)) => Err(failure.into()),
        Some(Ok(false)) | None => Err(no_object(&bucket, &name).into()),
    }
}

/// What has to be there (RFC 9110 §13.1).
fn expect(headers: &HeaderMap) -> Result<Expect, Failure> {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Expect::Any),
        (None, Some("*")) => Ok(Expect::Absent),
        (Some("*"), None) => Ok(Expect::Present),
        (Some(etag), None) => Ok(Expect::Etag(etag.trim_matches('"').to_owned())),
        _ => Err(Failure::new(Kind::BadRequest, "write either `if-match` with an `etag`, or `if-none-match: *`")),
    }
}

fn view(object: &Object) -> ObjectView {
    ObjectView {
        name: object.name.clone(),
        size: object.size,
        etag: object.etag.clone(),
        digest: object.digest,
        content_type: object.attributes.content_type.clone(),
        modified_unix_ms: object.modified_unix_ns / 1_000_000,
    }
}

fn no_object(bucket: &Name, name: &str) -> Failure {
    let message = format!("bucket \"{bucket}\" has no object {}: `marram blob ls {bucket}` lists them", shown(name));
    Failure::new(Kind::NotFound, message)
}
