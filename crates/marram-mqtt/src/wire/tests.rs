use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use marram_core::port::mqtt::{Message, Properties};
use proptest::prelude::*;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::*;

const ROOM: Room = Room { packet_bytes_max: u32::MAX, words: true };

fn one(version: Option<Version>, bytes: &[u8]) -> Result<Packet, Fault> {
    let mut buffer = BytesMut::from(bytes);
    let frame = frame(&buffer, 1 << 20)?.expect("the packet has a length");
    assert_eq!(frame.total, bytes.len(), "the packet's length is wrong");
    decode(version, frame, &mut buffer)
}

/// The remaining length is put in; `first` is the first byte.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[first, body.len() as u8], body].concat()
}

fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    packet(0x10, &[&[0, 4], &b"MQTT"[..], &[level, flags, 0, 60], rest].concat())
}

#[test]
fn a_connect_that_one_version_forbids_is_refused() {
    let malformed = [
        connect(4, 0x01, b"\0\x01a"),                         // the reserved flag
        connect(4, 0x0a, b"\0\x01a"),                         // a will's QoS without a will
        connect(4, 0x22, b"\0\x01a"),                         // a retained will without a will
        connect(4, 0x42, b"\0\x01a\0\x01p"),                  // a password without a user
        connect(4, 0x02, b"\0\x01a!"),                        // something after the end
        connect(4, 0x02, b"\0\x01\0"),                        // U+0000
        connect(4, 0x02, b"\0\x01\xff"),                      // not UTF-8
        connect(4, 0x02, b"\0\x05a"),                         // ends early
        connect(4, 0x82, b"\0\x01a"),                         // a user that is not there
        connect(5, 0x0a, b"\0\0\x01a"),                       // a will's QoS without a will
        connect(5, 0x02, b"\0\0\x01a!"),                      // something after the end
        connect(5, 0x02, b"\x80\x00\0\x01a"),                 // a length that is longer than it needs to be
        connect(5, 0x02, b"\x03\x21\0\0\0\x01a"),             // a receive maximum of 0
        connect(5, 0x02, b"\x05\x27\0\0\0\0\0\x01a"),         // a packet size of 0
        connect(5, 0x02, b"\x06\x21\0\x01\x21\0\x01\0\x01a"), // a property twice
        connect(5, 0x02, b"\x02\x17\x02\0\x01a"),             // neither yes nor no
        connect(5, 0x02, b"\x02\x24\x01\0\x01a"),             // a property of a CONNACK
        connect(5, 0x1e, b"\0\0\x01a\0\0\x01t\0\x01m"),       // a will of QoS 3
        connect(4, 0x06, b"\0\x01a\0\x01\x01\0\0"),           // a will for a topic with a control character
        connect(4, 0x06, b"\0\x01a\0\x01\xff\0\0"),           // or one that is not UTF-8
        connect(5, 0x06, b"\0\0\x01a\0\0\x01\xff\0\0"),
        connect(4, 0x82, b"\0\x01a\0\x01\xff"), // a user that is not UTF-8
        connect(5, 0x82, b"\0\0\x01a\0\x01\xff"),
    ];
    for bytes in malformed {
        assert_eq!(one(None, &bytes).unwrap_err().reason, Reason::MALFORMED, "{bytes:x?}");
    }
    for (bytes, reason) in [
        (connect(6, 0x02, b"\0\x01a"), Reason::VERSION),
        (connect(3, 0x02, b"\0\x01a"), Reason::VERSION),
        (packet(0x10, b"\0\x04MQTX\x04\x02\0\0\0\x01a"), Reason::PROTOCOL),
        (connect(4, 0x00, b"\0\0"), Reason::CLIENT_ID),
        (connect(4, 0x06, b"\0\x01a\0\x01+\0\0"), Reason::TOPIC_INVALID),
        (connect(5, 0x02, b"\x04\x16\0\x01d\0\x01a"), Reason::PROTOCOL),
        (packet(0xc0, b""), Reason::PROTOCOL),
        (packet(0x30, b"\0\x01a"), Reason::PROTOCOL),
    ] {
        assert_eq!(one(None, &bytes).unwrap_err().reason, reason, "{bytes:x?}");
    }
    for bytes in [
        connect(4, 0x02, b"\0\0"),
        connect(4, 0xc2, b"\0\x01a\0\x01u\0\x01p"),
        connect(5, 0x00, b"\0\0\0"), // 5.0 assigns an identifier whether the start is clean or not
        connect(5, 0x42, b"\0\0\x01a\0\x01p"), // 5.0 takes a password alone
        packet(0x10, b"\0\x06MQIsdp\x03\x02\0\0\0\x01a"),
    ] {
        assert!(matches!(one(None, &bytes), Ok(Packet::Connect(_))), "{bytes:x?}");
    }
}

