//! What a node is: `node.toml`, parsed once into typed values.
//!
//! This is the one file that reads the process's environment. A token is never shown.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use ipnet::IpNet;
use marram_core::Digest;
use marram_core::manifest::ManifestError;
use marram_core::quantity::{ByteSize, Span};
use marram_runtime::Compiler;
use marram_telemetry::PriceList;
use serde::Deserialize;

use crate::mqtt::MqttConfig;
use crate::s3::S3Config;

/// What is wrong with a `node.toml`: the line, what is wrong with it, and what to write.
pub type ConfigError = ManifestError;

/// The admin token's environment variable, which keeps it out of the file.
pub const TOKEN_VARIABLE: &str = "MARRAM_TOKEN";
/// Bytes of a `node.toml`: a person has to be able to read it.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Characters of a token: fewer can be guessed over a network.
const TOKEN_CHARS_MIN: usize = 16;

/// Everything that a node is told. The default is a node on loopback with its state in `.marram`.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// What the node calls itself, to people.
    pub name: String,
    /// Where functions are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the admin API is served; port 0 takes a free one.
    pub admin: SocketAddr,
    /// The folder of everything that the node keeps.
    pub state: PathBuf,
    /// What a caller of the admin API has to show; `None` lets everyone on this machine in.
    pub token: Option<Token>,
    /// Certificate and key of the admin API; `None` serves it in clear text.
    pub admin_tls: Option<TlsFiles>,
    /// Whose `forwarded` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Instances of all functions together: the size of the pool.
    pub instances: u32,
    /// How long a function's code stays in memory after its last run.
    pub code_idle: Duration,
    /// Where functions are compiled.
    pub compiler: Compiler,
    /// Whether compiled functions are kept for components that differ little: for who changes one all the time.
    pub keeps_functions: bool,
    /// Files (PEM) with authorities that functions' own requests trust besides the public ones.
    pub extra_roots: Vec<PathBuf>,
    /// How long log lines are kept.
    pub keep: Duration,
    /// How many bytes of log lines are kept, compressed.
    pub keep_bytes: ByteSize,
    /// How long running requests may take to finish when the node stops.
    pub drain: Duration,
    /// What usage costs, if anything.
    pub prices: Option<PriceList>,
    /// The MQTT broker, if there is to be one.
    pub mqtt: MqttConfig,
    /// The S3 API, if there is to be one.
    pub s3: S3Config,
}

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, then those that sign it.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A bearer token (RFC 6750). It is compared in constant time, and no format shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Digest);

impl Token {
    /// Takes the token's text: at least 16 visible ASCII characters.
    pub fn new(text: &str) -> Result<Self, String> {
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the token has characters that a header cannot carry: use letters and digits".into());
        }
        if text.len() < TOKEN_CHARS_MIN {
            return Err(format!(
                "the token is shorter than {TOKEN_CHARS_MIN} characters: make one with `openssl rand -hex 32`"
            ));
        }
        Ok(Self(Digest::of(text.as_bytes())))
    }

    /// Whether `shown` is the token. Digests are compared, and all of their bytes, so that the time says nothing.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        let shown = Digest::of(shown);
        let differing = self.0.as_bytes().iter().zip(shown.as_bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            name: "marram".to_owned(),
            listen: SocketAddr::new(loopback, 3000),
            admin: SocketAddr::new(loopback, 7070),
            state: PathBuf::from(".marram"),
            token: None,
            admin_tls: None,
            trusted_proxies: Vec::new(),
            instances: 1_000,
            code_idle: Duration::from_secs(10),
            compiler: Compiler::Here,
            keeps_functions: false,
            extra_roots: Vec::new(),
            keep: Duration::from_secs(7 * 24 * 3600),
            keep_bytes: ByteSize(64 << 20),
            drain: Duration::from_secs(30),
            prices: None,
            mqtt: MqttConfig::default(),
            s3: S3Config::default(),
        }
    }
}

/// The shape of the file. Every key may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    listen: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    state: Option<PathBuf>,
    token_file: Option<PathBuf>,
    admin_tls: Option<TlsFiles>,
    #[serde(default)]
    trusted_proxies: Vec<IpNet>,
    instances: Option<u32>,
    code_idle: Option<Span>,
    #[serde(default)]
    outbound: Outbound,
    keep: Option<Span>,
    keep_bytes: Option<ByteSize>,
    drain: Option<Span>,
    prices: Option<PriceList>,
    #[serde(default)]
    mqtt: MqttConfig,
    #[serde(default)]
    s3: S3Config,
}

/// `[outbound]`: the requests that functions make.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outbound {
    #[serde(default)]
    extra_roots: Vec<PathBuf>,
}

