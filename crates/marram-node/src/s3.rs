//! The S3 API of a node: what `node.toml` says of it, its listeners, and its access keys.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use marram_core::Name;
use marram_core::port::blobs::Multipart;
use marram_s3::{AccessKey, Buckets, Limits, Server};
use serde::Deserialize;

use crate::config::{TlsFiles, read_limited};
use crate::node::{bind, bind_or_any};
use crate::tls;

/// The file in the state folder with the key of a node that only this machine reaches, and that names none.
const KEY_FILE: &str = "s3.key";
/// Characters of a secret: fewer can be guessed from one signature.
const SECRET_CHARS_MIN: usize = 16;
/// Access keys of a node.
const KEYS_MAX: usize = 1_000;

/// `[s3]`: objects for clients of S3. Without a listener there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Config {
    /// Where it listens, in clear text; port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// Whether any free port will do where that of `listen` is taken: for a developer's node, and not in `node.toml`.
    #[serde(skip)]
    pub any_port: bool,
    /// Where it listens with TLS.
    pub tls: Option<S3Tls>,
    /// Who may do what. If none is named and only this machine can reach the listener, the node makes a key of its own.
    #[serde(rename = "key")]
    pub keys: Vec<S3Key>,
}

/// The TLS listener of the S3 API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Tls {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The certificate, then those that sign it (PEM).
    pub cert: PathBuf,
    /// The private key (PEM).
    pub key: PathBuf,
}

/// An access key. No format shows its secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Key {
    /// The access key id.
    pub id: String,
    /// The secret access key; or name a file.
    #[serde(default)]
    pub secret: Option<String>,
    /// A file that has the secret access key and nothing else.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// Buckets that it reads; `"*"` is every one.
    #[serde(default)]
    pub read: Vec<String>,
    /// Buckets that it writes, makes and deletes; `"*"` is every one.
    #[serde(default)]
    pub write: Vec<String>,
}

impl fmt::Debug for S3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, secret_file, read, write, .. } = self;
        let mut shown = f.debug_struct("S3Key");
        shown.field("id", id).field("secret_file", secret_file).field("read", read).field("write", write);
        shown.finish_non_exhaustive()
    }
}

/// The access key that a node made for itself.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnS3Key {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: String,
}

impl fmt::Debug for OwnS3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnS3Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl S3Config {
    /// The same with paths relative to `folder`.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        if let Some(tls) = &mut self.tls {
            (tls.cert, tls.key) = (folder.join(&tls.cert), folder.join(&tls.key));
        }
        for key in &mut self.keys {
            key.secret_file = key.secret_file.take().map(|file| folder.join(file));
        }
        self
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        [self.listen, self.tls.as_ref().map(|tls| tls.listen)].into_iter().flatten()
    }

    /// Refuses an API that lets nobody in, which nobody means, and keys that cannot be used.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let here = self.addresses().all(|address| address.ip().is_loopback());
        anyhow::ensure!(
            here || !self.keys.is_empty(),
            "the S3 API can be reached from other machines and lets nobody in: name access keys, with `[[s3.key]]`, its \
             `id`, its `secret_file`, and what it may `read` and `write`"
        );
        anyhow::ensure!(self.keys.len() <= KEYS_MAX, "there are more than {KEYS_MAX} access keys below `[s3]`");
        for (n, key) in self.keys.iter().enumerate() {
            key.check()?;
            let twice = self.keys[..n].iter().any(|other| other.id == key.id);
            anyhow::ensure!(!twice, "the S3 access key {:?} is there twice", key.id);
        }
        Ok(())
    }

    /// The keys, with the node's own where none is named.
    fn access(&self, state: &Path) -> anyhow::Result<Vec<AccessKey>> {
        if self.keys.is_empty() {
            let OwnS3Key { id, secret } = own_key(state)?;
            return Ok(vec![AccessKey { id, secret, read: Buckets::All, write: Buckets::All }]);
        }
        self.keys.iter().map(S3Key::access).collect()
    }
}

impl S3Key {
    fn check(&self) -> anyhow::Result<()> {
        let id = &self.id;
        let plain = (3..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        anyhow::ensure!(plain, "{id:?} is not an access key id: write 3 to 128 letters, digits, '-', '_' and '.'");
        anyhow::ensure!(
            self.secret.is_some() != self.secret_file.is_some(),
            "the S3 access key {id:?} needs either a `secret_file` or a `secret`: make one with `openssl rand -hex 32`"
        );
        buckets(&self.read)?;
        buckets(&self.write)?;
        Ok(())
    }

    fn access(&self) -> anyhow::Result<AccessKey> {
        let secret = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(file)) => read_limited(file)?.trim().to_owned(),
            (None, None) => String::new(),
        };
        let id = self.id.clone();
        anyhow::ensure!(
            secret.len() >= SECRET_CHARS_MIN && secret.bytes().all(|byte| byte.is_ascii_graphic()),
            "the secret of the S3 access key {id:?} has to have {SECRET_CHARS_MIN} visible characters or more"
        );
        Ok(AccessKey { id, secret, read: buckets(&self.read)?, write: buckets(&self.write)? })
    }
}