#[test]
fn packets_that_the_standard_forbids_are_refused() {
    let (old, new) = (Some(Version::V3_1_1), Some(Version::V5));
    for (version, bytes, reason) in [
        (old, packet(0x38, b"\0\x01ax"), Reason::MALFORMED), // DUP with QoS 0
        (old, packet(0x36, b"\0\x01a\0\x01"), Reason::MALFORMED), // QoS 3
        (old, packet(0x32, b"\0\x01a\0\0"), Reason::MALFORMED), // packet identifier 0
        (old, packet(0x30, b"\0\x01+"), Reason::TOPIC_INVALID),
        (old, packet(0x30, b"\0\0"), Reason::TOPIC_INVALID),
        (old, packet(0x30, b"\0\x01\0"), Reason::MALFORMED),
        (old, packet(0x30, b"\0\x03a/\x01"), Reason::MALFORMED), // control characters and noncharacters
        (old, packet(0x30, b"\0\x01\x7f"), Reason::MALFORMED),
        (old, packet(0x30, b"\0\x02\xc2\x85"), Reason::MALFORMED),
        (old, packet(0x30, b"\0\x03\xef\xbf\xbf"), Reason::MALFORMED),
        (new, packet(0x30, b"\0\x03a/\x1f\0"), Reason::MALFORMED),
        (new, packet(0x30, b"\0\x01a\x04\x08\0\x01\x01"), Reason::MALFORMED), // in a response topic, too
        (old, packet(0x30, b"\0\x03\xed\xa0\x80"), Reason::MALFORMED),        // a surrogate
        (old, packet(0x82, b"\0\x01"), Reason::PROTOCOL),                     // no filter
        (old, packet(0x80, b"\0\x01\0\x01a\0"), Reason::MALFORMED),           // reserved flags
        (old, packet(0x82, b"\0\x01\0\x01a\x04"), Reason::MALFORMED),         // reserved bits of the QoS
        (old, packet(0x82, b"\0\x01\0\x01a\x03"), Reason::MALFORMED),
        (old, packet(0x82, b"\0\0\0\x01a\0"), Reason::MALFORMED),
        (old, packet(0xa2, b"\0\x01"), Reason::PROTOCOL),
        (old, packet(0xa0, b"\0\x01\0\x01a"), Reason::MALFORMED),
        (old, packet(0x60, b"\0\x01"), Reason::MALFORMED), // PUBREL has flags
        (old, packet(0x40, b"\0\x01\0"), Reason::MALFORMED),
        (old, packet(0xc0, b"x"), Reason::MALFORMED),
        (old, packet(0xe0, b"x"), Reason::MALFORMED),
        (old, packet(0xe1, b""), Reason::MALFORMED),
        (old, packet(0xf0, b""), Reason::MALFORMED),
        (old, packet(0x00, b""), Reason::MALFORMED),
        (old, packet(0xd0, b""), Reason::PROTOCOL), // only a server sends it
        (old, packet(0x20, b"\0\0"), Reason::PROTOCOL),
        (old, connect(4, 0x02, b"\0\x01a"), Reason::PROTOCOL), // a second CONNECT
        (new, packet(0x30, b"\0\x01a\x02\x0b\x01"), Reason::PROTOCOL), // a subscription identifier
        (new, packet(0x30, b"\0\x01a\x03\x23\0\0"), Reason::MALFORMED), // alias 0
        (new, packet(0x30, b"\0\0\0"), Reason::TOPIC_INVALID), // neither topic nor alias
        (new, packet(0x30, b"\0\x01a\x07\x26\0\x01\xff\0\x01v"), Reason::MALFORMED), // a pair that is not UTF-8
        (new, packet(0x30, b"\0\x01a\x07\x26\0\x01n\0\x01\xff"), Reason::MALFORMED),
        (new, packet(0x30, b"\0\x01a\x07\x26\0\x01\0\0\x01v"), Reason::MALFORMED), // or has U+0000
        (new, packet(0x30, b"\0\x01a\x07\x26\0\x01n\0\x01\0"), Reason::MALFORMED),
        (new, packet(0x30, b"\0\x01a\x80\0"), Reason::MALFORMED),
        (new, packet(0x30, b"\0\x01a\x04\x08\0\x01#"), Reason::TOPIC_INVALID),
        (new, packet(0x82, b"\0\x01\0\0\x01a\xc0"), Reason::MALFORMED),
        (new, packet(0x82, b"\0\x01\0\0\x01a\x03"), Reason::MALFORMED),
        (new, packet(0x82, b"\0\x01\0\0\x01a\x30"), Reason::MALFORMED), // retain handling 3
        (new, packet(0x82, b"\0\x01\x02\x0b\0\0\x01a\0"), Reason::MALFORMED),
        (new, packet(0xe0, b"\x01"), Reason::MALFORMED), // no such reason
        (new, packet(0x40, b"\0\x01\x01"), Reason::MALFORMED),
        (new, packet(0xf1, b""), Reason::MALFORMED),
    ] {
        assert_eq!(one(version, &bytes).unwrap_err().reason, reason, "{bytes:x?}");
    }
}

