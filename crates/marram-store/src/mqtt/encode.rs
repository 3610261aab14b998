//! Messages and wills as the disk has them: one byte of version, everything else in postcard, then the payload as it is.

use std::sync::Arc;

use bytes::Bytes;
use marram_core::port::mqtt::{Message, Properties, Qos, Will};
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// The only version so far.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    topic: &'a str,
    qos: u8,
    retain: bool,
    publisher: &'a str,
    published_unix_ns: u64,
    expires_unix_ns: Option<u64>,
    #[serde(borrow)]
    properties: Option<Others<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Others<'a> {
    utf8: bool,
    content_type: Option<&'a str>,
    response_topic: Option<&'a str>,
    correlation: Option<&'a [u8]>,
    #[serde(borrow)]
    user: Vec<(&'a str, &'a str)>,
}

pub(super) fn message(message: &Message) -> Vec<u8> {
    let head = Head {
        topic: &message.topic,
        qos: message.qos.level(),
        retain: message.retain,
        publisher: &message.publisher,
        published_unix_ns: message.published_unix_ns,
        expires_unix_ns: message.expires_unix_ns,
        properties: message.properties.as_deref().map(|properties| Others {
            utf8: properties.utf8,
            content_type: properties.content_type.as_deref(),
            response_topic: properties.response_topic.as_deref(),
            correlation: properties.correlation.as_deref(),
            user: properties.user.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        }),
    };
    let mut bytes = Vec::with_capacity(message.size() + 32);
    bytes.push(VERSION);
    let mut bytes = postcard::to_extend(&head, bytes).expect("text and numbers always have an encoding");
    bytes.extend_from_slice(&message.payload);
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Arc<Message>, StoreError> {
    let (head, payload): (Head<'_>, _) = postcard::take_from_bytes(body(bytes)?).map_err(damaged)?;
    let properties = head.properties.map(|properties| {
        let text = |text: &str| text.to_owned();
        Box::new(Properties {
            utf8: properties.utf8,
            content_type: properties.content_type.map(text),
            response_topic: properties.response_topic.map(text),
            correlation: properties.correlation.map(Bytes::copy_from_slice),
            user: properties.user.into_iter().map(|(name, value)| (text(name), text(value))).collect(),
        })
    });
    Ok(Arc::new(Message {
        topic: head.topic.into(),
        payload: Bytes::copy_from_slice(payload),
        qos: Qos::from_level(head.qos).ok_or_else(|| StoreError::Damaged("an MQTT message has no such QoS".into()))?,
        retain: head.retain,
        publisher: head.publisher.into(),
        published_unix_ns: head.published_unix_ns,
        expires_unix_ns: head.expires_unix_ns,
        properties,
    }))
}

/// A will is its delay, its expiry, and its message.
pub(super) fn will(will: &Will) -> Vec<u8> {
    let mut bytes =
        postcard::to_extend(&(will.delay_s, will.expiry_s), Vec::new()).expect("numbers always have an encoding");
    bytes.extend_from_slice(&message(&will.message));
    bytes
}

pub(super) fn decode_will(bytes: &[u8]) -> Result<Will, StoreError> {
    let ((delay_s, expiry_s), rest) = postcard::take_from_bytes(bytes).map_err(damaged)?;
    Ok(Will { message: decode(rest)?, expiry_s, delay_s })
}

pub(super) fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

pub(super) fn decode_numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]])).collect()
}

fn body(bytes: &[u8]) -> Result<&[u8], StoreError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => Ok(body),
        other => {
            Err(StoreError::Damaged(format!("an MQTT message has encoding {:?}", other.map(|(version, _)| version))))
        }
    }
}

fn damaged(error: postcard::Error) -> StoreError {
    StoreError::Damaged(format!("an MQTT message cannot be decoded: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_and_wills_come_back_as_they_were(
            topic in "[a-z/]{1,9}", payload in prop::collection::vec(any::<u8>(), 0..40), level in 0_u8..3,
            retain: bool, publisher in ".{0,5}", published: u64, expires: Option<u64>,
            properties in prop::option::of((any::<bool>(), prop::option::of(".{0,5}"), prop::option::of(".{0,5}"),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..5)), prop::collection::vec((".{0,3}", ".{0,3}"), 0..3))),
            delay: u32, expiry: Option<u32>, numbers in prop::collection::vec(any::<u32>(), 0..4),
        ) {
            let properties = properties.map(|(utf8, content_type, response_topic, correlation, user)| Box::new(Properties {
                utf8, content_type, response_topic, correlation: correlation.map(Bytes::from), user,
            }));
            let message = Message {
                topic: topic.into(), payload: payload.into(), qos: Qos::from_level(level).unwrap(), retain,
                publisher: publisher.into(), published_unix_ns: published, expires_unix_ns: expires, properties,
            };
            prop_assert_eq!(&*decode(&super::message(&message)).unwrap(), &message);
            let kept = Will { message: Arc::new(message), expiry_s: expiry, delay_s: delay };
            prop_assert_eq!(decode_will(&will(&kept)).unwrap(), kept);
            prop_assert_eq!(decode_numbers(&super::numbers(&numbers)), numbers);
        }

        #[test]
        fn a_damaged_row_is_an_error_or_another_message_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (decode(&bytes), decode_will(&bytes));
        }
    }

    /// A later version has to read this.
    #[test]
    fn the_encoding_does_not_change() {
        let message = Message {
            topic: "a/b".into(),
            payload: Bytes::from_static(b"hi"),
            qos: Qos::AtLeastOnce,
            retain: true,
            publisher: "me".into(),
            published_unix_ns: 1,
            expires_unix_ns: Some(2),
            properties: None,
        };
        assert_eq!(super::message(&message), b"\x01\x03a/b\x01\x01\x02me\x01\x01\x02\x00hi");
    }
}
