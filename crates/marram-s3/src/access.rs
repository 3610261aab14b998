//! Who may do what: access keys, each with the buckets that it reads and writes. There is no access without one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use marram_core::Name;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::validation::NameValidation;
use s3s::{S3Result, s3_error};

use crate::listen::Place;

/// Buckets that a key reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// Every one.
    All,
    /// These.
    Named(Vec<Name>),
}

impl Buckets {
    fn has(&self, bucket: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name.as_str() == bucket),
        }
    }
}

/// An access key. Its secret is never shown.
#[derive(Clone)]
pub struct AccessKey {
    /// The access key id, which is no secret.
    pub id: String,
    /// The secret, with which clients sign.
    pub secret: String,
    /// What it reads.
    pub read: Buckets,
    /// What it writes, makes and deletes.
    pub write: Buckets,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What an operation does to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Read,
    Write,
}

/// The keys of a node.
pub(crate) struct Keys(BTreeMap<String, AccessKey>);

impl Keys {
    pub(crate) fn new(keys: Vec<AccessKey>) -> Self {
        Self(keys.into_iter().map(|key| (key.id.clone(), key)).collect())
    }

    /// Fails if the key may not do that.
    pub(crate) fn check(&self, id: Option<&str>, need: Need, bucket: &str) -> S3Result<()> {
        let key = id.and_then(|id| self.0.get(id));
        let key = key.ok_or_else(|| s3_error!(AccessDenied, "the request is not signed"))?;
        let (buckets, what) = match need {
            Need::Read => (&key.read, "read"),
            Need::Write => (&key.write, "write"),
        };
        if buckets.has(bucket) {
            return Ok(());
        }
        Err(s3_error!(AccessDenied, "this access key may not {what} the bucket \"{bucket}\""))
    }

    /// Whether the key reaches the bucket at all.
    pub(crate) fn sees(&self, id: Option<&str>, bucket: &str) -> bool {
        id.and_then(|id| self.0.get(id)).is_some_and(|key| key.read.has(bucket) || key.write.has(bucket))
    }
}

/// What an operation needs. What is not in here is not implemented, and only needs a signature.
fn need(operation: &str) -> Option<Need> {
    match operation {
        "GetObject" | "HeadObject" | "ListObjects" | "ListObjectsV2" | "HeadBucket" | "GetBucketLocation" => {
            Some(Need::Read)
        }
        "PutObject"
        | "CopyObject"
        | "DeleteObject"
        | "DeleteObjects"
        | "CreateBucket"
        | "DeleteBucket"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload"
        | "AbortMultipartUpload"
        | "ListParts"
        | "ListMultipartUploads" => Some(Need::Write),
        _ => None,
    }
}

/// The keys, shared with the operations.
pub(crate) struct Shared(pub(crate) Arc<Keys>);

#[async_trait::async_trait]
impl S3Auth for Shared {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let key = self.0.0.get(access_key);
        let key = key.ok_or_else(|| s3_error!(InvalidAccessKeyId, "there is no such access key on this node"))?;
        Ok(SecretKey::from(key.secret.as_str()))
    }
}

#[async_trait::async_trait]
impl S3Access for Shared {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "the request is not signed"));
        }
        // The signature is right: from here on the connection is not closed to make room.
        if cx.extensions_mut().get::<Arc<Place>>().is_some_and(|place| !place.begin()) {
            return Err(s3_error!(ServiceUnavailable, "the connection made room for another: connect again"));
        }
        let id = cx.credentials().map(|credentials| credentials.access_key.as_str());
        let operation = cx.s3_op().name();
        if operation == "PostObject" {
            // A form is held in memory before its signature can be looked at.
            return Err(s3_error!(NotImplemented, "uploads by form are not supported: use PUT"));
        }
        let bucket = match cx.s3_path() {
            S3Path::Root => return Ok(()),
            S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } => bucket,
        };
        need(operation).map_or(Ok(()), |need| self.0.check(id, need, bucket))
    }
}

/// Bucket names are names of Marram: what AWS takes, without dots, and beginning with a letter.
pub(crate) struct Names;

impl NameValidation for Names {
    fn validate_bucket_name(&self, name: &str) -> bool {
        Name::new(name).is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reaches_what_it_names_and_shows_no_secret() {
        let key = AccessKey {
            id: "k".into(),
            secret: "very-secret".into(),
            read: Buckets::All,
            write: Buckets::Named(vec![Name::new("uploads").unwrap()]),
        };
        assert!(!format!("{key:?}").contains("very-secret"));
        let keys = Keys::new(vec![key]);
        assert!(keys.check(Some("k"), Need::Read, "other").is_ok());
        assert!(keys.check(Some("k"), Need::Write, "uploads").is_ok());
        for (id, need, bucket) in
            [(Some("k"), Need::Write, "other"), (Some("x"), Need::Read, "a"), (None, Need::Read, "a")]
        {
            let refused = keys.check(id, need, bucket).unwrap_err();
            assert_eq!(refused.code().as_str(), "AccessDenied");
        }
    }
}
