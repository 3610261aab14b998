//! What is deployed: apps, their revisions, and which one is current.

use std::collections::BTreeMap;
use std::sync::Arc;

use marram_core::{Digest, Name};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{BlobPin, Blobs, Store, StoreError, Tx};

/// What [`Store::deploy`] makes current.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The app.
    pub app: Name,
    /// Digest of manifest and components.
    pub revision: Digest,
    /// The manifest's text.
    pub manifest: String,
    /// Each function's component, as a blob that is here already.
    pub components: BTreeMap<Name, Digest>,
    /// What these components are, in the words of whoever deploys; kept with them, and not part of their identity.
    pub kinds: BTreeMap<Name, String>,
    /// Nanoseconds since the Unix epoch.
    pub at_unix_ns: u64,
}

/// What a deploy or a rollback did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// Counts the changes of what is deployed on this node; never goes down.
    pub generation: u64,
    /// What was current before.
    pub previous: Option<Digest>,
    /// Revisions that are no longer kept.
    pub dropped: Vec<Digest>,
}

/// What [`Store::remove`] removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The node's generation after it.
    pub generation: u64,
    /// The app's revisions.
    pub revisions: usize,
    /// The app's secrets, which go with it.
    pub secrets: usize,
}

/// A deployed app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: Name,
    /// The node's generation when this app last changed.
    pub generation: u64,
    /// The revision that serves.
    pub current: Revision,
}

/// A revision with everything needed to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The app.
    pub app: Name,
    /// Digest of manifest and components.
    pub digest: Digest,
    /// The node's generation when it was last deployed.
    pub generation: u64,
    /// When that was: nanoseconds since the Unix epoch.
    pub deployed_unix_ns: u64,
    /// The manifest's text.
    pub manifest: String,
    /// Each function's component.
    pub components: BTreeMap<Name, Digest>,
    /// What these are, as far as it was said when they were deployed.
    pub kinds: BTreeMap<Name, String>,
}

/// A revision in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionSummary {
    /// Digest of manifest and components.
    pub digest: Digest,
    /// The node's generation when it was last deployed.
    pub generation: u64,
    /// When that was: nanoseconds since the Unix epoch.
    pub deployed_unix_ns: u64,
    /// Whether it is the one that serves.
    pub current: bool,
}

impl Store {
    /// Makes a revision current, durably, or changes nothing. Its components must be here as blobs. Older revisions past
    /// the number that is kept are dropped.
    pub async fn deploy(&self, deployment: Deployment) -> Result<Deployed, StoreError> {
        // The pins travel with the write, so that a caller that goes away does not free the blobs half way.
        let mut pins = Vec::with_capacity(deployment.components.len());
        for (function, digest) in &deployment.components {
            let missing = || StoreError::MissingBlob { function: function.clone(), digest: *digest };
            pins.push(self.blobs().pin(*digest)?.ok_or_else(missing)?);
        }
        let (kept, blobs) = (self.revisions_kept, Arc::clone(self.blobs()));
        let write = move |db: &Tx| {
            let (deployed, let_go) = deploy(db, &deployment, kept)?;
            pins.extend(renewed(&blobs, &let_go));
            Ok((deployed, pins))
        };
        let (deployed, _pins) = self.writer().write(write).await?;
        Ok(deployed)
    }

    /// Makes a kept revision current again, durably. `revision` comes from [`Store::rollback_target`].
    pub async fn activate(&self, app: &Name, revision: Digest) -> Result<Deployed, StoreError> {
        let app = app.clone();
        self.writer()
            .write(move |db| {
                let previous = current(db, &app)?.ok_or_else(|| StoreError::NoApp(app.clone()))?;
                revision_row(db, &app, &revision)?;
                let generation = set_current(db, &app, &revision)?;
                Ok(Deployed { generation, previous: Some(previous), dropped: Vec::new() })
            })
            .await
    }

    /// Removes an app with its revisions and secrets, durably. Its blobs go with a [`Store::collect_blobs`], after their
    /// time of grace.
    pub async fn remove(&self, app: &Name) -> Result<Removed, StoreError> {
        let (app, blobs) = (app.clone(), Arc::clone(self.blobs()));
        let write = move |db: &Tx| {
            current(db, &app)?.ok_or_else(|| StoreError::NoApp(app.clone()))?;
            db.prepare_cached("DELETE FROM app WHERE name = ?")?.execute([app.as_str()])?;
            let (revisions, let_go) = drop_old(db, &app, 0)?;
            let secrets = db.prepare_cached("DELETE FROM secret WHERE app = ?")?.execute([app.as_str()])?;
            let removed = Removed { generation: next_generation(db)?, revisions: revisions.len(), secrets };
            Ok((removed, renewed(&blobs, &let_go)))
        };
        let (removed, _pins) = self.writer().free(write).await?;
        Ok(removed)
    }

