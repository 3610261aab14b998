//! How far a function reaches into the state of its node: its grants, in front of the node's ports.
//!
//! Interfaces of components and bindings of JavaScript both go through here, so a grant is looked at in one place.

use std::sync::Arc;

use bytes::Bytes;
use marram_core::event::{Attribute, Event};
use marram_core::limits::PUBLISH_BYTES_MAX;
use marram_core::manifest::Allow;
use marram_core::port::mqtt::Publication;
use marram_core::port::streams::Published;
use marram_core::port::{Blobs, Clock, Crdt, Entropy, Kv};
use marram_core::stream::StreamName;
use marram_core::time::Timestamp;
use marram_core::trace::TraceContext;
use marram_core::{Failure, FunctionId, Kind, Name};

use crate::ports::{Ports, StatePorts};

/// `type` of an event whose author did not say.
pub(crate) const EVENT_TYPE: &str = "marram.message";

/// One function's reach.
pub(crate) struct Reach {
    id: Arc<FunctionId>,
    pub(crate) allow: Allow,
    state: Option<StatePorts>,
    pub(crate) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// An event before what its author left out is filled in.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) id: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) time: Option<String>,
    pub(crate) data_content_type: Option<String>,
    pub(crate) data_schema: Option<String>,
    pub(crate) extensions: Vec<(String, String)>,
    pub(crate) data: Option<Bytes>,
}

impl Reach {
    pub(crate) fn new(id: &Arc<FunctionId>, allow: &Allow, ports: &Ports) -> Self {
        Self {
            id: Arc::clone(id),
            allow: allow.clone(),
            state: ports.state.clone(),
            clock: Arc::clone(&ports.clock),
            entropy: Arc::clone(&ports.entropy),
        }
    }

    fn state(&self) -> Result<&StatePorts, Failure> {
        self.state.as_ref().ok_or_else(|| Failure::new(Kind::Internal, "this runtime keeps no state"))
    }

    /// A bucket of keys that was granted.
    pub(crate) fn bucket(&self, bucket: &str) -> Result<&Name, Failure> {
        granted(&self.allow.kv, bucket, Name::as_str).ok_or_else(|| self.denied("use the bucket", bucket, "allow.kv"))
    }

    /// The bucket that `wasi:keyvalue/store.open` names: `""` is the default store, which is the only bucket that was granted.
    pub(crate) fn opened(&self, identifier: &str) -> Result<&Name, Failure> {
        if !identifier.is_empty() {
            return self.bucket(identifier);
        }
        let id = &self.id;
        let told = match &self.allow.kv[..] {
            [only] => return Ok(only),
            [] => format!(
                "{id} opens the default bucket \"\", and was granted none: add `kv = [\"<bucket>\"]` to its allow"
            ),
            several => {
                let names = several.iter().map(|name| format!("{:?}", name.as_str())).collect::<Vec<_>>().join(", ");
                format!(
                    "{id} opens the default bucket \"\", and its allow.kv has several: open one of {names} by its name, or leave one there"
                )
            }
        };
        Err(Failure::new(Kind::Invalid, told))
    }

    /// The node's keys. Which bucket may be named to them, [`Reach::bucket`] says.
    pub(crate) fn kv(&self) -> Result<&dyn Kv, Failure> {
        Ok(&*self.state()?.kv)
    }

    /// The node's collections, for buckets that [`Reach::bucket`] gives.
    pub(crate) fn crdt(&self) -> Result<&dyn Crdt, Failure> {
        Ok(&*self.state()?.crdt)
    }

    /// A bucket of objects that was granted.
    pub(crate) fn container(&self, bucket: &str) -> Result<&Name, Failure> {
        granted(&self.allow.blob, bucket, Name::as_str)
            .ok_or_else(|| self.denied("use the objects of", bucket, "allow.blob"))
    }

    /// The node's objects, for buckets that [`Reach::container`] gives.
    pub(crate) fn blobs(&self) -> Result<&Arc<dyn Blobs>, Failure> {
        Ok(&self.state()?.blobs)
    }

    /// Publishes events to a stream; resolves once they are durable.
    pub(crate) async fn publish(
        &self,
        stream: &str,
        drafts: Vec<Draft>,
        trace: Option<&TraceContext>,
    ) -> Result<Vec<Published>, Failure> {
        let stream = granted(&self.allow.publish, stream, StreamName::as_str)
            .ok_or_else(|| self.denied("publish to the stream", stream, "allow.publish"))?;
        let now = Timestamp(self.clock.unix_ns()).to_string();
        let mut events = Vec::with_capacity(drafts.len());
        let mut bytes = 0;
        for draft in drafts {
            let event = self.event(draft, &now, trace)?;
            bytes += event.size();
            events.push(event);
        }
        if bytes > PUBLISH_BYTES_MAX as u64 {
            let message =
                format!("the events have {bytes} bytes, more than {PUBLISH_BYTES_MAX}: publish fewer at once");
            return Err(Failure::new(Kind::BodyTooLarge, message));
        }
        self.state()?.streams.publish(stream, events).await
    }

    /// Publishes to an MQTT topic; resolves once that is durable.
    pub(crate) async fn publish_mqtt(&self, publication: Publication) -> Result<(), Failure> {
        let topic = &publication.topic;
        if !self.allow.mqtt.iter().any(|allowed| allowed.filter().matches(topic)) {
            return Err(self.denied("publish to the topic", topic, "allow.mqtt"));
        }
        let publisher = format!("{}/{}", self.id.app, self.id.function);
        self.state()?.mqtt.publish(Publication { publisher, ..publication }).await
    }

    fn event(&self, draft: Draft, now: &str, trace: Option<&TraceContext>) -> Result<Event, Failure> {
        let id = &self.id;
        let mut event = Event {
            id: draft.id.unwrap_or_else(|| format!("{:016x}{:016x}", self.entropy.u64(), self.entropy.u64())),
            source: draft.source.unwrap_or_else(|| format!("/functions/{}/{}", id.app, id.function)),
            kind: draft.kind.unwrap_or_else(|| EVENT_TYPE.to_owned()),
            subject: draft.subject.unwrap_or_default(),
            time: draft.time.unwrap_or_else(|| now.to_owned()),
            data_content_type: draft.data_content_type.unwrap_or_default(),
            data_schema: draft.data_schema.unwrap_or_default(),
            extensions: draft.extensions.into_iter().map(|(name, text)| (name, Attribute::Text(text))).collect(),
            data: draft.data,
        };
        if let Some(trace) = trace {
            event.continue_trace(trace, None);
        }
        event.check()?;
        Ok(event)
    }

    fn denied(&self, what: &str, name: &str, list: &str) -> Failure {
        let name: String = name.chars().take(80).collect();
        let message = format!("{} may not {what} {name:?}: add {name:?} to its {list}", self.id);
        Failure::new(Kind::Unauthorized, message)
    }
}

fn granted<'a, T>(list: &'a [T], name: &str, text: fn(&T) -> &str) -> Option<&'a T> {
    list.iter().find(|granted| text(granted) == name)
}
