//! Who may connect, and what they may do there.
//!
//! Nobody may anything that is not said here. A client is known by its certificate, by user and password, or, where that is
//! allowed, by nothing.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::{Argon2, PasswordHash, PasswordHasher as _, PasswordVerifier as _};
use marram_core::port::Entropy;
use tokio::sync::Semaphore;

use crate::limits::{PASSWORD_CACHE_MAX, PASSWORD_CHECKS_MAX};
use crate::topic;

/// Checks of one address that may wait for their turn; more are refused at once.
const CHECKS_PER_ADDRESS_MAX: usize = 4;

/// Topic filters that somebody may publish to and subscribe to. `%c` is the client identifier, `%u` the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// A message's topic has to match one of these.
    pub publish: Vec<String>,
    /// One of these has to cover a subscription's filter.
    pub subscribe: Vec<String>,
}

impl Permissions {
    /// Every topic but the server's own.
    #[must_use]
    pub fn all() -> Self {
        Self { publish: vec!["#".into()], subscribe: vec!["#".into()] }
    }
}

/// A user with a password.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password's hash as a PHC string of argon2id: [`hash_password`] makes one.
    pub password_hash: String,
    /// Client identifiers that this user may use, with `%u` for the name; any if there are none.
    pub client_ids: Vec<String>,
    /// What the user may do.
    pub permissions: Permissions,
}

/// Who may connect.
#[derive(Clone, Debug, Default)]
pub struct AccessConfig {
    /// Users with passwords.
    pub users: Vec<User>,
    /// What a client with a certificate may do. Its client identifier has to be the certificate's common name or one of
    /// its alternative names. `None`: certificates say nothing, and such a client needs a password as well.
    pub certificates: Option<Permissions>,
    /// What a client without anything may do; `None`: it may not connect.
    pub anonymous: Option<Permissions>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Not the hash of a password.
    #[error("the password hash of MQTT user {0:?} is not a PHC string of argon2id, such as `$argon2id$v=19$…`")]
    Hash(String),
    /// Not a topic filter.
    #[error("{filter:?}, of MQTT user {user:?}, is not a topic filter")]
    Filter {
        /// Whose.
        user: String,
        /// Which.
        filter: String,
    },
}

/// Hashes a password for [`User::password_hash`], with a salt from `entropy`.
pub fn hash_password(password: &[u8], entropy: &dyn Entropy) -> Result<String, argon2::password_hash::Error> {
    let salt: Vec<u8> = [entropy.u64(), entropy.u64()].iter().flat_map(|part| part.to_le_bytes()).collect();
    let salt = argon2::password_hash::SaltString::encode_b64(&salt)?;
    Ok(Argon2::default().hash_password(password, &salt)?.to_string())
}

/// What looks like the hash of a password, costs as much to check, and is that of none: its bytes are drawn, and nothing was
/// hashed for them, which would be most of the time that a node takes to start.
fn nobodys_hash(entropy: &dyn Entropy) -> Result<String, argon2::password_hash::Error> {
    let mut drawn = [0; 48];
    drawn.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&entropy.u64().to_le_bytes()));
    let (salt, output) = drawn.split_at(16);
    let salt = argon2::password_hash::SaltString::encode_b64(salt)?;
    let hash = PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(argon2::Version::default().into()),
        params: argon2::password_hash::ParamsString::try_from(&argon2::Params::default())?,
        salt: Some(salt.as_salt()),
        hash: Some(argon2::password_hash::Output::new(output)?),
    };
    Ok(hash.to_string())
}

/// The names in a client's certificate, which TLS has verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// The subject's common name.
    pub common: Option<String>,
    /// The subject's alternative names: DNS names, URIs and mail addresses.
    pub alternative: Vec<String>,
}

/// What a client shows.
#[derive(Debug)]
pub(crate) struct Credentials<'c> {
    pub(crate) client: &'c str,
    pub(crate) user: Option<&'c str>,
    pub(crate) password: Option<&'c [u8]>,
    pub(crate) certificate: Option<&'c CertificateNames>,
    pub(crate) address: Option<IpAddr>,
}

