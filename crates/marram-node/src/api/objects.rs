//! Objects and their buckets, on the wire. An object's own bytes are the body of `GET` and `PUT`.

use marram_core::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/objects`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ObjectBuckets {
    /// By name.
    pub buckets: Vec<ObjectBucket>,
}

/// A bucket of objects.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ObjectBucket {
    /// Its name.
    pub bucket: String,
    /// When it was made.
    pub created_unix_ms: u64,
}

/// `GET /v1/objects/{bucket}`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Objects {
    /// In the order of their names.
    pub objects: Vec<ObjectView>,
    /// What several names have in common up to the delimiter, each once.
    pub prefixes: Vec<String>,
    /// There are more: ask again with this as `after`.
    pub next: Option<String>,
}

/// An object, without its bytes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ObjectView {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Differs where the content does, for `If-Match`.
    pub etag: String,
    /// SHA-256 of its content; absent for one that came in parts.
    pub digest: Option<Digest>,
    /// Its media type.
    pub content_type: Option<String>,
    /// When it was written.
    pub modified_unix_ms: u64,
}
