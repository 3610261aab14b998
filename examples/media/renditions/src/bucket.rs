//! What of `wasi:blobstore` this function needs. Errors are for people.

use crate::wasi::blobstore::blobstore;
use crate::wasi::blobstore::container::Container;
use crate::wasi::blobstore::types::{IncomingValue, OutgoingValue};
use crate::wasi::io::streams::StreamError;

/// How much is read at a time.
const READ_BYTES: u64 = 64 << 10;
/// WASI lets one blocking write carry this many bytes.
const WRITE_BYTES_MAX: usize = 4096;

pub struct Bucket(Container);

/// An object that is there, and not read yet.
pub struct Object(IncomingValue);

impl Bucket {
    pub fn open(name: &str) -> Result<Self, String> {
        Ok(Self(blobstore::get_container(name)?))
    }

    pub fn find(&self, name: &str) -> Result<Option<Object>, String> {
        match self.0.has_object(name)? {
            true => Ok(Some(Object(self.0.get_data(name, 0, u64::MAX)?))),
            false => Ok(None),
        }
    }

    /// Stores an object; it is there as a whole when this returns, and not at all before.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let value = OutgoingValue::new_outgoing_value();
        self.0.write_data(name, &value)?;
        let body = value.outgoing_value_write_body().map_err(|()| "an object has no body")?;
        for chunk in bytes.chunks(WRITE_BYTES_MAX) {
            body.blocking_write_and_flush(chunk).map_err(text)?;
        }
        drop(body);
        OutgoingValue::finish(value)
    }

    /// Deletes those of the objects that are there.
    pub fn delete(&self, names: &[String]) -> Result<(), String> {
        self.0.delete_objects(names)
    }
}

impl Object {
    /// In bytes.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// Reads it as a stream, so that it is here once.
    pub fn read(self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(self.size() as usize);
        let stream = IncomingValue::incoming_value_consume_async(self.0)?;
        loop {
            match stream.blocking_read(READ_BYTES) {
                Ok(chunk) => bytes.extend(chunk),
                Err(StreamError::Closed) => return Ok(bytes),
                Err(error) => return Err(text(error)),
            }
        }
    }
}

fn text(error: StreamError) -> String {
    match error {
        StreamError::LastOperationFailed(error) => error.to_debug_string(),
        StreamError::Closed => "it was closed".into(),
    }
}
