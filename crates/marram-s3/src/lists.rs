//! Buckets, and lists of objects in both versions.

use marram_core::Kind;
use marram_core::limits::OBJECT_LIST_MAX;
use marram_core::port::blobs::{ListQuery, Listed, ObjectPage};
use s3s::dto::{
    Bucket, CommonPrefix, CreateBucketInput, CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput, EncodingType,
    GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput, HeadBucketOutput, ListBucketsInput,
    ListBucketsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Object,
    ObjectStorageClass,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::service::{Service, key_of};
use crate::{error, meta};

pub(crate) async fn buckets(
    service: &Service,
    req: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let found = service.blobs.buckets().await.map_err(error::of)?;
    let prefix = req.input.prefix.clone().unwrap_or_default();
    let seen = found.into_iter().filter(|bucket| {
        bucket.name.as_str().starts_with(&prefix) && service.keys.sees(key_of(&req), bucket.name.as_str())
    });
    let buckets = seen
        .map(|bucket| Bucket {
            creation_date: Some(meta::time(bucket.created_unix_ns)),
            name: Some(bucket.name.to_string()),
            ..Bucket::default()
        })
        .collect();
    let output = ListBucketsOutput { buckets: Some(buckets), prefix: req.input.prefix, ..ListBucketsOutput::default() };
    Ok(S3Response::new(output))
}

pub(crate) async fn create(
    service: &Service,
    req: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let made = service.blobs.create_bucket(&meta::bucket(&req.input.bucket)?).await;
    if !made.map_err(error::of)? {
        return Err(s3_error!(BucketAlreadyOwnedByYou, "the bucket is there already"));
    }
    let location = Some(format!("/{}", req.input.bucket));
    Ok(S3Response::new(CreateBucketOutput { location }))
}

pub(crate) async fn delete(
    service: &Service,
    req: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let gone = service.blobs.delete_bucket(&meta::bucket(&req.input.bucket)?).await;
    let gone = gone.map_err(|failure| error::with(failure, Kind::Conflict, S3ErrorCode::BucketNotEmpty))?;
    if !gone {
        return Err(no_bucket(&req.input.bucket));
    }
    let mut response = S3Response::new(DeleteBucketOutput {});
    response.status = Some(http::StatusCode::NO_CONTENT);
    Ok(response)
}

async fn need(service: &Service, bucket: &str) -> S3Result<()> {
    let found = service.blobs.bucket(&meta::bucket(bucket)?).await.map_err(error::of)?;
    found.map(|_| ()).ok_or_else(|| no_bucket(bucket))
}

fn no_bucket(bucket: &str) -> S3Error {
    s3_error!(NoSuchBucket, "there is no bucket \"{bucket}\" on this node: create it first, or look at ListBuckets")
}

pub(crate) async fn head(service: &Service, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
    need(service, &req.input.bucket).await?;
    Ok(S3Response::new(HeadBucketOutput::default()))
}

/// A node is in no region; AWS says that of its first one.
pub(crate) async fn location(
    service: &Service,
    req: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    need(service, &req.input.bucket).await?;
    Ok(S3Response::new(GetBucketLocationOutput::default()))
}

/// How many entries are asked for.
pub(crate) fn page_size(asked: Option<i32>) -> S3Result<usize> {
    let asked = asked.map_or(Ok(OBJECT_LIST_MAX), usize::try_from);
    Ok(asked.map_err(|_| s3_error!(InvalidArgument, "a page has no negative number of entries"))?.min(OBJECT_LIST_MAX))
}

async fn page(service: &Service, bucket: &str, query: ListQuery) -> S3Result<ObjectPage> {
    let max = query.max;
    let page = service.blobs.list(&meta::bucket(bucket)?, query).await.map_err(error::of)?;
    // Nothing of nothing: there is no name to go on after.
    Ok(if max == 0 { ObjectPage::default() } else { page })
}

/// The two lists that a page is.
fn split(page: &ObjectPage, url: bool) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
    for entry in &page.entries {
        match entry {
            Listed::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encoded(prefix, url)) }),
            Listed::Object(object) => objects.push(Object {
                e_tag: Some(meta::etag(&object.etag)),
                key: Some(encoded(&object.name, url)),
                last_modified: Some(meta::time(object.modified_unix_ns)),
                size: i64::try_from(object.size).ok(),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Object::default()
            }),
        }
    }
    (objects, prefixes)
}

