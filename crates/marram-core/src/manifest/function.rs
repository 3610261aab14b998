//! `[[function]]`: one function, what starts it, what it may do.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Instances, LimitsTable};
use crate::Name;
use crate::limits::{ENTRIES_MAX, TRIGGERS_MAX, VALUE_BYTES_MAX};
use crate::outbound::OutboundRule;
use crate::route::RoutePattern;

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

/// An HTTP trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct On {
    /// Host and path: `"/price/..."`, `"shop.example/api/:id"`.
    pub http: RoutePattern,
    /// Only these methods; all of them if left out. `HEAD` comes with `GET`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
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
}

/// An HTTP method in a manifest: a token in upper case (RFC 9110 §9.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Method(String);

impl Method {
    /// The method as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let token = !text.is_empty() && text.len() <= 24 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if !token {
            let message = format!(
                "{:?} is not a method: write it in upper case, such as \"GET\"",
                text.chars().take(40).collect::<String>()
            );
            return Err(serde::de::Error::custom(message));
        }
        Ok(Self(text.into_owned()))
    }
}

impl schemars::JsonSchema for Method {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Z-]{1,24}$" })
    }
}

impl On {
    /// Whether both take some request and neither is more specific.
    #[must_use]
    pub fn claims_the_same_as(&self, other: &Self) -> bool {
        let methods_meet = self.methods.is_empty() == other.methods.is_empty()
            && (self.methods.is_empty() || self.methods.iter().any(|m| other.methods.contains(m)));
        methods_meet && self.http.claims_the_same_as(&other.http)
    }
}

impl Allow {
    fn is_empty(&self) -> bool {
        self.http.is_empty() && self.addresses.is_empty()
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
        if self.on.len() > TRIGGERS_MAX {
            return Err(format!("it has {} triggers, more than {TRIGGERS_MAX}", self.on.len()));
        }
        let lists = [
            ("config", self.config.len()),
            ("secrets", self.secrets.len()),
            ("allow.http", self.allow.http.len()),
            ("allow.addresses", self.allow.addresses.len()),
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
        Ok(())
    }
}

/// Keys of `config` and `secrets`: what an environment variable and a `wasi:config` key both take.
#[must_use]
pub fn is_key(key: &str) -> bool {
    (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}