fn message(topic: &str, payload: &[u8], properties: Option<Properties>) -> Message {
    Message {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload),
        qos: Qos::AtLeastOnce,
        retain: false,
        publisher: "".into(),
        published_unix_ns: 0,
        expires_unix_ns: None,
        properties: properties.map(Box::new),
    }
}

proptest! {
    /// What is written here, the codec crate reads; and the length that was said is the length that it has.
    #[test]
    fn messages_are_read_as_they_were_written(
        topic in "[a-z/]{1,200}",
        payload in prop::collection::vec(any::<u8>(), 0..300),
        level in 0_u8..3, retain: bool, dup: bool, packet in 1_u16..,
        ids in prop::collection::vec(1_u32..268_435_455, 0..4),
        expiry in prop::option::of(1_u32..), utf8: bool,
        content in prop::option::of("[a-z]{0,9}"), response in prop::option::of("[a-z]{1,9}"),
        correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
        user in prop::collection::vec(("[a-z]{0,9}", "[a-z]{0,9}"), 0..4),
    ) {
        let qos = Qos::from_level(level).unwrap();
        let properties = Properties { utf8, content_type: content, response_topic: response, correlation: correlation.map(Bytes::from), user };
        let message = Arc::new(message(&topic, &payload, Some(properties.clone())));
        let out = Outgoing {
            message: &message, qos, retain, dup: dup && level > 0,
            packet: if level > 0 { packet } else { 0 }, subscriptions: &ids, expiry_s: expiry,
        };
        let mut bytes = BytesMut::new();
        publish(Version::V5, &out, &mut bytes);
        prop_assert_eq!(bytes.len(), publish_len(Version::V5, &out));
        let (read, _) = v5::Codec::new(0, 0).decode(&mut bytes).unwrap().unwrap();
        let v5::Packet::Publish(read) = read else { panic!("not a PUBLISH") };
        prop_assert_eq!((&*read.topic, &read.payload[..]), (&*topic, &payload[..]));
        prop_assert_eq!((read.qos.value(), read.retain, read.dup), (level, retain, out.dup));
        prop_assert_eq!(read.packet_id.map_or(0, NonZeroU16::get), out.packet);
        let p = read.properties.unwrap();
        prop_assert_eq!(p.is_utf8_payload, utf8);
        prop_assert_eq!(p.message_expiry_interval.map(std::num::NonZeroU32::get), expiry);
        prop_assert_eq!(p.content_type.as_deref(), properties.content_type.as_deref());
        prop_assert_eq!(p.response_topic.as_deref(), properties.response_topic.as_deref());
        prop_assert_eq!(p.correlation_data, properties.correlation);
        prop_assert_eq!(p.subscription_ids.iter().map(|id| id.get()).collect::<Vec<_>>(), ids.clone());
        let user: Vec<_> = p.user_properties.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        prop_assert_eq!(user, properties.user);

        let mut bytes = BytesMut::new();
        publish(Version::V3_1_1, &out, &mut bytes);
        prop_assert_eq!(bytes.len(), publish_len(Version::V3_1_1, &out));
        let (read, _) = v3::Codec::new(0).decode(&mut bytes).unwrap().unwrap();
        let v3::Packet::Publish(read) = read else { panic!("not a PUBLISH") };
        prop_assert_eq!((&*read.topic, &read.payload[..], read.dup), (&*topic, &payload[..], out.dup));
    }

    /// Mutated packets: an answer or a fault, never a panic.
    #[test]
    fn no_bytes_bring_it_down(
        seed in 0_usize..8, version in 0_usize..3,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let seeds = [
            connect(4, 0xf6, b"\0\x01a\0\x01t\0\x01m\0\x01u\0\x01p"),
            connect(5, 0xee, b"\x05\x11\0\0\0\x09\0\x01a\x05\x18\0\0\0\x05\0\x01t\0\x01m\0\x01u\0\x01p"),
            packet(0x3b, b"\0\x03a/b\0\x07hello"),
            packet(0x3d, b"\0\x03a/b\0\x07\x0d\x03\0\x01c\x08\0\x01r\x09\0\x02dd\x01\x01hello"),
            packet(0x82, b"\0\x01\x02\x0b\x07\0\x03a/+\x2d"),
            packet(0xa2, b"\0\x01\0\0\x03a/#"),
            packet(0x62, b"\0\x01\x92\x06\x1f\0\x03why"),
            packet(0xe0, b"\x04\x05\x11\0\0\0\x09"),
        ];
        let mut bytes = seeds[seed].clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(1 + cut.index(bytes.len()));
        let mut buffer = BytesMut::from(&bytes[..]);
        let version = [None, Some(Version::V3_1_1), Some(Version::V5)][version];
        if let Ok(Some(frame)) = frame(&buffer, 1 << 20) && frame.total <= buffer.len() {
            let _ = decode(version, frame, &mut buffer);
        }
    }
}