/// Whether names are to be in percent.
pub(crate) fn wants_url(encoding: Option<&EncodingType>) -> S3Result<bool> {
    match encoding.map(EncodingType::as_str) {
        None => Ok(false),
        Some(EncodingType::URL) => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "the only encoding type is \"url\"")),
    }
}

/// A name as a list has it: with `encoding-type=url`, everything but letters, digits and `-_.~/` in percent.
pub(crate) fn encoded(name: &str, url: bool) -> String {
    if !url {
        return name.to_owned();
    }
    name.bytes().fold(String::with_capacity(name.len()), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}

/// A continuation token is the name after which to go on, in hex: nothing of it has to be escaped anywhere.
fn token(name: &str) -> String {
    name.bytes().fold(String::with_capacity(name.len() * 2), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

fn of_token(token: &str) -> S3Result<String> {
    let pairs = token.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let bytes = pairs.collect::<Option<Vec<u8>>>().filter(|_| token.len().is_multiple_of(2));
    let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    name.ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is not one of this node's"))
}

pub(crate) async fn list_v2(
    service: &Service,
    req: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = req.input;
    let (url, max) = (wants_url(input.encoding_type.as_ref())?, page_size(input.max_keys)?);
    let after = match input.continuation_token.as_deref() {
        Some(token) => Some(of_token(token)?),
        None => input.start_after.clone(),
    };
    let prefix = input.prefix.clone().unwrap_or_default();
    let query = ListQuery { prefix, after, delimiter: input.delimiter.clone(), max };
    let page = page(service, &input.bucket, query).await?;
    let (contents, common_prefixes) = split(&page, url);
    let next = page.entries.last().filter(|_| page.more).map(|entry| token(entry.name()));
    let output = ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoded(&input.prefix.unwrap_or_default(), url)),
        max_keys: i32::try_from(max).ok(),
        key_count: i32::try_from(page.entries.len()).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(next.is_some()),
        next_continuation_token: next,
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        delimiter: input.delimiter.map(|delimiter| encoded(&delimiter, url)),
        encoding_type: input.encoding_type,
        start_after: input.start_after.map(|after| encoded(&after, url)),
        ..ListObjectsV2Output::default()
    };
    Ok(S3Response::new(output))
}

pub(crate) async fn list_v1(
    service: &Service,
    req: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = req.input;
    let (url, max) = (wants_url(input.encoding_type.as_ref())?, page_size(input.max_keys)?);
    let prefix = input.prefix.clone().unwrap_or_default();
    let query = ListQuery { prefix, after: input.marker.clone(), delimiter: input.delimiter.clone(), max };
    let page = page(service, &input.bucket, query).await?;
    let (contents, common_prefixes) = split(&page, url);
    // Without a delimiter, clients go on after the last name (S3, ListObjects, "NextMarker").
    let next = page.entries.last().filter(|_| page.more && input.delimiter.is_some());
    let output = ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(encoded(&input.prefix.unwrap_or_default(), url)),
        marker: Some(encoded(&input.marker.unwrap_or_default(), url)),
        max_keys: i32::try_from(max).ok(),
        is_truncated: Some(page.more),
        next_marker: next.map(|entry| encoded(entry.name(), url)),
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        delimiter: input.delimiter.map(|delimiter| encoded(&delimiter, url)),
        encoding_type: input.encoding_type,
        ..ListObjectsOutput::default()
    };
    Ok(S3Response::new(output))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_others_are_refused() {
        for name in ["", "a/b", "ä+ %", "\u{10fffd}"] {
            assert_eq!(of_token(&token(name)).unwrap(), name);
        }
        for bad in ["a", "zz", "ff", "ä"] {
            assert!(of_token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_encoded_where_that_is_asked_for() {
        assert_eq!(encoded("a b+c/ä&", true), "a%20b%2Bc/%C3%A4%26");
        assert_eq!(encoded("a b+c/ä&", false), "a b+c/ä&");
    }
}