    /// Every app with its current revision, by name.
    pub fn apps(&self) -> Result<Vec<App>, StoreError> {
        self.readers.read(|db| {
            let mut query = db.prepare_cached("SELECT name FROM app ORDER BY name")?;
            let names = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            names.iter().map(|name| app(db, &stored_name(name)?)).collect()
        })
    }

    /// One app with its current revision.
    pub fn app(&self, name: &Name) -> Result<App, StoreError> {
        self.readers.read(|db| app(db, name))
    }

    /// The kept revisions of an app, the latest deployed first.
    pub fn revisions(&self, name: &Name) -> Result<Vec<RevisionSummary>, StoreError> {
        self.readers.read(|db| {
            let current = current(db, name)?.ok_or_else(|| StoreError::NoApp(name.clone()))?;
            summaries(db, name, &current)
        })
    }

    /// One kept revision.
    pub fn revision(&self, app: &Name, digest: &Digest) -> Result<Revision, StoreError> {
        self.readers.read(|db| revision_row(db, app, digest))
    }

    /// What a rollback leads to: the revision whose digest starts with `wanted` (hex, with or without `sha256:`), or else the
    /// one that was deployed before the current one. Rolling back again goes back further.
    pub fn rollback_target(&self, app: &Name, wanted: Option<&str>) -> Result<Revision, StoreError> {
        self.readers.read(|db| {
            let current = current(db, app)?.ok_or_else(|| StoreError::NoApp(app.clone()))?;
            let all = summaries(db, app, &current)?;
            let found = match wanted {
                Some(wanted) => Some(one_of(&all, wanted, app)?),
                None => all.iter().skip_while(|revision| !revision.current).nth(1),
            };
            let found = found.ok_or_else(|| StoreError::NothingEarlier(app.clone()))?;
            revision_row(db, app, &found.digest)
        })
    }

    /// The node's generation: how often what is deployed has changed.
    pub fn generation(&self) -> Result<u64, StoreError> {
        self.readers.read(|db| Ok(db.prepare_cached("SELECT generation FROM node")?.query_row([], |row| row.get(0))?))
    }
}

/// Makes it current. Says also which components belonged to revisions that were dropped for it.
fn deploy(db: &Connection, new: &Deployment, kept: usize) -> Result<(Deployed, Vec<Digest>), StoreError> {
    let (app, digest) = (new.app.as_str(), new.revision.as_bytes());
    let previous = current(db, &new.app)?;
    let generation = next_generation(db)?;
    match revision_row(db, &new.app, &new.revision) {
        Ok(old) if old.manifest == new.manifest && old.components == new.components => {
            let sql = "UPDATE revision SET generation = ?, deployed_unix_ns = ? WHERE app = ? AND digest = ?";
            db.prepare_cached(sql)?.execute(params![generation, new.at_unix_ns, app, digest])?;
            let sql = "UPDATE component SET kind = ? WHERE app = ? AND revision = ? AND function = ?";
            let mut update = db.prepare_cached(sql)?;
            for (function, kind) in &new.kinds {
                update.execute(params![kind, app, digest, function.as_str()])?;
            }
        }
        Ok(_) => return Err(StoreError::OtherContent { app: new.app.clone(), revision: new.revision }),
        Err(StoreError::NoRevision { .. }) => {
            let sql =
                "INSERT INTO revision (app, digest, generation, deployed_unix_ns, manifest) VALUES (?, ?, ?, ?, ?)";
            db.prepare_cached(sql)?.execute(params![app, digest, generation, new.at_unix_ns, new.manifest])?;
            let sql = "INSERT INTO component (app, revision, function, digest, kind) VALUES (?, ?, ?, ?, ?)";
            let mut insert = db.prepare_cached(sql)?;
            for (function, component) in &new.components {
                let kind = new.kinds.get(function);
                insert.execute(params![app, digest, function.as_str(), component.as_bytes(), kind])?;
            }
        }
        Err(error) => return Err(error),
    }
    write_current(db, &new.app, &new.revision, generation)?;
    let (dropped, let_go) = drop_old(db, &new.app, kept)?;
    Ok((Deployed { generation, previous, dropped }, let_go))
}

/// Drops all revisions but the `kept` latest deployed; the current one is the latest here. Says which, and what they were
/// made of.
fn drop_old(db: &Connection, app: &Name, kept: usize) -> Result<(Vec<Digest>, Vec<Digest>), StoreError> {
    const OLD: &str = "SELECT digest FROM revision WHERE app = ?1 ORDER BY generation DESC LIMIT -1 OFFSET ?2";
    let digests = |sql: &str| {
        let mut query = db.prepare_cached(sql)?;
        let rows = query.query_map(params![app.as_str(), kept], |row| digest_at(row, 0))?;
        rows.collect::<Result<Vec<_>, _>>()
    };
    let let_go = digests(&format!("SELECT DISTINCT digest FROM component WHERE app = ?1 AND revision IN ({OLD})"))?;
    let dropped = digests(&format!("DELETE FROM revision WHERE app = ?1 AND digest IN ({OLD}) RETURNING digest"))?;
    Ok((dropped, let_go))
}

