//! One object: put, get, head, copy, delete.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use marram_core::Kind;
use marram_core::limits::OBJECT_BYTES_MAX;
use marram_core::port::blobs::{ByteRange, CopyOptions, Delete, Expect, Finish, Object, check_name, shown};
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, MetadataDirective, PutObjectInput, PutObjectOutput, Range,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::access::Need;
use crate::checksum::{self, Summing, said, say};
use crate::conditions::{Conditions, etags};
use crate::meta::{self, describe, kept};
use crate::service::{Service, key_of};
use crate::{body, error, query, range};

/// Refuses what an announced length says at once.
pub(crate) fn check_length(length: Option<i64>) -> S3Result<()> {
    match length.map(u64::try_from) {
        Some(Ok(length)) if length <= OBJECT_BYTES_MAX => Ok(()),
        None => Ok(()),
        _ => Err(s3_error!(EntityTooLarge, "a content has at most {OBJECT_BYTES_MAX} bytes")),
    }
}

/// `Content-MD5` (RFC 1864).
pub(crate) fn md5(header: Option<&str>) -> S3Result<Option<[u8; 16]>> {
    let Some(header) = header else { return Ok(None) };
    let decoded = BASE64.decode(header).ok().and_then(|bytes| bytes.try_into().ok());
    decoded.map(Some).ok_or_else(|| s3_error!(InvalidDigest, "Content-MD5 is not an MD5 digest in Base64"))
}

/// Objects have one version, which AWS calls `null`; what another id means is not that object.
fn check_version(id: Option<&str>) -> S3Result<()> {
    match id {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NotImplemented, "objects have no versions: leave the version id out")),
    }
}

pub(crate) fn no_key() -> S3Error {
    s3_error!(NoSuchKey, "there is no object of this name")
}

