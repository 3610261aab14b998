//! Objects that come in parts.

use marram_core::Kind;
use marram_core::limits::OBJECT_LIST_MAX;
use marram_core::port::blobs::{ByteRange, Checksum, Expect, Finish, Object, Part, Upload, UploadId};
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CopyPartResult,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, ListPartsInput, ListPartsOutput, StorageClass,
    UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::checksum::{self, Said, Summing, said, say};
use crate::conditions::{Conditions, etags};
use crate::lists::page_size;
use crate::meta::{self, kept};
use crate::objects::{check_length, md5, no_key, source, source_refused};
use crate::service::{Service, key_of};
use crate::{body, error, query};

/// How an upload's checksum was announced, as the port keeps it: `CRC32/COMPOSITE`.
struct Announced {
    algorithm: &'static str,
    full: bool,
}

impl Announced {
    fn of(algorithm: Option<&ChecksumAlgorithm>, kind: Option<&ChecksumType>) -> S3Result<Option<Self>> {
        let Some(algorithm) = algorithm else { return Ok(None) };
        let algorithm = checksum::known(algorithm.as_str())
            .ok_or_else(|| s3_error!(InvalidRequest, "there is no such checksum algorithm"))?;
        let full = match kind.map(ChecksumType::as_str) {
            Some(ChecksumType::FULL_OBJECT) => true,
            Some(_) => false,
            // The only kind that this algorithm has (S3, "Checking object integrity").
            None => algorithm == ChecksumAlgorithm::CRC64NVME,
        };
        if full && algorithm.starts_with("SHA") {
            return Err(s3_error!(InvalidRequest, "the checksum type FULL_OBJECT cannot be used with {algorithm}"));
        }
        Ok(Some(Self { algorithm, full }))
    }

    /// What the checksum of a whole object says of itself: one of parts ends with their number.
    fn in_value((algorithm, value): (&'static str, &str)) -> Self {
        Self { algorithm, full: !value.contains('-') }
    }

    fn text(announced: Option<&Self>) -> String {
        announced.map_or_else(String::new, |it| format!("{}/{}", it.algorithm, it.kind().as_str()))
    }

    fn read(upload: &Upload) -> Option<Self> {
        let (algorithm, kind) = upload.checksum.split_once('/')?;
        Some(Self { algorithm: checksum::known(algorithm)?, full: kind == ChecksumType::FULL_OBJECT })
    }

    fn kind(&self) -> ChecksumType {
        ChecksumType::from_static(if self.full { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE })
    }

    fn algorithm(&self) -> ChecksumAlgorithm {
        ChecksumAlgorithm::from_static(self.algorithm)
    }
}

fn no_upload() -> S3Error {
    s3_error!(NoSuchUpload, "there is no such upload: it was completed, aborted, or forgotten after a week")
}

async fn find(service: &Service, bucket: &str, name: &str, id: &str) -> S3Result<Upload> {
    let found = service.blobs.upload(&meta::bucket(bucket)?, name, &UploadId(id.to_owned())).await;
    found.map_err(error::of)?.ok_or_else(no_upload)
}

pub(crate) async fn create(
    service: &Service,
    req: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let S3Request { mut input, uri, .. } = req;
    let of_query = |name| query::hoisted_value(&uri, name);
    let algorithm = input.checksum_algorithm.take();
    let algorithm = algorithm.or_else(|| of_query("x-amz-checksum-algorithm").map(Into::into));
    let kind = input.checksum_type.take().or_else(|| of_query("x-amz-checksum-type").map(Into::into));
    let announced = Announced::of(algorithm.as_ref(), kind.as_ref())?;
    input.metadata = meta::with_query(input.metadata, &uri)?;
    let (bucket, attributes) = (meta::bucket(&input.bucket)?, kept!(input).attributes());
    let begun = service.blobs.begin_upload(&bucket, &input.key, attributes, Announced::text(announced.as_ref())).await;
    let output = CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(begun.map_err(error::of)?.0),
        checksum_algorithm: announced.as_ref().map(Announced::algorithm),
        checksum_type: announced.as_ref().map(Announced::kind),
        ..CreateMultipartUploadOutput::default()
    };
    Ok(S3Response::new(output))
}

