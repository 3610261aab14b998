//! Those who watch keys: each sees every change after it is durable, or is told how many it missed.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use marram_core::Name;
use marram_core::port::kv::{KeyChange, Watched};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::StoreError;
use crate::limits::{KV_WATCHED_CHANGES_MAX, KV_WATCHES_MAX};

/// A change and where it happened.
#[derive(Debug)]
struct Announced {
    bucket: Name,
    change: KeyChange,
}

#[derive(Debug)]
pub(super) struct Watches(broadcast::Sender<Arc<Announced>>);

impl Watches {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(KV_WATCHED_CHANGES_MAX))
    }

    /// Whether anybody would hear.
    pub(super) fn any(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Never waits: who is slow misses.
    pub(super) fn announce(&self, bucket: Name, change: KeyChange) {
        // That nobody watches is fine.
        let _ = self.0.send(Arc::new(Announced { bucket, change }));
    }

    pub(super) fn watch(&self, bucket: &Name, prefix: &str) -> Result<BoxStream<'static, Watched>, StoreError> {
        if self.0.receiver_count() >= KV_WATCHES_MAX {
            return Err(StoreError::TooMany(format!("{KV_WATCHES_MAX} watches of keys are open: close one")));
        }
        let state = (self.0.subscribe(), bucket.clone(), prefix.to_owned());
        let watch = futures::stream::unfold(state, |(mut changes, bucket, prefix)| async {
            loop {
                let watched = match changes.recv().await {
                    Ok(announced) if announced.bucket != bucket || !announced.change.key.starts_with(&prefix) => {
                        continue;
                    }
                    Ok(announced) => Watched::Changed(announced.change.clone()),
                    Err(RecvError::Lagged(missed)) => Watched::Missed(missed),
                    Err(RecvError::Closed) => return None,
                };
                return Some((watched, (changes, bucket, prefix)));
            }
        });
        Ok(watch.boxed())
    }
}
