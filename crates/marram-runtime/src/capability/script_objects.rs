//! `env.blob` of a JavaScript or Python function. Calls are as in [`super::script`].
//!
//! Objects of any size go through in pieces. Reading holds nothing here: each piece is a call of its own, and says with the
//! object's etag that it is still the same. Writing holds an open object for the run that has begun it.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use marram_core::limits::OBJECT_LIST_MAX;
use marram_core::port::blobs::{Attributes, Delete, Expect, Finish, ListQuery, Listed, Object, ObjectWriter};
use marram_core::{Failure, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::script::{cursor, head, page_size, parse, whole};
use crate::reach::Reach;
use crate::uploads::{Open, Uploads};

/// The most of an object that a script gets in one call: the host holds it until the script has it.
const PIECE_BYTES_MAX: u64 = 1 << 20;

pub(super) fn call(
    reach: &Arc<Reach>,
    uploads: Option<&Uploads>,
    capability: &str,
    payload: Bytes,
) -> BoxFuture<'static, Result<Vec<u8>, Failure>> {
    let (reach, capability, uploads) = (Arc::clone(reach), capability.to_owned(), uploads.map(Uploads::open));
    Box::pin(async move {
        match &*capability {
            "blob.get" => get(&reach, parse(&payload)?.0).await,
            "blob.head" => {
                let Named { bucket, name, .. } = parse(&payload)?.0;
                let found = reach.blobs()?.head(reach.container(&bucket)?, &name).await?;
                Ok(head(&found.as_ref().map_or(Value::Null, view)))
            }
            "blob.put" => {
                let (asked, content) = parse(&payload)?;
                put(&reach, asked, content).await
            }
            "blob.begin" => begin(&reach, &of_a_run(uploads)?, parse(&payload)?.0).await,
            "blob.write" => {
                let (asked, piece) = parse(&payload)?;
                write(&of_a_run(uploads)?, &asked, piece).await
            }
            "blob.finish" => finish(&of_a_run(uploads)?, parse(&payload)?.0).await,
            "blob.abandon" => {
                let Numbered { upload } = parse(&payload)?.0;
                of_a_run(uploads)?.end(upload);
                Ok(head(&Value::Null))
            }
            "blob.delete" => delete(&reach, parse(&payload)?.0).await,
            "blob.list" => list(&reach, parse(&payload)?.0).await,
            _ => Err(Failure::new(Kind::Invalid, format!("{capability} is not offered by this version of Marram"))),
        }
    })
}

#[derive(Deserialize)]
struct Named {
    bucket: String,
    name: String,
    /// The first byte that is wanted; with `length`, how many from there.
    offset: Option<Value>,
    length: Option<Value>,
    /// The object has to be this one still.
    etag: Option<String>,
}

fn view(object: &Object) -> Value {
    let user: serde_json::Map<_, _> =
        object.attributes.user.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    json!({
        "name": object.name, "size": object.size, "etag": object.etag, "contentType": object.attributes.content_type,
        "metadata": user, "modified": object.modified_unix_ns / 1_000_000,
    })
}