/// Why a client may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The password is wrong, or there is no such user.
    Password,
    /// Known, but not with this client identifier; or not known at all.
    NotAuthorized,
    /// Too many are being checked.
    Busy,
}

/// An accepted client.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The user, or the certificate's common name: sessions belong to it.
    pub(crate) user: Option<Arc<str>>,
    pub(crate) grants: Arc<Permissions>,
}

impl Identity {
    pub(crate) fn may_publish(&self, name: &str) -> bool {
        !name.starts_with('$') && self.grants.publish.iter().any(|filter| topic::matches(filter, name))
    }

    /// `filter` is without `$share/<group>/`.
    pub(crate) fn may_subscribe(&self, filter: &str) -> bool {
        self.grants.subscribe.iter().any(|wide| topic::covers(wide, filter))
    }
}

/// The configuration, checked.
pub(crate) struct Access {
    users: HashMap<String, Known>,
    certificates: Option<Arc<Permissions>>,
    anonymous: Option<Arc<Permissions>>,
    checks: Arc<Semaphore>,
    /// Keyed hashes of what was right: a password is not kept, and a stolen memory does not give it away cheaply.
    right: Mutex<HashSet<[u8; 32]>>,
    key: [u8; 32],
    waiting: Mutex<HashMap<IpAddr, usize>>,
    /// Checked against when there is no such user, so that the time does not tell.
    nobody: String,
}

struct Known {
    hash: String,
    client_ids: Vec<String>,
    permissions: Arc<Permissions>,
}

impl Access {
    pub(crate) fn new(config: AccessConfig, entropy: &dyn Entropy) -> Result<Self, AccessError> {
        let certificates = config.certificates.map(|given| checked("a certificate", given)).transpose()?;
        let anonymous = config.anonymous.map(|given| checked("nobody", given)).transpose()?;
        let mut users = HashMap::new();
        for user in config.users {
            let good = PasswordHash::new(&user.password_hash)
                .is_ok_and(|hash| hash.algorithm == argon2::ARGON2ID_IDENT && hash.hash.is_some());
            if !good {
                return Err(AccessError::Hash(user.name));
            }
            let permissions = checked(&user.name, user.permissions)?;
            users.insert(user.name, Known { hash: user.password_hash, client_ids: user.client_ids, permissions });
        }
        let mut key = [0; 32];
        key.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&entropy.u64().to_le_bytes()));
        let nobody = nobodys_hash(entropy).map_err(|_| AccessError::Hash("nobody".into()))?;
        Ok(Self {
            users,
            certificates,
            anonymous,
            checks: Arc::new(Semaphore::new(PASSWORD_CHECKS_MAX)),
            right: Mutex::default(),
            key,
            waiting: Mutex::default(),
            nobody,
        })
    }

    /// Says who a client is. A certificate goes before a password, and a wrong password is never nobody.
    pub(crate) async fn identify(&self, shown: Credentials<'_>) -> Result<Identity, Denied> {
        if let (Some(names), Some(permissions)) = (shown.certificate, &self.certificates) {
            let bound = names.common.iter().chain(&names.alternative).any(|name| name == shown.client);
            let user = names.common.as_deref().unwrap_or(shown.client);
            return if bound {
                Ok(identity(permissions, shown.client, Some(user)))
            } else {
                Err(Denied::NotAuthorized)
            };
        }
        let Some(name) = shown.user else {
            let permissions = self.anonymous.as_ref().ok_or(Denied::NotAuthorized)?;
            return Ok(identity(permissions, shown.client, None));
        };
        let known = self.users.get(name);
        let hash = known.map_or(&self.nobody, |known| &known.hash);
        let right = self.is_right(name, hash, shown.password.unwrap_or_default(), shown.address).await?;
        let known = known.filter(|_| right).ok_or(Denied::Password)?;
        let may = known.client_ids.is_empty()
            || known
                .client_ids
                .iter()
                .any(|pattern| topic::substitute(pattern, shown.client, Some(name)).as_deref() == Some(shown.client));
        if may { Ok(identity(&known.permissions, shown.client, Some(name))) } else { Err(Denied::NotAuthorized) }
    }

    async fn is_right(&self, name: &str, hash: &str, password: &[u8], address: Option<IpAddr>) -> Result<bool, Denied> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [name.as_bytes(), hash.as_bytes(), password] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let seen = *hasher.finalize().as_bytes();
        if lock(&self.right).contains(&seen) {
            return Ok(true);
        }
        let _turn = Turn::take(&self.waiting, address).ok_or(Denied::Busy)?;
        let permit = self.checks.clone().acquire_owned().await.map_err(|_| Denied::Busy)?;
        let (hash, password) = (hash.to_owned(), password.to_owned());
        let check = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        });
        let right = check.await.unwrap_or(false);
        if right {
            let mut known = lock(&self.right);
            if known.len() >= PASSWORD_CACHE_MAX {
                known.clear();
            }
            known.insert(seen);
        }
        Ok(right)
    }
}

