//! `env.blob` of a JavaScript or Python function: objects, whole or in part. Calls are as in [`super::script`].

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use marram_core::limits::OBJECT_LIST_MAX;
use marram_core::port::blobs::{Attributes, Delete, Expect, Finish, ListQuery, Listed, Object};
use marram_core::{Failure, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::script::{head, parse};
use crate::reach::Reach;

/// The most of an object that a script gets at once: the host holds it until the script has it.
const GET_BYTES_MAX: u64 = 16 << 20;

pub(super) fn call(
    reach: &Arc<Reach>,
    capability: &str,
    payload: Bytes,
) -> BoxFuture<'static, Result<Vec<u8>, Failure>> {
    let (reach, capability) = (Arc::clone(reach), capability.to_owned());
    Box::pin(async move {
        match &*capability {
            "blob.get" => get(&reach, &parse(&payload)?.0).await,
            "blob.head" => {
                let Named { bucket, name, .. } = parse(&payload)?.0;
                let found = reach.blobs()?.head(reach.container(&bucket)?, &name).await?;
                Ok(head(&found.as_ref().map_or(Value::Null, view)))
            }
            "blob.put" => {
                let (asked, content) = parse(&payload)?;
                put(&reach, asked, content).await
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
    offset: Option<u64>,
    length: Option<u64>,
}

fn view(object: &Object) -> Value {
    let user: serde_json::Map<_, _> =
        object.attributes.user.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    json!({
        "name": object.name, "size": object.size, "etag": object.etag, "contentType": object.attributes.content_type,
        "metadata": user, "modified": object.modified_unix_ns / 1_000_000,
    })
}

async fn get(reach: &Reach, asked: &Named) -> Result<Vec<u8>, Failure> {
    let Some(opened) = reach.blobs()?.get(reach.container(&asked.bucket)?, &asked.name).await? else {
        return Ok(head(&Value::Null));
    };
    let size = opened.object.size;
    let first = asked.offset.unwrap_or(0).min(size);
    let past = asked.length.map_or(size, |length| first.saturating_add(length).min(size));
    if past - first > GET_BYTES_MAX {
        let message =
            format!("{} bytes of an object at once, more than {GET_BYTES_MAX}: read it in parts", past - first);
        return Err(Failure::new(Kind::BodyTooLarge, message));
    }
    let mut answer = head(&view(&opened.object));
    let mut chunks = opened.content.read(first..past);
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
    /// An object with this etag has to be there.
    etag: Option<String>,
    #[serde(default)]
    absent: bool,
}

async fn put(reach: &Reach, asked: Putting, content: Bytes) -> Result<Vec<u8>, Failure> {
    let expect = match asked.etag {
        Some(etag) => Expect::Etag(etag),
        None if asked.absent => Expect::Absent,
        None => Expect::Any,
    };
    let user = asked.metadata.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    let attributes = Attributes { content_type: asked.content_type, headers: Vec::new(), user };
    attributes.check()?;
    let mut writer = reach.blobs()?.put(reach.container(&asked.bucket)?, &asked.name, attributes).await?;
    writer.write(content).await?;
    let object = writer.finish(Finish { expect, ..Finish::default() }).await?;
    Ok(head(&view(&object)))
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
    limit: Option<usize>,
    after: Option<String>,
}

async fn list(reach: &Reach, asked: Listing) -> Result<Vec<u8>, Failure> {
    let max = asked.limit.unwrap_or(OBJECT_LIST_MAX).clamp(1, OBJECT_LIST_MAX);
    let query = ListQuery { prefix: asked.prefix, after: asked.after, delimiter: asked.delimiter, max };
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