async fn get(reach: &Reach, asked: Named) -> Result<Vec<u8>, Failure> {
    let offset = whole("offset", asked.offset, 0, "a whole number of bytes")?;
    let length = whole("length", asked.length, 0, "a whole number of bytes")?;
    let opened = reach.blobs()?.get(reach.container(&asked.bucket)?, &asked.name).await?;
    let found = opened.as_ref().map(|opened| &opened.object.etag);
    if asked.etag.is_some() && found != asked.etag.as_ref() {
        let message = format!("the object {:?} was replaced or deleted while it was read: get it again", asked.name);
        return Err(Failure::new(Kind::Conflict, message));
    }
    let Some(opened) = opened else { return Ok(head(&Value::Null)) };
    let size = opened.object.size;
    let first = offset.unwrap_or(0).min(size);
    let past = length.map_or(size, |length| first.saturating_add(length).min(size));
    let past = past.max(first);
    let mut said = view(&opened.object);
    said["range"] = json!([first, past]);
    let mut answer = head(&said);
    let mut chunks = opened.content.read(first..past.min(first + PIECE_BYTES_MAX));
    while let Some(chunk) = chunks.next().await {
        answer.extend_from_slice(&chunk?);
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Putting {
    bucket: String,
    name: String,
    content_type: Option<String>,
    #[serde(default)]
    metadata: Vec<(String, String)>,
    #[serde(flatten)]
    expected: Expected,
}

/// What has to be there when an object gets its name.
#[derive(Default, Deserialize)]
struct Expected {
    /// An object with this etag.
    etag: Option<String>,
    /// No object.
    #[serde(default)]
    absent: bool,
}

impl From<Expected> for Finish {
    fn from(expected: Expected) -> Self {
        let expect = match expected.etag {
            Some(etag) => Expect::Etag(etag),
            None if expected.absent => Expect::Absent,
            None => Expect::Any,
        };
        Self { expect, ..Self::default() }
    }
}

async fn put(reach: &Reach, asked: Putting, content: Bytes) -> Result<Vec<u8>, Failure> {
    let expected = asked.expected;
    let named = (asked.bucket, asked.name, asked.content_type, asked.metadata);
    let mut writer = writer(reach, named).await?;
    writer.write(content).await?;
    Ok(head(&view(&writer.finish(expected.into()).await?)))
}

/// Begins to write an object: bucket, name, content type, metadata.
async fn writer(
    reach: &Reach,
    (bucket, name, content_type, metadata): (String, String, Option<String>, Vec<(String, String)>),
) -> Result<Box<dyn ObjectWriter>, Failure> {
    let user = metadata.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    let attributes = Attributes { content_type, headers: Vec::new(), user };
    attributes.check()?;
    reach.blobs()?.put(reach.container(&bucket)?, &name, attributes).await
}

fn of_a_run(uploads: Option<Arc<Open>>) -> Result<Arc<Open>, Failure> {
    uploads.ok_or_else(|| Failure::new(Kind::Invalid, "an object is written in pieces within a request only"))
}

#[derive(Deserialize)]
struct Numbered {
    upload: u32,
}

async fn begin(reach: &Reach, uploads: &Arc<Open>, asked: Putting) -> Result<Vec<u8>, Failure> {
    let upload = uploads.begin()?;
    match writer(reach, (asked.bucket, asked.name, asked.content_type, asked.metadata)).await {
        Ok(writer) => uploads.put(upload, writer),
        Err(failure) => {
            uploads.end(upload);
            return Err(failure);
        }
    }
    Ok(head(&json!({ "upload": upload })))
}

/// One piece; resolves once there is room for the next.
async fn write(uploads: &Arc<Open>, asked: &Numbered, piece: Bytes) -> Result<Vec<u8>, Failure> {
    let mut writer = uploads.take(asked.upload)?;
    match writer.write(piece).await {
        Ok(()) => uploads.put(asked.upload, writer),
        Err(failure) => {
            uploads.end(asked.upload);
            return Err(failure);
        }
    }
    Ok(head(&Value::Null))
}

#[derive(Deserialize)]
struct Finishing {
    upload: u32,
    #[serde(flatten)]
    expected: Expected,
}

async fn finish(uploads: &Arc<Open>, asked: Finishing) -> Result<Vec<u8>, Failure> {
    let writer = uploads.take(asked.upload)?;
    uploads.end(asked.upload);
    Ok(head(&view(&writer.finish(asked.expected.into()).await?)))
}

#[derive(Deserialize)]
struct Deleting {
    bucket: String,
    names: Vec<String>,
}

async fn delete(reach: &Reach, asked: Deleting) -> Result<Vec<u8>, Failure> {
    let bucket = reach.container(&asked.bucket)?;
    for names in asked.names.chunks(OBJECT_LIST_MAX) {
        let deletes = names.iter().map(|name| Delete { name: name.clone(), expect: Expect::Any }).collect();
        for deleted in reach.blobs()?.delete(bucket, deletes).await? {
            deleted?;
        }
    }
    Ok(head(&Value::Null))
}

#[derive(Deserialize)]
struct Listing {
    bucket: String,
    #[serde(default)]
    prefix: String,
    delimiter: Option<String>,
    limit: Option<Value>,
    after: Option<Value>,
}

async fn list(reach: &Reach, asked: Listing) -> Result<Vec<u8>, Failure> {
    let (max, after) = (page_size(asked.limit, OBJECT_LIST_MAX)?, cursor(asked.after)?);
    let query = ListQuery { prefix: asked.prefix, after, delimiter: asked.delimiter, max };
    let page = reach.blobs()?.list(reach.container(&asked.bucket)?, query).await?;
    let after = page.entries.last().filter(|_| page.more).map(|entry| entry.name().to_owned());
    let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
    for entry in &page.entries {
        match entry {
            Listed::Object(object) => objects.push(view(object)),
            Listed::Prefix(prefix) => prefixes.push(prefix.as_str()),
        }
    }
    Ok(head(&json!({ "objects": objects, "prefixes": prefixes, "after": after })))
}
