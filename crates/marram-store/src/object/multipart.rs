//! The port [`Multipart`] on this store.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use marram_core::limits::{OBJECT_BYTES_MAX, OBJECT_PARTS_MAX};
use marram_core::port::blobs::{
    Attributes, Finish, Multipart, Object, Part, PartPage, PartWriter, Upload, UploadId, UploadPage, check_name, shown,
};
use marram_core::{Failure, Kind, Name};

use super::intake::{Intake, hex};
use super::parts::{self, NewPart, Which};
use super::{Objects, row};
use crate::StoreError;

struct WritingPart {
    objects: Objects,
    which: Which,
    number: u32,
    intake: Intake,
}

impl PartWriter for WritingPart {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
        self.intake.write(chunk).map(|done| Ok(done?)).boxed()
    }

    fn finish(self: Box<Self>, finish: Finish) -> BoxFuture<'static, Result<Part, Failure>> {
        let Self { objects, which, number, intake } = *self;
        async move {
            let taken = intake.finish(finish.md5).await?;
            let part = NewPart {
                number,
                size: taken.size,
                digest: taken.pin.digest(),
                etag: hex(taken.md5),
                checksum: finish.checksum,
            };
            let gone = format!("the upload of {} is over", shown(&which.name));
            let written = objects.write(move |at| {
                // The pin goes with the result, which is kept until the row is durable, whoever waits for it or does not.
                Ok((parts::put(at, &which, part)?, taken.pin))
            });
            let (part, _pin) = written.await?;
            part.ok_or_else(|| Failure::new(Kind::NotFound, gone))
        }
        .boxed()
    }
}

fn which(bucket: &Name, name: &str, id: &UploadId) -> Which {
    Which { bucket: bucket.clone(), name: name.to_owned(), id: id.clone() }
}

/// 128 random bits: whoever is to go on with an upload has to have been told.
fn draw() -> Result<UploadId, StoreError> {
    let mut bits = [0; 16];
    let drawn = getrandom::fill(&mut bits);
    drawn.map_err(|error| StoreError::Invalid(format!("the system gives no randomness: {error}")))?;
    Ok(UploadId(hex(bits)))
}

impl Multipart for Objects {
    fn begin_upload(
        &self,
        bucket: &Name,
        name: &str,
        attributes: Attributes,
        checksum: String,
    ) -> BoxFuture<'_, Result<UploadId, Failure>> {
        let (bucket, name) = (bucket.clone(), name.to_owned());
        async move {
            check_name(&bucket, &name)?;
            attributes.check()?;
            let id = draw()?;
            let which = which(&bucket, &name, &id);
            self.write(move |at| parts::begin(at, &which, &attributes, &checksum)).await?;
            Ok(id)
        }
        .boxed()
    }

    fn upload(&self, bucket: &Name, name: &str, id: &UploadId) -> BoxFuture<'_, Result<Option<Upload>, Failure>> {
        let which = which(bucket, name, id);
        self.query(move |db| parts::find(db, &which)).map(|found| Ok(found?)).boxed()
    }

    fn put_part(
        &self,
        bucket: &Name,
        name: &str,
        id: &UploadId,
        number: u32,
    ) -> BoxFuture<'_, Result<Option<Box<dyn PartWriter>>, Failure>> {
        let which = which(bucket, name, id);
        async move {
            if !(1..=OBJECT_PARTS_MAX).contains(&number) {
                let message = format!("{number} is not the number of a part: they are 1 to {OBJECT_PARTS_MAX}");
                return Err(Failure::new(Kind::Invalid, message));
            }
            let of = which.clone();
            if self.query(move |db| parts::find(db, &of)).await?.is_none() {
                return Ok(None);
            }
            let intake = Intake::begin(std::sync::Arc::clone(&self.blobs), OBJECT_BYTES_MAX).await?;
            let writing = WritingPart { objects: self.clone(), which, number, intake };
            Ok(Some(Box::new(writing) as Box<dyn PartWriter>))
        }
        .boxed()
    }

    fn complete_upload(
        &self,
        bucket: &Name,
        name: &str,
        id: &UploadId,
        parts: Vec<(u32, String)>,
        finish: Finish,
    ) -> BoxFuture<'_, Result<Option<Object>, Failure>> {
        let which = which(bucket, name, id);
        self.write(move |at| parts::complete(at, &which, &parts, finish)).map(|object| Ok(object?)).boxed()
    }

    fn abort_upload(&self, bucket: &Name, name: &str, id: &UploadId) -> BoxFuture<'_, Result<bool, Failure>> {
        let which = which(bucket, name, id);
        self.free(move |at| parts::abort(at, &which)).map(|gone| Ok(gone?)).boxed()
    }

    fn parts(
        &self,
        bucket: &Name,
        name: &str,
        id: &UploadId,
        after: u32,
        max: usize,
    ) -> BoxFuture<'_, Result<Option<PartPage>, Failure>> {
        let which = which(bucket, name, id);
        self.query(move |db| parts::list(db, &which, after, max)).map(|page| Ok(page?)).boxed()
    }

    fn uploads(
        &self,
        bucket: &Name,
        prefix: &str,
        after: Option<(String, UploadId)>,
        max: usize,
    ) -> BoxFuture<'_, Result<UploadPage, Failure>> {
        let (bucket, prefix) = (bucket.clone(), prefix.to_owned());
        let page = self.query(move |db| {
            row::need_bucket(db, &bucket)?;
            parts::uploads(db, &bucket, &prefix, after.as_ref(), max)
        });
        page.map(|page| Ok(page?)).boxed()
    }
}
