//! What a function tells others.

use crate::marram::messaging::{mqtt as topics, streams};
use crate::wasi::messaging::producer;
use crate::wasi::messaging::types::{Client, Message};
use crate::{Given, refused};

/// One message by `wasi:messaging`.
pub fn send(client: &str, topic: &str, data: &str) -> Given {
    let client = Client::connect(client).map_err(refused)?;
    let message = Message::new(data.as_bytes());
    message.set_content_type("text/plain");
    message.add_metadata("ce-type", "com.example.sent");
    message.add_metadata("ce-subject", "sent");
    message.add_metadata("color", "green");
    let sent = producer::send(&client, topic, message).map_err(refused);
    client.disconnect().map_err(refused)?;
    sent.map(|()| "sent".into())
}

/// Makes messages and sends none.
pub fn hoard(count: u64, bytes: u64) -> Given {
    let hoard: Vec<_> = (0..count).map(|_| Message::new(&vec![0; bytes as usize])).collect();
    Ok(hoard.len().to_string())
}

/// One event a subject, all at once.
pub fn publish(stream: &str, subjects: &[&str]) -> Given {
    let events: Vec<_> = subjects.iter().map(|subject| event(subject)).collect();
    let published = streams::publish(stream, &events).map_err(refused)?;
    let published: Vec<_> = published.iter().map(|one| (one.position, one.duplicate)).collect();
    Ok(format!("{published:?}"))
}

/// A subject that begins with `=` is the event's id, too; `!` is a name that no attribute may have.
fn event(subject: &str) -> streams::Event {
    let extension = if subject == "!" { "Not A Name" } else { "unit" };
    streams::Event {
        id: subject.strip_prefix('=').map(str::to_owned),
        source: None,
        type_: "com.example.published".into(),
        subject: Some(subject.to_owned()),
        time: None,
        data_content_type: Some("application/json".into()),
        data_schema: None,
        extensions: vec![(extension.into(), "mm/s".into())],
        data: Some(b"{\"rms\":1.4}".to_vec()),
    }
}

/// A message that is retained, once.
pub fn mqtt(topic: &str, payload: &str) -> Given {
    let message = topics::Message {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        qos: topics::Qos::AtLeastOnce,
        retain: true,
        expiry_s: None,
        content_type: Some("text/plain".into()),
        response_topic: None,
        correlation_data: None,
        user_properties: vec![("by".into(), "function".into())],
    };
    topics::publish(&message).map(|()| "published".into()).map_err(refused)
}