/// A part's number; others are not parts.
fn number(number: i32) -> S3Result<u32> {
    u32::try_from(number).map_err(|_| s3_error!(InvalidArgument, "{number} is not the number of a part"))
}

pub(crate) async fn upload_part(
    service: &Service,
    req: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let S3Request { mut input, headers, trailing_headers, uri, .. } = req;
    check_length(input.content_length)?;
    let upload = find(service, &input.bucket, &input.key, &input.upload_id).await?;
    let announced = Announced::read(&upload).map(|announced| announced.algorithm);
    let algorithm = input.checksum_algorithm.as_ref().map(|algorithm| algorithm.as_str()).or(announced);
    let mut summing = Summing::of(&checksum::or_in_query(said!(input), &uri), algorithm, &headers)?;
    let md5 = md5(input.content_md5.as_deref())?;
    let (bucket, number) = (meta::bucket(&input.bucket)?, number(input.part_number)?);
    let writer = service.blobs.put_part(&bucket, &input.key, &upload.id, number).await.map_err(error::of)?;
    let mut writer = writer.ok_or_else(no_upload)?;
    body::take_in(input.body.take(), input.content_length, &mut writer, &mut summing).await?;
    let checksum = summing.finish(trailing_headers.as_ref())?;
    let part = writer.finish(Finish { expect: Expect::Any, checksum, md5 }).await;
    let part = part.map_err(|failure| error::with(failure, Kind::NotFound, S3ErrorCode::NoSuchUpload))?;
    let mut output = UploadPartOutput { e_tag: Some(meta::etag(&part.etag)), ..UploadPartOutput::default() };
    say!(&part.checksum, output);
    Ok(S3Response::new(output))
}

/// Copies bytes, since a part is a content of its own.
pub(crate) async fn copy_part(
    service: &Service,
    req: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let (from, name) = source(service, key_of(&req), &req.input.copy_source)?;
    let S3Request { input, headers, .. } = req;
    let upload = find(service, &input.bucket, &input.key, &input.upload_id).await?;
    let opened = service.blobs.get(&from, &name).await.map_err(error::of)?;
    let opened = opened.ok_or_else(no_key)?;
    let conditions = Conditions {
        if_match: etags(&headers, "x-amz-copy-source-if-match"),
        if_none_match: etags(&headers, "x-amz-copy-source-if-none-match"),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    };
    conditions.check(&opened.object).map_err(|_| source_refused(&opened.object))?;
    let bytes = match input.copy_source_range.as_deref() {
        None => 0..opened.object.size,
        Some(range) => copy_range(range, opened.object.size)?,
    };
    let algorithm = Announced::read(&upload).map(|announced| announced.algorithm);
    let mut summing = Summing::of(&Said::default(), algorithm, &http::HeaderMap::new())?;
    let (bucket, number) = (meta::bucket(&input.bucket)?, number(input.part_number)?);
    let writer = service.blobs.put_part(&bucket, &input.key, &upload.id, number).await.map_err(error::of)?;
    let mut writer = writer.ok_or_else(no_upload)?;
    let length = bytes.end - bytes.start;
    let content = body::out(body::begun(opened.content.read(bytes), &name).await?, length);
    body::take_in(Some(content), i64::try_from(length).ok(), &mut writer, &mut summing).await?;
    let checksum = summing.finish(None)?;
    let part = writer.finish(Finish { checksum, ..Finish::default() }).await;
    let part = part.map_err(|failure| error::with(failure, Kind::NotFound, S3ErrorCode::NoSuchUpload))?;
    let mut result = CopyPartResult {
        e_tag: Some(meta::etag(&part.etag)),
        last_modified: Some(meta::time(part.modified_unix_ns)),
        ..CopyPartResult::default()
    };
    say!(&part.checksum, result);
    Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() }))
}

/// `bytes=first-last`, and both have to be there (S3, UploadPartCopy).
fn copy_range(text: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    let bad = || s3_error!(InvalidArgument, "the range of a copy has to be bytes=first-last within the source");
    let (first, last) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or_else(bad)?;
    let (first, last) = (first.parse::<u64>().map_err(|_| bad())?, last.parse::<u64>().map_err(|_| bad())?);
    ByteRange::Between(first, last).of(size).filter(|_| last < size).ok_or_else(bad)
}

