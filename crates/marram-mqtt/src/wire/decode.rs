//! A whole packet becomes one of ours.

use std::num::NonZeroU16;
use std::ops::Deref;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use marram_core::port::mqtt::{Message, Properties, Qos, Will};
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{LastWill, PublishProperties, RetainHandling};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::{AckKind, Connect, Fault, Frame, Inbound, Options, Packet, Reason, Retained, Subscribe, Version, check};
use crate::limits::{CLIENT_ID_BYTES_MAX, PROPERTY_BYTES_MAX, USER_PROPERTIES_MAX};
use crate::topic;

/// Takes the packet of `frame`, which is there in full, from the front of `buffer`. The first of a connection has no version
/// yet, and has to be a CONNECT.
pub(crate) fn decode(version: Option<Version>, frame: Frame, buffer: &mut BytesMut) -> Result<Packet, Fault> {
    let first = buffer[0];
    let body = &buffer[frame.header..frame.total];
    match version {
        None if first != 0x10 => Err(Fault::protocol("the first packet is not a CONNECT")),
        Some(_) if first >> 4 == 1 => Err(Fault::protocol("a second CONNECT")),
        None => {
            let version = connect_version(body)?;
            check::connect(body)?;
            let flags = frame.header + 7;
            let resumes = version.is_5() && buffer[flags] & 0x02 == 0;
            if resumes {
                // The codec wants a clean start of a client without an identifier; 5.0 does not (§3.1.3.1).
                buffer[flags] |= 0x02;
            }
            let mut packet = decode_as(version, buffer)?;
            if let (true, Packet::Connect(connect)) = (resumes, &mut packet) {
                connect.clean = false;
            }
            Ok(packet)
        }
        Some(version) => {
            check::packet(version, first, body)?;
            decode_as(version, buffer)
        }
    }
}

fn decode_as(version: Version, buffer: &mut BytesMut) -> Result<Packet, Fault> {
    if version.is_5() {
        let decoded = v5::Codec::new(0, 0).decode(buffer).map_err(|error| fault(&error))?;
        from_5(decoded.ok_or(Fault::malformed("the packet ends early"))?.0)
    } else {
        let decoded = v3::Codec::new(0).decode(buffer).map_err(|error| fault(&error))?;
        from_3(version, decoded.ok_or(Fault::malformed("the packet ends early"))?.0)
    }
}

/// The name and number of the protocol (§3.1.2.1, §3.1.2.2).
fn connect_version(body: &[u8]) -> Result<Version, Fault> {
    match body {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Ok(Version::V3_1_1),
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Ok(Version::V5),
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, ..] => Ok(Version::V3_1),
        [0, 4, b'M', b'Q', b'T', b'T', _, ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', _, ..] => {
            Err(Fault::new(Reason::VERSION, "the version of the protocol is none that is spoken here"))
        }
        _ => Err(Fault::protocol("the name of the protocol is not MQTT")),
    }
}

fn fault(error: &DecodeError) -> Fault {
    match error {
        DecodeError::InvalidProtocol | DecodeError::UnsupportedProtocolLevel => {
            Fault::new(Reason::VERSION, "the version of the protocol is none that is spoken here")
        }
        DecodeError::InvalidClientId => Fault::new(Reason::CLIENT_ID, "an empty client identifier needs a clean start"),
        DecodeError::InvalidTopicFilter => Fault::protocol("there is no topic filter"),
        DecodeError::InvalidTopicName => Fault::new(Reason::TOPIC_INVALID, "the topic is empty"),
        DecodeError::Utf8Error => Fault::malformed("a string is not UTF-8"),
        DecodeError::ConnectReservedFlagSet => Fault::malformed("the reserved flag of the CONNECT is set"),
        DecodeError::UnsupportedPacketType => Fault::malformed("the type or the flags of the packet are reserved"),
        DecodeError::InvalidLength => Fault::malformed("a field is longer than its packet, or shorter"),
        _ => Fault::malformed("a field has a value that it must not have"),
    }
}

fn from_3(version: Version, packet: v3::Packet) -> Result<Packet, Fault> {
    Ok(match packet {
        v3::Packet::Connect(connect) => Packet::Connect(Box::new(connect_3(version, *connect)?)),
        v3::Packet::Publish(publish) => Packet::Publish(Box::new(inbound(*publish)?)),
        v3::Packet::PublishAck { packet_id } => Packet::Ack(AckKind::Ack, packet_id, Reason::SUCCESS),
        v3::Packet::PublishReceived { packet_id } => Packet::Ack(AckKind::Rec, packet_id, Reason::SUCCESS),
        v3::Packet::PublishRelease { packet_id } => Packet::Ack(AckKind::Rel, packet_id, Reason::SUCCESS),
        v3::Packet::PublishComplete { packet_id } => Packet::Ack(AckKind::Comp, packet_id, Reason::SUCCESS),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            let options =
                |qos| Options { qos, no_local: false, retain_as_published: false, retained: Retained::Always };
            let filters = topic_filters.into_iter().map(|(filter, qos)| (filter, options(level(qos)))).collect();
            Packet::Subscribe(Box::new(Subscribe { packet: packet_id, id: 0, filters }))
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => Packet::Unsubscribe(packet_id, topic_filters),
        v3::Packet::PingRequest => Packet::Ping,
        v3::Packet::Disconnect => Packet::Disconnect(Reason::SUCCESS, None),
        _ => return Err(Fault::protocol("only a server sends this packet")),
    })
}