pub(crate) async fn put(service: &Service, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
    let S3Request { mut input, headers, trailing_headers, uri, .. } = req;
    check_length(input.content_length)?;
    let bucket = meta::bucket(&input.bucket)?;
    let expect = meta::expect(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let algorithm = input.checksum_algorithm.as_ref().map(|algorithm| algorithm.as_str());
    let mut summing = Summing::of(&checksum::or_in_query(said!(input), &uri), algorithm, &headers)?;
    let md5 = md5(input.content_md5.as_deref())?;
    input.metadata = meta::with_query(input.metadata, &uri)?;
    let attributes = kept!(input).attributes();
    let mut writer = service.blobs.put(&bucket, &input.key, attributes).await.map_err(error::of)?;
    body::take_in(input.body.take(), input.content_length, &mut writer, &mut summing).await?;
    let checksum = summing.finish(trailing_headers.as_ref())?;
    let wants_some = matches!(expect, Expect::Etag(_) | Expect::Present);
    let object = match writer.finish(Finish { expect, checksum, md5 }).await {
        Err(failure) if failure.kind() == Kind::Conflict && wants_some => {
            // AWS tells one that is not there from one that is another.
            let found = service.blobs.head(&bucket, &input.key).await.map_err(error::of)?;
            return Err(found.map_or_else(no_key, |_| error::of(failure)));
        }
        done => done.map_err(error::of)?,
    };
    let mut output = PutObjectOutput { e_tag: Some(meta::etag(&object.etag)), ..PutObjectOutput::default() };
    say!(&object.checksum, output);
    output.checksum_type = object.checksum.as_ref().map(meta::checksum_type);
    Ok(S3Response::new(output))
}

pub(crate) async fn get(service: &Service, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
    let S3Request { input, headers, uri, .. } = req;
    check_version(input.version_id.as_deref())?;
    let opened = service.blobs.get(&meta::bucket(&input.bucket)?, &input.key).await.map_err(error::of)?;
    let opened = opened.ok_or_else(no_key)?;
    let object = &opened.object;
    let conditions = Conditions {
        if_match: etags(&headers, "if-match"),
        if_none_match: etags(&headers, "if-none-match"),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    };
    conditions.check(object).map_err(|code| refused(code, object))?;
    check_part(input.part_number)?;
    let range = input.range.filter(|_| range::fits(&headers, object));
    let range = range.map(|range| within(range, object)).transpose()?;
    let bytes = range.clone().unwrap_or(0..object.size);
    let length = bytes.end - bytes.start;
    let mut output = GetObjectOutput::default();
    describe!(object, output, wants_checksum(input.checksum_mode.is_some(), &uri) && range.is_none());
    output.content_length = i64::try_from(length).ok();
    output.content_range = range.map(|range| content_range(&range, object));
    output.body = Some(body::out(body::begun(opened.content.read(bytes), &object.name).await?, length));
    Ok(S3Response::new(output))
}

/// A range is for a `GET` only (RFC 9110 §14.2).
pub(crate) async fn head(service: &Service, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
    let S3Request { input, headers, uri, .. } = req;
    check_version(input.version_id.as_deref())?;
    let object = service.blobs.head(&meta::bucket(&input.bucket)?, &input.key).await.map_err(error::of)?;
    let object = &object.ok_or_else(no_key)?;
    let conditions = Conditions {
        if_match: etags(&headers, "if-match"),
        if_none_match: etags(&headers, "if-none-match"),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    };
    conditions.check(object).map_err(|code| refused(code, object))?;
    check_part(input.part_number)?;
    let mut output = HeadObjectOutput::default();
    describe!(object, output, wants_checksum(input.checksum_mode.is_some(), &uri));
    output.content_length = i64::try_from(object.size).ok();
    override_said(input, &mut output)?;
    Ok(S3Response::new(output))
}

/// Whether the answer is to have the checksum.
fn wants_checksum(in_header: bool, uri: &http::Uri) -> bool {
    in_header || query::hoisted_value(uri, "x-amz-checksum-mode").is_some()
}

/// Says what the query wants said in the answer to a `HEAD`, as s3s does for a `GET`.
fn override_said(input: HeadObjectInput, output: &mut HeadObjectOutput) -> S3Result<()> {
    for (name, asked, said) in [
        ("cache-control", input.response_cache_control, &mut output.cache_control),
        ("content-disposition", input.response_content_disposition, &mut output.content_disposition),
        ("content-encoding", input.response_content_encoding, &mut output.content_encoding),
        ("content-language", input.response_content_language, &mut output.content_language),
        ("content-type", input.response_content_type, &mut output.content_type),
    ] {
        let Some(asked) = asked else { continue };
        if http::HeaderValue::from_str(&asked).is_err() {
            return Err(s3_error!(InvalidRequest, "response-{name} is not the value of a header"));
        }
        *said = Some(asked);
    }
    if let Some(expires) = input.response_expires {
        output.expires = Some(expires);
    }
    Ok(())
}

/// A condition that does not hold; the answer 304 says what there is (RFC 9110 §15.4.5).
fn refused(code: S3ErrorCode, object: &Object) -> S3Error {
    let mut error = S3Error::with_message(code, unmet(object));
    let mut headers = http::HeaderMap::new();
    headers.extend(meta::etag(&object.etag).to_http_header().map(|etag| (http::header::ETAG, etag)));
    for name in [http::header::CACHE_CONTROL, http::header::EXPIRES] {
        let value = meta::header(object, name.as_str()).and_then(|value| http::HeaderValue::from_str(&value).ok());
        headers.extend(value.map(|value| (name, value)));
    }
    error.set_headers(headers);
    error
}

fn unmet(object: &Object) -> String {
    format!(
        "the object {} is not as the request wants it, and has the ETag \"{}\": look at it with HeadObject",
        shown(&object.name),
        object.etag
    )
}

/// A source of a copy that is not as the copy wants it.
pub(crate) fn source_refused(source: &Object) -> S3Error {
    S3Error::with_message(S3ErrorCode::PreconditionFailed, unmet(source))
}

/// The parts of an object are not told apart once it is complete.
fn check_part(number: Option<i32>) -> S3Result<()> {
    match number {
        None | Some(1) => Ok(()),
        Some(_) => Err(s3_error!(InvalidArgument, "parts of a complete object cannot be asked for: ask for a range")),
    }
}

fn within(range: Range, object: &Object) -> S3Result<std::ops::Range<u64>> {
    let range = match range {
        Range::Int { first, last: None } => ByteRange::From(first),
        Range::Int { first, last: Some(last) } => ByteRange::Between(first, last),
        Range::Suffix { length } => ByteRange::Last(length),
    };
    range.of(object.size).ok_or_else(|| {
        let mut error = s3_error!(InvalidRange, "the object has {} bytes", object.size);
        if let Ok(value) = http::HeaderValue::from_str(&format!("bytes */{}", object.size)) {
            error.set_headers([(http::header::CONTENT_RANGE, value)].into_iter().collect());
        }
        error
    })
}

fn content_range(range: &std::ops::Range<u64>, object: &Object) -> String {
    format!("bytes {}-{}/{}", range.start, range.end - 1, object.size)
}

/// The bucket and the name that a copy is from, if the key may read them.
pub(crate) fn source(
    service: &Service,
    key: Option<&str>,
    source: &CopySource,
) -> S3Result<(marram_core::Name, String)> {
    let CopySource::Bucket { bucket, key: name, version_id } = source else {
        return Err(s3_error!(NotImplemented, "a copy is from a bucket of this node"));
    };
    check_version(version_id.as_deref())?;
    service.keys.check(key, Need::Read, bucket)?;
    Ok((meta::bucket(bucket)?, name.to_string()))
}

pub(crate) async fn copy(service: &Service, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
    let (from, name) = source(service, key_of(&req), &req.input.copy_source)?;
    let S3Request { mut input, headers, uri, .. } = req;
    let to = meta::bucket(&input.bucket)?;
    let found = service.blobs.head(&from, &name).await.map_err(error::of)?.ok_or_else(no_key)?;
    let conditions = Conditions {
        if_match: etags(&headers, "x-amz-copy-source-if-match"),
        if_none_match: etags(&headers, "x-amz-copy-source-if-none-match"),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    };
    conditions.check(&found).map_err(|_| source_refused(&found))?;
    check_sum_of_copy(input.checksum_algorithm.as_ref().map(|algorithm| algorithm.as_str()), &found)?;
    input.metadata = meta::with_query(input.metadata, &uri)?;
    let replace = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
        None | Some(MetadataDirective::COPY) => false,
        Some(MetadataDirective::REPLACE) => true,
        Some(_) => return Err(s3_error!(InvalidArgument, "x-amz-metadata-directive is COPY or REPLACE")),
    };
    // What a condition or an algorithm was held against is what is copied; otherwise, whatever is there.
    let is_bound = !conditions.is_empty() || input.checksum_algorithm.is_some();
    let options = CopyOptions {
        attributes: replace.then(|| kept!(input).attributes()),
        source_etag: is_bound.then_some(found.etag),
        expect: Expect::Any,
    };
    let copied = service.blobs.copy((&from, &name), (&to, &input.key), options).await.map_err(error::of)?;
    let object = copied.ok_or_else(no_key)?;
    let mut result = CopyObjectResult {
        e_tag: Some(meta::etag(&object.etag)),
        last_modified: Some(meta::time(object.modified_unix_ns)),
        ..CopyObjectResult::default()
    };
    say!(&object.checksum, result);
    Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() }))
}

