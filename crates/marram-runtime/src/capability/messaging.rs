//! `wasi:messaging@0.2.0-draft`, its sending half: to streams of the node, and to MQTT topics.
//!
//! A client is connected to `streams` (also `default` and the empty name), where a topic is the name of a stream, or to
//! `mqtt`, where it is an MQTT topic. In a stream, metadata named `ce-…` or `ce_…` are attributes of the event, as in the
//! HTTP and Kafka bindings of CloudEvents, and other metadata are extensions where their names allow it.

use bytes::Bytes;
use marram_core::port::mqtt::{Properties, Publication, Qos};
use marram_core::trace::TraceContext;
use marram_core::{Failure, Kind};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower, Resource, ResourceType};

use super::Offer;
use crate::reach::{Draft, Reach};
use crate::room::Held;
use crate::state::GuestState;

pub(super) const OFFER: Offer = Offer {
    prefix: "wasi:messaging/",
    granted: |allow| !allow.publish.is_empty() || !allow.mqtt.is_empty(),
    grants: &["publish = [\"<stream>\"]", "mqtt = [\"<topic filter>\"]"],
    link,
};

/// Bytes that a pair takes besides its texts.
const PAIR_BYTES: usize = 64;

/// `resource client`.
#[derive(Clone, Copy)]
enum Client {
    Streams,
    Mqtt,
}

/// `resource message`. What replaced something is held beside it, until the message goes.
#[derive(Default)]
struct Message {
    held: Vec<Held>,
    content_type: Option<String>,
    data: Bytes,
    metadata: Option<Vec<(String, String)>>,
}

/// `variant error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "timeout")]
    #[allow(dead_code, reason = "part of the interface's type: the deadline of a run ends the run")]
    Timeout,
    #[component(name = "connection")]
    Connection(String),
    #[component(name = "permission-denied")]
    PermissionDenied(String),
    #[component(name = "other")]
    Other(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let message = failure.message().to_owned();
        if failure.kind() == Kind::Unauthorized { Self::PermissionDenied(message) } else { Self::Other(message) }
    }
}

type Store<'a> = StoreContextMut<'a, GuestState>;
type Handle = Resource<Message>;

fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    link_client(linker)?;
    link_message(linker)?;
    let mut producer = linker.instance("wasi:messaging/producer@0.2.0-draft")?;
    producer.func_wrap_async("send", |mut store, (client, topic, message): (Resource<Client>, String, Handle)| {
        Box::new(async move {
            let table = store.data_mut().table();
            let client = *table.get(&client)?;
            let message = table.delete(message)?;
            let (reach, trace) = (store.data().reach(), store.data().trace());
            let sent = send(&reach, trace, client, topic, message).await;
            if let Err(failure) = &sent
                && failure.kind() == Kind::Unauthorized
            {
                store.data().console.warn(format!("wasi:messaging: {failure}"));
            }
            Ok((sent.map_err(Error::from),))
        })
    })
}

fn link_client(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:messaging/types@0.2.0-draft")?;
    instance.resource("client", ResourceType::host::<Client>(), |mut store: Store<'_>, rep| {
        store.data_mut().table().delete(Resource::<Client>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap("[static]client.connect", |mut store: Store<'_>, (name,): (String,)| {
        let client = match &*name {
            "" | "default" | "streams" => Client::Streams,
            "mqtt" => Client::Mqtt,
            _ => {
                let name: String = name.chars().take(80).collect();
                let message = format!("there is no {name:?} to connect to: it is \"streams\" or \"mqtt\"");
                return Ok((Err(Error::Connection(message)),));
            }
        };
        Ok((Ok(store.data_mut().table().push(client)?),))
    })?;
    instance.func_wrap("[method]client.disconnect", |_: Store<'_>, _: (Resource<Client>,)| Ok((Ok::<_, Error>(()),)))
}

fn link_message(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:messaging/types@0.2.0-draft")?;
    instance.resource("message", ResourceType::host::<Message>(), |mut store: Store<'_>, rep| {
        store.data_mut().table().delete(Handle::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap("[constructor]message", |mut store: Store<'_>, (data,): (Vec<u8>,)| {
        let held = vec![store.data().room.take(data.len())?];
        Ok((store.data_mut().table().push(Message { held, data: data.into(), ..Message::default() })?,))
    })?;
    // Only messages that were received have one.
    instance.func_wrap("[method]message.topic", |_: Store<'_>, _: (Handle,)| Ok((None::<String>,)))?;
    instance.func_wrap("[method]message.content-type", |mut store: Store<'_>, (message,): (Handle,)| {
        Ok((store.data_mut().table().get(&message)?.content_type.clone(),))
    })?;
    instance.func_wrap(
        "[method]message.set-content-type",
        |mut store: Store<'_>, (message, content_type): (Handle, String)| {
            let held = store.data().room.take(content_type.len())?;
            let message = store.data_mut().table().get_mut(&message)?;
            message.held.push(held);
            message.content_type = Some(content_type);
            Ok(())
        },
    )?;
    instance.func_wrap("[method]message.data", |mut store: Store<'_>, (message,): (Handle,)| {
        Ok((store.data_mut().table().get(&message)?.data.to_vec(),))
    })?;
    instance.func_wrap("[method]message.set-data", |mut store: Store<'_>, (message, data): (Handle, Vec<u8>)| {
        let held = store.data().room.take(data.len())?;
        let message = store.data_mut().table().get_mut(&message)?;
        message.held.push(held);
        message.data = data.into();
        Ok(())
    })?;
    link_metadata(linker)
}

