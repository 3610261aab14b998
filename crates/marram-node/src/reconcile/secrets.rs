//! Secrets of apps, as changes of what runs.

use std::sync::Arc;

use marram_core::{Failure, Kind, Name};
use marram_runtime::Verify;
use marram_store::SecretValue;

use super::{Observed, Reconciler};
use crate::Token;
use crate::routes::INGEST_SECRET;

impl Reconciler {
    /// Keeps a secret. If the app is deployed, its functions read the new value from the next request on; fresh code is
    /// not needed for that.
    pub(crate) async fn set_secret(
        self: &Arc<Self>,
        app: Name,
        name: String,
        value: SecretValue,
    ) -> Result<(), Failure> {
        if name == INGEST_SECRET {
            let refused =
                |reason| Failure::new(Kind::Invalid, format!("nobody could publish with this `{name}`: {reason}"));
            Token::new(value.expose()).map_err(refused)?;
        }
        let this = Arc::clone(self);
        self.in_turn(async move {
            this.store.set_secret(&app, &name, value, this.clock.unix_ns()).await?;
            let Some(old) = this.apps.load().get(&app).cloned() else { return Ok(()) };
            // First, whatever comes of the rest: the old one may be known to others.
            this.renew_ingest(&old, &name)?;
            let desired = old.desired.clone();
            if desired.readers_of(&name).is_empty() {
                return Ok(());
            }
            let running = match this.prepare(&desired, Verify::Now).await {
                // What served goes on with the old value; the caller learns that the new one is not in use.
                Err(failure) if old.running.is_ok() => return Err(failure),
                // Of several missing secrets this may be the first: the app goes on waiting for the others.
                running => running,
            };
            let now = this.observed(desired, old.deployed_unix_ns, running);
            this.apply_triggers(&now).await?;
            this.replace(&now)
        })
        .await
    }

    /// Forgets a secret that no deployed function reads. Says whether it was there.
    pub(crate) async fn remove_secret(self: &Arc<Self>, app: Name, name: String) -> Result<bool, Failure> {
        let this = Arc::clone(self);
        self.in_turn(async move {
            let readers = this.apps.load().get(&app).map(|app| app.desired.readers_of(&name)).unwrap_or_default();
            if let Some(reader) = readers.first() {
                let message = format!("function \"{reader}\" of app \"{app}\" reads the secret `{name}`: take it out of its `secrets` and deploy first");
                return Err(Failure::new(Kind::Conflict, message));
            }
            let was_there = this.store.remove_secret(&app, &name).await?;
            if let Some(old) = this.apps.load().get(&app).cloned() {
                this.renew_ingest(&old, &name)?;
            }
            Ok(was_there)
        })
        .await
    }

    /// After a secret has changed: it may be the one that lets events in.
    fn renew_ingest(&self, app: &Observed, changed: &str) -> Result<(), Failure> {
        if changed != INGEST_SECRET {
            return Ok(());
        }
        self.replace(&Arc::new(Observed { ingest: self.ingest(&app.desired), ..Observed::clone(app) }))
    }
}