fn from_5(packet: v5::Packet) -> Result<Packet, Fault> {
    Ok(match packet {
        v5::Packet::Connect(connect) => Packet::Connect(Box::new(connect_5(*connect)?)),
        v5::Packet::Publish(publish) => Packet::Publish(Box::new(inbound(*publish)?)),
        v5::Packet::PublishAck(ack) => Packet::Ack(AckKind::Ack, ack.packet_id, Reason(ack.reason_code.into())),
        v5::Packet::PublishReceived(ack) => Packet::Ack(AckKind::Rec, ack.packet_id, Reason(ack.reason_code.into())),
        v5::Packet::PublishRelease(ack) => Packet::Ack(AckKind::Rel, ack.packet_id, Reason(ack.reason_code.into())),
        v5::Packet::PublishComplete(ack) => Packet::Ack(AckKind::Comp, ack.packet_id, Reason(ack.reason_code.into())),
        v5::Packet::Subscribe(subscribe) => {
            let filters = subscribe.topic_filters.into_iter().map(|(filter, given)| (filter, options(given))).collect();
            let id = subscribe.id.map_or(0, std::num::NonZeroU32::get);
            Packet::Subscribe(Box::new(Subscribe { packet: subscribe.packet_id, id, filters }))
        }
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(unsubscribe.packet_id, unsubscribe.topic_filters),
        v5::Packet::PingRequest => Packet::Ping,
        v5::Packet::Disconnect(farewell) => {
            if farewell.server_reference.is_some() {
                return Err(Fault::protocol("a client's DISCONNECT names a server"));
            }
            Packet::Disconnect(Reason(farewell.reason_code.into()), farewell.session_expiry_interval_secs)
        }
        v5::Packet::Auth(_) => Packet::Auth,
        _ => return Err(Fault::protocol("only a server sends this packet")),
    })
}

