//! What is to run: one revision of one app, checked against itself and against the other apps, before anything is
//! compiled. Pure: nothing here reads or writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use marram_core::manifest::{App, HttpTrigger, MANIFEST_VERSION, Manifest};
use marram_core::stream::StreamName;
use marram_core::{Digest, Failure, Kind, Name};
use marram_trigger::Wiring;

use crate::routes;

/// One revision of one app.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) revision: Digest,
    /// What each function runs.
    pub(crate) components: BTreeMap<Name, Digest>,
    /// What kind each of these is, where it was stored: known without a look at them.
    pub(crate) kinds: BTreeMap<Name, marram_runtime::Kind>,
}

impl Desired {
    /// Parses the manifest and matches its functions with the components.
    pub(crate) fn new(manifest_text: &str, components: BTreeMap<Name, Digest>) -> Result<Self, Failure> {
        let manifest = Manifest::parse(manifest_text).map_err(|error| invalid(error.to_string()))?;
        marram_trigger::check(&manifest, manifest_text).map_err(|error| invalid(error.to_string()))?;
        let missing = manifest.functions.iter().find(|function| !components.contains_key(&function.name));
        if let Some(function) = missing {
            return Err(invalid(format!(
                "function \"{}\" came without its component: build {} and send it along",
                function.name, function.component
            )));
        }
        if let Some(name) = components.keys().find(|name| manifest.function(name.as_str()).is_none()) {
            return Err(invalid(format!(
                "a component came for \"{name}\", which the manifest does not have: add a `[[function]]` of that name, or leave it out"
            )));
        }
        let revision = revision(manifest_text, &components);
        let desired = Self { manifest: Arc::new(manifest), revision, components, kinds: BTreeMap::new() };
        match desired.in_the_door_of(&desired) {
            None => Ok(desired),
            Some((function, on, stream)) => Err(invalid(format!(
                "function \"{function}\" claims {}, where stream \"{stream}\" takes events (`ingest = true`): change the path",
                route_text(on)
            ))),
        }
    }

    /// An app of which only the name is known, because its stored manifest does not read.
    pub(crate) fn unreadable(name: Name, revision: Digest) -> Self {
        let app = App { name, version: None, description: None };
        let manifest = Manifest {
            manifest_version: MANIFEST_VERSION,
            app,
            functions: Vec::new(),
            streams: BTreeMap::new(),
            buckets: BTreeMap::new(),
        };
        Self { manifest: Arc::new(manifest), revision, components: BTreeMap::new(), kinds: BTreeMap::new() }
    }

    pub(crate) fn app(&self) -> &Name {
        &self.manifest.app.name
    }

    /// Every HTTP trigger with its function.
    pub(crate) fn triggers(&self) -> impl Iterator<Item = (&Name, &HttpTrigger)> {
        self.manifest.functions.iter().flat_map(|function| function.http().map(move |on| (&function.name, on)))
    }

    /// The routes as text.
    pub(crate) fn routes(&self) -> Vec<String> {
        self.triggers().map(|(_, on)| route_text(on)).collect()
    }

    /// Refuses a route that `other` has already, as a function or as the way into a stream: neither would win.
    pub(crate) fn check_routes_against(&self, other: &Self) -> Result<(), Failure> {
        for (function, on) in self.triggers() {
            let rival = other.triggers().find(|(_, claimed)| on.claims_the_same_as(claimed));
            if let Some((rival, _)) = rival {
                return Err(Failure::new(
                    Kind::Conflict,
                    format!(
                        "function \"{function}\" of app \"{}\" claims {}, and so does function \"{rival}\" of app \"{}\", which is deployed here: change the path, the methods, or put a host in front of one (\"{}.example{}\")",
                        self.app(),
                        route_text(on),
                        other.app(),
                        self.app(),
                        on.http
                    ),
                ));
            }
        }
        let of = |function: &Name, on: &HttpTrigger, stream: &Name, app: &Self, opener: &Self| {
            let (app, opener) = (app.app(), opener.app());
            let message = format!(
                "function \"{function}\" of app \"{app}\" claims {}, where stream \"{stream}\" of app \"{opener}\" takes events (`ingest = true`): change the path",
                route_text(on)
            );
            Failure::new(Kind::Conflict, message)
        };
        if let Some((function, on, stream)) = self.in_the_door_of(other) {
            return Err(of(function, on, stream, self, other));
        }
        match other.in_the_door_of(self) {
            Some((function, on, stream)) => Err(of(function, on, stream, other, self)),
            None => Ok(()),
        }
    }

