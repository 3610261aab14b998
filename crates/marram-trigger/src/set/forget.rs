//! What nobody wants any more: consumers, how far schedules are, and limits of streams.
//!
//! Forgetting is for good, so it comes after the change that it belongs to is kept. It never fails a change: what is left
//! over is removed with the next one, or when the node starts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use marram_core::Name;
use marram_core::manifest::{Function, Manifest};
use marram_core::port::streams::StreamState;
use marram_core::stream::{ConsumerId, StreamName};

use super::Triggers;
use crate::{Wiring, schedule};

impl Triggers {
    /// Stops the triggers of an app and forgets what they were owed. Its streams stay, with what they keep.
    pub async fn remove(&self, app: &Name) {
        let _one = self.changes.lock().await;
        self.change(app, BTreeMap::new()).await;
        self.apps().remove(app);
        let prefix = prefix(app);
        self.forget_those(|id| id.0.starts_with(&prefix)).await;
        self.release_streams().await;
    }

    /// Forgets what triggers of an app were owed that this manifest of it does not have. To be called once the manifest is
    /// kept: what is forgotten does not come back.
    pub async fn forget_unwanted(&self, manifest: &Manifest) {
        let _one = self.changes.lock().await;
        let (prefix, wanted) = (prefix(&manifest.app.name), consumers(manifest));
        self.forget_those(|id| id.0.starts_with(&prefix) && !wanted.contains(id)).await;
        self.release_streams().await;
    }

    /// The same for all apps together, and for apps that are no more: what was not forgotten when it should have been,
    /// because the node ended or the disk failed. An app without a manifest keeps what it has: nobody knows what that is
    /// for.
    pub async fn forget_strays(&self, apps: &BTreeMap<Name, Option<Arc<Manifest>>>) {
        let _one = self.changes.lock().await;
        self.knows_all.store(apps.values().all(Option::is_some), Ordering::Relaxed);
        let wanted: HashSet<_> = apps.values().flatten().flat_map(|manifest| consumers(manifest)).collect();
        self.forget_those(|id| {
            // Whoever is not named as triggers are is not theirs to forget.
            let Some(Ok(app)) = id.0.split_once('/').map(|(app, _)| Name::new(app)) else { return false };
            apps.get(&app).is_none_or(Option::is_some) && !wanted.contains(id)
        })
        .await;
        self.release_streams().await;
    }

    /// Streams that no app declares any more have no app's limits any more ([`StreamPolicy::released`]). While an app has no
    /// manifest that can be read, nobody knows what it declares, and all stay as they are.
    pub(super) async fn release_streams(&self) {
        if !self.knows_all.load(Ordering::Relaxed) {
            return;
        }
        let Some(states) = self.list().await else { return };
        let declared: HashSet<_> = self.apps().values().flat_map(|app| app.streams.keys().cloned()).collect();
        for state in states.into_iter().filter(|state| !declared.contains(&state.name)) {
            let released = state.policy.released();
            if released == state.policy {
                continue;
            }
            if let Err(failure) = self.ports.streams.declare(&state.name, released).await {
                tracing::warn!(stream = %state.name, ?failure, "a stream keeps the limits of an app that no longer declares it");
            }
        }
    }

    /// Forgets every consumer of the node that is `unwanted`.
    async fn forget_those(&self, unwanted: impl Fn(&ConsumerId) -> bool) {
        let Some(states) = self.list().await else { return };
        let mut found = Vec::new();
        for state in states {
            let ids = state.consumers.into_iter().map(|consumer| consumer.id).filter(|id| unwanted(id));
            found.extend(ids.map(|id| (state.name.clone(), id)));
        }
        self.forget(&found).await;
    }

    /// Every stream, or a line in the log.
    async fn list(&self) -> Option<Vec<StreamState>> {
        let streams = Arc::clone(&self.ports.streams);
        match tokio::task::spawn_blocking(move || streams.list()).await {
            Ok(Ok(states)) => return Some(states),
            Ok(Err(failure)) => tracing::warn!(?failure, "cannot look for what is no more"),
            Err(error) => tracing::error!(%error, "listing the streams panicked"),
        }
        None
    }

    /// Removes consumers, and with those of schedules how far they are. What fails is made up for by the next start of the
    /// node, if not before: the consumer goes last, so that it leads to what is left.
    pub(super) async fn forget(&self, consumers: &[(StreamName, ConsumerId)]) {
        for (stream, id) in consumers {
            if let Some(subject) = schedule_of(id)
                && let Err(failure) = schedule::forget(&*self.ports.kv, &subject).await
            {
                tracing::warn!(consumer = &*id.0, ?failure, "cannot forget a schedule that is no more");
                continue;
            }
            if let Err(failure) = self.ports.streams.remove_consumer(stream, id).await {
                tracing::warn!(consumer = &*id.0, ?failure, "cannot remove a consumer that is no more");
            }
        }
    }
}

/// With what the names of an app's consumers begin.
fn prefix(app: &Name) -> String {
    format!("{app}/")
}

/// The consumers that a manifest has.
fn consumers(manifest: &Manifest) -> HashSet<ConsumerId> {
    let app = &manifest.app.name;
    let of = |function: &Function| {
        let wirings = function.events().filter_map(|on| Wiring::of(app, &function.name, on));
        wirings.map(|wiring| wiring.id).collect::<Vec<_>>()
    };
    manifest.functions.iter().flat_map(of).collect()
}

/// The subject of the schedule that a consumer is for.
fn schedule_of(id: &ConsumerId) -> Option<String> {
    let mut parts = id.0.splitn(3, '/');
    let (app, function, source) = (parts.next()?, parts.next()?, parts.next()?);
    Some(format!("{app}/{function}/{}", source.strip_prefix("schedule:")?))
}