/// A copy has the checksum of its source, since its content is not read.
fn check_sum_of_copy(asked: Option<&str>, source: &Object) -> S3Result<()> {
    let kept = source.checksum.as_ref().map(|checksum| checksum.algorithm.as_str());
    match asked.and_then(checksum::known) {
        Some(asked) if kept != Some(asked) => Err(s3_error!(
            NotImplemented,
            "a copy has the checksum of its source, which has no {asked}: leave the algorithm out, or put the object"
        )),
        _ => Ok(()),
    }
}

pub(crate) async fn delete(
    service: &Service,
    req: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = req.input;
    check_version(input.version_id.as_deref())?;
    let expect = meta::expect(input.if_match.as_ref(), None)?;
    let delete = Delete { name: input.key, expect };
    let answers = service.blobs.delete(&meta::bucket(&input.bucket)?, vec![delete]).await.map_err(error::of)?;
    answers.into_iter().try_for_each(|answer| answer.map(|_| ()).map_err(error::of))?;
    Ok(S3Response::new(DeleteObjectOutput::default()))
}

pub(crate) async fn delete_several(
    service: &Service,
    req: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let input = req.input;
    let quiet = input.delete.quiet.unwrap_or_default();
    let bucket = meta::bucket(&input.bucket)?;
    // Nothing is deleted if one of them cannot be.
    for id in &input.delete.objects {
        check_name(&bucket, &id.key).map_err(error::of)?;
        check_version(id.version_id.as_deref())?;
        if id.last_modified_time.is_some() || id.size.is_some() {
            return Err(s3_error!(NotImplemented, "a delete has no condition but the etag: leave time and size out"));
        }
    }
    let of = |id: &s3s::dto::ObjectIdentifier| Delete {
        name: id.key.clone(),
        expect: id.e_tag.as_ref().map_or(Expect::Any, |etag| Expect::Etag(etag.value().to_owned())),
    };
    let deletes = input.delete.objects.iter().map(of).collect();
    let answers = service.blobs.delete(&bucket, deletes).await.map_err(error::of)?;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for (answer, id) in answers.into_iter().zip(input.delete.objects) {
        match answer {
            Ok(_) if quiet => {}
            Ok(_) => deleted.push(DeletedObject { key: Some(id.key), ..DeletedObject::default() }),
            Err(failure) => {
                let error = error::of(failure);
                let code = Some(error.code().as_str().to_owned());
                let message = error.message().map(str::to_owned);
                errors.push(s3s::dto::Error { code, key: Some(id.key), message, version_id: None });
            }
        }
    }
    let output = DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..DeleteObjectsOutput::default() };
    Ok(S3Response::new(output))
}