    /// A function of this app that claims what a stream takes its events by, which `opener` opens to the public front.
    fn in_the_door_of<'a>(&'a self, opener: &'a Self) -> Option<(&'a Name, &'a HttpTrigger, &'a Name)> {
        let open = opener.manifest.streams.iter().filter(|(_, table)| table.ingest);
        let mut doors = open.map(|(stream, _)| (stream, routes::events_of(&StreamName::from(stream))));
        doors.find_map(|(stream, door)| {
            // Without methods it is less specific, and gives way.
            let is_in = |on: &HttpTrigger| {
                on.methods.iter().any(|method| method.as_str() == "POST") && on.http.claims_the_same_as(&door)
            };
            let (function, on) = self.triggers().find(|(_, on)| is_in(on))?;
            Some((function, on, stream))
        })
    }

    /// Refuses a function whose secrets are not all set, with the commands that set them.
    pub(crate) fn check_secrets<'a>(&self, set: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
        let set: BTreeSet<_> = set.collect();
        let app = self.app();
        let mut lines = BTreeSet::new();
        for function in &self.manifest.functions {
            for secret in function.secrets.iter().filter(|secret| !set.contains(secret.as_str())) {
                lines.insert(format!(
                    "function \"{}\" reads the secret `{secret}`, which is not set: `marram secret set {app} {secret}`",
                    function.name
                ));
            }
        }
        if lines.is_empty() { Ok(()) } else { Err(invalid(lines.into_iter().collect::<Vec<_>>().join("\n"))) }
    }

    /// Why this stream has to stay while the app is deployed: it is declared here, or consumed. To one that is only published
    /// to nothing happens when it goes: the next event makes it again.
    pub(crate) fn need_of(&self, stream: &StreamName) -> Option<String> {
        let app = self.app();
        if self.manifest.streams.keys().any(|name| StreamName::from(name) == *stream) {
            return Some(format!("app \"{app}\" declares it"));
        }
        let consumes = |function: &&marram_core::manifest::Function| {
            let mut wirings = function.events().filter_map(|on| Wiring::of(app, &function.name, on));
            wirings.any(|wiring| wiring.stream == *stream)
        };
        let consumer = self.manifest.functions.iter().find(consumes)?;
        Some(format!("function \"{}\" of app \"{app}\" consumes it", consumer.name))
    }

    /// The functions that read this secret.
    pub(crate) fn readers_of(&self, secret: &str) -> Vec<Name> {
        let reads = |function: &&marram_core::manifest::Function| function.secrets.iter().any(|name| name == secret);
        self.manifest.functions.iter().filter(reads).map(|function| function.name.clone()).collect()
    }
}

/// `/api/:id`, or `GET,POST /api/:id` where only these methods are taken.
pub(crate) fn route_text(on: &HttpTrigger) -> String {
    if on.methods.is_empty() {
        return on.http.to_string();
    }
    let methods: Vec<_> = on.methods.iter().map(|method| method.as_str()).collect();
    format!("{} {}", methods.join(","), on.http)
}

/// The manifest's text, then each function and its component: the same content is the same revision on every node.
fn revision(manifest_text: &str, components: &BTreeMap<Name, Digest>) -> Digest {
    let texts: Vec<_> = components.iter().map(|(name, digest)| (name.as_str(), digest.to_string())).collect();
    let parts = texts.iter().flat_map(|(name, digest)| [name.as_bytes(), digest.as_bytes()]);
    Digest::of_parts(std::iter::once(manifest_text.as_bytes()).chain(parts))
}

