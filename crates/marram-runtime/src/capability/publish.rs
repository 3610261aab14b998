//! `marram:messaging`: events to streams of the node, and messages to MQTT topics.

use marram_core::port::mqtt::{Properties, Publication, Qos};
use marram_core::port::streams;
use marram_core::{Failure, Kind};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::Offer;
use crate::reach::Draft;
use crate::state::GuestState;

pub(super) const OFFER: Offer = Offer {
    prefix: "marram:messaging/",
    granted: |allow| !allow.publish.is_empty() || !allow.mqtt.is_empty(),
    grants: &["publish = [\"<stream>\"]", "mqtt = [\"<topic filter>\"]"],
    link,
};

/// `variant error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "access-denied")]
    AccessDenied(String),
    #[component(name = "invalid")]
    Invalid(String),
    #[component(name = "full")]
    Full(String),
    #[component(name = "unavailable")]
    Unavailable(String),
}

/// `record event`.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Event {
    id: Option<String>,
    source: Option<String>,
    #[component(name = "type")]
    kind: String,
    subject: Option<String>,
    time: Option<String>,
    #[component(name = "data-content-type")]
    data_content_type: Option<String>,
    #[component(name = "data-schema")]
    data_schema: Option<String>,
    extensions: Vec<(String, String)>,
    data: Option<Vec<u8>>,
}

/// `record published`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Published {
    position: u64,
    duplicate: bool,
}

/// `enum qos`.
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "values come from guests")]
#[allow(clippy::enum_variant_names, reason = "the standard's names")]
enum Level {
    #[component(name = "at-most-once")]
    AtMostOnce,
    #[component(name = "at-least-once")]
    AtLeastOnce,
    #[component(name = "exactly-once")]
    ExactlyOnce,
}

/// `record message`.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: Level,
    retain: bool,
    #[component(name = "expiry-s")]
    expiry_s: Option<u32>,
    #[component(name = "content-type")]
    content_type: Option<String>,
    #[component(name = "response-topic")]
    response_topic: Option<String>,
    #[component(name = "correlation-data")]
    correlation: Option<Vec<u8>>,
    #[component(name = "user-properties")]
    user: Vec<(String, String)>,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let message = failure.message().to_owned();
        match failure.kind() {
            Kind::Unauthorized => Self::AccessDenied(message),
            Kind::Invalid | Kind::BadRequest | Kind::BodyTooLarge => Self::Invalid(message),
            Kind::StreamFull | Kind::StorageFull => Self::Full(message),
            _ => Self::Unavailable(message),
        }
    }
}

impl From<Event> for Draft {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            source: event.source,
            kind: Some(event.kind),
            subject: event.subject,
            time: event.time,
            data_content_type: event.data_content_type,
            data_schema: event.data_schema,
            extensions: event.extensions,
            data: event.data.map(Into::into),
        }
    }
}

impl From<streams::Published> for Published {
    fn from(published: streams::Published) -> Self {
        Self { position: published.position, duplicate: published.duplicate }
    }
}

impl From<Message> for Publication {
    fn from(message: Message) -> Self {
        let properties = Properties {
            utf8: false,
            content_type: message.content_type,
            response_topic: message.response_topic,
            correlation: message.correlation.map(Into::into),
            user: message.user,
        };
        Self {
            topic: message.topic,
            payload: message.payload.into(),
            qos: Qos::from_level(message.qos as u8).expect("the three are the three"),
            retain: message.retain,
            expiry_s: message.expiry_s,
            properties: (properties != Properties::default()).then(|| Box::new(properties)),
            publisher: String::new(),
        }
    }
}

fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    type Store<'a> = StoreContextMut<'a, GuestState>;
    let mut instance = linker.instance("marram:messaging/streams@0.1.0")?;
    instance.func_wrap_async("publish", |store: Store<'_>, (stream, events): (String, Vec<Event>)| {
        Box::new(async move {
            let (reach, trace) = (store.data().reach(), store.data().trace());
            let drafts = events.into_iter().map(Draft::from).collect();
            let published = reach.publish(&stream, drafts, trace.as_ref()).await;
            let published = published.map(|published| published.into_iter().map(Published::from).collect::<Vec<_>>());
            Ok((published.map_err(|failure| told(&store, failure)),))
        })
    })?;
    let mut instance = linker.instance("marram:messaging/mqtt@0.1.0")?;
    instance.func_wrap_async("publish", |store: Store<'_>, (message,): (Message,)| {
        Box::new(async move {
            let published = store.data().reach().publish_mqtt(message.into()).await;
            Ok((published.map_err(|failure| told(&store, failure)),))
        })
    })
}

/// What is not granted is in the function's log too: guests often drop the text of an error.
fn told(store: &StoreContextMut<'_, GuestState>, failure: Failure) -> Error {
    if failure.kind() == Kind::Unauthorized {
        store.data().console.warn(format!("marram:messaging: {failure}"));
    }
    failure.into()
}
