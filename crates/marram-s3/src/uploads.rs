//! Lists of the uploads in parts that are under way.

use marram_core::limits::OBJECT_LIST_MAX;
use marram_core::port::blobs::{Upload, UploadId};
use s3s::dto::{CommonPrefix, ListMultipartUploadsInput, ListMultipartUploadsOutput, MultipartUpload, StorageClass};
use s3s::{S3Request, S3Response, S3Result};

use crate::lists::{encoded, page_size, wants_url};
use crate::service::Service;
use crate::{error, meta};

/// An entry of a list.
#[derive(Debug, PartialEq, Eq)]
enum Listed<'a> {
    Upload(&'a Upload),
    /// Stands for every upload whose name begins so.
    Prefix(&'a str),
}

pub(crate) async fn list(
    service: &Service,
    req: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = req.input;
    let (url, max) = (wants_url(input.encoding_type.as_ref())?, page_size(input.max_uploads)?);
    let prefix = input.prefix.clone().unwrap_or_default();
    let marker = input.key_marker.clone().unwrap_or_default();
    // Without an id, all uploads of the name are passed over.
    let id = input.upload_id_marker.clone().unwrap_or_else(|| "\u{10ffff}".into());
    let after = (!marker.is_empty()).then(|| (marker.clone(), UploadId(id)));
    let found = all(service, &input.bucket, &prefix, after).await?;
    let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    let mut listed = fold(&found, &prefix, delimiter, &marker);
    // Nothing of nothing: there is no name to go on after.
    let more = max > 0 && listed.len() > max;
    listed.truncate(max);
    let next = listed.last().filter(|_| more);
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    for entry in &listed {
        match entry {
            Listed::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encoded(prefix, url)) }),
            Listed::Upload(upload) => uploads.push(MultipartUpload {
                initiated: Some(meta::time(upload.begun_unix_ns)),
                key: Some(encoded(&upload.name, url)),
                upload_id: Some(upload.id.0.clone()),
                storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                ..MultipartUpload::default()
            }),
        }
    }
    let output = ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: input.prefix.map(|prefix| encoded(&prefix, url)),
        key_marker: input.key_marker.map(|marker| encoded(&marker, url)),
        upload_id_marker: input.upload_id_marker,
        next_key_marker: next.map(|entry| match entry {
            Listed::Prefix(prefix) => encoded(prefix, url),
            Listed::Upload(upload) => encoded(&upload.name, url),
        }),
        next_upload_id_marker: next.and_then(|entry| match entry {
            Listed::Prefix(_) => None,
            Listed::Upload(upload) => Some(upload.id.0.clone()),
        }),
        max_uploads: i32::try_from(max).ok(),
        is_truncated: Some(more),
        uploads: Some(uploads),
        common_prefixes: Some(prefixes),
        delimiter: input.delimiter.map(|delimiter| encoded(&delimiter, url)),
        encoding_type: input.encoding_type,
        ..ListMultipartUploadsOutput::default()
    };
    Ok(S3Response::new(output))
}

/// All of them after this one: a bucket has no more than one page or two.
async fn all(
    service: &Service,
    bucket: &str,
    prefix: &str,
    mut after: Option<(String, UploadId)>,
) -> S3Result<Vec<Upload>> {
    let (bucket, mut found) = (meta::bucket(bucket)?, Vec::new());
    loop {
        let page = service.blobs.uploads(&bucket, prefix, after, OBJECT_LIST_MAX).await.map_err(error::of)?;
        after = page.uploads.last().map(|upload| (upload.name.clone(), upload.id.clone()));
        found.extend(page.uploads);
        if !page.more || after.is_none() {
            return Ok(found);
        }
    }
}

/// Puts together the names that have the same beginning, up to the first delimiter after the prefix. A beginning that is the
/// marker has been listed.
fn fold<'a>(found: &'a [Upload], prefix: &str, delimiter: Option<&str>, marker: &str) -> Vec<Listed<'a>> {
    let mut listed = Vec::new();
    for upload in found {
        let common = delimiter.and_then(|delimiter| {
            let at = upload.name.get(prefix.len()..)?.find(delimiter)?;
            upload.name.get(..prefix.len() + at + delimiter.len())
        });
        match common {
            None => listed.push(Listed::Upload(upload)),
            Some(common) if common == marker || listed.last() == Some(&Listed::Prefix(common)) => {}
            Some(common) => listed.push(Listed::Prefix(common)),
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use marram_core::port::blobs::Attributes;

    use super::*;

    #[test]
    fn names_with_a_delimiter_after_the_prefix_are_one_entry() {
        let upload = |name: &str| Upload {
            id: UploadId(format!("id of {name}")),
            name: name.into(),
            attributes: Attributes::default(),
            checksum: String::new(),
            begun_unix_ns: 0,
        };
        let found = ["up/a/1", "up/a/2", "up/b", "up/ä--1", "up/ä--2/3"].map(upload);
        let listed = |delimiter: Option<&str>, marker: &str| -> Vec<String> {
            let show = |entry: Listed<'_>| match entry {
                Listed::Upload(upload) => upload.name.clone(),
                Listed::Prefix(prefix) => format!("{prefix}…"),
            };
            fold(&found, "up/", delimiter, marker).into_iter().map(show).collect()
        };
        assert_eq!(listed(None, ""), ["up/a/1", "up/a/2", "up/b", "up/ä--1", "up/ä--2/3"]);
        assert_eq!(listed(Some("/"), ""), ["up/a/…", "up/b", "up/ä--1", "up/ä--2/…"]);
        assert_eq!(listed(Some("--"), ""), ["up/a/1", "up/a/2", "up/b", "up/ä--…"]);
        assert_eq!(listed(Some("/"), "up/a/"), ["up/b", "up/ä--1", "up/ä--2/…"]);
    }
}
