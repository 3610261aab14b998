//! `[[function]]`: one function, what starts it, what it may do.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{HttpTrigger, Instances, LimitsTable, On, TopicFilter};
use crate::Name;
use crate::limits::{ENTRIES_MAX, TRIGGERS_MAX, VALUE_BYTES_MAX};
use crate::outbound::OutboundRule;
use crate::stream::StreamName;

/// One function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Unique in the app.
    pub name: Name,
    /// What runs, as a path relative to the manifest: a WebAssembly component (`.wasm`, `.wat`), or the source of a
    /// JavaScript (`.js`, `.mjs`) or Python (`.py`) function.
    pub component: String,
    /// How the component is built. `marram build` and `marram up` run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// What starts the function. A function without triggers can still be called by others of its app.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<On>,
    /// The stream that an answer goes to which is itself a CloudEvent, or a batch of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<StreamName>,
    /// How much it may use.
    #[serde(default, skip_serializing_if = "LimitsTable::is_default")]
    pub limits: LimitsTable,
    /// Whether instances are used again: `"fresh"`, or `{ reuse = 128, concurrent = 16, idle = "1s", warm = 2 }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Instances>,
    /// Values that the function reads through `wasi:config` and its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Names of secrets (`marram secret set <app> <name>`) that it reads in the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// What it may reach. Everything else is denied.
    #[serde(default, skip_serializing_if = "Allow::is_empty")]
    pub allow: Allow,
}

/// How a component is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// A shell command, run in the manifest's folder.
    pub command: String,
    /// Files that the build reads, as globs: `marram up` builds again when one changes.
    #[serde(default)]
    pub watch: Vec<String>,
}

/// What a function may reach.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// Outbound HTTP: `"https://api.example.com"`, `"https://*.example.com"`, `"internal:<function>"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<OutboundRule>,
    /// Address ranges that are reached although they are not public: `"10.1.0.0/16"`, `"127.0.0.1/32"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// Buckets of keys that are read and written through `wasi:keyvalue`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kv: Vec<Name>,
    /// Buckets of objects that are read and written through `wasi:blobstore`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blob: Vec<Name>,
    /// Streams that are published to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<StreamName>,
    /// MQTT topics that are published to, as filters: `"commands/#"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mqtt: Vec<TopicFilter>,
}

impl Allow {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The functions of the app that may be called.
    pub fn internal(&self) -> impl Iterator<Item = &Name> {
        self.http.iter().filter_map(|rule| match rule {
            OutboundRule::Internal(name) => Some(name),
            OutboundRule::Origin { .. } => None,
        })
    }
}

impl Function {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.component.is_empty() {
            return Err("its component is empty: write the path of a .wasm, .js or .py file".into());
        }
        if [".ts", ".mts", ".tsx"].iter().any(|ending| self.component.ends_with(ending)) {
            return Err(format!(
                "its component {} is TypeScript, which is built first: name the .js file that the build writes, as an app of `marram new <dir> --template http-ts` does",
                self.component
            ));
        }
        if self.on.len() > TRIGGERS_MAX {
            return Err(format!("it has {} triggers, more than {TRIGGERS_MAX}", self.on.len()));
        }
        let lists = [
            ("config", self.config.len()),
            ("secrets", self.secrets.len()),
            ("allow.http", self.allow.http.len()),
            ("allow.addresses", self.allow.addresses.len()),
            ("allow.kv", self.allow.kv.len()),
            ("allow.blob", self.allow.blob.len()),
            ("allow.publish", self.allow.publish.len()),
            ("allow.mqtt", self.allow.mqtt.len()),
        ];
        if let Some((list, length)) = lists.into_iter().find(|(_, length)| *length > ENTRIES_MAX) {
            return Err(format!("`{list}` has {length} entries, more than {ENTRIES_MAX}"));
        }
        if let Some((key, value)) = self.config.iter().find(|(_, value)| value.len() > VALUE_BYTES_MAX) {
            return Err(format!("the value of config `{key}` has {} bytes, more than {VALUE_BYTES_MAX}", value.len()));
        }
        let keys = self.config.keys().chain(&self.secrets);
        if let Some(key) = keys.clone().find(|key| !is_key(key)) {
            return Err(format!("{key:?} is not a key: use letters, digits, '_', '-' and '.', at most 128"));
        }
        if let Some(key) = self.secrets.iter().find(|key| self.config.contains_key(*key)) {
            return Err(format!("`{key}` is in `config` and in `secrets`: keep one"));
        }
        let watched = self.on.iter().filter_map(|on| if let On::Key(on) = on { Some(&on.key.bucket) } else { None });
        if let Some(bucket) = self.allow.kv.iter().chain(watched).find(|bucket| is_of_node(bucket)) {
            return Err(format!(
                "the bucket \"{bucket}\" is the node's own: choose a name that does not begin with \"marram-\""
            ));
        }
        self.check_streams()
    }

    fn check_streams(&self) -> Result<(), String> {
        let published = self.output.iter().chain(&self.allow.publish);
        if let Some(stream) = published.clone().find(|stream| stream.is_source()) {
            return Err(format!("only the node publishes to the stream \"{stream}\": name another"));
        }
        if let Some(stream) = published.clone().find(|stream| stream.is_dead_letter()) {
            return Err(format!(
                "\"{stream}\" is a dead-letter stream, which only the node publishes to: name another"
            ));
        }
        for (n, on) in self.on.iter().enumerate() {
            if let On::Stream(trigger) = on
                && self.output.as_ref() == Some(&trigger.stream)
            {
                let stream = &trigger.stream;
                return Err(format!("its output is \"{stream}\", which starts it: it would never end"));
            }
            let again = |other: &On| on.http().is_none() && other.source() == on.source();
            if self.on[..n].iter().any(again) {
                return Err(format!("it has the trigger `{}` twice: keep one", on.source()));
            }
        }
        Ok(())
    }

    /// Its HTTP triggers.
    pub fn http(&self) -> impl Iterator<Item = &HttpTrigger> {
        self.on.iter().filter_map(On::http)
    }

    /// Its triggers that are events.
    pub fn events(&self) -> impl Iterator<Item = &On> {
        self.on.iter().filter(|on| on.http().is_none())
    }
}

/// Whether the node keeps what it needs itself in the bucket of keys of this name: nobody else writes there.
#[must_use]
pub fn is_of_node(bucket: &Name) -> bool {
    bucket.as_str().starts_with("marram-")
}

/// Keys of `config` and `secrets`: what an environment variable and a `wasi:config` key both take.
#[must_use]
pub fn is_key(key: &str) -> bool {
    (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}
