//! Objects that come in parts: each part is durable by itself, and the object is there when it is completed.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{Attributes, Blobs, Checksum, Expect, Finish, Object};
use crate::{Failure, Name};

/// Which upload this is; not to be guessed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub String);

/// An upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Which.
    pub id: UploadId,
    /// The name that its object will have.
    pub name: String,
    /// What is said of it.
    pub attributes: Attributes,
    /// What the client has said about its checksums when it began, as `<algorithm>/<type>`; empty for nothing. Opaque here.
    pub checksum: String,
    /// When it was begun, in nanoseconds since the Unix epoch.
    pub begun_unix_ns: u64,
}

/// A part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, 1 to [`crate::limits::OBJECT_PARTS_MAX`]: the order in the object.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// The MD5 digest of its content in hex.
    pub etag: String,
    /// What was checked of its content when it came.
    pub checksum: Option<Checksum>,
    /// When it was written, in nanoseconds since the Unix epoch.
    pub modified_unix_ns: u64,
}

/// A page of parts, by number.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PartPage {
    /// The parts.
    pub parts: Vec<Part>,
    /// There are more.
    pub more: bool,
}

/// A page of uploads, by name and then by id.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UploadPage {
    /// The uploads.
    pub uploads: Vec<Upload>,
    /// There are more.
    pub more: bool,
}

/// A part that is being written. Dropping it throws away what was written.
pub trait PartWriter: Send {
    /// As [`super::ObjectWriter::write`].
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Failure>>;

    /// Keeps the part, in place of one of the same number; resolves once that is durable. [`Finish::expect`] says nothing
    /// here.
    fn finish(self: Box<Self>, finish: Finish) -> BoxFuture<'static, Result<Part, Failure>>;
}

/// Objects that come in parts. What is asked of an upload that is not there, or of another name, is `None`.
///
/// An upload that nothing has happened to for [`crate::limits::OBJECT_UPLOAD_KEPT`] is aborted.
pub trait Multipart: Blobs {
    /// Begins an upload; resolves once it is durable. At most [`crate::limits::OBJECT_UPLOADS_MAX`] in a bucket.
    fn begin_upload(
        &self,
        bucket: &Name,
        name: &str,
        attributes: Attributes,
        checksum: String,
    ) -> BoxFuture<'_, Result<UploadId, Failure>>;

    /// An upload.
    fn upload(&self, bucket: &Name, name: &str, id: &UploadId) -> BoxFuture<'_, Result<Option<Upload>, Failure>>;

    /// Begins a part.
    fn put_part(
        &self,
        bucket: &Name,
        name: &str,
        id: &UploadId,
        number: u32,
    ) -> BoxFuture<'_, Result<Option<Box<dyn PartWriter>>, Failure>>;

    /// Puts the object together from these parts, number and etag, which have to ascend; resolves once it is durable. The
    /// upload ends, and its other parts go. No bytes are copied.
    ///
    /// Fails with [`crate::Kind::Invalid`] where a part is not there or has another etag, and nothing has changed then.
    fn complete_upload(
        &self,
        bucket: &Name,
        name: &str,
        id: &UploadId,
        parts: Vec<(u32, String)>,
        finish: Finish,
    ) -> BoxFuture<'_, Result<Option<Object>, Failure>>;

    /// Ends an upload without an object; `false` if it is not there.
    fn abort_upload(&self, bucket: &Name, name: &str, id: &UploadId) -> BoxFuture<'_, Result<bool, Failure>>;

    /// Up to `max` parts of an upload, after the number `after`; at most [`crate::limits::OBJECT_LIST_MAX`].
    fn parts(
        &self,
        bucket: &Name,
        name: &str,
        id: &UploadId,
        after: u32,
        max: usize,
    ) -> BoxFuture<'_, Result<Option<PartPage>, Failure>>;

    /// Up to `max` uploads of names that begin with `prefix`, after this name and id; at most
    /// [`crate::limits::OBJECT_LIST_MAX`].
    fn uploads(
        &self,
        bucket: &Name,
        prefix: &str,
        after: Option<(String, UploadId)>,
        max: usize,
    ) -> BoxFuture<'_, Result<UploadPage, Failure>>;
}

/// What a client that completes an upload expects, for those who do not care.
impl From<Expect> for Finish {
    fn from(expect: Expect) -> Self {
        Self { expect, ..Self::default() }
    }
}
