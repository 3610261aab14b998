//! Brings back what was deployed when the node stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use marram_core::{Digest, Failure, Kind, Name};
use marram_runtime::{App, Kind as FunctionKind, Verify};
use marram_store::Store;
use marram_trigger::Triggers;

use super::{Apps, Reconciler, table};
use crate::desired::Desired;

/// An app as it was deployed.
pub(crate) struct Stored {
    name: Name,
    digest: Digest,
    deployed_unix_ns: u64,
    /// Or why its manifest does not read: another version wrote it, say.
    desired: Result<Desired, Failure>,
}

/// What was deployed when the node stopped. All of its events are captured from now on: to be called before anything takes
/// messages, keys or objects from anybody, because what is acknowledged before that starts no function.
pub(crate) async fn stored(store: &Arc<Store>, triggers: &Triggers) -> Result<Vec<Stored>, Failure> {
    let reading = Arc::clone(store);
    let apps = tokio::task::spawn_blocking(move || reading.apps()).await;
    let apps =
        apps.map_err(|error| Failure::new(Kind::Internal, "reading what is deployed failed").because(error))??;
    let apps: Vec<_> = apps
        .into_iter()
        .map(|app| {
            let desired = Desired::new(&app.current.manifest, app.current.components)
                .map(|desired| Desired { kinds: known_kinds(&app.current.kinds), ..desired });
            let (digest, deployed_unix_ns) = (app.current.digest, app.current.deployed_unix_ns);
            Stored { name: app.name, digest, deployed_unix_ns, desired }
        })
        .collect();
    apps.iter().filter_map(|app| app.desired.as_ref().ok()).for_each(|desired| triggers.expect(&desired.manifest));
    store.set_captures(triggers.captures());
    Ok(apps)
}

impl Reconciler {
    /// Brings these apps back. One that fails is kept as failed; the others do not suffer.
    pub(crate) async fn boot(&self, stored: Vec<Stored>) -> Result<(), Failure> {
        let (mut apps, mut manifests) = (Apps::new(), BTreeMap::new());
        for Stored { name, digest, deployed_unix_ns, desired } in stored {
            let (desired, running) = match desired {
                Ok(desired) => {
                    let running = self.start(&desired, &apps).await;
                    manifests.insert(name.clone(), Some(Arc::clone(&desired.manifest)));
                    (desired, running)
                }
                // It is shown under its name, and has no routes that are known.
                Err(failure) => {
                    manifests.insert(name.clone(), None);
                    (Desired::unreadable(name.clone(), digest), Err(failure))
                }
            };
            if let Err(failure) = &running {
                tracing::error!(app = %name, detail = failure.detail(), "the app cannot be started: {}", failure.message());
            }
            let observed = self.observed(desired, deployed_unix_ns, running);
            if let Err(failure) = self.apply_triggers(&observed).await {
                tracing::error!(app = %name, detail = failure.detail(), "the app's triggers cannot be started: {}", failure.message());
            }
            apps.insert(name, observed);
        }
        // What changes that were cut short have left.
        self.triggers.forget_strays(&manifests).await;
        let table = table(&apps)?;
        self.show(apps, table);
        Ok(())
    }

    /// One app at boot, beside those that are there already.
    async fn start(&self, desired: &Desired, others: &Apps) -> Result<App, Failure> {
        others.values().try_for_each(|other| desired.check_routes_against(&other.desired))?;
        self.prepare(desired, Verify::Later).await
    }
}

/// The other way round. What another version wrote and this one does not know is looked at again.
fn known_kinds(stored: &BTreeMap<Name, String>) -> BTreeMap<Name, FunctionKind> {
    stored.iter().filter_map(|(name, label)| Some((name.clone(), FunctionKind::of_label(label)?))).collect()
}