const fn level(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

fn options(given: v5::SubscriptionOptions) -> Options {
    Options {
        qos: level(given.qos),
        no_local: given.no_local,
        retain_as_published: given.retain_as_published,
        retained: match given.retain_handling {
            RetainHandling::AtSubscribe => Retained::Always,
            RetainHandling::AtSubscribeNew => Retained::IfNew,
            RetainHandling::NoAtSubscribe => Retained::Never,
        },
    }
}

fn connect_3(version: Version, given: v3::Connect) -> Result<Connect, Fault> {
    let will = given.last_will.map(|will| {
        let message = message(&will.topic, will.message, level(will.qos), will.retain, None)?;
        Ok(Will { message, expiry_s: None, delay_s: 0 })
    });
    Ok(Connect {
        version,
        clean: given.clean_session,
        client: client_id(given.client_id)?,
        keep_alive_s: given.keep_alive,
        expiry_s: if given.clean_session { 0 } else { u32::MAX },
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        problem_information: false,
        authentication_method: false,
        user: no_null(given.username)?,
        password: given.password,
        will: will.transpose()?,
    })
}

fn connect_5(given: v5::Connect) -> Result<Connect, Fault> {
    if given.auth_data.is_some() && given.auth_method.is_none() {
        return Err(Fault::protocol("authentication data without a method"));
    }
    user_properties(&given.user_properties)?;
    Ok(Connect {
        version: Version::V5,
        clean: given.clean_start,
        client: client_id(given.client_id)?,
        keep_alive_s: given.keep_alive,
        expiry_s: given.session_expiry_interval_secs,
        receive_max: given.receive_max.map_or(u16::MAX, NonZeroU16::get),
        packet_bytes_max: given.max_packet_size.map_or(u32::MAX, std::num::NonZeroU32::get),
        problem_information: given.request_problem_info,
        authentication_method: given.auth_method.is_some(),
        user: no_null(given.username)?,
        password: given.password,
        will: given.last_will.map(will_5).transpose()?,
    })
}

fn will_5(will: LastWill) -> Result<Will, Fault> {
    let (expiry_s, delay_s) =
        (will.message_expiry_interval.map(std::num::NonZeroU32::get), will.will_delay_interval_sec.unwrap_or(0));
    let properties = PublishProperties {
        correlation_data: will.correlation_data,
        content_type: will.content_type,
        user_properties: will.user_properties,
        is_utf8_payload: will.is_utf8_payload.unwrap_or(false),
        response_topic: will.response_topic,
        ..PublishProperties::default()
    };
    let message = message(&will.topic, will.message, level(will.qos), will.retain, self::properties(properties)?)?;
    Ok(Will { message, expiry_s, delay_s })
}

/// A will's message: who, and when, is said when it is published.
fn message(
    topic: &ByteString,
    payload: Bytes,
    qos: Qos,
    retain: bool,
    properties: Option<Box<Properties>>,
) -> Result<Arc<Message>, Fault> {
    check_name(topic, "the topic of the will is not a topic name")?;
    if properties.as_ref().is_some_and(|p| p.utf8) && std::str::from_utf8(&payload).is_err() {
        return Err(Fault::new(Reason::PAYLOAD_FORMAT, "the will says that it is UTF-8, and is not"));
    }
    Ok(Arc::new(Message {
        topic: (&**topic).into(),
        payload: Bytes::copy_from_slice(&payload),
        qos,
        retain,
        publisher: "".into(),
        published_unix_ns: 0,
        expires_unix_ns: None,
        properties,
    }))
}

/// Whether a message of elsewhere is one that this broker would take from a client.
pub(crate) fn check_message(message: &Publish) -> Result<(), Fault> {
    inbound(message.clone()).map(drop)
}

fn inbound(given: Publish) -> Result<Inbound, Fault> {
    let mut inbound = Inbound {
        topic: given.topic,
        alias: None,
        payload: given.payload,
        qos: level(given.qos),
        retain: given.retain,
        packet: given.packet_id,
        expiry_s: None,
        properties: None,
    };
    if let Some(properties) = given.properties {
        if !properties.subscription_ids.is_empty() {
            return Err(Fault::protocol("a client's PUBLISH has a subscription identifier"));
        }
        inbound.alias = properties.topic_alias;
        inbound.expiry_s = properties.message_expiry_interval.map(std::num::NonZeroU32::get);
        inbound.properties = self::properties(properties)?;
    }
    if inbound.alias.is_none() || !inbound.topic.is_empty() {
        check_name(&inbound.topic, "the topic is empty, has wildcards, more than 1024 bytes or more than 64 levels")?;
    }
    Ok(inbound)
}

/// A topic name, or why not. Control characters and noncharacters are malformed here (§1.5.4).
fn check_name(name: &str, not_a_name: &'static str) -> Result<(), Fault> {
    if topic::is_name(name) {
        Ok(())
    } else if topic::is_well_formed(name) {
        Err(Fault::new(Reason::TOPIC_INVALID, not_a_name))
    } else {
        Err(Fault::malformed("a topic contains U+0000, another control character or a noncharacter"))
    }
}

/// `None` when there is nothing to say.
fn properties(given: PublishProperties) -> Result<Option<Box<Properties>>, Fault> {
    let nothing = given.user_properties.is_empty()
        && !given.is_utf8_payload
        && given.content_type.is_none()
        && given.response_topic.is_none()
        && given.correlation_data.is_none();
    if nothing {
        return Ok(None);
    }
    // Before they are copied.
    user_properties(&given.user_properties)?;
    let text = |text: ByteString| String::from(&*text);
    let properties = Properties {
        utf8: given.is_utf8_payload,
        content_type: given.content_type.map(text),
        response_topic: given.response_topic.map(text),
        correlation: given.correlation_data.map(|data| Bytes::copy_from_slice(&data)),
        user: given.user_properties.into_iter().map(|(name, value)| (text(name), text(value))).collect(),
    };
    other_properties(&properties)?;
    Ok(Some(Box::new(properties)))
}

/// Whether a message of this node's own has properties that a client's could have.
pub(crate) fn check_properties(properties: &Properties) -> Result<(), Fault> {
    user_properties(&properties.user)?;
    other_properties(properties)
}

fn user_properties<S: Deref<Target = str>>(given: &[(S, S)]) -> Result<(), Fault> {
    if given.len() > USER_PROPERTIES_MAX {
        return Err(Fault::new(Reason::TOO_LARGE, "there are more than 64 user properties"));
    }
    if given.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
        return Err(Fault::malformed("a user property contains U+0000"));
    }
    Ok(())
}

fn other_properties(properties: &Properties) -> Result<(), Fault> {
    let why = "the response topic is not a topic name";
    if let Some(Err(fault)) = properties.response_topic.as_deref().map(|topic| check_name(topic, why)) {
        return Err(Fault { why, ..fault });
    }
    if properties.content_type.as_ref().is_some_and(|text| text.contains('\0')) {
        return Err(Fault::malformed("the content type contains U+0000"));
    }
    let lengths = properties.user.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        + properties.content_type.as_ref().map_or(0, String::len)
        + properties.correlation.as_ref().map_or(0, Bytes::len);
    if lengths > PROPERTY_BYTES_MAX {
        let why = "the content type, correlation data and user properties have more than 32 KiB";
        return Err(Fault::new(Reason::TOO_LARGE, why));
    }
    Ok(())
}

fn client_id(id: ByteString) -> Result<ByteString, Fault> {
    if id.contains('\0') {
        return Err(Fault::malformed("the client identifier contains U+0000"));
    }
    if id.len() > CLIENT_ID_BYTES_MAX {
        return Err(Fault::new(Reason::CLIENT_ID, "the client identifier is longer than 256 bytes"));
    }
    Ok(id)
}

fn no_null(text: Option<ByteString>) -> Result<Option<ByteString>, Fault> {
    match text {
        Some(text) if text.contains('\0') => Err(Fault::malformed("a string contains U+0000")),
        text => Ok(text),
    }
}