fn link_metadata(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:messaging/types@0.2.0-draft")?;
    type Metadata = Vec<(String, String)>;
    instance.func_wrap("[method]message.metadata", |mut store: Store<'_>, (message,): (Handle,)| {
        Ok((store.data_mut().table().get(&message)?.metadata.clone(),))
    })?;
    instance.func_wrap(
        "[method]message.add-metadata",
        |mut store: Store<'_>, (message, key, value): (Handle, String, String)| {
            let held = store.data().room.take(PAIR_BYTES + key.len() + value.len())?;
            let message = store.data_mut().table().get_mut(&message)?;
            message.held.push(held);
            let metadata = message.metadata.get_or_insert_default();
            metadata.retain(|(other, _)| *other != key);
            metadata.push((key, value));
            Ok(())
        },
    )?;
    instance.func_wrap(
        "[method]message.set-metadata",
        |mut store: Store<'_>, (message, metadata): (Handle, Metadata)| {
            let bytes = metadata.iter().map(|(key, value)| PAIR_BYTES + key.len() + value.len()).sum();
            let held = store.data().room.take(bytes)?;
            let message = store.data_mut().table().get_mut(&message)?;
            message.held.push(held);
            message.metadata = Some(metadata);
            Ok(())
        },
    )?;
    instance.func_wrap("[method]message.remove-metadata", |mut store: Store<'_>, (message, key): (Handle, String)| {
        if let Some(metadata) = &mut store.data_mut().table().get_mut(&message)?.metadata {
            metadata.retain(|(other, _)| *other != key);
        }
        Ok(())
    })
}

async fn send(
    reach: &Reach,
    trace: Option<TraceContext>,
    client: Client,
    topic: String,
    message: Message,
) -> Result<(), Failure> {
    match client {
        Client::Streams => reach.publish(&topic, vec![draft(message)], trace.as_ref()).await.map(|_| ()),
        Client::Mqtt => reach.publish_mqtt(publication(topic, message)).await,
    }
}

fn draft(message: Message) -> Draft {
    let mut draft = Draft { data_content_type: message.content_type, data: Some(message.data), ..Draft::default() };
    for (name, value) in message.metadata.unwrap_or_default() {
        let attribute = name.strip_prefix("ce-").or_else(|| name.strip_prefix("ce_")).unwrap_or(&name);
        let field = match attribute {
            "id" => &mut draft.id,
            "source" => &mut draft.source,
            "type" => &mut draft.kind,
            "subject" => &mut draft.subject,
            "time" => &mut draft.time,
            "dataschema" => &mut draft.data_schema,
            "datacontenttype" => &mut draft.data_content_type,
            "specversion" => continue,
            _ => {
                draft.extensions.push((attribute.to_owned(), value));
                continue;
            }
        };
        *field = Some(value);
    }
    draft
}

/// At least once, as what a stream gets.
fn publication(topic: String, message: Message) -> Publication {
    let properties = Properties {
        content_type: message.content_type,
        user: message.metadata.unwrap_or_default(),
        ..Properties::default()
    };
    Publication {
        topic,
        payload: message.data,
        qos: Qos::AtLeastOnce,
        properties: (properties != Properties::default()).then(|| Box::new(properties)),
        ..Publication::default()
    }
}
