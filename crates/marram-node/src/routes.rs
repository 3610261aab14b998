//! The routes of apps: their functions', and the ways into their streams.

use std::collections::BTreeMap;
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

/// The routes of these apps; those of one that lost them to another app are left out. A stream that several apps open is one
/// route, which takes the token of each.
pub(crate) fn of<'a>(apps: impl Iterator<Item = &'a Arc<Observed>>) -> Vec<Route> {
    let (mut routes, mut doors) = (Vec::new(), BTreeMap::<&StreamName, Arc<Ingest>>::new());
    for app in apps {
        if app.running.as_ref().is_err_and(|failure| failure.kind() == Kind::Conflict) {
            continue;
        }
        routes.extend(functions(app));
        for door in &app.ingest {
            let both = |known: &mut Arc<Ingest>| *known = known.with(door);
            doors.entry(door.stream()).and_modify(both).or_insert_with(|| Arc::clone(door));
        }
    }
    routes.extend(doors.into_iter().map(|(stream, door)| Route {
        pattern: events_of(stream),
        methods: vec![Method::POST],
        target: Target::new(door, PUBLISH_BYTES_MAX as u64),
    }));
    routes
}

fn functions(app: &Observed) -> impl Iterator<Item = Route> {
    app.desired.manifest.functions.iter().flat_map(|function| {
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
    })
}

/// What takes events for the streams of an app that say `ingest = true`: with the app's own token, or the node's.
pub(crate) fn ingest(
    desired: &Desired,
    secret: Option<&SecretValue>,
    node: Option<&Token>,
    streams: &Arc<dyn Streams>,
) -> Vec<Arc<Ingest>> {
    let own = secret.and_then(|secret| Token::new(secret.expose()).ok());
    let tokens: Vec<_> = own.into_iter().chain(node.cloned()).collect();
    let open = desired.manifest.streams.iter().filter(|(_, table)| table.ingest);
    open.map(|(name, _)| {
        let stream = StreamName::from(name);
        let id = FunctionId { app: desired.app().clone(), function: name.clone(), revision: desired.revision };
        Ingest::new(id, stream, Arc::clone(streams), tokens.clone())
    })
    .collect()
}

/// `/v1/streams/<stream>/events`, at every host.
pub(crate) fn events_of(stream: &StreamName) -> RoutePattern {
    let segments = ["v1", "streams", stream.as_str(), "events"];
    RoutePattern { host: None, segments: segments.map(|text| Segment::Literal(text.to_owned())).into(), tail: false }
}