fn invalid(message: String) -> Failure {
    Failure::new(Kind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(app: &str, functions: &str, names: &[&str]) -> Result<Desired, Failure> {
        let text = format!("manifest_version = 1\n[app]\nname = \"{app}\"\n{functions}");
        let components = names.iter().map(|name| (Name::new(name).expect("a name"), Digest::of(name.as_bytes())));
        Desired::new(&text, components.collect())
    }

    const PRICE: &str = "[[function]]\nname = \"price\"\ncomponent = \"price.wasm\"\nsecrets = [\"b\", \"a\"]\non = [{ http = \"/price/...\" }, { http = \"/x\", methods = [\"GET\"] }]\n";

    #[test]
    fn functions_and_components_have_to_match() {
        assert!(desired("shop", PRICE, &["price"]).is_ok());
        let error = desired("shop", PRICE, &[]).expect_err("missing").to_string();
        assert!(error.contains("\"price\"") && error.contains("price.wasm"), "{error}");
        let error = desired("shop", PRICE, &["price", "prize"]).expect_err("too many").to_string();
        assert!(error.contains("\"prize\""), "{error}");
    }

    #[test]
    fn a_revision_is_its_content() {
        let revision = |app, functions, names| desired(app, functions, names).expect("valid").revision;
        assert_eq!(revision("shop", PRICE, &["price"]), revision("shop", PRICE, &["price"]));
        assert_ne!(revision("shop", PRICE, &["price"]), revision("shop2", PRICE, &["price"]));
    }

    #[test]
    fn a_conflict_names_both() {
        let shop = desired("shop", PRICE, &["price"]).expect("valid");
        let other = PRICE.replace("name = \"price\"", "name = \"cost\"");
        let other = desired("bar", &other, &["cost"]).expect("valid");
        let failure = other.check_routes_against(&shop).expect_err("both claim /price/...");
        assert_eq!(failure.kind(), Kind::Conflict);
        for part in ["\"cost\"", "\"bar\"", "\"price\"", "\"shop\"", "/price/..."] {
            assert!(failure.message().contains(part), "{part} is not in {failure}");
        }
        let post = "[[function]]\nname = \"cost\"\ncomponent = \"c\"\non = [{ http = \"/x\", methods = [\"POST\"] }]\n";
        let post = desired("bar", post, &["cost"]).expect("valid");
        assert!(post.check_routes_against(&shop).is_ok());
    }

    #[test]
    fn a_stream_is_needed_by_who_declares_or_consumes_it_and_not_by_who_publishes() {
        let text = "[[function]]\nname = \"take\"\ncomponent = \"c\"\noutput = \"seen\"\nallow = { publish = [\"alarms\"] }\n\
            on = [{ stream = \"readings.dead\" }, { key = \"b/*\" }, { schedule = \"0 8 * * *\" }]\n[stream.readings]\n";
        let app = desired("plant", text, &["take"]).expect("valid");
        let need = |stream: &str| app.need_of(&StreamName::new(stream).expect("a name"));
        assert_eq!(need("readings").as_deref(), Some("app \"plant\" declares it"));
        for consumed in ["readings.dead", "keys", "schedule"] {
            let need = need(consumed).expect(consumed);
            assert_eq!(need, "function \"take\" of app \"plant\" consumes it", "{consumed}");
        }
        for free in ["seen", "alarms", "mqtt", "objects", "other", "seen.dead"] {
            assert_eq!(need(free), None, "{free}");
        }
    }

    #[test]
    fn a_missing_secret_says_what_to_type() {
        let shop = desired("shop", PRICE, &["price"]).expect("valid");
        let failure = shop.check_secrets(["a"].into_iter()).expect_err("b is missing");
        assert!(failure.message().ends_with("`marram secret set shop b`"), "{failure}");
        assert!(shop.check_secrets(["a", "b", "c"].into_iter()).is_ok());
        assert_eq!(shop.readers_of("a").len(), 1);
    }
}
