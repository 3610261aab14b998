//! Secrets: sealed on the disk, opened only for the function that is about to run.
//!
//! A value is sealed with XChaCha20-Poly1305 under `secret.key` (draft-irtf-cfrg-xchacha-03), with a random nonce. App and
//! name are the associated data, so that one row's value cannot be put into another row.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use marram_core::Name;
use marram_core::limits::{ENTRIES_MAX, VALUE_BYTES_MAX};
use rusqlite::params;
use zeroize::Zeroizing;

use crate::key::Key;
use crate::{Store, StoreError};

/// The value of a secret. It is never shown, not cloned, and wiped when dropped.
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// The value itself, for the one place that hands it to the function.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretValue {
    fn from(value: String) -> Self {
        Self(Zeroizing::new(value))
    }
}

impl From<&str> for SecretValue {
    fn from(value: &str) -> Self {
        value.to_owned().into()
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(***)")
    }
}

impl fmt::Display for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A secret in a list: everything but its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    /// Its name.
    pub name: String,
    /// When it was last set: nanoseconds since the Unix epoch.
    pub set_unix_ns: u64,
}

/// Seals and opens under the node's key.
pub(crate) struct Sealer(XChaCha20Poly1305);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    pub(crate) fn new(key: &Key) -> Self {
        Self(XChaCha20Poly1305::new(key.as_slice().into()))
    }

    fn seal(&self, app: &Name, name: &str, value: &SecretValue) -> Result<([u8; 24], Vec<u8>), StoreError> {
        let mut nonce = [0; 24];
        let failed =
            |error: &dyn fmt::Display| StoreError::Invalid(format!("secret \"{name}\" cannot be sealed: {error}"));
        // 192 random bits: no two values of a node ever share a nonce.
        getrandom::fill(&mut nonce).map_err(|error| failed(&error))?;
        let payload = Payload { msg: value.expose().as_bytes(), aad: &associated(app, name) };
        let sealed = self.0.encrypt(XNonce::from_slice(&nonce), payload).map_err(|error| failed(&error))?;
        Ok((nonce, sealed))
    }

    pub(crate) fn open(
        &self,
        app: &Name,
        name: &str,
        nonce: &[u8; 24],
        sealed: &[u8],
    ) -> Result<SecretValue, StoreError> {
        let unsealable = || StoreError::Unsealable { app: app.clone(), name: name.into() };
        let payload = Payload { msg: sealed, aad: &associated(app, name) };
        let opened = self.0.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| unsealable())?;
        match String::from_utf8(opened) {
            Ok(value) => Ok(value.into()),
            Err(error) => {
                drop(Zeroizing::new(error.into_bytes()));
                Err(unsealable())
            }
        }
    }
}

/// Purpose, app and name, each ended by a byte that a name cannot hold.
fn associated(app: &Name, name: &str) -> Vec<u8> {
    format!("marram-secret-v1\0{app}\0{name}\0").into_bytes()
}

impl Store {
    /// Sets a secret of an app, durably. The app need not be deployed yet.
    pub async fn set_secret(
        &self,
        app: &Name,
        name: &str,
        value: SecretValue,
        at_unix_ns: u64,
    ) -> Result<(), StoreError> {
        check_name(name)?;
        let length = value.expose().len();
        if length > VALUE_BYTES_MAX {
            return Err(StoreError::Invalid(format!(
                "the value of secret \"{name}\" has {length} bytes, more than {VALUE_BYTES_MAX}"
            )));
        }
        let (nonce, sealed) = self.sealer.seal(app, name, &value)?;
        drop(value);
        let (app, name) = (app.clone(), name.to_owned());
        self.writer()
            .write(move |db| {
                let others: usize = db
                    .prepare_cached("SELECT count(*) FROM secret WHERE app = ? AND name <> ?")?
                    .query_row([app.as_str(), &name], |row| row.get(0))?;
                if others >= ENTRIES_MAX {
                    return Err(StoreError::Invalid(format!(
                        "app \"{app}\" has {others} secrets already, and {ENTRIES_MAX} is the most: remove one"
                    )));
                }
                let sql = "INSERT INTO secret (app, name, nonce, sealed, set_unix_ns) VALUES (?1, ?2, ?3, ?4, ?5)
                    ON CONFLICT (app, name) DO UPDATE SET nonce = ?3, sealed = ?4, set_unix_ns = ?5";
                db.prepare_cached(sql)?.execute(params![app.as_str(), name, nonce, sealed, at_unix_ns])?;
                Ok(())
            })
            .await
    }

    /// Removes a secret, durably, and says whether it was there.
    pub async fn remove_secret(&self, app: &Name, name: &str) -> Result<bool, StoreError> {
        let (app, name) = (app.clone(), name.to_owned());
        self.writer()
            .free(move |db| {
                let mut delete = db.prepare_cached("DELETE FROM secret WHERE app = ? AND name = ?")?;
                Ok(delete.execute([app.as_str(), &name])? == 1)
            })
            .await
    }

    /// The names of an app's secrets.
    pub fn secret_names(&self, app: &Name) -> Result<Vec<SecretName>, StoreError> {
        self.readers.read(|db| {
            let mut query = db.prepare_cached("SELECT name, set_unix_ns FROM secret WHERE app = ? ORDER BY name")?;
            let rows = query
                .query_map([app.as_str()], |row| Ok(SecretName { name: row.get(0)?, set_unix_ns: row.get(1)? }))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Opens every secret of an app. One that does not open fails the call by its name.
    pub fn secrets(&self, app: &Name) -> Result<BTreeMap<String, SecretValue>, StoreError> {
        self.readers.read(|db| {
            let mut query = db.prepare_cached("SELECT name, nonce, sealed FROM secret WHERE app = ?")?;
            let mut rows = query.query([app.as_str()])?;
            let mut values = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let (name, nonce, sealed): (String, [u8; 24], Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let value = self.sealer.open(app, &name, &nonce, &sealed)?;
                values.insert(name, value);
            }
            Ok(values)
        })
    }
}

/// The manifest's rule for keys: what an environment variable and a `wasi:config` key both take.
fn check_name(name: &str) -> Result<(), StoreError> {
    let valid =
        (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let shown = || name.chars().take(40).collect::<String>();
    if valid {
        Ok(())
    } else {
        Err(StoreError::Invalid(format!(
            "{:?} is not the name of a secret: use letters, digits, '_', '-' and '.', at most 128",
            shown()
        )))
    }
}
