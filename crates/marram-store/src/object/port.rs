//! The port [`Blobs`] on this store.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use marram_core::limits::{OBJECT_BYTES_MAX, OBJECT_LIST_MAX};
use marram_core::port::Blobs;
use marram_core::port::blobs::{
    Attributes, Bucket, CopyOptions, Delete, Finish, ListQuery, Object, ObjectPage, ObjectWriter, Opened, check_name,
};
use marram_core::{Failure, Kind, Name};

use super::intake::{Intake, hex};
use super::write::{self, Deleting, New};
use super::{Objects, row};
use crate::StoreError;

struct Writing {
    objects: Objects,
    bucket: Name,
    name: String,
    attributes: Attributes,
    intake: Intake,
}

impl ObjectWriter for Writing {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
        self.intake.write(chunk).map(|done| Ok(done?)).boxed()
    }

    fn finish(self: Box<Self>, finish: Finish) -> BoxFuture<'static, Result<Object, Failure>> {
        let Self { objects, bucket, name, attributes, intake } = *self;
        let Finish { expect, checksum, md5 } = finish;
        async move {
            let taken = intake.finish(md5).await?;
            let new = New {
                name,
                size: taken.size,
                segments: vec![(taken.pin.digest(), taken.size)],
                etag: hex(taken.md5),
                attributes,
                checksum,
            };
            let written = objects.write(move |at| {
                // The pin goes with the result, which is kept until the row is durable, whoever waits for it or does not.
                Ok((write::put(at, &bucket, new, &expect)?, taken.pin))
            });
            let (object, _pin) = written.await?;
            Ok(object)
        }
        .boxed()
    }
}

impl Blobs for Objects {
    fn put(
        &self,
        bucket: &Name,
        name: &str,
        attributes: Attributes,
    ) -> BoxFuture<'_, Result<Box<dyn ObjectWriter>, Failure>> {
        let (bucket, name) = (bucket.clone(), name.to_owned());
        async move {
            check_name(&bucket, &name)?;
            attributes.check()?;
            let of = bucket.clone();
            self.query(move |db| row::need_bucket(db, &of)).await?;
            let intake = Intake::begin(std::sync::Arc::clone(&self.blobs), OBJECT_BYTES_MAX).await?;
            let writing = Writing { objects: self.clone(), bucket, name, attributes, intake };
            Ok(Box::new(writing) as Box<dyn ObjectWriter>)
        }
        .boxed()
    }

    fn get(&self, bucket: &Name, name: &str) -> BoxFuture<'_, Result<Option<Opened>, Failure>> {
        let (bucket, name) = (bucket.clone(), name.to_owned());
        async move {
            check_name(&bucket, &name)?;
            Ok(self.open(bucket, name).await?)
        }
        .boxed()
    }

    fn head(&self, bucket: &Name, name: &str) -> BoxFuture<'_, Result<Option<Object>, Failure>> {
        let (bucket, name) = (bucket.clone(), name.to_owned());
        async move {
            check_name(&bucket, &name)?;
            Ok(self.find(bucket, name).await?)
        }
        .boxed()
    }

    fn delete(
        &self,
        bucket: &Name,
        deletes: Vec<Delete>,
    ) -> BoxFuture<'_, Result<Vec<Result<bool, Failure>>, Failure>> {
        let bucket = bucket.clone();
        async move {
            if deletes.len() > OBJECT_LIST_MAX {
                let message =
                    format!("{} objects are to be deleted at once, more than {OBJECT_LIST_MAX}", deletes.len());
                return Err(Failure::new(Kind::Invalid, message));
            }
            let deleted = self.free(move |at| {
                row::need_bucket(at.tx, &bucket)?;
                deletes.iter().map(|one| at.tx.part(|_| write::delete(at, &bucket, one))).collect::<Result<Vec<_>, _>>()
            });
            Ok(deleted.await?.into_iter().map(|one| one.map_err(Failure::from)).collect())
        }
        .boxed()
    }

    fn copy(
        &self,
        from: (&Name, &str),
        to: (&Name, &str),
        options: CopyOptions,
    ) -> BoxFuture<'_, Result<Option<Object>, Failure>> {
        let (from, to) = ((from.0.clone(), from.1.to_owned()), (to.0.clone(), to.1.to_owned()));
        async move {
            check_name(&from.0, &from.1)?;
            check_name(&to.0, &to.1)?;
            options.attributes.iter().try_for_each(Attributes::check)?;
            let copied = self.write(move |at| write::copy(at, (&from.0, &from.1), (&to.0, &to.1), options));
            Ok(copied.await?)
        }
        .boxed()
    }

    fn rename(&self, from: (&Name, &str), to: (&Name, &str)) -> BoxFuture<'_, Result<Option<Object>, Failure>> {
        let (from, to) = ((from.0.clone(), from.1.to_owned()), (to.0.clone(), to.1.to_owned()));
        async move {
            check_name(&from.0, &from.1)?;
            check_name(&to.0, &to.1)?;
            let renamed = self.write(move |at| write::rename(at, (&from.0, &from.1), (&to.0, &to.1)));
            Ok(renamed.await?)
        }
        .boxed()
    }

    fn list(&self, bucket: &Name, query: ListQuery) -> BoxFuture<'_, Result<ObjectPage, Failure>> {
        let bucket = bucket.clone();
        let page = self.query(move |db| {
            row::need_bucket(db, &bucket)?;
            row::list(db, &bucket, &query)
        });
        page.map(|page| Ok(page?)).boxed()
    }

    fn buckets(&self) -> BoxFuture<'_, Result<Vec<Bucket>, Failure>> {
        self.query(row::buckets).map(|buckets| Ok(buckets?)).boxed()
    }

    fn bucket(&self, bucket: &Name) -> BoxFuture<'_, Result<Option<Bucket>, Failure>> {
        let bucket = bucket.clone();
        self.query(move |db| row::bucket(db, &bucket)).map(|bucket| Ok(bucket?)).boxed()
    }

    fn create_bucket(&self, bucket: &Name) -> BoxFuture<'_, Result<bool, Failure>> {
        let bucket = bucket.clone();
        self.write(move |at| write::create_bucket(at, &bucket)).map(|made| Ok(made?)).boxed()
    }

    fn delete_bucket(&self, bucket: &Name) -> BoxFuture<'_, Result<bool, Failure>> {
        let bucket = bucket.clone();
        async move {
            loop {
                let of = bucket.clone();
                match self.free(move |at| write::delete_bucket(at.tx, &of)).await {
                    Ok(Deleting::On) => {}
                    Ok(Deleting::Absent) => return Ok(false),
                    Ok(Deleting::Done) => return Ok(true),
                    Err(error) => return Err(StoreError::into(error)),
                }
            }
        }
        .boxed()
    }
}
