//! The routes of an app: its functions', and the ways into its streams.

use std::sync::Arc;

use http::Method;
use marram_core::port::{Invoke, Streams};
use marram_core::route::{RoutePattern, Segment};
use marram_core::stream::StreamName;
use marram_core::{FunctionId, Kind};
use marram_gateway::{Route, Target};
use marram_store::SecretValue;

use crate::Token;
use crate::desired::Desired;
use crate::ingest::Ingest;
use crate::reconcile::Observed;
use crate::unavailable::Unavailable;
use marram_core::limits::PUBLISH_BYTES_MAX;

/// The secret of an app that lets events into its streams.
pub(crate) const INGEST_SECRET: &str = "ingest_token";

/// A stream of an app that takes events over the public front.
pub(crate) type IngestRoute = (StreamName, Arc<Target>);

/// The routes of an app; those of one that lost them to another app are left out.
pub(crate) fn of(app: &Observed) -> Vec<Route> {
    if app.running.as_ref().is_err_and(|failure| failure.kind() == Kind::Conflict) {
        return Vec::new();
    }
    let functions = app.desired.manifest.functions.iter().flat_map(|function| {
        let running = app.running.as_ref().ok().and_then(|running| running.functions.get(&function.name));
        let invoke: Arc<dyn Invoke> = match running {
            Some(running) => Arc::clone(running) as Arc<dyn Invoke>,
            None => Unavailable::new(FunctionId {
                app: app.desired.app().clone(),
                function: function.name.clone(),
                revision: app.desired.revision,
            }),
        };
        let target = Target::new(invoke, function.limits.resolve().body.0);
        function.http().map(move |on| Route {
            pattern: on.http.clone(),
            // The manifest admits tokens in upper case only, and those are methods.
            methods: on.methods.iter().filter_map(|method| method.as_str().parse().ok()).collect(),
            target: Arc::clone(&target),
        })
    });
    let ingest = app.ingest.iter().map(|(stream, target)| Route {
        pattern: events_of(stream),
        methods: vec![Method::POST],
        target: Arc::clone(target),
    });
    functions.chain(ingest).collect()
}

/// What takes events for the streams of an app that say `ingest = true`: with the app's own token, or the node's.
pub(crate) fn ingest(
    desired: &Desired,
    secret: Option<&SecretValue>,
    node: Option<&Token>,
    streams: &Arc<dyn Streams>,
) -> Vec<IngestRoute> {
    let own = secret.and_then(|secret| Token::new(secret.expose()).ok());
    let tokens: Vec<_> = own.into_iter().chain(node.cloned()).collect();
    let open = desired.manifest.streams.iter().filter(|(_, table)| table.ingest);
    open.map(|(name, _)| {
        let stream = StreamName::from(name);
        let id = FunctionId { app: desired.app().clone(), function: name.clone(), revision: desired.revision };
        let ingest = Ingest::new(id, stream.clone(), Arc::clone(streams), tokens.clone());
        (stream, Target::new(ingest, PUBLISH_BYTES_MAX as u64))
    })
    .collect()
}

/// `/v1/streams/<stream>/events`, at every host.
fn events_of(stream: &StreamName) -> RoutePattern {
    let segments = ["v1", "streams", stream.as_str(), "events"];
    RoutePattern { host: None, segments: segments.map(|text| Segment::Literal(text.to_owned())).into(), tail: false }
}
