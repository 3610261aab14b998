//! `marram.toml`: what an app is, as its developer writes it.
//!
//! The types here are the file's shape. They parse once; after that everything is typed and within its limits. The
//! JSON schema, the reference page and the error messages derive from them.

mod delivery;
mod error;
mod function;
mod hint;
mod instances;
mod limits;
mod stream;
mod text;
mod trigger;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use delivery::{Backoff, Batch, Delivery, From, Order, Retry};
pub use error::ManifestError;
pub use function::{Allow, Build, Function, is_key, is_of_node};
pub use instances::{InstancePolicy, Instances, Reuse};
pub use limits::LimitsTable;
pub use stream::{BucketTable, Retain, StreamTable};
pub use text::{BucketPattern, Method, TopicFilter};
pub use trigger::{
    HttpTrigger, KeyTrigger, Missed, MqttTrigger, ObjectTrigger, On, OnTable, ScheduleTrigger, StreamTrigger,
};

use crate::Name;
use crate::limits::{DECLARED_MAX, FUNCTIONS_MAX, MANIFEST_BYTES_MAX};

/// The version of the format that this code reads and writes.
pub const MANIFEST_VERSION: u32 = 1;

/// An app: its functions, what starts them, and what it declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format: `1`.
    pub manifest_version: u32,
    /// What the app is called.
    pub app: App,
    /// The app's functions.
    #[serde(default, rename = "function", skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<Function>,
    /// Streams and what they keep. A stream that is used and not declared has the defaults.
    #[serde(default, rename = "stream", skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<Name, StreamTable>,
    /// Buckets of objects that are there from the beginning, for clients of the S3 API. Others are made when they are used.
    #[serde(default, rename = "bucket", skip_serializing_if = "BTreeMap::is_empty")]
    pub buckets: BTreeMap<Name, BucketTable>,
}

/// What the app is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Unique on a node.
    pub name: Name,
    /// For people; Marram tells revisions apart by their content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// One line of what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Manifest {
    /// Parses and checks the text of a manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::plain(format!(
                "the manifest has {} bytes, more than {MANIFEST_BYTES_MAX}: split the app",
                text.len()
            )));
        }
        let manifest: Self = toml::from_str(text).map_err(|error| {
            let newer = version_of(text).and_then(|version| check_version(version).err());
            newer.map_or_else(
                || ManifestError::of_toml(text, &error),
                |(needle, message)| ManifestError::at(text, &needle, message),
            )
        })?;
        manifest.check().map_err(|(needle, message)| ManifestError::at(text, &needle, message))?;
        Ok(manifest)
    }

    /// The function of this name.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name.as_str() == name)
    }

    /// What no single field shows. The error names a text of the manifest to point at.
    fn check(&self) -> Result<(), (String, String)> {
        check_version(self.manifest_version)?;
        if self.functions.is_empty() && self.streams.is_empty() && self.buckets.is_empty() {
            return Err((
                "[app]".into(),
                "the app has no function, no stream and no bucket: add a `[[function]]` with a name and a component"
                    .into(),
            ));
        }
        self.check_declared()?;
        if self.functions.len() > FUNCTIONS_MAX {
            return Err((
                "[[function]]".into(),
                format!("the app has {} functions, more than {FUNCTIONS_MAX}: split it", self.functions.len()),
            ));
        }
        let mut names = BTreeSet::new();
        for function in &self.functions {
            let named = || format!("\"{}\"", function.name);
            if !names.insert(&function.name) {
                return Err((
                    named(),
                    format!("two functions are called \"{}\": give each a name of its own", function.name),
                ));
            }
            function.check().map_err(|message| (named(), format!("function \"{}\": {message}", function.name)))?;
        }
        for function in &self.functions {
            for callee in function.allow.internal() {
                if !names.contains(callee) {
                    return Err((
                        format!("internal:{callee}"),
                        format!(
                            "function \"{}\" may call \"internal:{callee}\", but the app has no function \"{callee}\"",
                            function.name
                        ),
                    ));
                }
            }
        }
        self.check_routes()
    }

    fn check_declared(&self) -> Result<(), (String, String)> {
        for (what, declared) in [("stream", self.streams.len()), ("bucket", self.buckets.len())] {
            if declared > DECLARED_MAX {
                return Err((
                    format!("[{what}."),
                    format!("the app declares {declared} {what}s, more than {DECLARED_MAX}"),
                ));
            }
        }
        for (name, stream) in &self.streams {
            stream
                .check(name)
                .map_err(|message| (format!("[stream.{name}]"), format!("stream \"{name}\": {message}")))?;
        }
        Ok(())
    }

    /// Two functions that claim the same requests.
    fn check_routes(&self) -> Result<(), (String, String)> {
        let routes: Vec<_> = self.functions.iter().flat_map(|f| f.http().map(move |on| (f, on))).collect();
        for (n, (function, on)) in routes.iter().enumerate() {
            for (other, other_on) in &routes[..n] {
                if on.claims_the_same_as(other_on) {
                    return Err((
                        on.http.to_string(),
                        format!(
                            "functions \"{}\" and \"{}\" both claim {}: change the path, host or methods of one",
                            other.name, function.name, on.http
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The version that a text says it has, whatever else stands in it: a newer format has what this code does not know.
fn version_of(text: &str) -> Option<u32> {
    #[derive(Deserialize)]
    struct Head {
        manifest_version: u32,
    }
    toml::from_str(text).ok().map(|head: Head| head.manifest_version)
}

fn check_version(version: u32) -> Result<(), (String, String)> {
    if version == MANIFEST_VERSION {
        return Ok(());
    }
    let message = format!(
        "manifest_version is {version}, and this Marram reads {MANIFEST_VERSION}: write `manifest_version = {MANIFEST_VERSION}`, or install a newer Marram",
    );
    Err(("manifest_version".into(), message))
}

/// The JSON schema of the manifest, for editors and for the reference page.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Manifest)
}

#[cfg(test)]
mod book;
#[cfg(test)]
mod tests;
