//! The S3 API of a node: what AWS SDKs speak, over the port [`Multipart`](marram_core::port::blobs::Multipart).
//!
//! The protocol's types, its XML and the signatures are s3s's; everything else is here: listeners with time-outs, access keys,
//! conditions, checksums, lists and parts. Bodies stream both ways and are never gathered. Every request has to be
//! signed (Signature Version 4, in its header or in its URL, or Version 2 in its URL); there is no anonymous access, and names
//! never become paths of files.
//!
//! Addresses are in path style (`http://node:9000/bucket/name`): a node has no domain below which buckets could be.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod body;
mod checksum;
mod chunks;
mod conditions;
mod error;
pub mod limits;
mod listen;
mod lists;
mod meta;
mod multipart;
mod objects;
mod parameters;
mod query;
mod range;
mod service;
mod signed;
mod unsupported;
mod uploads;
mod verified;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use marram_core::port::blobs::Multipart;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access::{AccessKey, Buckets};
pub use limits::Limits;

/// The S3 API, ready to listen.
pub struct Server {
    front: Arc<listen::Front>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("connections", &self.front.tasks.len()).finish_non_exhaustive()
    }
}

impl Server {
    /// The API over `blobs` for whoever has one of `keys`.
    #[must_use]
    pub fn new(limits: Limits, keys: Vec<AccessKey>, blobs: Arc<dyn Multipart>) -> Self {
        let keys = Arc::new(access::Keys::new(keys));
        let mut config = S3Config::default();
        config.xml_max_body_size = limits.xml_bytes;
        // Forms are refused before s3s sees them; it would gather one of anybody's.
        (config.post_object_max_file_size, config.form_max_fields_size) = (0, 0);
        config.presigned_url_max_skew_time_secs = u32::try_from(limits::CLOCK_SKEW.as_secs()).unwrap_or(u32::MAX);
        let mut builder = S3ServiceBuilder::new(service::Service { blobs, keys: Arc::clone(&keys) });
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        builder.set_auth(access::Shared(Arc::clone(&keys)));
        builder.set_access(access::Shared(keys));
        builder.set_validation(access::Names);
        let room = listen::Room::new(limits.connections);
        let (tasks, stop, cut) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let answers = Default::default();
        let front = listen::Front { service: builder.build(), limits, room, tasks, stop, cut, answers };
        Self { front: Arc::new(front) }
    }

    /// Requests that were answered so far, by class of status.
    #[must_use]
    pub fn answers(&self) -> [(&'static str, u64); 4] {
        let count = |class: usize| self.front.answers[class].load(Ordering::Relaxed);
        [("2xx", count(2)), ("3xx", count(3)), ("4xx", count(4)), ("5xx", count(5))]
    }

    /// Connections that are open now, at most [`Limits::connections`].
    #[must_use]
    pub fn connections(&self) -> usize {
        self.front.room.count()
    }

    /// Accepts connections of `listener`, with TLS if that is given. All listeners share one limit.
    pub fn listen(&self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        let accept = listen::accept(Arc::clone(&self.front), listener, tls);
        self.front.tasks.spawn(accept);
    }

    /// Takes no more requests, and lets those in flight finish within `time`; cuts off the rest, which have changed nothing
    /// then unless they were about to be answered.
    pub async fn drain(&self, time: Duration) {
        self.front.stop.cancel();
        self.front.tasks.close();
        if tokio::time::timeout(time, self.front.tasks.wait()).await.is_err() {
            self.front.cut.cancel();
            self.front.tasks.wait().await;
        }
    }
}