#[test]
fn acknowledgements_and_farewells_are_read_as_they_were_written() {
    let packet = NonZeroU16::new(7).unwrap();
    for (kind, reason, words) in [
        (AckKind::Ack, Reason::SUCCESS, None),
        (AckKind::Ack, Reason::QUOTA, Some("the disk is full")),
        (AckKind::Rec, Reason::NOT_AUTHORIZED, None),
        (AckKind::Rel, Reason::SUCCESS, None),
        (AckKind::Comp, Reason::NO_SUCH_PACKET, Some("no such packet")),
    ] {
        let mut bytes = BytesMut::new();
        ack(Version::V5, kind, packet, reason, words, ROOM, &mut bytes);
        let (read, _) = v5::Codec::new(0, 0).decode(&mut bytes).unwrap().unwrap();
        let (id, code, text) = match read {
            v5::Packet::PublishAck(a) | v5::Packet::PublishReceived(a) => {
                (a.packet_id, a.reason_code.into(), a.reason_string)
            }
            v5::Packet::PublishRelease(a) | v5::Packet::PublishComplete(a) => {
                (a.packet_id, a.reason_code.into(), a.reason_string)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((id, code, text.as_deref()), (packet, reason.0, words));
    }
    let mut bytes = BytesMut::new();
    disconnect(Version::V5, Reason::SHUTTING_DOWN, Some("drain"), ROOM, &mut bytes);
    let (read, _) = v5::Codec::new(0, 0).decode(&mut bytes).unwrap().unwrap();
    let v5::Packet::Disconnect(read) = read else { panic!("{read:?}") };
    assert_eq!((u8::from(read.reason_code), read.reason_string.as_deref()), (0x8b, Some("drain")));
    disconnect(Version::V3_1_1, Reason::SHUTTING_DOWN, None, ROOM, &mut bytes);
    assert!(bytes.is_empty(), "3.1.1 has no DISCONNECT from a server");
    suback(Version::V5, packet, &[Reason(1), Reason::NOT_AUTHORIZED], &mut bytes);
    let (read, _) = v5::Codec::new(0, 0).decode(&mut bytes).unwrap().unwrap();
    assert!(matches!(read, v5::Packet::SubscribeAck(ack) if ack.status.len() == 2));
    unsuback(Version::V5, packet, &[Reason::NO_SUBSCRIPTION], &mut bytes);
    let (read, _) = v5::Codec::new(0, 0).decode(&mut bytes).unwrap().unwrap();
    assert!(matches!(read, v5::Packet::UnsubscribeAck(ack) if ack.status.len() == 1));
    let small = Room { packet_bytes_max: 20, words: true };
    ack(Version::V5, AckKind::Ack, packet, Reason::QUOTA, Some("more words than there is room for"), small, &mut bytes);
    assert_eq!(&bytes[..], &[0x40, 3, 0, 7, 0x97]);
}