impl NodeConfig {
    /// Reads `node.toml`. Paths in it are relative to its folder. The token comes from the file that `token_file`
    /// names, or from the environment.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = read_limited(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let (mut config, token_file) = parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        config.state = folder.join(&config.state);
        if let Some(tls) = &mut config.admin_tls {
            *tls = TlsFiles { cert: folder.join(&tls.cert), key: folder.join(&tls.key) };
        }
        config.mqtt = config.mqtt.within(folder);
        config.s3 = config.s3.within(folder);
        config.extra_roots.iter_mut().for_each(|file| *file = folder.join(&*file));
        match token_file {
            Some(file) => {
                let file = folder.join(file);
                let text = read_limited(&file).context("`token_file`")?;
                let token = Token::new(text.trim());
                config.token = Some(token.map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?);
            }
            None => config = config.with_environment()?,
        }
        Ok(config)
    }

    /// Parses the text of a `node.toml` that names no files: paths stay as they are written, and no file is read.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        match parse(text)? {
            (config, None) => Ok(config),
            (_, Some(_)) => {
                let message = "`token_file` names a file, and this is a text without a folder".to_owned();
                Err(ConfigError::at(text, "token_file", message))
            }
        }
    }

    /// The same with the token of the environment, if there is one and none is set yet.
    pub fn with_environment(mut self) -> anyhow::Result<Self> {
        if self.token.is_none()
            && let Some(text) = std::env::var_os(TOKEN_VARIABLE).filter(|text| !text.is_empty())
        {
            let token = text.to_str().ok_or_else(|| "the token is not text".to_owned()).and_then(Token::new);
            self.token = Some(token.map_err(|why| anyhow::anyhow!("{TOKEN_VARIABLE}: {why}"))?);
        }
        Ok(self)
    }

    /// What no single value shows: an admin API that strangers can reach has to know whom it lets in, and has to tell
    /// nobody on the way.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.mqtt.check()?;
        self.s3.check()?;
        if self.admin.ip().is_loopback() {
            return Ok(());
        }
        let missing = match (&self.token, &self.admin_tls) {
            (Some(_), Some(_)) => return Ok(()),
            (None, Some(_)) => "a token: set `token_file`, or MARRAM_TOKEN",
            (Some(_), None) => "TLS: set `admin_tls = { cert = \"cert.pem\", key = \"key.pem\" }`",
            (None, None) => {
                "a token (`token_file`, or MARRAM_TOKEN) and TLS (`admin_tls = { cert = \"cert.pem\", key = \"key.pem\" }`)"
            }
        };
        anyhow::bail!(
            "the admin address {} can be reached from other machines and lacks {missing}; or use a loopback address such as 127.0.0.1:7070",
            self.admin
        )
    }
}

fn parse(text: &str) -> Result<(NodeConfig, Option<PathBuf>), ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| ConfigError::of_toml(text, &error))?;
    let default = NodeConfig::default();
    let within = |key: &str, value: u64, min: u64, max: u64| {
        let message = || format!("`{key}` is {value}: it has to be from {min} to {max}");
        if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError::at(text, key, message())) }
    };
    let config = NodeConfig {
        name: file.name.unwrap_or(default.name),
        listen: file.listen.unwrap_or(default.listen),
        admin: file.admin.unwrap_or(default.admin),
        state: file.state.unwrap_or(default.state),
        token: None,
        admin_tls: file.admin_tls,
        trusted_proxies: file.trusted_proxies,
        instances: file.instances.unwrap_or(default.instances),
        code_idle: file.code_idle.map_or(default.code_idle, |span| span.0),
        compiler: default.compiler,
        keeps_functions: default.keeps_functions,
        extra_roots: file.outbound.extra_roots,
        keep: file.keep.map_or(default.keep, |span| span.0),
        keep_bytes: file.keep_bytes.unwrap_or(default.keep_bytes),
        drain: file.drain.map_or(default.drain, |span| span.0),
        prices: file.prices,
        mqtt: file.mqtt,
        s3: file.s3,
    };
    within("name", config.name.len() as u64, 1, 63)
        .map_err(|_| ConfigError::at(text, "name", "the node's name has to have 1 to 63 bytes".to_owned()))?;
    within("instances", u64::from(config.instances), 1, 100_000)?;
    if config.code_idle > Duration::from_secs(24 * 3600) {
        return Err(ConfigError::at(text, "code_idle", "`code_idle` is more than a day: write `10s`".to_owned()));
    }
    if config.drain > Duration::from_secs(3600) {
        return Err(ConfigError::at(text, "drain", "`drain` is more than an hour: write `30s`".to_owned()));
    }
    Ok((config, file.token_file))
}

pub(crate) fn read_limited(path: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let shown = path.display();
    let unreadable = || format!("{shown} cannot be read");
    let file = std::fs::File::open(path).with_context(unreadable)?;
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).with_context(unreadable)?;
    anyhow::ensure!(text.len() as u64 <= CONFIG_BYTES_MAX, "{shown} has more than {CONFIG_BYTES_MAX} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests;
