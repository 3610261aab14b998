//! Objects ("blobs"): named bytes in buckets, streamed in and out. The store implements; functions, the S3 API and the admin
//! API use.
//!
//! Objects are whole: a name has the old content or the new one, never a part of it. Where this page says *durable*, it is
//! on the disk.

mod multipart;
mod object;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::{Failure, Name};

pub use multipart::{Multipart, Part, PartPage, PartWriter, Upload, UploadId, UploadPage};
pub use object::{Attributes, ByteRange, Checksum, Object, Version, check_name, shown};

/// A bucket of objects. It is there from when it is made until it is deleted, empty or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: Name,
    /// When it was made, in nanoseconds since the Unix epoch.
    pub created_unix_ns: u64,
}

/// What has to be there for a change to happen; otherwise it fails with [`crate::Kind::Conflict`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Expect {
    /// Whatever.
    #[default]
    Any,
    /// No object of this name.
    Absent,
    /// Some object of this name.
    Present,
    /// An object with this [`Object::etag`].
    Etag(String),
}

/// How [`ObjectWriter::finish`] ends a write.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Finish {
    /// What has to be there.
    pub expect: Expect,
    /// What somebody has checked of the content, to be kept and handed out with it.
    pub checksum: Option<Checksum>,
    /// The content has to have this MD5 digest (`Content-MD5`); otherwise nothing is kept, and the failure is
    /// [`crate::Kind::BadRequest`].
    pub md5: Option<[u8; 16]>,
}

/// A content that is being written. Dropping it throws away what was written.
pub trait ObjectWriter: Send {
    /// Adds bytes; resolves once there is room for more. Fails with [`crate::Kind::BodyTooLarge`] past
    /// [`crate::limits::OBJECT_BYTES_MAX`], and with [`crate::Kind::StorageFull`] when the disk is.
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Failure>>;

    /// Gives the content its name; resolves once that is durable. On a failure nothing has changed.
    fn finish(self: Box<Self>, finish: Finish) -> BoxFuture<'static, Result<Object, Failure>>;
}

/// A content that stays as it is for as long as this lives, whatever happens to its name.
pub trait Content: Send + Sync {
    /// The bytes of `range`, in chunks of at most 256 KiB; what is past the end is left out.
    fn read(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, Failure>>;
}

/// An object that was opened: what is said of it and its bytes are of the same write.
#[derive(Clone)]
pub struct Opened {
    /// What is said of it.
    pub object: Object,
    /// Its bytes.
    pub content: Arc<dyn Content>,
}

/// Which objects [`Blobs::list`] is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Names that begin with this.
    pub prefix: String,
    /// What comes after this name, or after this [`Listed::Prefix`] and all that begins with it.
    pub after: Option<String>,
    /// Names that have this past the prefix are one [`Listed::Prefix`], up to and with it. Empty is none.
    pub delimiter: Option<String>,
    /// Entries at most; never more than [`crate::limits::OBJECT_LIST_MAX`].
    pub max: usize,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly every entry is an object")]
pub enum Listed {
    /// An object.
    Object(Object),
    /// Every name that begins with this.
    Prefix(String),
}

impl Listed {
    /// The name or the prefix: what to go on after.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Object(object) => &object.name,
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// A page of a list, in the order of the names' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ObjectPage {
    /// The entries.
    pub entries: Vec<Listed>,
    /// There are more: ask again after the last of these.
    pub more: bool,
}

/// An object to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Its name.
    pub name: String,
    /// What has to be there.
    pub expect: Expect,
}

/// How an object is copied.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CopyOptions {
    /// What is said of the copy; `None` takes it over.
    pub attributes: Option<Attributes>,
    /// The source has to have this etag.
    pub source_etag: Option<String>,
    /// What has to be there under the new name.
    pub expect: Expect,
}

/// The objects of a node.
///
/// A bucket has to be made before something is put in it: everything that is asked of a bucket that is not there fails with
/// [`crate::Kind::NotFound`]. That an *object* is not there is `None`. Names are checked by [`check_name`].
///
/// The creation and the deletion of an object are events where somebody captures them ([`crate::capture::Source::Object`]),
/// in the same transaction.
pub trait Blobs: Send + Sync + 'static {
    /// Begins an object. Fails early where it can be known that [`ObjectWriter::finish`] would fail.
    fn put(
        &self,
        bucket: &Name,
        name: &str,
        attributes: Attributes,
    ) -> BoxFuture<'_, Result<Box<dyn ObjectWriter>, Failure>>;

    /// Opens an object.
    fn get(&self, bucket: &Name, name: &str) -> BoxFuture<'_, Result<Option<Opened>, Failure>>;

    /// What is said of an object.
    fn head(&self, bucket: &Name, name: &str) -> BoxFuture<'_, Result<Option<Object>, Failure>>;

    /// Deletes up to [`crate::limits::OBJECT_LIST_MAX`] objects in one transaction; resolves once that is durable. Says of
    /// each, in their order, whether it was there, or why it stays: the others are deleted all the same.
    fn delete(&self, bucket: &Name, deletes: Vec<Delete>)
    -> BoxFuture<'_, Result<Vec<Result<bool, Failure>>, Failure>>;

    /// Gives the content of an object another name as well, without copying its bytes; resolves once that is durable. `None`
    /// if there is no such object. Source and target may be the same.
    fn copy(
        &self,
        from: (&Name, &str),
        to: (&Name, &str),
        options: CopyOptions,
    ) -> BoxFuture<'_, Result<Option<Object>, Failure>>;

    /// Gives an object another name in place of its own, without copying its bytes: in one transaction, so that nothing that is
    /// stored meanwhile goes with the old name. Resolves once that is durable. `None` if there is no such object. Where
    /// source and target are the same, nothing changes.
    fn rename(&self, from: (&Name, &str), to: (&Name, &str)) -> BoxFuture<'_, Result<Option<Object>, Failure>>;

    /// A page of the objects of a bucket.
    fn list(&self, bucket: &Name, query: ListQuery) -> BoxFuture<'_, Result<ObjectPage, Failure>>;

    /// Every bucket, by name.
    fn buckets(&self) -> BoxFuture<'_, Result<Vec<Bucket>, Failure>>;

    /// The bucket of this name.
    fn bucket(&self, bucket: &Name) -> BoxFuture<'_, Result<Option<Bucket>, Failure>>;

    /// Makes a bucket; `false` if it is there already. Resolves once it is durable. At most
    /// [`crate::limits::OBJECT_BUCKETS_MAX`].
    fn create_bucket(&self, bucket: &Name) -> BoxFuture<'_, Result<bool, Failure>>;

    /// Deletes an empty bucket, with the uploads that were begun in it; resolves once that is durable. Fails with
    /// [`crate::Kind::Conflict`] if it has objects. `false` if it is not there.
    fn delete_bucket(&self, bucket: &Name) -> BoxFuture<'_, Result<bool, Failure>>;
}