/// What nothing refers to any more has its time of grace all the same: requests may still be running on it, or waiting to.
fn renewed(blobs: &Arc<Blobs>, components: &[Digest]) -> Vec<BlobPin> {
    // One that is not there, or not readable, has nothing to lose.
    components.iter().filter_map(|digest| blobs.pin(*digest).ok().flatten()).collect()
}

fn next_generation(db: &Connection) -> Result<u64, StoreError> {
    let sql = "UPDATE node SET generation = generation + 1 RETURNING generation";
    Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

fn set_current(db: &Connection, app: &Name, revision: &Digest) -> Result<u64, StoreError> {
    let generation = next_generation(db)?;
    write_current(db, app, revision, generation)?;
    Ok(generation)
}

fn write_current(db: &Connection, app: &Name, revision: &Digest, generation: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO app (name, current, generation) VALUES (?1, ?2, ?3)
        ON CONFLICT (name) DO UPDATE SET current = ?2, generation = ?3";
    db.prepare_cached(sql)?.execute(params![app.as_str(), revision.as_bytes(), generation])?;
    Ok(())
}

fn current(db: &Connection, app: &Name) -> Result<Option<Digest>, StoreError> {
    let mut query = db.prepare_cached("SELECT current FROM app WHERE name = ?")?;
    Ok(query.query_row([app.as_str()], |row| digest_at(row, 0)).optional()?)
}

fn app(db: &Connection, name: &Name) -> Result<App, StoreError> {
    let mut query = db.prepare_cached("SELECT current, generation FROM app WHERE name = ?")?;
    let row = query.query_row([name.as_str()], |row| Ok((digest_at(row, 0)?, row.get(1)?))).optional()?;
    let (current, generation) = row.ok_or_else(|| StoreError::NoApp(name.clone()))?;
    Ok(App { name: name.clone(), generation, current: revision_row(db, name, &current)? })
}

fn revision_row(db: &Connection, app: &Name, digest: &Digest) -> Result<Revision, StoreError> {
    let sql = "SELECT generation, deployed_unix_ns, manifest FROM revision WHERE app = ? AND digest = ?";
    let mut query = db.prepare_cached(sql)?;
    let row =
        query.query_row(params![app.as_str(), digest.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let missing = || StoreError::NoRevision { app: app.clone(), revision: *digest };
    let (generation, deployed_unix_ns, manifest) = row.optional()?.ok_or_else(missing)?;
    let mut query = db.prepare_cached("SELECT function, digest, kind FROM component WHERE app = ? AND revision = ?")?;
    let rows = query.query_map(params![app.as_str(), digest.as_bytes()], |row| {
        Ok((row.get::<_, String>(0)?, digest_at(row, 1)?, row.get::<_, Option<String>>(2)?))
    })?;
    let (mut components, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        let (function, component, kind) = row?;
        let function = stored_name(&function)?;
        kinds.extend(kind.map(|kind| (function.clone(), kind)));
        components.insert(function, component);
    }
    Ok(Revision { app: app.clone(), digest: *digest, generation, deployed_unix_ns, manifest, components, kinds })
}

fn summaries(db: &Connection, app: &Name, current: &Digest) -> Result<Vec<RevisionSummary>, StoreError> {
    let sql = "SELECT digest, generation, deployed_unix_ns FROM revision WHERE app = ? ORDER BY generation DESC";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map([app.as_str()], |row| {
        let digest = digest_at(row, 0)?;
        let current = digest == *current;
        Ok(RevisionSummary { digest, generation: row.get(1)?, deployed_unix_ns: row.get(2)?, current })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn one_of<'a>(all: &'a [RevisionSummary], wanted: &str, app: &Name) -> Result<&'a RevisionSummary, StoreError> {
    let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let mut matching = all.iter().filter(|revision| !hex.is_empty() && revision.digest.hex().starts_with(hex));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(StoreError::Invalid(format!("several revisions of \"{app}\" start with {hex:?}: write more digits")))
        }
        (None, _) => Err(StoreError::Invalid(format!(
            "app \"{app}\" has no kept revision {wanted:?}: `marram apps {app}` lists them"
        ))),
    }
}

fn digest_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get(column).map(Digest::from_bytes)
}

/// What comes from the disk is checked like what comes from the wire.
fn stored_name(text: &str) -> Result<Name, StoreError> {
    Name::new(text).map_err(|error| StoreError::Invalid(format!("the database is damaged: {error}")))
}