pub(crate) async fn complete(
    service: &Service,
    req: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let S3Request { input, uri, .. } = req;
    let expect = meta::expect(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let bucket = meta::bucket(&input.bucket)?;
    let named = input.multipart_upload.as_ref().and_then(|upload| upload.parts.clone()).unwrap_or_default();
    let upload = match find(service, &input.bucket, &input.key, &input.upload_id).await {
        Err(error) if *error.code() == S3ErrorCode::NoSuchUpload && expect == Expect::Any => {
            let made = service.blobs.head(&bucket, &input.key).await.map_err(error::of)?;
            let made = made.filter(|object| wanted(&named).is_ok_and(|wanted| is_of(&wanted, &object.etag)));
            return Ok(completed(input, &made.ok_or(error)?));
        }
        found => found?,
    };
    let wanted = wanted(&named)?;
    let parts = kept_parts(service, &upload, &input.bucket, &wanted).await?;
    for (part, named) in parts.iter().zip(&named) {
        check_sum(&said!(named), part)?;
    }
    let said = checksum::or_in_query(said!(input), &uri);
    let said = checksum::first(&said);
    // Who has announced none can have sent one with each part nevertheless.
    let announced = Announced::read(&upload).or_else(|| said.map(Announced::in_value));
    let checksum = announced.and_then(|it| checksum::of_parts(it.algorithm, it.full, &parts));
    if let Some((algorithm, said)) = said {
        check_sum_of_all(algorithm, said, checksum.as_ref())?;
    }
    let size = parts.iter().map(|part| part.size).sum::<u64>();
    if input.mpu_object_size.is_some_and(|said| u64::try_from(said) != Ok(size)) {
        return Err(s3_error!(InvalidRequest, "the object has {size} bytes, and not what x-amz-mp-object-size says"));
    }
    let finish = Finish { expect, checksum, md5: None };
    let done = service.blobs.complete_upload(&bucket, &input.key, &upload.id, wanted, finish).await;
    let done = done.map_err(|failure| error::with(failure, Kind::Invalid, S3ErrorCode::InvalidPart))?;
    Ok(completed(input, &done.ok_or_else(no_upload)?))
}

/// The answer to the completion that made this object.
fn completed(input: CompleteMultipartUploadInput, object: &Object) -> S3Response<CompleteMultipartUploadOutput> {
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(meta::etag(&object.etag)),
        checksum_type: object.checksum.as_ref().map(meta::checksum_type),
        ..CompleteMultipartUploadOutput::default()
    };
    say!(&object.checksum, output);
    S3Response::new(output)
}

/// The parts that are named, number and etag, in their order.
fn wanted(named: &[CompletedPart]) -> S3Result<Vec<(u32, String)>> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "an upload is completed with at least one part"));
    }
    let mut wanted = Vec::with_capacity(named.len());
    for part in named {
        let (Some(number), Some(etag)) = (part.part_number, &part.e_tag) else {
            return Err(s3_error!(MalformedXML, "each part has to have its number and its etag"));
        };
        wanted.push((self::number(number)?, etag.value().to_owned()));
    }
    if !wanted.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(s3_error!(InvalidPartOrder, "the parts have to be in the order of their numbers"));
    }
    Ok(wanted)
}

/// Whether an object with this etag was put together from these parts: its etag is the digest of theirs, and how many.
/// So a completion that is asked for again, since its answer was lost, is answered again.
fn is_of(parts: &[(u32, String)], etag: &str) -> bool {
    let mut md5 = Md5::new();
    for (_, etag) in parts {
        let Ok(digest) = u128::from_str_radix(etag, 16) else { return false };
        md5.update(&digest.to_be_bytes());
    }
    etag == format!("{:032x}-{}", u128::from_be_bytes(md5.finalize()), parts.len())
}