fn buckets(names: &[String]) -> anyhow::Result<Buckets> {
    if names.iter().any(|name| name == "*") {
        return Ok(Buckets::All);
    }
    let names = names.iter().map(|name| Name::new(name).with_context(|| "a bucket of an S3 access key"));
    Ok(Buckets::Named(names.collect::<Result<_, _>>()?))
}

/// The key that a node on this state folder made for itself; an error says how there comes to be one.
pub fn own_s3_key(state: &Path) -> anyhow::Result<OwnS3Key> {
    let path = state.join(KEY_FILE);
    anyhow::ensure!(
        path.exists(),
        "{} is not there: a node makes it that is started with `--s3 127.0.0.1:9000` and whose node.toml names no key",
        path.display()
    );
    let text = read_limited(&path)?;
    let parts = text
        .trim()
        .split_once('\n')
        .map(|(id, secret)| OwnS3Key { id: id.trim().into(), secret: secret.trim().into() });
    parts.with_context(|| format!("{} is damaged: remove it, and the node makes another", path.display()))
}

/// Reads the node's own key, or makes it. Its file is its owner's alone.
fn own_key(state: &Path) -> anyhow::Result<OwnS3Key> {
    use std::io::Write as _;
    let path = state.join(KEY_FILE);
    if path.exists() {
        return own_s3_key(state);
    }
    let mut bits = [0; 40];
    getrandom::fill(&mut bits).map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
    let hex: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = OwnS3Key { id: format!("marram-{}", &hex[..16]), secret: hex[16..].to_owned() };
    let temporary = path.with_extension("new");
    let written = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    let written = written.and_then(|mut file| {
        file.write_all(format!("{}\n{}\n", key.id, key.secret).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    });
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}

/// An S3 API that listens.
pub(crate) struct Listening {
    pub(crate) server: Server,
    /// `name=url`, in the order in which they are announced.
    pub(crate) urls: Vec<(&'static str, String)>,
}

/// Starts the S3 API, if it has a listener.
pub(crate) async fn start(
    config: &S3Config,
    state: &Path,
    objects: Arc<dyn Multipart>,
) -> anyhow::Result<Option<Listening>> {
    if config.addresses().next().is_none() {
        return Ok(None);
    }
    let server = Server::new(Limits::default(), config.access(state)?, objects);
    let mut urls = Vec::new();
    if let Some(address) = config.listen {
        let listener = bind_or_any(address, "s3", config.any_port).await?;
        urls.push(("s3", format!("http://{}", listener.local_addr()?)));
        server.listen(listener, None);
    }
    if let Some(S3Tls { listen, cert, key }) = &config.tls {
        let pair = TlsFiles { cert: cert.clone(), key: key.clone() };
        let tls = tls::server(&pair, None, &[b"http/1.1"])?;
        let listener = bind(*listen, "s3.tls.listen").await?;
        urls.push(("s3_tls", format!("https://{}", listener.local_addr()?)));
        server.listen(listener, Some(Arc::new(tls)));
    }
    Ok(Some(Listening { server, urls }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> S3Config {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn who_can_be_reached_has_to_name_keys_and_no_secret_is_shown() {
        config("").check().unwrap();
        config("listen = \"127.0.0.1:0\"").check().unwrap();
        let error = config("listen = \"0.0.0.0:9000\"").check().unwrap_err().to_string();
        assert!(error.contains("[[s3.key]]"), "{error}");
        let key =
            "listen = \"0.0.0.0:9000\"\n[[key]]\nid = \"camera\"\nsecret = \"0123456789abcdef\"\nwrite = [\"uploads\"]";
        config(key).check().unwrap();
        assert!(!format!("{:?}", config(key)).contains("0123456789abcdef"));
        for (bad, why) in [
            ("[[key]]\nid = \"a\"\nsecret = \"0123456789abcdef\"", "not an access key id"),
            ("[[key]]\nid = \"abc\"", "either a `secret_file` or a `secret`"),
            ("[[key]]\nid = \"abc\"\nsecret = \"x\"\nsecret_file = \"y\"", "either a `secret_file` or a `secret`"),
            ("[[key]]\nid = \"abc\"\nsecret = \"0123456789abcdef\"\nread = [\"No\"]", "a bucket of an S3 access key"),
            ("[[key]]\nid = \"abc\"\nsecret = \"x\"\n[[key]]\nid = \"abc\"\nsecret = \"x\"", "twice"),
        ] {
            let error = config(bad).check().unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let short = config("[[key]]\nid = \"abc\"\nsecret = \"short\"").access(Path::new(".")).unwrap_err().to_string();
        assert!(short.contains("visible characters") && !short.contains("short\""), "{short}");
    }

    #[test]
    fn a_key_of_its_own_is_made_once_and_is_its_owner_s_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = tempfile::tempdir().unwrap();
        assert!(own_s3_key(state.path()).is_err());
        let made = own_key(state.path()).unwrap();
        assert_eq!((own_key(state.path()).unwrap(), own_s3_key(state.path()).unwrap()), (made.clone(), made.clone()));
        assert_eq!(made.secret.len(), 64);
        let mode = std::fs::metadata(state.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