/// A place among the checks of one address.
struct Turn<'w>(&'w Mutex<HashMap<IpAddr, usize>>, Option<IpAddr>);

impl<'w> Turn<'w> {
    fn take(waiting: &'w Mutex<HashMap<IpAddr, usize>>, address: Option<IpAddr>) -> Option<Self> {
        if let Some(address) = address {
            let mut waiting = lock(waiting);
            let count = waiting.entry(address).or_default();
            if *count >= CHECKS_PER_ADDRESS_MAX {
                return None;
            }
            *count += 1;
        }
        Some(Self(waiting, address))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(address) = self.1 else { return };
        let mut waiting = lock(self.0);
        if let Some(count) = waiting.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn checked(user: &str, permissions: Permissions) -> Result<Arc<Permissions>, AccessError> {
    let all = permissions.publish.iter().chain(&permissions.subscribe);
    // What stands for `%c` and `%u` is one level; any one shows whether the rest is right.
    let bad = all
        .into_iter()
        .find(|filter| topic::substitute(filter, "c", Some("u")).is_none_or(|filter| !topic::is_filter(&filter)));
    match bad {
        Some(filter) => Err(AccessError::Filter { user: user.into(), filter: filter.clone() }),
        None => Ok(Arc::new(permissions)),
    }
}

/// The permissions with the client's own names put in; what cannot be is left out.
fn identity(permissions: &Arc<Permissions>, client: &str, user: Option<&str>) -> Identity {
    let own = |filters: &[String]| filters.iter().filter_map(|f| topic::substitute(f, client, user)).collect();
    let is_fixed = |filters: &[String]| !filters.iter().any(|filter| filter.contains('%'));
    let grants = if is_fixed(&permissions.publish) && is_fixed(&permissions.subscribe) {
        permissions.clone()
    } else {
        Arc::new(Permissions { publish: own(&permissions.publish), subscribe: own(&permissions.subscribe) })
    };
    Identity { user: user.map(Into::into), grants }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Entropy for Fixed {
        fn u64(&self) -> u64 {
            0x0123_4567_89ab_cdef
        }
    }

    #[test]
    fn nobodys_hash_costs_what_a_users_does_and_fits_no_password() {
        let nobody = nobodys_hash(&Fixed).unwrap();
        let user = hash_password(b"a password", &Fixed).unwrap();
        let (nobody, user) = (PasswordHash::new(&nobody).unwrap(), PasswordHash::new(&user).unwrap());
        assert_eq!((nobody.algorithm, nobody.version, &nobody.params), (user.algorithm, user.version, &user.params));
        assert_eq!(nobody.hash.unwrap().len(), user.hash.unwrap().len());
        // It is computed to the end, and differs.
        let error = Argon2::default().verify_password(b"a password", &nobody).unwrap_err();
        assert_eq!(error, argon2::password_hash::Error::Password);
    }
}
