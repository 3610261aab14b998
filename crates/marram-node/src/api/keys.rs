//! Keys and their buckets, on the wire. A value's own bytes are the body of `GET` and `PUT`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/kv`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyBuckets {
    /// By name.
    pub buckets: Vec<String>,
}

/// `GET /v1/kv/{bucket}`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Keys {
    /// In order.
    pub keys: Vec<String>,
    /// There are more: ask again with `after` as the last of these.
    pub more: bool,
}

/// `PUT` and `DELETE` of a key.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyWritten {
    /// The version that was written, for `If-Match`; absent where nothing was deleted.
    pub version: Option<String>,
}

/// A line of `GET /v1/kv/{bucket}/watch`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum WatchLine {
    /// A key changed.
    Change(KeyChanged),
    /// The follower was too slow: it has to read again what is of interest.
    Missed(ChangesMissed),
}

/// A change of a key that is on the disk.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyChanged {
    /// The key.
    pub key: String,
    /// `created`, `updated`, `deleted` or `expired`.
    pub event: String,
    /// Which write.
    pub version: String,
    /// The new value, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The new value in base64, where it is not. Large values are left out, and can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// Changes that a follower did not get.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangesMissed {
    /// How many changes, of whatever key, went by.
    pub missed: u64,
}