/// What is kept of the parts that are named, in their order.
async fn kept_parts(service: &Service, upload: &Upload, bucket: &str, wanted: &[(u32, String)]) -> S3Result<Vec<Part>> {
    let (bucket, mut wanted) = (meta::bucket(bucket)?, wanted.iter().peekable());
    let (mut parts, mut after) = (Vec::new(), 0);
    loop {
        let page = service.blobs.parts(&bucket, &upload.name, &upload.id, after, OBJECT_LIST_MAX).await;
        let page = page.map_err(error::of)?.ok_or_else(no_upload)?;
        after = page.parts.last().map_or(after, |part| part.number);
        for part in page.parts {
            if wanted.next_if(|(number, etag)| *number == part.number && *etag == part.etag).is_some() {
                parts.push(part);
            }
        }
        match wanted.peek() {
            None => return Ok(parts),
            Some((number, _)) if !page.more || *number <= after => {
                return Err(s3_error!(InvalidPart, "part {number} is not there, or has another etag"));
            }
            Some(_) => {}
        }
    }
}

/// What a client says of the object that its parts make has to be so; what cannot be told is not so.
fn check_sum_of_all(algorithm: &str, said: &str, checksum: Option<&Checksum>) -> S3Result<()> {
    let Some(checksum) = checksum.filter(|checksum| checksum.algorithm == algorithm) else {
        return Err(s3_error!(
            InvalidRequest,
            "the {algorithm} checksum of the object cannot be told from its parts: announce it when the upload begins, and send it \
             with each part, or leave it out"
        ));
    };
    if said.split('-').next() != checksum.value.split('-').next() {
        return Err(s3_error!(BadDigest, "the checksum of the object is {}, and not {said}", checksum.value));
    }
    Ok(())
}

/// What a client says of a part has to be what is kept of it.
fn check_sum(said: &Said, part: &Part) -> S3Result<()> {
    let Some((algorithm, said)) = checksum::first(said) else { return Ok(()) };
    let kept = part.checksum.as_ref().filter(|kept| kept.algorithm == algorithm).map(|kept| kept.value.as_str());
    if kept == Some(said) {
        return Ok(());
    }
    let kept = kept.unwrap_or("none");
    Err(s3_error!(InvalidPart, "the {algorithm} checksum of part {} is {kept}, and not {said}", part.number))
}

pub(crate) async fn abort(
    service: &Service,
    req: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = req.input;
    let gone = service.blobs.abort_upload(&meta::bucket(&input.bucket)?, &input.key, &UploadId(input.upload_id)).await;
    if !gone.map_err(error::of)? {
        return Err(no_upload());
    }
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

pub(crate) async fn list_parts(
    service: &Service,
    req: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = req.input;
    let upload = find(service, &input.bucket, &input.key, &input.upload_id).await?;
    let max = page_size(input.max_parts)?;
    let after = number(input.part_number_marker.unwrap_or_default())?;
    let page = service.blobs.parts(&meta::bucket(&input.bucket)?, &input.key, &upload.id, after, max).await;
    let page = page.map_err(error::of)?.ok_or_else(no_upload)?;
    let next = page.parts.last().filter(|_| page.more).and_then(|part| i32::try_from(part.number).ok());
    let announced = Announced::read(&upload);
    let parts = page.parts.iter().map(|part| {
        let mut listed = s3s::dto::Part {
            e_tag: Some(meta::etag(&part.etag)),
            last_modified: Some(meta::time(part.modified_unix_ns)),
            part_number: i32::try_from(part.number).ok(),
            size: i64::try_from(part.size).ok(),
            ..s3s::dto::Part::default()
        };
        say!(&part.checksum, listed);
        listed
    });
    let output = ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: i32::try_from(after).ok(),
        next_part_number_marker: next,
        max_parts: i32::try_from(max).ok(),
        is_truncated: Some(next.is_some()),
        parts: Some(parts.collect()),
        checksum_algorithm: announced.as_ref().map(Announced::algorithm),
        checksum_type: announced.as_ref().map(Announced::kind),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..ListPartsOutput::default()
    };
    Ok(S3Response::new(output))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_copy_lies_within_the_source() {
        assert_eq!(copy_range("bytes=0-9", 10).unwrap(), 0..10);
        assert_eq!(copy_range("bytes=3-3", 10).unwrap(), 3..4);
        for bad in ["bytes=0-10", "bytes=5-", "bytes=-5", "5-6", "bytes=6-5", "bytes=a-b"] {
            assert!(copy_range(bad, 10).is_err(), "{bad}");
        }
    }
}
